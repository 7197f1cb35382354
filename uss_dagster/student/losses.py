"""What a student is told: masks matched to queries one to one, and the losses of the pairs.

All queries are compared with all masks at once: binary cross-entropy and dice are sums over pixels, so two matrix products give them for every pair
(and a third, of the masks cut at a half, the IoU). The losses of the matched pairs are entries of the same matrices.

Learned queries: Hungarian matching by objectness, cross-entropy and dice; those without a mask only learn that they have none. Clicks: the masks that
hold the click are matched to its grains; the quality of *every* grain, matched or not, is told the IoU with the best of them, so that all
qualities can be compared (in Semantic-SAM and UnSAM grains without a match learn none). Some clicks fall anywhere; on no mask, their quality is 0:
a grid of clicks asks most often about what is nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from uss_dagster.student.net import Output
from uss_dagster.student.views import Batch

MASK, DICE, OBJECT, QUALITY = 5.0, 5.0, 2.0, 1.0
EMPTY = 0.2
"""Weight of a query without a mask in the objectness loss."""
FAR = 1e-2
"""IoU with any label up to which a query is not told that it is wrong, where labels are known to be incomplete."""
NAMES = ("mask", "dice", "objectness", "quality", "click_mask", "click_dice", "click_quality")


@dataclass
class Pairs:
    """Of N masks with K targets. mask (cross-entropy), dice: losses (B, N, K), differentiable. iou: (B, N, K), of the masks cut at a half."""

    mask: Tensor
    dice: Tensor
    iou: Tensor


def compare(logits: Tensor, targets: Tensor) -> Pairs:
    """logits: (B, N, pixels). targets: (B, K, pixels), shares in 0..1."""
    logits = logits.float()
    by_target = targets.transpose(1, 2)
    area = targets.sum(-1)[:, None]
    mask = (softplus(logits).sum(-1, keepdim=True) - logits @ by_target) / logits.shape[-1]
    share = logits.sigmoid()
    dice = 1 - (2 * (share @ by_target) + 1) / (share.sum(-1, keepdim=True) + area + 1)
    with torch.no_grad():
        held, wanted = (logits > 0).to(targets.dtype), (by_target >= 0.5).to(targets.dtype)
        shared = held @ wanted
        iou = shared / (held.sum(-1, keepdim=True) + wanted.sum(1, keepdim=True) - shared).clamp(min=1)
    return Pairs(mask, dice, iou)


def assign(cost: Tensor, known: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(image, query, target) of the pairs that cost least, one to one. cost: (B, N, K). known: bool (B, K)."""
    from scipy.optimize import linear_sum_assignment

    plain = np.nan_to_num(cost.detach().float().cpu().numpy(), nan=1e6, posinf=1e6, neginf=-1e6)
    sure = known.cpu().numpy()
    found: list[np.ndarray] = []
    for image, table in enumerate(plain):
        columns = np.flatnonzero(sure[image])
        if len(columns):
            rows, chosen = linear_sum_assignment(table[:, columns])
            found.append(np.stack([np.full(len(rows), image), rows, columns[chosen]]))
    pairs = torch.from_numpy(np.concatenate(found, 1) if found else np.zeros((3, 0), np.int64)).to(cost.device)
    return pairs[0], pairs[1], pairs[2]


def pair_losses(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """(cross-entropy, dice), each (M,), of M masks with a target each, (M, pixels)."""
    logits = logits.float()
    share = logits.sigmoid()
    mask = binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(-1)
    return mask, 1 - (2 * (share * targets).sum(-1) + 1) / (share.sum(-1) + targets.sum(-1) + 1)


def telling(logits: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Places (M, count) among the pixels of M masks (M, pixels): three quarters where the mask is least sure of three times as many random ones, the
    others anywhere (PointRend: Kirillov et al., CVPR 2020)."""
    pixels = logits.shape[-1]
    many = torch.randint(pixels, (len(logits), 3 * count), generator=generator).to(logits.device)
    unsure = logits.detach().gather(1, many).abs().topk(count * 3 // 4, largest=False).indices
    anywhere = torch.randint(pixels, (len(logits), count - count * 3 // 4), generator=generator).to(logits.device)
    return torch.cat([many.gather(1, unsure), anywhere], 1)


class Criterion:
    """The losses of a batch. learned: number of learned queries. grains: masks a click. points: places at which masks are compared, 0 for all.
    partial: see ``StudentSettings``."""

    def __init__(self, learned: int, grains: int, points: int = 0, partial: bool = False) -> None:
        self.learned, self.grains, self.points, self.partial = learned, grains, points, partial

    def counts(self, batch: Batch) -> Tensor:
        """Float32 (3,): pairs of learned queries, pairs of clicks, and clicks that learn a quality; the mean of all processes."""
        matched = batch.known.sum(1).clamp(max=self.learned).sum()
        return averaged(torch.stack([matched, (batch.wanted >= 0).sum(), self._told(batch).sum()]).float())

    def __call__(self, outputs: list[Output], batch: Batch, generator: torch.Generator, counts: Tensor | None = None) -> dict[str, Tensor]:
        """Each name's loss, weighted, added over depths. generator: on the CPU, of the places.

        counts: that sums over pairs are divided by, at first those of the batch. Several processes, or parts of one batch, whose gradients are averaged
        are given the mean: then what they learn from parts is what one learns from the whole.
        """
        counts = (self.counts(batch) if counts is None else counts).clamp(min=0.5)
        targets = batch.targets.flatten(2)
        area = int(targets.shape[-1])
        some = torch.randperm(area, generator=generator)[: self.points].to(targets.device) if 0 < self.points < area else None
        sums = {name: targets.new_zeros(()) for name in NAMES}
        for output in outputs:
            flat = output.masks.flatten(2)
            pairs = compare(flat if some is None else flat[..., some], targets if some is None else targets[..., some])
            for name, value in self._learned(output, flat, pairs, targets, batch, generator, counts).items():
                sums[name] = sums[name] + value
            for name, value in self._clicked(output, flat, pairs, targets, batch, generator, counts).items():
                sums[name] = sums[name] + value
        return sums

    def _learned(
        self, output: Output, flat: Tensor, pairs: Pairs, targets: Tensor, batch: Batch, generator: torch.Generator, counts: Tensor
    ) -> dict[str, Tensor]:
        n = self.learned
        objectness, quality = output.objectness[:, :n].float(), output.quality[:, :n].float()
        cost = MASK * pairs.mask[:, :n] + DICE * pairs.dice[:, :n] - OBJECT * objectness.sigmoid()[..., None]
        image, query, target = assign(cost, batch.known)
        mask, dice = self._pairs(flat, pairs, targets, image, query, target, generator)
        wanted = torch.zeros_like(objectness)
        wanted[image, query] = 1
        weight = torch.full_like(objectness, EMPTY)
        if self.partial:
            weight = weight * (pairs.iou[:, :n].amax(-1) > FAR)
        weight[image, query] = 1
        each = binary_cross_entropy_with_logits(objectness, wanted, reduction="none")
        gap = (quality.sigmoid()[image, query] - pairs.iou[image, query, target]).abs()
        return {
            "mask": MASK * mask.sum() / counts[0],
            "dice": DICE * dice.sum() / counts[0],
            "objectness": OBJECT * (each * weight).mean(),
            "quality": QUALITY * gap.sum() / counts[0],
        }

    def _clicked(
        self, output: Output, flat: Tensor, pairs: Pairs, targets: Tensor, batch: Batch, generator: torch.Generator, counts: Tensor
    ) -> dict[str, Tensor]:
        n, g = self.learned, self.grains
        p = batch.wanted.shape[1]
        if not p:
            return {}
        real = batch.wanted >= 0  # (B, P, G)
        index = batch.wanted.clamp(min=0)[:, :, None].expand(-1, -1, g, -1)  # (B, P, G of the answer, G of the targets)
        mask, dice, iou = (table[:, n:].unflatten(1, (p, g)).gather(3, index) for table in (pairs.mask, pairs.dice, pairs.iou))
        cost = (MASK * mask + DICE * dice).flatten(0, 1)
        click, grain, place = assign(cost, real.flatten(0, 1))
        image, query = click // p, n + (click % p) * g + grain
        target = batch.wanted.flatten(0, 1)[click, place]
        mask_loss, dice_loss = self._pairs(flat, pairs, targets, image, query, target, generator)
        best = torch.where(real[:, :, None], iou, torch.zeros_like(iou)).amax(-1)  # (B, P, G)
        said = output.quality[:, n:].float().sigmoid().unflatten(1, (p, g))
        gap = ((said - best).square() * self._told(batch)[..., None]).sum() / g
        return {
            "click_mask": MASK * mask_loss.sum() / counts[1],
            "click_dice": DICE * dice_loss.sum() / counts[1],
            "click_quality": QUALITY * gap / counts[2],
        }

    def _told(self, batch: Batch) -> Tensor:
        """Bool (B, P): clicks that learn a quality. Those on a mask, and those beside the masks of an image, unless masks may be missing there."""
        on_mask = (batch.wanted >= 0).any(-1)
        return on_mask if self.partial else on_mask | batch.known.any(1, keepdim=True)

    def _pairs(
        self, flat: Tensor, pairs: Pairs, targets: Tensor, image: Tensor, query: Tensor, target: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """(cross-entropy, dice) of matched pairs: those already there, or at places chosen for each of them."""
        if not self.points or not len(image):
            return pairs.mask[image, query, target], pairs.dice[image, query, target]
        logits, wanted = flat[image, query], targets[image, target]
        places = telling(logits, min(self.points, logits.shape[-1]), generator)
        return pair_losses(logits.gather(1, places), wanted.gather(1, places))


def averaged(values: Tensor) -> Tensor:
    """The mean over all processes of a training, where there are several."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        values = values.clone()
        torch.distributed.all_reduce(values)
        values = values / torch.distributed.get_world_size()
    return values

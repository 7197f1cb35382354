"""The losses of a student: queries are matched to target masks one to one, and each pair has losses.

All queries are compared with all targets at once. Binary cross-entropy and dice are sums over pixels, so two matrix products give them for every pair,
and a third, of thresholded masks, gives the IoU. The losses of the matched pairs are entries of the same matrices.

* Learned queries: Hungarian matching by objectness, cross-entropy and dice. A query without a target only learns that it has none.
* Clicks: the targets that contain the click are matched to its grains. The quality of *every* grain, matched or not, learns the IoU with the best of
  these targets, so that all qualities can be compared. (In Semantic-SAM and UnSAM, grains without a match learn none.) Some clicks fall anywhere;
  where no target is, their quality learns 0, since most clicks of a grid hit no object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from uss_dagster.student.net import Output
from uss_dagster.student.views import Batch

MASK, DICE, OBJECT, QUALITY = 5.0, 5.0, 2.0, 1.0
EMPTY = 0.2
"""Weight of a query without a target in the objectness loss."""
FAR = 1e-2
"""If labels are incomplete: a query whose IoU with every target is at most this does not learn that it is wrong."""
NAMES = ("mask", "dice", "objectness", "quality", "click_mask", "click_dice", "click_quality")


@dataclass
class Pairs:
    """Comparison of N masks with K targets in B images.

    Parameters
    ----------
    mask, dice : Tensor of shape (B, N, K)
        Cross-entropy and dice losses, differentiable.
    iou : Tensor of shape (B, N, K)
        Of thresholded masks.
    """

    mask: Tensor
    dice: Tensor
    iou: Tensor


def compare(logits: Tensor, targets: Tensor) -> Pairs:
    """Compare all masks with all targets. logits: (B, N, pixels). targets: (B, K, pixels), shares in 0..1."""
    logits = logits.float()
    by_target = targets.transpose(1, 2)
    area = targets.sum(-1)[:, None]
    mask = (softplus(logits).sum(-1, keepdim=True) - logits @ by_target) / logits.shape[-1]
    share = logits.sigmoid()
    dice = 1 - (2 * (share @ by_target) + 1) / (share.sum(-1, keepdim=True) + area + 1)
    with torch.no_grad():
        masks, truths = (logits > 0).to(targets.dtype), (by_target >= 0.5).to(targets.dtype)
        shared = masks @ truths
        iou = shared / (masks.sum(-1, keepdim=True) + truths.sum(1, keepdim=True) - shared).clamp(min=1)
    return Pairs(mask, dice, iou)


def assign(cost: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Match queries and targets one to one with the least total cost.

    Parameters
    ----------
    cost : Tensor of shape (B, N, K)
    valid : bool Tensor of shape (B, K)
        Which targets exist.

    Returns
    -------
    image, query, target : int64 Tensor of shape (M,)
        Indices of the pairs.
    """
    from scipy.optimize import linear_sum_assignment

    costs = np.nan_to_num(cost.detach().float().cpu().numpy(), nan=1e6, posinf=1e6, neginf=-1e6)
    matches = [np.zeros((3, 0), np.int64)]
    for image, exists in enumerate(valid.cpu().numpy()):
        columns = np.flatnonzero(exists)
        if len(columns):
            rows, places = linear_sum_assignment(costs[image][:, columns])
            matches.append(np.stack([np.full(len(rows), image), rows, columns[places]]))
    pairs = torch.from_numpy(np.concatenate(matches, 1)).to(cost.device)
    return pairs[0], pairs[1], pairs[2]


def pair_losses(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """(cross-entropy, dice), each (M,), of M masks with one target each. logits, targets: (M, pixels)."""
    logits = logits.float()
    share = logits.sigmoid()
    mask = binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(-1)
    return mask, 1 - (2 * (share * targets).sum(-1) + 1) / (share.sum(-1) + targets.sum(-1) + 1)


def uncertain_places(logits: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Sample places of M masks for the losses, as in PointRend (Kirillov et al., CVPR 2020).

    Three quarters are the most uncertain of 3 · ``count`` random places, the others are random.

    Parameters
    ----------
    logits : Tensor of shape (M, pixels)
    count : int
    generator : torch.Generator
        On the CPU.

    Returns
    -------
    int64 Tensor of shape (M, count)
    """
    pixels = logits.shape[-1]
    many = torch.randint(pixels, (len(logits), 3 * count), generator=generator).to(logits.device)
    unsure = logits.detach().gather(1, many).abs().topk(count * 3 // 4, largest=False).indices
    anywhere = torch.randint(pixels, (len(logits), count - count * 3 // 4), generator=generator).to(logits.device)
    return torch.cat([many.gather(1, unsure), anywhere], 1)


class Criterion:
    """The losses of a batch.

    Parameters
    ----------
    learned : int
        Number of learned queries.
    grains : int
        Masks a click.
    points : int, default 0
        Number of places at which masks are compared; 0 for all pixels.
    partial : bool, default False
        See ``StudentSettings``.
    slots : slice, optional
        The prompts that are corrected, see ``training_prompts.Slots``; none by default.
    """

    def __init__(self, learned: int, grains: int, points: int = 0, partial: bool = False, slots: slice = slice(0)) -> None:
        self.learned, self.grains, self.points, self.partial, self.slots = learned, grains, points, partial, slots

    def counts(self, batch: Batch) -> Tensor:
        """Number of pairs of learned queries, of pairs of clicks, and of clicks that learn a quality: float32 (3,), the mean of all processes."""
        matched = batch.valid.sum(1).clamp(max=self.learned).sum()
        return averaged(torch.stack([matched, (batch.answers >= 0).sum(), self._learns_quality(batch).sum()]).float())

    def __call__(self, outputs: list[Output], batch: Batch, generator: torch.Generator, counts: Tensor | None = None) -> dict[str, Tensor]:
        """The losses by name, weighted and added over depths.

        Parameters
        ----------
        outputs : list of Output
            One a depth.
        batch : Batch
        generator : torch.Generator
            On the CPU; draws the places.
        counts : Tensor of shape (3,), optional
            Divisors of the sums over pairs, by default ``self.counts(batch)``. If the gradients of several processes, or of parts of one batch, are
            averaged, each needs the mean of their counts. Then together they learn what one process learns from the whole batch.
        """
        counts = (self.counts(batch) if counts is None else counts).clamp(min=0.5)
        targets = batch.targets.flatten(2)
        area = int(targets.shape[-1])
        some = torch.randperm(area, generator=generator)[: self.points].to(targets.device) if 0 < self.points < area else None
        sums = {name: targets.new_zeros(()) for name in NAMES}
        for output in outputs:
            flat = output.masks.flatten(2)
            pairs = compare(flat if some is None else flat[..., some], targets if some is None else targets[..., some])
            for part in (self._learned, self._clicked) if self.learned else (self._clicked,):
                for name, value in part(output, flat, pairs, targets, batch, generator, counts).items():
                    sums[name] = sums[name] + value
        return sums

    def corrected(
        self,
        losses: dict[str, Tensor],
        rounds: Sequence[list[Output]],
        batch: Batch,
        generator: torch.Generator,
        counts: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The losses with those of corrected prompts added.

        Parameters
        ----------
        losses : dict of str to Tensor
            The result of ``__call__``.
        rounds : sequence of list of Output
            The outputs to corrected prompts by depth, one list a round.
        batch, generator, counts
            As in ``__call__``: a corrected prompt counts as much as any other.
        """
        if not rounds:
            return losses
        alone, part = Criterion(0, self.grains, self.points, self.partial, self.slots), batch.corrected(self.slots)
        each = [losses, *(alone([output.by_prompt(self.grains) for output in outputs], part, generator, counts) for outputs in rounds)]
        return {name: torch.stack([values[name] for values in each]).sum() for name in NAMES}

    def _learned(
        self, output: Output, flat: Tensor, pairs: Pairs, targets: Tensor, batch: Batch, generator: torch.Generator, counts: Tensor
    ) -> dict[str, Tensor]:
        n = self.learned
        objectness, quality = output.objectness[:, :n].float(), output.quality[:, :n].float()
        cost = MASK * pairs.mask[:, :n] + DICE * pairs.dice[:, :n] - OBJECT * objectness.sigmoid()[..., None]
        image, query, target = assign(cost, batch.valid)
        mask, dice = self._pairs(flat, pairs, targets, image, query, target, generator)
        matched = torch.zeros_like(objectness)
        matched[image, query] = 1
        weight = torch.full_like(objectness, EMPTY)
        if self.partial:
            weight = weight * (pairs.iou[:, :n].amax(-1) > FAR)
        weight[image, query] = 1
        each = binary_cross_entropy_with_logits(objectness, matched, reduction="none")
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
        p = batch.answers.shape[1]
        if not p:
            return {}
        valid = batch.answers >= 0  # (B, P, G)
        index = batch.answers.clamp(min=0)[:, :, None].expand(-1, -1, g, -1)  # (B, P, G of the answer, G of the targets)
        mask, dice, iou = (table[:, n:].unflatten(1, (p, g)).gather(3, index) for table in (pairs.mask, pairs.dice, pairs.iou))
        cost = (MASK * mask + DICE * dice).flatten(0, 1)
        click, grain, place = assign(cost, valid.flatten(0, 1))
        image, query = click // p, n + (click % p) * g + grain
        target = batch.answers.flatten(0, 1)[click, place]
        mask_loss, dice_loss = self._pairs(flat, pairs, targets, image, query, target, generator)
        best = torch.where(valid[:, :, None], iou, torch.zeros_like(iou)).amax(-1)  # (B, P, G)
        quality = output.quality[:, n:].float().sigmoid().unflatten(1, (p, g))
        gap = ((quality - best).square() * self._learns_quality(batch)[..., None]).sum() / g
        return {
            "click_mask": MASK * mask_loss.sum() / counts[1],
            "click_dice": DICE * dice_loss.sum() / counts[1],
            "click_quality": QUALITY * gap / counts[2],
        }

    def _learns_quality(self, batch: Batch) -> Tensor:
        """Clicks that learn a quality, bool (B, P): those on a target, and, unless labels are incomplete, all clicks of images with targets."""
        on_mask = (batch.answers >= 0).any(-1)
        return on_mask if self.partial else on_mask | batch.valid.any(1, keepdim=True)

    def _pairs(
        self, flat: Tensor, pairs: Pairs, targets: Tensor, image: Tensor, query: Tensor, target: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """(cross-entropy, dice) of matched pairs: from ``pairs``, or at places sampled for each pair."""
        if not self.points or not len(image):
            return pairs.mask[image, query, target], pairs.dice[image, query, target]
        logits = flat[image, query]
        places = uncertain_places(logits, min(self.points, logits.shape[-1]), generator)
        return pair_losses(logits.gather(1, places), targets[image, target].gather(1, places))


def averaged(values: Tensor) -> Tensor:
    """The mean over all processes of a training."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        values = values.clone()
        torch.distributed.all_reduce(values)
        values = values / torch.distributed.get_world_size()
    return values

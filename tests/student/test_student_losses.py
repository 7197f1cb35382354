"""Matching and losses: all pairs at once against one at a time, and what each query is told."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from student_cases import settings, source
from torch.nn.functional import binary_cross_entropy_with_logits

from uss_dagster.student import losses
from uss_dagster.student.losses import Criterion, assign, compare, pair_losses, uncertain_places
from uss_dagster.student.net import Output, StudentNet
from uss_dagster.student.views import Batch, Views


@pytest.fixture
def tensors() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (2, 5, 30) and targets (2, 3, 30)."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 5, 30, generator=generator) * 3, (torch.rand(2, 3, 30, generator=generator) * 4 - 1.5).clamp(0, 1)


def test_two_products_give_what_each_pair_gives(tensors: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, targets = tensors
    pairs = compare(logits, targets)
    for b, n, k in itertools.product(range(2), range(5), range(3)):
        x, t = logits[b, n], targets[b, k]
        assert torch.isclose(pairs.mask[b, n, k], binary_cross_entropy_with_logits(x, t), atol=1e-5)
        share = x.sigmoid()
        assert torch.isclose(pairs.dice[b, n, k], 1 - (2 * (share * t).sum() + 1) / (share.sum() + t.sum() + 1), atol=1e-5)
        held, wanted = x > 0, t >= 0.5
        assert torch.isclose(pairs.iou[b, n, k], (held & wanted).sum() / (held | wanted).sum(), atol=1e-6)
    mask, dice = pair_losses(logits[0, :3], targets[0])
    assert torch.allclose(mask, binary_cross_entropy_with_logits(logits[0, :3], targets[0], reduction="none").mean(-1))
    assert torch.allclose(dice, pairs.dice[0, torch.arange(3), torch.arange(3)], atol=1e-5)


def test_pairs_cost_least_and_unknown_targets_get_none() -> None:
    cost = torch.rand(3, 4, 3, generator=torch.Generator().manual_seed(1))
    known = torch.tensor([[True, True, True], [True, False, True], [False, False, False]])
    image, query, target = assign(cost, known)
    for b in range(3):
        here = image == b
        columns = np.flatnonzero(known[b])
        assert sorted(target[here].tolist()) == columns.tolist()
        least = min(
            (
                sum(float(cost[b, q, k]) for q, k in zip(some, columns, strict=True))
                for some in itertools.permutations(range(4), len(columns))
            ),
            default=0.0,
        )
        assert np.isclose(float(cost[b, query[here], target[here]].sum()), least)


def outputs(batch: Batch, learned: int = 4, grains: int = 3, scale: float = 1.0) -> Output:
    generator = torch.Generator().manual_seed(2)
    b, p = batch.answers.shape[:2]
    n, side = learned + p * grains, batch.targets.shape[-1]
    draw = lambda *shape: (torch.randn(*shape, generator=generator) * scale).requires_grad_()  # noqa: E731
    return Output(draw(b, n, side, side), draw(b, n), draw(b, n))


def batch_of(count: int = 2, clicks: int = 2) -> Batch:
    return Views(source(), settings(batch=count, clicks=clicks)).batch(0)


def test_every_grain_of_a_click_is_told_its_overlap_with_the_best_target() -> None:
    batch = batch_of()
    batch.answers[:, :, 1:] = -1  # one target, three grains: two are not matched
    output = outputs(batch)
    Criterion(4, 3)([output], batch, torch.Generator())["click_quality"].backward()
    assert output.quality.grad is not None
    assert (output.quality.grad[:, 4:] != 0).all()
    pairs = compare(output.masks.flatten(2), batch.targets.flatten(2))
    for b, p, g in itertools.product(range(2), range(2), range(3)):
        q = 4 + p * 3 + g
        gap = torch.sigmoid(output.quality[b, q]) - pairs.iou[b, q, batch.answers[b, p, 0]]
        assert torch.sign(output.quality.grad[b, q]) == torch.sign(gap)


@pytest.mark.parametrize("partial", [False, True])
def test_a_click_beside_all_masks_is_told_that_it_has_no_answer_unless_masks_may_be_missing(partial: bool) -> None:
    batch = batch_of()
    batch.answers[:, 1] = -1
    output = outputs(batch)
    Criterion(4, 3, partial=partial)([output], batch, torch.Generator())["click_quality"].backward()
    gradient = output.quality.grad[:, 4:].unflatten(1, (2, 3))  # type: ignore[index]
    assert (gradient[:, 1] == 0).all().item() is partial
    assert partial or (gradient[:, 1] > 0).all()
    assert (gradient[:, 0] != 0).all()


def test_an_image_without_masks_only_says_that_there_are_none() -> None:
    batch = batch_of()
    batch.valid[:] = False
    batch.targets[:] = 0
    batch.answers[:] = -1
    output = outputs(batch)
    found = Criterion(4, 3)([output], batch, torch.Generator())
    assert {name for name, value in found.items() if float(value.detach())} == {"objectness"}
    sum(found.values()).backward()  # type: ignore[union-attr]
    assert (output.objectness.grad[:, :4] > 0).all()  # type: ignore[index]
    assert not output.masks.grad.any()  # type: ignore[union-attr]


def test_with_partial_labels_a_query_far_from_all_labels_is_not_told_that_it_is_wrong() -> None:
    batch = batch_of()
    output = outputs(batch)
    far = output.masks.detach().clone()
    far[:, 3] = -9.0  # touches nothing
    far[:, 0] = batch.targets[:, 0] * 18 - 9  # has the only label
    output.masks = far.requires_grad_()
    batch.valid[:, 1:] = False
    for partial in (False, True):
        output.objectness.grad = None
        Criterion(4, 3, partial=partial)([output], batch, torch.Generator())["objectness"].backward()
        assert (output.objectness.grad[:, 3] == 0).all().item() is partial  # type: ignore[index]


def test_two_halves_of_a_batch_learn_what_the_whole_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients averaged over processes are those of one process: sums over pairs are divided by the mean number of pairs."""
    batch = batch_of(4)
    output = outputs(batch)
    sum(Criterion(4, 3)([output], batch, torch.Generator()).values()).backward()  # type: ignore[union-attr]
    whole = output.masks.grad.clone()  # type: ignore[union-attr]
    output.masks.grad = None
    halves = [slice(0, 4, 2), slice(1, 4, 2)]
    parts = [Batch(*(getattr(batch, name)[half] for name in batch.__dataclass_fields__)) for half in halves]
    seen: list[torch.Tensor] = []

    def note(values: torch.Tensor) -> torch.Tensor:
        seen.append(values)
        return values

    monkeypatch.setattr(losses, "averaged", note)
    for half, part in zip(halves, parts, strict=True):
        Criterion(4, 3)([Output(output.masks[half], output.objectness[half], output.quality[half])], part, torch.Generator())
    mean = torch.stack(seen).mean(0)
    monkeypatch.setattr(losses, "averaged", lambda values: mean)
    for half, part in zip(halves, parts, strict=True):
        found = Criterion(4, 3)([Output(output.masks[half], output.objectness[half], output.quality[half])], part, torch.Generator())
        (sum(found.values()) / 2).backward()  # type: ignore[union-attr]
    assert torch.allclose(output.masks.grad, whole, atol=1e-7)  # type: ignore[arg-type]


def test_places_are_where_masks_are_unsure_and_the_loss_there_is_near_the_whole() -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.linspace(-8, 8, 4000).repeat(2, 1)
    places = uncertain_places(logits, 400, generator)
    assert places.shape == (2, 400)
    assert logits.gather(1, places[:, :300]).abs().max() < 4
    assert logits.gather(1, places[:, 300:]).abs().max() > 6
    batch = batch_of()
    output = outputs(batch, scale=0.1)
    dense, few = (Criterion(4, 3, points)([output], batch, torch.Generator().manual_seed(0)) for points in (0, 200))
    assert float(few["dice"].detach()) == pytest.approx(float(dense["dice"].detach()), rel=0.2)


@pytest.mark.parametrize("logit", [-50.0, -88.8, -104.0, -1e4])
def test_shares_of_a_mask_that_is_nowhere_are_numbers(logit: float) -> None:
    logits = torch.full((1, 1, 4), logit)
    logits[..., 0] += 1
    logits.requires_grad_()
    shares = StudentNet.shares(logits)
    expected = torch.softmax(torch.tensor([1.0, 0, 0, 0]), 0)
    torch.testing.assert_close(shares[0, 0], expected, rtol=1e-3, atol=1e-3)
    shares[..., 0].sum().backward()
    assert torch.isfinite(logits.grad).all()

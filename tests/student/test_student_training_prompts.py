"""Where masks are clicked in training, what the answers are, and how they are corrected."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from student_cases import disc, settings, source

from uss_dagster.student.losses import NAMES, Criterion
from uss_dagster.student.model import build
from uss_dagster.student.prompts import NEGATIVE, NO_POINT, POSITIVE
from uss_dagster.student.training_prompts import Slots, click_answers, corrections_of, next_points, sample_box, sample_clicks
from uss_dagster.student.views import Views


def test_clicks_are_near_the_middle_of_masks_and_know_what_lies_there() -> None:
    masks = np.zeros((3, 24, 24), np.float32)
    masks[0, 4:20, 4:20] = 1
    masks[1, 10:14, 10:14] = 1
    masks[2, 2:5, 20:23] = 1
    points = sample_clicks(masks, np.random.default_rng(0).integers(3, size=40), np.random.default_rng(1))
    places = (points * 24).astype(int)
    assert masks[:, places[:, 1], places[:, 0]].any(axis=0).all()
    big = places[(places[:, 0] < 20) & (places[:, 1] > 5)]
    assert (np.abs(big - 12) <= 3).all()  # a disc of a tenth of 16 pixels around the middle
    indices = click_answers(masks, np.array([[0.5, 0.5], [0.25, 0.25], [0.99, 0.99]], np.float32), 3)
    assert indices.tolist() == [[1, 0, -1], [0, -1, -1], [-1, -1, -1]]


def test_of_many_masks_at_a_click_those_of_evenly_spaced_size_are_wanted() -> None:
    masks = np.array([np.pad(np.ones((2 * r, 2 * r), np.float32), 12 - r) for r in range(1, 8)])[::-1]
    assert click_answers(masks, np.array([[0.5, 0.5]], np.float32), 3).tolist() == [[6, 3, 0]]


def test_kinds_of_prompts_have_their_shares() -> None:
    assert Slots.of(settings(clicks=12)) == Slots(3, 3, slice(7, 10))  # two clicks and a box are corrected
    assert Slots.of(settings(clicks=12, box_share=0.0, corrected_share=0.0)) == Slots(3, 0, slice(12, 12))
    batch = Views(source(), settings(clicks=12, batch=4)).batch(0)
    boxed = batch.boxes[..., 2] > batch.boxes[..., 0]
    assert boxed[:, 9:].all()
    assert not boxed[:, :9].any()
    assert (batch.aims[:, 3:] >= 0).all()
    assert (batch.answers[:, 9:, 0] == batch.aims[:, 9:]).all(), "a box means one mask"
    assert (batch.answers[:, 9:, 1:] == -1).all()
    labels = batch.prompts().labels[..., 0]
    assert torch.equal(labels, torch.where(boxed, NO_POINT, POSITIVE))


def test_a_box_is_that_of_its_mask_but_for_a_fifth() -> None:
    mask = np.zeros((40, 40), bool)
    mask[10:20, 4:36] = True
    boxes = np.array([sample_box(mask, np.random.default_rng(seed)) for seed in range(200)]) * 40
    exact, side = np.array([4, 10, 36, 20]), np.array([32, 10, 32, 10])
    assert (np.abs(boxes - exact) <= 0.2 * side + 1e-4).all()
    assert (np.abs(boxes.mean(axis=0) - exact) < 0.05 * side).all()
    assert (boxes.std(axis=0) > 0.05 * side).all()


def test_the_next_point_is_deep_in_the_larger_error() -> None:
    target, large, small = disc(48, 48, 24, 16, 10), disc(48, 48, 24, 36, 9), disc(48, 48, 24, 16, 4)
    answers = [target & ~small, target | large, (target & ~disc(48, 48, 24, 16, 9.5)) | small, target]
    shape = (1, len(answers), 48, 48)
    points, labels = next_points(
        torch.from_numpy(target).expand(shape), torch.from_numpy(np.array(answers))[None], torch.rand(shape, generator=torch.Generator())
    )
    assert labels[0].tolist() == [POSITIVE, NEGATIVE, POSITIVE, NO_POINT]
    places = (points[0] * 48).long()
    for i, error in enumerate((small, large, target & ~answers[2])):
        assert error[places[i, 1], places[i, 0]]
    assert torch.linalg.vector_norm((places[1] - torch.tensor([36, 24])).float()) < 6


def test_corrected_prompts_see_the_answer_and_learn_alone() -> None:
    chosen = settings(clicks=12, batch=2)
    batch, net = Views(source(), chosen).batch(0), build(chosen)
    corrections = corrections_of(batch, chosen, torch.Generator().manual_seed(0))
    rounds = net(batch.images, batch.prompts(), corrections=corrections)
    assert [r[-1].masks.shape[1] for r in rounds] == [24 + 36, 9, 9]
    first = corrections[0](batch.prompts(), rounds[0][-1])
    assert first.points.shape == (2, 3, 2, 2)
    best = rounds[0][-1].quality[:, 24:].view(2, 12, 3)[:, 7:10].argmax(-1)
    shown = rounds[0][-1].masks[:, 24:].view(2, 12, 3, 16, 16)[:, 7:10]
    expected = shown[torch.arange(2)[:, None], torch.arange(3)[None], best] > 0
    assert first.masks is not None
    assert torch.equal(first.masks > 0, expected)
    assert (first.labels[..., 1] != NO_POINT).all()
    second = corrections[1](first, rounds[1][-1])
    assert second.points.shape == (2, 3, 3, 2)

    criterion = Criterion(24, 3, slots=slice(7, 10))
    none = dict.fromkeys(NAMES, torch.zeros(()))
    losses = criterion.corrected(none, rounds[1:], batch, torch.Generator(), criterion.counts(batch))
    assert all(value == 0 for name, value in losses.items() if not name.startswith("click"))
    sum(losses.values()).backward()  # type: ignore[union-attr]
    for name, parameter in net.prompt.named_parameters():
        assert parameter.grad is not None, name
    assert net.content.grad is None, "learned queries have no part in it"


def test_the_loss_of_a_corrected_prompt_is_that_of_its_own_mask() -> None:
    """A prompt that is answered by its mask has next to no loss, whatever the other prompts of the window are meant for."""
    chosen = settings(clicks=12, batch=2)
    batch = Views(source(), chosen).batch(0)
    slots = slice(7, 10)
    alone = batch.corrected(slots)
    assert alone.targets.shape == (6, 1, 16, 16)
    for number in range(6):
        image, prompt = divmod(number, 3)
        assert torch.equal(alone.targets[number, 0], batch.targets[image, batch.aims[image, 7 + prompt]])
    output = build(chosen)(batch.images, batch.prompts())[0][-1]
    right = (alone.targets.view(2, 3, 16, 16) * 40 - 20).repeat_interleave(3, 1)
    one_round = [replace(output, masks=right, quality=torch.full((2, 9), 20.0), objectness=torch.zeros(2, 9))]
    criterion, none, counts = Criterion(24, 3, slots=slots), dict.fromkeys(NAMES, torch.zeros(())), torch.tensor([1.0, 6.0, 6.0])
    assert float(criterion.corrected(none, [one_round], batch, torch.Generator(), counts)["click_dice"]) < 0.5
    wrong = [replace(one_round[0], masks=-right)]
    assert float(criterion.corrected(none, [wrong], batch, torch.Generator(), counts)["click_dice"]) > 3
    assert criterion.corrected(none, [], batch, torch.Generator(), counts) == none


@pytest.mark.parametrize("none", [{"corrections": 0}, {"corrected_share": 0.0}, {"clicks": 2}])
def test_corrections_can_be_left_out(none: dict) -> None:
    chosen = settings(**{"clicks": 12, "batch": 2, **none})
    batch = Views(source(), chosen).batch(0)
    assert corrections_of(batch, chosen, torch.Generator()) == []

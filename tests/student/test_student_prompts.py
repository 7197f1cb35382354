"""Prompts of points, boxes and previous masks: what the network reads of them, and what it answers."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from student_cases import disc, example, settings

from uss_dagster.errors import BadData, UsageError
from uss_dagster.student.model import CONFIG, Student, build, read_config
from uss_dagster.student.net import StudentNet
from uss_dagster.student.prompt_input import Prompt
from uss_dagster.student.prompts import NEAR, STRENGTH, Prompts, cover, greatest_where, nearness


@pytest.fixture
def net() -> StudentNet:
    """With the weights of a prompt's learned parts drawn at random, since untrained ones are 0."""
    net = build(settings()).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in net.prompt.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return net


def prompts(points: list[list[tuple[float, float]]], labels: list[list[int]], boxes: list[list[float]] | None = None) -> Prompts:
    none = [[0.0] * 4] * len(points)
    return Prompts(torch.tensor([points]), torch.tensor([labels]), torch.tensor([boxes or none]))


def answer(net: StudentNet, asked: Prompts) -> torch.Tensor:
    with torch.inference_mode():
        encoded = net.encode(torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1)))
        return net.decode(encoded, asked, learned=False)[-1].masks[0]


def test_a_box_covers_shares_of_cells_and_a_point_is_a_bell() -> None:
    share = cover(torch.tensor([[[0.125, 0.0, 0.75, 0.5], [0.0, 0.0, 0.0, 0.0]]]), 2, 4)[0]
    assert share[0].tolist() == [[0.5, 1.0, 1.0, 0.0], [0.0] * 4]
    assert not share[1].any()
    bell = nearness(torch.tensor([[[[0.5 + 0.5 / 40, 0.5 + 0.5 / 40]]]]), 40, 40)[0, 0, 0]
    assert bell[20, 20] == STRENGTH
    assert bell[20, 22] == pytest.approx(STRENGTH * np.exp(-((2 / 40) ** 2) / (2 * NEAR**2)), rel=1e-5)


def test_the_greatest_of_the_points_of_a_kind_counts() -> None:
    maps = torch.arange(6.0).view(1, 1, 3, 1, 2)
    assert greatest_where(maps, torch.tensor([[[True, True, False]]])).tolist() == [[[[2.0, 3.0]]]]
    assert greatest_where(maps - 10, torch.tensor([[[False] * 3]])).tolist() == [[[[0.0, 0.0]]]]


def test_padding_and_the_order_of_points_change_nothing(net: StudentNet) -> None:
    a, b, c = (0.2, 0.3), (0.7, 0.6), (0.4, 0.9)
    one = answer(net, prompts([[a, b, c]], [[1, 0, 1]]))
    assert torch.allclose(one, answer(net, prompts([[c, b, a]], [[1, 0, 1]])), atol=1e-4)
    assert torch.allclose(one, answer(net, prompts([[a, b, c, (0.0, 0.0)]], [[1, 0, 1, -1]])), atol=1e-4)
    together = answer(net, prompts([[a, (0.0, 0.0)], [b, c]], [[1, -1], [1, 1]]))
    assert torch.allclose(together[:3], answer(net, prompts([[a]], [[1]])), atol=1e-4), "objects do not see one another"


def test_every_part_of_a_prompt_is_heard(net: StudentNet) -> None:
    plain = prompts([[(0.2, 0.3), (0.7, 0.6)]], [[1, -1]])
    negative = prompts([[(0.2, 0.3), (0.7, 0.6)]], [[1, 0]])
    boxed = prompts([[(0.2, 0.3), (0.7, 0.6)]], [[1, -1]], [[0.1, 0.1, 0.6, 0.5]])
    masked = Prompts(plain.points, plain.labels, plain.boxes, torch.rand(1, 1, 16, 16))
    answers = [answer(net, asked) for asked in (plain, negative, boxed, masked)]
    for i, one in enumerate(answers):
        for other in answers[:i]:
            assert (one - other).abs().max() > 0.01
    empty = Prompts(plain.points, plain.labels, plain.boxes, torch.zeros(1, 1, 16, 16))
    assert torch.allclose(answers[0], answer(net, empty), atol=1e-4), "an empty mask is none"


def test_an_untrained_network_begins_with_what_it_is_given() -> None:
    """Inside its box and its previous mask more than outside, less near a negative point."""
    net = build(settings()).eval()
    point, other = (0.2, 0.3), (0.7, 0.6)
    before = answer(net, prompts([[point]], [[1]]))
    boxed = answer(net, prompts([[point]], [[1]], [[0.5, 0.5, 1.0, 1.0]])) - before
    assert boxed[:, 8:, 8:].mean() > 0 > boxed[:, :8, :8].mean()
    negative = answer(net, prompts([[point, other]], [[1, 0]])) - before
    assert negative[:, int(0.6 * 16), int(0.7 * 16)].mean() < negative.mean()


# -- in pixels ------------------------------------------------------------------------------------------


@pytest.fixture
def student(net: StudentNet) -> Student:
    return Student(net, settings())


@pytest.mark.parametrize("split", [1, 2])
def test_one_positive_point_is_a_click(student: Student, split: int) -> None:
    encoded = student.encode(example(2).image, split)
    for x, y in ((20, 13), (0, 0), (47, 39), (24, 20)):
        asked, clicked = encoded.prompt([(x, y)], [1]), encoded.clicks(np.array([[x, y]]))[0]
        assert [a.code for a in asked] == [a.code for a in clicked] == [a.code for a in encoded.click(x, y)]


def test_an_answer_can_be_refined_and_a_box_has_any_two_corners(student: Student) -> None:
    encoded = student.encode(example(2).image, 2)
    first = encoded.click(20, 13)[0]
    again = [[a.code for a in encoded.prompt([(20, 13)], mask=mask)] for mask in (first, first.mask(), 255 * first.mask().astype(np.uint8))]
    assert again[0] == again[1] == again[2]
    boxes = [[a.code for a in encoded.prompt(box=box)] for box in ((5, 8, 30, 25), (30, 25, 5, 8), (30, 8, 5, 25))]
    assert boxes[0] == boxes[1] == boxes[2]
    assert boxes[0]


def test_answers_that_agree_with_more_points_come_first(student: Student) -> None:
    points, labels = [(20, 13), (40, 30), (10, 30)], [1, 0, 1]
    answers = student.encode(example(2).image, 2).prompt(points, labels)
    agreed = [Prompt(tuple(points), tuple(labels)).agreement(a.mask()) for a in answers]
    assert agreed == sorted(agreed, reverse=True)


def test_granularity_goes_from_the_smallest_answer_to_the_largest(student: Student) -> None:
    encoded = student.encode(example(0).image, 2)
    sizes = [int(encoded.click(11, 20, granularity=g)[0].mask().sum()) for g in (0, 0.25, 0.5, 0.75, 1)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]


def test_only_windows_that_hold_all_of_a_prompt_answer() -> None:
    student = Student(build(settings()), settings())
    encoded = student.encode(example(0).image, 2)
    encoded.prompt([(3, 3), (45, 36)])
    assert list(encoded._encoded) == [0]
    encoded.prompt([(3, 3), (45, 36)], [1, 0])  # a negative point may lie outside
    assert len(encoded._encoded) == 2


def test_a_window_sees_its_part_of_a_prompt() -> None:
    mask = disc(40, 48, 20, 24, 8)
    asked = Prompt.of([(24, 20), (0, 0)], [1, 0], (20, 10, 27, 29), mask).in_window((10, 14, 20, 20), (10, 10))
    assert asked.labels.tolist() == [[[1]]]
    assert torch.allclose(asked.points, torch.tensor([[[[10.5 / 20, 10.5 / 20]]]]))
    assert torch.allclose(asked.boxes, torch.tensor([[[6 / 20, 0.0, 14 / 20, 1.0]]]))
    assert asked.masks is not None
    expected = mask[10:30, 14:34].reshape(10, 2, 10, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(asked.masks[0, 0], expected, atol=1e-6)
    assert Prompt.of([(24, 20)], None, None, mask).extent((40, 48)) == (16, 12, 32, 28)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "Nothing says where the object is"),
        ({"points": [(3, 3)], "labels": [0]}, "Nothing says where the object is"),
        ({"mask": np.zeros((40, 48), bool)}, "Nothing says where the object is"),
        ({"points": [(3, 3)], "labels": [2]}, "expected 1 for a positive and 0 for a negative one"),
        ({"points": [(3, 3)], "labels": [1, 0]}, "There are 1 points and 2 labels"),
        ({"points": [(3, 3), (48, 0)], "labels": [1, 0]}, "The point 48,0 is not in the image"),
        ({"box": (1, 2, 3)}, "The box has 3 numbers"),
        ({"box": (50, 2, 60, 9)}, "The box 50,2,60,9 is not in the image"),
        ({"mask": np.ones((4, 6), bool)}, "The previous mask has 6×4 pixels, the image 48×40"),
        ({"points": [(3, 3)], "granularity": 1.5}, "granularity is 1.5, expected 0"),
    ],
)
def test_what_cannot_be_asked(asked: dict, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        Student(build(settings()), settings()).encode(example(0).image).prompt(**asked)
    assert said in str(refused.value)


def test_a_student_of_the_format_before_is_refused_in_one_sentence(tmp_path) -> None:
    (tmp_path / CONFIG).write_text(json.dumps({"format": "uss_dagster student 1", "settings": {}}))
    with pytest.raises(BadData, match=r"its format is 'uss_dagster student 1'.*Train it again"):
        read_config(tmp_path)

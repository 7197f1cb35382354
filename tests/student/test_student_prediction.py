"""From logits to codes, trees and answers: against the plain way, and what holds of any student, trained or not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from student_cases import example, settings
from torch.nn.functional import interpolate

from uss_dagster.errors import BadData, UsageError
from uss_dagster.graphs.mask_nms import mask_nms
from uss_dagster.regions import rle
from uss_dagster.student import prediction
from uss_dagster.student.model import Student, build
from uss_dagster.student.prediction import Leaves, ScoredMasks, cut_by_window, encode_masks, nest, pyramid, stability, suppress, tiles


@pytest.fixture(scope="module")
def student() -> Student:
    """One that has learnt nothing, so its masks are of all kinds."""
    return Student(build(settings()), settings())


def test_codes_are_those_of_upsampled_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.randn(7, 6, 5, generator=torch.Generator().manual_seed(0))
    plain = interpolate(logits[None], (31, 23), mode="bilinear", align_corners=False)[0].numpy() > 0
    monkeypatch.setattr(prediction, "CHUNK_BYTES", 31 * 23 * 4 * 2)  # two masks at a time
    codes = encode_masks(logits, (0, 0, 31, 23), (31, 23))
    assert codes == rle.encode(plain)
    inside = encode_masks(logits, (4, 9, 31, 23), (40, 50))
    placed = np.zeros((7, 40, 50), bool)
    placed[:, 4:35, 9:32] = plain
    assert inside == rle.encode(placed)
    assert encode_masks(logits[:0], (0, 0, 31, 23), (31, 23)) == []


def test_suppression_is_that_of_masks() -> None:
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randn(6, 3, 3, generator=generator).repeat_interleave(5, 0)
    logits = interpolate(coarse[None], (12, 12))[0] + 0.6 * torch.randn(30, 12, 12, generator=generator)
    score = torch.rand(30, generator=generator)
    kept = suppress(logits, score, 0.6)
    assert kept.tolist() == mask_nms(rle.encode(logits.numpy() > 0), score.numpy(), 0.6).tolist()
    assert 6 <= len(kept) < 30
    assert not len(suppress(torch.full((2, 4, 4), -1.0), torch.ones(2), 0.9))  # nothing is no mask


def test_a_mask_is_stable_when_its_border_does_not_move() -> None:
    sharp = torch.full((4, 4), -9.0)
    sharp[:2] = 9
    soft = sharp.clone()
    soft[2] = -0.5
    assert stability(torch.stack([sharp, soft])).tolist() == pytest.approx([1.0, 2 / 3])


def test_tiles_cover_the_image_and_overlap() -> None:
    held = np.zeros((37, 50), int)
    for y, x, height, width in tiles((37, 50), 3):
        assert (height, width) == (15, 20)
        held[y : y + height, x : x + width] += 1
    assert held.min() >= 1
    assert (held > 1).any()


def test_windows_of_half_the_number_stand_between_the_whole_and_the_small() -> None:
    assert [len(level) for level in pyramid((37, 50), 1)] == [1]
    assert [len(level) for level in pyramid((37, 50), 3)] == [1, 9]
    assert [len(level) for level in pyramid((37, 50), 5)] == [1, 4, 25]
    whole, halves, quarters = pyramid((37, 50), 4)
    assert whole == [(0, 0, 37, 50)]
    assert halves == tiles((37, 50), 2)
    assert quarters == tiles((37, 50), 4)


def test_masks_that_touch_a_border_within_the_image_are_told() -> None:
    logits = torch.full((5, 4, 6), -1.0)
    logits[0, 1, 1] = logits[1, 0, 3] = logits[2, 2, 0] = logits[3, 3, 2] = logits[4, 1, 5] = 1
    assert cut_by_window(logits, (0, 0, 20, 30), (20, 30)).tolist() == [False] * 5
    assert cut_by_window(logits, (0, 10, 20, 20), (40, 30)).tolist() == [False, False, True, True, False]
    assert cut_by_window(logits, (5, 0, 35, 20), (40, 30)).tolist() == [False, True, False, False, True]


def two_colours() -> np.ndarray:
    """Dark up to column 22, bright from there on, with a little noise."""
    image = np.random.default_rng(0).integers(0, 6, (40, 48, 3), dtype=np.uint8) + 40
    image[:, 23:] += 150
    return image


def test_a_mask_ends_where_the_picture_changes() -> None:
    leaves = Leaves(two_colours())
    for end, window in ((21, (0, 0, 40, 48)), (25, (0, 0, 40, 48)), (24, (5, 8, 30, 36))):
        logits = torch.full((1, window[2], window[3]), -3.0)
        logits[..., : end - window[1]] = 3
        raw, snapped = (rle.decode(encode_masks(logits, window, (40, 48), how)[0], 40, 48) for how in (None, leaves))
        assert raw[10, end - 1]
        assert not raw[10, end]
        rows = slice(window[0] + 4, window[0] + window[2] - 4)  # pieces at the window's own border may reach out of it
        assert snapped[rows, window[1] + 6 : 23].all()
        assert not snapped[:, 23:].any()


def test_snapping_is_a_vote_of_the_pixels_of_each_piece() -> None:
    rng = np.random.default_rng(3)
    leaves = Leaves(rng.integers(0, 256, (24, 31, 3), dtype=np.uint8))
    for window, cells in (((0, 0, 24, 31), (6, 5)), ((7, 4, 12, 20), (6, 5)), ((7, 4, 12, 20), (1, 40))):
        y, x, height, width = window
        inside = rng.random((6, *cells), dtype=np.float32) * np.linspace(0.9, 1.3, 6, dtype=np.float32)[:, None, None]
        full = interpolate(torch.from_numpy(inside)[None], (width, height), mode="bilinear", align_corners=False)[0].numpy()
        held, lost = leaves.snap(inside, window)
        assert lost.tolist() == [not mask.any() for mask in held]
        for piece in np.unique(leaves.labels[x : x + width, y : y + height]):
            everywhere = leaves.labels == piece
            here = everywhere[x : x + width, y : y + height]
            for mask, share in zip(held, full, strict=True):
                want = share[here].mean() > 0.5 and 2 * here.sum() >= everywhere.sum()
                assert (mask[here] == want).all()


def test_a_mask_smaller_than_every_piece_stays_as_it_was() -> None:
    plain = np.full((40, 48, 3), 90, np.uint8)
    logits = torch.full((1, 40, 48), -3.0)
    logits[0, 11, 12] = 3
    assert encode_masks(logits, (0, 0, 40, 48), (40, 48), Leaves(plain)) == encode_masks(logits, (0, 0, 40, 48), (40, 48))


def test_a_tree_of_masks_is_nested_and_cuts_what_leaves_its_parent() -> None:
    whole, part, other = np.zeros((3, 20, 20), bool)
    whole[2:12, 2:12] = True
    part[4:14, 4:6] = True  # eight of ten rows inside: below nine tenths
    other[3:12, 8:10] = True
    other[12, 8] = True  # 18 of 19 pixels inside
    codes = rle.encode(np.array([part, other, whole, whole]))
    tree = nest(ScoredMasks((20, 20), codes, np.array([0.5, 0.6, 0.7, 0.4], np.float32), ["query"] * 4))
    assert tree.area.tolist() == [400, 100, 20, 18]
    assert tree.parent.tolist() == [-1, 0, 0, 1]
    assert tree.score.tolist() == pytest.approx([1, 0.7, 0.5, 0.6])
    masks = tree.masks()
    for region, above in enumerate(tree.parent.tolist()):
        assert above < 0 or not (masks[region] & ~masks[above]).any()
    lone = nest(ScoredMasks((20, 20), [], np.zeros(0, np.float32), []))
    assert lone.area.tolist() == [400]


def test_a_tree_of_more_masks_than_a_byte_counts() -> None:
    masks = np.arange(1, 301)[:, None, None] > np.arange(400).reshape(1, 20, 20)
    tree = nest(ScoredMasks((20, 20), rle.encode(masks), np.linspace(1, 0.1, 300, dtype=np.float32), ["click"] * 300))
    assert tree.area.tolist() == [400, *range(300, 0, -1)]
    assert tree.parent.tolist() == list(range(-1, 300))


@pytest.mark.parametrize("auto", ["queries", "grid", "union"])
@pytest.mark.parametrize("snap", [True, False])
def test_masks_of_an_image_are_ranked_and_repeat_little(student: Student, auto: str, snap: bool) -> None:
    found = student.masks(example(0).image, auto, grid=4, iou=0.8, snap=snap)  # type: ignore[arg-type]
    assert len(found)
    assert (np.diff(found.score) <= 0).all()
    assert ((found.score >= 0) & (found.score <= 1)).all()
    assert set(found.source) <= {"queries": {"query"}, "grid": {"click"}, "union": {"query", "click"}}[auto]
    masks = np.array([rle.decode(code, 40, 48) for code in found.codes]).reshape(len(found), -1).astype(float)
    shared = masks @ masks.T
    overlap = shared / (masks.sum(1)[:, None] + masks.sum(1) - shared)
    assert np.triu(overlap, 1).max(initial=0) < (
        0.9 if not snap else 0.8 + 1e-9
    )  # as they are they were compared at the network's own resolution
    again = student.masks(example(0).image, auto, grid=4, iou=0.8, snap=snap)  # type: ignore[arg-type]
    assert again.codes == found.codes
    few = student.masks(example(0).image, auto, most=2, grid=4, iou=0.8, snap=snap)  # type: ignore[arg-type]
    assert few.codes == found.codes[:2]
    middle = float(np.median(found.score))
    assert all(student.masks(example(0).image, auto, min_score=middle, grid=4, snap=snap).score >= middle)  # type: ignore[arg-type]


def test_windows_add_masks_and_the_tree_is_one_of_the_house(student: Student) -> None:
    image = example(1).image
    whole, split = (student.masks(image, "queries", split=split) for split in (1, 2))
    assert len(split) > len(whole)
    tree = student.segment(image, "union", grid=3, split=2)
    assert tree.is_root[0]
    assert tree.shape == image.shape[:2]
    assert (tree.parent[1:] >= 0).all()
    masks = tree.masks()
    assert not any((masks[region] & ~masks[above]).any() for region, above in enumerate(tree.parent.tolist()) if above >= 0)


def test_a_click_gives_at_most_one_mask_a_grain_best_first(student: Student) -> None:
    image = example(2).image
    for split in (1, 2):
        looked = student.encode(image, split)
        answers = looked.click(20, 13)
        assert 1 <= len(answers) <= 3
        quality = [answer.quality for answer in answers]
        assert quality == sorted(quality, reverse=True)
        assert all(answer.mask().shape == (40, 48) and answer.mask().any() for answer in answers)
        many = looked.clicks(np.array([[20, 13], [5, 30], [47, 39]]))
        assert [a.code for a in many[0]] == [a.code for a in answers]


def test_clicks_do_not_see_one_another(student: Student) -> None:
    looked = student.encode(example(0).image)
    alone = looked.click(11, 20)
    among = looked.clicks(np.array([[30, 5], [11, 20], [44, 39]]))[1]
    assert [a.quality for a in alone] == pytest.approx([a.quality for a in among], abs=1e-5)


def test_what_cannot_be_looked_at_is_refused(student: Student) -> None:
    with pytest.raises(UsageError, match="not in the image, whose columns are 0 to 47 and rows 0 to 39"):
        student.encode(example(0).image).click(48, 3)
    with pytest.raises(BadData, match="uint8"):
        student.encode(np.zeros((4, 4, 3), np.float32))
    with pytest.raises(UsageError, match="expected queries, grid or union"):
        student.masks(example(0).image, "all")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="split is 0"):
        student.masks(example(0).image, split=0)


def test_pictures_of_one_pixel_and_of_one_colour(student: Student) -> None:
    for shape in ((1, 1, 3), (1, 70, 3), (30, 30, 3)):
        image = np.full(shape, 90, np.uint8)
        assert student.segment(image, "union", grid=2).area[0] == shape[0] * shape[1]
        assert all(answer.shape == shape[:2] for answer in student.encode(image).click(0, 0))


@pytest.mark.slow
def test_three_hundred_masks_of_a_megapixel_stay_below_two_gibibytes() -> None:
    """In a process of its own: torch, the network of size S, and 300 masks of half of 1024×1024 pixels each."""
    code = """
import numpy as np
import torch
from uss_dagster.runtime import peak_memory_mb
from uss_dagster.student.model import Student, build
from uss_dagster.student.prediction import encode_masks
from uss_dagster.student.settings import StudentSettings
student = Student(build(StudentSettings("S")), StudentSettings("S"))
torch.nn.init.normal_(student.net.content)
looked = student.encode(np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), dtype=np.uint8))
logits = looked._decode(0, None, True)[0]
logits = logits - logits.flatten(1).median(1).values[:, None, None]
codes = encode_masks(logits, looked.windows[0], looked.shape, looked._leaves)
print(len(codes), sum(map(len, codes)), peak_memory_mb())
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]).stdout
    count, size, peak = out.split()
    assert int(count) == 300
    assert int(size) > 300_000
    assert float(peak) < 2048

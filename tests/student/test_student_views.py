"""Windows of pictures as batches: what is in them, and that they follow from the seed and the step alone."""

from __future__ import annotations

import numpy as np
import torch
from student_cases import example, settings, source

from uss_dagster.regions import rle
from uss_dagster.student.reduced import ReducedExample, reduce_example
from uss_dagster.student.views import Views
from uss_dagster.student.windows import OVERSAMPLE, Window, masks_of, view_of


def window_masks(example: ReducedExample, window: Window, side: int, most: int, rng: np.random.Generator) -> np.ndarray:
    """The masks that are visible in a window, float32 (K, side, side)."""
    return masks_of(view_of(example, window, 1, side * OVERSAMPLE), most, rng)


def test_a_batch_follows_from_seed_and_step_whatever_was_asked_before() -> None:
    first, second = Views(source(), settings()), Views(source(), settings())
    for step in (0, 3, 7):
        first.batch(step)
    one, other = first.batch(5), second.batch(5)
    for name in one.__dataclass_fields__:
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    assert not torch.equal(one.images, Views(source(), settings(seed=1)).batch(5).images)
    half = second.batch(5, slice(1, None, 2))
    assert torch.equal(half.images, one.images[1::2])


def test_each_pass_shows_every_picture_once(monkeypatch) -> None:
    seen = Views(source(5), settings(batch=2))
    shown = [index for step in range(5) for index in seen._indices(step)]
    assert sorted(shown[:5]) == sorted(shown[5:]) == list(range(5))
    assert shown[:5] != shown[5:]
    assert len(Views(source(2), settings(batch=8))._indices(0)) == 8


def test_a_target_is_the_share_of_each_pixel() -> None:
    picture = reduce_example(example(0), 48)
    whole = window_masks(picture, (0, 0, 40, 48), 8, 64, np.random.default_rng(0))
    truth = np.array([rle.decode(code, 40, 48) for code in example(0).codes])
    shares = truth.reshape(3, 8, 5, 8, 6).mean(axis=(2, 4))
    assert len(whole) == 3
    order = [int(np.abs(whole - share).mean(axis=(1, 2)).argmin()) for share in shares]
    assert sorted(order) == [0, 1, 2]
    assert np.abs(whole[order] - shares).max() <= 0.5
    assert np.abs(whole[order] - shares).mean() < 0.03


def test_a_window_has_only_what_can_be_seen_in_it() -> None:
    corner = np.zeros((20, 20), bool)
    corner[:6, :6] = True
    atoms = np.where(corner, 0, 1).astype(np.uint16)
    members = np.array([[True, False], [False, True], [True, True]])
    picture = ReducedExample(np.zeros((20, 20, 3), np.uint8), atoms, members, np.zeros(3, bool))
    rng = np.random.default_rng(0)
    assert len(window_masks(picture, (0, 0, 20, 20), 10, 64, rng)) == 2  # the third is all of it
    assert len(window_masks(picture, (8, 8, 12, 12), 10, 64, rng)) == 0  # the first is not there, the others fill it
    assert len(window_masks(picture, (0, 0, 20, 20), 10, 1, rng)) == 1


def test_of_too_many_masks_those_that_a_person_drew_go_first() -> None:
    atoms = np.arange(100, dtype=np.uint16).reshape(10, 10)
    human = np.zeros(100, bool)
    human[[7, 60]] = True
    picture = ReducedExample(np.zeros((10, 10, 3), np.uint8), atoms, np.eye(100, dtype=bool), human)
    chosen = []
    for seed in range(20):
        masks = window_masks(picture, (0, 0, 10, 10), 10, 5, np.random.default_rng(seed))
        assert len(masks) == 5
        assert masks[:, 0, 7].any()
        assert masks[:, 6, 0].any()
        chosen += masks.reshape(5, -1).argmax(axis=1).tolist()
    assert len(set(chosen)) > 30
    one = [window_masks(picture, (0, 0, 10, 10), 10, 1, np.random.default_rng(seed)).reshape(-1).argmax() for seed in range(20)]
    assert set(one) == {7, 60}


def test_the_cache_is_bounded_and_changes_nothing() -> None:
    reads: list[int] = []

    class Counting:
        ids, pictures = source().ids, None

        def __len__(self) -> int:
            return 6

        def __getitem__(self, index: int):
            reads.append(index)
            return example(index)

    expected = [Views(source(), settings()).batch(step).images for step in range(6)]
    kept = Views(Counting(), settings())
    assert all(torch.equal(kept.batch(step).images, images) for step, images in enumerate(expected))
    assert len(reads) == 6
    few = Views(Counting(), settings(), cache=1)
    assert all(torch.equal(few.batch(step).images, images) for step, images in enumerate(expected))
    assert len(few._cache) == 1
    assert len(reads) > 12


def test_one_click_of_four_falls_anywhere() -> None:
    batch = Views(source(), settings(batch=6, clicks=16)).batch(0)
    on_mask = (batch.answers >= 0).any(-1)
    assert on_mask[:, 4:].all()
    assert 0 < int(on_mask[:, :4].sum()) < 24

"""UnSAM: the release's resizing and conquer composition, both graphs on drawn pictures, hierarchy, calibration, blank input."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from uss_dagster import registry
from uss_dagster.backbones import patches
from uss_dagster.backbones.base import Encoder, Features
from uss_dagster.datasets.base import Sample
from uss_dagster.errors import BadData, ParameterError, UsageError
from uss_dagster.graphs.local_graph import FEATURE_POWER
from uss_dagster.graphs.mask_nms import mask_nms
from uss_dagster.graphs.patch_merging import merge_record
from uss_dagster.graphs.region_graph import region_graph
from uss_dagster.methods import _unsam_leaves as on_leaves
from uss_dagster.methods import _unsam_patches as on_patches
from uss_dagster.methods import unsam
from uss_dagster.methods._unsam_params import Cuts, LeafTrees, Merge, Pool, Refinement
from uss_dagster.methods._unsam_patches import lying_inside, resize_mask
from uss_dagster.refine.crf import crf_mask
from uss_dagster.regions import Regions

GOLDEN = Path(__file__).parents[1] / "golden" / "unsam_golden.npz"
THETAS = (0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
COLOURS = np.array([[60, 90, 60], [200, 40, 40], [230, 180, 60], [40, 60, 200]], np.uint8)


def picture(height: int = 96, width: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """(image uint8, kinds int): a disc with a square in it, and a bar, on a ground, all noisy."""
    y, x = np.indices((height, width))
    kind = np.zeros((height, width), int)
    kind[(y - 45) ** 2 + (x - 40) ** 2 < 28**2] = 1
    kind[36:54, 32:50] = 2
    kind[20:76, 92:112] = 3
    noise = np.random.default_rng(0).normal(0, 6, (height, width, 3))
    return np.clip(COLOURS[kind] + noise, 0, 255).astype(np.uint8), kind


def by_colour(images: list[np.ndarray]) -> list[Features]:
    """A stand-in for a deep backbone: cells of 4 pixels, one channel a colour of the picture, softly, and a common one."""
    found = []
    for image in images:
        h, w = image.shape[0] // 4, image.shape[1] // 4
        cells = image[: 4 * h, : 4 * w].reshape(h, 4, w, 4, 3).mean(axis=(1, 3))
        distance = ((cells[:, :, None] - COLOURS) ** 2).sum(axis=3)
        soft = np.exp(-distance / 3000)
        found.append(Features({"keys": np.concatenate([soft, np.full((h, w, 1), 0.25)], axis=2).astype(np.float32)}, "colours", True))
    return found


def deep_sample(image: np.ndarray | None = None) -> Sample:
    image = picture()[0] if image is None else image
    return Sample("drawn", image, by_colour([image])[0], by_colour)


@cache
def embedded_pool(preset: Any = "train") -> Regions:
    image, _ = picture()
    return unsam.segment(embedded_sample(image), unsam.Params(preset=preset))


def embedded_sample(image: np.ndarray) -> Sample:
    features = patches.load(patches.Params(facets=("keys",)))([image])[0]
    return Sample("drawn", image, Features(features), Encoder.of("patches", {"facets": ["keys"]}))


def check_pool(regions: Regions, shape: tuple[int, int]) -> None:
    """The whole image first, parents hold their children and are the smallest that do, nothing empty, nothing twice."""
    assert regions.shape == shape
    assert regions.is_root[0]
    assert regions.parent[0] == -1
    assert (regions.area > 0).all()
    masks = regions.masks().reshape(len(regions), -1)
    assert len({mask.tobytes() for mask in masks}) == len(masks)
    assert (np.diff(regions.area) <= 0).all()
    outside = masks.astype(np.float32) @ (~masks).astype(np.float32).T
    holders = (outside == 0) & ~np.eye(len(masks), dtype=bool)
    for child in range(1, len(regions)):
        assert holders[child, regions.parent[child]]
        assert regions.area[regions.parent[child]] == regions.area[holders[child]].min()
    assert ((regions.score >= 0) & (regions.score <= 1)).all()


def best_iou(regions: Regions, mask: np.ndarray) -> float:
    return max(np.count_nonzero(found & mask) / np.count_nonzero(found | mask) for found in regions.masks())


# -- the release ----------------------------------------------------------------------------------


def test_resized_masks_are_the_release() -> None:
    golden = np.load(GOLDEN)
    cases = sorted(key[:-3] for key in golden.files if key.startswith("rs") and key.endswith("_in"))
    assert cases
    for case in cases:
        width, height = golden[f"{case}_wh"].tolist()
        np.testing.assert_array_equal(resize_mask(golden[f"{case}_in"], height, width), golden[f"{case}_out"])


def test_boxes_hold_every_row_and_column_of_a_mask() -> None:
    golden = np.load(GOLDEN)
    for case in sorted(key[:-5] for key in golden.files if key.startswith("bb") and key.endswith("_mask")):
        mask = golden[f"{case}_mask"].astype(bool)
        if mask.any():
            first_row, last_row, first_column, last_column = golden[f"{case}_yyxx"].tolist()
            assert on_patches.bounds(mask) == (first_row, last_row + 1, first_column, last_column + 1)


def test_conquer_composition_is_the_release() -> None:
    golden = np.load(GOLDEN)
    case = f"c{int(golden['conquer_case']):02d}_features"
    if case not in golden.files:
        pytest.skip(f"The golden file here does not hold the features of '{case}'.")
    record = merge_record(golden[case])
    masks = np.concatenate([record.masks(record.clusters_at(theta)) for theta in THETAS])
    assert len(masks) == int(golden["conquer_n_before_cover"])
    whole = golden["conquer_divide"].astype(bool)
    y0, y1, x0, x1 = on_patches.bounds(whole)
    window = np.s_[y0 : y1 - 1, x0 : x1 - 1]  # the release leaves out the last row and column
    kept = [crop for _, crop in lying_inside(masks, whole[window])]
    assert len(kept) == int(golden["conquer_n_after_cover"])
    pasted = np.zeros((len(kept), *whole.shape), bool)
    pasted[:, window[0], window[1]] = kept
    pasted = pasted[mask_nms(Regions.from_masks(pasted), pasted.sum(axis=(1, 2)), 0.9, window=5)]
    expected = np.unpackbits(golden["conquer_out"], axis=1)[:, : whole.size].reshape(-1, *whole.shape).astype(bool)
    assert {mask.tobytes() for mask in pasted} == {mask.tobytes() for mask in expected}


# -- patches --------------------------------------------------------------------------------------


@pytest.mark.parametrize("refine", ["none", "guided", "crf"])
def test_patches_find_objects_and_their_parts(refine: Any) -> None:
    image, kind = picture()
    params = unsam.Params(merge=Merge(thetas=(0.95, 0.8, 0.6, 0.4)), refine=Refinement(refine))
    regions = unsam.segment(deep_sample(image), params)
    check_pool(regions, kind.shape)
    for number in (1, 2, 3):
        mask = np.isin(kind, (1, 2)) if number == 1 else kind == number
        assert best_iou(regions, mask) > (0.8 if refine == "none" else 0.85), number
    assert set(regions.source) >= {"image", "divide", "conquer"}
    assert regions.level[[source == "divide" for source in regions.source]].tolist() == [4.0] * regions.source.count("divide")


def test_an_object_that_fills_no_box_keeps_only_clusters_inside_it() -> None:
    record = merge_record(by_colour([picture()[0]])[0]["keys"])
    whole = on_patches.Piece(0, 0, np.tri(48, dtype=bool), 6, 1.0, "divide")
    for piece in on_patches.conquer(whole, record, np.ones((24, 32, 1)), THETAS, inside=0.9):
        assert (piece.crop <= whole.crop).all()


def test_large_images_are_also_cut_in_tiles() -> None:
    image = np.repeat(np.repeat(picture(128, 128)[0], 5, axis=0), 5, axis=1)
    seen: list[tuple[int, ...]] = []

    def encode(images: list[np.ndarray]) -> list[np.ndarray]:
        seen.extend(crop.shape for crop in images)
        return [features["keys"] for features in by_colour(images)]

    found = on_patches.divide(image, encode([image])[0], encode, Cuts(cells=20))
    assert seen[1:] == [(400, 400, 3)] * 4
    assert found
    seen.clear()
    on_patches.divide(image, encode([image])[0], encode, Cuts(cells=20, tiles=False))
    assert len(seen) == 1


def test_pieces_may_be_cut_from_the_image_before_it_is_reduced() -> None:
    """Tiles and boxes of 800 × 640 pixels, which are reduced to 240 × 192 for the rest; masks are as large as the image either way."""
    image = np.repeat(np.repeat(picture(128, 160)[0], 5, axis=0), 5, axis=1)
    seen: list[tuple[int, ...]] = []

    def encode(images: list[np.ndarray]) -> list[Features]:
        seen.extend(crop.shape[:2] for crop in images)
        return by_colour(images)

    sample = Sample("drawn", image, by_colour([image])[0], encode)
    params = unsam.Params(merge=Merge(thetas=(0.8, 0.4), crop=64), cuts=Cuts(cells=20), long_side=240, full_size=True)
    regions = unsam.segment(sample, params)
    assert seen[:4] == [(400, 500)] * 4
    check_pool(regions, (640, 800))
    kind = np.repeat(np.repeat(picture(128, 160)[1], 5, axis=0), 5, axis=1)
    assert best_iou(regions, kind == 3) > 0.8
    seen.clear()
    unsam.segment(sample, replace(params, full_size=False))
    assert (64, 64) in seen
    assert (400, 500) not in seen

    ramp = np.stack(np.indices((60, 90)), axis=2)
    cut = on_patches.cut_out(ramp, (20, 30), 5, 6, 7, 8)
    assert (cut[0, 0].tolist(), cut[-1, -1].tolist()) == ([15, 18], [35, 41])
    assert np.array_equal(on_patches.cut_out(ramp, (60, 90), 5, 6, 7, 8), ramp[5:12, 6:14])
    assert on_patches.cut_out(ramp[:3, :3], (20, 30), 19, 29, 1, 1).shape == (1, 1, 2)


def test_divide_masks_may_be_refined_as_maskcut_does_it() -> None:
    """Borders on the grid of 4 pixels move to those of the image; a mask that changes too much is dropped."""
    image, kind = picture()
    grid, encode = by_colour([image])[0]["keys"], lambda images: [features["keys"] for features in by_colour(images)]

    def best(cuts: Cuts) -> list[float]:
        masks = [piece.drawn(kind.shape) for piece in on_patches.divide(image, grid, encode, cuts)]
        things = (np.isin(kind, (1, 2)), kind == 3)
        return [max((float((m & t).sum() / (m | t).sum()) for m in masks), default=0.0) for t in things]

    plain, after = best(Cuts()), best(Cuts(crf=True))
    assert min(after) > 0.98
    assert all(b > a for a, b in zip(plain, after, strict=True))
    assert best(Cuts(crf=True, crf_iou=1.0)) == [0.0, 0.0]


def test_crf_mask_follows_the_image_and_fills_holes() -> None:
    square = np.zeros((40, 40), bool)
    square[10:30, 10:30] = True
    image = np.where(square[:, :, None], np.uint8(220), np.uint8(30)).repeat(3, axis=2)
    moved = np.roll(square, 3, axis=1)
    moved[18:20, 18:20] = False
    assert crf_mask(moved, image).tolist() == square.tolist()
    likely = np.where(moved, np.e / (1 + np.e), 1 / (1 + np.e))
    np.testing.assert_allclose(likely[[0, 15], [0, 15]], [0.2689, 0.7311], atol=1e-4)


def test_masks_may_tell_where_they_come_from() -> None:
    image, _ = picture()
    thetas = (0.95, 0.8, 0.6, 0.4)
    params = unsam.Params(merge=Merge(thetas=thetas))
    plain, told = unsam.segment(deep_sample(image), params), unsam.segment(deep_sample(image), replace(params, pool=Pool(history=True)))
    assert [s.partition(" ")[0].strip(",") for s in told.source] == list(plain.source)
    assert plain.masks().tolist() == told.masks().tolist()
    wholes = {s: i for i, s in enumerate(told.source) if s.startswith("divide")}
    assert len(wholes) == plain.source.count("divide")
    for i, source in enumerate(told.source):
        if source.startswith("conquer"):
            _, whole, theta, *merged = source.split(", ")
            assert float(theta.removeprefix("theta ")) == thetas[int(told.level[i])]
            if merged:
                assert -1 <= float(merged[0].removeprefix("merged at ")) <= 1
            if whole in wholes:
                assert not (told.mask(i) & ~told.mask(wholes[whole])).any()


@pytest.mark.parametrize("graph", ["dense", "local"])
def test_divide_masks_may_come_from_a_file(tmp_path: Path, graph: Any) -> None:
    """Label pictures of the bar, and of nothing: divide masks are these, at the size of the image; clusters of patches lie within them."""
    image, kind = picture()
    for name, labels in (("drawn", np.where(kind == 3, 1, 255)), ("empty", np.full(kind.shape, 255))):
        Image.fromarray(labels.astype(np.uint8)).save(tmp_path / f"{name}.png")
    samples = Listed([deep_sample(image), replace(deep_sample(image), image_id="empty"), replace(deep_sample(image), image_id="other")])
    params = unsam.Params(graph=graph, divide="masks", masks=str(tmp_path), merge=Merge(thetas=(0.95, 0.8)), pool=Pool(iou=1.0))
    state = unsam.fit(samples, params)
    assert state is not None
    assert state.masks == {"drawn": "drawn", "empty": "empty"}
    regions = unsam.segment(samples[0], params, state)
    check_pool(regions, kind.shape)
    wholes = [i for i, source in enumerate(regions.source) if source == "divide"]
    assert len(wholes) == 1
    overlap = regions.mask(wholes[0])[kind == 3].mean(), regions.mask(wholes[0])[kind != 3].mean()
    assert overlap == (1, 0) if graph == "dense" else (overlap[0] > 0.9 and overlap[1] < 0.02)
    if graph == "dense":
        assert all(not (regions.mask(i) & (kind != 3)).any() for i in range(1, len(regions)))
    for sample in samples[1:]:
        assert "divide" not in unsam.segment(sample, params, state).source
    with pytest.raises(UsageError, match="needs the state"):
        unsam.segment(samples[0], params)


class Listed(list[Sample]):
    """Samples in memory."""

    @property
    def ids(self) -> list[str]:
        return [sample.image_id for sample in self]


def test_masks_that_divide_are_planned_by_dataset(tmp_path: Path) -> None:
    (tmp_path / "cutler").mkdir()
    (tmp_path / "cutler" / "voc.json").write_text("{}")
    params = unsam.Params(divide="masks", masks="cutler/{dataset}.json")
    assert unsam.for_dataset(params, "voc", tmp_path).masks == "cutler/voc.json"
    assert unsam.for_dataset(unsam.Params(), "voc", tmp_path) == unsam.Params()
    with pytest.raises(ParameterError, match=r"cutler/coco.json does not exist. .*correct 'masks'") as refused:
        unsam.for_dataset(params, "coco", tmp_path)
    assert refused.value.path == ("masks",)
    for wrong in ({"divide": "masks"}, {"masks": "a.json"}):
        with pytest.raises(ParameterError, match="masks go with divide=masks, and only with it"):
            unsam.Params(**wrong)  # type: ignore[arg-type]


def test_thresholds_leave_the_numbers_asked_for() -> None:
    grids = [np.random.default_rng(seed).standard_normal((16, 16, 4)).cumsum(axis=0).cumsum(axis=1) for seed in range(5)]
    records = [merge_record(grid) for grid in grids]
    targets = (40.0, 20.0, 8.0, 2.0)
    thetas = unsam.calibrated(records, targets)
    assert list(thetas) == sorted(thetas, reverse=True)
    assert len(set(thetas)) == 4
    for theta, target in zip(thetas, targets, strict=True):
        left = np.mean([record.n - record.merges_at(theta) for record in records])
        finer = np.mean([record.n - record.merges_at(theta + 0.02) for record in records])
        assert left <= target
        assert finer >= left
        assert left > target - 8


def test_fit_calibrates_the_dense_graph_only_and_its_state_is_used() -> None:
    dense = unsam.Params(graph="dense")
    state = unsam.fit([deep_sample()], dense)
    assert state is not None
    assert len(state.thetas) == 6
    check_pool(unsam.segment(deep_sample(), dense, state), (96, 128))
    assert unsam.fit([deep_sample()], unsam.Params(merge=Merge(thetas=THETAS))) is None
    for params in (unsam.Params(), unsam.Params(graph="local")):
        assert unsam.fit([deep_sample()], params) is None
    image = picture()[0][:32, :32]
    assert unsam.fit([embedded_sample(image)], unsam.Params()) is None
    with pytest.raises(UsageError, match="nothing was fitted"):
        unsam.segment(deep_sample(), dense)
    with pytest.raises(UsageError, match="without its backbone"):
        unsam.segment(Sample("drawn", deep_sample().image, deep_sample().features), unsam.Params(merge=Merge(thetas=THETAS)))


def alike(keys: np.ndarray) -> np.ndarray:
    """Keys of the same structure with a large common part: all cosines are above 0.6."""
    return np.concatenate([keys, np.full((*keys.shape[:2], 1), 2.0, keys.dtype)], axis=2)


def test_keys_that_are_all_alike_are_cut_by_their_own_distribution() -> None:
    image, kind = picture()
    keys = alike(by_colour([image])[0]["keys"])
    assert len(on_patches.divide(image, keys, None, Cuts(tau_mode="absolute"), confidence=0.0)) == 0
    relative = on_patches.divide(image, keys, None, Cuts(), confidence=0.0)
    assert relative
    pool = on_patches.regions_of(relative, kind.shape)
    assert best_iou(pool, kind == 3) > 0.7
    plain = by_colour([image])[0]["keys"]
    same = [on_patches.divide(image, plain, None, Cuts(tau_mode=mode)) for mode in ("auto", "absolute")]
    assert [piece.code(kind.shape) for piece in same[0]] == [piece.code(kind.shape) for piece in same[1]]


# -- leaves ---------------------------------------------------------------------------------------


def deep_leaf_pool(image: np.ndarray, common: bool = False, **leaves: Any) -> Regions:
    keys = by_colour([image])[0]["keys"]
    features = Features({"keys": alike(keys) if common else keys}, "colours", True)
    return unsam.segment(Sample("drawn", image, features), unsam.Params(leaves=LeafTrees(**leaves)))


def test_a_network_needs_no_option_whether_its_keys_are_alike_or_not() -> None:
    image, kind = picture()
    spread, common = deep_leaf_pool(image), deep_leaf_pool(image, common=True)
    check_pool(spread, kind.shape)
    assert len(spread) > 20
    assert spread.rles() == common.rles()
    for number in (1, 2, 3):
        assert best_iou(spread, np.isin(kind, (1, 2)) if number == 1 else kind == number) > 0.85, number


def test_features_of_a_network_decide_what_belongs_together() -> None:
    """Two halves of one colour that only the network tells apart, with a seam of another colour between them."""
    image = np.full((64, 96, 3), 120, np.uint8) + np.random.default_rng(0).integers(0, 9, (64, 96, 3), dtype=np.uint8)
    image[:, 32:34] = image[:, 62:64] = 60
    keys = np.zeros((16, 24, 2), np.float32)
    keys[:, :8, 0] = keys[:, 8:, 1] = 1
    right = np.zeros((64, 96), bool)
    right[:, 33:] = True
    scores = {}
    for weight in (0.0, 1.0):
        pool = unsam.segment(
            Sample("halves", image, Features({"keys": keys}, "two", True)), unsam.Params(leaves=LeafTrees(token_weight=weight))
        )
        masks = pool.masks()[1:]
        overlap = (masks & right).sum(axis=(1, 2)) / (masks | right).sum(axis=(1, 2))
        scores[weight] = int(np.argmax(np.argsort(-pool.score[1:]) == np.argmax(overlap))), float(overlap.max())
    assert scores[1.0][1] > 0.9
    assert scores[1.0][0] <= scores[0.0][0]


def test_contrast_is_that_to_the_leaves_around() -> None:
    labels = np.repeat(np.arange(4), 8)[None].repeat(6, axis=0)
    graph = region_graph(labels)
    features = np.array([[0.0, 0], [2, 0], [2, 0], [0, 1]])
    leaves = on_leaves.Leaves(labels, [graph], np.bincount(labels.ravel()), {"backbone": features}, graph, True)
    members = np.array([[0, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]], bool)
    twice = 2 * FEATURE_POWER**0.5
    # the mean around the middle is (0, 0.5); the whole image has nothing around it, which counts as zero
    expected = [np.hypot(2, 0.5) / twice, 2 / twice, np.hypot(1, 0.25) / twice]
    np.testing.assert_allclose(on_leaves.contrast(leaves, members), expected, rtol=1e-6)


def test_leaves_find_objects_and_their_parts() -> None:
    _, kind = picture()
    regions = embedded_pool()
    check_pool(regions, kind.shape)
    for number in (1, 2, 3):
        assert best_iou(regions, np.isin(kind, (1, 2)) if number == 1 else kind == number) > 0.85, number
    assert len(regions) <= 1001


def test_clean_keeps_fewer_than_train() -> None:
    clean = embedded_pool("clean")
    check_pool(clean, (96, 128))
    assert 3 < len(clean) < len(embedded_pool())
    assert clean.score.min() >= 0.2


def test_the_same_image_gives_the_same_bytes() -> None:
    image, _ = picture()
    again = unsam.segment(embedded_sample(image), unsam.Params())
    assert again.rles() == embedded_pool().rles()
    np.testing.assert_array_equal(again.score, embedded_pool().score)
    np.testing.assert_array_equal(again.parent, embedded_pool().parent)


@pytest.mark.slow
def test_masks_of_a_large_image_have_its_size_and_no_more_memory_than_needed() -> None:
    image = np.repeat(np.repeat(picture()[0], 8, axis=0), 8, axis=1)
    sample = embedded_sample(image)
    tracemalloc.start()
    regions = unsam.segment(sample, unsam.Params(leaves=LeafTrees(most=200, trees=1, depth=2)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert regions.shape == (768, 1024)
    assert peak < 400e6


# -- blank, tiny and wrong ------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (1, 17), (9, 2), (40, 30)])
def test_one_colour_leaves_the_image_alone(shape: tuple[int, int]) -> None:
    image = np.full((*shape, 3), 77, np.uint8)
    for sample in (embedded_sample(image), Sample("plain", image, Features({"keys": np.ones((2, 3, 4))}, "made up", True), by_colour)):
        regions = unsam.segment(sample, unsam.Params(merge=Merge(thetas=THETAS)))
        assert regions.is_root.tolist() == [True]


def test_tiny_images_with_some_colour_are_divided_or_not() -> None:
    rng = np.random.default_rng(1)
    for shape in ((2, 2), (1, 9), (7, 5)):
        image = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
        check_pool(unsam.segment(embedded_sample(image), unsam.Params()), shape)
        check_pool(unsam.segment(embedded_sample(image), unsam.Params(refine=Refinement("guided"))), shape)


def test_features_without_any_structure_leave_the_image_alone() -> None:
    image = np.random.default_rng(2).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    sample = Sample("noise", image, Features({"keys": np.ones((10, 8, 4))}, "made up", True), by_colour)
    assert len(unsam.segment(sample, unsam.Params(merge=Merge(thetas=THETAS)))) == 1


def test_refused_parameters_and_features() -> None:
    for wrong, message in (
        ({"merge": {"thetas": (0.1, 0.5)}}, "merge.thetas is .* each below the one before"),
        ({"merge": {"thetas": ()}}, "one or more"),
        ({"merge": {"clusters": (2.0, 8.0)}}, "falling"),
        ({"cuts": {"rounds": 0}}, "cuts.rounds is 0"),
        ({"leaves": {"trees": 99}}, "leaves.trees is 99, expected 0 to 6"),
        ({"divide": "student"}, "a model goes with divide=student"),
    ):
        with pytest.raises(UsageError, match=message):
            registry.build_params(unsam.Params, wrong, "unsam")
    image = picture()[0]
    broken = Sample("broken", image, Features({"keys": np.full((4, 4, 2), np.nan)}, "made up", True), by_colour)
    with pytest.raises(BadData, match="no grid of finite features"):
        unsam.segment(broken, unsam.Params(merge=Merge(thetas=THETAS)))

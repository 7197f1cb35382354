"""LightCluster and its rivals over a dataset: each rule on its own, the whole on made-up keys, and datasets with nothing to find."""

from __future__ import annotations

import hashlib
import itertools
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uss_dagster import registry
from uss_dagster.backbones.base import Features
from uss_dagster.datasets.base import Sample
from uss_dagster.errors import BadData, Unavailable, UsageError
from uss_dagster.graphs.streaming_kmeans import RowFile
from uss_dagster.methods import _lightcluster_masks as masks
from uss_dagster.methods import comus_lite, lightcluster, lightcluster_oracle, token_kmeans
from uss_dagster.methods._lightcluster_masks import consistency, denoised, image_foreground, pixel_mask, pooled_vote, soft_mask
from uss_dagster.methods._lightcluster_params import Agreement
from uss_dagster.methods._objects import ClassRule, ObjectRule, cluster_vectors, crop_of, object_masks, spectral_classes
from uss_dagster.methods._points import drawn, unit_grid
from uss_dagster.methods.lightcluster import Params, merge_small
from uss_dagster.metrics import semantic
from uss_dagster.metrics.base import Truth
from uss_dagster.pixels import bilinear
from uss_dagster.refine.crf import Crf, Kernels, dense_crf
from uss_dagster.regions import ClassTree, Regions

COLOURS = np.array([[200, 40, 40], [40, 190, 60], [50, 60, 210]], np.uint8)
PLAIN = registry.build_params(
    Params,
    {
        "mask": {"refine": "none"},
        "classes": {"count": 3},
        "categories": {"count": 1, "min_images": 1},
        "agreement": {"min_patches": 2},
        "objects": {"crop": 16},
    },
    "lightcluster",
)


def changed(params: Params, **values: object) -> Params:
    """Other parameters, by dotted names with ``__`` in the place of the dot."""
    flat = registry.flat_params(params) | {name.replace("__", "."): value for name, value in values.items()}
    return registry.build_params(Params, registry.nested_params(flat), "lightcluster")


def encode(pictures: list[np.ndarray]) -> list[Features]:
    """The direction of the colour in the middle of a picture, as a class token."""
    return [Features({"cls": p[p.shape[0] // 4 : -(p.shape[0] // 4)].reshape(-1, 3).mean(axis=0) - 90}) for p in pictures]


def picture(number: int, kind: int, *, noise: float = 0.1, invert: bool = False, box: tuple[slice, slice] | None = None) -> Sample:
    """A square object of one colour on grey, 12 × 16 patches of 4 pixels. invert: the class token looks at everything but the object."""
    rng = np.random.default_rng(number)
    y, x = rng.integers(2, 5), rng.integers(2, 8)
    place = box or (slice(y, y + 6), slice(x, x + 6))
    mask = np.zeros((12, 16), bool)
    mask[place] = True
    keys = np.where(mask[:, :, None], np.eye(8)[0], np.eye(8)[1]) + noise * rng.normal(size=(12, 16, 8))
    image = np.where(mask[:, :, None], COLOURS[kind], np.uint8(90)).astype(np.uint8)
    attention = np.where(mask ^ invert, 1.0, 0.1) + 0.01 * rng.random(mask.shape)
    found = {"keys": keys, "tokens": keys, "cls": np.eye(3)[kind] + 0.01, "cls_attention": attention / attention.sum()}
    return Sample(f"image{number:03d}", np.kron(image, np.ones((4, 4, 1), np.uint8)), Features(found, comparable=True), encode)


def object_of(sample: Sample) -> np.ndarray:
    return (sample.image != 90).any(axis=2)


def dataset(n: int = 9, **how: object) -> list[Sample]:
    return [picture(number, number % 3, **how) for number in range(n)]  # type: ignore[arg-type]


def run(samples: list[Sample], params: Params = PLAIN) -> list[Regions]:
    state = lightcluster.fit(samples, params)
    return [lightcluster.segment(sample, params, state) for sample in samples]


def mask_of(regions: Regions) -> np.ndarray:
    return regions.masks()[regions.label >= 0].any(axis=0)


def everything(regions: Regions) -> bytes:
    fields = ("atoms", "members", "parent", "level", "score", "label")
    return b"".join(getattr(regions, name).tobytes() for name in fields) + "".join(regions.source).encode()


def truth_of(sample: Sample, kind: int, classes: ClassTree) -> Truth:
    return Truth("classes", Regions.from_label_map(np.where(object_of(sample), 1 + kind, 4), use_labels=True), classes)


# -- the whole ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"patches__pca": 4},
        {"foreground__vote": "per_image"},
        {"agreement__iterate": 1},
        {"classes__clustering": "spectral"},
        {"objects__mirror": True},
    ],
)
def test_objects_and_classes_of_made_up_keys_are_found(values: dict[str, object]) -> None:
    samples = dataset()
    classes = ClassTree.from_nested({"red": "foreground", "green": "foreground", "blue": "foreground", "ground": "background"})
    meter = semantic.accumulator()
    for number, (sample, regions) in enumerate(zip(samples, run(samples, changed(PLAIN, **values)), strict=True)):
        found, wanted = mask_of(regions), object_of(sample)
        assert (found & wanted).sum() / (found | wanted).sum() > 0.95
        assert set(regions.source) == {"agree"}
        assert regions.label.tolist()[:2] == [-1, -1]
        meter.update(sample.image_id, truth_of(sample, number % 3, classes), regions)
    scores = meter.result()
    assert scores["foreground_iou"] > 0.95
    # every object has its class: what is missing from 1 are the pixels on the border of the interpolated mask
    assert scores["comus_miou"] > 0.95
    # in that convention pixels without a cluster, so all background, are missed
    assert 0.7 < scores["hungarian_miou"] < 0.75


@pytest.mark.parametrize("level", ["dataset", "category", "image"])
def test_each_level_alone(level: str) -> None:
    samples = dataset(4)
    for sample, regions in zip(samples, run(samples, changed(PLAIN, agreement__mask_from=level)), strict=True):
        assert (mask_of(regions) != object_of(sample)).mean() < 0.03
        assert set(regions.source) == {f"{level} level"}


def test_a_few_images_that_are_wrong_about_themselves_do_not_flip_a_cluster() -> None:
    samples = [picture(number, number % 3, invert=number in (1, 5)) for number in range(8)]
    params = changed(PLAIN, foreground__rule="cls_attn")
    own = run(samples, changed(params, agreement__mask_from="image"))
    assert (mask_of(own[1]) != object_of(samples[1])).mean() > 0.9
    for sample, regions in zip(samples, run(samples, changed(params, agreement__mask_from="dataset")), strict=True):
        assert (mask_of(regions) != object_of(sample)).mean() < 0.03


def test_parts_come_from_patches_of_the_foreground() -> None:
    samples = dataset(4)
    state = lightcluster.fit(samples, params := changed(PLAIN, classes__source="patch_tokens", classes__count=2))
    assert state.parts is not None
    assert len(state.parts) == 2
    for sample in samples:
        regions = lightcluster.segment(sample, params, state)
        assert set(regions.label.tolist()) <= {-1, 0, 1}
        assert (mask_of(regions) != object_of(sample)).mean() < 0.03


PROGRAM = """
import hashlib, pickle, sys
sys.path.insert(0, sys.argv[1])
from test_lightcluster import PLAIN, dataset, everything
from uss_dagster.methods import lightcluster
samples = dataset()
state = lightcluster.fit(samples, PLAIN)
print(hashlib.sha256(pickle.dumps(state) + b"".join(everything(lightcluster.segment(s, PLAIN, state)) for s in samples)).hexdigest())
"""


def test_same_seed_same_bytes_whatever_the_threads() -> None:
    digests = []
    for threads in ("1", "2"):
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        told = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(Path(__file__).parent)], capture_output=True, text=True, env=environment, check=True
        )
        digests.append(told.stdout.strip())
    samples = dataset()
    state = lightcluster.fit(samples, PLAIN)
    stored = pickle.dumps(state)
    here = [everything(lightcluster.segment(sample, PLAIN, pickle.loads(stored))) for sample in samples]
    assert digests == 2 * [hashlib.sha256(stored + b"".join(here)).hexdigest()]
    assert len(stored) < 10_000


# -- each rule ----------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 6), st.integers(0, 10_000))
def test_the_vote_does_not_depend_on_the_numbers_of_clusters(k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    total = rng.integers(1, 1000, k).astype(float)
    inside = np.floor(total * rng.random(k))
    order = rng.permutation(k)
    assert pooled_vote(inside[order], total[order]).tolist() == pooled_vote(inside, total)[order].tolist()
    assert 1 <= pooled_vote(inside, total).sum() <= max(k - 1, 1)


def test_the_vote_on_small_numbers() -> None:
    total = np.array([100.0, 100.0, 100.0])
    assert pooled_vote(np.array([90.0, 55.0, 5.0]), total).tolist() == [True, True, False]  # base 0.5
    assert pooled_vote(np.array([90.0, 80.0, 70.0]), total).tolist() == [True, False, False]  # base 0.8 outdoes the half
    assert pooled_vote(np.array([40.0, 30.0, 0.0]), total).tolist() == [True, False, False]  # none qualifies: the best
    assert pooled_vote(np.array([40.0, 20.0, 30.0]), total, share=0.1).tolist() == [True, False, False]
    assert not pooled_vote(np.zeros(3), np.zeros(3)).any()
    # a cluster that no patch has does not turn up as foreground
    assert pooled_vote(np.array([30.0, 0.0]), np.array([100.0, 0.0])).tolist() == [True, False]


def grid(*rows: str) -> np.ndarray:
    return np.array([[cell == "#" for cell in row] for row in rows])


RING = grid("........", ".####...", ".#..#...", ".####...", "........")
FILLED = grid("........", ".####...", ".####...", ".####...", "........")
RIGHT = grid(".......#", "......##", "......##", "......##", ".......#")
NONE = np.zeros_like(RING)


@pytest.mark.parametrize(
    ("dataset_mask", "category", "image", "weak", "expected", "branch"),
    [
        (RING, RING, FILLED, False, FILLED, "agree"),
        (RIGHT, FILLED, FILLED, False, FILLED, "category"),
        (FILLED, RIGHT, FILLED, False, FILLED, "dataset"),
        (RIGHT, RIGHT, FILLED, True, RIGHT, "agree"),
        (RIGHT, RIGHT, FILLED, False, RIGHT, "majority"),
        (RIGHT, NONE, FILLED, False, FILLED, "image"),
        (NONE, NONE, FILLED, True, NONE, "empty"),
        (NONE, NONE, FILLED, False, FILLED, "image"),
    ],
)
def test_branches_of_the_agreement(
    dataset_mask: np.ndarray, category: np.ndarray, image: np.ndarray, weak: bool, expected: np.ndarray, branch: str
) -> None:
    found, taken = consistency(dataset_mask, category, image, weak, Agreement())
    assert taken == branch
    assert found.tolist() == expected.tolist()


def test_what_denoising_leaves_nothing_of_falls_back_to_the_largest_part() -> None:
    two = grid("##......", "##......", "........", "#.......", "........")
    found, branch = consistency(two, two, two, False, Agreement(min_patches=5))
    assert branch == "largest"
    assert found.tolist() == grid("##......", "##......", "........", "........", "........").tolist()


def test_denoising_removes_islands_that_the_image_itself_does_not_know() -> None:
    mask = grid("#####..##", "#####..##", "#####....", "........#", "#####....", "#####.###")
    image = grid("#####....", "#####....", "....#....", ".........", ".........", "#......##")
    wanted = grid("#####....", "#####....", "#####....", ".........", "#####....", "#####....")
    # the upper right four are unknown to the image, the dot is too small, the lower right three are two thirds in it but too small
    assert denoised(mask, image, Agreement()).tolist() == wanted.tolist()
    assert denoised(mask, image, Agreement(min_patches=2))[5, 6:].all()
    # an island that is most of the mask stays whatever the image says
    assert denoised(RIGHT, NONE, Agreement()).tolist() == RIGHT.tolist()


def test_small_groups_join_the_nearest() -> None:
    centres = np.array([[0.0, 0], [1, 0], [5, 0], [5.5, 0]], np.float32)
    assert merge_small(centres, np.array([30, 3, 25, 25]), 20).tolist() == [0, 0, 1, 2]
    assert merge_small(centres, np.array([3, 3, 3, 3]), 20).tolist() == [0, 0, 0, 0]
    assert merge_small(centres, np.array([30, 30, 30, 30]), 20).tolist() == [0, 1, 2, 3]
    assert merge_small(np.zeros((0, 2), np.float32), np.zeros(0, int), 20).tolist() == []


def test_the_image_is_judged_by_its_border_where_border_and_attention_disagree() -> None:
    sample = picture(0, 0, invert=True)
    units, _ = unit_grid(sample, "keys")
    own = object_of(sample)[::4, ::4]
    for rule, expected in (("both", own), ("border", own), ("cls_attn", ~own)):
        foreground = replace(PLAIN.foreground, rule=rule)  # type: ignore[arg-type]
        mask, weak = image_foreground(units, sample.features["cls_attention"], PLAIN.clusters, foreground)
        assert mask.tolist() == expected.tolist()
        assert not weak
    tiny = picture(0, 0, noise=0.01, box=(slice(5, 6), slice(5, 6)))
    assert image_foreground(unit_grid(tiny, "keys")[0], tiny.features["cls_attention"], PLAIN.clusters, PLAIN.foreground)[1]


def test_a_refinement_that_changes_the_area_out_of_all_proportion_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = picture(0, 0)
    units, own = unit_grid(sample, "keys")[0], object_of(sample)[::4, ::4]
    plain = pixel_mask(units, own, sample.image, PLAIN.mask)
    with_crf = replace(PLAIN.mask, refine="crf")
    assert pixel_mask(units, own, sample.image, with_crf).tolist() == object_of(sample).tolist()
    for share, used in ((0.0, False), (0.05, False), (0.5, True), (1.0, False)):
        made_up = np.zeros(own.shape, bool).repeat(4, 0).repeat(4, 1)
        made_up.ravel()[: int(share * made_up.size if share in (0, 1) else share * plain.sum())] = True
        monkeypatch.setattr(masks, "dense_crf", lambda both, image, iterations, m=made_up: np.stack([~m, m]).astype(np.float32))
        assert pixel_mask(units, own, sample.image, with_crf).tolist() == (made_up if used else plain).tolist()
    for mask in (np.zeros_like(own), np.ones_like(own)):
        assert pixel_mask(units, mask, sample.image, with_crf).all() == mask.all()


def test_the_constants_of_the_crf_are_parameters() -> None:
    """The mask is that of the CRF with these constants; without any kernel it is the mask as it was."""
    sample = picture(0, 0, noise=0.4)
    units, own = unit_grid(sample, "keys")[0], np.roll(object_of(sample)[::4, ::4], 1, axis=1)
    soft = bilinear(soft_mask(units, own, 0.07), *sample.image.shape[:2])
    kernels = {"gauss_std": 3.0, "gauss_weight": 2.0, "bilateral_xy": 20.0, "bilateral_rgb": 13.0, "bilateral_weight": 7.0}
    params = changed(PLAIN, mask__refine="crf", **{f"mask__crf__{name}": value for name, value in kernels.items()})
    assert params.mask.crf == Kernels(**kernels)
    after = dense_crf(np.stack([1 - soft, soft]), sample.image, Crf(iterations=10, **kernels))
    got = pixel_mask(units, own, sample.image, params.mask)
    assert got.tolist() == (after[1] > after[0]).tolist()
    none = changed(PLAIN, mask__refine="crf", mask__crf__gauss_weight=0.0, mask__crf__bilateral_weight=0.0)
    assert pixel_mask(units, own, sample.image, none.mask).tolist() == (soft > 0.5).tolist()
    assert got.tolist() != (soft > 0.5).tolist()


@pytest.mark.parametrize("facet", ["queries", "values"])
def test_queries_and_values_are_clustered_as_keys_are(facet: str) -> None:
    samples = dataset()
    other = [
        replace(s, features=Features({facet: s.features["keys"], **{k: s.features[k] for k in ("cls", "cls_attention")}})) for s in samples
    ]
    params = changed(PLAIN, patches__facet=facet)
    assert lightcluster.SPEC.facets_read(params) == (facet, "cls", "cls_attention")
    assert [everything(r) for r in run(other, params)] == [everything(r) for r in run(samples)]


def test_a_state_fitted_to_other_images_segments_these() -> None:
    """Centres, vote and classes of one split on another: objects are found, and classes are those of the first split."""
    state = lightcluster.fit(dataset(9), PLAIN)
    others = [picture(number, number % 3) for number in range(20, 26)]
    regions = [lightcluster.segment(sample, PLAIN, state) for sample in others]
    differ = [int((mask_of(r) != object_of(s)).sum()) for r, s in zip(regions, others, strict=True)]
    assert max(differ) <= 4, "corners, which interpolation rounds"
    labels = [int(r.label[-1]) for r in regions]
    assert labels[:3] == labels[3:]
    assert len(set(labels)) == 3


def test_soft_masks_follow_the_keys() -> None:
    sample = picture(3, 1)
    soft = soft_mask(unit_grid(sample, "keys")[0], own := object_of(sample)[::4, ::4], 0.07)
    assert soft[own].min() > 0.99
    assert soft[~own].max() < 0.01


def test_patches_of_odd_length_get_the_mean_of_their_neighbours() -> None:
    sample = picture(0, 0, noise=0.0)
    keys = sample.features["keys"] * (1 + 0.01 * np.random.default_rng(0).random((12, 16, 1)))
    clean = unit_grid(Sample("a", sample.image, Features({"keys": keys})), "keys", 3.0)[0]
    keys[0, 0] = 40 * np.eye(8)[5]
    odd = Sample("a", sample.image, Features({"keys": keys}))
    units, trusted = unit_grid(odd, "keys", 3.0)
    assert np.argwhere(~trusted).tolist() == [[0, 0]]
    assert np.allclose(units[0, 0], clean[0, 1], atol=1e-6)
    assert unit_grid(odd, "keys")[0][0, 0].argmax() == 5
    assert len(drawn(units, trusted, 1000, 0, "a")) == 12 * 16 - 1
    some = drawn(units, trusted, 20, 0, "a")
    assert some.tolist() == drawn(units, trusted, 20, 0, "a").tolist()
    assert len(some) == 20


def test_objects_of_a_mask() -> None:
    mask = np.zeros((40, 50), bool)
    for y, x, size in ((1, 1, 9), (20, 20, 12), (1, 30, 6), (38, 48, 1)):
        mask[y : y + size, x : x + size] = True
    assert [int(m.sum()) for m in object_masks(mask, ObjectRule())] == [144, 81, 36]
    assert [int(m.sum()) for m in object_masks(mask, ObjectRule(most=2))] == [144, 81]
    assert [int(m.sum()) for m in object_masks(mask, ObjectRule(most=2, surplus="merge"))] == [180, 81]
    assert [int(m.sum()) for m in object_masks(mask, ObjectRule(regions="whole"))] == [262]
    assert object_masks(mask & False, ObjectRule()) == object_masks(mask & False, ObjectRule(regions="whole")) == []
    image = np.arange(40 * 50, dtype=np.int64).reshape(40, 50, 1) % 251 * np.ones((1, 1, 3), np.int64)
    image = image.astype(np.uint8)
    whole = object_masks(mask, ObjectRule())[0]
    assert crop_of(image, whole, ObjectRule(margin=0.0, crop=12)).tolist() == image[20:32, 20:32].tolist()
    assert crop_of(image, whole, ObjectRule(margin=0.25, crop=18)).tolist() == image[17:35, 17:35].tolist()
    ring = whole.copy()
    ring[24:28, 24:28] = False
    black = crop_of(image, ring, ObjectRule(margin=0.0, crop=12, mask_background=True))
    assert not black[4:8, 4:8].any()


def test_spectral_classes_follow_the_graph() -> None:
    rng = np.random.default_rng(0)
    # two arcs of the circle, each longer than the gap between them is wide
    angle = np.concatenate([rng.uniform(0, 2, 40), rng.uniform(3, 6, 60)])
    points = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    labels = spectral_classes(points, 2, neighbours=5)
    assert labels.tolist() == [0] * 40 + [1] * 60
    assert spectral_classes(points[:3], 20).tolist() == [0, 1, 2]


@pytest.mark.parametrize("seed", range(5))
def test_matching_by_iou_is_the_best_of_all_matchings(seed: int) -> None:
    table = np.random.default_rng(seed).integers(0, 50, (5, 5))
    overlap = table / (table.sum(axis=1)[:, None] + table.sum(axis=0) - table)
    best = max(sum(overlap[order[c], c] for c in range(5)) for order in itertools.permutations(range(5)))
    assert semantic.one_to_one_by_iou(table).miou == pytest.approx(best / 5)


# -- nothing to find ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lightcluster", "token_kmeans", "comus_lite"])
def test_datasets_with_nothing_in_them(name: str) -> None:
    module = registry.load("method", name)
    params = PLAIN if name == "lightcluster" else module.Params(**({"k": 3} if name == "token_kmeans" else {"crop": 16}))
    module.fit([], params)
    plain = Sample("plain", np.full((12, 16, 3), 90, np.uint8), Features({
        "keys": np.zeros((12, 16, 8)), "tokens": np.zeros((12, 16, 8)), "cls": np.zeros(3), "cls_attention": np.full((12, 16), 1 / 192),
    }), encode)  # fmt: skip
    for samples in ([plain], [plain] * 3, [picture(0, 0)], [picture(0, 0)] * 4):
        state = module.fit(samples, params)
        found = [module.segment(sample, params, state) for sample in samples]
        for sample, regions in zip(samples, found, strict=True):
            assert regions.shape == sample.image.shape[:2]
            assert regions.pruned().area[0] == regions.atoms.size
        assert len({everything(regions) for regions in found}) == 1
    whole = picture(0, 0, box=(slice(0, 12), slice(0, 16)))
    module.segment(whole, params, module.fit([whole, *dataset(3)], params))


def test_a_dataset_of_weak_images_has_no_foreground() -> None:
    tiny = [picture(number, 0, noise=0.01, box=(slice(5, 6), slice(5 + number, 6 + number))) for number in range(3)]
    for regions in run(tiny):
        assert set(regions.source) == {"empty, weak image"}
        assert mask_of(regions).sum() == 0


def test_fewer_regions_than_classes_and_a_category_of_three_images() -> None:
    samples = [picture(number, 0 if number < 3 else 1) for number in range(9)]
    params = changed(PLAIN, classes__count=50, categories__count=2, categories__min_images=3)
    state = lightcluster.fit(samples, params)
    assert len(state.category) == 2
    assert len({state.groups.of(sample) for sample in samples}) == 2
    labels = [int(lightcluster.segment(sample, params, state).label.max()) for sample in samples]
    assert 0 <= min(labels) <= max(labels) < 9
    assert len(lightcluster.fit(samples, changed(params, categories__min_images=4)).category) == 1
    assert cluster_vectors(RowFile(), ClassRule(5)) is None


def test_wrong_parameters_are_refused() -> None:
    for name, value in (("clusters.k_image", 0), ("agreement.agree_iou", 2.0), ("objects.crop", 2)):
        with pytest.raises(UsageError, match=f"^lightcluster: {name} is {value}, expected ") as caught:
            registry.build_params(Params, registry.nested_params({name: value}), "lightcluster")
        assert caught.value.path == tuple(name.split("."))
    with pytest.raises(UsageError, match="which is not unsupervised"):
        lightcluster.fit(dataset(2), changed(PLAIN, categories__source="oracle"))
    with pytest.raises(UsageError, match="class tokens of their pictures"):
        lightcluster.fit([replace(sample, encode=None) for sample in dataset(3)], PLAIN)


# -- rivals -------------------------------------------------------------------------------------------


def test_the_oracle_is_marked_and_groups_by_the_file(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("image_id,category\n" + "".join(f"image{n:03d},{'cat' if n < 3 else 'car'}\n" for n in range(9)), encoding="utf-8")
    sections = {name: getattr(PLAIN, name) for name in ("mask", "classes", "agreement", "objects")}
    params = lightcluster_oracle.Params(image_labels=str(path), **sections)
    samples = dataset()
    state = lightcluster_oracle.fit(samples, params)
    assert lightcluster_oracle.SPEC.supervised
    assert not lightcluster.SPEC.supervised
    assert [state.groups.of(sample) for sample in samples] == [1] * 3 + [0] * 6
    assert (mask_of(lightcluster_oracle.segment(samples[0], params, state)) != object_of(samples[0])).mean() < 0.03
    with pytest.raises(UsageError, match="'image009'"):
        lightcluster_oracle.fit([*samples, picture(9, 0)], params)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(lightcluster_oracle.read_categories(path, digest.upper())) == 9
    with pytest.raises(BadData, match=f"the sha256 {digest}"):
        lightcluster_oracle.read_categories(path, "0" * 64)
    with pytest.raises(Unavailable, match="no file of image labels"):
        lightcluster_oracle.read_categories(tmp_path / "none.csv")
    path.write_text("id,label\na,b\n", encoding="utf-8")
    with pytest.raises(BadData, match="'id', 'label'"):
        lightcluster_oracle.read_categories(path)
    with pytest.raises(UsageError, match="Without labels"):
        lightcluster_oracle.fit(samples, lightcluster_oracle.Params())
    with pytest.raises(UsageError, match=r"categories.source is 'cls_kmeans', expected 'oracle'"):
        lightcluster_oracle.Params(categories=PLAIN.categories)
    kept = registry.build_params(lightcluster_oracle.Params, {"categories": {"count": 2}}, "lightcluster_oracle").categories
    assert (kept.source, kept.count) == ("oracle", 2)


@pytest.mark.parametrize("changed", [{}, {"pca": 4}, {"refine": "guided"}])
def test_token_kmeans_clusters_what_the_tokens_tell_apart(changed: dict[str, object]) -> None:
    samples, params = dataset(5), token_kmeans.Params(k=2, **changed)  # type: ignore[arg-type]
    state = token_kmeans.fit(samples, params)
    labels = set()
    for sample in samples:
        regions = token_kmeans.segment(sample, params, state)
        label = regions.label[regions.deepest()]
        inside = np.bincount(label[object_of(sample)]).argmax()
        labels.add(int(inside))
        assert ((label == inside) != object_of(sample)).mean() < 0.05
        assert regions.label[0] == -1
    assert len(labels) == 1


def test_comus_lite_finds_what_is_attended_to() -> None:
    samples = dataset()
    params = comus_lite.Params(classes=3, neighbours=2, crop=16, mass=0.6)
    state = comus_lite.fit(samples, params)
    found = [comus_lite.segment(sample, params, state) for sample in samples]
    for sample, regions in zip(samples, found, strict=True):
        assert (mask_of(regions) & object_of(sample)).sum() / (mask_of(regions) | object_of(sample)).sum() > 0.6
    labels = [int(regions.label.max()) for regions in found]
    assert labels == labels[:3] * 3
    assert len(set(labels)) == 3

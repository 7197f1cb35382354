"""contour_merge: what it promises on plain, degenerate and large images, and on real photographs."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from trees import check_tree

from uss_dagster import registry
from uss_dagster.datasets.base import Sample, mirror_folder
from uss_dagster.errors import BadData, UsageError
from uss_dagster.methods import contour_merge
from uss_dagster.metrics import covering
from uss_dagster.metrics.base import Accumulator, Truth
from uss_dagster.metrics.covering import tree_covering
from uss_dagster.pixels import shrink_long_side
from uss_dagster.regions import ClassTree, Regions

PRESETS = tuple(name for name in contour_merge.PRESETS if name != "objects")
"""Those without a backbone."""


def run(image: np.ndarray, **values: object) -> Regions:
    return contour_merge.segment(Sample("image", image), registry.build_params(contour_merge.Params, values, "contour_merge"))


def scene(scale: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """(image, labels): sky over ground, a sun in the sky, a house on the ground, all with a little noise."""
    y, x = np.indices((120 * scale, 160 * scale)) / scale
    labels = np.where(y < 60, 1, 2)
    labels[(y - 28) ** 2 + (x - 120) ** 2 < 300] = 3
    labels[(y >= 70) & (y < 106) & (x >= 20) & (x < 64)] = 4
    colours = np.array([[0, 0, 0], [110, 160, 230], [70, 120, 60], [240, 210, 60], [170, 60, 50]])
    noise = np.random.default_rng(0).normal(0, 4, (*labels.shape, 3))
    return np.clip(colours[labels] + noise, 0, 255).astype(np.uint8), labels


@pytest.mark.parametrize("preset", PRESETS)
def test_finds_the_regions_of_a_plain_scene(preset: str) -> None:
    image, labels = scene()
    classes = ClassTree.from_nested(dict.fromkeys(("sky", "ground", "sun", "house"), "foreground"))
    truth = Truth("classes", Regions.from_label_map(labels, use_labels=True), classes)
    regions = run(image, preset=preset)
    check_tree(regions, labels.shape)
    assert tree_covering(truth, regions).iou.min() > 0.9


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (1, 40), (40, 1), (3, 7), (50, 20)])
@pytest.mark.parametrize("kind", ["flat", "noise", "halves"])
def test_degenerate_images(preset: str, shape: tuple[int, int], kind: str) -> None:
    image = np.full((*shape, 3), 120, np.uint8)
    if kind == "noise":
        image = np.random.default_rng(1).integers(0, 256, image.shape).astype(np.uint8)
    if kind == "halves":
        image[: (shape[0] + 1) // 2, : (shape[1] + 1) // 2] = 20
    regions = run(image, preset=preset)
    check_tree(regions, shape)
    if kind == "flat":
        assert len(regions) == 1, "an image of one colour has one region"


def test_a_large_image_is_reduced_and_keeps_its_edges() -> None:
    image, labels = scene(8)  # 960 × 1280
    regions = run(image)
    check_tree(regions, labels.shape)
    assert len(regions) < 2 * 600
    truth = Truth("classes", Regions.from_label_map(labels, use_labels=True), ClassTree.from_nested(dict.fromkeys("abcd", "foreground")))
    assert tree_covering(truth, regions).iou.min() > 0.95
    assert shrink_long_side(image, 480).shape == (360, 480, 3)
    assert shrink_long_side(image[:640, :640], 480).shape == (640, 640, 3), "up to 4/3 of long_side nothing changes"


@pytest.mark.parametrize(("reduced", "full"), [((7, 10), (7, 10)), ((6, 8), (61, 80)), ((1, 1), (1, 1)), ((48, 64), (480, 641))])
def test_enlarging_keeps_every_label(reduced: tuple[int, int], full: tuple[int, int]) -> None:
    half = np.arange(((reduced[0] + 1) // 2) * ((reduced[1] + 1) // 2)).reshape((reduced[0] + 1) // 2, -1)
    large = contour_merge.enlarged(half, reduced, full)
    assert large.shape == full
    assert set(large.ravel().tolist()) == set(half.ravel().tolist())
    if reduced == full:
        np.testing.assert_array_equal(large, np.repeat(np.repeat(half, 2, 0), 2, 1)[: full[0], : full[1]])


def test_few_leaves() -> None:
    image = np.random.default_rng(5).integers(0, 256, (200, 300, 3)).astype(np.uint8)
    regions = run(image, most_leaves=40)
    check_tree(regions, (200, 300))
    assert len(regions) == 79
    assert len(run(image, most_leaves=1)) == 1


def test_averaged_and_single_trees_share_their_leaves() -> None:
    image, labels = scene()
    averaged, single = run(image), run(image, average=False)
    for regions in (averaged, single):
        check_tree(regions, labels.shape)
    leaves = [np.setdiff1d(np.arange(len(r)), r.parent) for r in (averaged, single)]
    pairs = np.unique(np.stack([averaged.atoms.ravel(), single.atoms.ravel()]), axis=1)
    assert pairs.shape[1] == averaged.members.shape[1] == single.members.shape[1]
    assert sorted(averaged.area[leaves[0]]) == sorted(single.area[leaves[1]])
    assert averaged.parent.tolist() != single.parent.tolist()


@pytest.mark.parametrize("preset", PRESETS)
def test_height_power_scales_all_levels(preset: str) -> None:
    image, _ = scene()
    plain, half, whole = (run(image, preset=preset, height_power=power) for power in (0.0, 0.5, 1.0))
    assert plain.parent.tolist() == half.parent.tolist() == whole.parent.tolist()
    assert whole.level[0] == 1
    np.testing.assert_allclose(half.level, plain.level / np.sqrt(plain.level[0]), rtol=1e-6)


THREADS = """
import hashlib, numpy as np
from uss_dagster.datasets.base import Sample
from uss_dagster.methods import contour_merge
rng = np.random.default_rng(0)
image = np.kron(rng.integers(0, 256, (10, 15, 3)), np.ones((24, 24, 1), int)) + rng.integers(-20, 20, (240, 360, 3))
regions = contour_merge.segment(Sample("image", np.clip(image, 0, 255).astype(np.uint8)), contour_merge.Params())
print(hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in (regions.atoms, regions.parent, regions.level))).hexdigest())
"""


def test_same_bytes_on_any_number_of_threads() -> None:
    import os

    digests = set()
    for threads in ("1", "4"):
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
        environment = {**os.environ, **dict.fromkeys(names, threads)}
        out = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True, check=True, env=environment)
        digests.add(out.stdout)
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"preset": "r2"}, "preset"),
        ({"colour_radii": (3, 6)}, "equally many"),
        ({"colour_radii": (), "texture_radii": ()}, "1 or more"),
        ({"orientations": 0}, "orientations is 0"),
        ({"textons": 300}, "textons is 300"),
        ({"most_leaves": 0}, "most_leaves is 0"),
    ],
)
def test_bad_parameters_are_refused(values: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        registry.build_params(contour_merge.Params, values, "contour_merge")


def test_a_preset_gives_way_to_what_is_given() -> None:
    params = registry.build_params(contour_merge.Params, {"preset": "r0_fast", "orientations": 6}, "contour_merge")
    assert params.cues.orientations == 6
    assert params.cues.colour_radii == (3.0, 12.0)


def test_images_of_another_kind_are_refused() -> None:
    with pytest.raises(BadData, match="uint8"):
        run(np.zeros((10, 10), np.uint8))


@pytest.mark.slow
def test_beats_felzenszwalb_on_photographs() -> None:
    folder = mirror_folder("bsds500")
    if folder is None:
        pytest.skip("BSDS500 IS NOT HERE: set USS_MIRROR to a folder that holds bsds500/ to run this test.")
    from uss_dagster.artifacts.image_files import decode

    bsds = registry.load("dataset", "bsds500")
    names = ("contour_merge", "felzenszwalb")
    scores = {name: Accumulator(covering.measure, covering.reduce) for name in names}
    for example in bsds.examples(bsds.Params(limit=8)):
        sample = Sample(example.image_id, decode(example.image, example.image_id))
        for name in names:
            method = registry.load("method", name)
            regions = method.segment(sample, method.SPEC.params())
            scores[name].update(example.image_id, Truth("annotators", example.truth), regions)
    nm = {name: accumulator.result()["nm_covering_annotators"] for name, accumulator in scores.items()}
    assert nm["contour_merge"] > nm["felzenszwalb"] + 0.03, nm

"""The drawn scenes: deterministic, prefix-stable, and a true tree of regions in every picture."""

import hashlib
import subprocess
import sys
import time

import numpy as np
import pytest

from uss_dagster import registry
from uss_dagster.artifacts.image_files import decode
from uss_dagster.datasets import scenes
from uss_dagster.errors import UsageError
from uss_dagster.regions import ClassTree
from uss_dagster.regions.classes import BACKGROUND
from uss_dagster.scenes.drawing import SMALLEST, Canvas, Light, Thing, box, rasterise
from uss_dagster.scenes.textures import plain

CLASSES = scenes.SPEC.classes
assert CLASSES is not None

PARTS: dict[str, tuple[str, ...]] = {
    "house": ("wall", "roof", "door", "window", "chimney", "aerial"),
    "tree": ("trunk", "crown"),
    "flower": ("stem", "leaf", "petals", "centre"),
    "potted plant": ("leaves", "pot"),
    "car": ("body", "window", "wheel"),
    "bicycle": ("wheel", "frame", "saddle"),
    "boat": ("hull", "mast", "sail"),
    "person": ("legs", "torso", "arms", "head"),
    "bird": ("legs", "tail", "body", "wing", "head"),
    "fish": ("tail", "fin", "body"),
    "cat": ("tail", "body", "head"),
    "butterfly": ("wing", "body"),
    "coral": ("base", "branches"),
    "chair": ("legs", "seat", "back"),
    "table": ("legs", "top"),
    "sofa": ("legs", "back", "seat", "arm", "cushion"),
    "rug": ("border", "field"),
    "painting": ("frame", "canvas"),
    "floor lamp": ("base", "pole", "shade"),
    "street lamp": ("post", "lantern"),
}
"""Object class → its parts; a part's class is named '<object> <part>'."""

DIGEST = """
import hashlib
from uss_dagster.datasets import scenes
h = hashlib.sha256()
for e in scenes.examples(scenes.Params(images=5, seed=3)):
    h.update(e.image); h.update(e.truth.atoms.tobytes()); h.update(e.truth.members.tobytes()); h.update(e.truth.label.tobytes())
print(h.hexdigest())
"""


@pytest.fixture(scope="module")
def drawn():
    return list(scenes.examples(scenes.Params(images=20)))


def digest(example) -> str:
    parts = (example.image, example.truth.atoms, example.truth.members, example.truth.parent, example.truth.label)
    return hashlib.sha256(b"".join(p if isinstance(p, bytes) else p.tobytes() for p in parts)).hexdigest()


def test_it_is_a_plug_in_and_its_helpers_are_not():
    assert "scenes" in registry.names("dataset")
    assert not any(name.startswith("_") for name in registry.names("dataset"))


def test_two_processes_draw_the_same_bytes():
    one, two = (subprocess.run([sys.executable, "-c", DIGEST], capture_output=True, text=True, check=True).stdout for _ in range(2))
    assert one == two
    assert len(one.strip()) == 64


def test_a_shorter_series_is_the_beginning_of_a_longer_one(drawn):
    first = list(scenes.examples(scenes.Params(images=6)))
    assert [digest(e) for e in first] == [digest(e) for e in drawn[:6]]
    other = next(iter(scenes.examples(scenes.Params(images=1, seed=1))))
    assert digest(other) != digest(drawn[0])


def test_ids_are_sorted_and_unique(drawn):
    ids = [e.image_id for e in drawn]
    assert ids == sorted(set(ids))
    assert {(e.suffix, e.split) for e in drawn} == {(".jpg", "all")}


def test_truth_has_the_size_of_the_picture_and_both_orientations_occur(drawn):
    shapes = [decode(e.image, e.image_id).shape for e in drawn]
    assert [s[:2] for s in shapes] == [e.truth.shape for e in drawn]
    assert any(h > w for h, w, _ in shapes)
    assert any(h < w for h, w, _ in shapes)
    assert len(set(shapes)) >= 3


def test_every_picture_is_a_tree_that_tiles_it(drawn):
    for e in drawn:
        t = e.truth
        assert t.parent[0] == -1
        assert t.label[0] == 0
        assert bool(t.is_root[0])
        assert int(t.is_root.sum()) == 1
        assert (t.parent[1:] >= 0).all()
        assert (t.area > 0).all()
        leaves = np.setdiff1d(np.arange(len(t)), t.parent)
        assert (t.members[leaves].sum(axis=0) == 1).all(), "leaves tile the picture"
        assert (t.area[leaves] >= SMALLEST).all()
        for region in np.setdiff1d(np.arange(len(t)), leaves):  # a parent is the disjoint union of its children
            assert np.array_equal(t.members[t.parent == region].sum(axis=0), t.members[region].astype(int))
        assert int(t.depth.max()) == 2


def test_regions_come_in_preorder_with_the_background_first(drawn):
    for e in drawn:
        t = e.truth
        last_at: dict[int, int] = {}
        for region in range(1, len(t)):  # preorder: the parent is the last region seen one level up
            last_at[int(t.depth[region - 1])] = region - 1
            assert t.parent[region] == last_at[int(t.depth[region]) - 1]
        background = np.array([CLASSES.kind[c] == BACKGROUND for c in t.label[1:]])
        assert background[0]
        assert (np.diff(background.astype(int)) <= 0).all(), "no background after the first object"


def test_a_childs_class_lies_below_its_parents_class(drawn):
    for e in drawn:
        t = e.truth
        for region in range(1, len(t)):
            above, below = t.label[t.parent[region]], t.label[region]
            assert above != below
            assert CLASSES.ancestors[above, below]
            if t.depth[region] == 2:
                assert CLASSES.parent[below] == above, "a part hangs on its own object's class"


def test_the_class_tree_has_enough_objects_parts_and_levels():
    objects = [n for n in PARTS if sum(p == CLASSES.names.index(n) for p in CLASSES.parent) >= 2]
    assert len(objects) >= 8
    assert set(objects) == set(PARTS)
    for name, parts in PARTS.items():
        below = [node for node, parent in enumerate(CLASSES.parent) if parent == CLASSES.names.index(name)]
        assert [CLASSES.names[node] for node in below] == [f"{name} {part}" for part in parts]
    assert int(CLASSES.depth.max()) == 3
    assert len(set(CLASSES.names)) == len(CLASSES)
    assert ClassTree.from_json(CLASSES.to_json()) == CLASSES


@pytest.mark.slow
def test_every_object_class_and_nearly_every_part_is_drawn_sooner_or_later():
    seen: set[str] = set()
    for e in scenes.examples(scenes.Params(images=40, seed=5)):
        seen |= {CLASSES.names[c] for c in e.truth.label}
    assert set(PARTS) <= seen
    parts = {f"{name} {part}" for name, kinds in PARTS.items() for part in kinds}
    assert len(parts - seen) <= 3, parts - seen


def test_one_class_comes_in_many_colours(drawn):
    colours = []
    for e in drawn:
        image = decode(e.image, e.image_id)
        for region in np.flatnonzero(e.truth.label == CLASSES.names.index("fish body")):
            colours.append(image[e.truth.mask(int(region))].mean(axis=0))
    assert len(colours) >= 5
    assert np.std(colours, axis=0).max() > 20


def test_it_is_neither_trivial_nor_hopeless_for_clusters_of_colour(drawn):
    """Mean over regions of the best overlap with a connected patch of one of 8 colours, as NMCovering counts it."""
    from scipy.ndimage import label
    from skimage.color import rgb2lab
    from sklearn.cluster import KMeans

    from uss_dagster.regions import Regions
    from uss_dagster.regions.regions import intersections

    scores = []
    for e in drawn[:10]:
        image = decode(e.image, e.image_id)
        lab = rgb2lab(image).reshape(-1, 3)
        colour = KMeans(8, n_init=1, random_state=0, max_iter=30).fit(lab[::8]).predict(lab).reshape(image.shape[:2])
        patches, count = np.zeros_like(colour), 0
        for k in range(8):
            connected, n = label(colour == k)
            patches[colour == k] = connected[colour == k] + count - 1
            count += n
        found = Regions.from_label_map(patches)
        shared = intersections(e.truth, found)
        iou = shared / (e.truth.area[:, None] + found.area[None] - shared)
        scores.append(iou.max(axis=1)[~e.truth.is_root].mean())
    assert 0.25 < np.mean(scores) < 0.5


def test_drawing_stays_affordable():
    start = time.process_time()
    for _ in scenes.examples(scenes.Params(images=10)):
        pass
    assert (time.process_time() - start) / 10 < 0.4  # about 0.1 s on an idle core


def test_impossible_parameters_are_refused():
    for values, text in (({"images": 0}, "images is 0"), ({"seed": -1}, "'seed' is -1"), ({"pictures": 3}, "no parameter 'pictures'")):
        with pytest.raises(UsageError, match=text):
            registry.build_params(scenes.Params, values, "dataset 'scenes'")


# -- the canvas -------------------------------------------------------------------------------------

LIGHT = Light((0.0, -1.0), np.ones(3, np.float32), 0.5, np.ones(3, np.float32))
RED = np.array([1.0, 0.0, 0.0], np.float32)


def canvas() -> Canvas:
    c = Canvas(40, 60, np.random.default_rng(0), LIGHT)
    c.backdrop("sky", np.ones((40, 60), np.float32), np.zeros((40, 60, 3), np.float32))
    return c


def test_coverage_of_a_box_is_its_area_to_a_sub_pixel():
    stencil = rasterise(box(10.25, 5.5, 20.75, 9.0), 40, 60)
    assert stencil is not None
    assert 10.5 * 3.5 - 1e-3 <= stencil.alpha.sum() <= 10.75 * 3.75 + 0.1
    assert rasterise(box(70, 5, 80, 9), 40, 60) is None
    outside = rasterise(box(-5, -5, 5, 5), 40, 60)
    assert outside is not None
    assert 25 - 1e-3 <= outside.alpha.sum() <= 5.25**2 + 0.1


def test_labels_follow_the_paint():
    """Where a part owns the pixel, at least half of the colour is the part's."""
    c = canvas()
    t = Thing(c, "house", 30, 35, 20)
    t.part("wall", box(-0.5, 0, 0.5, 1), plain(RED, 0.0), flat=True)
    c.place(t, shadow=0)
    assert np.array_equal(c.rgb[..., 0] >= 0.5, c.owner == 1)


def test_what_is_hidden_is_no_region():
    c = canvas()
    for name, size in (("cat", 10), ("house", 24)):
        t = Thing(c, name, 30, 38, size)
        t.part("body" if name == "cat" else "wall", box(-0.5, 0, 0.5, 1), plain(RED), flat=True)
        c.place(t, shadow=0)
    truth = c.truth(CLASSES)
    assert [CLASSES.names[k] for k in truth.label] == ["scene", "sky", "house", "house wall"]


def test_a_detail_never_leaves_its_object():
    c = canvas()
    t = Thing(c, "house", 30, 35, 10)
    t.part("wall", box(-0.5, 0, 0.5, 1), plain(0 * RED), flat=True)
    t.detail(box(-2, 0, 2, 1), plain(RED, 0.0))
    c.place(t, shadow=0)
    assert (c.owner[c.rgb[..., 0] > 0] == 1).all()


def test_a_speck_goes_to_its_neighbour():
    c = canvas()
    t = Thing(c, "house", 30, 35, 10)
    t.part("wall", box(-1, 0, 1, 1), plain(RED), flat=True)
    t.part("door", box(-0.1, 0.4, 0.1, 0.6), plain(RED), flat=True)
    c.place(t, shadow=0)
    truth = c.truth(CLASSES)
    assert "house door" not in {CLASSES.names[k] for k in truth.label}
    assert truth.area[truth.label == CLASSES.names.index("house wall")].sum() == 200

"""Label maps: read exactly or refused, and turned into the tree of regions that their class tree says."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from uss_dagster.artifacts.gate import valid_regions
from uss_dagster.artifacts.tables import regions_to_table
from uss_dagster.datasets.formats.class_trees import Classes
from uss_dagster.datasets.formats.label_maps import decode_label_png, read_label_png, regions_of_label_map, size_of
from uss_dagster.errors import BadData
from uss_dagster.metrics.base import Truth
from uss_dagster.metrics.covering import tree_covering
from uss_dagster.regions import ClassTree

NESTED = {
    "sky": "background",
    "animal": {"cat": "foreground", "bird": {"parrot": "foreground"}},
    "vehicle": {"car": "foreground", "bus": "foreground"},
    "void": "ignore",
}
TREE = ClassTree.from_nested(NESTED)
LABELS = {0: "sky", 3: "cat", 4: "parrot", 9: "car", 70000: "bus", 255: "void"}
CLASSES = Classes(TREE, {label: TREE.names.index(name) for label, name in LABELS.items()})


def png(picture: Image.Image, **options) -> bytes:
    out = io.BytesIO()
    picture.save(out, "PNG", **options)
    return out.getvalue()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.sampled_from(sorted(LABELS)), min_size=5, max_size=5), min_size=1, max_size=6))
def test_regions_are_the_unions_of_the_labels_below_each_class(rows):
    labels = np.array(rows)
    regions = regions_of_label_map(labels, CLASSES, "image x")
    node = np.vectorize(CLASSES.node.__getitem__)(labels)
    expected = {n: np.isin(node, np.flatnonzero(TREE.ancestors[n])) for n in range(len(TREE))}
    expected = {n: mask for n, mask in expected.items() if mask.any()}
    assert regions.label.tolist() == sorted(expected), "every class with a pixel, in the order of the tree"
    for number, label in enumerate(regions.label.tolist()):
        assert np.array_equal(regions.mask(number), expected[label])
        above = int(regions.parent[number])
        assert (above == -1) == (label == 0)
        assert label == 0 or regions.label[above] == TREE.parent[label]
    assert not list(valid_regions([regions_to_table("x", regions)], overlap=False))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from([0, 3, 4, 9, 70000, 255]), min_size=2, max_size=12))
def test_a_perfect_tree_scores_one_by_the_code_and_less_by_the_formula_where_chains_have_one_child(row):
    labels = np.array([row])
    regions = regions_of_label_map(labels, CLASSES, "image x")
    truth = Truth("classes", regions, TREE)
    code, formula = tree_covering(truth, regions), tree_covering(truth, regions, mode="formula")
    if not set(row) & {3, 4, 9, 70000}:
        assert np.isnan(code.nm), "no foreground: no score"
        return
    assert code.nm == code.nh == 1
    chain = 4 in row or (3 in row) != (4 in row) or (9 in row) != (70000 in row)
    assert (formula.nh < 1) == chain


def test_worked_covering_of_single_child_chains():
    """cat alone below animal, and sky: π(cat) = {animal, cat}, both matched by one predicted region, so cat earns a half."""
    regions = regions_of_label_map(np.array([[3, 3, 0, 0]]), CLASSES, "x")
    formula = tree_covering(Truth("classes", regions, TREE), regions, mode="formula")
    assert formula.nm == 1
    assert formula.nh == pytest.approx((1 + 0.5 + 1) / 3)


@pytest.mark.parametrize("labels", [np.array([[0, 7, 3, 8]]), np.array([[0, 7, 70001, 8]]), np.array([[-1, 7, 8, 3]], np.int16)])
def test_unknown_labels_are_refused_by_image_and_number(labels):
    with pytest.raises(BadData, match=r"image 17 has labels that its dataset does not know: .*7, ") as error:
        regions_of_label_map(labels, CLASSES, "image 17")
    assert "3," not in str(error.value).split(":")[1]


@pytest.mark.parametrize("labels", [np.zeros((2, 2, 3), int), np.zeros((2, 2))])
def test_what_is_no_label_map_is_refused(labels):
    with pytest.raises(BadData, match="image 1: a label map is an integer array"):
        regions_of_label_map(labels, CLASSES, "image 1")


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palettes_of_any_depth_give_their_indices(bits):
    labels = (np.arange(300, dtype=np.uint16) % (1 << bits)).astype(np.uint8).reshape(15, 20)
    picture = Image.fromarray(labels, "P")
    picture.putpalette([int(v) for v in np.random.default_rng(0).integers(0, 256, 768)])
    data = png(picture, bits=bits)
    assert data[24] == bits
    assert np.array_equal(decode_label_png(data, "x"), labels)


def test_grey_of_8_and_16_bits_is_read_as_it_is(tmp_path):
    for labels in (np.array([[0, 255, 7]], np.uint8), np.array([[0, 255, 33000, 65535]], np.uint16)):
        path = tmp_path / "x.png"
        path.write_bytes(png(Image.fromarray(labels)))
        found = read_label_png(path, labels.shape)
        assert found.dtype == labels.dtype
        assert np.array_equal(found, labels)


@pytest.mark.parametrize(
    ("mode", "form"),
    [("RGB", "8-bit RGB;"), ("RGBA", "8-bit RGB with transparency"), ("LA", "8-bit grey with transparency"), ("1", "1-bit grey")],
)
def test_other_pngs_are_refused_in_one_sentence(mode, form):
    with pytest.raises(BadData, match=f"a.png is a PNG of {form}") as error:
        decode_label_png(png(Image.new(mode, (3, 2))), "a.png")
    assert "\n" not in str(error.value)


def test_damaged_and_foreign_files_are_refused(tmp_path):
    good = png(Image.fromarray(np.random.default_rng(0).integers(0, 9, (40, 40), np.uint8)))
    for cut in (0, 5, 20, 33, len(good) // 2, len(good) - 30):
        with pytest.raises(BadData, match=r"not a PNG file|truncated or damaged"):
            decode_label_png(good[:cut], "a.png")
    bomb = good[:16] + (60000).to_bytes(4, "big") * 2 + good[24:]
    with pytest.raises(BadData, match="declares 60000×60000 pixels"):
        decode_label_png(bomb, "a.png")
    jpeg = io.BytesIO()
    Image.new("L", (4, 4)).save(jpeg, "JPEG")
    with pytest.raises(BadData, match="not a PNG file"):
        decode_label_png(jpeg.getvalue(), "a.png")
    with pytest.raises(BadData, match=r"none\.png is missing"):
        read_label_png(tmp_path / "none.png")
    (tmp_path / "a.png").write_bytes(good)
    with pytest.raises(BadData, match=r"a\.png is 40×40, its image 40×41 \(height×width\)"):
        read_label_png(tmp_path / "a.png", (40, 41))


def test_the_size_of_a_picture_is_its_upright_one():
    for orientation, expected in ((1, (2, 5)), (3, (2, 5)), (6, (5, 2)), (8, (5, 2))):
        exif = Image.Exif()
        exif[0x0112] = orientation
        out = io.BytesIO()
        Image.new("RGB", (5, 2)).save(out, "JPEG", exif=exif)
        assert size_of(out.getvalue(), "x") == expected
    with pytest.raises(BadData, match="not a picture"):
        size_of(b"nothing", "x")

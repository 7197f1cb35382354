"""``import uss_dagster as uss``: the public names, and that they give what the commands give."""

from __future__ import annotations

import doctest
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from projects import SOURCE, Project, tree_hash

import uss_dagster as uss
from uss_dagster import registry
from uss_dagster.regions.rle import coco_codes


def photo(height: int = 60, width: int = 90) -> np.ndarray:
    """Three coloured fields with a little noise, uint8 (H, W, 3)."""
    picture = np.full((height, width, 3), (40, 90, 160))
    picture[height // 2 :] = (200, 170, 60)
    picture[: height // 2, : width // 3] = (180, 40, 50)
    return (picture + np.random.default_rng(0).integers(-9, 10, picture.shape)).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def regions() -> uss.Regions:
    return uss.segment(photo(), "felzenszwalb", scales=3)


# -- the names ----------------------------------------------------------------------------------------------


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, uss_dagster; print([m for m in ('torch', 'pandas', 'dagster', 'numpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=SOURCE).stdout.strip() == "[]"


def test_two_packages_have_the_name_of_a_function_and_are_both_in_any_order():
    code = """\
import uss_dagster as uss
{first}
import uss_dagster.regions.rle as rle
from uss_dagster import methods, regions
from uss_dagster.regions import Regions
assert len(uss.methods()) == len(methods()) > 10 and len(regions(np.eye(2) > 0)) == 1
assert issubclass(uss.Regions, Regions) and uss.regions.rle is rle and uss.methods.base
"""
    for first in ("uss.methods()", "import uss_dagster.methods.slic_merge; uss.regions"):
        subprocess.run([sys.executable, "-c", f"import numpy as np\n{code.format(first=first)}"], check=True)


def public_callables() -> list[tuple[str, object]]:
    """Every public function and class, and every public method that a class of the interface defines."""
    found: list[tuple[str, object]] = []
    for name in uss.__all__:
        value = {
            "regions": sys.modules["uss_dagster.api.regions"].regions,
            "methods": sys.modules["uss_dagster.api.catalogue"].methods,
        }.get(name, getattr(uss, name))
        found.append((name, value))
        if inspect.isclass(value) and value.__module__.startswith("uss_dagster.api."):
            found += [
                (f"{name}.{member}", getattr(value, member))
                for member, defined in vars(value).items()
                if callable(getattr(value, member))
                and (not member.startswith("_") or member == "__call__")
                and not isinstance(defined, type)
            ]
    return found


@pytest.fixture(scope="module")
def imported(regions) -> None:
    uss.methods()


@pytest.mark.usefixtures("imported")
def test_every_public_name_is_documented():
    names = dict(public_callables())
    assert {"segment", "score", "Regions.at", "Regions.show", "Regions.load", "Backbone.__call__"} <= names.keys()
    for name, value in names.items():
        text = inspect.getdoc(value) or ""
        assert text, name
        if name in ("UssError",):
            continue
        parameters = [p for p in inspect.signature(value).parameters if p not in ("self", "cls")]
        section = text.partition("Parameters\n----------\n")[2]
        for parameter in parameters:
            assert re.search(rf"^(\*\*|.*\b){parameter}\b.*$", section, re.M), f"{name} does not document '{parameter}'"
        if not inspect.isclass(value):
            assert "Returns\n-------\n" in text, f"{name} does not say what it returns"


@pytest.mark.usefixtures("imported")
@pytest.mark.parametrize("module", ["regions", "scoring", "segmenting", "catalogue", "exchange"])
def test_examples_give_what_they_say(module):
    result = doctest.testmod(sys.modules[f"uss_dagster.api.{module}"])
    assert result.attempted >= 2
    assert result.failed == 0


def test_no_method_has_a_parameter_of_a_name_that_segment_takes():
    own = set(inspect.signature(uss.segment).parameters) - {"params"}
    for method in registry.names("method"):
        assert own.isdisjoint(registry.flat_types(registry.load("method", method).SPEC.params)), method


# -- pictures -----------------------------------------------------------------------------------------------


def test_every_form_of_a_picture_gives_the_same_pixels(tmp_path: Path):
    import torch

    from uss_dagster.api.pictures import pixels_of

    picture = photo()
    Image.fromarray(picture).save(tmp_path / "a.png")
    opaque = np.dstack([picture, np.full(picture.shape[:2], 255, np.uint8)])
    forms = [
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        Image.fromarray(picture),
        picture / 255,
        (picture / 255).astype(np.float32),
        picture.astype(np.uint16) * 257,
        opaque,
        torch.from_numpy(np.moveaxis(picture, -1, 0).copy()),
        torch.from_numpy(np.moveaxis(picture / 255, -1, 0).copy()).requires_grad_(),
    ]
    for form in forms:
        np.testing.assert_array_equal(pixels_of(form), picture)
    grey = picture[..., 0]
    for form in (grey, grey[..., None], grey / 255, torch.from_numpy(grey), torch.from_numpy(grey)[None]):
        np.testing.assert_array_equal(pixels_of(form), np.repeat(grey[..., None], 3, axis=2))
    assert pixels_of(grey > 100).max() == 255


@pytest.mark.parametrize(
    ("picture", "sentence"),
    [
        (np.zeros((3, 40, 50), np.uint8), "np.moveaxis"),
        (np.zeros((2, 4, 50, 3), np.uint8), "is an array"),
        (np.zeros((40, 0), np.uint8), "is an array"),
        (np.full((4, 5), 255.0), "numbers from 0 to 1, this one 255 to 255"),
        (np.full((4, 5), np.nan), "numbers from 0 to 1"),
        (np.zeros((4, 5), np.int64), "int64"),
        ("nowhere.png", "nowhere.png"),
    ],
)
def test_what_is_no_picture_is_refused_in_one_sentence(picture, sentence):
    with pytest.raises(uss.UssError, match=re.escape(sentence)):
        uss.segment(picture)


# -- segmenting ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "backbone", "params"),
    [
        ("contour_merge", None, {}),
        ("kmeans", "patches", {"k": 5}),
        ("token_kmeans", "patches", {}),
        ("lightcluster", "patches", {"mask": {"refine": "none"}, "objects": {"crop": 56}}),
    ],
)
def test_the_regions_are_those_of_the_command_byte_for_byte(tmp_path: Path, method, backbone, params):
    path = tmp_path / "a photo.png"
    Image.fromarray(photo(150, 200)).save(path)
    words = [f"--param={name}={value}" for name, value in registry.flat_params(params).items()]
    words += [f"--backbone={backbone}"] if backbone else []
    Project(tmp_path).uss_here("segment", str(path), "--out", "out", "--long-side", "128", "-m", method, *words)
    regions = uss.segment(path, method, backbone, max_side=128, **params)
    assert regions.shape == (150, 200)
    for name in ("regions.parquet", "regions.json"):
        assert regions.save(tmp_path / name).read_bytes() == (tmp_path / "out" / name).read_bytes(), name
    page = regions.explore(tmp_path / "mine")
    shown = tree_hash(page.parent / "explorer")
    theirs = tree_hash(tmp_path / "out" / "explorer")
    assert shown["0000.jpg"] == theirs["0000.jpg"]
    assert shown.keys() == theirs.keys()


def test_a_method_that_needs_features_names_the_backbones_that_it_takes():
    with pytest.raises(uss.UssError) as refused:
        uss.segment(photo(), "tokencut")
    sentence = str(refused.value)
    assert "needs features (keys)" in sentence
    for name in ("patches", "vit", "dinov2_vits14"):
        assert name in sentence
    assert " cnn," not in sentence, "it has no keys"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"method": "felzenswalb"}, "Did you mean 'felzenszwalb'?"),
        ({"method": "felzenszwalb", "scale": 3}, "has no parameter 'scale'"),
        ({"method": "felzenszwalb", "backbone": "patches"}, "looks at pixels only"),
        ({"method": "kmeans", "backbone": "patch"}, "Did you mean 'patches'?"),
    ],
)
def test_a_wrong_name_is_refused_with_the_nearest(words, sentence):
    with pytest.raises(uss.UssError, match=re.escape(sentence)):
        uss.segment(photo(), **words)


def test_a_backbone_gives_features_of_one_picture_or_of_several():
    backbone = uss.backbone("patches", facets=("tokens",))
    one, several = backbone(photo()), backbone([photo(), Image.fromarray(photo(40, 40))])
    assert one["tokens"].ndim == 3
    assert one["tokens"].dtype == np.float32
    np.testing.assert_array_equal(several[0]["tokens"], one["tokens"])
    assert len(several) == 2
    assert "keys" not in one
    with pytest.raises(uss.UssError, match="Unknown backbone 'dinov2'"):
        uss.backbone("dinov2")


# -- regions ------------------------------------------------------------------------------------------------


def test_a_flat_map_of_k_regions_is_a_cut_of_the_tree():
    regions = uss.segment(photo())
    assert regions.is_tree
    coarser = np.zeros(regions.shape, int)
    for k in range(1, 20):
        labels = regions.at(k)
        present = np.unique(labels)
        assert labels.dtype == np.int32
        assert 1 <= len(present[present > 0]) <= k
        assert present[-1] == len(present[present > 0]), "numbered without gaps"
        for value in present[present > 0]:
            assert any(np.array_equal(labels == value, regions.mask(i)) for i in range(len(regions))), "each is a region"
        assert all(len(np.unique(coarser[labels == value])) == 1 for value in present), "nested in the coarser ones"
        coarser = labels
    assert len(np.unique(regions.at(10**6))) > 3


def test_saved_regions_come_back(tmp_path: Path, regions):
    for name in ("a.parquet", "b.json"):
        again = uss.Regions.load(regions.save(tmp_path / name))
        np.testing.assert_array_equal(again.masks(), regions.masks())
        np.testing.assert_array_equal(again.parent, regions.parent)
        np.testing.assert_allclose(again.score, regions.score)
        assert again.name == "image"
    assert json.loads((tmp_path / "b.json").read_text())["annotations"] == json.loads(json.dumps(regions.to_coco()))
    with pytest.raises(uss.UssError, match=r"\.parquet, \.json"):
        regions.save(tmp_path / "a.png")


def test_regions_are_made_from_maps_masks_codes_and_files(tmp_path: Path):
    import torch

    labels = np.array([[0, 0, 5], [0, 7, 5]])
    masks = np.stack([labels == 5, labels >= 5])
    assert uss.regions(labels).area.tolist() == [3, 2, 1]
    assert uss.regions(torch.from_numpy(labels), ignore=0).area.tolist() == [2, 1]
    nested = uss.regions(masks[::-1], parent=[-1, 0], score=[0.5, 1], label=[3, 4])
    assert (nested.parent.tolist(), nested.score.tolist(), nested.label.tolist()) == ([-1, 0], [0.5, 1], [3, 4])
    for source in (masks, list(masks), torch.from_numpy(masks)):
        np.testing.assert_array_equal(uss.regions(source).masks(), masks)
    codes = coco_codes(uss.regions(masks).rles(), labels.shape)
    annotations = uss.regions(masks).to_coco()
    for source in (codes, annotations):
        np.testing.assert_array_equal(uss.regions(source).masks(), masks)
    np.testing.assert_array_equal(uss.regions(nested.save(tmp_path / "x.json")).masks(), masks[::-1])
    picture = photo(2, 3)
    assert uss.regions(nested, image=picture).image is not None
    for source, sentence in (
        (masks.astype(float), "Regions come from"),
        ([{"counts": "x"}], "Run-length codes are"),
        (labels[None], "Regions come from"),
    ):
        with pytest.raises(uss.UssError, match=sentence):
            uss.regions(source)
    with pytest.raises(uss.UssError, match="the one given has"):
        uss.regions(nested, image=photo(4, 4))


def test_of_a_file_with_several_pictures_one_is_named(tmp_path: Path):
    for name in ("a", "b"):
        Image.fromarray(photo()).save(tmp_path / f"{name}.png")
    Project(tmp_path).uss_here("segment", "a.png", "b.png", "--out", "out", "-m", "felzenszwalb")
    table = tmp_path / "out" / "regions.parquet"
    assert uss.regions(table, name="b", image=tmp_path / "b.png").name == "b"
    for name in (None, "c"):
        with pytest.raises(uss.UssError, match="a, b"):
            uss.Regions.load(table, name)


def test_show_draws_the_picture_and_each_level(regions):
    import matplotlib as mpl

    mpl.use("agg")
    axes = regions.show([2, 8])
    assert [axis.get_title() for axis in axes] == ["image", "about 2 regions", "about 8 regions"]
    assert all(axis.images[0].get_array().shape == (60, 90, 3) for axis in axes)
    with pytest.raises(uss.UssError, match="3 axes are needed"):
        regions.show([2, 8], axes[:2])
    with pytest.raises(uss.UssError, match="picture of these regions is not known"):
        uss.regions(np.zeros((2, 2), int)).show()


# -- scores and tables --------------------------------------------------------------------------------------


def test_the_scores_are_those_of_the_command(tmp_path: Path):
    truth = np.zeros((60, 90), np.uint8)
    truth[30:], truth[:30, :30] = 1, 2
    (tmp_path / "gt").mkdir()
    Image.fromarray(truth).save(tmp_path / "gt" / "image.png")
    regions = uss.segment(photo(), "felzenszwalb")
    regions.save(tmp_path / "regions.parquet")
    words = ["--pred", "regions.parquet", "--gt", "gt", "--truth", "annotators", "--metrics", "covering,bsds", "--out", "t.json"]
    Project(tmp_path).uss_here("score", *words)
    rows = json.loads((tmp_path / "t.json").read_text())["scores"]
    for pred, gt in (
        (regions, truth),
        ({"image": regions}, {"image": uss.regions(truth)}),
        (tmp_path / "regions.parquet", tmp_path / "gt"),
    ):
        table = uss.score(pred, gt, ["covering", "bsds"], kind="annotators")
        assert table.drop(columns=["low", "high"]).to_dict("records") == [
            {key: value for key, value in row.items() if key not in ("low", "high")} for row in rows
        ]
    assert table.attrs["notes"]
    assert uss.score(truth, truth, "panoptic", kind="instances").set_index("metric").value["pq"] == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"kind": "classes"}, "classes come from files"),
        ({"metrics": "coverin"}, "Did you mean 'covering'?"),
        ({"metrics": "proposals"}, "of kind annotators"),
        ({"grids": ["half"]}, "half"),
    ],
)
def test_a_wrong_request_for_scores_is_refused(words, sentence):
    with pytest.raises(uss.UssError, match=re.escape(sentence)):
        uss.score(np.zeros((4, 4), int), np.zeros((4, 4), int), **words)


def test_every_parameter_of_every_method_is_described():
    table = uss.methods()
    assert list(table.index) == list(registry.names("method"))
    assert table.loc["contour_merge", "features"] == "tokens, optional"
    assert table.loc["slic_merge", "features"] != ""
    for method in table.index:
        about = uss.methods(method)
        assert len(about) == table.loc[method, "parameters"]
        assert [name for name in about.index if not about.loc[name, "description"]] == [], method
        assert (about["values"] != "").all()


def test_a_student_is_loaded_from_a_path_or_a_text(tmp_path: Path):
    for folder in (tmp_path, str(tmp_path)):
        with pytest.raises(uss.UssError, match="is not a student"):
            uss.Student.load(folder)

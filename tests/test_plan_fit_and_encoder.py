"""What the plan makes of entries that are fitted to another dataset, or have pieces of images encoded by another backbone."""

from __future__ import annotations

from pathlib import Path

import pytest

from uss_dagster.errors import UsageError
from uss_dagster.planning.layout import Layout
from uss_dagster.planning.plan import Plan, make_plan
from uss_dagster.planning.profiles import read_profile
from uss_dagster.stages.features import Features
from uss_dagster.stages.segments import Segments

BASE = """\
datasets: {scenes: {images: 4}, train: {kind: scenes, images: 6, seed: 9}}
backbones:
  patches: {}
  other: {kind: patches, stride: 16, facets: [tokens]}
entries:
  plain: {method: lightcluster, backbone: patches, datasets: [scenes]}
  apart: {method: lightcluster, backbone: patches, datasets: [scenes], fit_on: train, encoder: other}
"""


def plan_of(root: Path, text: str = BASE) -> Plan:
    (root / "profiles").mkdir(exist_ok=True)
    (root / "params.yaml").write_text("profile: small\n")
    (root / "profiles" / "small.yaml").write_text(text)
    return make_plan(read_profile(root), root)


def test_an_entry_reads_the_dataset_it_is_fitted_to(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    cells = {cell.entry: cell for cell in plan.of(Segments)}
    assert (cells["plain"].fit_on, cells["apart"].fit_on) == ("", "train")
    read = [path.as_posix() for path in cells["apart"].inputs(Layout(Path()))]
    assert read == [
        "data/datasets/scenes/images",
        "data/datasets/train/images",
        "data/features/patches/scenes",
        "data/features/patches/train",
    ]
    assert {cell.name for cell in plan.of(Features)} == {"features/patches/scenes", "features/patches/train"}
    names = [cell.name for cell in plan.cells]
    assert names.index("features/patches/train") < names.index("segments/apart/scenes")


def test_pieces_of_images_are_encoded_by_the_backbone_named(tmp_path: Path) -> None:
    cells = {cell.entry: cell for cell in plan_of(tmp_path).of(Segments)}
    plain, apart = cells["plain"].encoder, cells["apart"].encoder
    assert plain is not None
    assert apart is not None
    assert (plain.params["stride"], apart.params["stride"]) == (4, 16)
    assert apart.params["facets"] == ["tokens", "cls"], "what the profile names, and what crops are encoded to"
    assert cells["apart"].loaded_backbones() == [apart]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("fit_on: train", "fit_on: tain", r"small.yaml:7: Unknown dataset 'tain'. Did you mean 'train'"),
        ("encoder: other", "encoder: othr", r"small.yaml:7: Unknown backbone 'othr'. Did you mean 'other'"),
        (
            "method: lightcluster, backbone: patches, datasets: [scenes], fit_on: train, encoder: other",
            "method: slic_merge, backbone: patches, fit_on: train",
            "method 'slic_merge' learns nothing from a dataset. Remove 'fit_on'",
        ),
        ("apart: {method: lightcluster", "apart: {method: token_kmeans", "'token_kmeans' encodes no pieces of images. Remove 'encoder'"),
        (
            "{kind: patches, stride: 16, facets: [tokens]}",
            "{kind: diffusion, model: embedded}",
            "method 'lightcluster' needs facet 'cls', which backbone 'other' cannot give",
        ),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = BASE.replace(old, new)
    assert text != BASE
    with pytest.raises(UsageError, match=message):
        plan_of(tmp_path, text)


@pytest.mark.parametrize(
    ("option", "message"), [("fit_on: train", "is fitted to another dataset"), ("encoder: other", "has an encoder of its own")]
)
def test_such_entries_are_not_run_on_other_views(tmp_path: Path, option: str, message: str) -> None:
    text = BASE.replace("fit_on: train, encoder: other", option)
    curated = "curated:\n  masks: {dataset: scenes, entry: apart, mask_pool: {views: [flip]}}\n"
    with pytest.raises(UsageError, match=f"{message}, which is not run again on other views"):
        plan_of(tmp_path, text + curated)


def test_masks_that_divide_are_an_input(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "found").mkdir()
    Image.new("L", (8, 8), 1).save(tmp_path / "found" / "scene00000.png")
    entry = "  cut: {method: unsam, backbone: patches, datasets: [scenes], params: {divide: masks, masks: found}}\n"
    cell = {cell.entry: cell for cell in plan_of(tmp_path, BASE + entry).of(Segments)}["cut"]
    assert [path.as_posix() for path in cell.inputs(Layout(Path()))][-1] == "found"
    assert cell.modules()[-1] == "uss_dagster.methods.masks"
    layout = Layout(tmp_path)
    assert cell.segmenter(layout).params.masks == str(tmp_path / "found")
    with pytest.raises(UsageError, match=r"small.yaml:\d+: entry 'cut': there are no masks for dataset 'scenes': lost does not exist"):
        plan_of(tmp_path, BASE + entry.replace("masks: found", "masks: lost"))

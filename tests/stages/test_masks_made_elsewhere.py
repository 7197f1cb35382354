"""Entries that are masks made elsewhere: the same numbers as the method that made them, and as `uss score`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from projects import Project, run_cells

from uss_dagster import cli
from uss_dagster.artifacts.tables import RowsWriter, iterate_regions, regions_to_table
from uss_dagster.datasets import scenes
from uss_dagster.errors import UsageError
from uss_dagster.metrics import semantic
from uss_dagster.planning.layout import Layout
from uss_dagster.planning.plan import make_plan
from uss_dagster.planning.profiles import read_profile
from uss_dagster.regions import Regions
from uss_dagster.regions.coco import annotation
from uss_dagster.stages.datasets import Datasets
from uss_dagster.stages.features import Features
from uss_dagster.stages.labels import Labels
from uss_dagster.stages.leaderboard import Leaderboard
from uss_dagster.stages.scores import Scores
from uss_dagster.stages.segments import Segments

PROFILE = """\
settings: {bootstrap: 5, samples: 2}
datasets:
  scenes: {images: 3}
backbones:
  patches: {dictionary: false}
metrics: [covering, matching, semantic, own, proposals]
entries:
  flat: {method: token_kmeans, backbone: patches, params: {k: 6}}
  nested: {method: slic_merge, backbone: patches, params: {superpixels: 60}}
"""


FEW = """\
settings: {bootstrap: 0, samples: 1}
datasets:
  scenes: {images: 3}
metrics: [covering, own]
entries:
"""


def compute(root: Path, entries: str = "", profile: str = PROFILE) -> dict[str, dict[str, float]]:
    """The entries added to the profile, and the scores of every entry that has none yet."""
    (root / "profiles" / "small.yaml").write_text(profile + entries)
    plan = run_cells(root, Datasets, Features, Segments, Labels, Scores)
    return {cell.entry: json.loads(Layout(root).metrics_file(cell.entry, "scenes").read_text()) for cell in plan.of(Scores)}


def regions_of(root: Path, entry: str) -> dict[str, Regions]:
    return dict(iterate_regions(sorted(Layout(root).segments(entry, "scenes").glob("shard-*.parquet"))))


def write_coco(path: Path, images: dict[str, Regions]) -> None:
    """An annotation file as other tools write it: numbered images with file names. 'parent' is an addition of this package."""
    annotations = []
    for number, regions in enumerate(images.values(), 1):
        first = len(annotations) + 1
        for i, code in enumerate(regions.rles()):
            parent = first + int(regions.parent[i]) if regions.parent[i] >= 0 else None
            values = (int(regions.area[i]), regions.boxes[i].tolist(), regions.shape, code, float(regions.score[i]), parent)
            annotations.append(annotation(first + i, number, int(regions.label[i]) + 1, *values))
    listed = [
        {"id": n, "file_name": f"{name}.png", "height": regions.shape[0], "width": regions.shape[1]}
        for n, (name, regions) in enumerate(images.items(), 1)
    ]
    path.write_text(json.dumps({"images": listed, "annotations": annotations, "categories": [{"id": 1, "name": "region"}]}))


def write_table(path: Path, images: dict[str, Regions]) -> None:
    writer = RowsWriter(path)
    for image_id, regions in images.items():
        writer.add(regions_to_table(image_id, regions))
    writer.close()


def write_pictures(folder: Path, images: dict[str, Regions]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for image_id, regions in images.items():
        Image.fromarray(regions.label[regions.deepest()].astype(np.uint16)).save(folder / f"{image_id}.png")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("USS_WORKERS", "1")
    (tmp_path / "profiles").mkdir()
    (tmp_path / "masks").mkdir()
    (tmp_path / "params.yaml").write_text("profile: small\n")
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    return tmp_path


@pytest.mark.slow
def test_every_format_gives_the_scores_of_the_method_that_made_the_masks(root: Path):
    expected = compute(root)
    flat, nested = regions_of(root, "flat"), regions_of(root, "nested")
    write_pictures(root / "masks" / "scenes" / "png", flat)
    write_coco(root / "masks" / "flat.json", flat)
    write_table(root / "masks" / "flat.parquet", flat)
    write_coco(root / "masks" / "nested.json", nested)
    scores = compute(
        root,
        f"""\
  pictures: {{kind: masks, path: 'masks/{{dataset}}/png', title: Tokens, same_labels: true}}
  coco_flat: {{kind: masks, path: masks/flat.json, format: coco, same_labels: true}}
  table_flat: {{kind: masks, path: {root}/masks/flat.parquet, format: parquet, same_labels: true, supervised: true}}
  coco_nested: {{method: masks, params: {{path: masks/nested.json}}}}
  table_nested: {{kind: masks, path: data/segments/nested/scenes}}
""",
    )
    assert len(expected["flat"]) > 40
    assert scores["pictures"] == expected["flat"]
    without_own = {name: value for name, value in expected["flat"].items() if not name.startswith("own_")}
    assert scores["coco_flat"] == scores["table_flat"] == without_own, "masks that may overlap are no segmentation"
    assert scores["table_nested"] == expected["nested"], "proposals too: scores and trees are kept"
    without_levels = {name: value for name, value in expected["nested"].items() if name not in semantic.SPEC.metrics}
    assert len(without_levels) > 30
    assert {name: scores["coco_nested"][name] for name in without_levels} == without_levels

    plan = make_plan(read_profile(root), root)
    cells = {cell.entry: cell for cell in plan.of(Segments)}
    assert {entry: cell.method.params["format"] for entry, cell in cells.items() if cell.method.name == "masks"} == {
        "pictures": "labels",
        "coco_flat": "coco",
        "table_flat": "parquet",
        "coco_nested": "coco",
        "table_nested": "parquet",
    }
    assert cells["pictures"].inputs(Layout(root)) == [root / "data/datasets/scenes/images", root / "masks/scenes/png"]
    (board,) = plan.of(Leaderboard)
    assert board.entries["pictures"]["title"] == "Tokens"
    assert [entry for entry, facts in board.entries.items() if facts["supervised"]] == ["table_flat"]


def test_an_image_without_a_mask_predicts_nothing_as_for_uss_score(root: Path, monkeypatch, capsys):
    first = next(scenes.examples(scenes.SPEC.params(images=3))).image_id
    halves = np.arange(304)[None, :] // 152 * np.ones((224, 1), int)
    write_pictures(root / "masks", {first: Regions.from_label_map(halves, use_labels=True)})
    scores = compute(root, "  png: {kind: masks, path: masks}\n", FEW)
    said = capsys.readouterr().err
    assert f"warning: 2 of 3 images have no mask in {root / 'masks'}; each counts as predicting nothing." in said
    out = root / "scores.json"
    words = ["score", "--pred", str(root / "masks"), "--gt", str(root / "data/datasets/scenes"), "--metrics", "covering,own"]
    monkeypatch.setattr("sys.argv", ["uss", *words, "--bootstrap", "0", "--out", str(out)])
    with pytest.raises(SystemExit) as done:
        cli.main()
    assert not done.value.code
    expected = {row["metric"]: row["value"] for row in json.loads(out.read_text())["scores"]}
    assert len(expected) > 5
    assert scores["png"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            "{kind: masks, path: masks/x.json}",
            "profiles/small.yaml:10: entry 'mine': there are no masks for dataset 'scenes': masks/x.json",
        ),
        ("{kind: masks}", "profiles/small.yaml:10: entry 'mine': it names no masks. Give it 'path'"),
        ("{kind: masks, path: masks, format: coco}", "profiles/small.yaml:10: entry 'mine': Folder "),
        ("{kind: masks, path: dvc.yaml}", "is not a file of masks by its ending."),
        ("{kind: masks, paths: dvc.yaml}", "profiles/small.yaml:10: method 'masks' has no parameter 'paths'. Did you mean 'path'?"),
        ("{kind: mask}", "profiles/small.yaml:10: Unknown method 'mask'. Did you mean 'masks'?"),
        ("{kind: masks, method: masks}", "an entry has 'kind' or 'method', not both"),
        ("\n    kind: masks\n    path: nowhere", "profiles/small.yaml:12: entry 'mine': there are no masks for dataset 'scenes'"),
    ],
)
def test_masks_that_are_not_there_are_refused_by_the_plan(root: Path, entry: str, message: str):
    (root / "profiles" / "small.yaml").write_text(PROFILE + f"  mine: {entry}\n")
    with pytest.raises(UsageError) as caught:
        make_plan(read_profile(root), root)
    assert message in str(caught.value)


@pytest.mark.slow
def test_one_changed_mask_computes_only_its_entry(built: Project):
    images = dict(iterate_regions(sorted((built.root / "data/segments/kmeans/scenes").glob("shard-*.parquet"))))
    write_pictures(built.root / "masks" / "scenes", images)
    built.append("profiles/small.yaml", "  mine: {kind: masks, path: 'masks/{dataset}'}\n")
    assert built.repro() == ["segments/mine/scenes", "scores/mine/scenes", "leaderboard", "site"]
    assert built.repro() == []
    lock = built.locked()["segments/mine/scenes"]
    assert "masks/scenes" in [dep["path"] for dep in lock["deps"]]
    picture = next(iter(sorted((built.root / "masks" / "scenes").glob("*.png"))))
    Image.fromarray(np.zeros_like(np.asarray(Image.open(picture)))).save(picture)
    assert built.repro() == ["segments/mine/scenes", "scores/mine/scenes", "leaderboard", "site"]
    (built.root / "masks").rename(built.root / "moved")
    refused = built.uss("repro", code=64)
    assert "profiles/small.yaml" in refused.stderr
    assert "there are no masks for dataset 'scenes'" in refused.stderr

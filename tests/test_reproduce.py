"""``uss reproduce``: what it lists, and a table computed by DVC as far as data and weights allow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from projects import Project, executed, make_project, tree_hash

from uss_dagster.commands.reproduce import listing, profile_of
from uss_dagster.errors import UsageError
from uss_dagster.weights.files import download_command

TABLE = """\
title: A small table
table: {paper: A paper, number: table 9, note: Of two pictures., missing: "Rivals: not here."}
include: papers/_small
datasets:
  cityscapes: {}
entries:
  felzenszwalb: {params: {scales: 3}, published: has-table1/ours}
  slic_merge: {backbone: patches, params: {superpixels: 30}}
  deep: {method: kmeans, backbone: dino, published: has-table1/ours}
"""
BASE = """\
settings: {shard_images: 2, bootstrap: 20, samples: 2, grids: [8x8]}
datasets:
  voc2012: {split: val}
backbones:
  patches: {dictionary: false}
  dino: {kind: vit, model: dino_vits8, checkpoint: /nowhere/dino.safetensors}
metrics: [matching]
"""


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """Three pictures in the layout of VOC 2012; Cityscapes is not here."""
    data = tmp_path / "mirror" / "voc2012" / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (data / folder).mkdir(parents=True)
    for number in range(3):
        labels = np.zeros((48, 64), np.uint8)
        labels[8:40, 8 * number + 8 : 8 * number + 32] = number + 1
        picture = Image.fromarray(labels, "P")
        picture.putpalette(bytes(768))
        picture.save(data / "SegmentationClass" / f"{number}.png")
        Image.fromarray(np.repeat(labels[..., None] * 80 + 10, 3, axis=2)).save(data / "JPEGImages" / f"{number}.jpg", quality=95)
    (data / "ImageSets/Segmentation/val.txt").write_text("0\n1\n2\n")
    return tmp_path / "mirror"


def add_table(root: Path) -> None:
    (root / "profiles/papers").mkdir(parents=True)
    (root / "profiles/papers/_small.yaml").write_text(BASE)
    (root / "profiles/papers/small.yaml").write_text(TABLE)


LISTED = """\
small                    A small table
    A paper, table 9
    cells: 2 datasets, 4 features, 6 segments, 6 scores
    can be computed here: 2 of 6 scores
    missing: uss data get cityscapes (behind a login or on request)
    missing: put the weights at /nowhere/dino.safetensors
    note: Of two pictures.
    left out: Rivals: not here.
"""


def test_the_list_names_cells_and_exactly_what_to_fetch(tmp_path: Path, mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USS_MIRROR", str(mirror))
    add_table(tmp_path)
    (tmp_path / "params.yaml").write_text("profile: small\n")
    assert "".join(f"{line}\n" for line in listing(tmp_path, ["small"])) == LISTED
    with pytest.raises(UsageError, match=r"Unknown table 'smal'\. Did you mean 'small'\?"):
        profile_of(tmp_path, "smal")
    assert download_command("nobody/nothing", "model.safetensors", "0ff") == "hf download nobody/nothing --revision 0ff"


def unchanged(project: Project) -> dict[str, object]:
    """What people edit and what is planned and locked."""
    return {
        **tree_hash(project.root / "pipelines"),
        "params": (project.root / "params.yaml").read_text(),
        "locks": [path for path in project.locks() if not path.startswith(".uss/")],
    }


@pytest.mark.slow
def test_a_table_is_computed_as_far_as_it_goes_and_nothing_else_changes(tmp_path: Path, mirror: Path) -> None:
    project = make_project(tmp_path / "project")
    add_table(project.root)
    project.env["USS_MIRROR"] = str(mirror)
    before = unchanged(project)
    assert project.uss("reproduce", "--list", cold=True).stdout == LISTED
    first = project.uss("reproduce", "small", "--limit", "2", code=69, cold=True)
    lines = first.stdout.splitlines()
    mine = next(line.split() for line in lines if line.split()[:2] == ["voc2012", "mIoU"] and "Felzenszwalb" in line)
    assert mine[3] == "8x8"
    assert "0.781" in mine, "the published value"
    reasons = "2 of 1,449 images; weights none, published dinov2_vitb14_reg; method felzenszwalb, published "
    assert any(line.startswith("[") and line[4:].startswith(reasons) and "scored on 8x8, published on 60x60" in line for line in lines)
    assert any(line.startswith("cityscapes") and "0.488" in line.split() for line in lines), "published, not computed here"
    assert any(line.startswith("voc2012") and "not known" in line for line in lines), "an entry that repeats no published row"
    assert "Note: Of two pictures." in lines
    assert "small is incomplete: 4 of 6 scores need what is not here:\n    missing: uss data get cityscapes" in first.stderr
    folder = project.root / ".uss/reproduce/small"
    assert (folder / "params.yaml").read_text().startswith("profile: papers/small\ndatasets:\n")
    assert (folder / "reports/site/index.html").is_file()
    assert (folder / "reports/leaderboard/published.csv").is_file()
    assert not (folder / ".dvc/cache").exists(), "results are in the cache of the project"

    again = project.uss("reproduce", "small", "--limit", "2", code=69, cold=True)
    assert executed(again.stdout) == []
    more = project.uss("reproduce", "small", "--workers", "1", code=69, cold=True)
    assert "datasets/voc2012" in executed(more.stdout)
    assert "] 3 of 1,449 images" in more.stdout
    assert unchanged(project) == before
    (project.root / "profiles/papers/_small.yaml").write_text(BASE.replace("voc2012: {split: val}", "potsdam: {}"))
    refused = project.uss("reproduce", "small", code=69, cold=True).stderr
    assert "Nothing of small can be computed here. It needs:\n    missing: uss data get cityscapes" in refused
    assert "missing: uss data get potsdam (behind a login or on request)" in refused

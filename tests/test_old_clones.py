"""A clone in which an earlier version computed: results are taken over, its other files are removed, and one line says so."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from uss_dagster.planning.layout import Layout
from uss_dagster.planning.plan import write_plan

PROFILE = """\
datasets: {scenes: {images: 4}, more: {kind: scenes, images: 2}}
backbones: {patches: {}}
entries: {felzenszwalb: {}, slic_merge: {backbone: patches}}
curated: {masks: {dataset: scenes, entry: slic_merge}}
"""
KEY = "0123456789abcdef"
OLD_RESULTS = {
    "data/pool/masks/shard-00000.parquet": "data/mask_pool/masks/shard-00000.parquet",
    "data/pool/masks/manifest.json": "data/mask_pool/masks/manifest.json",
    "reports/metrics/slic_merge__scenes.json": "reports/metrics/slic_merge/scenes.json",
    "reports/metrics/felzenszwalb__more.json": "reports/metrics/felzenszwalb/more.json",
}
OLD_SIDE_FILES = (
    "grid.yaml",
    ".uss/runs/features/patches__scenes.json",
    ".uss/runs/segments/slic_merge__scenes.json",
    ".uss/runs/segments/slic_merge__scenes.png",
    ".uss/runs/scores/felzenszwalb__more.json",
    ".uss/runs/labels/slic_merge__scenes.json",
    ".uss/runs/leaderboard/leaderboard.json",
    ".uss/runs/site/site.json",
    ".uss/runs/pool/masks.json",
    ".uss/runs/private_models/first.json",
    f".uss/shards/segments-slic_merge__scenes/{KEY}/listing.json",
    f".uss/shards/features-patches__scenes/{KEY}/shard-00000.safetensors",
    f".uss/shards/pool-masks/{KEY}/listing.json",
    f".uss/work/segments-slic_merge__scenes/{KEY}/shard-00000.parquet",
    f".uss/work/datasets-scenes/{KEY}/images/images.parquet",
    f".uss/work/leaderboard-leaderboard/{KEY}/leaderboard.csv",
    f".uss/work/models-first/{KEY}/checkpoint.pt",
    f".uss/work/private_models-first/{KEY}/checkpoint.pt",
    ".uss/quarantine/segments-slic_merge__scenes/validation.json",
    ".uss/quarantine/pool-masks/validation.json",
)
KEPT = (
    ".uss/runs/leaderboard.json",
    ".uss/runs/segments/slic_merge/scenes.json",
    ".uss/runs/datasets/scenes.json",
    ".uss/runs/curated/masks.json",
    ".uss/runs/curated/masks.html",
    ".uss/runs/models/first.json",
    f".uss/shards/segments/slic_merge/scenes/{KEY}/listing.json",
    f".uss/work/segments/slic_merge/scenes/{KEY}/shard-00000.parquet",
    ".uss/quarantine/segments/slic_merge/scenes/validation.json",
    ".uss/content.json",
    "data/segments/slic_merge/scenes/manifest.json",
    "reports/curated/masks.json",
    "reports/history.js",
)


def write(root: Path, path: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(path)


def files(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir()}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A project as the earlier version left it."""
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "small.yaml").write_text(PROFILE)
    (tmp_path / "params.yaml").write_text("profile: small\n")
    (tmp_path / "dvc.yaml").write_text("vars: [grid.yaml]\nstages: {}\n")
    (tmp_path / "dvc.lock").write_text(
        "schema: '2.0'\nstages:\n  segments@slic_merge__scenes: {cmd: uss stage segments slic_merge__scenes}\n  leaderboard: {cmd: uss stage}\n"
    )
    for path in (*OLD_RESULTS, *OLD_SIDE_FILES, *KEPT):
        write(tmp_path, path)
    return tmp_path


def side_lines(changes: list[str]) -> list[str]:
    return [line for line in changes if "earlier version" in line]


def test_results_move_side_files_go_and_one_line_says_so(clone):
    before = files(clone)
    changes = write_plan(clone)
    assert side_lines(changes) == [
        f"an earlier version's files: 3 results moved to their new places, {len(OLD_SIDE_FILES) + 1} old side files removed"
    ]
    assert changes[0] == side_lines(changes)[0], "it comes first"
    for old, new in OLD_RESULTS.items():
        assert not (clone / old).exists()
        assert (clone / new).read_text() == old, "the bytes are the same"
    generated = {path for path in files(clone) if path.startswith("pipelines/")}
    assert files(clone) == (before - set(OLD_RESULTS) - set(OLD_SIDE_FILES)) | set(OLD_RESULTS.values()) | generated | {".uss/python"}
    empty = [path for top in ("data", "reports", ".uss") for path in (clone / top).rglob("*") if path.is_dir() and not any(path.iterdir())]
    assert empty == [], "no empty folders stay"
    assert "vars" not in (clone / "dvc.yaml").read_text()
    lock = yaml.safe_load((clone / "dvc.lock").read_text())
    assert lock == {"schema": "2.0", "stages": {"leaderboard": {"cmd": "uss stage"}}}


def test_a_second_plan_says_nothing(clone):
    write_plan(clone)
    before = files(clone)
    assert write_plan(clone) == []
    assert files(clone) == before


def test_a_look_changes_nothing(clone):
    before = files(clone)
    write_plan(clone, check=True)
    assert files(clone) == before


def test_what_is_new_already_stays_and_the_old_copy_goes(clone):
    for old, new in OLD_RESULTS.items():
        write(clone, new)
        assert old != new
    write_plan(clone)
    for old, new in OLD_RESULTS.items():
        assert not (clone / old).exists()
        assert (clone / new).read_text() == new


def test_links_are_cut_and_not_followed(clone, tmp_path_factory):
    """DVC may have put links to its cache in the place of results; people may keep ``.uss`` on another disk."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    write(elsewhere, "masks/shard.parquet")
    write(elsewhere, "work/file")
    os.symlink(elsewhere / "masks", clone / "data/pool/linked")
    os.symlink(elsewhere / "work", clone / ".uss/work/segments-linked__scenes")
    write_plan(clone)
    assert (clone / "data/mask_pool/linked").is_symlink()
    assert (clone / "data/mask_pool/linked/shard.parquet").exists()
    assert not os.path.lexists(clone / ".uss/work/segments-linked__scenes")
    assert (elsewhere / "work/file").exists()


def test_a_fresh_clone_hears_nothing_of_it(clone):
    layout = Layout(clone)
    fresh = clone / "fresh"
    for name in ("params.yaml", "dvc.yaml", "profiles/small.yaml"):
        (fresh / name).parent.mkdir(parents=True, exist_ok=True)
        (fresh / name).write_text((layout.root / name).read_text())
    assert side_lines(write_plan(fresh)) == []

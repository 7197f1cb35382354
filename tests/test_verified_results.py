"""Bytes that changed on the disk, with size, mode and time as they were: no stage uses them, and `uss verify` finds and repairs them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from projects import Project, executed, tree_hash

FEATURES = "data/features/patches/scenes"
SHARD = f"{FEATURES}/shard-00000.safetensors"


def damage(path: Path, break_link: bool = False) -> None:
    """Zero some bytes in the middle of a file; break_link: the file in DVC's cache stays whole."""
    state, text = path.stat(), path.read_bytes()
    middle = len(text) // 2
    if break_link:
        path.unlink()
        path.write_bytes(text)
    os.chmod(path, 0o644)
    with open(path, "r+b") as stream:
        stream.seek(middle)
        stream.write(bytes(min(4096, middle)))
    os.chmod(path, state.st_mode)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def own_files(project: Project, *folders: str) -> None:
    """Give a project files of its own, with the times that they have: those of ``built`` are shared with other tests."""
    for folder in folders:
        place = project.root / folder
        copy = place.with_name(f".{place.name}.copy")
        subprocess.run(["cp", "-a", str(place), str(copy)], check=True)
        shutil.rmtree(place)
        copy.rename(place)


def test_a_stage_refuses_damaged_features(built: Project):
    own_files(built, FEATURES)
    before = tree_hash(built.root / "data/segments/kmeans/scenes")
    damage(built.root / SHARD)
    done = built.uss("stage", "pipelines/scenes/kmeans/segments.yaml", code=65)
    assert f"error: {SHARD} is not what its stage wrote" in done.stderr
    assert "uss verify --repair" in done.stderr
    assert tree_hash(built.root / "data/segments/kmeans/scenes") == before


def test_a_stage_refuses_a_file_that_no_stage_wrote(built: Project):
    shutil.copyfile(
        built.root / "data/segments/kmeans/scenes/shard-00000.parquet", built.root / "data/segments/kmeans/scenes/shard-00009.parquet"
    )
    done = built.uss("stage", "pipelines/scenes/kmeans/scores.yaml", code=65)
    assert "shard-00009.parquet was not written by the stage of this folder" in done.stderr


@pytest.mark.parametrize(
    ("source", "computed"),
    [
        ("computing", ["features/patches/scenes"]),
        pytest.param("cache", [], marks=pytest.mark.slow),
        pytest.param("remote", [], marks=pytest.mark.slow),
    ],
)
def test_verify_names_what_differs_and_repairs_it(built: Project, tmp_path: Path, source: str, computed: list[str]):
    own_files(built, FEATURES, ".dvc/cache/files/md5")
    before, locks = tree_hash(built.root / "data"), built.locks()
    if source == "remote":
        built.dvc("remote", "add", "--default", "shared", str(tmp_path / "remote"))
        built.dvc("push")
    damage(built.root / SHARD)
    cached = [path for path in (built.root / ".dvc/cache/files/md5").rglob("*") if path.is_file() and path.stat().st_size == 630960]
    if source != "cache":
        (good,) = [path for path in cached if tree_hash(path.parent)[path.name] == before[SHARD.removeprefix("data/")]]
        damage(good)

    found = built.uss("verify", code=65)
    assert f"  {SHARD} is damaged\n" in found.stdout
    assert found.stdout.count("damaged") == (1 if source == "cache" else 2)
    assert built.uss("verify", "segments", code=0).stdout.endswith("are what dvc.lock records.\n")
    repaired = built.uss("verify", "--repair")
    assert executed(repaired.stdout) == computed
    assert "Repaired:" in repaired.stdout
    assert tree_hash(built.root / "data") == before
    assert built.locks() == locks
    assert built.uss("verify").stdout.endswith("are what dvc.lock records.\n")


def test_verify_tells_what_is_missing_from_what_was_added(built: Project):
    (built.root / FEATURES / "index.parquet").unlink()
    (built.root / FEATURES / "more.txt").write_text("more")
    shutil.rmtree(built.root / "data/scores/kmeans/scenes")
    lines = built.uss("verify", code=65).stdout.splitlines()
    assert lines == [
        f"  {FEATURES}/index.parquet is missing",
        f"  {FEATURES}/more.txt was added",
        "  data/scores/kmeans/scenes is missing",
    ]
    assert executed(built.uss("verify", "--repair").stdout) == []
    assert built.uss("verify").returncode == 0

"""``uss gc``: what it shows is what the disk gains, and nothing that is used goes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from projects import BIN, Project, make_project, tree_hash

from dagster_dvc.errors import TryAgain
from dagster_dvc.garbage import Cache, Removal, Space, nobody_builds
from dagster_dvc.owner import OWNER
from dagster_dvc.runner import lock_holders
from dagster_dvc.whole_files import write_json
from uss_dagster.commands.gc import ONLY_IF_NAMED, TITLES

PROFILE = """\
settings: {shard_images: 2, bootstrap: 20, samples: 2}
datasets: {scenes: {images: 2}}
backbones:
  patches: {dictionary: false}
metrics: [covering]
entries:
  kmeans: {backbone: patches, params: {k: 4}}
  felzenszwalb: {params: {scales: 3}}
"""


def on_disk(folder: Path) -> int:
    """Bytes that ``du`` counts."""
    return int(subprocess.run(["du", "-s", "--block-size=1", folder], capture_output=True, text=True, check=True).stdout.split()[0])


def rows(output: str) -> dict[str, tuple[int, float]]:
    """Title → (files, MB)."""
    found = re.findall(r"^(?:--also \w+ +)?(\S.*?) {2,} *([\d,]+) +([\d.,]+)$", output, re.M)
    return {title: (int(files), float(size.replace(",", ""))) for title, files, size in found}


def frees(output: str) -> float:
    """MB."""
    (size,) = re.findall(r"^frees +([\d.,]+)$", output, re.M)
    return float(size.replace(",", ""))


# -- what removing frees ------------------------------------------------------------------------------------


def test_a_file_is_freed_with_its_last_name(tmp_path: Path) -> None:
    one, other, far = tmp_path / "one", tmp_path / "two" / "other", tmp_path / "far"
    other.parent.mkdir()
    one.write_bytes(os.urandom(100_000))
    os.link(one, other)
    far.write_bytes(os.urandom(50_000))
    (tmp_path / "two" / "link").symlink_to(far)
    removal = Removal()
    assert removal.add([one]) == Space(1, 0)
    assert removal.copy().add([other]).bytes == one.stat().st_blocks * 512
    before = on_disk(tmp_path)
    freed = removal.add([other.parent])
    assert freed.files == 2, "the link is a file of its own; what it points to stays"
    one.unlink()
    shutil.rmtree(other.parent)
    assert before - on_disk(tmp_path) == freed.bytes
    assert removal.add([]) == Space()
    assert Removal().add([far, far]).files == 1


def test_a_run_without_its_results_is_dead(tmp_path: Path) -> None:
    digests = {"a": "a" * 32, "b": "b" * 32}
    for run, names in {"aa/whole": "a", "bb/lost": "b", "cc/half": "ab"}.items():
        for name in names:
            entry = tmp_path / "runs" / run / name
            entry.parent.mkdir(parents=True, exist_ok=True)
            entry.write_text(f"cmd: x\ndeps: []\nouts:\n- path: data/x\n  hash: md5\n  md5: {digests[name]}\n")
    dead = [path.relative_to(tmp_path).as_posix() for path in Cache(tmp_path).dead_runs({digests["a"]})]
    assert dead == ["runs/bb/lost", "runs/cc/half/b"]


# -- in a project -------------------------------------------------------------------------------------------


@pytest.fixture
def littered(built: Project) -> tuple[Project, set[Path]]:
    """A finished project, and files of which every one can be removed."""
    private, cache = built.root / ".uss", built.root / ".dvc/cache/files/md5"
    litter = {
        cache / "00" / ("0" * 30),
        private / "work/segments/gone/scenes/abc/shard-00000.parquet",
        private / "work/segments/kmeans/scenes/abc/shard-00000.parquet",
        private / "quarantine/segments/kmeans/scenes/validation.json",
        private / "shards/segments/gone/scenes/key/listing.json",
        built.root / ".dvc/tmp/lock-copies/pipelines/gone/dvc.lock.copy",
    }
    for path in litter:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 5000)
    return built, litter


def test_exactly_what_nothing_uses_goes(littered: tuple[Project, set[Path]]) -> None:
    project, litter = littered
    used = tree_hash(project.root / "data"), tree_hash(project.root / ".dvc/cache"), project.locks()
    shown = project.uss("gc").stdout
    assert rows(shown) == {TITLES[name]: (1, 0.0) for name in ("cache", "shards", "work", "quarantine", "locks", "unfinished")}
    assert shown.endswith("Nothing was removed: `uss gc --yes` does.\n")
    assert all(path.exists() for path in litter)
    assert project.uss("gc", "--yes").stdout.endswith("Removed.\n")
    unfinished = project.root / ".uss/work/segments/kmeans/scenes/abc/shard-00000.parquet"
    assert {path for path in litter if path.exists()} == {unfinished}, "a stopped run goes on with it"
    assert rows(project.uss("gc", "--yes", "--also", "unfinished").stdout) == {TITLES["unfinished"]: (1, 0.0)}
    assert frees(project.uss("gc").stdout) == 0
    assert (tree_hash(project.root / "data"), project.locks()) == (used[0], used[2])
    after = tree_hash(project.root / ".dvc/cache")
    assert used[1].keys() - after.keys() == {f"files/md5/00/{'0' * 30}"}
    assert project.uss("repro").stdout.endswith("Every stage is up to date.\n")


def test_a_wrong_part_is_refused(built: Project) -> None:
    refused = built.uss("gc", "--also", "result", code=64)
    assert refused.stderr == "error: Unknown part 'result'. Did you mean 'results'?\n"
    assert set(ONLY_IF_NAMED) < set(TITLES)


def test_while_something_is_built_nothing_goes(littered: tuple[Project, set[Path]]) -> None:
    project, litter = littered
    temporary = project.root / ".dvc" / "tmp"
    write_json(temporary / "rwlock", {"write": {"/x": {"pid": os.getpid(), "cmd": "dvc repro"}}, "read": {}})
    refused = project.uss("gc", "--yes", code=75)
    assert f"Process {os.getpid()} is building results in {project.root}." in refused.stderr
    (temporary / "rwlock").unlink()
    write_json(project.root / OWNER, {"host": "elsewhere"})
    assert "Another machine or container builds in this clone: elsewhere" in project.uss("gc", "--yes", code=75).stderr
    assert all(path.exists() for path in litter)


def test_a_result_without_the_list_of_its_files_is_refused(built: Project) -> None:
    (digest,) = (out["md5"] for out in built.lock()["segments/kmeans/scenes"])
    (built.root / ".dvc/cache/files/md5" / digest[:2] / digest[2:]).unlink()
    assert (
        f"lacks the list of files of {built.root}/data/segments/kmeans/scenes. Run `uss verify --repair`" in built.uss("gc", code=64).stderr
    )


@pytest.mark.slow
def test_a_cache_that_others_may_use_stays(littered: tuple[Project, set[Path]], tmp_path: Path) -> None:
    project, _ = littered
    shared = tmp_path / "shared"
    shutil.move(project.root / ".dvc/cache", shared)
    project.dvc("config", "cache.dir", str(shared))
    shown = project.uss("gc").stdout
    assert TITLES["cache"] not in rows(shown)
    assert f"DVC's cache, {shared}, lies outside this project" in shown
    assert TITLES["cache"] in rows(project.uss("gc", "--project", str(project.root)).stdout)


@pytest.fixture
def small(tmp_path: Path) -> Project:
    """A project in which nothing is computed, and whose files have no links to another's."""
    return make_project(tmp_path / "project", PROFILE)


@pytest.mark.slow
def test_projects_of_reproduce_stay_unless_named(built: Project) -> None:
    table = built.root / ".uss/reproduce/table"
    (table / ".dvc").mkdir(parents=True)
    cache = f"[cache]\n    dir = {built.root}/.dvc/cache\n    type = hardlink\n"
    (table / ".dvc/config").write_text(f"[core]\n    no_scm = true\n{cache}")
    (table / "dvc.yaml").write_text("stages:\n  a: {cmd: head -c 300000 /dev/urandom > x, outs: [x]}\n")
    Project(table).dvc("repro")
    shown = built.uss("gc", "--yes").stdout
    assert (frees(shown), rows(shown)[TITLES["reproduce"]][1]) == (0, 0.3)
    assert Project(table).dvc("status").stdout == "Data and pipelines are up to date.\n"
    write_json(table / ".dvc/tmp/rwlock", {"write": {"/x": {"pid": os.getpid(), "cmd": "dvc repro"}}, "read": {}})
    assert f"is building results in {table}" in built.uss("gc", code=75).stderr
    (table / ".dvc/tmp/rwlock").unlink()
    before = on_disk(built.root)
    shown = built.uss("gc", "--yes", "--also", "reproduce").stdout
    assert f"{(before - on_disk(built.root)) / 1e6:,.1f}" == f"{frees(shown):,.1f}"
    assert not table.exists()
    assert frees(built.uss("gc", "--also", "reproduce").stdout) == 0
    assert "are what dvc.lock records" in built.uss("verify").stdout


@pytest.mark.slow
def test_a_build_goes_on_undisturbed(small: Project) -> None:
    building = subprocess.Popen([BIN / "uss", "repro"], cwd=small.root, env={**small.env, "USS_FORK": "1"}, stdout=subprocess.DEVNULL)
    try:
        refused = 0
        while building.poll() is None:
            if refused < 3 and lock_holders(small.root):
                refused += small.uss("gc", "--yes", code=None).returncode == 75
            time.sleep(0.1)
    finally:
        building.terminate()
    assert building.wait() == 0
    assert refused
    with nobody_builds([small.root]), pytest.raises(TryAgain, match="A process of DVC works in"), nobody_builds([small.root]):
        pass
    assert small.repro() == []


@pytest.mark.slow
def test_the_old_result_goes_and_all_is_in_place(small: Project) -> None:
    root = small.root
    small.repro()
    small.run("git", "add", "-A")
    small.run("git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "four clusters")
    assert frees(small.uss("gc").stdout) == 0
    old = small.lock()["segments/kmeans/scenes"][0]["md5"]
    small.edit("profiles/small.yaml", "k: 4", "k: 6")
    small.repro()
    assert frees(small.uss("gc", "--all-commits").stdout) == 0, "the commit uses it"
    size = rows(small.uss("gc").stdout)[TITLES["cache"]][1]
    objects = [path for path in (root / ".dvc/cache/files").rglob("*") if path.is_file()]
    before = on_disk(root)
    shown = small.uss("gc", "--yes").stdout
    gained = before - on_disk(root)
    assert f"{gained / 1e6:,.1f}" == f"{frees(shown):,.1f}"
    assert 0 < size <= frees(shown)
    gone = {path.parent.name + path.name for path in objects if not path.exists()}
    assert old in gone
    assert not gone & {out["md5"] for outs in small.lock().values() for out in outs}
    assert small.dvc("status").stdout == "Data and pipelines are up to date.\n"
    assert "are what dvc.lock records" in small.uss("verify").stdout
    assert frees(small.uss("gc").stdout) == 0
    small.uss("plan")
    assert small.repro() == []


@pytest.mark.slow
def test_features_that_are_no_longer_kept_go_and_scores_stay(small: Project) -> None:
    root = small.root
    small.repro()
    regions = tree_hash(root / "data/segments")
    small.edit("profiles/small.yaml", "{dictionary: false}", "{dictionary: false, keep: false}")
    planned = small.uss("plan").stdout
    assert "features of 'patches' are not stored; computed once: by segments/kmeans/scenes" in planned
    assert small.repro() == ["segments/kmeans/scenes"], "the same bytes: nothing after them"
    assert tree_hash(root / "data/segments") == regions
    before = on_disk(root)
    shown = small.uss("gc", "--yes").stdout
    assert f"{(before - on_disk(root)) / 1e6:,.1f}" == f"{frees(shown):,.1f}"
    assert TITLES["features"] in rows(shown)
    assert not (root / "data/features/patches/scenes").exists()
    assert "are what dvc.lock records" in small.uss("verify").stdout
    # Back again: only the features are computed.
    small.edit("profiles/small.yaml", ", keep: false", "")
    assert small.repro() == ["features/patches/scenes"]
    assert tree_hash(root / "data/segments") == regions


@pytest.mark.slow
def test_results_of_an_entry_that_is_gone_stay_unless_named(small: Project) -> None:
    root = small.root
    small.repro()
    small.edit("profiles/small.yaml", "  felzenszwalb: {params: {scales: 3}}\n", "")
    small.repro()
    shown = small.uss("gc", "--yes").stdout
    assert TITLES["results"] in shown
    assert (root / "data/segments/felzenszwalb/scenes").is_dir()
    before, stays = on_disk(root), rows(small.uss("gc").stdout)[TITLES["results"]][1]
    small.uss("gc", "--yes", "--also", "results")
    assert abs((before - on_disk(root)) / 1e6 - stays) < 0.1
    assert not (root / "data/segments/felzenszwalb/scenes").exists()
    assert "are what dvc.lock records" in small.uss("verify").stdout
    assert frees(small.uss("gc", "--also", "results").stdout) == 0

"""A dvc.lock that a kill or a full disk damaged comes back, and DVC as the runner starts it never damages one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from uss_dagster.dagster_dvc import DvcRunner
from uss_dagster.dagster_dvc.lock_copies import COPIES, check_locks, copy_lock
from uss_dagster.errors import UsageError

PROGRAM = str(Path(__file__).parents[2] / "uss_dagster/dagster_dvc/dvc_program.py")


@pytest.fixture(scope="module")
def locked_template(built_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = Path(shutil.copytree(built_template, tmp_path_factory.mktemp("locked") / "project"))
    assert DvcRunner(root).repro([], print) == 0
    return root


@pytest.fixture
def locked(locked_template: Path, tmp_path: Path) -> Path:
    """A fresh copy of a project whose lock is good and copied."""
    return Path(shutil.copytree(locked_template, tmp_path / "project"))


def test_whatever_a_kill_leaves_is_restored(locked: Path):
    lock = locked / "dvc.lock"
    good = lock.read_bytes()
    for length in [*range(0, len(good), 211), len(good) - 1]:
        lock.write_bytes(good[:length])
        (sentence,) = check_locks(locked)
        assert sentence.startswith("dvc.lock was damaged")
        assert lock.read_bytes() == good, length
    assert check_locks(locked) == []


def test_half_of_a_longer_lock_is_damaged_too(locked: Path):
    """A stage whose entry changed: what was written is not the beginning of the last good copy."""
    lock = locked / "dvc.lock"
    good, longer = lock.read_text(), lock.read_text().replace("copy leaderboard", "copy the leaderboard")
    for length in range(longer.index("copy the"), len(longer), 29):
        text = longer[:length]
        lock.write_text(text)
        check_locks(locked)
        assert lock.read_text() in (good, text)
        if lock.read_text() == text:
            assert "size:" in text.splitlines()[-1] or "hash: md5" not in text.splitlines()[-1]
        (locked / COPIES / "dvc.lock.copy").write_text(good)


def test_a_good_change_is_copied_and_a_merge_conflict_left_alone(locked: Path):
    lock = locked / "dvc.lock"
    good = lock.read_text()
    shorter = "".join(part for part in good.partition("  segments@un__toy:")[:1])
    changed = good.replace("copy leaderboard", "copy other")
    lock.write_text(changed)
    assert check_locks(locked) == []
    assert (locked / COPIES / "dvc.lock.copy").read_text() == changed
    conflict = f"<<<<<<< ours\n{good}=======\n{shorter}>>>>>>> theirs\n"
    lock.write_text(conflict)
    assert check_locks(locked) == []
    assert lock.read_text() == conflict
    copy_lock(locked, lock)
    assert (locked / COPIES / "dvc.lock.copy").read_text() == changed


def test_without_a_copy_a_damaged_lock_is_moved_aside(locked: Path):
    shutil.rmtree(locked / COPIES)
    (locked / "dvc.lock").write_text("")
    waits: list[str] = []
    runs = len((locked / "runs.log").read_text().splitlines())
    assert DvcRunner(locked).repro([], waits.append) == 0
    assert [sentence.partition(";")[0] for sentence in waits] == ["dvc.lock was damaged and has no good copy"]
    assert len((locked / "runs.log").read_text().splitlines()) == runs, "all results come from the run cache"


def test_a_folder_in_the_place_of_a_lock_is_named(locked: Path):
    (locked / "dvc.lock").unlink()
    (locked / "dvc.lock").mkdir()
    with pytest.raises(UsageError, match=r"^dvc\.lock is a folder"):
        check_locks(locked)


def test_dvc_leaves_the_old_lock_where_the_new_one_cannot_be_written(locked: Path):
    """Every file is limited to fewer bytes than the lock has, as on a disk that is nearly full."""
    good = (locked / "dvc.lock").read_bytes()
    (locked / "in/toy.txt").write_text("other")
    limited = (
        "import resource, signal, sys\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nresource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({len(good) // 2}, 2**20))\n"
        f"sys.path.insert(0, {os.path.dirname(PROGRAM)!r})\nimport dvc_program\n"
        "try:\n    with dvc_program.modify_yaml('dvc.lock') as content:\n        content['stages']['more'] = {'cmd': 'x'}\n"
        "except OSError as error:\n    print(type(error).__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", limited], cwd=locked, capture_output=True, text=True, check=True)
    assert done.stdout == "OSError\n"
    assert (locked / "dvc.lock").read_bytes() == good
    assert not list(locked.glob(".dvc.lock*"))


@pytest.mark.slow
def test_the_order_of_a_new_lock_does_not_depend_on_the_seed_of_hashes(locked: Path):
    texts = set()
    for seed in ("0", "1", "2"):
        (locked / "dvc.lock").unlink()
        assert DvcRunner(locked, {"PYTHONHASHSEED": seed}).repro([], print) == 0
        texts.add((locked / "dvc.lock").read_bytes())
    assert len(texts) == 1

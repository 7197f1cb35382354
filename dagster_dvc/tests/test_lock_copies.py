"""A dvc.lock that a kill or a full disk damaged comes back, and its stages are in order."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from dagster_dvc import DvcRunner
from dagster_dvc.errors import UsageError
from dagster_dvc.lock_copies import COPIES, check_locks, copy_lock, sort_locks


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


@pytest.mark.parametrize("quote", ["", "'"])
def test_stages_are_put_in_the_order_of_their_names(locked: Path, quote: str):
    lock = locked / "dvc.lock"
    entry = "    cmd: x\n    outs:\n    - path: a\n      hash: md5\n      md5: 0123\n"
    names = ["b-2", "a", "c@x", "b"]
    lock.write_text("schema: '2.0'\nstages:\n" + "".join(f"  {quote}{name}{quote}:\n{entry}" for name in names))
    before = yaml.safe_load(lock.read_text())
    sort_locks(locked)
    after = yaml.safe_load(lock.read_text())
    assert after == before
    assert list(after["stages"]) == sorted(names)
    text = lock.read_bytes()
    assert (locked / COPIES / "dvc.lock.copy").read_bytes() == text
    sort_locks(locked)
    assert lock.read_bytes() == text


@pytest.mark.slow
def test_the_order_of_a_new_lock_does_not_depend_on_the_seed_of_hashes(locked: Path):
    texts = set()
    for seed in ("0", "1", "2"):
        (locked / "dvc.lock").unlink()
        assert DvcRunner(locked, {"PYTHONHASHSEED": seed}).repro([], print) == 0
        texts.add((locked / "dvc.lock").read_bytes())
    assert len(texts) == 1

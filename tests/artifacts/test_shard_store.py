"""Stored shards of an earlier version: found by key, refused when they are not what they were."""

import os
from pathlib import Path

from uss_dagster.artifacts.shard_store import ShardStore, shard_key
from uss_dagster.artifacts.staging import Staging

NAMES = ["b.bin", "parts/a.bin"]
CELL = "stage/entry/dataset"


def store_of(private: Path, name: str = CELL) -> ShardStore:
    return ShardStore(private / "shards" / name)


def finished(private: Path, key: str = "k", text: str = "x") -> Staging:
    """A work folder with the files of one shard, which are stored too."""
    staging = Staging(private, CELL, 1)
    for name in NAMES:
        staging.write(name, lambda p, name=name: p.write_text(f"{text} {name}"))
    store_of(private).store(key, NAMES, staging)
    return staging


def test_stored_shards_are_restored_with_the_same_bytes(tmp_path):
    finished(tmp_path)
    later, store = Staging(tmp_path, CELL, 2), store_of(tmp_path)
    assert not later.has(NAMES[0])
    assert store.restore("k", NAMES, later)
    assert (later.folder / "parts" / "a.bin").read_text() == "x parts/a.bin"
    assert (later.folder / "b.bin").read_text() == "x b.bin"
    assert not store.restore("other", NAMES, later)
    assert not store_of(tmp_path, "stage/entry/other").restore("k", NAMES, later), "another artefact has its own"
    assert not store.restore("k", [*NAMES, "c.bin"], later), "a shard with more files than were stored"


def test_a_restored_shard_is_a_copy_and_the_last_file_comes_last(tmp_path, monkeypatch):
    """Writing into the work folder must not reach the store; the last file tells that the shard is complete."""
    finished(tmp_path)
    later = Staging(tmp_path, CELL, 2)
    written = []
    write = later.write
    monkeypatch.setattr(later, "write", lambda name, writer: (written.append(name), write(name, writer))[1])
    assert store_of(tmp_path).restore("k", NAMES, later)
    assert written == NAMES
    (later.folder / "b.bin").write_text("changed in place")
    assert store_of(tmp_path).restore("k", NAMES, Staging(tmp_path, CELL, 3))


def test_a_changed_or_cut_shard_is_not_restored(tmp_path):
    finished(tmp_path)
    (stored,) = (tmp_path / "shards" / CELL).iterdir()
    os.unlink(stored / "b.bin")
    (stored / "b.bin").write_text("y b.bin")
    assert not store_of(tmp_path).restore("k", NAMES, Staging(tmp_path, CELL, 2))
    os.unlink(stored / "b.bin")
    assert not store_of(tmp_path).restore("k", NAMES, Staging(tmp_path, CELL, 2))
    (stored / "listing.json").write_text("{")
    assert not store_of(tmp_path).restore("k", NAMES, Staging(tmp_path, CELL, 2))


def test_an_unfinished_copy_is_none_and_is_made_anew(tmp_path):
    finished(tmp_path)
    (stored,) = (tmp_path / "shards" / CELL).iterdir()
    (stored / "listing.json").unlink()
    assert not store_of(tmp_path).restore("k", NAMES, Staging(tmp_path, CELL, 2))
    finished(tmp_path)
    assert store_of(tmp_path).restore("k", NAMES, Staging(tmp_path, CELL, 3))


def test_others_are_evicted_and_an_empty_key_is_never_stored(tmp_path, monkeypatch):
    staging, store = finished(tmp_path), store_of(tmp_path)
    store.store("", NAMES, staging)
    assert not store.restore("", NAMES, staging)
    finished(tmp_path, "k2")
    store.evict_except({"k2"})
    assert [path.name for path in store.folder.iterdir()] == ["k2"]
    assert not store.restore("k", NAMES, Staging(tmp_path, CELL, 2))
    monkeypatch.setenv("USS_REUSE", "0")
    assert not store.restore("k2", NAMES, Staging(tmp_path, CELL, 2))
    monkeypatch.delenv("USS_REUSE")
    assert store.restore("k2", NAMES, Staging(tmp_path, CELL, 2))
    store.evict_except(())
    assert list(store.folder.iterdir()) == []
    store_of(tmp_path, "never/stored").evict_except({"k"})


def test_a_key_depends_on_all_that_is_named():
    keys = {
        shard_key("segments", {"a": 1}, [["x", "1"]]),
        shard_key("segments", {"a": 2}, [["x", "1"]]),
        shard_key("segments", {"a": 1}, [["x", "2"]]),
    }
    assert len(keys) == 3
    assert shard_key({"a": 1, "b": 2}) == shard_key({"b": 2, "a": 1})

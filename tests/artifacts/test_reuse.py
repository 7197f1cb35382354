"""Shards of an earlier version: found by key, refused when they are not what they were."""

import os

from uss_dagster.artifacts.shard_store import bring_back, forget_others, keep, shard_key
from uss_dagster.artifacts.staging import Staging

NAMES = ["b.bin", "parts/a.bin"]


def finished(root, key="k", text="x"):
    staging = Staging(root, "stage cell", 1)
    for name in NAMES:
        staging.write(name, lambda p, name=name: p.write_text(f"{text} {name}"))
    keep(staging, key, NAMES)
    return staging


def test_kept_shards_come_back_with_the_same_bytes(tmp_path):
    finished(tmp_path)
    later = Staging(tmp_path, "stage cell", 2)
    assert not later.has(NAMES[0])
    assert bring_back(later, "k", NAMES)
    assert (later.folder / "parts" / "a.bin").read_text() == "x parts/a.bin"
    assert not bring_back(later, "other", NAMES)
    assert not bring_back(Staging(tmp_path, "stage other", 1), "k", NAMES), "another artefact has its own"


def test_what_was_changed_or_cut_is_computed_again(tmp_path):
    finished(tmp_path)
    (kept,) = (tmp_path / ".uss" / "shards" / "stage-cell").iterdir()
    os.unlink(kept / "b.bin")
    (kept / "b.bin").write_text("y b.bin")
    assert not bring_back(Staging(tmp_path, "stage cell", 2), "k", NAMES)
    (kept / "listing.json").write_text("{")
    assert not bring_back(Staging(tmp_path, "stage cell", 2), "k", NAMES)


def test_an_unfinished_copy_is_none_and_is_made_anew(tmp_path):
    staging = finished(tmp_path)
    (kept,) = (tmp_path / ".uss" / "shards" / "stage-cell").iterdir()
    (kept / "listing.json").unlink()
    assert not bring_back(Staging(tmp_path, "stage cell", 2), "k", NAMES)
    finished(tmp_path)
    assert bring_back(Staging(tmp_path, "stage cell", 3), "k", NAMES)
    assert staging.root == tmp_path


def test_others_are_forgotten_and_an_empty_key_is_never_kept(tmp_path, monkeypatch):
    staging = finished(tmp_path)
    keep(staging, "", NAMES)
    assert not bring_back(staging, "", NAMES)
    finished(tmp_path, "k2")
    forget_others(staging, {"k2"})
    assert not bring_back(Staging(tmp_path, "stage cell", 2), "k", NAMES)
    monkeypatch.setenv("USS_REUSE", "0")
    assert not bring_back(Staging(tmp_path, "stage cell", 2), "k2", NAMES)
    monkeypatch.delenv("USS_REUSE")
    assert bring_back(Staging(tmp_path, "stage cell", 2), "k2", NAMES)


def test_a_key_depends_on_all_that_is_named():
    keys = {
        shard_key("segments", {"a": 1}, [["x", "1"]]),
        shard_key("segments", {"a": 2}, [["x", "1"]]),
        shard_key("segments", {"a": 1}, [["x", "2"]]),
    }
    assert len(keys) == 3
    assert shard_key({"a": 1, "b": 2}) == shard_key({"b": 2, "a": 1})

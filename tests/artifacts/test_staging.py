"""Publishing: whole or not at all."""

import json

import pytest

from uss_dagster.artifacts.gate import Report
from uss_dagster.artifacts.staging import Rejected, Staging, content_id, read_manifest
from uss_dagster.errors import BadData, TryAgain


def verdict(good: bool) -> Report:
    report = Report("test")
    report.add("all is well", good, "" if good else "It is not.")
    return report


NAME = "stage/entry/dataset"


def make(root, text="hello", depends_on=1, name=NAME):
    """The work folder of an artefact with one file, in the project ``root``."""
    staging = Staging(root / ".uss", name, depends_on)
    staging.write("sub/a.txt", lambda p: p.write_text(text))
    return staging


def test_publish_then_replace(tmp_path):
    target = tmp_path / "data" / "out"
    make(tmp_path).publish(target, verdict(True), {"what": "x"})
    first = content_id(target)
    assert read_manifest(target)["files"]["sub/a.txt"]["size"] == 5
    make(tmp_path).publish(target, verdict(True), {"what": "x"})
    assert content_id(target) == first
    make(tmp_path, "other").publish(target, verdict(True), {"what": "x"})
    assert content_id(target) != first
    assert not (tmp_path / ".uss" / "work" / NAME).exists()
    assert not list(target.parent.glob(".*")), "nothing is left beside it"


def test_a_refused_artefact_changes_nothing_published(tmp_path):
    target = tmp_path / "data" / "out"
    make(tmp_path).publish(target, verdict(True), {})
    before = content_id(target)
    with pytest.raises(
        Rejected,
        match=r"^stage/entry/dataset was refused: all is well: It is not\. .* lie in \.uss/quarantine/stage/entry/dataset; the last",
    ):
        make(tmp_path, "bad").publish(target, verdict(False), {})
    assert content_id(target) == before
    quarantine = tmp_path / ".uss" / "quarantine" / NAME
    assert (quarantine / "sub" / "a.txt").read_text() == "bad"
    assert json.loads((quarantine / "validation.json").read_text())["success"] is False
    assert not (tmp_path / ".uss" / "work" / NAME).exists()
    with pytest.raises(Rejected) as refused:
        make(tmp_path, "worse").publish(target, verdict(False), {})
    assert (quarantine / "sub" / "a.txt").read_text() == "worse", "the last refused result"
    assert refused.value.report.as_posix() == f".uss/quarantine/{NAME}/validation.json"


def test_work_is_found_again_only_for_the_same_inputs(tmp_path):
    private = tmp_path / ".uss"
    assert not Staging(private, NAME, 1).has("sub/a.txt")
    make(tmp_path)
    assert Staging(private, NAME, 1).has("sub/a.txt")
    assert Staging(private, NAME, [{"a": 1, "b": 2}]).folder == Staging(private, NAME, [{"b": 2, "a": 1}]).folder
    make(tmp_path)
    assert not Staging(private, NAME, 2).has("sub/a.txt")
    assert not Staging(private, NAME, 1).has("sub/a.txt"), "work for other inputs is removed"


def test_names_are_nested_and_keep_to_themselves(tmp_path):
    """Artefacts of one entry on two datasets, and two entries on one: the work, the refused result and the published one of each."""
    names = ["segments/slic/a", "segments/slic/b", "segments/other/a", "scores/slic/a"]
    made = {name: make(tmp_path, name, name=name) for name in names}
    assert all(staging.has("sub/a.txt") for staging in made.values())
    assert {staging.folder.parent for staging in made.values()} == {tmp_path / ".uss" / "work" / name for name in names}
    made[names[0]].publish(tmp_path / "data" / names[0], verdict(True), {})
    with pytest.raises(Rejected):
        made[names[1]].publish(tmp_path / "data" / names[1], verdict(False), {})
    assert (tmp_path / "data" / names[0] / "sub" / "a.txt").read_text() == names[0]
    assert not (tmp_path / "data" / names[1]).exists()
    assert (tmp_path / ".uss" / "quarantine" / names[1] / "sub" / "a.txt").read_text() == names[1]
    assert all(Staging(tmp_path / ".uss", name, 1).has("sub/a.txt") for name in names[2:]), "the others' work is untouched"


def test_a_writer_that_fails_leaves_no_file(tmp_path):
    staging = Staging(tmp_path, NAME, 1)

    def fail(path):
        path.write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        staging.write("a.txt", fail)
    assert list(staging.folder.iterdir()) == []


def test_reading_what_is_missing_or_cut_short(tmp_path):
    target = tmp_path / "out"
    with pytest.raises(TryAgain, match=r"is not there\. Run its stage first"):
        read_manifest(target)
    make(tmp_path).publish(target, verdict(True), {})
    (target / "sub" / "a.txt").write_text("he")
    with pytest.raises(BadData, match="has 2 bytes, its manifest says 5 bytes"):
        read_manifest(target)
    (target / "sub" / "a.txt").unlink()
    with pytest.raises(BadData, match="is missing"):
        read_manifest(target)
    (target / "manifest.json").write_text("{")
    with pytest.raises(BadData, match="is not JSON"):
        read_manifest(target)

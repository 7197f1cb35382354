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


def make(root, text="hello", depends=1, what="stage cell"):
    staging = Staging(root, what, depends)
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
    assert not (tmp_path / ".uss" / "work" / "stage-cell").exists()


def test_a_refused_artefact_changes_nothing_published(tmp_path):
    target = tmp_path / "data" / "out"
    make(tmp_path).publish(target, verdict(True), {})
    before = content_id(target)
    with pytest.raises(Rejected, match=r"stage cell was refused: all is well: It is not\. .* lie in \.uss/quarantine/stage-cell; dvc"):
        make(tmp_path, "bad").publish(target, verdict(False), {})
    assert content_id(target) == before
    kept = tmp_path / ".uss" / "quarantine" / "stage-cell"
    assert (kept / "sub" / "a.txt").read_text() == "bad"
    assert json.loads((kept / "validation.json").read_text())["success"] is False


def test_work_is_found_again_only_for_the_same_inputs(tmp_path):
    assert not Staging(tmp_path, "s", 1).has("sub/a.txt")
    make(tmp_path, what="s")
    assert Staging(tmp_path, "s", 1).has("sub/a.txt")
    assert not Staging(tmp_path, "s", 2).has("sub/a.txt")
    assert not Staging(tmp_path, "s", 1).has("sub/a.txt"), "work for other inputs is removed"


def test_a_writer_that_fails_leaves_no_file(tmp_path):
    staging = Staging(tmp_path, "s", 1)

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

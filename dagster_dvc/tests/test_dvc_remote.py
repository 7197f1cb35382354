"""A remote on this machine: what is pushed, what is not, and what another clone need not compute. The real dvc."""

import shutil
from pathlib import Path

import pytest
from dvc_command import dvc

from dagster_dvc import DvcProject


@pytest.mark.slow
def test_a_remote_gets_results_but_not_what_must_not_be_passed_on(template: Path, tmp_path: Path):
    root = Path(shutil.copytree(template, tmp_path / "project"))
    text = (root / "dvc.yaml").read_text()
    old = '      outs: ["data/datasets/${key}"]\n'
    assert old in text
    # As this project's own dvc.yaml has it. (A literal: DVC takes no value of a cell here.)
    (root / "dvc.yaml").write_text(text.replace(old, '      outs: [{"data/datasets/${key}": {push: false}}]\n'))
    dvc(root, "repro", "-q")
    dvc(root, "remote", "add", "-d", "shared", str(tmp_path / "shared"))
    dvc(root, "push", "-q", "--run-cache")
    project = DvcProject(root)
    versions = {address: next(iter(project.outs_version(address).values())) for address in project.stages}
    there = {path.parent.name + path.name for path in (tmp_path / "shared").rglob("*") if path.is_file()}
    kept = {address for address, version in versions.items() if version in there}
    assert set(versions) - kept == {"datasets@toy", "datasets@voc"}
    contents = {path.read_text() for path in (tmp_path / "shared/files").rglob("*") if path.is_file()}
    assert not contents & {"toy", "voc"}

    other = Path(shutil.copytree(root, tmp_path / "other", ignore=shutil.ignore_patterns("cache", "data", "reports", "runs.log")))
    dvc(other, "pull", "-q", "--run-cache", "--allow-missing")
    assert (other / "data/segments/un/toy/x.txt").read_text() == "un__toy:toy"
    assert not list((other / "data/datasets").glob("*")), "everyone gets them from their source"
    dvc(other, "repro", "-q")
    assert (other / "runs.log").read_text().split() == ["toy", "voc"], "only what is not passed on is made again"
    assert dvc(other, "status", "--json").strip() == "{}"

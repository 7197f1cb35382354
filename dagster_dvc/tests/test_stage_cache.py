"""The stages that are kept between processes are those that DVC would resolve."""

import shutil
import subprocess

import pytest

from dagster_dvc import DvcProject, stage_cache

TEMPLATE = """\
vars:
  - cells.yaml
stages:
  make:
    foreach: ${cells}
    do:
      cmd: python make.py ${key} ${item.size} ${shape}
      deps: [make.py]
      params: [other.yaml: [speed]]
      outs: ["out/${key}"]
      meta: {dagster: {asset: made, partition: "${key}", tags: {a: b}}}
"""


@pytest.fixture
def root(tmp_path):
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("[core]\n    analytics = false\n")
    (tmp_path / ".gitignore").write_text("/ignored\n")
    (tmp_path / "make.py").write_text("")
    (tmp_path / "other.yaml").write_text("speed: 1\n")
    (tmp_path / "params.yaml").write_text("shape: round\n")
    (tmp_path / "cells.yaml").write_text("cells: {a: {size: 1}, b: {size: 2}}\n")
    (tmp_path / "dvc.yaml").write_text(TEMPLATE)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    return tmp_path


def resolved(root):
    """What DVC says now, nothing kept."""
    shutil.rmtree(root / ".dvc" / "tmp" / "dagster_dvc", ignore_errors=True)
    return DvcProject(root).stages


def test_kept_stages_equal_resolved_ones_and_need_no_dvc(root, monkeypatch):
    fresh = resolved(root)
    assert (root / stage_cache.CACHE).is_file()
    monkeypatch.setattr(DvcProject, "_resolve_stages", lambda self: pytest.fail("DVC was asked"))
    assert DvcProject(root).stages == fresh
    assert fresh["make@b"].cmd == "python make.py b 2 round"


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("dvc.yaml", TEMPLATE.replace("make.py ${key}", "make.py --fast ${key}")),
        ("cells.yaml", "cells: {a: {size: 1}, c: {size: 3}}\n"),
        ("params.yaml", "shape: square\n"),
        ("deep/dvc.yaml", "stages: {more: {cmd: echo, outs: [there]}}\n"),
        (".dvcignore", "deep\n"),
    ],
)
def test_whatever_stages_are_resolved_from_is_noticed(root, file, text):
    (root / "deep").mkdir()
    if file == ".dvcignore":
        (root / "deep" / "dvc.yaml").write_text("stages: {more: {cmd: echo, outs: [there]}}\n")
    before = DvcProject(root).stages
    (root / file).write_text(text)
    after = DvcProject(root).stages
    assert after != before
    assert after == resolved(root)


def test_what_is_kept_and_broken_is_resolved_again(root):
    fresh = resolved(root)
    for broken in ("", "[]", '{"key": 1}', "{"):
        (root / stage_cache.CACHE).write_text(broken)
        assert DvcProject(root).stages == fresh


def test_nothing_is_kept_where_names_of_files_are_computed_or_git_is_absent(root):
    (root / "dvc.yaml").write_text(TEMPLATE.replace("      cmd:", "      wdir: ${key}\n      vars: [more.yaml]\n      cmd:"))
    assert stage_cache.key_of(root) is None
    (root / "dvc.yaml").write_text(TEMPLATE)
    assert stage_cache.key_of(root)
    shutil.rmtree(root / ".git")
    (root / ".dvc" / "config").write_text("[core]\n    no_scm = true\n")
    assert stage_cache.key_of(root) is None
    assert len(DvcProject(root).stages) == 2

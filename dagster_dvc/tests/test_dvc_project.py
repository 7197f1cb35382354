"""Reading a DVC project: stages, edges, dvc.lock, and the sentences for broken ones."""

import subprocess
import threading
from pathlib import Path

import pytest
import yaml
from dvc_command import dvc

from dagster_dvc import DvcProject, DvcRunner
from dagster_dvc.errors import UsageError


def write_stages(root: Path, stages: dict) -> None:
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))


def test_templates_resolve_with_their_nested_meta(root: Path) -> None:
    stages = DvcProject(root).stages
    assert list(stages) == ["datasets@toy", "datasets@voc", "segments@lc__toy", "segments@lc__voc", "segments@un__toy", "leaderboard"]
    stage = stages["segments@un__toy"]
    assert stage.asset_key == ("segments", "un")
    assert stage.partition == "toy"
    assert stage.deps == ("data/datasets/toy",)
    assert stage.outs == ("data/segments/un/toy",)
    assert stage.params == (("grid.yaml", ("segments.un__toy",)),)
    assert stage.meta["pool"] == "gpu"
    assert stage.meta["tags"] == {"paper": "yes"}
    # An empty text means absent, because a template cannot leave a key out.
    assert "pool" not in stages["segments@lc__toy"].meta


def test_a_stage_without_meta_is_named_after_itself(root: Path) -> None:
    stage = DvcProject(root).stages["leaderboard"]
    assert (stage.asset_key, stage.partition) == (("leaderboard",), None)


def test_edges_go_by_path_containment_both_ways(root: Path) -> None:
    write_stages(
        root,
        {
            "folder": {"cmd": "x", "outs": ["d"]},
            "inside": {"cmd": "x", "deps": ["d/part/file"], "outs": ["e/one"]},
            "other": {"cmd": "x", "deps": ["in/toy.txt"], "outs": ["e/two", "e-three"]},
            "gather": {"cmd": "x", "deps": ["e"], "outs": ["g"]},
            "apart": {"cmd": "x", "deps": ["dd/part"], "outs": ["h"]},
        },
    )
    assert DvcProject(root).upstream == {
        "folder": (),
        "inside": ("folder",),
        "other": (),
        "gather": ("inside", "other"),
        "apart": (),
    }


def test_two_writers_of_one_output_are_refused(root: Path) -> None:
    write_stages(root, {"a": {"cmd": "x", "outs": ["o"]}, "b": {"cmd": "x", "outs": ["o"]}})
    with pytest.raises(UsageError, match="'a' and 'b' both write o"):
        _ = DvcProject(root).upstream


def test_a_second_dvc_file_in_a_folder_keeps_paths_relative_to_the_root(root: Path) -> None:
    (root / "sub").mkdir()
    (root / "sub/dvc.yaml").write_text("stages:\n  train:\n    cmd: x\n    deps: [../data/datasets]\n    outs: [model]\n")
    (root / "sub/dvc.lock").write_text(
        "schema: '2.0'\nstages:\n  train:\n    cmd: x\n    outs:\n    - {path: model, hash: md5, md5: abc, size: 3}\n"
    )
    project = DvcProject(root)
    stage = project.stages["sub/dvc.yaml:train"]
    assert (stage.deps, stage.outs, stage.asset_key) == (("data/datasets",), ("sub/model",), ("sub", "train"))
    assert project.upstream["sub/dvc.yaml:train"] == ("datasets@toy", "datasets@voc")
    assert project.outs_version("sub/dvc.yaml:train") == {"sub/model": "abc"}


def test_paths_of_a_lock_start_from_the_stage_s_working_folder(root: Path) -> None:
    """A real run of a pipeline in a folder of its own, with ``wdir``, from a template too."""
    folder = root / "pipelines/toy"
    folder.mkdir(parents=True)
    (folder / "cell.yaml").write_text("size: 1\n")
    (folder / "vars.yaml").write_text("up: ../..\n")
    stages = {
        "make": {
            "cmd": "cp pipelines/toy/cell.yaml made.yaml",
            "wdir": "../..",
            "deps": ["pipelines/toy/cell.yaml"],
            "outs": ["made.yaml"],
        },
        "again": {"cmd": "cp made.yaml again.yaml", "wdir": "${up}", "deps": ["made.yaml"], "outs": ["again.yaml"]},
        "here": {"cmd": "cp cell.yaml here.yaml", "deps": ["cell.yaml"], "outs": ["here.yaml"]},
    }
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"vars": ["vars.yaml"], "stages": stages}, sort_keys=False))
    dvc(root, "repro", "-q", "pipelines/toy/dvc.yaml")
    project = DvcProject(root)
    at = "pipelines/toy/dvc.yaml:{}".format
    assert project.lock_files == [root / "dvc.lock", root / "pipelines/toy/dvc.lock"]
    assert list(project.outs_version(at("make"))) == ["made.yaml"]
    assert project.locked_deps(at("make")).keys() == {"pipelines/toy/cell.yaml"}
    assert list(project.outs_version(at("again"))) == ["again.yaml"]
    assert list(project.outs_version(at("here"))) == ["pipelines/toy/here.yaml"]
    assert project.upstream[at("again")] == (at("make"),)
    assert DvcRunner(root).status([at("make"), at("here")]) == {}
    (folder / "cell.yaml").write_text("size: 2\n")
    assert DvcRunner(root).status([at("make")]) == {at("make"): ["dependency pipelines/toy/cell.yaml: modified"]}


def test_loading_writes_nothing_outside_dvc_s_own_folder(root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def content() -> dict[str, bytes]:
        return {str(p): p.read_bytes() for p in root.rglob("*") if p.is_file() and ".dvc" not in p.relative_to(root).parts}

    before = content()
    monkeypatch.chdir(tmp_path)  # the root, not the working folder, says where things are
    project = DvcProject(root)
    assert project.upstream["segments@lc__toy"] == ("datasets@toy",)
    assert content() == before


def test_lock_is_read_again_when_it_changes(root: Path) -> None:
    project = DvcProject(root)
    assert project.outs_version("a") == {}
    entry = "  {}:\n    cmd: x\n    outs:\n    - path: o\n      hash: md5\n      md5: {}\n      size: 5\n      nfiles: 2\n"
    (root / "dvc.lock").write_text("schema: '2.0'\nstages:\n" + entry.format("a", "11.dir"))
    assert project.outs_version("a") == {"o": "11.dir"}
    (root / "dvc.lock").write_text("schema: '2.0'\nstages:\n" + entry.format("a", "222.dir") + entry.format("b", "33"))
    assert project.outs_version("a") == {"o": "222.dir"}
    assert [(out.size, out.files) for out in project.locked_outs("b")] == [(5, 2)]


def test_lock_is_read_only_while_dvc_does_not_write_it(root: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    (root / ".dvc/tmp").mkdir(exist_ok=True)
    lock = root / "dvc.lock"
    with open(root / ".dvc/tmp/lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        lock.write_text("schema: '2.0'\nstages:\n  a:\n    outs:\n    - {path: o, hash: md5, md5: ha")

        def finish() -> None:
            lock.write_text("schema: '2.0'\nstages:\n  a:\n    outs:\n    - {path: o, hash: md5, md5: half, size: 1}\n")
            fcntl.flock(handle, fcntl.LOCK_UN)

        threading.Timer(0.3, finish).start()
        assert DvcProject(root).outs_version("a") == {"o": "half"}


def test_broken_projects_say_what_to_do(root: Path, tmp_path: Path) -> None:
    def refused(folder: Path) -> str:
        with pytest.raises(UsageError) as caught:
            _ = DvcProject(folder).stages
        return str(caught.value)

    empty = tmp_path / "empty"
    empty.mkdir()
    assert "has no dvc.yaml" in refused(empty)
    (empty / "dvc.yaml").write_text("stages: {}\n")
    assert "run `dvc init` there" in refused(empty)

    (root / "dvc.yaml").write_text("stages:\n  a:\n    cmd: x\n    outs: [data/${b}]\n")
    assert "line 4, column 18" in refused(root)
    (root / "dvc.yaml").write_text("stages:\n  a:\n    cmd: x\n    outz: [b]\n")
    assert "outz" in (text := refused(root))
    assert "line 4" in text
    (root / "dvc.yaml").write_text("stages:\n  a:\n    cmd: x ${nope}\n")
    assert "nope" in refused(root)
    write_stages(root, {"a": {"cmd": "x", "meta": {"dagster": {"aset": "b"}}}})
    assert refused(root) == "Stage 'a': meta.dagster has no 'aset'. Did you mean 'asset'?"
    write_stages(root, {"a": {"cmd": "x", "meta": {"dagster": "b"}}})
    assert "expected a mapping" in refused(root)


def test_without_git_and_without_no_scm(root: Path) -> None:
    if subprocess.run(["git", "rev-parse"], cwd=root, capture_output=True).returncode == 0:
        pytest.skip("the temporary folder lies in a git repository")
    (root / ".dvc/config").write_text("")
    with pytest.raises(UsageError, match=r"git init.*core\.no_scm"):
        _ = DvcProject(root).stages

"""The runner as the command line uses it: no Dagster, all pipelines, exit codes, restored outputs."""

import shutil
import subprocess
import sys
from pathlib import Path

from dagster_dvc import DvcRunner


def test_the_runner_does_not_import_dagster_or_dvc() -> None:
    program = "import sys; from dagster_dvc import DvcRunner; print({'dagster', 'dvc'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_lists_of_folders_do_not_pile_up_in_one_store() -> None:
    program = """
from dagster_dvc.dvc_program import separate_stores
separate_stores()
from dvc_data.hashfile.tree import Tree
trees = [Tree(), Tree()]
for tree in trees:
    tree.digest()
print([len(tree.fs.fs.store) for tree in trees], trees[0].fs.exists(trees[1].path))
"""
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[1, 1] False\n"


def test_no_target_means_every_pipeline(fed: Path) -> None:
    (fed / "own").mkdir()
    (fed / "own/dvc.yaml").write_text("stages:\n  copy: {cmd: cp ../in/toy.txt toy.txt, deps: [../in/toy.txt], outs: [toy.txt]}\n")
    waits: list[str] = []
    assert DvcRunner(fed).repro([], waits.append) == 0
    assert (fed / "own/toy.txt").read_text() == "toy"
    assert (fed / "reports/leaderboard/x.txt").exists()
    assert waits == []
    assert DvcRunner(fed).status() == {}


def test_a_failed_run_gives_dvc_s_code_and_restores_every_output(fed: Path) -> None:
    runner = DvcRunner(fed)
    assert runner.repro(["segments"], lambda message: None) == 0
    shutil.rmtree(fed / "data/segments/lc/voc")  # lost before the run
    (fed / "in/toy.txt").write_text("other")
    failing = DvcRunner(fed, {"BEHAVE": "fail-65"})
    assert failing.repro(["segments@lc__toy"], lambda message: None) == 255
    assert (fed / "data/segments/lc/voc/x.txt").read_text() == "lc__voc:voc"
    assert (fed / "data/datasets/toy/x.txt").exists()


def test_an_empty_folder_in_the_run_cache_is_removed(root: Path) -> None:
    """As a kill leaves it; DVC by itself ends with a TypeError then, each time."""
    runner = DvcRunner(root)
    lines: list[str] = []
    assert runner.run("repro", "datasets@toy", read=lines.append) == 0
    (run,) = (root / ".dvc/cache/runs").glob("*/*")
    shutil.rmtree(run)
    run.mkdir()
    (root / "dvc.lock").unlink()
    shutil.rmtree(root / "data")
    assert runner.run("repro", "datasets@toy", read=lines.append) == 0, lines
    assert len(list(run.iterdir())) == 1

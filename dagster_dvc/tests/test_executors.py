"""The executor is chosen, not fixed."""

import os
from pathlib import Path

import dagster as dg
import pytest
from foreign import MATRIX, make

from dagster_dvc import DvcProject, DvcProjectComponent, DvcResource, build_dvc_assets, executor_named
from dagster_dvc.errors import UsageError


def two_stages(root: str, executor: str, max_concurrent: int) -> dg.JobDefinition:
    """What each process of a run loads."""
    definitions = dg.Definitions(
        assets=build_dvc_assets(DvcProject(root)),
        jobs=[dg.define_asset_job("both")],
        resources={"dvc": DvcResource(project_dir=root)},
        executor=executor_named(executor, max_concurrent),
    )
    return definitions.resolve_job_def("both")


PROJECT = {"dvc.yaml": "stages:\n  a: {cmd: echo 1 > a.txt, outs: [a.txt]}\n  b: {cmd: echo 2 > b.txt, outs: [b.txt]}\n"}


@pytest.mark.slow
@pytest.mark.parametrize(("executor", "max_concurrent", "processes"), [("in_process", 0, 1), ("multiprocess", 1, 3)])
def test_stages_run_in_as_many_processes_as_the_executor_makes(executor: str, max_concurrent: int, processes: int, tmp_path: Path) -> None:
    root = make(tmp_path / "project", PROJECT)
    home = tmp_path / "home"
    home.mkdir()
    with dg.DagsterInstance.local_temp(str(home)) as instance:
        job = dg.build_reconstructable_job(
            "test_executors", "two_stages", (str(root), executor, max_concurrent), reconstructor_working_directory=os.path.dirname(__file__)
        )
        with dg.execute_job(job, instance=instance) as result:
            assert result.success
            records = instance.all_logs(result.run_id)
    pids = {record.dagster_event.pid for record in records if record.dagster_event and record.dagster_event.pid}
    assert len(pids) == processes
    assert (root / "a.txt").read_text() + (root / "b.txt").read_text() == "1\n2\n"


def test_a_component_names_its_executor(tmp_path: Path) -> None:
    root = make(tmp_path, MATRIX)
    context = dg.ComponentTree.for_test().load_context

    def executor(**attributes: object) -> dg.Executor | dg.ExecutorDefinition | None:
        return DvcProjectComponent(project=str(root), **attributes).build_defs_from_state(context, None).executor

    assert executor() is None
    assert executor(executor="in_process") is dg.in_process_executor
    assert executor(executor="dagster.multiprocess_executor") is dg.multiprocess_executor
    assert executor(executor="multiprocess", max_concurrent=2) is not dg.multiprocess_executor


@pytest.mark.parametrize(
    ("name", "max_concurrent", "sentence"),
    [
        ("in_proces", 0, "executor is in_proces, expected in_process, multiprocess, or where an executor is"),
        ("dagster.no_such_executor", 0, "executor is dagster.no_such_executor, which cannot be imported"),
        ("no_such_package.executor", 0, "executor is no_such_package.executor, which cannot be imported"),
        ("dagster.asset", 0, "executor is dagster.asset, expected in_process"),
        ("in_process", 2, "max_concurrent is 2, but the executor is in_process"),
        ("multiprocess", -1, "max_concurrent is -1, expected 0 or more."),
    ],
)
def test_what_is_no_executor_is_refused(name: str, max_concurrent: int, sentence: str) -> None:
    with pytest.raises(UsageError, match=f"^{sentence}"):
        executor_named(name, max_concurrent)

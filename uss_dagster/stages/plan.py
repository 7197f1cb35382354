"""``plan``: params.yaml, profiles and the code → the same stamp, as long as the planned files are what they imply.

DVC builds this before all else, so that a plain ``dvc repro`` or ``dvc exp run`` after an edit says what to do instead of computing the old plan.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Self

from uss_dagster.artifacts.gate import Report, check_contract
from uss_dagster.artifacts.staging import Staging
from uss_dagster.errors import UsageError
from uss_dagster.planning.cells import Cell, Facts, Output
from uss_dagster.planning.layout import PARAMS, PIPELINES, PROFILES, Layout
from uss_dagster.planning.plan import Planner, write_plan
from uss_dagster.registry import OWN, PACKAGE


class PlanCheck(Cell):
    """Whether the planned files are up to date.

    Parameters
    ----------
    reads
        What planning reads, from the project folder: the project's own plug-ins where it has some, and the package where it lies in the project.
    """

    group: ClassVar[str] = "data"
    kinds: ClassVar[str] = "yaml"
    prerequisite: ClassVar[bool] = True

    reads: list[str]

    @classmethod
    def plan(cls, planner: Planner) -> Iterator[Self]:
        code = {PACKAGE: f"{PACKAGE}/__init__.py", OWN: OWN}
        here = [name for name, sign in code.items() if planner.root is not None and (planner.root / sign).exists()]
        yield cls(reads=[PARAMS, PROFILES, *here])

    @property
    def description(self) -> str:
        return "The planned files are what params.yaml, profiles and the code imply"

    @property
    def pipeline(self) -> str:
        """A DVC file of its own: its lock changes with every edit of the code, also of a comment."""
        return PIPELINES

    def inputs(self, layout: Layout) -> list[Path]:
        return [layout.root / name for name in self.reads]

    def artefact(self, layout: Layout) -> Path:
        return layout.plan_stamp

    def outputs(self, layout: Layout) -> list[Output]:
        """The stamp. An earlier run says nothing, since the planned files that it looked at are no dependencies."""
        return [Output(self.artefact(layout), persist=True)]

    def run(self, layout: Layout) -> Facts:
        differences = write_plan(layout.root, check=True)
        if differences:
            more = f" and {len(differences) - 1} more" if len(differences) > 1 else ""
            raise UsageError(f"The plan is out of date ({differences[0]}{more}). Run `uss plan`, then this again (`uss repro` does both).")
        report = Report(self.name)
        check_contract(report, "the planned files are up to date", [])
        Staging(layout.private, self.name, "").publish(self.artefact(layout), report, {})
        return {}

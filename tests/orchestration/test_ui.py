"""Dagster as a person uses it: `uss ui` in a browser. Clicks are real mouse events on what is really on top.

What the page shows is compared with what lies on the disk, and with what `uss repro` makes of the same profile.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from dagster_page import ENDED, DagsterPage
from devtools import Page, browser, find_chromium
from processes import free_port, wait_for
from projects import BIN, Project, tree_hash

CHROMIUM = find_chromium()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="CHROMIUM IS NOT INSTALLED: nobody looks at Dagster's page (apt-get install chromium)"),
]

FIND = """(wanted => {
  const all = [...document.querySelectorAll('button, a, [role=button], [role=menuitem], [role=tab]')];
  const found = all.filter(e => e.innerText.trim().startsWith(wanted) && !e.disabled && e.getBoundingClientRect().width > 0);
  for (const e of found.reverse()) {
    const r = e.getBoundingClientRect(), x = r.x + r.width / 2, y = r.y + r.height / 2;
    if (e.contains(document.elementFromPoint(x, y))) return [x, y];
  }
  return null;
})"""

SHORTEN = """(folder => {
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) texts.currentNode.data = texts.currentNode.data.replaceAll(folder, '…');
})"""
"""Where the tests run is nobody's business in a picture."""


@dataclass
class Ui(DagsterPage):
    """A running `uss ui`, and a tab that looks at it."""

    page: Page
    root: Path

    def open(self, path: str) -> None:
        self.page.open(self.url + path, 1500, 950)

    def text(self) -> str:
        return self.page.ask("document.body.innerText")

    def click(self, label: str) -> None:
        """Click the button or link whose text begins so, once it is there, enabled, and nothing covers it."""
        try:
            x, y = wait_for(f"a button '{label}' that can be clicked", lambda: self.page.ask(f"{FIND}({json.dumps(label)})"))
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.text()}") from None
        for kind in ("mousePressed", "mouseReleased"):
            self.page.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)


@contextlib.contextmanager
def serving(project: Project, log: Path, **env: str) -> Iterator[Ui]:
    """`uss ui` on a free port, and a browser. A plain `kill` of that one process must end all of Dagster."""
    port = free_port()
    with log.open("w") as out:
        server = subprocess.Popen(
            [str(BIN / "uss"), "ui", "--port", str(port)],
            cwd=project.root,
            env={**project.env, **env},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),  # as a script starts it with `&`
        )
    url = f"http://127.0.0.1:{port}"

    def is_up() -> bool:
        assert server.poll() is None, f"`uss ui` ended with {server.returncode}:\n{log.read_text()}"
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/server_info", timeout=5) as answer:
            return answer.status == 200
        return False

    family: list[psutil.Process] = []
    try:
        wait_for(f"Dagster's page ({log})", is_up, 120)
        assert CHROMIUM
        with browser(CHROMIUM) as page:
            yield Ui(url, page, project.root)
        family = psutil.Process(server.pid).children(recursive=True)
        server.terminate()
        server.wait(timeout=30)
        assert psutil.wait_procs(family, timeout=15)[1] == [], "processes of Dagster that outlive it"
    finally:
        with contextlib.suppress(psutil.Error):
            family += psutil.Process(server.pid).children(recursive=True)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()
        for process in psutil.wait_procs(family, timeout=15)[1]:
            process.kill()


def results(project: Project) -> dict[str, str]:
    """Everything a person would call a result: what is published, and what DVC keeps of it."""
    parts = ("data", "reports", ".dvc/cache/files")
    return {f"{part}/{name}": value for part in parts for name, value in tree_hash(project.root / part).items()}


def alive(project: Project) -> list[str]:
    """Command lines of the dvc and stage processes that run in a project."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            if process.cwd() == str(project.root) and process.status() != psutil.STATUS_ZOMBIE and ("dvc" in words or "stage" in words):
                found.append(" ".join(words))
    return found


def test_materialize_all_makes_the_bytes_that_repro_makes(project: Project, finished: Project, tmp_path: Path):
    with serving(project, tmp_path / "ui.log") as ui:
        ui.open("/asset-groups")
        wait_for("the asset graph", lambda: "Materialize all" in ui.text() and "segments" in ui.text())
        assert "Join the Dagster community" not in ui.text()
        assert not ui.page.ask("[...document.querySelectorAll('[role=dialog]')].filter(e => e.offsetWidth).length")
        ui.click("Materialize all")
        ui.click("All")
        ui.click("Launch")
        runs = wait_for("all runs ended", lambda: (found := ui.runs()) and all(s in ENDED for s in found.values()) and found, 360)
        assert set(runs.values()) == {"SUCCESS"}
        checks = [e["evaluation"] for run in runs for e in ui.events(run) if e["__typename"] == "AssetCheckEvaluationEvent"]
        assert [c for c in checks if not c["success"]] == []
        own = {"score_regressions", "every_planned_cell", "plan_is_current"}
        assert {c["checkName"] for c in checks} == {"validation", "in_sync_with_dvc", *own}
    assert project.lock() == finished.lock()
    assert len(project.lock()) == 11
    assert tree_hash(project.root / "data/scores") == tree_hash(finished.root / "data/scores")
    assert project.repro() == [], "`uss repro` finds nothing left to do"


def test_terminate_ends_the_stage_and_leaves_everything_as_it_was(built: Project, tmp_path: Path):
    built.edit(
        "uss_dagster/stages/segments.py",
        "    tables, seconds = [], 0.0\n",
        "    tables, seconds = [], 0.0\n"
        "    if name == 'shard-00001.parquet' and (slow := __import__('os').environ.get('SLOW')):\n"
        "        Path(slow).write_text(str(__import__('os').getpid()))\n"
        "        time.sleep(120)\n",
    )
    lock, made, before = (built.root / "dvc.lock").read_bytes(), built.lock(), results(built)
    marker = tmp_path / "pid"
    with serving(built, tmp_path / "ui.log", SLOW=str(marker)) as ui:
        run = ui.launch("segments/slic_merge", "scenes")
        pid = int(wait_for("the stage at its second shard", lambda: marker.exists() and marker.read_text(), 90))
        assert psutil.pid_exists(pid)
        assert list((built.root / ".uss/work").rglob("shard-00000.parquet")), "something half-done is there to be left behind"
        ui.open("/runs")
        ui.click(run[:8])
        ui.click("Terminate")
        clicked = time.monotonic()
        ui.click("Terminate 1 run")
        wait_for("the run canceled", lambda: ui.runs()[run] == "CANCELED")
        wait_for("the stage ended", lambda: not psutil.pid_exists(pid))
        assert time.monotonic() - clicked < 30
        wait_for("the page says so", lambda: "Canceled" in ui.text())
        assert alive(built) == []
        assert (built.root / "dvc.lock").read_bytes() == lock
        assert results(built) == before
    assert built.repro(), "the edited stage is still to be run"
    assert built.lock() == made


def test_a_refused_result_is_told_where_a_person_looks(built: Project, tmp_path: Path):
    built.edit(
        "uss_dagster/stages/scores.py",
        "            ids, values = image_scores.scores(key)\n",
        '            ids, values = image_scores.scores(key)\n            if key[0] == "nm_covering":\n                values[0] = float("nan")\n',
    )
    lock, before = (built.root / "dvc.lock").read_bytes(), results(built)
    with serving(built, tmp_path / "ui.log") as ui:
        run = ui.launch("scores/slic_merge", "scenes")
        wait_for("the run ended", lambda: ui.runs()[run] in ENDED, 120)
        assert ui.runs()[run] == "FAILURE"
        events = ui.events(run)
        failures = [e for e in events if e["__typename"] == "ExecutionStepFailureEvent"]
        assert [f["stepKey"] for f in failures] == ["scores__slic_merge"]
        reason = failures[0]["failureMetadata"]["description"]
        assert reason.startswith("scores/slic_merge/scenes was refused")
        assert "is nan for image" in reason
        assert "the last good one stays" in reason
        checks = {e["evaluation"]["checkName"]: e["evaluation"] for e in events if e["__typename"] == "AssetCheckEvaluationEvent"}
        assert checks["validation"]["success"] is False
        assert checks["validation"]["assetKey"]["path"] == ["scores", "slic_merge"]
        assert "is nan for image" in checks["validation"]["description"]
        assert not [e for e in events if e["__typename"] == "MaterializationEvent"]
        ui.open(f"/runs/{run}")
        wait_for("the reason on the run's page", lambda: "scores/slic_merge/scenes was refused" in ui.text())
        ui.open("/assets/scores/slic_merge?view=checks&checkDetail=validation")
        wait_for("the reason on the checks tab", lambda: "Failed" in (shown := ui.text()) and "is nan for image" in shown)
        assert (built.root / "dvc.lock").read_bytes() == lock
        assert results(built) == before


FAILING = """    def run(self, layout: Layout) -> Facts:
        if self.entry == "kmeans":
            from uss_dagster.errors import Unavailable

            raise Unavailable("The server of the labels did not answer. Try again later, or put its files into USS_MIRROR.")
        if self.entry == "slic_merge":
            import resource

            import numpy

            resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
            numpy.ones(1 << 34)
        if self.entry == "felzenszwalb":
            import os
            import signal

            os.kill(os.getpid(), signal.SIGKILL)
"""


def test_ways_to_fail_are_tried_again_or_not_and_read_well(built: Project, tmp_path: Path):
    """A source that does not answer (tried twice more), memory that runs out in Python and for the system (not tried again)."""
    built.edit("uss_dagster/stages/scores.py", "    def run(self, layout: Layout) -> Facts:\n", FAILING)
    before = results(built)
    expected = {
        "kmeans": ("The server of the labels did not answer.", 2),
        "slic_merge": ("Memory ran out (Unable to allocate 128. GiB", 0),
        "felzenszwalb": ("was ended by SIGKILL, most likely because memory ran out", 0),
    }
    with serving(built, tmp_path / "ui.log") as ui:
        for entry, (sentence, retries) in expected.items():
            run = ui.launch(f"scores/{entry}", "scenes")
            wait_for(f"the run of {entry} ended", lambda: ui.runs()[run] in ENDED, 180)  # noqa: B023
            assert ui.runs()[run] == "FAILURE"
            events = ui.events(run)
            kinds = [e["__typename"] for e in events]
            assert kinds.count("ExecutionStepUpForRetryEvent") == retries, entry
            (failure,) = [e for e in events if e["__typename"] == "ExecutionStepFailureEvent"]
            reason = failure["failureMetadata"]["description"] if failure["failureMetadata"] else failure["error"]["message"]
            assert sentence in reason, entry
            ui.open(f"/runs/{run}")
            wait_for("the reason on the run's page", lambda: sentence in ui.text())  # noqa: B023
            photograph(ui, f"failed_{entry}")
    assert results(built) == before


def test_a_walk_through_the_pages(built: Project, tmp_path: Path):
    """Asset graph, a partition, a check, a run's log: each shows what a person comes for."""
    with serving(built, tmp_path / "ui.log") as ui:
        ui.open("/asset-groups")
        wait_for("the asset graph", lambda: "Materialize all" in ui.text() and "segments" in ui.text(), 90)
        photograph(ui, "asset_graph")
        run = ui.launch("scores/kmeans", "scenes")
        wait_for("the run ended", lambda: ui.runs()[run] in ENDED, 180)
        assert ui.runs()[run] == "SUCCESS"
        ui.open("/assets/scores/kmeans?view=partitions&partition=scenes")
        wait_for("the partition with its numbers", lambda: "nm_covering" in ui.text())
        photograph(ui, "partition")
        ui.open("/assets/scores/kmeans?view=checks&checkDetail=validation")
        wait_for("the check", lambda: "Passed" in (shown := ui.text()) and "validation" in shown)
        photograph(ui, "check")
        ui.open(f"/runs/{run}")
        wait_for("the log", lambda: "kmeans/dvc.yaml:scores" in ui.text() and "RUN_SUCCESS" in ui.text())
        photograph(ui, "run_log")


def photograph(ui: Ui, name: str) -> None:
    """Keep what the page shows, where ``USS_SCREENSHOTS`` names a folder: the pictures of the documentation are made so."""
    if folder := os.environ.get("USS_SCREENSHOTS"):
        time.sleep(1.5)  # animations
        for place in {str(ui.root), sys.prefix}:
            ui.page.ask(f"{SHORTEN}({json.dumps(place)})")
        Path(folder).mkdir(parents=True, exist_ok=True)
        ui.page.screenshot(Path(folder) / f"{name}.png", whole=False)

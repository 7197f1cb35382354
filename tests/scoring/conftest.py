"""The command `uss score`, in this process and as a program."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from projects import SOURCE, Project
from score_cases import Run

from uss_dagster import cli


@pytest.fixture
def here(tmp_path: Path) -> Project:
    """A folder that is no project: `uss score` needs none."""
    return Project(tmp_path, {"PYTHONPATH": str(SOURCE)})


@pytest.fixture
def score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """The command in this process: words → (rows by metric, what it said on standard error)."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.chdir(tmp_path)

    def run(*words: Any, exit_code: int = 0) -> tuple[dict[str, dict[str, Any]], str]:
        out = [] if exit_code else ["--out", "out.json"]
        Path("out.json").unlink(missing_ok=True)
        monkeypatch.setattr(sys, "argv", ["uss", "score", *map(str, words), *out])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        assert (ended.value.code or 0) == exit_code, said.err
        assert "Traceback" not in said.err
        if exit_code:
            assert not Path("out.json").exists()
            return {}, said.err
        rows = json.loads(Path("out.json").read_text())["scores"]
        return {row["metric"] if row["grid"] == "full" else f"{row['metric']}@{row['grid']}": row for row in rows}, said.err

    yield run
    signal.signal(signal.SIGTERM, before)

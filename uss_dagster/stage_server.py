"""Runs the stages of one ``uss repro`` in forks of a process that has imported the heavy libraries once.

Importing Great Expectations and pandas takes longer than most small stages compute. DVC calls ``uss stage`` as ever; the program that the
environment variable ``USS_PROGRAM`` names has it run here. Each stage is still a process of its own, with the folder, the environment and the output that
DVC gives it, and it ends when its caller does. The libraries are imported at the first stage: a run with nothing to do costs nothing.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

OFF = "USS_FORK"
"""Environment variable: ``0`` starts each stage anew."""
_LIBRARIES = (
    "great_expectations.expectations",
    "numba",
    "PIL.ImageOps",
    "PIL.JpegImagePlugin",
    "PIL.PngImagePlugin",
    "pyarrow.dataset",
    "safetensors.numpy",
    "scipy.ndimage",
    "scipy.sparse.linalg",
    "skimage.measure._label",
    "skimage.segmentation.slic_superpixels",
    "sklearn.cluster",
    "uss_dagster.report.site",
)
"""What most stages import; nothing that starts threads."""
_PROGRAM = "uss_dagster.cli:main"
"""What ``uss`` runs; text, since this module may not import the command line."""


@contextmanager
def stage_server() -> Iterator[dict[str, str]]:
    """Environment variables with which DVC has its stages run by a server, which ends with the block; empty where forks are not used."""
    import shlex
    import subprocess
    import tempfile

    if sys.platform != "linux" or os.environ.get(OFF) == "0":
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="uss-stages-") as folder, socket.socket(socket.AF_UNIX) as listener:
        address, program = os.path.join(folder, "socket"), os.path.join(folder, "uss")
        listener.bind(address)
        listener.listen()
        words = shlex.join([sys.executable, "-IS", __file__, address])
        with open(program, "w", encoding="utf-8") as file:
            file.write(f'#!/bin/sh\nexec {words} "$@"\n')
        os.chmod(program, 0o755)
        command = [sys.executable, "-P", "-m", __name__, str(listener.fileno())]
        server = subprocess.Popen(command, pass_fds=[listener.fileno()], stdin=subprocess.PIPE, start_new_session=True)
        try:
            yield {"USS_PROGRAM": program}
        finally:
            server.communicate()


# -- the caller: what DVC starts ----------------------------------------------------------------------------


def _call(address: str, words: list[str]) -> int:
    """Have the server run ``uss`` with these words in the present folder; returns the exit code. SIGINT, SIGTERM and SIGHUP are passed on."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        request = json.dumps({"words": words, "folder": os.getcwd(), "environment": dict(os.environ)}).encode()
        socket.send_fds(connection, [len(request).to_bytes(4, "big")], [1, 2])
        connection.sendall(request)
        process = int.from_bytes(_read(connection, 4), "big")
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda number, frame: os.kill(process, number))
        return int.from_bytes(_read(connection, 4), "big", signed=True)


def _read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise EOFError("the process that runs stages has ended")
        data += part
    return data


# -- the server ---------------------------------------------------------------------------------------------


def _serve(descriptor: int) -> None:
    """Fork for each call, until standard input is closed. A fork never returns."""
    listener = socket.socket(fileno=descriptor)
    imported, watched = False, [listener.fileno(), 0]
    while True:
        ready, _, _ = select.select(watched, [], [])
        if 0 in ready:
            with suppress(ChildProcessError):
                os.waitpid(-1, 0)
            return
        connection, _ = listener.accept()
        if not imported:
            _import_libraries()
            imported = True
        if not os.fork():
            listener.close()
            os._exit(_attend(connection))
        connection.close()
        with suppress(ChildProcessError):  # all that have ended
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _import_libraries() -> None:
    import gc
    import importlib

    from uss_dagster.planning.cells import stage_classes
    from uss_dagster.runtime import quiet_environment

    quiet_environment()
    for name in _LIBRARIES:
        with suppress(ImportError):
            importlib.import_module(name)
    stage_classes()
    gc.freeze()


def _attend(connection: socket.socket) -> int:
    """Fork once more for the call itself, tell the caller its process and its exit code, and end it when the caller is gone."""
    size, descriptors, _, _ = socket.recv_fds(connection, 4, 2)
    request = json.loads(_read(connection, int.from_bytes(size, "big")))
    process = os.fork()
    if not process:
        connection.close()
        return _carry_out(request["words"], request["folder"], request["environment"], descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    connection.sendall(process.to_bytes(4, "big"))
    ended = os.pidfd_open(process)
    ready, _, _ = select.select([ended, connection.fileno()], [], [])
    if ended not in ready:  # the caller closed its end
        os.kill(process, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    with suppress(OSError):
        connection.sendall(code.to_bytes(4, "big", signed=True))
    return 0


def _carry_out(words: list[str], folder: str, environment: dict[str, str], outputs: list[int]) -> int:
    """Run ``uss`` with these words to the end of its threads and exit functions; its exit code."""
    import atexit
    import pkgutil
    import threading

    for number, descriptor in enumerate(outputs, start=1):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["uss", *words]
    code: object = 0
    try:
        pkgutil.resolve_name(_PROGRAM)()
    except SystemExit as ended:
        code = ended.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return code if isinstance(code, int) else 1


if __name__ == "__main__":
    if sys.argv[1].isdecimal():
        _serve(int(sys.argv[1]))
    else:
        sys.exit(_call(sys.argv[1], sys.argv[2:]))

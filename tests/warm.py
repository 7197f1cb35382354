"""A process in which the heavy libraries are imported already, and that forks for each call of a program of this environment.

Great Expectations alone takes 3.5 s to import, and the tests start `uss` hundreds of times. Each call here is still a process of its own,
with its own folder, environment, arguments, output and exit code, and it imports this package from where its environment says; only what
others wrote is there before. DVC, where such a call starts it, finds a `uss` that calls the same way. `uss_dagster.stage_server` does the
same for the stages of one run; it imports this package, so it cannot serve tests that run copies of the package.

What this cannot show is started cold: the time and memory that a program takes, what it imports, how it ends when killed, and that bytes do
not depend on the seed of hashes, which all calls share.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys

LIBRARIES = [
    "great_expectations",
    "matplotlib.figure",
    "numpy",
    "pandas",
    "PIL.BmpImagePlugin",
    "PIL.ImageDraw",
    "PIL.ImageOps",
    "PIL.JpegImagePlugin",
    "PIL.PngImagePlugin",
    "psutil",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "pycocotools.mask",
    "pydantic.main",
    "pydantic.type_adapter",
    "rich.table",
    "safetensors.numpy",
    "scipy.io",
    "scipy.ndimage",
    "scipy.sparse.linalg",
    "scipy.stats",
    "skimage.color:rgb2lab",
    "skimage.measure:label",
    "skimage.segmentation:felzenszwalb",
    "skimage.segmentation:slic",
    "skimage.util:img_as_float",
    "sklearn.cluster",
    "threadpoolctl",
    "typer",
    "yaml",
]
"""What most calls import; nothing that starts threads, or reads at import what a test sets in the environment."""


class Warm:
    """The server, and the folder of programs that call it; both end with this process."""

    def __init__(self) -> None:
        import atexit
        import subprocess
        import tempfile
        from pathlib import Path

        self._folder = tempfile.TemporaryDirectory(prefix="warm-")
        self.folder = Path(self._folder.name)
        for name, words in {"uss": f"-IS {__file__} {self.folder} uss", "python": ""}.items():
            (self.folder / name).write_text(f'#!/bin/sh\nexec {sys.executable} {words} "$@"\n', encoding="utf-8")
            (self.folder / name).chmod(0o755)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(self.folder / "socket"))
            listener.listen()
            kept = {k: v for k, v in os.environ.items() if k != "PYTHONPATH" and not k.startswith(("DVC_", "DAGSTER_", "USS_"))}
            self.process = subprocess.Popen(
                [sys.executable, __file__, str(listener.fileno())],
                pass_fds=[listener.fileno()],
                env={**kept, "OMP_WAIT_POLICY": "PASSIVE", "GX_ANALYTICS_ENABLED": "False"},
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
            )
        atexit.register(self.close)

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()
        self._folder.cleanup()


def call(folder: str, words: list[str], where: str, env: dict[str, str], out: int, err: int, timeout: float | None = None) -> int:
    """Have a program of this environment run (its name and its words), in a folder, on two open files; its exit code.

    A signal to end that reaches the caller is passed on. After ``timeout`` seconds the program is killed, and ``TimeoutError`` raised.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(os.path.join(folder, "socket"))
        request = json.dumps({"words": words, "folder": where, "env": env, "programs": folder}).encode()
        socket.send_fds(connection, [len(request).to_bytes(4, "big")], [out, err])
        connection.sendall(request)
        process = int.from_bytes(_exactly(connection, 4), "big")
        if __name__ == "__main__":
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda number, frame: os.kill(process, number))
        connection.settimeout(timeout)
        try:
            return int.from_bytes(_exactly(connection, 4), "big", signed=True)
        except TimeoutError:
            os.kill(process, signal.SIGKILL)
            raise


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise EOFError("the warm process is gone")
        data += part
    return data


def _serve(listener: socket.socket) -> dict:
    """Answer calls until standard input is closed; returns, in a process of its own, each call to carry out."""
    import select

    while True:
        ready, _, _ = select.select([listener, 0], [], [])
        if 0 in ready:
            sys.exit()
        connection, _ = listener.accept()
        if not os.fork():
            listener.close()
            return _answer(connection)
        connection.close()
        while _reaped():
            pass


def _reaped() -> bool:
    try:
        return os.waitpid(-1, os.WNOHANG)[0] > 0
    except ChildProcessError:
        return False


def _answer(connection: socket.socket) -> dict:
    """Fork for one call, and tell the caller what becomes of it; returns in the fork."""
    size, descriptors, _, _ = socket.recv_fds(connection, 4, 2)
    request = json.loads(_exactly(connection, int.from_bytes(size, "big")))
    process = os.fork()
    if not process:
        connection.close()
        for number, descriptor in enumerate(descriptors, start=1):
            os.dup2(descriptor, number)
            os.close(descriptor)
        return request
    for descriptor in descriptors:
        os.close(descriptor)
    connection.sendall(process.to_bytes(4, "big"))
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    try:
        connection.sendall(code.to_bytes(4, "big", signed=True))
    finally:
        os._exit(0)


def _server(descriptor: int) -> None:
    import gc
    import pkgutil

    del sys.path[0]  # the tests
    path = list(sys.path)
    for name in LIBRARIES:
        pkgutil.resolve_name(name)
    import numba

    numba.njit("int64(int64)")(lambda value: value)  # all that numba imports with its first function
    gc.freeze()
    call = _serve(socket.socket(fileno=descriptor))
    os.environ.clear()
    os.environ.update(call["env"])
    os.chdir(call["folder"])
    os.environ["PATH"] = os.pathsep.join([call["programs"], call["env"]["PATH"]])
    os.environ["USS_PROGRAM"] = os.path.join(call["programs"], "uss")  # what the stages of DVC call
    programs = os.path.dirname(sys.executable)
    sys.argv = [os.path.join(programs, call["words"][0]), *call["words"][1:]]
    sys.path[:] = [programs, *filter(None, call["env"].get("PYTHONPATH", "").split(os.pathsep)), *path]
    sys.path_importer_cache.clear()
    sys.executable = os.path.join(call["programs"], "python")  # so that what is started with it finds our `uss` beside it
    os._exit(_carried_out(sys.argv[0]))  # freeing all that the libraries hold takes longer than many a call


def _carried_out(program: str) -> int:
    """The exit code of a Python program, run to the end of its threads and exit functions."""
    import atexit
    import runpy
    import threading

    code: object = 0
    try:
        runpy.run_path(program, run_name="__main__")
    except SystemExit as ended:
        code = ended.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    if not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return code


if __name__ == "__main__":
    if sys.argv[1].isdecimal():
        _server(int(sys.argv[1]))
    else:
        sys.exit(call(sys.argv[1], sys.argv[2:], os.getcwd(), dict(os.environ), 1, 2))

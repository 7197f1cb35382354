"""GPUs of this machine: which ones a stage has, and jobs on all of them at once.

Each GPU has a worker process of its own. Stages that run at the same time share the GPUs: a stage takes those that no other one holds.
``USS_DEVICES`` names the devices to use (``cuda:0,cuda:1``; one named twice gets two workers), ``USS_DEVICES_PER_STAGE`` limits how many
one stage takes.
"""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import queue
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TextIO, TypeVar

from uss_dagster.errors import OutOfMemory, UsageError, UssError
from uss_dagster.runtime import DEVICE, DEVICES, worker_setup

PER_STAGE = "USS_DEVICES_PER_STAGE"
J = TypeVar("J")
R = TypeVar("R")


def device_names() -> list[str]:
    """The devices that this process may use: those of ``USS_DEVICES``, else all GPUs, else the CPU."""
    if named := os.environ.get(DEVICES, "").strip():
        return [name.strip() for name in named.split(",")]
    import torch

    return [f"cuda:{number}" for number in range(torch.cuda.device_count())] or ["cpu"]


@contextmanager
def leased_devices(most: int | None = None) -> Iterator[list[str]]:
    """Devices that no other stage on this machine uses, at least one; waits until one is free. The CPU needs no lease.

    Processes that are started in the block use these devices.

    Parameters
    ----------
    most
        How many the stage can use; None for any number.
    """
    names = device_names()
    number = os.environ.get(PER_STAGE, "") or str(len(names))
    if not number.isdigit() or int(number) < 1:
        raise UsageError(f"{PER_STAGE} is '{number}', expected a whole number of at least 1.")
    limit = min(int(number), most or len(names))
    before = os.environ.get(DEVICES)
    with ExitStack() as locks:
        leased = _free(names, limit, locks)
        waited = False
        while not leased:
            if not waited:
                print("note: other stages use all GPUs; waiting for one.", file=sys.stderr, flush=True)
            waited = True
            time.sleep(0.5)
            leased = _free(names, limit, locks)
        os.environ[DEVICES] = ",".join(leased)
        try:
            yield leased
        finally:
            os.environ.pop(DEVICES) if before is None else os.environ.update({DEVICES: before})


def _free(names: Sequence[str], limit: int, locks: ExitStack) -> list[str]:
    """Lock devices that are free, at most ``limit``."""
    folder = Path(tempfile.gettempdir()) / f"uss-devices-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise UsageError(f"{folder} belongs to somebody else, so GPUs cannot be shared through it. Remove it, or set TMPDIR.")
    leased: list[str] = []
    for number, name in enumerate(names):
        if len(leased) == limit:
            break
        if name == "cpu" or _lock(folder / f"{number}-{name.replace(':', '-')}", locks):
            leased.append(name)
    return leased


def _lock(path: Path, locks: ExitStack) -> bool:
    stream: TextIO = open(path, "w")  # noqa: SIM115
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ends with the process
    except BlockingIOError:
        stream.close()
        return False
    locks.callback(stream.close)
    return True


def map_devices(
    stream: Callable[[Iterator[J]], Iterator[R]], jobs: Sequence[J], names: Sequence[str]
) -> Generator[tuple[int, R], None, None]:
    """(number of the job, its result), as they are finished: in this process on one device, in one process a device on several.

    Parameters
    ----------
    stream
        Gives one result a job, in order; it may take jobs before it gives the results of earlier ones. Must pickle, like jobs and results.
    jobs
        They are given out one by one, so that a slow device does fewer of them.
    names
        The devices.
    """
    names = names[: max(1, len(jobs))]
    if len(names) == 1:
        before = os.environ.get(DEVICE)
        os.environ[DEVICE] = names[0]
        try:
            yield from enumerate(stream(iter(jobs)))
        finally:
            os.environ.pop(DEVICE) if before is None else os.environ.update({DEVICE: before})
        return
    context = multiprocessing.get_context("spawn")
    numbered: Any = context.Queue()
    results: Any = context.Queue()
    for pair in enumerate(jobs):
        numbered.put(pair)
    for _ in names:
        numbered.put(None)
    workers = [context.Process(target=_work, args=(name, stream, numbered, results, os.getpid()), daemon=False) for name in names]
    try:
        for worker in workers:
            worker.start()
        for _ in jobs:
            number, result, error = _next(results, workers)
            if error is not None:
                raise error
            yield number, result
        for worker in workers:
            worker.join(10)  # they end by themselves, with their loaders
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()
        numbered.cancel_join_thread()


def _next(results: Any, workers: Sequence[Any]) -> tuple[int, Any, BaseException | None]:
    while True:
        try:
            message: tuple[int, Any, BaseException | None] = results.get(timeout=1)
            return message
        except queue.Empty:
            if any(worker.exitcode not in (None, 0) for worker in workers):
                raise OutOfMemory(
                    "A worker process of a device was ended from outside, most likely because memory ran out. Use fewer workers "
                    f"({DEVICES}) or a larger machine; nothing finished is lost."
                ) from None


def _work(name: str, stream: Callable[[Iterator[Any]], Iterator[Any]], jobs: Any, results: Any, parent: int) -> None:
    """One worker process: takes jobs until there are none."""
    worker_setup(parent)
    os.environ[DEVICE] = name
    numbers: list[int] = []

    def mine() -> Iterator[Any]:
        for number, job in iter(jobs.get, None):
            numbers.append(number)
            yield job

    try:
        for place, result in enumerate(stream(mine())):
            results.put((numbers[place], result, None))
    except Exception as error:
        if not isinstance(error, UssError):
            traceback.print_exc()
        results.put((-1, None, error if isinstance(error, UssError) else RuntimeError(f"{type(error).__name__}: {error}")))

"""Work in three phases that overlap, so that a GPU never waits: load in processes on the CPU, compute on the GPU, write in a thread."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from typing import Generic, TypeVar

from uss_dagster.artifacts.staging import Staging
from uss_dagster.errors import UsageError
from uss_dagster.runtime import worker_setup

LOADERS = "USS_LOADERS"
"""Environment variable: processes that load for one device; 0 loads in the process that computes."""
_AHEAD = 2
"""Items that are loaded ahead of the one that is computed, and that wait to be written."""
J = TypeVar("J")
T = TypeVar("T")
P = TypeVar("P")
L = TypeVar("L")
C = TypeVar("C")
W = TypeVar("W")


class PhasedWork(ABC, Generic[T, P, L, C]):
    """The work of one shard in phases. It pickles. Called, it does one after the other."""

    @abstractmethod
    def parts(self, item: T) -> Sequence[P]:
        """What is loaded independently of each other."""

    @abstractmethod
    def load(self, part: P) -> L:
        """Needs no device."""

    @abstractmethod
    def compute(self, item: T, inputs: list[L]) -> C:
        """Runs on the device. inputs: what was loaded for each part."""

    @abstractmethod
    def write(self, item: T, computed: C, staging: Staging) -> float:
        """Writes the files of the shard; returns the seconds to report."""

    def __call__(self, item: T, staging: Staging) -> float:
        return self.write(item, self.compute(item, [self.load(part) for part in self.parts(item)]), staging)


def overlapped(
    items: Iterator[J],
    parts: Callable[[J], Sequence[P]],
    load: Callable[[P], L],
    compute: Callable[[J, list[L]], C],
    write: Callable[[J, C], W],
    loaders: int,
) -> Iterator[W]:
    """What ``write`` returns for each item, in order.

    Parameters
    ----------
    items
        They are taken before their turn, so that they are loaded when it comes.
    parts, load, compute, write
        See ``PhasedWork``; ``load`` must pickle.
    loaders
        Processes that load, at least one.
    """
    with ExitStack() as stack:
        context = get_context("spawn")
        loading = ProcessPoolExecutor(loaders, mp_context=context, initializer=worker_setup, initargs=(os.getpid(),))
        stack.callback(loading.shutdown, cancel_futures=True)
        writing = stack.enter_context(ThreadPoolExecutor(1))
        loads: deque[tuple[J, list[Future[L]]]] = deque()
        writes: deque[Future[W]] = deque()

        def load_ahead() -> None:
            while len(loads) <= _AHEAD and (item := next(items, None)) is not None:
                loads.append((item, [loading.submit(load, part) for part in parts(item)]))

        load_ahead()
        while loads:
            item, futures = loads.popleft()
            load_ahead()
            loaded = [future.result() for future in futures]
            writes.append(writing.submit(write, item, compute(item, loaded)))
            while writes and (writes[0].done() or len(writes) > _AHEAD):
                yield writes.popleft().result()
        while writes:
            yield writes.popleft().result()


def loader_count(device: str, devices: int) -> int:
    """Processes that load for one of some devices: ``USS_LOADERS``, else the cores of this machine over the GPUs; 0 for the CPU."""
    number = os.environ.get(LOADERS, "")
    if number:
        if not number.isdigit():
            raise UsageError(f"{LOADERS} is '{number}', expected a whole number.")
        return int(number)
    return max(1, (os.cpu_count() or 1) // max(1, devices)) if device.startswith("cuda") else 0

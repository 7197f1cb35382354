"""Results of a function of numbers, in order, computed ahead: in a thread, or in processes of their own."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from uss_dagster.errors import TryAgain, UsageError, UssError

T = TypeVar("T")
GRACE = 30
"""Seconds in which the first process ends the others after SIGTERM; then they end by themselves."""
AHEAD = 2
"""Results that each process computes before they are asked for."""


def in_order(work: Callable[[int], T], numbers: range, processes: int = 0, pinned: bool = False) -> Iterator[T]:
    """``map(work, numbers)``, computed ahead.

    Parameters
    ----------
    work : callable
    numbers : range
    processes : int, default 0
        Number of processes, which are forks of this one. 0 computes one result ahead in a thread.
    pinned : bool, default False
        With processes, results have a method ``pin_memory``, and it is called. Copies to a GPU are faster and run beside other work then.

    Where a process ends by itself, torch raises RuntimeError in the caller, which ``ends_of_loaders`` turns into a sentence.
    """
    if not processes:
        yield from _in_thread(work, numbers)
        return
    if "fork" not in multiprocessing.get_all_start_methods():
        raise UsageError(f"loaders is {processes}, but this system cannot fork processes. Use 0.")
    loader: DataLoader[T] = DataLoader(
        _Results(work),
        batch_size=None,
        sampler=numbers,
        num_workers=min(processes, max(1, len(numbers))),
        prefetch_factor=AHEAD,
        pin_memory=pinned,
        collate_fn=_unchanged,
        worker_init_fn=_outlive_signals,
        multiprocessing_context="fork",
        generator=torch.Generator(),  # the seeds of its processes, which nothing uses, are not drawn from the generator of training
    )
    for result in loader:
        if isinstance(result, UssError):
            raise result
        yield result


@contextmanager
def ends_of_loaders() -> Iterator[None]:
    """Turns into one sentence what torch raises, anywhere in the block, when a process of ``in_order`` ends by itself."""
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        reason = str(error).splitlines()[0].partition(". ")[0].rstrip(".")
        raise TryAgain(
            f"A process that reads examples ended by itself ({reason}). The same command goes on from the last checkpoint; "
            "where memory or shared memory (/dev/shm) is short, give it fewer --loaders."
        ) from None


def _in_thread(work: Callable[[int], T], numbers: range) -> Iterator[T]:
    with ThreadPoolExecutor(1) as ahead:
        coming = ahead.submit(work, numbers[0]) if numbers else None
        for number in numbers:
            assert coming is not None
            result = coming.result()
            coming = ahead.submit(work, number + numbers.step) if number != numbers[-1] else None
            yield result


class _Results(Dataset[T], Generic[T]):
    """What ``work`` gives, or the error of this package that it raised."""

    def __init__(self, work: Callable[[int], T]) -> None:
        self.work = work

    def __getitem__(self, number: int) -> T | UssError:  # type: ignore[override]
        try:
            return self.work(number)
        except UssError as error:
            return error


def _unchanged(result: T) -> T:
    return result


def _outlive_signals(process: int) -> None:
    """Signals to all processes of a terminal or a job are noted by the first one, which then ends these; until then it may need a batch."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(GRACE))

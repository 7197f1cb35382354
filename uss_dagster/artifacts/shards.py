"""The one way work is spread over images: shard by shard, in this process, in worker processes, or on a cluster (``cluster.py``)."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import TypeVar

from uss_dagster.artifacts.cluster import Cluster, cluster_address
from uss_dagster.artifacts.reads import Reads
from uss_dagster.errors import UsageError
from uss_dagster.runtime import worker_setup

J = TypeVar("J")
R = TypeVar("R")


def worker_count(jobs: int) -> int:
    """Worker processes to use: ``USS_WORKERS``, else one a core, never more than there are jobs."""
    wanted = os.environ.get("USS_WORKERS", "")
    if wanted and (not wanted.isdigit() or int(wanted) < 1):
        raise UsageError(f"USS_WORKERS is '{wanted}', expected a whole number of at least 1.")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(int(wanted) if wanted else cores, jobs))


def map_shards(
    function: Callable[[J], R], jobs: Sequence[J], workers: int | None = None, reads: Reads[J] | None = None
) -> Generator[R, None, None]:
    """``function`` of every job, results in the order of the jobs.

    ``function`` and jobs must pickle (a top-level function; ``functools.partial`` is fine), must not share
    state, and must write only their own files: then the bytes are the same for any number of workers.

    Parameters
    ----------
    function
        Computes one job.
    jobs
        Its arguments.
    workers
        Number of processes on this machine; None for one a core.
    reads
        What the jobs read. Where ``USS_CLUSTER`` is set, the workers of that cluster compute them; then ``function`` writes no files.
        None: always on this machine.
    """
    if reads is not None and (address := cluster_address()):
        yield from _in_order(Cluster(function, reads).run(jobs, address))
        return
    workers = worker_count(len(jobs)) if workers is None else min(workers, max(1, len(jobs)))
    if workers == 1:
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1):  # as in a worker, so that sums come out in the same order
            yield from map(function, jobs)
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    context = multiprocessing.get_context("spawn")  # a fork of a process with running BLAS threads may hang
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=worker_setup, initargs=(os.getpid(),))
    try:
        yield from (future.result() for future in [pool.submit(function, job) for job in jobs])
    except BaseException:  # nobody wants the rest: after an error, an interrupt, or when the caller stops asking
        for worker in list((pool._processes or {}).values()):
            worker.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _in_order(results: Generator[tuple[int, R], None, None]) -> Generator[R, None, None]:
    """Results without their numbers, in the order of these."""
    with closing(results):
        early: dict[int, R] = {}
        for number in itertools.count():
            while number not in early:
                pair = next(results, None)
                if pair is None:
                    return
                early[pair[0]] = pair[1]
            yield early.pop(number)

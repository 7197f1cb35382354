"""Jobs of a stage on the workers of a Dask cluster: ``USS_CLUSTER``.

========================  =================================================================================================
``local:4``               four worker processes on this machine
``tcp://host:8786``       a scheduler that runs, with the workers that it has (``tls://`` with Dask's own TLS settings)
``slurm:16``              16 jobs of Slurm, as ``dask-jobqueue`` is configured
``kubernetes:16``         16 pods, as ``dask-kubernetes`` is configured
========================  =================================================================================================

The process that runs the stage owns its result: it alone writes files and runs DVC. Workers return bytes, so they need neither the
project's disk nor DVC. Dask gives the jobs of a lost worker to another one; a lost scheduler ends the stage with what was finished kept.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from typing import Any, Generic, TypeVar

from uss_dagster.artifacts.cluster_worker import FilePart, Order, Outcome, dumps, identity, run_order
from uss_dagster.artifacts.reads import Reads
from uss_dagster.errors import OutOfMemory, TryAgain, Unavailable, UsageError, UssError

CLUSTER = "USS_CLUSTER"
MEMORY = "USS_CLUSTER_MEMORY"
"""Environment variable: memory of a local worker, such as ``4GB``. A worker that needs more is ended, and its job is tried again elsewhere."""
_KINDS = "local:<workers>, tcp://<host>:<port>, tls://<host>:<port>, slurm:<jobs> or kubernetes:<pods>"
_SECONDS_TO_CONNECT = 20
_SECONDS_BETWEEN_NOTES = 60
_TRIES = 4
"""How often a job is sent before it is given up."""
_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": 32 * 1024**2, "MALLOC_TRIM_THRESHOLD_": 128 * 1024**2}
"""Of local workers. With Dask's own setting glibc asks the system anew for each array above 128 KiB, which made segments a quarter slower."""
J = TypeVar("J")
R = TypeVar("R")


def cluster_address() -> str:
    """The cluster that this process should use; '' for none."""
    return os.environ.get(CLUSTER, "").strip()


@contextlib.contextmanager
def shared_cluster() -> Iterator[dict[str, str]]:
    """Environment variables with which all stages that are started in the block use one cluster, which ends with the block.

    Empty where no cluster is asked for, or one that runs anyway.
    """
    address = cluster_address()
    if not address or "://" in address:
        yield {}
        return
    with _started(address) as cluster:
        yield {CLUSTER: cluster.scheduler_address}


@contextlib.contextmanager
def _started(address: str) -> Iterator[Any]:
    """A cluster of Dask for the address."""
    kind, _, count = address.partition(":")
    if not count.isdigit() or int(count) < 1 or kind not in ("local", "slurm", "kubernetes"):
        raise UsageError(f"{CLUSTER} is '{address}', expected {_KINDS}.")
    cluster = {"local": _local, "slurm": _slurm, "kubernetes": _kubernetes}[kind](int(count))
    try:
        yield cluster
    finally:
        with contextlib.suppress(Exception):  # a cluster that is gone already
            cluster.close()


def _local(workers: int) -> Any:
    distributed = _import("distributed", "dask")
    memory = os.environ.get(MEMORY, "auto")
    _import("dask", "dask").config.set({f"distributed.nanny.pre-spawn-environ.{name}": value for name, value in _ALLOCATOR.items()})
    try:
        return distributed.LocalCluster(
            n_workers=workers, threads_per_worker=1, memory_limit=memory, host="127.0.0.1", dashboard_address=None, silence_logs=40
        )
    except ValueError as error:
        raise UsageError(f"{MEMORY} is '{memory}', expected a size such as 4GB ({error}).") from None


def _slurm(jobs: int) -> Any:
    jobqueue = _import("dask_jobqueue", "slurm")
    try:
        return jobqueue.SLURMCluster(n_workers=jobs)
    except ValueError as error:
        raise UsageError(f"{CLUSTER}=slurm needs settings in ~/.config/dask/jobqueue.yaml: {error}") from None


def _kubernetes(pods: int) -> Any:
    operator = _import("dask_kubernetes.operator", "kubernetes")
    return operator.KubeCluster(name=f"uss-{uuid.uuid4().hex[:8]}", n_workers=pods)


def _import(module: str, extra: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(f"{CLUSTER} needs a package that is not installed ({error}). Run `pip install 'uss_dagster[{extra}]'`.") from None


class Cluster(Generic[J, R]):
    """One call of a function on many jobs.

    Parameters
    ----------
    function
        Must pickle, like the jobs and its results. It may only read what ``reads`` names, and writes nothing.
    reads
        The files that the jobs read.
    """

    def __init__(self, function: Callable[[J], R], reads: Reads[J]) -> None:
        self._function, self._reads, self._address = function, reads, ""
        self._shares_disk = True
        """Workers seem to see the project's disk; the first one that does not says so."""
        self._done = threading.Event()
        self._common: Any = None
        self._jobs: dict[Any, tuple[int, J, int]] = {}
        """Dask's future → number of the job, the job, how often it was sent."""

    def run(self, jobs: Sequence[J], address: str) -> Generator[tuple[int, R], None, None]:
        """(number of the job, its result), as they are finished.

        Raises
        ------
        TryAgain
            The scheduler is lost.
        Unavailable
            There is no scheduler.
        OutOfMemory
            A job ended several workers.
        """
        with contextlib.ExitStack() as stack:
            if "://" not in address:
                address = stack.enter_context(_started(address)).scheduler_address
            self._address = address
            client = stack.enter_context(_client(address))
            stack.enter_context(self._token())
            waiting = deque((number, job, 0) for number, job in enumerate(jobs))
            note = _NoWorkers()
            while waiting or self._jobs:
                workers = self._workers(client)
                note.check(len(workers))
                while waiting and len(self._jobs) < 2 * len(workers):
                    self._send(client, *waiting.popleft(), on_gpu=any(workers))
                for future in self._finished():
                    number, job, tries = self._jobs.pop(future)
                    outcome = self._outcome(client, future, tries)
                    if outcome is None:
                        waiting.appendleft((number, job, tries))
                    else:
                        yield number, outcome.result

    @contextlib.contextmanager
    def _token(self) -> Iterator[None]:
        """The file by which workers know that they see the project's disk, as long as the call lasts."""
        call = uuid.uuid4().hex
        path = self._reads.root / ".uss" / f"cluster-{call}"
        path.parent.mkdir(exist_ok=True)
        path.write_text(call, encoding="ascii")
        root = self._reads.root
        self._order = Order(call, b"", dumps(self._reads.check, root), identity(), str(root), (str(path), call))
        try:
            yield
        finally:
            path.unlink(missing_ok=True)

    def _workers(self, client: Any) -> list[bool]:
        """Whether each of the scheduler's workers has a GPU."""
        if client.status == "running":
            with contextlib.suppress(OSError):  # the connection is lost in this moment
                return ["GPU" in worker["resources"] for worker in client.scheduler_info(n_workers=-1)["workers"].values()]
        raise TryAgain(
            f"The scheduler of the cluster, {self._address}, is lost. Run the same command again when it is back; what is finished is kept."
        )

    def _send(self, client: Any, number: int, job: J, tries: int, on_gpu: bool) -> None:
        order = replace(self._order, task=dumps((self._function, job), self._reads.root))
        resources = {"GPU": 1} if on_gpu and self._reads.on_device else None
        try:
            files = [] if self._shares_disk else self._files_of(client, job)
            future = client.submit(run_order, order, *files, pure=False, resources=resources)
        except Exception:
            self._workers(client)
            raise
        future.add_done_callback(lambda _: self._done.set())
        self._jobs[future] = number, job, tries + 1

    def _files_of(self, client: Any, job: J) -> list[Any]:
        """Dask's futures of what all jobs read, and of what this one reads."""
        root = self._reads.root
        if self._common is None:
            self._common = client.scatter([[FilePart.read(piece, root) for piece in self._reads.common_pieces()]], hash=False)[0]
        return [self._common, *client.scatter([[FilePart.read(piece, root) for piece in self._reads.of_job(job)]], hash=False)]

    def _finished(self) -> list[Any]:
        """The futures that are done, in the order in which they were sent; waits up to a second for one."""
        self._done.wait(timeout=1)
        self._done.clear()
        return [future for future in self._jobs if future.status != "pending"]

    def _outcome(self, client: Any, future: Any, tries: int) -> Outcome | None:
        """What came of a job; None where it must be sent again."""
        from distributed.scheduler import KilledWorker

        if future.status == "error":
            error = future.exception()
            if isinstance(error, KilledWorker):
                raise OutOfMemory(
                    "A job ended several workers of the cluster, most likely because their memory ran out. Give workers more memory "
                    f"({MEMORY} for local ones), or plan smaller shards (shard_images); what is finished is kept."
                )
            raise UssError(f"A worker of the cluster could not run a job: {type(error).__name__}: {error}") from error
        self._workers(client)
        if future.status != "finished":  # what had been sent to it was lost with a worker
            self._common = None
            _check_tries(tries)
            return None
        try:
            outcome: Outcome = future.result()
        except Exception:  # its worker was lost between the end of the job and now
            self._workers(client)
            _check_tries(tries)
            return None
        finally:
            future.release()
        if outcome.needs_files:
            self._shares_disk = False
            return None
        if outcome.printed:
            print(outcome.printed, end="", file=sys.stderr, flush=True)
        if outcome.error is not None:
            if outcome.trace and not isinstance(outcome.error, UssError):
                print(outcome.trace, end="", file=sys.stderr, flush=True)
            raise outcome.error
        return outcome


def _check_tries(tries: int) -> None:
    if tries >= _TRIES:
        raise TryAgain(f"Workers were lost {tries} times with one job. Run the same command again; what is finished is kept.")


@contextlib.contextmanager
def _client(address: str) -> Iterator[Any]:
    distributed = _import("distributed", "dask")
    import logging

    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # a lost scheduler is told in one sentence
    try:
        client = distributed.Client(address, timeout=_SECONDS_TO_CONNECT, set_as_default=False, name="uss")
    except (OSError, TimeoutError, ValueError) as error:
        raise Unavailable(f"{CLUSTER}: there is no scheduler at {address} ({error}).") from None
    try:
        yield client
    finally:
        with contextlib.suppress(Exception):
            client.close(timeout=2)


class _NoWorkers:
    """Says each minute that no worker is there."""

    def __init__(self) -> None:
        self._next = time.monotonic() + 10

    def check(self, workers: int) -> None:
        if workers:
            self._next = time.monotonic() + 10
        elif time.monotonic() > self._next:
            self._next = time.monotonic() + _SECONDS_BETWEEN_NOTES
            print("note: the cluster has no worker yet; waiting.", file=sys.stderr, flush=True)

"""The common part of all stages that work shard by shard: resume, restore, compute, store, count."""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from uss_dagster.artifacts.cluster import Cluster, cluster_address
from uss_dagster.artifacts.devices import device_names, map_devices
from uss_dagster.artifacts.phases import PhasedWork, loader_count, overlapped
from uss_dagster.artifacts.progress import Progress
from uss_dagster.artifacts.reads import Reads
from uss_dagster.artifacts.shard_store import ShardStore
from uss_dagster.artifacts.shards import map_shards
from uss_dagster.artifacts.staging import Staging
from uss_dagster.files import write_whole

T = TypeVar("T")
Work = Callable[[T, Staging], float | None]
"""Computes one shard and writes its files into the work folder, the last of ``ShardJob.files`` last; returns the seconds to report
(None: all that passed)."""


@dataclass(frozen=True)
class ShardJob(Generic[T]):
    """One shard.

    Parameters
    ----------
    files
        Names of its files in the work folder; the last one is written last.
    key
        Hash of what the files depend on, see ``shard_key``; empty for a shard that is never stored.
    item
        What ``work`` gets.
    images
        Number of images.
    """

    files: tuple[str, ...]
    key: str
    item: T
    images: int


@dataclass(frozen=True)
class ShardTotals:
    """Images computed now, found from an interrupted run, and restored from the store; seconds of computing over all workers."""

    images: int = 0
    resumed: int = 0
    reused: int = 0
    seconds_computing: float = 0.0

    def __add__(self, other: ShardTotals) -> ShardTotals:
        seconds = round(self.seconds_computing + other.seconds_computing, 3)
        return ShardTotals(self.images + other.images, self.resumed + other.resumed, self.reused + other.reused, seconds)

    @property
    def all_images(self) -> int:
        return self.images + self.resumed + self.reused


Done = Generator[tuple[ShardJob[T], ShardTotals], None, None]
"""Shards as they are finished, and what was done for each."""


class ShardRunner:
    """Runs the shards of one artefact into its work folder.

    Parameters
    ----------
    staging
        The work folder.
    store
        Finished shards of earlier runs.
    """

    def __init__(self, staging: Staging, store: ShardStore) -> None:
        self.staging, self.store = staging, store

    def run(
        self,
        jobs: Sequence[ShardJob[T]],
        work: Work[T],
        workers: int | None = None,
        advance: Callable[[ShardJob[T], ShardTotals], None] | None = None,
        reads: Reads[ShardJob[T]] | None = None,
        on_device: bool = False,
    ) -> ShardTotals:
        """Finish all shards, in worker processes where there are several, or on a cluster; returns what was done.

        Parameters
        ----------
        jobs
            The shards, in order.
        work
            Computes one of them; must pickle.
        workers
            Number of processes; None for one a core.
        advance
            Called after each shard (on a cluster or several devices: as they are finished); by default a progress line is printed.
        reads
            What shards read, for workers of a cluster (``USS_CLUSTER``); None: always on this machine.
        on_device
            One process for each GPU, see ``devices``; without one, one process on the CPU.
        """
        totals = ShardTotals()
        images = sum(job.images for job in jobs)
        if reads and (address := cluster_address()):
            shards = self._elsewhere(jobs, functools.partial(self._on_cluster, work=work, reads=reads, address=address))
        elif on_device:
            shards = self._elsewhere(jobs, functools.partial(self._on_devices, work=work))
        else:
            shards = self._here(jobs, work, workers)
        with Progress(self.staging.name, images, silent=advance is not None) as progress, closing(shards) as results:
            for job, shard in results:
                totals += shard
                progress.advance(shard.all_images)
                if advance is not None:
                    advance(job, shard)
        return totals

    def _here(self, jobs: Sequence[ShardJob[T]], work: Work[T], workers: int | None) -> Done[T]:
        one = functools.partial(_finish, work=work, staging=self.staging, store=self.store)
        with closing(map_shards(one, jobs, workers=workers)) as results:
            yield from zip(jobs, results, strict=True)

    def _elsewhere(self, jobs: Sequence[ShardJob[T]], compute: Callable[[Sequence[ShardJob[T]]], Done[T]]) -> Done[T]:
        """Shards that are there already, then what ``compute`` gives for the others."""
        missing = []
        for job in jobs:
            if (shard := _reuse(job, self.staging, self.store)) is not None:
                yield job, shard
            else:
                missing.append(job)
        if missing:
            yield from compute(missing)

    def _on_devices(self, jobs: Sequence[ShardJob[T]], work: Work[T]) -> Done[T]:
        names = device_names()
        loaders = loader_count(names[0], len(names))
        stream = functools.partial(_finish_in_order, work=work, staging=self.staging, store=self.store, loaders=loaders)
        with closing(map_devices(stream, jobs, names)) as results:
            for number, shard in results:
                yield jobs[number], shard

    def _on_cluster(self, jobs: Sequence[ShardJob[T]], work: Work[T], reads: Reads[ShardJob[T]], address: str) -> Done[T]:
        """Only this process writes files: each shard comes as bytes, and is stored as soon as it is there."""
        one = functools.partial(_compute_elsewhere, work=work, name=self.staging.name)
        with closing(Cluster(one, reads).run(jobs, address)) as results:
            for number, (seconds, files) in results:
                job = jobs[number]
                for name in job.files:
                    self.staging.write(name, functools.partial(write_whole, data=files[name]))
                self.store.store(job.key, job.files, self.staging)
                yield job, ShardTotals(images=job.images, seconds_computing=seconds)

    def must_compute(self, job: ShardJob[T]) -> bool:
        """Whether a shard is neither in the work folder nor in the store."""
        return not all(map(self.staging.has, job.files)) and not self.store.has(job.key, job.files)

    def evict_others(self, jobs: Sequence[ShardJob[T]]) -> None:
        """Remove stored shards that are none of these: called after the artefact was published."""
        self.store.evict_except({job.key for job in jobs})


def _reuse(job: ShardJob[T], staging: Staging, store: ShardStore) -> ShardTotals | None:
    """A shard that an interrupted run finished, or that is stored; None where it must be computed."""
    if all(staging.has(name) for name in job.files):
        return ShardTotals(resumed=job.images)
    if store.restore(job.key, job.files, staging):
        return ShardTotals(reused=job.images)
    return None


def _finish_in_order(
    jobs: Iterator[ShardJob[T]], work: Work[T], staging: Staging, store: ShardStore, loaders: int
) -> Iterator[ShardTotals]:
    """Compute shards one after the other on one device; the phases of several shards overlap where the work has phases."""
    if not loaders or not isinstance(work, PhasedWork):
        for job in jobs:
            yield _finish(job, work, staging, store)
        return

    def write(job: ShardJob[T], computed: object) -> ShardTotals:
        seconds = work.write(job.item, computed, staging)
        store.store(job.key, job.files, staging)
        return ShardTotals(images=job.images, seconds_computing=seconds)

    yield from overlapped(
        jobs, lambda job: work.parts(job.item), work.load, lambda job, loaded: work.compute(job.item, loaded), write, loaders
    )


def _finish(job: ShardJob[T], work: Work[T], staging: Staging, store: ShardStore) -> ShardTotals:
    if (shard := _reuse(job, staging, store)) is not None:
        return shard
    seconds = _timed(job, work, staging)
    store.store(job.key, job.files, staging)
    return ShardTotals(images=job.images, seconds_computing=seconds)


def _timed(job: ShardJob[T], work: Work[T], staging: Staging) -> float:
    """Compute a shard; returns the seconds to report."""
    started = time.perf_counter()
    seconds = work(job.item, staging)
    return time.perf_counter() - started if seconds is None else seconds


def _compute_elsewhere(job: ShardJob[T], work: Work[T], name: str) -> tuple[float, dict[str, bytes]]:
    """(seconds to report, name → bytes of its files) of a shard, computed in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="uss-shard-") as folder:
        staging = Staging(Path(folder), name, None)
        seconds = _timed(job, work, staging)
        return seconds, {file: (staging.folder / file).read_bytes() for file in job.files}

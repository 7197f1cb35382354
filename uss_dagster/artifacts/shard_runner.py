"""The common part of all stages that work shard by shard: resume, restore, compute, store, count."""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from uss_dagster.artifacts.cluster import Cluster, cluster_address
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
            Called after each shard (in order, but on a cluster as they are finished); by default a progress line is printed.
        reads
            What shards read, for workers of a cluster (``USS_CLUSTER``); None: always on this machine.
        """
        totals = ShardTotals()
        images = sum(job.images for job in jobs)
        address = cluster_address() if reads else ""
        shards = self._on_cluster(jobs, work, reads, address) if reads and address else self._here(jobs, work, workers)
        with Progress(self.staging.name, images, silent=advance is not None) as progress, closing(shards) as results:
            for job, shard in results:
                totals += shard
                progress.advance(shard.all_images)
                if advance is not None:
                    advance(job, shard)
        return totals

    def _here(
        self, jobs: Sequence[ShardJob[T]], work: Work[T], workers: int | None
    ) -> Generator[tuple[ShardJob[T], ShardTotals], None, None]:
        one = functools.partial(_finish, work=work, staging=self.staging, store=self.store)
        with closing(map_shards(one, jobs, workers=workers)) as results:
            yield from zip(jobs, results, strict=True)

    def _on_cluster(
        self, jobs: Sequence[ShardJob[T]], work: Work[T], reads: Reads[ShardJob[T]], address: str
    ) -> Generator[tuple[ShardJob[T], ShardTotals], None, None]:
        """Only this process writes files: each shard comes as bytes, and is stored as soon as it is there."""
        missing = []
        for job in jobs:
            if (shard := _reuse(job, self.staging, self.store)) is not None:
                yield job, shard
            else:
                missing.append(job)
        if not missing:
            return
        one = functools.partial(_compute_elsewhere, work=work, name=self.staging.name)
        with closing(Cluster(one, reads).run(missing, address)) as results:
            for number, (seconds, files) in results:
                job = missing[number]
                for name in job.files:
                    self.staging.write(name, functools.partial(write_whole, data=files[name]))
                self.store.store(job.key, job.files, self.staging)
                yield job, ShardTotals(images=job.images, seconds_computing=seconds)

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

"""The common part of all stages that work shard by shard: resume, restore, compute, store, count."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Generic, TypeVar

from uss_dagster.artifacts.progress import Progress
from uss_dagster.artifacts.shard_store import ShardStore
from uss_dagster.artifacts.shards import map_shards
from uss_dagster.artifacts.staging import Staging

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
    ) -> ShardTotals:
        """Finish all shards, in worker processes where there are several; returns what was done.

        Parameters
        ----------
        jobs
            The shards, in order.
        work
            Computes one of them; must pickle.
        workers
            Number of processes; None for one a core.
        advance
            Called after each shard, in order; by default a progress line is printed.
        """
        totals = ShardTotals()
        one = functools.partial(_finish, work=work, staging=self.staging, store=self.store)
        images = sum(job.images for job in jobs)
        with (
            Progress(self.staging.name, images, silent=advance is not None) as progress,
            closing(map_shards(one, jobs, workers=workers)) as results,
        ):
            for job, shard in zip(jobs, results, strict=True):
                totals += shard
                progress.advance(shard.all_images)
                if advance is not None:
                    advance(job, shard)
        return totals

    def must_compute(self, job: ShardJob[T]) -> bool:
        """Whether a shard is neither in the work folder nor in the store."""
        return not all(map(self.staging.has, job.files)) and not self.store.has(job.key, job.files)

    def evict_others(self, jobs: Sequence[ShardJob[T]]) -> None:
        """Remove stored shards that are none of these: called after the artefact was published."""
        self.store.evict_except({job.key for job in jobs})


def _finish(job: ShardJob[T], work: Work[T], staging: Staging, store: ShardStore) -> ShardTotals:
    if all(staging.has(name) for name in job.files):
        return ShardTotals(resumed=job.images)
    if store.restore(job.key, job.files, staging):
        return ShardTotals(reused=job.images)
    started = time.perf_counter()
    seconds = work(job.item, staging)
    store.store(job.key, job.files, staging)
    return ShardTotals(images=job.images, seconds_computing=time.perf_counter() - started if seconds is None else seconds)

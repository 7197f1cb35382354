"""Runs the shards of a stage that reads features, stored or computed by the stage itself."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from uss_dagster.artifacts.features import FeatureSource
from uss_dagster.artifacts.progress import Progress
from uss_dagster.artifacts.reads import Reads
from uss_dagster.artifacts.shard_runner import ShardJob, ShardRunner, ShardTotals

T = TypeVar("T")


def run_with_features(
    runner: ShardRunner,
    jobs: Sequence[ShardJob[T]],
    work: Callable[..., float | None],
    source: FeatureSource,
    reads: Callable[[Path | None], Reads[ShardJob[T]]],
    on_device: bool = False,
) -> ShardTotals:
    """Finish all shards: all at once where features are stored, else as many at a time as there are features of.

    Parameters
    ----------
    runner, jobs, on_device
        See ``ShardRunner.run``.
    work
        Likewise; gets the folder of features as ``features``.
    source
        Where the features are.
    reads
        The folder of features → what shards read, for the workers of a cluster.
    """
    totals = ShardTotals()
    with Progress(runner.staging.name, sum(job.images for job in jobs)) as progress:

        def advance(job: ShardJob[T], shard: ShardTotals) -> None:
            progress.advance(shard.all_images)

        for features, numbers in source.of_shards(len(jobs), lambda number: runner.must_compute(jobs[number])):
            some, compute = [jobs[number] for number in numbers], functools.partial(work, features=features)
            totals += runner.run(some, compute, advance=advance, reads=reads(features), on_device=on_device)
    return totals

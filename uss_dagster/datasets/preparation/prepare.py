"""Examples of an adapter → ``images/`` (tar shards, index) and ``truth/`` (regions).

Examples come one by one and only an image's row of the index stays in memory. Each picture is decoded once, when it is added; later
checks compare the stored bytes with its hash.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from uss_dagster.artifacts.image_files import measure
from uss_dagster.artifacts.images import ImageShards
from uss_dagster.artifacts.progress import Progress
from uss_dagster.artifacts.schemas import IMAGES
from uss_dagster.artifacts.shards import worker_count
from uss_dagster.artifacts.tables import GROUP_ROWS, RowsWriter, regions_to_table, write_table
from uss_dagster.datasets.base import Adapter, DatasetSpec, Example
from uss_dagster.errors import BadData
from uss_dagster.files import remove
from uss_dagster.hashing import sha256_of

T = TypeVar("T")
R = TypeVar("R")


def prepare(
    adapter: Adapter, params: Any, folder: Path, title: str, keep: bool = True, change: Callable[[Example], Example] | None = None
) -> dict[str, int]:
    """Write ``images/`` and ``truth/`` of a dataset.

    Parameters
    ----------
    adapter : Adapter
        The module of the dataset.
    params : dataclass
        Its parameters.
    folder : Path
        Where the two folders go.
    title : str
        Of the progress bar.
    keep : bool
        Write the images, not only their index. Default: True.
    change : callable, optional
        What is done to each example first. Default: None, nothing.

    Returns
    -------
    dict
        Numbers of 'images' and 'regions'.

    Raises
    ------
    BadData
        A picture cannot be decoded, or has another size than its ground truth.
    """
    for part in ("images", "truth"):  # an adapter is read from start to end: nothing to resume
        remove(folder / part)
        (folder / part).mkdir()
    images = ImageShards(folder / "images", keep=keep)
    truth = RowsWriter(folder / "truth" / "regions.parquet")
    try:
        with Progress(title, _expected(adapter.SPEC, params)) as progress:
            examples = map(change, adapter.examples(params)) if change else adapter.examples(params)
            measured = in_threads(lambda one: (measure(one.image, one.image_id), sha256_of(one.image)), examples)
            for example, ((height, width), sha256) in measured:
                if example.truth.shape != (height, width):
                    raise BadData(
                        f"Image '{example.image_id}' is {height}×{width}, its ground truth is {example.truth.shape[0]}×{example.truth.shape[1]} "
                        "(height×width). They must be equal: check that mask and image belong together."
                    )
                images.add(example.image_id, example.image, example.suffix, height, width, example.split, sha256)
                truth.add(regions_to_table(example.image_id, example.truth))
                progress.advance()
    finally:
        images.close()
        truth.close()
    index = images.table()
    write_table(folder / "images" / "images.parquet", index, IMAGES, GROUP_ROWS)
    return {"images": index.num_rows, "regions": truth.rows}


def in_threads(work: Callable[[T], R], items: Iterable[T]) -> Iterator[tuple[T, R]]:
    """(item, its result) in order; the work runs in threads (Pillow and hashes let others run), a few items ahead."""
    threads = worker_count(4)
    waiting: collections.deque[tuple[T, Future[R]]] = collections.deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append((item, pool.submit(work, item)))
                while len(waiting) > 2 * threads or (waiting and waiting[0][1].done()):
                    first, result = waiting.popleft()
                    yield first, result.result()
            for first, result in waiting:
                yield first, result.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _expected(spec: DatasetSpec, params: Any) -> int:
    """Images to expect, for the progress bar only; 0 where it cannot be told."""
    limit = getattr(params, "images", None) or getattr(params, "limit", None)
    split = spec.counts.get(getattr(params, "split", ""), 0)
    return int(min(limit, split) if limit and split else limit or split)

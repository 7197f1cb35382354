"""What follows the computing at 10⁴, 10⁵ and 10⁶ images: gates, leaderboard and page, on artefacts that are made in bulk.

    python benchmarks/scale_gates.py [--images 10000,100000,1000000]

``scale.py`` runs whole stages, which takes hours for 10⁶ images; here their shards are copies of one under other image ids, so that minutes
do. Shards hold 100 images with three regions each; an image has five scores. Each step runs in a process of its own that has imported its
libraries before; seconds are of the processor, memory is the greatest that was resident.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import great_expectations  # noqa: F401  before the clock starts
import numpy as np
import pyarrow as pa
from scale_plugins import squares

from uss_dagster.artifacts.images import Images
from uss_dagster.artifacts.schemas import IMAGES, REGIONS, REPLICATES, SCORES
from uss_dagster.artifacts.tables import GROUP_ROWS, RowsWriter, regions_to_table, write_batches, write_table
from uss_dagster.datasets.preparation import checks
from uss_dagster.regions import Regions
from uss_dagster.report import leaderboard
from uss_dagster.report.evidence import read_evidence
from uss_dagster.runtime import peak_memory_mb
from uss_dagster.scoring.image_scores import ImageScores
from uss_dagster.scoring.scorer import Convention
from uss_dagster.stages import scores, segments
from uss_dagster.text import aligned

A_SHARD = 100
CONVENTIONS = [Convention(metric=f"metric{k}", protocol="hierarchical", scope="image", grid="full") for k in range(5)]
CELL = {"entry": "entry0", "dataset": "squares"}


def names(start: int, stop: int) -> list[str]:
    return [f"square{number:08d}" for number in range(start, stop)]


def write_index(folder: Path, images: int) -> None:
    """The index of a dataset without its images."""
    same = {"shard": "shard-00000.tar", "member": "a.png", "offset": 0, "size": 1, "height": 16, "width": 16, "split": "all"}
    columns = {"image_id": names(0, images), "sha256": [f"{n:064x}" for n in range(images)]} | {k: [v] * images for k, v in same.items()}
    folder.mkdir(parents=True)
    write_table(folder / "images.parquet", pa.table({n: columns[n] for n in IMAGES.names}, schema=IMAGES), IMAGES, GROUP_ROWS)


def region_shards(images: int) -> Iterator[pa.Table]:
    """Shards of regions: one under other names."""
    halves = Regions.from_tree(np.repeat([1, 2], 128).reshape(16, 16), [0, 0, 0], label=[0, 1, 2])
    rows = pa.concat_tables([regions_to_table("", halves)] * A_SHARD)
    for start in range(0, images, A_SHARD):
        ids = np.repeat(names(start, start + A_SHARD), len(halves))
        yield rows.set_column(0, "image_id", pa.array(ids, pa.string()))


def write_segments(folder: Path, images: int) -> None:
    """The shards of an entry."""
    folder.mkdir(parents=True)
    for number, rows in enumerate(region_shards(images)):
        write_table(folder / f"shard-{number:05d}.parquet", rows, REGIONS)


def write_truth(folder: Path, images: int) -> None:
    """The ground truth of a dataset, one file."""
    folder.mkdir(parents=True)
    writer = RowsWriter(folder / "regions.parquet")
    for rows in region_shards(images):
        writer.add(rows)
    writer.close()


def write_scores(folder: Path, images: int) -> None:
    """A folder of scores, added shard by shard as the stage adds them."""
    rng, collected = np.random.default_rng(0), ImageScores()
    for start in range(0, images, A_SHARD):
        ids, values = names(start, start + A_SHARD), rng.random((A_SHARD, len(CONVENTIONS))).tolist()
        pairs = ((i, w, v) for i, of_image in zip(ids, values, strict=True) for w, v in zip(CONVENTIONS, of_image, strict=True))
        collected.add({"image_id": i, **w, "value": v, "n": 1} for i, w, v in pairs)
    folder.mkdir(parents=True)
    of_dataset: list[scores.ScoreRow] = [{"image_id": None, **way, "value": 0.5, "n": images} for way in CONVENTIONS]
    write_batches(folder / "scores.parquet", scores.score_tables(CELL, of_dataset, collected), SCORES)
    replicates = [{**CELL, **way, "replicate": r, "value": 0.5} for way in CONVENTIONS for r in range(200)]
    write_table(folder / "replicates.parquet", pa.Table.from_pylist(replicates, REPLICATES), REPLICATES)


def measured(work: Callable[[], object]) -> tuple[float, float]:
    """(seconds of processor, MiB at most) of some work in a process of its own."""
    read, write = os.pipe()
    if not (child := os.fork()):
        started = time.process_time()
        work()
        os.write(write, json.dumps([time.process_time() - started, peak_memory_mb()]).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    if not text:
        sys.exit("A step failed.")
    seconds, memory = json.loads(text)
    return seconds, memory


def checked(report: segments.Report) -> None:
    if not report.success:
        sys.exit(" ".join(report.reasons()))


def steps(folder: Path, images: int) -> dict[str, Callable[[], object]]:
    """What is measured, in order."""
    cell = folder / "scores" / CELL["entry"] / CELL["dataset"]
    return {
        "index of images (made in bulk)": lambda: write_index(folder / "images", images),
        "ground truth (made in bulk)": lambda: write_truth(folder / "truth", images),
        "gate of the dataset, without reading images": lambda: checked(checks.validate("squares", folder, squares.SPEC, stored=False)),
        "shards of regions (made in bulk)": lambda: write_segments(folder / "segments", images),
        "gate of segments": lambda: checked(segments.validate("segments", folder / "segments", Images(folder / "images"), False)),
        "scores collected and written": lambda: write_scores(cell, images),
        "gate of scores": lambda: checked(scores.validate("scores", cell, images)),
        "leaderboard reads the scores": lambda: leaderboard.read_cells([cell]),
        "page reads the scores": lambda: read_evidence([cell]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", default="10000,100000,1000000", help="Numbers of images, multiples of 100.")
    sizes = [int(number) for number in parser.parse_args().images.split(",")]
    rows: dict[str, list[str]] = {}
    for images in sizes:
        folder = Path(tempfile.mkdtemp(prefix="scale-"))
        try:
            for name, work in steps(folder, images).items():
                seconds, memory = measured(work)
                print(images, name, f"{seconds:.1f} s, {memory:.0f} MiB", file=sys.stderr, flush=True)
                rows.setdefault(name, []).extend([f"{1000 * seconds / images:.4f}", f"{memory:.0f}"])
        finally:
            shutil.rmtree(folder)
    header = [f"{what}, {images:,}" for images in sizes for what in ("ms a row", "MiB")]
    print("\n".join(aligned(["step", *header], [[name, *cells] for name, cells in rows.items()], right=header)))


if __name__ == "__main__":
    main()

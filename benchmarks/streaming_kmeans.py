"""k-means of features that do not fit into memory: per pass beside scikit-learn, and LightCluster from shards to regions at three sizes.

    python benchmarks/streaming_kmeans.py [--images 4000] [--clusters 3] [--folder DIR] [--keep] [--only shards|method]

Makes up float16 features of 30×40 patches in 384 channels, 59 MB for 64 images, in the layout of the features stage.

- shards: one pass over all points, side by side and in turns, shard after shard: ``MiniBatchKMeans.partial_fit`` on batches of 16,384 points
  converted to float32 (scikit-learn takes no float16), and ours, from one batch to the next without a copy in float32. Then both run to
  the same number of passes, and the inertia of both is measured exactly, by the same code.
- method: ``fit`` and ``segment`` of LightCluster on a quarter, a half and all of the images, each in a process of its own: seconds of
  processor time (they run in one thread), those for a thousand images, and the peak memory.
"""

from __future__ import annotations

import argparse
import functools
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from uss_dagster.runtime import peak_memory_mb, quiet_environment

quiet_environment()

import numpy as np  # noqa: E402

from uss_dagster.backbones.base import Features  # noqa: E402
from uss_dagster.datasets.base import Sample  # noqa: E402

HEIGHT, WIDTH, CHANNELS, SHARD = 30, 40, 384, 64


def image_features(number: int) -> dict[str, np.ndarray]:
    """An object and a background of two kinds each, keys in their directions and noise; the class token says which kinds."""
    from numpy.random import default_rng

    rng, shared = default_rng([7, number]), default_rng(7).normal(size=(6, CHANNELS)).astype(np.float32)
    y, x = np.indices((HEIGHT, WIDTH))
    cy, cx, ry, rx = rng.uniform(10, 20), rng.uniform(12, 28), rng.uniform(4, 8), rng.uniform(5, 10)
    inside = ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1
    kind = int(rng.integers(2)), 2 + int(rng.integers(4))
    keys = np.where(inside[:, :, None], shared[kind[0]], shared[kind[1]]) + 1.5 * rng.standard_normal((HEIGHT, WIDTH, CHANNELS), np.float32)
    attention = np.where(inside, 1.0, 0.2) + 0.05 * rng.random((HEIGHT, WIDTH))
    return {
        "keys": keys.astype(np.float16),
        "cls": (shared[kind[0]] + 0.2 * rng.normal(size=CHANNELS)).astype(np.float16),
        "cls_attention": (attention / attention.sum()).astype(np.float16),
    }


def make(folder: Path, images: int) -> None:
    from safetensors.numpy import save_file

    for begin in range(0, images, SHARD):
        path = folder / f"shard-{begin // SHARD:05d}.safetensors"
        if path.exists():
            continue
        ids = range(begin, min(begin + SHARD, images))
        save_file({f"{i:05d}/{facet}": a for i in ids for facet, a in image_features(i).items()}, path)
        keys = np.stack(list(_keys(path, ids))).reshape(-1, CHANNELS)
        np.save(path.with_suffix(".npy"), keys)


def _keys(path: Path, ids: range) -> Iterator[np.ndarray]:
    from safetensors import safe_open

    with safe_open(path, "np") as stored:
        for i in ids:
            yield stored.get_tensor(f"{i:05d}/keys")


# -- one pass -----------------------------------------------------------------------------------------


def compare(folder: Path, images: int, k: int, rounds: int = 2) -> None:
    from sklearn.cluster import MiniBatchKMeans

    from uss_dagster.graphs.kmeans import kmeans
    from uss_dagster.graphs.streaming_kmeans import fit_centres, tally

    paths = sorted(folder.glob("*.npy"))[: -(-images // SHARD)]
    shards = [np.asarray(np.load(path, mmap_mode="r")).reshape(-1, CHANNELS) for path in paths]  # mapped: read piece by piece
    first = shards[0][::50].astype(np.float32)
    start = kmeans(first[:500], k, restarts=1).centres.astype(np.float32)
    tally(first, start), tally(shards[0][:100], start)  # compiled loops are loaded once a process

    sums, counts = np.zeros(start.shape), np.zeros(k, np.int64)
    theirs = MiniBatchKMeans(k, init=start, n_init=1, batch_size=16_384, random_state=0)
    own, points = start, 0
    spent: dict[str, list[float]] = {"scikit-learn": [], "ours": []}
    for turn in range(rounds):
        seconds = dict.fromkeys(spent, 0.0)
        sums[:], counts[:] = 0, 0
        for number in range(len(shards)):
            piece = shards[number]
            for begin in range(0, len(piece), 16_384):
                batch = piece[begin : begin + 16_384]
                begun = time.perf_counter()
                theirs.partial_fit(batch.astype(np.float32))
                between = time.perf_counter()
                tally(batch, own, sums, counts)
                if turn == 0:
                    own = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], own)
                seconds["scikit-learn"] += between - begun
                seconds["ours"] += time.perf_counter() - between
                points += len(batch) if turn == 0 else 0
        own = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], own)
        for name, value in seconds.items():
            spent[name].append(value)
    begun = time.perf_counter()
    measured = {
        name: sum(tally(shard, centres)[1] for shard in shards) / points for name, centres in (("scikit-learn", theirs.cluster_centers_), ("ours", own))
    }  # fmt: skip
    exact = (time.perf_counter() - begun) / 2
    print(f"{points:,} points in {CHANNELS} channels, float16, {k} clusters")
    for name, values in spent.items():
        print(f"  {name:14} {min(values):7.2f} s a pass, inertia after {rounds} passes {measured[name]:.4f}")
    print(
        f"  ratio of times {min(spent['scikit-learn']) / min(spent['ours']):.1f}, inertia ours / theirs {measured['ours'] / measured['scikit-learn']:.4f}"
    )
    print(f"  exact assignment of all points with the reading of the shards {exact:.2f} s")
    begun = time.perf_counter()
    found = fit_centres(shards, k)
    print(f"  fit_centres to a shift below 1e-4: {found.epochs} epochs, {time.perf_counter() - begun:.2f} s, inertia {found.inertia:.4f}")


# -- the method ---------------------------------------------------------------------------------------


def _same(found: Features, crops: list[np.ndarray]) -> list[Features]:
    return [found] * len(crops)


class MadeUp:
    """Samples of the first images, one in memory at a time; pictures are plain, crops are encoded as their own image is."""

    def __init__(self, folder: Path, images: int) -> None:
        self._folder, self._images = folder, images

    def __len__(self) -> int:
        return self._images

    def __iter__(self) -> Iterator[Sample]:
        from safetensors import safe_open

        picture = np.zeros((8 * HEIGHT, 8 * WIDTH, 3), np.uint8)
        for begin in range(0, self._images, SHARD):
            with safe_open(self._folder / f"shard-{begin // SHARD:05d}.safetensors", "np") as stored:
                for i in range(begin, min(begin + SHARD, self._images)):
                    found = Features({facet: stored.get_tensor(f"{i:05d}/{facet}") for facet in ("keys", "cls", "cls_attention")})
                    yield Sample(f"{i:05d}", picture, found, functools.partial(_same, found))


def method(folder: Path, images: int) -> None:
    from collections import Counter

    from uss_dagster.methods import lightcluster
    from uss_dagster.registry import build_params

    params = build_params(lightcluster.Params, {"mask": {"refine": "none"}}, "lightcluster")
    lightcluster.fit(MadeUp(folder, 8), params)  # compiled loops are loaded once a process
    samples = MadeUp(folder, images)
    marks = [time.process_time()]
    state = lightcluster.fit(samples, params)
    marks.append(time.process_time())
    branches: Counter[str] = Counter()
    for sample in samples:
        branches[lightcluster.segment(sample, params, state).source[0]] += 1
    marks.append(time.process_time())
    fit, segment = np.diff(marks)
    print(json.dumps({"images": images, "fit": fit, "segment": segment, "peak": peak_memory_mb(), "branches": dict(branches)}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--clusters", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--keep", action="store_true", help="leave the shards in the folder")
    parser.add_argument("--only", choices=("shards", "method"))
    parser.add_argument("--alone", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.alone:
        method(asked.folder, asked.alone)
        return
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="streaming-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        make(folder, asked.images)
        if asked.only != "method":
            compare(folder, asked.images, asked.clusters)
        if asked.only != "shards":
            print("LightCluster, not refined   fit       segment   a thousand images   peak memory")
            for images in (asked.images // 4, asked.images // 2, asked.images):
                program = [sys.executable, __file__, "--folder", str(folder), "--alone", str(images)]
                told = json.loads(subprocess.run(program, capture_output=True, text=True, check=True).stdout)
                total = told["fit"] + told["segment"]
                print(
                    f"  {images:5} images     {told['fit']:12.1f} s {told['segment']:9.1f} s {1000 * total / images:14.1f} s "
                    f"{told['peak']:15.0f} MiB   {told['branches']}",
                    flush=True,
                )
    finally:
        if not asked.keep:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()

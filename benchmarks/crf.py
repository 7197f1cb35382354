"""The dense CRF beside what runs without a compiler: mean-field inference over all pairs of pixels as one matrix product.

    python benchmarks/crf.py [--image PHOTO] [--labels 20] [--size 320 480] [--small 64 96] [--rounds 3] [--threads N]

All pairs at full size need a matrix of 94 GB, so both sides run at the small size, where one holds its matrix in memory; the ratio
there counts making the matrix (on our side, the lattice) and ten iterations. Ours runs alone at full size, with 20 labels and with
200, in a process of its own for each, so that its peak memory is its own. Where pydensecrf2 is installed it runs in turn with ours at full
size, on one thread each, in processor time. Without a photo, patches of colour with shading
and noise stand in for one. The target is 2 s at full size with 20 labels on two idle cores.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from pathlib import Path

from uss_dagster.runtime import peak_memory_mb, quiet_environment

quiet_environment()

import numpy as np  # noqa: E402

from uss_dagster.pixels import bilinear, nearest  # noqa: E402
from uss_dagster.refine._lanes import thread_count  # noqa: E402
from uss_dagster.refine.crf import dense_crf  # noqa: E402


def picture(path: Path | None, height: int, width: int) -> np.ndarray:
    if path is not None:
        from PIL import Image

        photo = Image.open(path).convert("RGB")
        # a crop where it is large enough: reducing a photo would take its noise away
        if photo.height >= height and photo.width >= width:
            left, top = (photo.width - width) // 2, (photo.height - height) // 2
            return np.asarray(photo.crop((left, top, left + width, top + height)))
        return np.asarray(photo.resize((width, height)))
    rng = np.random.default_rng(0)
    colours = nearest(rng.integers(0, 60, (height // 16, width // 16)), height, width)
    shade = bilinear(rng.normal(0, 12, (3, height // 40 + 2, width // 40 + 2)), height, width).transpose(1, 2, 0)
    noise = rng.normal(0, 2, (height, width, 3))
    return np.clip(rng.integers(30, 226, (60, 3))[colours] + shade + noise, 0, 255).astype(np.uint8)


def labels_for(labels: int, height: int, width: int) -> np.ndarray:
    scores = np.random.default_rng(1).normal(0, 3, (labels, height // 16, width // 16)).astype(np.float32)
    soft = np.exp(bilinear(scores, height, width))
    return np.asarray(soft / soft.sum(axis=0))


def all_pairs(p: np.ndarray, image: np.ndarray) -> np.ndarray:
    """The same inference with the same constants, both kernels summed into one float32 matrix."""
    labels, height, width = p.shape
    place = np.indices((height, width)).reshape(2, -1).T.astype(np.float32)
    matrix = np.zeros((height * width, height * width), np.float32)
    for points, weight in ((place, 3), (np.concatenate([place / 67, image.reshape(-1, 3) / np.float32(3)], axis=1), 4)):
        length = (points**2).sum(axis=1) / 2
        kernel = np.exp(points @ points.T - length[:, None] - length)
        norm = 1 / np.sqrt(kernel.sum(axis=1))
        matrix += weight * norm[:, None] * kernel * norm
    energy = -np.log(p.reshape(labels, -1).T)
    field = p.reshape(labels, -1).T
    for _ in range(10):
        field = matrix @ field - energy
        field = np.exp(field - field.max(axis=1, keepdims=True))
        field /= field.sum(axis=1, keepdims=True)
    return np.asarray(field.T.reshape(p.shape))


def full_size(path: Path | None, size: tuple[int, int], labels: int, threads: int, rounds: int) -> str:
    image, p = picture(path, *size), labels_for(labels, *size)
    dense_crf(p[:5, :20, :20], np.ascontiguousarray(image[:20, :20]), threads=1)  # compiles or loads the loops
    before, best, processor = peak_memory_mb(), float("inf"), float("inf")
    for _ in range(rounds):
        begun, busy = time.perf_counter(), time.process_time()
        dense_crf(p, image, threads=threads)
        best, processor = min(best, time.perf_counter() - begun), min(processor, time.process_time() - busy)
    peak = peak_memory_mb()
    took = f"{best:.2f} s ({processor:.2f} s of processor time)"
    return f"{size[0]}×{size[1]}, {labels} labels: {took}, peak {peak:.0f} MiB, {peak - before:.0f} MiB above that of the input alone"


def beside_pydensecrf2(path: Path | None, size: tuple[int, int], labels: int, rounds: int) -> str:
    """The same constants and iterations in Krähenbühl's program, by its Python package."""
    try:
        from pydensecrf.densecrf import DenseCRF2D
    except ImportError:
        return "pydensecrf2 is not installed: `pip install pydensecrf2` (it builds in a minute)"
    image, p = np.array(picture(path, *size)), labels_for(labels, size[0] + -size[0] % 16, size[1] + -size[1] % 16)
    p = np.ascontiguousarray(p[:, : size[0], : size[1]])
    energy = np.ascontiguousarray(-np.log(p).reshape(labels, -1))

    def theirs() -> np.ndarray:
        field = DenseCRF2D(size[1], size[0], labels)
        field.setUnaryEnergy(energy)
        field.addPairwiseGaussian(sxy=1, compat=3)
        field.addPairwiseBilateral(sxy=67, srgb=3, rgbim=image, compat=4)
        return np.array(field.inference(10)).reshape(p.shape)

    dense_crf(p[:5, :20, :20], np.ascontiguousarray(image[:20, :20]), threads=1)
    best = {"ours": float("inf"), "theirs": float("inf")}
    for _ in range(rounds):
        busy = time.process_time()
        ours = dense_crf(p, image, threads=1)
        best["ours"] = min(best["ours"], time.process_time() - busy)
        busy = time.process_time()
        other = theirs()
        best["theirs"] = min(best["theirs"], time.process_time() - busy)
    same = (ours.argmax(axis=0) == other.argmax(axis=0)).mean()
    ratio = best["theirs"] / best["ours"]
    return f"pydensecrf2 {best['theirs']:.2f} s, ours {best['ours']:.2f} s, ratio {ratio:.2f}, same label {same:.2%} of pixels"


def main() -> None:
    parser = argparse.ArgumentParser(description="The dense CRF beside mean-field inference over all pairs.")
    parser.add_argument("--image", type=Path)
    parser.add_argument("--labels", type=int, default=20)
    parser.add_argument("--size", type=int, nargs=2, default=(320, 480), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--small", type=int, nargs=2, default=(64, 96), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=thread_count())
    arguments = parser.parse_args()

    # first, because a process starts with the peak memory of the one that started it
    for labels in (arguments.labels, 200):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            work = arguments.image, tuple(arguments.size), labels, arguments.threads, arguments.rounds
            print(pool.apply(full_size, work), flush=True)

    print(beside_pydensecrf2(arguments.image, tuple(arguments.size), arguments.labels, arguments.rounds), flush=True)

    image, p = picture(arguments.image, *arguments.small), labels_for(arguments.labels, *arguments.small)
    seconds = {"ours": float("inf"), "all pairs": float("inf")}
    dense_crf(p, image)  # compiles or loads the loops
    for _ in range(arguments.rounds):
        begun = time.perf_counter()
        ours = dense_crf(p, image, threads=arguments.threads)
        seconds["ours"] = min(seconds["ours"], time.perf_counter() - begun)
        begun = time.perf_counter()
        exact = all_pairs(p, image)
        seconds["all pairs"] = min(seconds["all pairs"], time.perf_counter() - begun)
    same = (ours.argmax(axis=0) == exact.argmax(axis=0)).mean()
    height, width = arguments.small
    print(f"{height}×{width}, {arguments.labels} labels, 10 iterations, {arguments.threads} threads")
    print(f"  ours {seconds['ours']:.3f} s   all pairs {seconds['all pairs']:.3f} s   ratio {seconds['all pairs'] / seconds['ours']:.1f}")
    print(f"  same label {same:.2%} of pixels")


if __name__ == "__main__":
    main()

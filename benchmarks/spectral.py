"""Spectral over-clustering of one image beside SciPy's and scikit-learn's: eigenpairs, k-means, and the whole way to a tree of regions.

    python benchmarks/spectral.py [--side 60] [--channels 384] [--parts 200] [--photo FILE] [--rounds 3] [--threads N]

Features are made up: flat regions, smooth fields and noise, or with ``--photo`` the tokens of the embedded backbone, which has only 50
channels: then most of 200 eigenvalues lie in one tight bundle. Rounds alternate between the sides and the fastest of each counts. Three
measurements:

- eigenpairs: ``scipy.linalg.eigh(L, subset_by_index=[0, parts - 1])`` against ``smallest_eigenpairs``, which starts from the affinity.
  The objective is that of the parts which each side's eigenvectors lead to, measured on SciPy's eigenvectors.
- k-means: ``sklearn.cluster.KMeans(parts, n_init=10, max_iter=600, tol=1e-6, algorithm="lloyd")`` against ``kmeans`` of the same restarts.
- a whole image in a process of its own, with its peak memory: affinity, over-clustering, recursive partition; also the direct route,
  the recursive partition of the affinity itself.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable

from uss_dagster.runtime import peak_memory_mb, quiet_environment

quiet_environment()

import numpy as np  # noqa: E402

from uss_dagster.graphs.affinity import dense_affinity  # noqa: E402
from uss_dagster.graphs.eigen import smallest_eigenpairs  # noqa: E402
from uss_dagster.graphs.kmeans import kmeans  # noqa: E402
from uss_dagster.graphs.overclustering import over_cluster, part_graph  # noqa: E402
from uss_dagster.graphs.partition import recursive_partition, scaled  # noqa: E402


def made_up(side: int, channels: int, seed: int = 0) -> np.ndarray:
    """Features (side², channels): 40 regions in 24 directions, 64 smooth fields, noise."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    y, x = np.indices((side, side))
    seeds = rng.uniform(0, side, (40, 2))
    region = np.argmin((y[..., None] - seeds[:, 0]) ** 2 + (x[..., None] - seeds[:, 1]) ** 2, axis=-1)
    flat = (rng.normal(size=(40, 24)) @ rng.normal(size=(24, channels)) / 5)[region]
    smooth = np.stack([gaussian_filter(rng.normal(size=(side, side)), 4) for _ in range(64)], axis=-1)
    return (flat + 1.5 * smooth @ rng.normal(size=(64, channels)) + rng.normal(size=flat.shape)).reshape(-1, channels)


def of_photo(path: str, side: int) -> np.ndarray:
    """Tokens (side², 50) of the embedded backbone on a photo resized to fit."""
    from PIL import Image

    from uss_dagster.backbones import patches

    params = patches.Params(facets=("tokens",))
    image = np.asarray(Image.open(path).convert("RGB").resize((side * params.stride, side * params.stride)))
    return patches.load(params)([image])[0]["tokens"].reshape(side * side, -1)


def fastest(sides: dict[str, Callable[[], object]], rounds: int) -> tuple[dict[str, float], dict[str, object]]:
    seconds, results = dict.fromkeys(sides, float("inf")), {}
    for _ in range(rounds):
        for name, run in sides.items():
            begun = time.perf_counter()
            results[name] = run()
            seconds[name] = min(seconds[name], time.perf_counter() - begun)
    return seconds, results


def objective(points: np.ndarray, labels: np.ndarray) -> float:
    total = np.zeros((labels.max() + 1, points.shape[1]))
    np.add.at(total, labels, points)
    return float((points**2).sum() - ((total**2).sum(axis=1) / np.bincount(labels)).sum())


def compare(features: np.ndarray, parts: int, rounds: int) -> None:
    from scipy.linalg import eigh
    from sklearn.cluster import KMeans

    affinity = dense_affinity(features)
    root = 1 / np.sqrt(affinity.sum(axis=1))
    laplacian = np.eye(len(affinity)) - root[:, None] * affinity * root
    smallest_eigenpairs(affinity[:800, :800], min(parts, 100))  # imports and first calls
    kmeans(features[:400], 20)
    small_kmeans = {"max_iter": 600, "tol": 1e-6, "algorithm": "lloyd", "random_state": 1234}
    KMeans(8, n_init=1, **small_kmeans).fit(features[:400])

    seconds, found = fastest(
        {
            "scipy": lambda: eigh(laplacian, subset_by_index=[0, parts - 1]),
            "ours": lambda: smallest_eigenpairs(affinity, parts),
        },
        rounds,
    )
    (values, vectors), ours = found["scipy"], found["ours"]
    apart = np.linalg.norm(laplacian @ ours.vectors - ours.vectors * ours.values, axis=0)
    missed = np.sqrt(max(0.0, 1 - np.linalg.norm(vectors.T @ ours.vectors) ** 2 / parts))
    print(f"\n{len(features)} items, {parts} eigenpairs; ours picked: {ours.solver}")
    print(f"  scipy.linalg.eigh subset {seconds['scipy']:8.2f} s\n  smallest_eigenpairs      {seconds['ours']:8.2f} s")
    print(f"  ratio {seconds['scipy'] / seconds['ours']:.1f}   largest residual {apart.max():.1e}   eigenvalues differ by at most", end=" ")
    print(f"{np.abs(ours.values - values).max():.1e}   share of the space missed {missed:.1e}")

    exact, own = scaled(vectors), scaled(ours.vectors)
    seconds, found = fastest(
        {
            "sklearn": lambda: KMeans(parts, n_init=10, **small_kmeans).fit(exact),
            "ours": lambda: kmeans(exact, parts, seed=1234, restarts=10, iterations=600, tolerance=1e-6),
        },
        rounds,
    )
    theirs, mine = found["sklearn"].inertia_, found["ours"].inertia * len(exact)
    print(f"{len(exact)} points in {exact.shape[1]} dimensions, {parts} clusters, 10 restarts")
    print(f"  sklearn.cluster.KMeans   {seconds['sklearn']:8.2f} s, inertia {theirs:.2f}")
    print(f"  kmeans                   {seconds['ours']:8.2f} s, inertia {mine:.2f}")
    print(f"  ratio {seconds['sklearn'] / seconds['ours']:.1f}   inertia, ours / theirs {mine / theirs:.4f}")
    through = kmeans(own, parts, seed=1234, restarts=10, iterations=600, tolerance=1e-6).labels
    print(f"  objective of our eigenpairs and k-means / scipy's and sklearn's {objective(exact, through) / theirs:.4f}")


def one_image(features: np.ndarray, parts: int, route: str) -> dict[str, float | int]:
    """Seconds of each step and the peak memory of this process, in MiB."""
    recursive_partition(np.ones((8, 8)))  # compiled loops are loaded once a process, not once an image
    kmeans(np.random.default_rng(0).normal(size=(4000, 8)), 100, restarts=1)
    before = peak_memory_mb()
    marks = [time.perf_counter()]
    affinity = dense_affinity(features)
    marks.append(time.perf_counter())
    graph = affinity
    if route == "parts":
        graph = part_graph(affinity, over_cluster(affinity, parts))
    marks.append(time.perf_counter())
    tree = recursive_partition(graph)
    marks.append(time.perf_counter())
    affinity_s, cluster_s, tree_s = np.diff(marks)
    return {
        "affinity": affinity_s,
        "over-clustering": cluster_s,
        "recursion": tree_s,
        "total": marks[-1] - marks[0],
        "nodes": len(tree.parent),
        "peak": peak_memory_mb(),
        "before": before,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Spectral clustering of one image beside SciPy and scikit-learn.")
    parser.add_argument("--side", type=int, default=60)
    parser.add_argument("--channels", type=int, default=384)
    parser.add_argument("--parts", type=int, default=200)
    parser.add_argument("--photo", help="an image file: tokens of the embedded backbone instead of made-up features")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, help="compute threads, as many as cores by default")
    parser.add_argument("--route", choices=("parts", "direct"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()

    features = of_photo(arguments.photo, arguments.side) if arguments.photo else made_up(arguments.side, arguments.channels)
    if arguments.route:
        print(json.dumps(one_image(features, arguments.parts, arguments.route)))
        return
    if arguments.threads and os.environ.get("OPENBLAS_NUM_THREADS") != str(arguments.threads):
        counts = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(arguments.threads))
        sys.exit(subprocess.run([sys.executable, *sys.argv], env=os.environ | counts).returncode)
    print(f"features {features.shape}, {arguments.photo or 'made up'}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    for route in ("parts", "direct"):
        run = subprocess.run([sys.executable, *sys.argv, "--route", route], capture_output=True, text=True, check=True)
        took = json.loads(run.stdout.splitlines()[-1])
        steps = "   ".join(f"{name} {took[name]:.2f}" for name in ("affinity", "over-clustering", "recursion"))
        print(f"  whole image, {route:6s} {took['total']:6.2f} s ({steps}), {took['nodes']} nodes, ", end="")
        print(f"peak {took['peak']:.0f} MiB, {took['before']:.0f} MiB of it before the image", flush=True)
    compare(features, arguments.parts, arguments.rounds)


if __name__ == "__main__":
    main()

"""Spectral over-clustering of the DINOv2 tokens of photographs: slices of the spectrum, the dense solver, scikit-learn's SpectralClustering.

    USS_MIRROR=… python benchmarks/real_tokens.py [--photos 4] [--side 60] [--parts 200] [--rounds 2] [--sklearn] [--tokens FILE.npz]

Weights: `uss weights get dinov2_vits14_saliency`. Photographs of VOC 2012, resized so that there are side × side patches. One thread,
seconds of processor time, sides in turn, the least of the rounds. "without factor" is what ran before slices: Lanczos gives up, and all
pairs are solved. ``--sklearn`` takes minutes: scikit-learn clusters the first photograph's graph, with ten restarts as ours.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from uss_dagster.runtime import quiet_environment, single_thread

quiet_environment()
single_thread()

import numpy as np  # noqa: E402

from uss_dagster.graphs.affinity import cosine_affinity  # noqa: E402
from uss_dagster.graphs.eigen import smallest_eigenpairs  # noqa: E402
from uss_dagster.graphs.kmeans import kmeans  # noqa: E402
from uss_dagster.graphs.overclustering import part_graph  # noqa: E402
from uss_dagster.graphs.partition import recursive_partition, scaled  # noqa: E402

KMEANS: dict[str, Any] = {"seed": 1234, "restarts": 10, "iterations": 600, "tolerance": 1e-6}


def tokens_of_photographs(count: int, side: int) -> list[np.ndarray]:
    """Tokens (side², 384) of photographs, evenly spaced in the list of VOC 2012."""
    from PIL import Image

    from uss_dagster.backbones import vit
    from uss_dagster.datasets.base import mirror_folder

    folder = mirror_folder("voc2012")
    if folder is None:
        raise SystemExit("The photographs are missing: set USS_MIRROR to a folder that holds voc2012, or give --tokens.")
    files = sorted(folder.rglob("JPEGImages/*.jpg"))
    extract = vit.load(vit.Params(model="dinov2_vits14_saliency", image_size=(14 * side, 14 * side), facets=("tokens",)), "cpu")
    photos = [np.asarray(Image.open(path).convert("RGB")) for path in files[:: len(files) // count][:count]]
    return [extract([photo])[0]["tokens"].reshape(side * side, -1) for photo in photos]


def least(sides: dict[str, Callable[[], Any]], rounds: int) -> tuple[dict[str, float], dict[str, Any]]:
    seconds, results = dict.fromkeys(sides, float("inf")), {}
    for _ in range(rounds):
        for name, run in sides.items():
            begun = time.process_time()
            results[name] = run()
            seconds[name] = min(seconds[name], time.process_time() - begun)
    return seconds, results


def compare(tokens: np.ndarray, parts: int, rounds: int) -> float:
    """Prints one line; returns seconds of the whole image with slices."""
    affinity, factor = cosine_affinity(tokens)
    solvers: dict[str, Callable[[], Any]] = {
        "affinity": lambda: cosine_affinity(tokens),
        "slices": lambda: smallest_eigenpairs(affinity, parts, factor=factor),
        "dense": lambda: smallest_eigenpairs(affinity, parts),
    }
    seconds, got = least(solvers, rounds)
    ours, before = got["slices"], got["dense"]
    missed = np.sqrt(np.maximum(0.0, 1 - np.linalg.norm(before.vectors.T @ ours.vectors) ** 2 / parts))
    points = {"slices": scaled(ours.vectors), "dense": scaled(before.vectors)}
    more, clusters = least({name: partial(kmeans, p, parts, **KMEANS) for name, p in points.items()}, rounds)
    rest, _ = least({"tree": lambda: recursive_partition(part_graph(affinity, clusters["slices"].labels))}, rounds)
    shared = seconds["affinity"] + rest["tree"]
    whole = {name: shared + seconds[name] + more[name] for name in points}
    print(f"{ours.solver:>8s} {seconds['slices']:6.2f} s   {before.solver:>14s} {seconds['dense']:6.2f} s   ", end="")
    print(f"ratio {seconds['dense'] / seconds['slices']:5.1f}   share of the space missed {missed:.0e}   ", end="")
    print(f"k-means {more['slices']:.2f} s, inertia {clusters['slices'].inertia / clusters['dense'].inertia:.4f}   ", end="")
    print(f"whole image {whole['slices']:.2f} s, before {whole['dense']:.2f} s, ratio {whole['dense'] / whole['slices']:.1f}", flush=True)
    return whole["slices"]


def main() -> None:
    parser = argparse.ArgumentParser(description="Over-clustering of real tokens: slices, all eigenpairs, scikit-learn.")
    parser.add_argument("--photos", type=int, default=4)
    parser.add_argument("--side", type=int, default=60)
    parser.add_argument("--parts", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--sklearn", action="store_true")
    parser.add_argument("--tokens", type=Path, help="an .npz of arrays (h, w, C) in place of photographs")
    arguments = parser.parse_args()
    if arguments.tokens:
        stored = np.load(arguments.tokens)
        images = [stored[name].reshape(-1, stored[name].shape[-1]) for name in stored.files][: arguments.photos]
    else:
        images = tokens_of_photographs(arguments.photos, arguments.side)
    smallest_eigenpairs(cosine_affinity(images[0][:800])[0], 100)  # imports and first calls
    kmeans(images[0][:400], 20)
    recursive_partition(np.ones((8, 8)))
    took = [compare(tokens, arguments.parts, arguments.rounds) for tokens in images]
    if arguments.sklearn:
        from sklearn.cluster import SpectralClustering

        affinity = cosine_affinity(images[0])[0]
        begun = time.process_time()
        SpectralClustering(arguments.parts, affinity="precomputed", n_init=10, random_state=0).fit(affinity)
        theirs = time.process_time() - begun
        print(f"scikit-learn's SpectralClustering {theirs:.1f} s, {theirs / took[0]:.1f} times the whole image with slices")


if __name__ == "__main__":
    main()

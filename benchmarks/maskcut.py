"""The eigen-step of MaskCut beside ``scipy.linalg.eigh``: seconds, and whether both cut alike.

    python benchmarks/maskcut.py [--side 60] [--channels 384] [--rounds 3] [--fixtures tests/golden/unsam_golden.npz]

Features are made up: flat regions in correlated directions, smooth fields and noise. Both sides start from the same features: the affinity is timed
apart, the eigen-step is what follows. Rounds alternate and the fastest of each counts. Then both cut every fixture; those whose second
eigenvalue is not alone are named and left out.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from uss_dagster.runtime import quiet_environment, single_thread

quiet_environment()
single_thread()

import numpy as np  # noqa: E402

from uss_dagster.graphs.maskcut import BinaryAffinity, second_eigenvector  # noqa: E402

TAU, EPS = 0.15, 1e-5


def made_up(side: int, channels: int, seed: int = 0) -> np.ndarray:
    """Features (side², channels): 14 regions, smooth fields, noise."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    y, x = np.indices((side, side))
    seeds = rng.uniform(0, side, (14, 2))
    region = np.argmin((y[..., None] - seeds[:, 0]) ** 2 + (x[..., None] - seeds[:, 1]) ** 2, axis=-1)
    flat = (0.35 + rng.normal(size=(14, channels)))[region]
    smooth = np.stack([gaussian_filter(rng.normal(size=(side, side)), 4) for _ in range(32)], axis=-1)
    smooth = smooth / smooth.std() @ rng.normal(size=(32, channels)) / 8
    return (flat + smooth + 0.6 * rng.normal(size=flat.shape)).reshape(-1, channels)


def dense_affinity(features: np.ndarray) -> np.ndarray:
    units = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    units = units.astype(np.float32)
    return np.where(units @ units.T > np.float32(TAU), 1.0, EPS)


def by_scipy(affinity: np.ndarray) -> np.ndarray:
    from scipy import linalg

    degree = affinity.sum(axis=1)
    return linalg.eigh(np.diag(degree) - affinity, np.diag(degree), subset_by_index=[1, 1])[1][:, 0]


def same_cut(first: np.ndarray, second: np.ndarray) -> bool:
    above, also = first > first.mean(), second > second.mean()
    return bool(np.array_equal(above, also) or np.array_equal(above, ~also))


def main() -> None:
    parser = argparse.ArgumentParser(description="MaskCut's eigen-step beside scipy.linalg.eigh.")
    parser.add_argument("--side", type=int, default=60)
    parser.add_argument("--channels", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fixtures", type=Path, default=Path("tests/golden/unsam_golden.npz"))
    arguments = parser.parse_args()

    features = made_up(arguments.side, arguments.channels)
    second_eigenvector(BinaryAffinity(features[:400], TAU, EPS))  # compiles
    best = dict.fromkeys(("affinity, dense", "affinity, packed", "eigh", "ours"), float("inf"))

    def timed(name: str, run: Callable[..., Any], *given: Any) -> Any:
        begun = time.perf_counter()
        result = run(*given)
        best[name] = min(best[name], time.perf_counter() - begun)
        return result

    for _ in range(arguments.rounds):
        dense = timed("affinity, dense", dense_affinity, features)
        packed = timed("affinity, packed", BinaryAffinity, features, TAU, EPS)
        values, ours = timed("ours", second_eigenvector, packed)
        theirs = timed("eigh", by_scipy, dense)
    cosine = abs(ours @ theirs) / (np.linalg.norm(ours) * np.linalg.norm(theirs))
    print(f"{arguments.side}×{arguments.side} patches, λ = {np.round(values, 4).tolist()}, |cosine| {cosine:.9f}, ", end="")
    print(f"same bipartition: {same_cut(ours, theirs)}")
    for name, seconds in best.items():
        print(f"  {name:18s} {seconds:8.3f} s")
    print(f"  eigen-step: {best['eigh'] / best['ours']:.1f} times faster")

    golden = np.load(arguments.fixtures)
    for case in sorted(key[:3] for key in golden.files if key.endswith("_features")):
        points = golden[f"{case}_features"]
        points = points.reshape(-1, points.shape[2])
        affinity = BinaryAffinity(points, TAU, EPS)
        if not golden[f"{case}_eig_reliable"]:
            print(f"  {case} {golden[f'{case}_name']}: second eigenvalue not alone; constant: {affinity.constant}")
            continue
        same = same_cut(second_eigenvector(affinity)[1], by_scipy(dense_affinity(points)))
        print(f"  {case} {golden[f'{case}_name']}: same bipartition: {same}")


if __name__ == "__main__":
    main()

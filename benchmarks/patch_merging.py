"""Iterative merging of one crop beside the straightforward way, which looks for the best pair anew before every merge.

    python benchmarks/patch_merging.py [--side 32] [--channels 768] [--rounds 3]

Both take the same float32 features and end with the masks at six thresholds; both keep sums and recompute only the pairs that a merge
changes. The other side holds them in a dictionary of NumPy arrays and scans it. Rounds alternate; the fastest of each counts.
"""

from __future__ import annotations

import argparse
import time

from uss_dagster.runtime import quiet_environment, single_thread

quiet_environment()
single_thread()

import numpy as np  # noqa: E402

from uss_dagster.graphs.patch_merging import iterative_merge  # noqa: E402

THETAS = (0.6, 0.5, 0.4, 0.3, 0.2, 0.1)


def made_up(side: int, channels: int, blur: float, seed: int = 0) -> np.ndarray:
    """A smooth random field with noise, float32 (side, side, channels)."""
    from scipy.ndimage import gaussian_filter

    noise = np.random.default_rng(seed).standard_normal((side, side, channels))
    smooth = gaussian_filter(noise, (blur, blur, 0)) if blur else noise
    return (smooth / smooth.std() + 0.5 * noise).astype(np.float32)


def rescanned(features: np.ndarray, thetas: tuple[float, ...], min_patches: int = 4) -> list[np.ndarray]:
    h, w, channels = features.shape
    n = h * w
    sums = list(features.reshape(n, channels).copy())
    members = [np.eye(1, n, i, dtype=bool)[0] for i in range(n)]
    near: list[set[int]] = [set() for _ in range(n)]
    for i in range(n):
        for j in ([i - 1] if i % w else []) + ([i - w] if i >= w else []):
            near[i].add(j)
            near[j].add(i)

    def cosine(i: int, j: int) -> float:
        return float(sums[i] @ sums[j] / (np.linalg.norm(sums[i]) * np.linalg.norm(sums[j])))

    pairs = {(min(i, j), max(i, j)): cosine(i, j) for i in range(n) for j in near[i] if j < i}
    alive = set(range(n))
    levels = []
    for theta in thetas:
        while pairs:
            (i, j), weight = max(pairs.items(), key=lambda item: item[1])
            if weight < theta:
                break
            sums[i] = sums[i] + sums[j]
            members[i] = members[i] | members[j]
            alive.discard(j)
            near[i] = (near[i] | near[j]) - {i, j}
            for k in list(near[j]):
                near[k].discard(j)
                pairs.pop((min(j, k), max(j, k)), None)
            for k in near[i]:
                near[k].add(i)
                pairs[min(i, k), max(i, k)] = cosine(i, k)
        found = [members[i].reshape(h, w) for i in sorted(alive) if near[i] and members[i].sum() >= min_patches]
        levels.append(np.array(found).reshape(-1, h, w))
    return levels


def main() -> None:
    parser = argparse.ArgumentParser(description="Iterative merging beside a plain re-scan.")
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--channels", type=int, default=768)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    iterative_merge(made_up(4, 8, 1), THETAS)  # compiles
    for blur in (0.0, 1.0, 2.0, 4.0):
        features = made_up(arguments.side, arguments.channels, blur)
        best = {"ours": float("inf"), "re-scan": float("inf")}
        results = {}
        for _ in range(arguments.rounds):
            for name, run in (("ours", iterative_merge), ("re-scan", rescanned)):
                begun = time.perf_counter()
                results[name] = run(features, THETAS)
                best[name] = min(best[name], time.perf_counter() - begun)
        same = all(
            {m.tobytes() for m in a} == {np.ascontiguousarray(m).tobytes() for m in b}
            for a, b in zip(results["ours"], results["re-scan"], strict=True)
        )
        print(
            f"{arguments.side}×{arguments.side}×{arguments.channels}, blur {blur:g}: {1e3 * best['ours']:.1f} ms beside "
            f"{1e3 * best['re-scan']:.0f} ms, {best['re-scan'] / best['ours']:.1f} times faster; "
            f"masks {[len(m) for m in results['ours']]}, the same: {same}"
        )


if __name__ == "__main__":
    main()

"""How often intervals cover the truth, and how often entries of equal quality are told apart, by simulation.

    python benchmarks/ties.py [--tables 1000] [--replicates 200] [--only coverage|equal|different]

A table has n images and K entries. Scores of an image share its difficulty, so they are correlated (about .7). Shapes:

normal     normal scores
skewed     shares near 1 with a long tail to 0, as IoU of easy images
heavy      log-normal errors
unlike     normal difficulty; half of the entries have normal noise, half noise with a long tail
ratio      sums over images divided by sums over images, of unequal sizes, as IoU over a dataset

``coverage``: one entry; share of intervals that hold the true value, by percentiles and by ``interval``. ``equal``: all entries have the
same quality; share of tables in which any pair is told apart, each pair judged alone (0 outside 2.5 to 97.5 % of the replicates of the
difference) and by ``half_widths``. ``different``: 14 entries, the i-th better by i/4 of a standard deviation of its noise, the last five
equal, on three datasets; share of tables with any wrong pair, share of true differences told apart, and share of tables in which all
intervals of mean ranks hold. Draws are seeded.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np

from uss_dagster.scoring.intervals import Pairs, half_widths, interval, rank_bounds

IMAGES = (5, 10, 30, 100, 1000)
ENTRIES = (2, 5, 14)
NOISE = 0.6
Scores = tuple[np.ndarray, np.ndarray]
"""Numerators and denominators (n, K): a value is a sum of one by a sum of the other."""


def _scores(transform: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.random.Generator, int, int], Scores]:
    def draw(rng: np.random.Generator, n: int, k: int) -> Scores:
        scores = transform(rng.normal(size=(n, 1)) + NOISE * rng.normal(size=(n, k)))
        return scores, np.ones_like(scores)

    return draw


def _unlike(rng: np.random.Generator, n: int, k: int) -> Scores:
    noise = rng.normal(size=(n, k))
    half = k // 2
    noise[:, :half] = (np.exp(noise[:, :half]) - np.exp(0.5)) / np.sqrt((np.e - 1) * np.e)  # mean 0, deviation 1
    scores = rng.normal(size=(n, 1)) + NOISE * noise
    return scores, np.ones_like(scores)


def _ratio(rng: np.random.Generator, n: int, k: int) -> Scores:
    size = rng.lognormal(0, 0.7, (n, 1))
    share = 1 / (1 + np.exp(-rng.normal(size=(n, 1)) - NOISE * rng.normal(size=(n, k))))
    return share * size, size * (1 + 0.3 * rng.random((n, k)))


SHAPES: dict[str, Callable[[np.random.Generator, int, int], Scores]] = {
    "normal": _scores(lambda z: z),
    "skewed": _scores(lambda z: 1 / (1 + np.exp(-2 * z - 2))),
    "heavy": _scores(lambda z: np.exp(0.9 * z)),
    "unlike": _unlike,
    "ratio": _ratio,
}


def table(
    shape: str, n: int, k: int, replicates: int, rng: np.random.Generator, better: np.ndarray | float = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Values of k entries (k,) and their replicates (R, k). better: (k,), what is added to the scores of each entry."""
    numerators, denominators = SHAPES[shape](rng, n, k)
    weights = np.concatenate([np.ones((1, n)), rng.poisson(1, (replicates, n))])  # the images as they are, then the replicates
    with np.errstate(invalid="ignore"):
        values = weights @ (numerators + better) / (weights @ denominators)
    return values[0], values[1:]


def coverage(tables: int, replicates: int) -> None:
    print("\n| shape | " + " | ".join(f"n = {n}" for n in IMAGES) + " |\n| --- |" + " --- |" * len(IMAGES))
    for shape, draw in SHAPES.items():
        many = draw(np.random.default_rng(1), 1_000_000, 2)
        truth = float(many[0].sum() / many[1].sum())
        cells = []
        for n in IMAGES:
            rng = np.random.default_rng([2, n])
            hits = np.zeros(2)
            for _ in range(tables):
                values, samples = table(shape, n, 2, replicates, rng)
                spans = np.nanquantile(samples[:, 1], [0.025, 0.975]), interval(values[1], samples[:, 1], n)
                hits += [low <= truth <= high for low, high in spans]
            cells.append(" → ".join(f"{share:.3f}" for share in hits / tables))
        print(f"| {shape} | " + " | ".join(cells) + " |", flush=True)


def equal(tables: int, replicates: int) -> None:
    print("\n| shape | entries | " + " | ".join(f"n = {n}" for n in IMAGES) + " |\n| --- | --- |" + " --- |" * len(IMAGES))
    for shape in SHAPES:
        for k in ENTRIES:
            cells = []
            for n in IMAGES:
                rng = np.random.default_rng([3, n, k])
                wrong = np.zeros(2)
                for _ in range(tables):
                    values, samples = table(shape, n, k, replicates, rng)
                    gaps = np.stack([samples[:, i] - samples[:, j] for i in range(k) for j in range(i)])
                    low, high = np.nanquantile(gaps, [0.025, 0.975], axis=1)
                    pairs = Pairs.of(values, samples, np.full(k, n))
                    wrong += [((low > 0) | (high < 0)).any(), (np.abs(pairs.difference) > half_widths([pairs])[0]).any()]
                cells.append(" → ".join(f"{share:.3f}" for share in wrong / tables))
            print(f"| {shape} | {k} | " + " | ".join(cells) + " |", flush=True)


def different(tables: int, replicates: int) -> None:
    k, datasets = 14, 3
    quality = np.minimum(np.arange(k), k - 5) * NOISE / 4
    gaps = np.subtract.outer(quality, quality)
    least, most = 1 + (gaps < 0).sum(axis=1), k - (gaps > 0).sum(axis=1)
    print("\n| n | wrong pair in a table | true differences told apart | intervals of mean ranks hold | their mean width |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for n in IMAGES:
        rng = np.random.default_rng([4, n])
        wrong = power = holds = width = 0.0
        for _ in range(tables):
            families = [Pairs.of(*table("normal", n, k, replicates, rng, quality), np.full(k, n)) for _ in range(datasets)]
            first = families[0]
            (half,) = half_widths(families[:1])
            apart = np.abs(first.difference) > half
            wrong += bool((apart & (np.sign(first.difference) != np.sign(gaps))).any())
            power += apart[gaps > 0].mean()
            bounds = [rank_bounds(pairs, one, True) for pairs, one in zip(families, half_widths(families), strict=True)]
            low, high = np.mean(bounds, axis=0)
            holds += bool((low <= least).all() and (high >= most).all())
            width += float((high - low).mean())
        print(f"| {n} | " + " | ".join(f"{share / tables:.3f}" for share in (wrong, power, holds, width)) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=1000)
    parser.add_argument("--replicates", type=int, default=200)
    parser.add_argument("--only", choices=("coverage", "equal", "different"))
    options = parser.parse_args()
    for part in (coverage, equal, different):
        if options.only in (None, part.__name__):
            part(options.tables, options.replicates)


if __name__ == "__main__":
    main()

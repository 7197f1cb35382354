"""The leaderboard of 200 entries on 20 datasets: when a browser first paints it from disk, beside one page that holds every row.

    python benchmarks/site.py [--entries 200] [--datasets 20] [--metrics 12] [--images 500] [--rounds 5] [--keep DIR]

Scores are synthetic. The baseline is the table as pandas writes it (``DataFrame.to_html``). Both are opened in a headless Chromium with an
empty cache: ours in every round, of which the median counts, the other once, as it takes long. Measured are first paint, and for ours
also when the ranking is drawn. Sorting, filtering and opening a row are timed in the page.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "report"))

from devtools import Page, browser, find_chromium

from uss_dagster.report import leaderboard, site
from uss_dagster.report.costs import Cost, costs_js
from uss_dagster.report.evidence import Evidence, EvidenceReader
from uss_dagster.report.facts import DatasetFacts, EntryFacts, MetricFacts
from uss_dagster.report.leaderboard import Ranking

SEEN = ["dataset", "metric", "entry", "value", "low", "high", "rank"]
PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
DRAWN = "new Promise(done => { const wait = () => document.querySelectorAll('#rows tr').length ? done(performance.now()) : setTimeout(wait, 1); wait(); })"


@dataclass(frozen=True)
class Benchmark:
    """A leaderboard, the facts beside it, and the details of its scores."""

    frame: pd.DataFrame
    entries: dict[str, EntryFacts]
    datasets: dict[str, DatasetFacts]
    metrics: dict[str, MetricFacts]
    evidence: EvidenceReader


def synthetic_benchmark(n_entries: int, n_datasets: int, n_metrics: int, n_images: int) -> Benchmark:
    """Scores of entries with different skill on images of different difficulty."""
    entries = {
        f"entry_{i:03d}": EntryFacts(title=f"Entry {i}", method=f"method_{i % 17}", backbone=f"vit_{i % 5}", supervised=i % 23 == 0)
        for i in range(n_entries)
    }
    datasets = {f"dataset_{i:02d}": DatasetFacts(title=f"Dataset {i}", images=n_images, truth="classes") for i in range(n_datasets)}
    metrics = {
        f"metric_{i:02d}": MetricFacts(f"Metric {i}", f"protocol {i % 3}", higher_is_better=i % 4 != 3, detail=i >= 8)
        for i in range(n_metrics)
    }
    names = list(entries)
    rng = np.random.default_rng(0)
    skill = rng.normal(0.5, 0.1, n_entries)
    weights = rng.poisson(1, (200, n_images)).astype(np.float32)
    rows: list[tuple[object, ...]] = []
    scores: dict[Ranking, np.ndarray] = {}
    for dataset in datasets:
        difficulty = rng.normal(0, 0.15, n_images)
        for metric, facts in metrics.items():
            single = (skill[:, None] + difficulty + rng.normal(0, 0.1, (n_entries, n_images))).astype(np.float32)
            replicates = weights @ single.T / weights.sum(axis=1, keepdims=True)
            value, (low, high) = single.mean(axis=1), np.quantile(replicates, [0.025, 0.975], axis=0)
            rank = pd.Series(value).rank(method="min", ascending=not facts.higher_is_better).astype(int)
            spread = np.quantile(replicates - replicates[:, [int(rank.idxmin())]], [0.025, 0.975], axis=0)
            tied = (spread[0] <= 0) & (spread[1] >= 0)
            ranking = Ranking(dataset, metric, facts.protocol, "image", "full")
            scores[ranking] = single
            rows += [(*ranking, *row) for row in zip(names, value, low, high, [n_images] * n_entries, rank, tied, strict=True)]
    frame = pd.DataFrame(rows, columns=[*leaderboard.GROUP, "entry", "value", "low", "high", "n", "rank", "tied_with_best"])
    for column in ("title", "method", "backbone", "supervised"):
        frame[column] = [getattr(entries[entry], column) for entry in frame["entry"]]
    for column, name in (("metric_title", "title"), ("higher_is_better", "higher_is_better"), ("detail", "detail")):
        frame[column] = [getattr(metrics[metric], name) for metric in frame["metric"]]
    ranks = {"rank_low": frame["rank"], "rank_high": frame["rank"]}
    frame = frame.assign(reimplementation=False, oracle=False, segments_version="", data_version="", **ranks)
    ids = [f"image{i:05d}" for i in range(n_images)]

    def evidence(dataset: str) -> Evidence:
        tables = {ranking: single for ranking, single in scores.items() if ranking.dataset == dataset}
        replicates = {r: pd.DataFrame(weights @ s.T / weights.sum(axis=1, keepdims=True), columns=names) for r, s in tables.items()}
        return Evidence(replicates, {r: pd.DataFrame(s.T, index=ids, columns=names) for r, s in tables.items()})

    return Benchmark(frame.sort_values([*leaderboard.GROUP, "rank"], kind="stable"), entries, datasets, metrics, evidence)


def opened(page: Page, url: str) -> None:
    page.open("about:blank")
    page.send("Network.clearBrowserCache")
    page.open(url)


def painted(page: Page) -> float:
    """Milliseconds until something was seen."""
    return float(page.ask(f"new Promise(done => {{ const wait = () => {PAINT} ? done({PAINT}) : setTimeout(wait, 5); wait(); }})"))


def timed(page: Page, action: str, done: str) -> float:
    """Milliseconds from an action until its result is there and laid out. done: a condition in JavaScript."""
    wait = f"new Promise(go => {{ const wait = () => {done} ? go() : setTimeout(wait, 1); wait(); }})"
    laid_out = "document.body.offsetHeight"
    return float(
        page.ask(
            f"(async () => {{ const start = performance.now(); {action}; await {wait}; {laid_out}; return performance.now() - start; }})()"
        )
    )


@contextlib.contextmanager
def folder_for(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
    else:
        with tempfile.TemporaryDirectory() as name:
            yield Path(name)


def measure(executable: str, index: Path, plain: Path, last: str, rounds: int) -> None:
    """Open both pages in turns; then work with ours."""
    ours: list[float] = []
    stands: list[float] = []
    with browser(executable) as page:
        for _ in range(rounds):
            opened(page, index.as_uri())
            stands.append(float(page.ask(DRAWN)))
            ours.append(painted(page))
        first = statistics.median(ours)
        print(f"first paint {first:.0f} ms; the ranking stands at {statistics.median(stands):.0f} ms")
        choose = "const e = document.getElementById('{}'); e.value = '{}'; e.dispatchEvent(new Event('{}'))"
        for what, action, done in (
            ("sort", "document.querySelector('#heads').cells[1].firstElementChild.click()", "true"),
            ("filter", choose.format("seconds", "1", "input"), "true"),
            ("another dataset", choose.format("dataset", last, "change"), f"location.hash.includes('{last}')"),
            ("why a row differs", "document.querySelectorAll('.why')[1].click()", "document.querySelector('.explained')"),
        ):
            print(f"{what}: {timed(page, action, done):.0f} ms")
        if page.complaints:
            raise SystemExit(f"The page complained: {page.complaints}")
        opened(page, plain.as_uri())
        second = painted(page)
        print(f"one page of every row: first paint {second:.0f} ms, {second / first:.1f} times ours")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("entries", 200), ("datasets", 20), ("metrics", 12), ("images", 500), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--keep", type=Path, help="keep the site in this folder")
    options = parser.parse_args()
    executable = find_chromium()
    if executable is None:
        raise SystemExit("No chromium here (Debian: apt-get install chromium).")
    with folder_for(options.keep) as home:
        data = synthetic_benchmark(options.entries, options.datasets, options.metrics, options.images)
        start = time.perf_counter()
        index = site.build(home / "reports" / "site", data.frame, data.entries, data.datasets, data.metrics, evidence=data.evidence)
        built = time.perf_counter() - start
        costs = [Cost(e, d, 0.1 + i * 0.03, 300 + 7 * i, "cpu", options.images) for i, e in enumerate(data.entries) for d in data.datasets]
        (home / "reports" / "costs.js").write_text(costs_js(costs))
        plain = home / "plain.html"
        plain.write_text(f"<!doctype html><title>all</title>{data.frame[SEEN].to_html(index=False)}")
        size = sum(p.stat().st_size for p in index.parent.rglob("*") if p.is_file())
        rival = plain.stat().st_size
        print(
            f"{len(data.frame):,} rows: built in {built:.1f} s, {size / 2**20:.1f} MiB in all; one page of every row {rival / 2**20:.1f} MiB"
        )
        measure(executable, index, plain, list(data.datasets)[-1], options.rounds)


if __name__ == "__main__":
    main()

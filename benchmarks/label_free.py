"""Ranking entries without labels: fits the model of ``uss recommend``, and tests it on datasets that are left out of the fit.

    USS_MIRROR=/datasets python benchmarks/label_free.py --cache /tmp/label_free [--write]

Photographs of five datasets and drawn scenes, the entries of own_images/entries.yaml. For each dataset the model is fitted on the others and
ranks the entries, once on the images of the fit and once on images that chose nothing. The table has Kendall's tau with the ranking by
ground truth and the regret: the labelled score of the best entry less that of the entry chosen. tau has a 95 % bootstrap interval over
images. "two halves" is tau between the labelled rankings of two random halves of the same images: what labels themselves reach. --write puts
the model, fitted on all datasets, into the package.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scipy.stats import kendalltau

from uss_dagster import registry
from uss_dagster.artifacts.image_files import decode
from uss_dagster.datasets.base import Example
from uss_dagster.drawing import flat_cut
from uss_dagster.files import whole_file
from uss_dagster.metrics.base import Truth
from uss_dagster.metrics.covering import annotator_mean, best_match, iou_matrix, overlap, region_iou, tree_rows
from uss_dagster.metrics.unlabelled import rank_model
from uss_dagster.metrics.unlabelled.describe import describe
from uss_dagster.metrics.unlabelled.picture import PictureGrid
from uss_dagster.metrics.unlabelled.rank_model import FEATURES, LeftOut, RankModel, expected
from uss_dagster.metrics.unlabelled.votes import FLAT, MEASURES, Candidates, measures
from uss_dagster.own_images.entries import RivalEntry, encode, make_encoders, read_entries, segment
from uss_dagster.regions import ClassTree, Regions
from uss_dagster.scoring.label_free import rank_entries


@dataclass(frozen=True)
class Part:
    """Some images of a dataset: every ``step`` of them from the ``first`` on, at most ``most``."""

    params: dict[str, Any]
    first: int = 0
    step: int = 1
    most: int = 24


TUNING = {
    "bsds500": Part({"split": "test"}, step=6),
    "voc2012": Part({"split": "val"}, step=6),
    "coco": Part({"truth": "instances"}, step=2),
    "camvid": Part({"split": "val"}, most=16),
    "pascal_part": Part({}),
    "scenes": Part({"images": 24}, most=10),
}
"""On these the features of regions, the threshold and the weights of votes were chosen, and the model is fitted."""
HELD_OUT = {
    "bsds500": Part({"split": "test"}, first=3, step=6, most=16),
    "voc2012": Part({"split": "val"}, first=3, step=6, most=16),
    "coco": Part({"truth": "instances"}, first=1, step=2, most=16),
    "camvid": Part({"split": "test"}, step=3, most=11),
    "scenes": Part({"images": 24}, first=10, most=10),
}
"""On these the ranking is tested; they chose nothing. Of Pascal-Part all nine pictures of the sample are in ``TUNING``."""
REPLICATES = 400
Arrays = dict[str, np.ndarray]


def best_iou(truth: Truth, regions: Regions) -> tuple[np.ndarray, np.ndarray]:
    """(best IoU of a region with each annotated one, (G,), its annotator, (G,)); instances and classes have one annotator."""
    if truth.kind == "classes":
        table = overlap(truth, regions)
        nodes, holds = tree_rows(table)
        best = best_match(iou_matrix(table, holds), table.candidates)[1] if len(nodes) else np.zeros(0)
        return best, np.zeros(len(best), int)
    every = truth.regions
    counted = np.flatnonzero(~every.is_root & (every.area > 0) & (np.asarray(every.source) != "crowd"))
    best = best_match(region_iou(every, regions)[counted], ~regions.is_root)[1]
    source = np.asarray(every.source)[counted]
    return best, np.unique(source, return_inverse=True)[1] if truth.kind == "annotators" else np.zeros(len(best), int)


def iou_with_annotated(truth: Truth, regions: Regions) -> np.ndarray:
    """Best IoU of each region with an annotated one, the mean over annotators."""
    if truth.kind == "classes":
        table = overlap(truth, regions)
        nodes, holds = tree_rows(table)
        return np.asarray(iou_matrix(table, holds).max(axis=0)) if len(nodes) else np.zeros(len(regions))
    every = truth.regions
    source = np.where(np.asarray(every.source) == "crowd", "crowd", np.asarray(every.source) if truth.kind == "annotators" else "")
    counted = ~every.is_root & (every.area > 0) & (source != "crowd")
    iou = region_iou(every, regions)
    return np.asarray(np.mean([iou[counted & (source == name)].max(axis=0) for name in np.unique(source[counted])], axis=0))


def measure(image: np.ndarray, truth: Truth, families: Sequence[Regions], tokens: dict[str, np.ndarray]) -> Arrays | None:
    """What the fit and the test read of one image; None where nothing is annotated."""
    labelled = []
    for family in families:
        best, annotator = best_iou(truth, family)
        if not len(best):
            return None
        flat = best_iou(truth, Regions.from_label_map(flat_cut(family, FLAT)))[0] if len(family) else np.zeros(len(best))
        labelled.append([annotator_mean(annotator, values) for values in measures(best, flat).values()])
    pictures = {name: PictureGrid.of(image, grid) for name, grid in tokens.items()}
    candidates = Candidates.of(families, pictures["patches"].shape)
    small = replace(truth, regions=truth.regions.resized(*pictures["patches"].shape))
    return {
        "labelled": np.array(labelled),
        "entry": candidates.entry,
        "nested": candidates.nested,
        "flat": candidates.flat,
        "iou": iou_with_annotated(small, Regions.from_masks(candidates.masks)),
        **{name: describe(picture, candidates.masks) for name, picture in pictures.items()},
    }


def examples(dataset: str, part: Part) -> Iterator[tuple[Example, str, ClassTree | None]]:
    """Images of a dataset, the kind of its ground truth, and its classes."""
    module = registry.load("dataset", dataset)
    params = registry.build_params(module.SPEC.params, part.params, dataset)
    kind = module.truth(params) if hasattr(module, "truth") else module.SPEC.truth
    classes = getattr(module.classes(params), "tree", None) if hasattr(module, "classes") else module.SPEC.classes
    for number, example in enumerate(module.examples(params)):
        place, rest = divmod(number - part.first, part.step)
        if not rest and 0 <= place < part.most:
            yield example, kind, classes


def collect(dataset: str, part: Part, cache: Path) -> list[Arrays]:
    """The arrays of ``measure`` of each image, from the cache where they are there."""
    entries, encoders = read_entries(deep=True), make_encoders(deep=True)
    rows = []
    for example, kind, classes in examples(dataset, part):
        path = cache / dataset / f"{example.image_id}.npz"
        if not path.exists():
            image = decode(example.image, example.image_id)
            features = encode(image, encoders)
            families = [segment(entry, example.image_id, image, features, encoders) for entry in entries]
            tokens = {name: features[name]["tokens"] for name in encoders}
            arrays = measure(image, Truth(kind, example.truth, classes), families, tokens)
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(path) as partial, open(partial, "wb") as file:
                np.savez_compressed(file, **(arrays or {}))
            print(f"{dataset}  {example.image_id}", flush=True)
        with np.load(path) as stored:
            if stored.files:
                rows.append({name: stored[name] for name in stored.files})
    return rows


def without_deep(arrays: Arrays, entries: Sequence[RivalEntry]) -> Arrays:
    """The same image with the entries alone that need no pretrained encoder."""
    stay = np.flatnonzero([entry.backbone != "deep" for entry in entries])
    voters = np.isin(arrays["entry"], stay)
    return {
        "labelled": arrays["labelled"][stay],
        "entry": np.searchsorted(stay, arrays["entry"][voters]),
        **{name: arrays[name][stay][:, voters] for name in ("nested", "flat")},
        **{name: arrays[name][voters] for name in ("iou", "patches", "deep")},
    }


def fit(rows: dict[str, list[Arrays]], entries: Sequence[RivalEntry], features: str) -> RankModel:
    """A model on all images of some datasets, which count alike."""
    means = np.array([np.mean([arrays["labelled"] for arrays in dataset], axis=0) for dataset in rows.values()])
    gaps = means - means.mean(axis=1, keepdims=True)
    kinds = [entry.kind for entry in entries]
    experience = {}
    for place, measure in enumerate(MEASURES):
        of_entries = gaps[:, :, place].mean(axis=0)
        experience[measure] = {kind: round(float(of_entries[[k == kind for k in kinds]].mean()), 4) for kind in dict.fromkeys(kinds)}
    spread = {measure: round(float(gaps[:, :, place].std(axis=1).mean()), 4) for place, measure in enumerate(MEASURES)}
    images = [(arrays, 1 / len(arrays["iou"]) / len(dataset)) for dataset in rows.values() for arrays in dataset]
    described, iou = (np.concatenate([arrays[name] for arrays, _ in images]) for name in (features, "iou"))
    model = RankModel.fit(described, iou, np.concatenate([np.full(len(arrays["iou"]), weight) for arrays, weight in images]))
    return replace(model, experience=experience, spread=spread)


def scores(model: RankModel, rows: Sequence[Arrays], entries: Sequence[RivalEntry], features: str) -> Arrays:
    """Measure → estimate of each image and entry, (images, E)."""
    kinds, methods = [entry.kind for entry in entries], [entry.method for entry in entries]
    every = [expected(measures(a["nested"], a["flat"]), model.chance(a[features]), a["entry"], methods) for a in rows]
    return {measure: model.combined(measure, kinds, np.array([values[measure] for values in every])) for measure in MEASURES}


def tau(first: np.ndarray, second: np.ndarray) -> float:
    return float(kendalltau(first, second).statistic)


def test(
    rows: dict[str, list[Arrays]], tested: dict[str, list[Arrays]], entries: Sequence[RivalEntry], features: str
) -> tuple[list[LeftOut], dict[str, float], dict[str, float]]:
    """(a row a dataset and measure, slope of each measure, its error): ``tested`` of a dataset ranked by a model fitted on ``rows`` of the others."""
    table: list[LeftOut] = []
    gaps: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {measure: [] for measure in MEASURES}
    for dataset, images in tested.items():
        model = fit({name: others for name, others in rows.items() if name != dataset}, entries, features)
        guesses = scores(model, images, entries, features)
        labelled = np.array([arrays["labelled"] for arrays in images])
        rng = np.random.default_rng(0)
        resamples = rng.integers(0, len(images), (REPLICATES, len(images)))
        halves = [rng.permutation(len(images)) for _ in range(REPLICATES)]
        for place, measure in enumerate(MEASURES):
            guess, truth = guesses[measure], labelled[:, :, place]
            mean, real = guess.mean(axis=0), truth.mean(axis=0)
            low, high = np.nanquantile([tau(guess[r].mean(0), truth[r].mean(0)) for r in resamples], (0.025, 0.975))
            middle = len(images) // 2
            half = np.nanmean([tau(truth[h[:middle]].mean(0), truth[h[middle:]].mean(0)) for h in halves])
            chosen, best = int(mean.argmax()), int(real.argmax())
            table.append(
                LeftOut(
                    dataset=dataset,
                    measure=measure,
                    images=len(images),
                    entries=len(entries),
                    tau=round(tau(mean, real), 3),
                    tau_low=round(float(low), 3),
                    tau_high=round(float(high), 3),
                    half_tau=round(float(half), 3),
                    regret=round(float(real[best] - real[chosen]), 4),
                    chosen=entries[chosen].name,
                    best=entries[best].name,
                )
            )
            gaps[measure].append((_gaps(guess, resamples), _gaps(truth, resamples)))
    slope, error = {}, {}
    for measure, pairs in gaps.items():
        x, y = (np.concatenate([pair[which][0] for pair in pairs]) for which in (0, 1))
        slope[measure] = round(float(x @ y / (x @ x)), 4)
        of_images = np.mean([np.var(real[1:] - slope[measure] * guessed[1:], axis=0).mean() for guessed, real in pairs])
        left = np.mean([np.mean((real[0] - slope[measure] * guessed[0]) ** 2) for guessed, real in pairs])
        error[measure] = round(float(np.sqrt(max(left - of_images, 0))), 4)
    return table, slope, error


def print_caution(
    model: RankModel, rows: dict[str, list[Arrays]], tested: dict[str, list[Arrays]], entries: Sequence[RivalEntry], features: str
) -> None:
    """Expected regret beside the regret by labels, and how often the labelled differences from the first entry lie in their intervals."""
    names, kinds, methods = ([getattr(entry, field) for entry in entries] for field in ("name", "kind", "method"))
    for place, measure in enumerate(MEASURES):
        regrets, inside = [], []
        for dataset, images in tested.items():
            others = fit({name: every for name, every in rows.items() if name != dataset}, entries, features)
            left = replace(others, slope=model.slope, error=model.error, left_out=model.left_out)
            table = [expected(measures(a["nested"], a["flat"]), left.chance(a[features]), a["entry"], methods)[measure] for a in images]
            ids = [f"{dataset}{number}" for number in range(len(images))]
            ranking = rank_entries(names, kinds, ids, np.array(table), left, measure)
            labelled = dict(zip(names, np.mean([a["labelled"][:, place] for a in images], axis=0), strict=True))
            first = labelled[ranking.entries[0].entry]
            regrets.append((ranking.regret, max(labelled.values()) - first))
            inside.append(all(row.behind_low <= first - labelled[row.entry] <= row.behind_high for row in ranking.entries[1:]))
        guessed, real = np.mean(regrets, axis=0)
        print(
            f"{measure}: expected regret {guessed:.3f}, by labels {real:.3f}; all differences in their intervals: {sum(inside)} of {len(inside)}"
        )


def _gaps(values: np.ndarray, resamples: np.ndarray) -> np.ndarray:
    """Mean of each entry less that of all, over the images and over each resample of them, (1 + REPLICATES, E)."""
    means = np.array([values.mean(axis=0), *(values[rows].mean(axis=0) for rows in resamples)])
    return means - means.mean(axis=1, keepdims=True)


def print_table(features: str, table: Sequence[LeftOut]) -> None:
    print(f"\nfeatures: {features}, {table[0]['entries']} entries")
    print("| dataset | images | measure | tau | 95 % interval | two halves | regret | chosen | best |")
    print("| --- | ---: | --- | ---: | --- | ---: | ---: | --- | --- |")
    for row in table:
        interval = f"{row['tau_low']:.2f} to {row['tau_high']:.2f}"
        print(
            f"| {row['dataset']} | {row['images']} | {row['measure']} | {row['tau']:.2f} | {interval} | {row['half_tau']:.2f} | "
            f"{row['regret']:.3f} | {row['chosen']} | {row['best']} |"
        )
    for measure in MEASURES:
        rows = [row for row in table if row["measure"] == measure]
        taus = np.array([row["tau"] for row in rows])
        error = taus.std(ddof=1) / np.sqrt(len(taus))
        print(f"{measure}: mean tau {taus.mean():.3f} (standard error {error:.3f}), two halves {np.mean([r['half_tau'] for r in rows]):.3f}, "
              f"mean regret {np.mean([r['regret'] for r in rows]):.4f}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    entries = read_entries(deep=True)
    tuning, held_out = ({name: collect(name, part, arguments.cache) for name, part in parts.items()} for parts in (TUNING, HELD_OUT))
    tuning = {name: images for name, images in tuning.items() if images}
    models = {}
    for features in FEATURES:
        if features == "deep":
            shown, reduced = entries, [tuning, held_out]
        else:
            shown = [entry for entry in entries if entry.backbone != "deep"]
            reduced = [{name: [without_deep(a, entries) for a in rows] for name, rows in part.items()} for part in (tuning, held_out)]
        rows, others = reduced
        print("\nOn the images of the fit:")
        print_table(features, test(rows, rows, shown, features)[0])
        print("\nOn images that chose nothing (Pascal-Part: on those of the fit):")
        tested = {name: others.get(name) or images for name, images in rows.items()}
        table, slope, error = test(rows, tested, shown, features)
        print_table(features, table)
        print("slope", slope, "error", error)
        model = replace(fit(rows, shown, features), slope=slope, error=error, left_out=table)
        print_caution(model, rows, tested, shown, features)
        models[features] = model.to_plain()
    if arguments.write:
        path = Path(rank_model.__file__).with_name(rank_model.FILE)
        path.write_text(yaml.safe_dump(models, sort_keys=False, width=150, default_flow_style=None), encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()

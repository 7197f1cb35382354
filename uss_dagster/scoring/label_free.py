"""A ranking of entries from scores that were estimated without labels, with what is known of their errors.

An estimated difference errs in two ways. The images are a sample: bootstrap replicates show by how much another sample would differ. And the
estimate is no label: on labelled datasets that were left out of the fit, the model was off by ``RankModel.error`` an entry. Both are in the
intervals of the differences from the first entry (Holm's procedure over all of these, ``scoring.intervals``), and in the expected regret: how
much better than the first entry the best one is on average, over draws of what the true scores may be. On the datasets left out both are
cautious: ``benchmarks/label_free.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from uss_dagster.metrics.base import poisson_weights
from uss_dagster.metrics.unlabelled.rank_model import RankModel
from uss_dagster.scoring.intervals import Pairs, half_widths

REPLICATES = 1000
FEWEST = 3
"""Entries without which there is nothing to compare."""


@dataclass(frozen=True)
class RankedEntry:
    """An entry in its place.

    Parameters
    ----------
    rank : int
    entry : str
    score : float
        Mean expected score over the images. It compares entries on the same images and nothing else.
    experience : float
        Labelled score of entries of its kind less that of the mean entry, on the datasets of the fit; 0 where there were none.
    behind : float
        How much better the first entry is expected to be in labelled scores.
    behind_low, behind_high : float
        95 % interval of it, all differences from the first entry together; NaN for the first entry and for one image.
    apart : bool
        The first entry is better beyond the interval.
    best_chance : float
        Chance that this entry is the best of all.
    """

    rank: int
    entry: str
    score: float
    experience: float
    behind: float
    behind_low: float
    behind_high: float
    apart: bool
    best_chance: float


@dataclass(frozen=True)
class LabelFreeRanking:
    """All entries, best first. regret: expected labelled score of the best entry less that of the first one."""

    entries: list[RankedEntry]
    regret: float

    @property
    def leaders(self) -> list[str]:
        """The first entry and those that cannot be told apart from it."""
        return [row.entry for row in self.entries if not row.apart]


def rank_entries(
    names: Sequence[str], kinds: Sequence[str], image_ids: Sequence[str], scores: np.ndarray, model: RankModel, measure: str
) -> LabelFreeRanking:
    """Rank entries.

    Parameters
    ----------
    names, kinds : sequence of str
        Of the entries; see ``rank_model.kind_of``.
    image_ids : sequence of str
    scores : ndarray
        (images, entries), expected scores.
    model : RankModel
        The model they come from.
    measure : str
        The measure they are of.
    """
    weights = np.array([poisson_weights(image_id, REPLICATES) for image_id in image_ids], float).T
    weights = weights[weights.sum(axis=1) > 0]
    slope, error = model.slope[measure], model.error[measure]
    combined = slope * model.combined(measure, kinds, scores)
    mean, samples = combined.mean(axis=0), (weights @ combined) / weights.sum(axis=1, keepdims=True)
    pairs = Pairs.of(mean, samples, np.full(len(names), len(image_ids)))
    experience = model.experience_of(measure, kinds)
    order = np.lexsort((np.array(names), -mean))
    first = int(order[0])
    (half,) = half_widths([_with_model_error(pairs, error, len(model.left_out), first)])
    draws = samples + np.random.default_rng(0).normal(0, error, samples.shape)
    best = np.bincount(draws.argmax(axis=1), minlength=len(names)) / len(draws)
    rows = []
    for rank, entry in enumerate(order.tolist(), start=1):
        behind, width = float(mean[first] - mean[entry]), float(half[first, entry]) if entry != first else np.nan
        rows.append(
            RankedEntry(
                rank=rank,
                entry=names[entry],
                score=float(scores[:, entry].mean()),
                experience=float(experience[entry]),
                behind=behind,
                behind_low=behind - width,
                behind_high=behind + width,
                apart=bool(behind > width),
                best_chance=float(best[entry]),
            )
        )
    return LabelFreeRanking(rows, float((draws.max(axis=1) - draws[:, first]).mean()))


def _with_model_error(pairs: Pairs, error: float, residuals: int, first: int) -> Pairs:
    """Pairs with the first entry alone, whose errors hold that of the model too, by Welch and Satterthwaite.

    residuals: how many it was estimated from.
    """
    of_images = np.nan_to_num(pairs.error) ** 2
    of_model = 2 * error**2 * (1 - np.eye(len(pairs.error)))
    total = of_images + of_model
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom = total**2 / (of_images**2 / np.maximum(pairs.images - 1, 1) + of_model**2 / max(residuals, 1))
    known = np.isfinite(pairs.error)
    known[np.delete(np.arange(len(known)), first)[:, None], np.delete(np.arange(len(known)), first)] = False
    return replace(pairs, error=np.where(known, np.sqrt(total), np.nan), freedom=np.where(known & np.isfinite(freedom), freedom, 0))

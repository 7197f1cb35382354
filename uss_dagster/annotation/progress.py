"""What the labels so far say: the ranking of the entries on the labelled images, how sure it is, and whether to go on.

Each entry is scored by NMCovering, the mean over instances of the greatest IoU of one of its regions, on the images that are done. Intervals of
differences are those of ``scoring.intervals``: all pairs are judged together. A person can stop when choosing the leader costs at most a
stated margin, whatever the true differences inside their intervals are.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from uss_dagster.annotation.document import Sheet
from uss_dagster.annotation.entries import Entries
from uss_dagster.metrics.base import Truth, poisson_weights
from uss_dagster.metrics.covering import measure
from uss_dagster.regions.coco import CocoFacts
from uss_dagster.regions.coded import CodedRegions
from uss_dagster.scoring.intervals import Pairs, half_widths
from uss_dagster.text import few

METRIC = "nm_covering_annotators"
MARGIN = 0.01
"""What choosing the leader may cost, in NMCovering, when a person stops."""
FEWEST = 5
"""Images before which nothing is said about stopping: their spread is not known well enough."""
REPLICATES = 500
State = Literal["leads", "behind", "open"]


@dataclass(frozen=True)
class Standing:
    """An entry in the ranking.

    Parameters
    ----------
    entry : str
        Its name.
    value : float
        NMCovering.
    difference : float
        From the leader, 0 or less.
    low, high : float
        The interval of the difference; NaN where there is none.
    state : str
        'leads'; 'behind', told apart from the leader; or 'open'.
    """

    entry: str
    value: float
    difference: float
    low: float
    high: float
    state: State


@dataclass(frozen=True)
class Ranking:
    """The ranking after some images.

    Parameters
    ----------
    images : int
        How many images are done and have a score.
    standings : tuple of Standing
        The best first; empty without a scored image.
    risk : float
        How much better than the leader another entry may still be; NaN where that is not known.
    stop : bool
        Whether labelling more would hardly change the choice.
    sentence : str
        The same in words.
    """

    images: int
    standings: tuple[Standing, ...]
    risk: float
    stop: bool
    sentence: str


def rank(
    scores: np.ndarray, weights: np.ndarray, ids: Sequence[str], names: Sequence[str], waiting: int, margin: float = MARGIN
) -> Ranking:
    """The ranking by the scores of some images.

    Parameters
    ----------
    scores : ndarray
        float64 (N, K), of each image and entry.
    weights : ndarray
        float64 (N,), for how many images each stands.
    ids : sequence of str
        The N images.
    names : sequence of str
        The K entries.
    waiting : int
        How many images are not labelled.
    margin : float
        What choosing the leader may cost.
    """
    if not len(scores):
        return Ranking(0, (), np.nan, False, "No image is done yet.")
    values = weights @ scores / weights.sum()
    draws = np.stack([poisson_weights(image_id, REPLICATES) for image_id in ids], axis=1) * weights
    with np.errstate(invalid="ignore"):
        samples = draws @ scores / draws.sum(axis=1, keepdims=True)
    effective = int(weights.sum() ** 2 / (weights**2).sum() + 1e-9)
    pairs = Pairs.of(values, samples, np.full(len(names), effective))
    half = half_widths([pairs])[0]
    order = np.argsort(-values, kind="stable")
    leader = int(order[0])
    standings = []
    for entry in order.tolist():
        difference, width = float(values[entry] - values[leader]), float(half[entry, leader])
        state: State = "leads" if entry == leader else "behind" if -difference > width else "open"
        low, high = np.clip([difference - width, difference + width], -values[leader], 1 - values[leader])  # values lie between 0 and 1
        standings.append(Standing(names[entry], float(values[entry]), difference, float(low), float(high), state))
    risk = max((standing.high for standing in standings[1:]), default=0.0) if effective > 1 else np.nan
    stop, sentence = _advice(standings, risk, len(scores), waiting, margin)
    return Ranking(len(scores), tuple(standings), float(risk), stop, sentence)


def _advice(standings: Sequence[Standing], risk: float, images: int, waiting: int, margin: float) -> tuple[bool, str]:
    """Whether to stop, and the sentence that says so."""
    leader = standings[0].entry
    rivals = [standing for standing in standings[1:] if standing.state == "open"]
    names = few([rival.entry for rival in rivals], 3)
    if len(standings) == 1:
        return False, f"There is one entry, {leader}; name several with --method to rank them."
    if images < FEWEST and waiting:
        return False, f"{leader} leads, but {images} {'image says' if images == 1 else 'images say'} little. Label at least {FEWEST}."
    if not rivals:
        return True, f"You can stop: {leader} is best."
    if risk <= margin:
        return True, f"You can stop: {leader} is best, or at most {max(risk, 0):.3f} below the best. It can't be told apart from {names}."
    could = f"{leader} leads, but {names} may still be up to {risk:.3f} better" if risk == risk else f"{leader} leads"
    if not waiting:
        return False, f"All images are done. {could} on other images like these."
    more = max(images * ((rival.high - rival.difference) / (margin - rival.difference)) ** 2 for rival in rivals) - images
    if not more <= waiting:
        left = "The one image that is left" if waiting == 1 else f"All {waiting} images that are left"
        return False, f"Go on: {could}. {left} may not settle it."
    return False, f"Go on: {could}. About {max(1, round(more))} more {'image' if round(more) <= 1 else 'images'} may settle it."


@dataclass
class Progress:
    """The scores of all entries on labelled images. Each is computed once for the same labels.

    Parameters
    ----------
    entries : Entries
        The entries.
    weights : callable
        Ids of labelled images → for how many images each stands.
    margin : float
        What choosing the leader may cost.
    """

    entries: Entries
    weights: Callable[[Sequence[str]], Mapping[str, float]]
    margin: float = MARGIN
    _scores: dict[tuple[str, tuple[bytes, ...]], np.ndarray | None] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def history(self, done: Sequence[tuple[str, Sheet, tuple[int, int]]], waiting: int) -> list[Ranking]:
        """The ranking after each image, the last one now.

        Parameters
        ----------
        done : sequence
            Id, sheet and (height, width) of each image, in the order in which they were done.
        waiting : int
            How many are not done.
        """
        names = self.entries.names
        rankings = [rank(np.zeros((0, len(names))), np.zeros(0), [], names, waiting, self.margin)]
        scores: dict[str, np.ndarray] = {}
        for number, (image_id, sheet, shape) in enumerate(done, start=1):
            with self._lock:
                of_image = self._of_image(image_id, sheet, shape)
            if of_image is None:
                continue
            scores[image_id] = of_image
            weight = self.weights([labelled for labelled, _, _ in done[:number]])
            weights = np.array([weight[labelled] for labelled in scores])
            left = waiting + len(done) - number
            rankings.append(rank(np.stack(list(scores.values())), weights, list(scores), names, left, self.margin))
        return rankings[1:] or rankings

    def _of_image(self, image_id: str, sheet: Sheet, shape: tuple[int, int]) -> np.ndarray | None:
        """The score of each entry on an image; None where it has no instance that counts."""
        key = image_id, tuple(instance.code for instance in sheet.instances)
        if key not in self._scores:
            self._scores[key] = self._measure(image_id, key[1], shape)
        return self._scores[key]

    def _measure(self, image_id: str, codes: Sequence[bytes], shape: tuple[int, int]) -> np.ndarray | None:
        if not codes:
            return None
        regions = CodedRegions(codes, shape)
        regions.coco = CocoFacts(np.full(len(codes), np.nan), np.ones(len(codes), np.int64), False)  # as `uss score` reads the file
        values = []
        for entry in self.entries.names:
            contribution = measure(Truth("annotators", regions), self.entries.regions(entry, image_id, shape))
            if contribution is None:
                return None
            values.append(float(contribution[METRIC]))
        return np.array(values)

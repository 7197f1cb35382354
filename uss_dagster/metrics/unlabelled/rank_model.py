"""The chance that a region is one that a person would annotate, and what that makes an entry's expected score.

The model is a logistic regression on the numbers of ``describe`` and their squares, fitted by scikit-learn on regions of labelled datasets:
is the IoU with some annotated region at least ``ANNOTATED``? Its weights, what it was fitted on, and how it ranked entries on datasets left
out of the fit are in ``rank_model.yaml``, written by ``benchmarks/label_free.py``.

Entries of one method vote together: the weight of each is divided by how many there are, since they find much the same regions.

What the pictures say is then joined with experience: how far above or below the others a method was, on these features, on the labelled
datasets. Each alone ranks about as well; together they rank better. Without experience the pictures decide.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from typing import TypedDict

import numpy as np

from uss_dagster.files import parse_yaml
from uss_dagster.metrics.unlabelled.describe import describe
from uss_dagster.metrics.unlabelled.picture import PictureGrid
from uss_dagster.metrics.unlabelled.votes import MEASURES, Candidates
from uss_dagster.regions import Regions

ANNOTATED = 0.6
FILE = "rank_model.yaml"
FEATURES = ("deep", "patches")
"""Models there are: one on the tokens of ``DEEP``, one on those of the backbone ``patches``, which needs no weights."""
DEEP = "dinov2_vits14_saliency"


class LeftOut(TypedDict):
    """How the model ranked entries on a dataset that it was not fitted on."""

    dataset: str
    measure: str
    images: int
    entries: int
    tau: float
    tau_low: float
    tau_high: float
    half_tau: float
    regret: float
    chosen: str
    best: str


@dataclass(frozen=True)
class RankModel:
    """A fitted model.

    Parameters
    ----------
    low, high : list of float
        Of each number: the range that 98 % of the regions of the fit lie in; beyond it a number counts as its end.
    centre, scale, weights : list of float
        Of each number and each square: what is taken off, what it is then divided by, and its weight.
    intercept : float
    spread : dict
        Measure → standard deviation of entries' labelled scores on a dataset.
    experience : dict
        Measure → kind of entry (``kind_of``) → its labelled score less that of the mean entry, the mean over datasets.
    slope : dict
        Measure → labelled score by ``combined`` estimate, of differences between entries.
    error : dict
        Measure → standard deviation of what is left of an entry's difference from the mean of its dataset, less what is due to few images.
    left_out : list of LeftOut
    """

    low: list[float]
    high: list[float]
    centre: list[float]
    scale: list[float]
    weights: list[float]
    intercept: float
    spread: dict[str, float] = field(default_factory=dict)
    experience: dict[str, dict[str, float]] = field(default_factory=dict)
    slope: dict[str, float] = field(default_factory=dict)
    error: dict[str, float] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)

    @classmethod
    def fit(cls, described: np.ndarray, iou: np.ndarray, weight: np.ndarray) -> RankModel:
        """A model without experience and errors.

        Parameters
        ----------
        described : ndarray
            (n, len(NAMES)), of regions of labelled pictures.
        iou : ndarray
            (n,), their best IoU with an annotated region.
        weight : ndarray
            (n,), how much each counts.
        """
        from sklearn.linear_model import LogisticRegression

        low, high = np.quantile(described, (0.01, 0.99), axis=0)
        columns = _with_squares(np.clip(described, low, high))
        centre, scale = columns.mean(axis=0), columns.std(axis=0) + 1e-9
        model = LogisticRegression(max_iter=500).fit((columns - centre) / scale, iou >= ANNOTATED, sample_weight=weight / weight.mean())
        return cls(
            _rounded(low), _rounded(high), _rounded(centre), _rounded(scale), _rounded(model.coef_[0]), _rounded(model.intercept_)[0]
        )

    def chance(self, described: np.ndarray) -> np.ndarray:
        """The chance of each region to be one that a person would annotate, float64 (n,)."""
        columns = (_with_squares(np.clip(described, self.low, self.high)) - self.centre) / self.scale
        return np.asarray(1 / (1 + np.exp(-np.clip(columns @ np.array(self.weights) + self.intercept, -30, 30))))

    def experience_of(self, measure: str, kinds: Sequence[str]) -> np.ndarray:
        """The experience with each kind of entry, float64 (E,); 0 without any."""
        return np.array([self.experience[measure].get(kind, 0.0) for kind in kinds])

    def combined(self, measure: str, kinds: Sequence[str], scores: np.ndarray) -> np.ndarray:
        """Expected scores of images joined with the experience of entries, (images, E); the mean over images is the estimate.

        Parameters
        ----------
        measure : str
        kinds : sequence of str
            Of the E entries.
        scores : ndarray
            (images, E), expected scores.
        """
        mean = scores.mean(axis=0)
        seen = (scores - mean.mean()) * (self.spread[measure] / max(float(mean.std()), 1e-9))
        return np.asarray(seen + self.experience_of(measure, kinds))

    def to_plain(self) -> dict[str, object]:
        """Plain values, for the file."""
        return asdict(self)


def kind_of(method: str, features: str) -> str:
    """What experience is shared by: a method on one kind of features ('deep', 'patches', or '' for none)."""
    return f"{method}/{features or 'pixels'}"


@functools.cache
def load_model(features: str) -> RankModel:
    """The fitted model of the package. features: one of ``FEATURES``."""
    models = parse_yaml(resources.files(__package__).joinpath(FILE).read_bytes())
    return RankModel(**models[features])


def expected(covered: Mapping[str, np.ndarray], chance: np.ndarray, entry: np.ndarray, methods: Sequence[str]) -> dict[str, np.ndarray]:
    """The expected score of each entry on a picture by each measure, float64 (E,).

    Parameters
    ----------
    covered : mapping
        Measure → (E, n), how well each entry covers each candidate.
    chance : ndarray
        (n,), of each candidate.
    entry : ndarray
        int (n,), the entry each comes from.
    methods : sequence of str
        The method of each entry.
    """
    alike = Counter(methods)
    weight = chance / np.array([alike[method] for method in methods], float)[entry]
    return {measure: values @ weight / weight.sum() for measure, values in covered.items()}


def expected_scores(
    image: np.ndarray, tokens: np.ndarray, families: Sequence[Regions], methods: Sequence[str], features: str
) -> dict[str, np.ndarray]:
    """The expected score of each entry on a picture by each of ``MEASURES``; NaN where no entry has a candidate.

    Parameters
    ----------
    image : ndarray
        uint8 (H, W, 3).
    tokens : ndarray
        (h, w, C), of the backbone that the model was fitted on.
    families : sequence of Regions
        Of each entry.
    methods : sequence of str
        Of each entry.
    features : str
        One of ``FEATURES``.
    """
    picture = PictureGrid.of(image, tokens)
    candidates = Candidates.of(families, picture.shape)
    if not len(candidates.masks):
        return {measure: np.full(len(families), np.nan) for measure in MEASURES}
    chance = load_model(features).chance(describe(picture, candidates.masks))
    return expected(candidates.covered(), chance, candidates.entry, methods)


def _rounded(numbers: np.ndarray) -> list[float]:
    """Six digits, so that a fit on another machine gives the same file."""
    return [float(f"{number:.6g}") for number in numbers]


def _with_squares(described: np.ndarray) -> np.ndarray:
    return np.concatenate([described, described**2], axis=1)

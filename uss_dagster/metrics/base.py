"""What every metric shares: per-image contributions that add up, so that any split of the images can be merged.

A metric is one module with ``SPEC`` (``metric_spec(__file__)`` reads it from ``<module>.yaml``) and two functions::

    measure(truth: Truth, prediction: Regions) -> Contribution | None    # None: the image has no score, it is counted as skipped
    reduce(total: Contribution) -> dict[str, float]                      # values, from contributions added over images

A contribution is a dict of float64 arrays (or scalars) that add. An image-level mean is the pair (value, count).
Because contributions add, a bootstrap over images is a weighted sum: ``Accumulator`` keeps R replicates whose weights
are Poisson(1) draws from the image's id, the same for every entry, so differences between entries are paired.

A family that must see all predictions before the first image is measured (to choose thresholds that images share) has
``prepare(predictions: Iterable[Regions]) -> state``, and its ``measure`` takes that state as a third argument. A family whose
contributions do not add (average precision needs every detection's score) has ``accumulator(replicates) -> Accumulator``.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from uss_dagster.errors import BadData
from uss_dagster.files import parse_yaml
from uss_dagster.regions import ClassTree, Regions
from uss_dagster.registry import build_params

Contribution = dict[str, np.ndarray]


@dataclass(frozen=True)
class Truth:
    """Ground truth of one image.

    Parameters
    ----------
    kind : str
        'classes', 'annotators' or 'instances', see ``DatasetSpec.truth``.
    regions : Regions
        The regions.
    classes : ClassTree, optional
        Labels are its nodes. Default: None, there are no classes.
    place : int
        Where metrics that rank regions of all images put this image among equal scores; then by image id. Default: 0.
    """

    kind: str
    regions: Regions
    classes: ClassTree | None = None
    place: int = 0

    def tree(self) -> ClassTree:
        """The class tree; refused where there is none."""
        if self.classes is None:
            raise BadData("Ground truth of kind 'classes' comes without its class tree; pass Truth(kind, regions, classes).")
        return self.classes

    def leaf_classes(self) -> np.ndarray:
        """Int32 (H, W): the class of the deepest ground-truth region at each pixel, -1 where there is none."""
        return deepest_value(self.regions, self.regions.label).astype(np.int32)[self.regions.atoms]


@dataclass(frozen=True)
class MetricSpec:
    """What a family computes.

    Parameters
    ----------
    name : str
        Of the family, that of its module.
    title : str
        Its name for people.
    truths : tuple of str
        Kinds of ground truth on which it can be computed.
    metrics : dict
        Name of each number → ``Metric``.
    paper : str
        The reference.
    needs_labels : bool
        It compares classes over the whole dataset, so predicted regions must carry dataset-wide labels. Default: False.
    needs_scores : bool
        It ranks predicted regions by their scores, so none may lack one. Default: False.
    as_given : dict
        Protocol → its name where every predicted region takes part as it is given. Default: empty, predictions are taken in one way.
    needs_segmentation : bool
        It is of the method's own segmentation, see ``MethodSpec.segmentation``. Default: False.
    on_request : bool
        ``uss score`` computes it only where it is named: it is slow, or fits few methods. Default: False.
    needs_prompts : bool
        It is of a model that can be asked; its contributions come from the stage ``prompted``. Default: False.
    """

    name: str
    title: str
    truths: tuple[str, ...]
    metrics: dict[str, Metric]
    paper: str
    needs_labels: bool = False
    needs_scores: bool = False
    as_given: dict[str, str] = field(default_factory=dict)
    needs_segmentation: bool = False
    on_request: bool = False
    needs_prompts: bool = False


@dataclass(frozen=True)
class Metric:
    """One number. Numbers that differ in protocol, scope or evaluation grid are never ranked together.

    Parameters
    ----------
    title : str
        Its name for people.
    protocol : str
        The convention by which it is computed.
    scope : str
        Within what predicted regions are matched to ground truth: one 'image' or the whole 'dataset'. Default: image.
    higher_is_better : bool
        Default: True.
    per_image : bool
        A single image's value is worth a row. Default: True.
    oracle : bool
        The ground truth picks the regions: an upper bound, never ranked against others. Default: False.
    detail : bool
        In the tables and files, but not on the first page. Default: False.
    """

    title: str
    protocol: str
    scope: Literal["image", "dataset"] = "image"
    higher_is_better: bool = True
    per_image: bool = True
    oracle: bool = False
    detail: bool = False


def metric_spec(module_file: str) -> MetricSpec:
    """The spec of a family, read from the YAML file beside its module that is named as it.

    Parameters
    ----------
    module_file : str
        ``__file__`` of the module.

    Raises
    ------
    UsageError
        A key or value of the file is wrong.
    """
    path = Path(module_file).with_suffix(".yaml")
    facts = parse_yaml(path.read_bytes())
    metrics = {name: build_params(Metric, values, f"{path.name}: metric '{name}'") for name, values in facts["metrics"].items()}
    return build_params(MetricSpec, {"name": path.stem} | facts | {"metrics": metrics}, path.name)


class Accumulator:
    """Adds a metric's contributions over images, with bootstrap replicates; ``update``, ``merge``, ``result``."""

    def __init__(
        self, measure: Callable[..., Contribution | None], reduce: Callable[[Contribution], dict[str, float]], replicates: int = 0
    ) -> None:
        self._measure, self._reduce, self.replicates = measure, reduce, replicates
        self.total: Contribution = {}
        self.resampled: Contribution = {}
        self.n = 0
        self.skipped: list[str] = []
        """Ids of the images without a score, in the order they came."""

    def update(self, image_id: str, truth: Truth, prediction: Regions) -> dict[str, float] | None:
        """Add one image; returns the image's own values, or None where it has none."""
        return self.add(image_id, self._measure(truth, prediction))

    def add(self, image_id: str, contribution: Contribution | None) -> dict[str, float] | None:
        """Add what one image contributes; returns the image's own values, or None where it has none."""
        if contribution is None:
            self.skipped.append(image_id)
            return None
        contribution = {k: np.asarray(v, np.float64) for k, v in contribution.items()}
        weights = poisson_weights(image_id, self.replicates)
        for key, value in contribution.items():
            self.total[key] = self.total.get(key, 0) + value
            if self.replicates:
                self.resampled[key] = self.resampled.get(key, 0) + np.multiply.outer(weights, value)
        self.n += 1
        return self._reduce(contribution)

    def merge(self, other: Accumulator) -> None:
        """Add another accumulator of the same metric."""
        for mine, theirs in ((self.total, other.total), (self.resampled, other.resampled)):
            for key, value in theirs.items():
                mine[key] = mine.get(key, 0) + value
        self.n += other.n
        self.skipped += other.skipped

    def arbitrary(self) -> list[str]:
        """Names of values that depend on something without meaning, such as the order of equal scores."""
        return []

    def notes(self) -> Iterator[str]:
        """Sentences on the predictions that people must know with the values."""
        yield from ()

    def result(self) -> dict[str, float]:
        """Values over all images so far; empty when none had a score."""
        return self._reduce(self.total) if self.n else {}

    def replicate_results(self) -> list[dict[str, float]]:
        """Values of each bootstrap replicate."""
        return [self._reduce({k: v[r] for k, v in self.resampled.items()}) for r in range(self.replicates)] if self.n else []


def poisson_weights(image_id: str, replicates: int) -> np.ndarray:
    """Poisson(1) weights of one image in each bootstrap replicate, int64 (replicates,), a function of its id alone."""
    if not replicates:
        return np.zeros(0, np.int64)
    seed = int.from_bytes(hashlib.sha256(image_id.encode()).digest()[:8], "little")
    return np.random.default_rng(seed).poisson(1.0, replicates)


def accumulator(family: Any, replicates: int = 0, state: Any = None, as_given: bool = False) -> Accumulator:
    """An empty accumulator of a metric family.

    Parameters
    ----------
    family : module
    replicates : int
        Bootstrap samples of the images. Default: 0.
    state : optional
        What the family's ``prepare`` returned, where it has one.
    as_given : bool
        By the protocols of ``MetricSpec.as_given``, for a family that has them. Default: False.
    """
    if hasattr(family, "accumulator"):
        return family.accumulator(replicates, as_given=True) if as_given and family.SPEC.as_given else family.accumulator(replicates)
    measure = functools.partial(family.measure, state=state) if hasattr(family, "prepare") else family.measure
    return Accumulator(measure, family.reduce, replicates)


def deepest_value(regions: Regions, values: np.ndarray, among: np.ndarray | None = None) -> np.ndarray:
    """The value of the last, so deepest, region that holds each atom.

    Parameters
    ----------
    regions : Regions
        K regions over A atoms.
    values : ndarray
        (K,), a value of each region.
    among : ndarray, optional
        Bool (K,), the regions that count. Default: all.

    Returns
    -------
    ndarray
        int64 (A,), -1 where no region holds the atom.
    """
    members = np.arange(len(regions)) if among is None else np.flatnonzero(among)
    return np.append(np.asarray(values)[members], -1)[regions.last_holder(members)].astype(np.int64)


def mean(values: np.ndarray) -> float:
    """A mean that is NaN, without a warning, where there are no values."""
    return float(values.mean()) if len(values) else float("nan")


def nan_ratio(numerator: Any, denominator: Any) -> float:
    """A ratio that is NaN, without a warning, where the denominator is 0."""
    return float(numerator) / float(denominator) if denominator else float("nan")

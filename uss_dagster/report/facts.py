"""What is known of entries, datasets and metrics: the facts that tables and pages print beside the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

from uss_dagster.metrics.base import Metric
from uss_dagster.report.published import PublishedRow


@dataclass(frozen=True)
class Parameter:
    """One parameter of an entry's method.

    Parameters
    ----------
    name : str
        Its name; parameters of a section are written ``section.name``.
    value, default : object
        What the entry uses, and what the method would use by itself.
    choices : sequence of object
        All values it can have; empty if there are too many to list.
    kind : str
        Its type in words, for example ``whole number``.
    """

    name: str
    value: object
    default: object
    choices: Sequence[object] = ()
    kind: str = ""


@dataclass(frozen=True)
class EntryFacts:
    """An entry of the leaderboard.

    Parameters
    ----------
    title : str
        What people call it; empty: its name.
    method : str
        Name of the plug-in.
    backbone, encoder : str or None
        Name of the backbone in the profile, and of its plug-in.
    params, encoder_params : mapping
        Parameters that differ from the defaults of the method and of the backbone.
    supervised : bool
        Whether it has seen ground truth.
    weights_labels : str
        What labels the weights of its backbone have seen, in words; '' for none.
    reimplementation : bool
        Whether the method was written anew from its publication.
    paper, licence, summary : str
        Of the method.
    versions : mapping of str to str
        Dataset to the content hash of the entry's segments on it.
    parameters : sequence of Parameter
        All parameters of the method.
    published : str
        The row of a paper's table that it repeats; see ``published.PublishedRow.key``.
    """

    title: str = ""
    method: str = ""
    backbone: str | None = None
    encoder: str | None = None
    params: Mapping[str, object] = field(default_factory=dict)
    encoder_params: Mapping[str, object] = field(default_factory=dict)
    supervised: bool = False
    weights_labels: str = ""
    reimplementation: bool = False
    paper: str = ""
    licence: str = ""
    summary: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    parameters: Sequence[Parameter] = ()
    published: str = ""


@dataclass(frozen=True)
class Check:
    """One check of a dataset's validation: what was checked, whether it passed, and a remark."""

    check: str
    success: bool
    message: str = ""


@dataclass(frozen=True)
class ClassFacts:
    """One class of a dataset's class tree.

    Parameters
    ----------
    name : str
        Its name.
    parent : int
        Number of the class above it, -1 for the root.
    kind : str
        See ``regions.classes.KIND_NAMES``.
    share : float
        Its part of all pixels of the dataset, with the classes below it.
    images : int
        Number of images that show it.
    """

    name: str
    parent: int
    kind: str
    share: float
    images: int


class EstimatedRow(TypedDict):
    """An entry in a ranking by scores that are estimated without labels, see ``scoring.label_free.RankedEntry``."""

    goal: str
    rank: int
    entry: str
    score: float
    experience: float
    behind: float
    behind_low: float | None
    behind_high: float | None
    apart: bool
    best_chance: float


@dataclass(frozen=True)
class DatasetFacts:
    """A dataset of the leaderboard.

    Parameters
    ----------
    title : str
        What people call it; empty: its name.
    kind : str
        Name of the adapter.
    class_set : str
        Name of its classes, where it is not that of the adapter.
    truth : str
        What its ground truth is: 'classes', 'annotators', 'instances' or 'none'.
    licence, citation, homepage : str
        Of the images and their ground truth.
    version : str
        Content hash.
    images, regions : int or None
        Number of images, and of regions of the ground truth; None where unknown.
    splits : mapping of str to int
        Images by split.
    checks : sequence of Check
        Its validation.
    classes : sequence of ClassFacts
        Its class tree, a parent before its children.
    published : sequence of PublishedRow
        Figures that papers report on it.
    estimates : sequence of EstimatedRow
        Its entries ranked by scores that are estimated without labels.
    """

    title: str = ""
    kind: str = ""
    class_set: str = ""
    truth: str = ""
    licence: str = ""
    citation: str = ""
    homepage: str | None = None
    version: str = ""
    images: int | None = None
    regions: int | None = None
    splits: Mapping[str, int] = field(default_factory=dict)
    checks: Sequence[Check] = ()
    classes: Sequence[ClassFacts] = ()
    published: Sequence[PublishedRow] = ()
    estimates: Sequence[EstimatedRow] = ()


@dataclass(frozen=True)
class MetricFacts(Metric):
    """A metric of the leaderboard. family: the plug-in that computes it."""

    family: str = ""


Entries = Mapping[str, EntryFacts]
Datasets = Mapping[str, DatasetFacts]
Metrics = Mapping[str, MetricFacts]


def title_of(facts: Entries | Datasets | Metrics, name: str) -> str:
    """What people call an entry, a dataset or a metric; its name where it has no title."""
    return (facts[name].title if name in facts else "") or name

"""What every method shares: its spec, the bounds of its parameters, and how it runs.

A method is one module with ``SPEC``, ``segment`` and, where it looks at the whole dataset, ``fit``::

    SPEC = MethodSpec(name="kmeans", title=…, params=Params, needs=("tokens",), paper=…, licence=…)
    def fit(samples: Samples, params: Params) -> State: …          # optional
    def segment(sample: Sample, params: Params, state: State | None) -> Regions: …

A state must pickle. A method that reads files of a person has ``for_dataset(params, dataset, root) -> params`` too, the parameters of the
cell of one dataset, which refuses files that are not there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Literal, ParamSpec, Protocol, TypeVar

import numpy as np

from uss_dagster.datasets.base import Sample
from uss_dagster.errors import BadData
from uss_dagster.registry import flat_params

A = ParamSpec("A")
R = TypeVar("R")
P = TypeVar("P")
Condition = bool | tuple[str, object]
"""Always, never, or where the parameter of this name has this value."""


@dataclass(frozen=True)
class MethodSpec:
    """What a method is.

    Parameters
    ----------
    name : str
        The module's name.
    title : str
        For people.
    params : type
        Its frozen parameter dataclass.
    paper : str
        The reference.
    licence : str
        Of this code, or of the files that it reads. Default: the project's.
    needs : tuple of str
        Facets that it reads; empty for a method that looks at pixels only.
    optional : tuple of str
        Facets that it reads where it has a backbone, and does without where it has none.
    facet_parameter : str
        Name of the parameter, dotted in a section, that names the facet to read in place of the first of ``needs``; '' for none.
    overlap : bool
        Regions without a common line of descent may share pixels.
    supervised : bool or (str, object)
        It sees ground truth; or it does where a parameter has a value.
    imported : bool
        It only reads results that were computed elsewhere, for images that are known there.
    reads : str
        Name of the parameter that may name a file or folder of masks made elsewhere, from the project folder or absolute; '' for none.
    labels : bool or (str, object)
        Labels of its regions mean the same over the whole dataset; or they do where a parameter has a value.
    segmentation : bool or (str, object)
        Its finest regions are one segmentation of the image, of as many segments as it chose; or they are where a parameter has a value.
    encodes : tuple of str
        Facets that it has the backbone compute for pieces of an image, with ``sample.encode``.
    model : {'', 'needed', 'taken'}
        Whether its parameter ``model`` names a trained student: always, or where another parameter asks for one. In a profile the name is
        one of the section 'students' or a folder, elsewhere a folder.
    promptable : bool
        The student that ``model`` names can also be asked for single objects, see the metric family ``prompts``.
    reimplementation : bool
        Written from a published description; numbers may differ from the authors'.
    summary : str
        One or two sentences.
    """

    name: str
    title: str
    params: type
    paper: str
    licence: str = "MIT (this project)"
    needs: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    facet_parameter: str = ""
    overlap: bool = False
    supervised: Condition = False
    imported: bool = False
    reads: str = ""
    labels: Condition = False
    segmentation: Condition = False
    encodes: tuple[str, ...] = ()
    model: Literal["", "needed", "taken"] = ""
    promptable: bool = False
    reimplementation: bool = True
    summary: str = ""

    @property
    def takes_backbone(self) -> bool:
        """Whether it can be given a backbone."""
        return bool(self.needs or self.optional or self.encodes)

    def holds(self, condition: Condition, params: object) -> bool:
        """Whether a condition, such as ``segmentation``, holds with these parameters."""
        if isinstance(condition, bool):
            return condition
        name, value = condition
        return bool(flat_params(params)[name] == value)

    def facets_read(self, params: object, encoded_apart: bool = False) -> tuple[str, ...]:
        """The facets that it reads of a backbone with these parameters, each once. encoded_apart: another backbone encodes pieces of images."""
        needs = self.needs
        if self.facet_parameter:
            needs = (str(flat_params(params)[self.facet_parameter]), *needs[1:])
        return tuple(dict.fromkeys((*needs, *self.optional, *(() if encoded_apart else self.encodes))))

    def facets_encoded(self, params: object) -> tuple[str, ...]:
        """The facets that it has pieces of images encoded to."""
        if not self.facet_parameter:
            return self.encodes
        return tuple(str(flat_params(params)[self.facet_parameter]) if facet == self.needs[0] else facet for facet in self.encodes)


def features_read(spec: MethodSpec) -> str:
    """The facets of a backbone that a method reads, in words."""
    needed = list(dict.fromkeys((*spec.needs, *spec.encodes)))
    optional = [f"{facet}, optional" for facet in spec.optional if facet not in needed]
    return ", ".join([*needed, *optional]) or "none"


class Samples(Protocol):
    """All images of a dataset. They may be iterated over more than once, one image in memory at a time."""

    @property
    def ids(self) -> list[str]:
        """The images, whether or not they can be read."""
        ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Sample]: ...


# -- parameters ---------------------------------------------------------------------------------------


def of_preset(preset: P, params: object) -> P:
    """A preset, a dataclass, with the values of those parameters of the same names that are not None."""
    values = {field.name: getattr(params, field.name) for field in fields(preset)}  # type: ignore[arg-type]
    return replace(preset, **{name: value for name, value in values.items() if value is not None})  # type: ignore[type-var]


# -- running ------------------------------------------------------------------------------------------


def one_thread(function: Callable[A, R]) -> Callable[A, R]:
    """The function with one BLAS thread, so that sums inside BLAS are added in one order and results are the same bytes."""

    @functools.wraps(function)
    def run(*args: A.args, **kwargs: A.kwargs) -> R:
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1):
            return function(*args, **kwargs)

    return run


def feature_grid(sample: Sample, facet: str) -> np.ndarray:
    """A facet of an image (h, w, C); one that is no grid of finite features is refused."""
    grid: np.ndarray = sample.features[facet]
    if not is_grid(grid):
        raise BadData(
            f"Image '{sample.image_id}': '{facet}' of shape {grid.shape} is no grid of finite features (h, w, C); extract it again."
        )
    return grid


def is_grid(features: np.ndarray) -> bool:
    """Whether features are (h, w, C), not empty and finite."""
    return features.ndim == 3 and 0 not in features.shape and bool(np.isfinite(features).all())

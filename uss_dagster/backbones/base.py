"""What every backbone shares: its spec, the facets it may write, and how a method reads them."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from uss_dagster import registry
from uss_dagster.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from scipy import sparse

FACETS = ("tokens", "keys", "queries", "values", "cls", "cls_attention", "attention")
"""tokens, keys, queries, values: (h, w, C). cls: (C,). cls_attention: (h, w), sums to 1. attention: (n, n) row-stochastic, n = h·w,
either dense or, for a local graph, as the pair of tensors ``attention.index`` (n, m) int32 and ``attention.weight`` (n, m)."""


@dataclass(frozen=True)
class BackboneSpec:
    """What a backbone is and which facets it can write.

    Parameters
    ----------
    name : str
        Name in profiles, that of its module.
    title : str
        Name in reports.
    params : type
        Dataclass of its parameters.
    facets : tuple of str
        Facets that it can write, of ``FACETS``.
    licence, paper : str
        Of the weights; what to cite.
    device : bool, default False
        It runs a network on a device: one process serves all images, in the Dagster pool ``gpu``. Otherwise images are spread over
        processes.
    comparable : bool, default False
        Tokens of different images lie in one space, so that regions can be grouped over a dataset by them.
    """

    name: str
    title: str
    params: type
    facets: tuple[str, ...]
    licence: str
    paper: str
    device: bool = False
    comparable: bool = False


def check_facets(spec: BackboneSpec, facets: Sequence[str]) -> frozenset[str]:
    """The requested facets as a set; none, or one that the backbone does not write, is refused."""
    if not facets:
        raise UsageError(f"backbone '{spec.name}': 'facets' is empty. Name at least one of {', '.join(spec.facets)}.")
    for facet in facets:
        if facet not in spec.facets:
            raise UsageError(f"backbone '{spec.name}' has no facet '{facet}'.{did_you_mean(facet, spec.facets)}")
    return frozenset(facets)


class Features:
    """Facets of one image, in float32. Indexing names a facet; a missing one is refused with what to change."""

    def __init__(self, tensors: Mapping[str, np.ndarray], backbone: str = "this backbone", comparable: bool = False) -> None:
        """comparable: see ``BackboneSpec``."""
        self._tensors = tensors
        self._backbone = backbone
        self.comparable = comparable

    def __contains__(self, facet: str) -> bool:
        return facet in self._tensors or f"{facet}.index" in self._tensors

    def __getitem__(self, facet: str) -> np.ndarray:
        """A facet as float32; a sparse ``attention`` comes as a dense (n, n) array, see ``sparse_attention``."""
        if facet == "attention" and "attention.index" in self._tensors:
            return self.sparse_attention().toarray()
        if facet not in self._tensors:
            have = sorted({name.partition(".")[0] for name in self._tensors})
            raise UsageError(
                f"{self._backbone} wrote no facet '{facet}' (it has: {', '.join(have)}). "
                f"Add '{facet}' to its 'facets' in the profile, or choose a backbone that has it."
            )
        return np.asarray(self._tensors[facet], np.float32)

    @property
    def has_dense_attention(self) -> bool:
        """Whether ``attention`` is stored as a whole matrix, not as the strongest weights of each row."""
        return "attention" in self._tensors

    def sparse_attention(self) -> sparse.csr_array:
        """Attention as a ``scipy.sparse.csr_array`` (n, n), rows summing to 1."""
        from scipy import sparse

        if "attention.index" not in self._tensors:
            return sparse.csr_array(self["attention"])
        index = np.asarray(self._tensors["attention.index"])
        weight = np.asarray(self._tensors["attention.weight"], np.float32)
        n, m = index.shape
        matrix = sparse.csr_array((weight.ravel(), (np.repeat(np.arange(n), m), index.ravel())), shape=(n, n))
        matrix.sum_duplicates()
        scale = np.asarray(matrix.sum(axis=1)).ravel()
        return (sparse.diags_array(1 / scale) @ matrix).tocsr()


@dataclass(frozen=True)
class Encoder:
    """A backbone as a function of images, for methods that also encode parts or modified copies of an image.

    It holds only names and values, so it pickles. Each process loads the backbone once, at its first use.

    Parameters
    ----------
    kind : str
        Name of the backbone.
    parameters : str, default "{}"
        Its parameters, as JSON with sorted keys.
    """

    kind: str
    parameters: str = "{}"

    @classmethod
    def of(cls, kind: str, parameters: Mapping[str, Any]) -> Encoder:
        """The encoder of a backbone with the parameters of its cell."""
        return cls(kind, json.dumps(dict(parameters), sort_keys=True))

    def __call__(self, images: list[np.ndarray]) -> list[Features]:
        """Features of uint8 (H, W, 3) RGB images of any sizes, in the order given, float32."""
        spec = registry.load("backbone", self.kind).SPEC
        return [Features(facets, f"backbone '{self.kind}'", spec.comparable) for facets in loaded(self.kind, self.parameters)(images)]


@functools.lru_cache(maxsize=2)
def loaded(kind: str, parameters: str) -> Callable[[list[np.ndarray]], list[dict[str, np.ndarray]]]:
    """A backbone ready to run, once a process: images → facets. parameters: JSON."""
    module = registry.load("backbone", kind)
    extract: Callable[[list[np.ndarray]], list[dict[str, np.ndarray]]] = module.load(
        registry.build_params(module.SPEC.params, json.loads(parameters), f"backbone '{kind}'")
    )
    return extract

"""What every method shares: its spec. A method is one module with ``SPEC``, ``segment`` and, where it looks at
the whole dataset, ``fit``::

    SPEC = MethodSpec(name="kmeans", title=…, params=Params, needs=("tokens",), paper=…, licence=…)
    def fit(samples: Iterable[Sample], params: Params) -> State: …          # optional
    def segment(sample: Sample, params: Params, state: State | None) -> Regions: …

``samples`` may be gone through as often as wanted, one image in memory at a time; ``len`` tells how many. A state must pickle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class MethodSpec:
    """What a method is. needs: facets it reads, empty for a method that looks at pixels only.

    overlap: regions without a common line of descent may share pixels. supervised: it sees ground truth.
    imported: it only reads what was made elsewhere, for images that are known there. labels: its regions carry labels that mean the
    same over the whole dataset. encodes: facets that it has the backbone compute for pieces of an image, with ``sample.encode``.
    model: its parameter ``model`` names a trained student, in a profile one of the section 'students' or a folder, elsewhere a folder:
    'needed', or 'taken' where some other parameter asks for it.
    reimplementation: written from a published description, so numbers may differ from the authors'.
    """

    name: str
    title: str
    params: type
    paper: str
    licence: str
    needs: tuple[str, ...] = ()
    overlap: bool = False
    supervised: bool = False
    imported: bool = False
    labels: bool = False
    encodes: tuple[str, ...] = ()
    model: Literal["", "needed", "taken"] = ""
    reimplementation: bool = True
    summary: str = ""

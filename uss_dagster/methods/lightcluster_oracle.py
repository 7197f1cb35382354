"""LightCluster with categories from image labels: a diagnosis, not an unsupervised method.

How much of its score would come from knowing what each image is about. "Superclass" in a caption of the paper may mean this or a clustering;
see ``lightcluster``. Everything else is the same, and the entry is marked as one that sees ground truth.
"""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from uss_dagster.datasets.base import Sample
from uss_dagster.errors import BadData, Unavailable, UsageError
from uss_dagster.methods import lightcluster
from uss_dagster.methods._points import Samples
from uss_dagster.methods.base import MethodSpec
from uss_dagster.regions import Regions


@dataclass(frozen=True)
class Params(lightcluster.Params):
    """image_labels: a CSV file with the columns ``image_id`` and ``category``, one row an image; relative to the project. sha256: of that
    file; the pipeline does not watch it, this pins it. All others: see ``lightcluster.Params``."""

    category_source: Literal["cls_kmeans", "oracle"] = "oracle"
    image_labels: str = ""
    sha256: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.category_source != "oracle":
            raise UsageError(
                f"lightcluster_oracle: category_source is '{self.category_source}', expected 'oracle'. Without labels use 'lightcluster'."
            )


SPEC = MethodSpec(
    name="lightcluster_oracle",
    title="LightCluster, categories from labels",
    params=Params,
    needs=lightcluster.SPEC.needs,
    encodes=lightcluster.SPEC.encodes,
    labels=True,
    supervised=True,
    paper=lightcluster.SPEC.paper,
    licence=lightcluster.SPEC.licence,
    summary="LightCluster, but images are grouped by their ground-truth category: shows what that knowledge is worth.",
)


def fit(samples: Samples, params: Params) -> lightcluster.State:
    """As ``lightcluster.fit``, with the categories of the file."""
    if not params.image_labels:
        raise UsageError(
            "lightcluster_oracle: image_labels is empty, expected a CSV file of image_id and category. Without labels use 'lightcluster'."
        )
    return lightcluster.fit_state(samples, params, read_categories(Path(params.image_labels), params.sha256))


def segment(sample: Sample, params: Params, state: lightcluster.State) -> Regions:
    """As ``lightcluster.segment``."""
    return lightcluster.segment(sample, params, state)


def read_categories(path: Path, sha256: str | None = None) -> dict[str, str]:
    """Category of each image id."""
    if not path.is_file():
        raise Unavailable(f"There is no file of image labels {path}. Write a CSV with the columns image_id and category, one row an image.")
    data = path.read_bytes()
    if sha256 is not None and (found := hashlib.sha256(data).hexdigest()) != sha256.lower():
        raise BadData(f"{path} has the sha256 {found}, but the entry pins {sha256}; restore the file, or correct 'sha256'.")
    rows = list(csv.DictReader(data.decode("utf-8").splitlines()))
    if not rows or not {"image_id", "category"} <= set(rows[0]):
        raise BadData(f"{path} has the columns {list(rows[0]) if rows else []}, expected image_id and category and one row an image.")
    return {row["image_id"]: row["category"] for row in rows}

"""LightCluster with categories from image labels: a diagnosis, not an unsupervised method.

It shows how much of LightCluster's score would come from knowing the category of each image. "Superclass" in a caption of the paper may mean
this or a clustering. Everything else is as in ``lightcluster``, and the entry is marked as one that sees ground truth.
"""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path

from uss_dagster.bounds import wrong_value
from uss_dagster.errors import BadData, Unavailable, UsageError
from uss_dagster.methods import lightcluster
from uss_dagster.methods._lightcluster_params import Categories
from uss_dagster.methods.base import Samples


@dataclass(frozen=True)
class Params(lightcluster.Params):
    """Those of ``lightcluster.Params``, with ``categories.source`` 'oracle', and two more.

    Parameters
    ----------
    image_labels : str
        A CSV file with the columns ``image_id`` and ``category``, one row an image; relative to the project. Required.
    sha256 : str or None
        Of that file. The pipeline does not watch the file; this pins it. Default None, not checked.
    """

    categories: Categories = field(default_factory=lambda: Categories(source="oracle"))
    image_labels: str = ""
    sha256: str | None = None

    def __post_init__(self) -> None:
        if self.categories.source != "oracle":
            raise wrong_value("categories.source", f"'{self.categories.source}'", "'oracle'; without labels use the method 'lightcluster'")


SPEC = replace(
    lightcluster.SPEC,
    name="lightcluster_oracle",
    title="LightCluster, categories from labels",
    params=Params,
    supervised=True,
    summary="LightCluster, but images are grouped by their ground-truth category: shows what that knowledge is worth.",
)


def fit(samples: Samples, params: Params) -> lightcluster.State:
    """As ``lightcluster.fit``, with the categories of the file."""
    if not params.image_labels:
        raise UsageError(
            "lightcluster_oracle: image_labels is empty, expected a CSV file of image_id and category. Without labels use 'lightcluster'."
        )
    return lightcluster.fit_state(samples, params, read_categories(Path(params.image_labels), params.sha256))


segment = lightcluster.segment


def read_categories(path: Path, sha256: str | None = None) -> dict[str, str]:
    """Category of each image id."""
    if not path.is_file():
        raise Unavailable(f"There is no file of image labels {path}. Write a CSV with the columns image_id and category, one row an image.")
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if sha256 is not None and digest != sha256.lower():
        raise BadData(f"{path} has the sha256 {digest}, but the entry pins {sha256}; restore the file, or correct 'sha256'.")
    rows = list(csv.DictReader(data.decode("utf-8").splitlines()))
    if not rows or not {"image_id", "category"} <= set(rows[0]):
        raise BadData(f"{path} has the columns {list(rows[0]) if rows else []}, expected image_id and category and one row an image.")
    return {row["image_id"]: row["category"] for row in rows}

"""``uss.score``: masks against ground truth, in memory or in files."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uss_dagster.api.pictures import WITHOUT_A_NAME
from uss_dagster.api.regions import regions
from uss_dagster.artifacts.mask_base import Masks, Shape
from uss_dagster.artifacts.mask_readers import open_masks
from uss_dagster.errors import UsageError
from uss_dagster.regions import Regions
from uss_dagster.scoring.ground_truth import KINDS, GroundTruth, read_truth
from uss_dagster.scoring.masks import TABLE, check_request, choose_families, score_masks

if TYPE_CHECKING:
    import pandas as pd


class MasksInMemory(Masks):
    """Regions of pictures by name.

    Parameters
    ----------
    name : str
        What errors call them.
    regions_of : mapping of str to Regions
    """

    def __init__(self, name: str, regions_of: Mapping[str, Regions]) -> None:
        self._regions = dict(regions_of)
        labelled = any(bool((family.label >= 0).any()) for family in self._regions.values())
        super().__init__(Path(name), self._regions, labelled=labelled)

    def regions(self, image_id: str, shape: Shape | None = None) -> Regions:
        return self._regions[image_id]


def score(
    pred: Any,
    truth: Any,
    metrics: str | Sequence[str] = (),
    *,
    kind: str | None = None,
    classes: str | os.PathLike[str] | None = None,
    grids: Sequence[str] = ("full",),
    bootstrap: int = 200,
    only_predicted: bool = False,
) -> pd.DataFrame:
    """Score masks against ground truth: the numbers of ``uss score``.

    Parameters
    ----------
    pred, truth : path, Regions, array, or mapping of str to these
        The predicted masks and what they are compared with: of one picture, or by the name of each. A path is what ``uss score`` reads: a table
        of regions, COCO json, a folder of label PNGs. All else is what ``uss.regions`` takes.
    metrics : str or sequence of str, default ()
        Metric families, such as "covering" or ["covering", "proposals"]. Default: those that fit most masks.
    kind : {"classes", "annotators", "instances"}, optional
        What the ground truth is. Default: what its file says; in memory "annotators", a segmentation of the whole picture without classes, or several
        (told apart by ``source``). Classes come from files, with their class tree.
    classes : path, optional
        The class tree of a file, ``classes.json``.
    grids : sequence of str, default ("full",)
        Where pixels are compared: "full", or "HxW" in cells, such as "60x60".
    bootstrap : int, default 200
        Replicates for the 95 % intervals over pictures; 0 for none.
    only_predicted : bool, default False
        Leave out pictures without a prediction. Otherwise one counts as predicting nothing.

    Returns
    -------
    pandas.DataFrame
        A row for each number and grid: ``metric``, ``protocol``, ``scope``, ``grid``, ``value``, ``low``, ``high`` (the interval; NaN for one
        picture) and ``images``. ``attrs["notes"]`` holds sentences on what was compared, ``attrs["skipped"]`` the pictures that a family
        could not score.

    Raises
    ------
    UsageError
        A metric does not fit, or what the ground truth is cannot be told.
    BadData
        Masks are damaged, or the two have no picture in common.

    Warns
    -----
    UserWarning
        Something was left out, or is probably meant otherwise.

    Examples
    --------
    >>> import numpy as np
    >>> import uss_dagster as uss
    >>> labels = np.repeat([[0, 1, 2, 2]], 4, axis=0)
    >>> table = uss.score(labels, labels, "panoptic", kind="instances").set_index("metric")
    >>> float(table.value["pq"])
    1.0
    """
    import pandas as pd

    names = [metrics] if isinstance(metrics, str) else list(metrics)
    check_request(list(grids), bootstrap, None)
    ground_truth = _truth_of(truth, kind, Path(classes) if classes is not None else None)
    prediction = open_masks(Path(pred)) if isinstance(pred, str | os.PathLike) else _in_memory("the prediction", pred, ground_truth.masks)
    result = score_masks(
        prediction,
        ground_truth,
        choose_families([part.strip() for name in names for part in name.split(",")], ground_truth, prediction),
        list(grids),
        bootstrap,
        lambda line: warnings.warn(line, stacklevel=3),
        as_given=True,
        only_predicted=only_predicted,
    )
    table = pd.DataFrame(result.rows, columns=TABLE.names)
    table.attrs.update(notes=result.notes, skipped=result.skipped)
    return table


def _truth_of(truth: Any, kind: str | None, classes: Path | None) -> GroundTruth:
    if isinstance(truth, str | os.PathLike):
        return read_truth(Path(truth), kind, classes)
    if kind not in (None, *KINDS[1:]) or classes is not None:
        raise UsageError(f"Ground truth in memory is of kind {' or '.join(KINDS[1:])}; classes come from files, with their class tree.")
    return GroundTruth(kind or "annotators", _in_memory("the ground truth", truth))


def _in_memory(what: str, masks: Any, partner: Masks | None = None) -> Masks:
    """Masks by the names of their pictures; those of one picture take the name of a partner's only one."""
    if isinstance(masks, Mapping):
        return MasksInMemory(what, {str(name): regions(family) for name, family in masks.items()})
    name = partner.ids[0] if partner is not None and len(partner.ids) == 1 else getattr(masks, "name", WITHOUT_A_NAME)
    return MasksInMemory(what, {name: regions(masks)})

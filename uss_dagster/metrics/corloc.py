"""CorLoc: in how many images the one box of a method is that of an object.

The box is that of the region taken for the object, see ``saliency.object_region``; it is right if its IoU with the box of any ground-truth object is above
1/2. Objects are, of ground truth of kind 'instances', all but crowds; of kind 'classes', the regions that ``proposals`` looks for, so all pixels of a
class together where the dataset knows no objects. An image without an object has no score, and one without a region is wrong.

Reference: Deselaers, Alexe & Ferrari, "Localizing objects while learning their appearance", ECCV 2010; Siméoni et al., "LOST", BMVC 2021.
"""

from __future__ import annotations

import numpy as np

from uss_dagster.metrics.base import Contribution, Truth, metric_spec, nan_ratio
from uss_dagster.metrics.proposals import ground_truth
from uss_dagster.metrics.saliency import object_region
from uss_dagster.regions import Regions

SPEC = metric_spec(__file__)


def measure(truth: Truth, prediction: Regions) -> Contribution | None:
    """1 where the box is right, and 1 for the image; None without an object."""
    targets, _, crowd = ground_truth(truth)
    boxes = truth.regions.boxes[targets[~crowd]]
    if not len(boxes):
        return None
    region = object_region(prediction)
    right = region >= 0 and bool((2 * overlap(boxes, prediction.boxes[region]) > union(boxes, prediction.boxes[region])).any())
    return {"right": np.array(float(right)), "images": np.array(1.0)}


def overlap(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Pixels that COCO boxes (x, y, width, height), int (n, 4), share with one, int (4,); int (n,)."""
    low = np.maximum(boxes[:, :2], box[:2])
    high = np.minimum(boxes[:, :2] + boxes[:, 2:], box[:2] + box[2:])
    return np.prod(np.maximum(high - low, 0), axis=1)


def union(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Pixels of either, as ``overlap``."""
    return np.prod(boxes[:, 2:], axis=1) + np.prod(box[2:]) - overlap(boxes, box)


def reduce(total: Contribution) -> dict[str, float]:
    """The share of images."""
    return {"corloc": nan_ratio(total["right"], total["images"])} if total["images"] else {}

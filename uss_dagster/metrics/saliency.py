"""Saliency: how well a method tells what stands out from what is around it.

The saliency of a pixel is the greatest score, cut to 0..1, of the regions that hold it; roots take no part. Where all regions have one score, as those
of a method that ranks none, the object alone has it: the region with the smallest share of the image's border, see ``object_region``. Ground truth is all
foreground: classes that are no background, or all objects. Pixels of ignored classes, of no class, and of crowds are left out. An image without
foreground has no score.

- ``max_f``: precision and recall of the pixels whose saliency is at least k / 255, averaged over images for each k = 1..255, then the greatest
  F = (1 + β²) P R / (β² P + R) with β² = 0.3. Where no pixel is salient, precision is 0.
- ``saliency_iou``, ``saliency_accuracy``: IoU with the pixels whose saliency exceeds 1/2, and the share of pixels that both say alike, averaged over
  images.

References: Achanta, Hemami, Estrada & Süsstrunk, "Frequency-tuned salient region detection", CVPR 2009 (F with β² = 0.3); Borji, Cheng, Jiang & Li,
"Salient object detection: a benchmark", TIP 2015 (the greatest F over thresholds); Wang et al., "TokenCut", CVPR 2022 (the three numbers).
"""

from __future__ import annotations

import numpy as np

from uss_dagster.metrics.base import Contribution, Truth, deepest_value, metric_spec
from uss_dagster.regions import Regions
from uss_dagster.regions.classes import BACKGROUND, FOREGROUND
from uss_dagster.regions.regions import joint_histogram

SPEC = metric_spec(__file__)
THRESHOLDS = np.arange(1, 256) / 255
BETA2 = 0.3


def object_region(prediction: Regions) -> int:
    """The region taken for the object: of greatest score, of equals that which holds least of the image's border, then the first; -1 for none.

    A background holds most of the border. Roots take no part.
    """
    members = np.flatnonzero(~prediction.is_root)
    if not len(members):
        return -1
    atoms = prediction.atoms
    border = np.bincount(np.concatenate([atoms[0], atoms[-1], atoms[:, 0], atoms[:, -1]]), minlength=prediction.members.shape[1])
    held = prediction.members[members] @ border
    return int(members[np.lexsort((members, held, -prediction.score[members]))[0]])


def saliency(prediction: Regions) -> np.ndarray:
    """Float64 (A,) of the atoms of a prediction."""
    members = np.flatnonzero(~prediction.is_root)
    if len(np.unique(prediction.score[members])) <= 1:
        members = members[members == object_region(prediction)]
    score = np.clip(prediction.score[members].astype(np.float64), 0, 1)
    return np.max(prediction.members[members] * score[:, None], axis=0, initial=0.0)


def foreground(truth: Truth) -> np.ndarray:
    """Of each atom of a ground truth: 1 foreground, 0 background, -1 not counted; int (A,)."""
    if truth.kind == "instances":
        crowd = np.array([source == "crowd" for source in truth.regions.source], bool)
        objects = truth.regions.members[~crowd].any(axis=0)
        return np.where(objects, 1, np.where(truth.regions.members[crowd].any(axis=0), -1, 0))
    kind = np.append(truth.tree().kind, -1)[deepest_value(truth.regions, truth.regions.label)]
    return np.select([kind == FOREGROUND, kind == BACKGROUND], [1, 0], -1)


def measure(truth: Truth, prediction: Regions) -> Contribution | None:
    """Sums over images of precision and recall, float64 (255,) each, of IoU and accuracy, and their number; None without foreground."""
    side, level = foreground(truth), saliency(prediction)
    joint = joint_histogram(truth.regions, prediction)
    inside, outside = joint[side == 1].sum(axis=0), joint[side == 0].sum(axis=0)
    total = inside.sum()
    if not total:
        return None
    salient = level >= THRESHOLDS[:, None]
    true, false = salient @ inside, salient @ outside
    half = level > 0.5
    hit, wrong = inside[half].sum(), outside[half].sum()
    return {
        "precision": true / np.maximum(true + false, 1),
        "recall": true / total,
        "iou": hit / (total + wrong),
        "accuracy": (hit + outside.sum() - wrong) / (total + outside.sum()),
        "images": np.array(1.0),
    }


def reduce(total: Contribution) -> dict[str, float]:
    """max_f, and the means of IoU and accuracy."""
    images = total["images"]
    if not images:
        return {}
    precision, recall = total["precision"] / images, total["recall"] / images
    bottom = BETA2 * precision + recall
    f = np.divide((1 + BETA2) * precision * recall, bottom, out=np.zeros_like(bottom), where=bottom > 0)
    return {
        "max_f": float(f.max()),
        "saliency_iou": float(total["iou"] / images),
        "saliency_accuracy": float(total["accuracy"] / images),
    }

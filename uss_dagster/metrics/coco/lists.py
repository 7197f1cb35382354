"""AR and AP of COCO's lists of annotations and results, as COCOeval takes them.

COCOeval's summary takes AP always at 100 proposals an image, and gives -1 where 100 is not among its ``maxDets``. Here AP is taken at the last
of ``max_dets``; ``ap_max_dets=100`` gives the number that COCOeval prints. Two more habits of COCOeval are left out: it counts a match
with a ground truth whose id is 0 as none, and drops detections of categories that no ground truth has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from uss_dagster.errors import BadData, UsageError
from uss_dagster.metrics.coco.matches import MAX_DETS, SIZES, Matches, match_codes, summaries
from uss_dagster.regions.coco import CocoAnnotation, CocoDataset, code_of

ImageId = int | str


def proposal_ar_ap(
    gt: Sequence[CocoAnnotation] | CocoDataset,
    dt: Sequence[CocoAnnotation],
    max_dets: int | Sequence[int] = MAX_DETS,
    *,
    ap_max_dets: int | None = None,
    sizes: Mapping[ImageId, tuple[int, int]] | None = None,
) -> dict[str, float]:
    """AR and AP of COCO results.

    Parameters
    ----------
    gt : sequence of dict, or dict
        COCO annotations (image_id, segmentation, and where they have them area, iscrowd, category_id), or the whole dataset with its
        'images' and 'annotations'.
    dt : sequence of dict
        COCO results (image_id, segmentation, score). Their areas are those of their masks, as in COCOeval when results carry no box.
    max_dets : int or sequence of int
        The k of AR@k; sizes and AP are taken at the greatest. One number also means what is below it of 1, 10, 100, 1000.
        Default: 1, 10, 100, 1000.
    ap_max_dets : int, optional
        Take 'ap' at so many proposals an image instead; 100 is what COCOeval prints whatever its maxDets. -1 where it is not in
        ``max_dets``. Default: the greatest of ``max_dets``.
    sizes : mapping, optional
        Image id → (height, width), which polygons need. Default: from the dataset's 'images'.

    Returns
    -------
    dict
        ar1, ar10, ar100, ar1000, ar_small, ar_medium, ar_large, ap, ap50, ap75, ap_small, ap_medium, ap_large; -1 for a value without
        ground truth, as in COCOeval.

    Examples
    --------
    >>> square = {"image_id": 1, "segmentation": {"size": [2, 2], "counts": [0, 2, 2]}}
    >>> proposal_ar_ap([square], [square | {"score": 0.9}])["ar1000"]
    1.0
    """
    if isinstance(max_dets, int):
        max_dets = [k for k in MAX_DETS if k < max_dets] + [max_dets]
    max_dets = sorted(max_dets)
    if not max_dets or max_dets[0] < 1:
        raise UsageError(f"max_dets is {list(max_dets)}; give numbers of proposals of 1 or more.")
    sizes = dict(sizes or {})
    truths, results = _by_image(gt["annotations"] if isinstance(gt, Mapping) else gt), _by_image(dt)
    if isinstance(gt, Mapping):
        listed: dict[ImageId, tuple[int, int]] = {image["id"]: (int(image["height"]), int(image["width"])) for image in gt["images"]}
        sizes |= listed
        strangers = results.keys() - listed.keys()
        if strangers:
            raise BadData(f"Results of {len(strangers)} images that the ground truth does not list, such as '{sorted(strangers)[0]}'.")
    ids = sorted(truths.keys() | results.keys())  # type: ignore[type-var]  # numbers or names, not both
    images = [_match(i, truths.get(i, []), results.get(i, []), sizes.get(i), max_dets[-1]) for i in ids]
    once = np.ones((1, len(images)), np.int64)
    values = next(summaries(images, once, max_dets))
    if ap_max_dets is not None:
        fewer = next(summaries([image.best(ap_max_dets) for image in images], once, max_dets))
        values["ap"] = fewer.get("ap", -1.0) if ap_max_dets in max_dets else -1.0
    names = [*(f"ar{k}" for k in max_dets), *(f"ar_{size}" for size in SIZES[1:])]
    names += ["ap", "ap50", "ap75", *(f"ap_{size}" for size in SIZES[1:])]
    return {name: values.get(name, -1.0) for name in names}


def _by_image(annotations: Iterable[CocoAnnotation]) -> dict[ImageId, list[CocoAnnotation]]:
    """Annotations of each image by category, then in the order given."""
    images: dict[ImageId, list[CocoAnnotation]] = {}
    for annotation in annotations:
        images.setdefault(annotation["image_id"], []).append(annotation)
    for group in images.values():
        group.sort(key=lambda a: a.get("category_id", 0))
    return images


def _match(
    image_id: ImageId, truths: list[CocoAnnotation], results: list[CocoAnnotation], size: tuple[int, int] | None, at_most: int
) -> Matches:
    for annotation in (*truths, *results):
        segmentation = annotation.get("segmentation")
        if size is None and isinstance(segmentation, Mapping):
            size = int(segmentation["size"][0]), int(segmentation["size"][1])
    return match_codes(
        size or (1, 1),
        _codes(image_id, truths, size, "ground truth"),
        _codes(image_id, results, size, "result"),
        [_need(result, "score", image_id) for result in results],
        truth_area=[truth.get("area", -1.0) for truth in truths],
        crowd=[bool(truth.get("iscrowd", 0)) for truth in truths],
        at_most=at_most,
        image_id=image_id,
    )


def _codes(image_id: ImageId, annotations: list[CocoAnnotation], size: tuple[int, int] | None, what: str) -> list[bytes]:
    """The compressed run-length code of each annotation; all must be of one size."""
    codes = []
    for number, annotation in enumerate(annotations):
        segmentation = _need(annotation, "segmentation", image_id)
        if size is None:
            raise BadData(f"Image '{image_id}' has polygons, whose image size is not known; pass the dataset with its 'images', or sizes=.")
        codes.append(code_of(segmentation, *size, f"Image '{image_id}', {what} {number}"))
    return codes


def _need(annotation: CocoAnnotation, key: Literal["segmentation", "score"], image_id: ImageId) -> Any:
    if key not in annotation:
        raise BadData(f"Image '{image_id}' has an annotation without '{key}'; ground truth needs a segmentation, results also a score.")
    return annotation[key]

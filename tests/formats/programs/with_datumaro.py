"""Open a folder with datumaro: FORMAT FOLDER OUT [AGAIN] → masks and attributes of each image, and its own export to OUT/again."""

import json
import sys
from pathlib import Path

import numpy as np

kind, folder, out, *again = sys.argv[1:]
try:
    import datumaro
    from datumaro.components.annotation import AnnotationType, Polygon
    from pycocotools import mask as coco
except ImportError as error:
    sys.exit(print(error, file=sys.stderr) or 3)


def mask_of(annotation, size):
    if isinstance(annotation, Polygon):
        return coco.decode(coco.merge(coco.frPyObjects([annotation.points], *size)))
    return np.asarray(annotation.image)


dataset = datumaro.Dataset.import_from(folder, kind)
answer = {}
labels = [label.name for label in dataset.categories().get(AnnotationType.label, ())]
for item in dataset:
    name = Path(item.id).name
    if not item.annotations:
        continue
    size = item.media.size if item.media else None
    shapes = sorted((a for a in item.annotations if a.type in (AnnotationType.mask, AnnotationType.polygon)), key=lambda a: a.id)
    masks = [mask_of(a, size) for a in shapes]
    if masks:
        np.save(Path(out) / f"{name}.npy", np.stack(masks).astype(np.uint8))
    answer[name] = {
        "subset": item.subset,
        "labels": [labels[a.label] for a in shapes if labels],
        "attributes": [{k: v for k, v in a.attributes.items() if isinstance(v, int | float | str)} for a in shapes],
        "ids": [a.id for a in shapes],
    }
for form in again:
    dataset.export(str(Path(out) / "again"), form, save_media=True)
print(json.dumps(answer))

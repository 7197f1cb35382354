"""Open a folder with FiftyOne's importer, which needs no database: FOLDER OUT → masks and attributes of each image."""

import json
import sys
from pathlib import Path

import numpy as np

folder, out = map(Path, sys.argv[1:])
try:
    import fiftyone  # noqa: F401
    import pycocotools  # noqa: F401
    from fiftyone.utils.coco import COCODetectionDatasetImporter
except ImportError as error:
    sys.exit(print(error, file=sys.stderr) or 3)

answer = {}
with COCODetectionDatasetImporter(str(folder), label_types="segmentations", extra_attrs=True) as importer:
    for path, metadata, label in importer:
        masks, attributes = [], []
        for one in label.detections:
            mask = np.zeros((metadata.height, metadata.width), np.uint8)
            left, top = round(one.bounding_box[0] * metadata.width), round(one.bounding_box[1] * metadata.height)
            mask[top : top + one.mask.shape[0], left : left + one.mask.shape[1]] = one.mask
            masks.append(mask)
            known = {name: one[name] for name in ("parent", "level", "score", "quality") if one.has_field(name) and one[name] is not None}
            attributes.append({"label": one.label} | known)
        name = Path(path).stem
        np.save(out / f"{name}.npy", np.stack(masks))
        answer[name] = attributes
print(json.dumps(answer))

"""Open a folder with supervision: FORMAT FOLDER SPLIT OUT → masks and classes of each image; YOLO is written again to OUT/again."""

import json
import sys
from pathlib import Path

import numpy as np

kind, folder, split, out = sys.argv[1:]
try:
    import supervision as sv
except ImportError as error:
    sys.exit(print(error, file=sys.stderr) or 3)

folder, out = Path(folder), Path(out)
images = str(folder / "images" / split)
if kind == "yolo":
    dataset = sv.DetectionDataset.from_yolo(images, str(folder / "labels" / split), str(folder / "data.yaml"), force_masks=True)
else:
    dataset = sv.DetectionDataset.from_coco(images, str(folder / "annotations" / f"instances_{split}.json"), force_masks=True)
answer = {}
for path, _, detections in dataset:
    name = Path(path).stem
    np.save(out / f"{name}.npy", detections.mask.astype(np.uint8))
    answer[name] = [dataset.classes[number] for number in detections.class_id]
if kind == "yolo":
    again = out / "again"
    # Of an image of noise it finds no way to its holes.
    kept = [path for path in dataset.image_paths if Path(path).stem != "noisy"]
    smaller = sv.DetectionDataset(dataset.classes, kept, {path: dataset.annotations[path] for path in kept})
    smaller.as_yolo(str(again / "images"), str(again / "labels"), str(again / "data.yaml"))
print(json.dumps(answer))

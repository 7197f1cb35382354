"""Open a folder with datasets: FOLDER OUT → masks of each image, seen also after save_to_disk and load_from_disk."""

import json
import sys
from pathlib import Path

import numpy as np

folder, out = map(Path, sys.argv[1:])
try:
    import datasets
    from pycocotools import mask as coco
except ImportError as error:
    sys.exit(print(error, file=sys.stderr) or 3)

loaded = datasets.load_dataset(str(folder), cache_dir=str(out / "cache"))
loaded.save_to_disk(str(out / "disk"))
again = datasets.load_from_disk(str(out / "disk"))
answer = {"splits": {split: rows.num_rows for split, rows in again.items()}, "images": {}}
for split, rows in again.items():
    assert rows.features == loaded[split].features
    names = rows.features["objects"].feature["category"].names
    for row in rows:
        objects = row["objects"]
        size = [row["height"], row["width"]]
        np.save(out / f"{row['image_id']}.npy", np.stack([coco.decode({"size": size, "counts": o["rle"].encode()}) for o in objects]))
        answer["images"][row["image_id"]] = {
            "size": list(row["image"].size),
            "labels": [names[o["category"]] for o in objects],
            "parents": [o["parent"] for o in objects],
        }
for split, rows in loaded.items():
    (out / "again" / "data").mkdir(parents=True, exist_ok=True)
    rows.to_parquet(str(out / "again" / "data" / f"{split}.parquet"))
print(json.dumps(answer))

"""Open tasks with Label Studio's own converter: FOLDER OUT → the masks of each region, and a COCO file that it writes."""

import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np

folder, out = map(Path, sys.argv[1:])
try:
    from label_studio_converter import Converter as Old
    from label_studio_converter import brush
    from label_studio_sdk.converter import Converter
except ImportError as error:
    sys.exit(print(error, file=sys.stderr) or 3)

answer = {}
for name, converter_class in (("sdk", Converter), ("converter", Old)):
    converter = converter_class(config=str(folder / "labels.xml"), project_dir=str(folder))
    (out / name).mkdir(parents=True)
    converter.convert(str(folder / "tasks.json"), str(out / name), "BRUSH_TO_NUMPY", is_dir=False)
    answer[name] = dict(Counter(path.name.split("-by-")[0] for path in (out / name).glob("*.npy")))
tasks = json.loads((folder / "tasks.json").read_text(encoding="utf-8"))
for task in tasks:
    results = task["annotations"][0]["result"]
    size = (results[0]["original_height"], results[0]["original_width"], 4)
    masks = [brush.decode_rle(result["value"]["rle"]).reshape(size)[:, :, 3] > 0 for result in results]
    np.save(out / f"{task['data']['image_id']}.npy", np.stack(masks))
    # What the program itself makes of the same masks.
    for result, mask in zip(results, masks, strict=True):
        result["value"]["rle"] = brush.mask2rle(mask.astype(np.uint8) * 255)
(out / "theirs.json").write_text(json.dumps(tasks), encoding="utf-8")
print(json.dumps(answer))

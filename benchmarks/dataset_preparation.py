"""Preparing a generated COCO-like dataset with every check, beside reading its files twice.

    python benchmarks/dataset_preparation.py [--images 2500 10000] [--side 640 480] [--distinct 400] [--objects 7]

For each number of images a dataset in COCO's layout is written (JPEG photographs of noise and shapes, ``--distinct`` of them, each file made
different by a comment in it; polygons and a crowd in one JSON), and prepared by the ``datasets`` stage in a process of its own: images into
shards, annotations into tables, contract and Great Expectations, manifest, rename. Beside it, in the same process model, what a user would
otherwise run to make and then check such a dataset: every picture decoded twice with Pillow, every annotation rasterised twice with pycocotools,
by one process. 'bytes twice' is the time to read the files' bytes twice and do nothing with them, for scale: both sides
find them in the page cache. The target: at least as fast as reading twice, memory under 1 GiB, time linear in images.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from uss_dagster.runtime import quiet_environment

quiet_environment()

import numpy as np  # noqa: E402


def photograph(rng: np.random.Generator, width: int, height: int) -> bytes:
    """JPEG of about the size that COCO's have."""
    from PIL import Image

    coarse = Image.fromarray(rng.integers(0, 256, (height // 16, width // 16, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    noisy = np.asarray(coarse).astype(np.int16) + rng.integers(-22, 23, (height, width, 3), np.int16)
    out = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(out, "JPEG", quality=90)
    return out.getvalue()


def polygon(rng: np.random.Generator, width: int, height: int) -> list[float]:
    """A star-shaped outline of about 30 points, as people click them."""
    centre, radius = rng.random(2) * (width, height), rng.uniform(15, min(width, height) / 3)
    angle = np.sort(rng.uniform(0, 2 * np.pi, 30))
    points = centre + (radius * rng.uniform(0.6, 1, 30) * np.stack([np.cos(angle), np.sin(angle)])).T
    return [round(float(v), 2) for v in points.clip(0, (width - 1, height - 1)).ravel()]


def write_coco(folder: Path, images: int, side: tuple[int, int], distinct: int, objects: int) -> None:
    """A folder ``coco`` with train2017 and its annotations."""
    from uss_dagster.datasets.coco import CLASSES

    width, height = side
    rng = np.random.default_rng(0)
    photos = [photograph(rng, width, height) for _ in range(min(distinct, images))]
    place = folder / "coco" / "train2017"
    place.mkdir(parents=True)
    categories = sorted(CLASSES.node)
    records: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(1, images + 1):
        photo, note = photos[number % len(photos)], f"{number:012d}".encode()
        (place / f"{number:012d}.jpg").write_bytes(photo[:2] + b"\xff\xfe" + (len(note) + 2).to_bytes(2, "big") + note + photo[2:])
        records.append({"id": number, "file_name": f"{number:012d}.jpg", "width": width, "height": height})
        for _ in range(int(rng.poisson(objects))):
            outline = polygon(rng, width, height)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": int(rng.choice(categories)),
                    "iscrowd": 0,
                    "segmentation": [outline],
                }
            )
        if number % 100 == 0:
            runs = [1000, 5000, width * height - 6000]
            crowd = {"size": [height, width], "counts": runs}
            annotations.append({"id": len(annotations) + 1, "image_id": number, "category_id": 1, "iscrowd": 1, "segmentation": crowd})
    content = {"images": records, "annotations": annotations, "categories": [{"id": c, "name": str(c)} for c in categories]}
    (folder / "coco" / "annotations").mkdir()
    (folder / "coco" / "annotations" / "instances_train2017.json").write_text(json.dumps(content), encoding="utf-8")


def ours(root: Path) -> None:
    from uss_dagster.artifacts import gate
    from uss_dagster.stages import datasets

    gate.warm()
    datasets.produce("coco", {"kind": "coco", "params": {"split": "train2017"}}, root)


def twice(root: Path) -> None:
    """Once to make masks of it, once to check it."""
    from PIL import Image
    from pycocotools import mask as coco

    folder = root / "coco"
    for _ in range(2):
        content = json.loads((folder / "annotations" / "instances_train2017.json").read_text(encoding="utf-8"))
        of_image: dict[int, list[Any]] = {}
        for annotation in content["annotations"]:
            of_image.setdefault(annotation["image_id"], []).append(annotation["segmentation"])
        for record in content["images"]:
            height, width = record["height"], record["width"]
            with Image.open(folder / "train2017" / record["file_name"]) as picture:
                assert np.asarray(picture.convert("RGB")).shape == (height, width, 3)
            for segmentation in of_image.get(record["id"], []):
                found = coco.frPyObjects(segmentation, height, width)
                assert coco.decode(coco.merge(found) if isinstance(found, list) else found).any()


def bytes_twice(root: Path) -> None:
    for _ in range(2):
        for path in sorted((root / "coco").rglob("*.*")):
            path.read_bytes()


SIDES = {"ours": ours, "twice": twice, "bytes twice": bytes_twice}


def measured(side: str, root: Path) -> tuple[float, float, float]:
    """(seconds, processor seconds, peak MiB) of one side, in a process of its own."""
    words = [sys.executable, __file__, "--side-of", side, str(root)]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "USS_MIRROR": str(root)}, cwd=root)
    if done.returncode:
        raise SystemExit(done.stderr)
    seconds, processor, peak = json.loads(done.stdout.splitlines()[-1])
    return seconds, processor, peak


def main() -> None:
    parser = argparse.ArgumentParser(description="Dataset preparation beside reading the files twice.")
    parser.add_argument("--images", type=int, nargs="+", default=[2500, 10_000])
    parser.add_argument("--side", type=int, nargs=2, default=(640, 480), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--distinct", type=int, default=400, help="different photographs")
    parser.add_argument("--objects", type=int, default=7, help="objects an image, on average")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=["bytes twice", "twice", "ours"])
    parser.add_argument("--json", action="store_true", help="last, one line of JSON")
    parser.add_argument("--side-of", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side_of:
        from uss_dagster.runtime import peak_memory_mb

        begun = time.perf_counter()
        SIDES[given.side_of[0]](Path(given.side_of[1]))
        print(json.dumps([time.perf_counter() - begun, time.process_time(), peak_memory_mb()]))
        return
    runs = []
    for images in given.images:
        with tempfile.TemporaryDirectory(prefix="uss-bench-") as name:
            root = Path(name)
            write_coco(root, images, tuple(given.side), given.distinct, given.objects)
            size = sum(p.stat().st_size for p in (root / "coco").rglob("*.*") if p.is_file())
            print(f"{images:,} images, {size / 1e6:,.0f} MB", flush=True)
            result = {side: measured(side, root) for side in given.sides}
            for side, (seconds, processor, peak) in result.items():
                print(
                    f"  {side:<12} {seconds:7.1f} s  {1000 * seconds / images:6.2f} ms an image  {processor:7.1f} s of processors  peak {peak:6.0f} MiB"
                )
            if {"twice", "ours"} <= result.keys():
                wall, processor = (result["twice"][of] / result["ours"][of] for of in (0, 1))
                print(f"  reading twice / ours: {wall:.2f} by the clock, {processor:.2f} by processor time", flush=True)
            if "ours" in result:
                seconds, processor, peak = result["ours"]
                runs.append({"images": images, "seconds": seconds, "processor": processor, "peak_mb": peak})
    if len(runs) > 1:
        first, last = runs[0], runs[-1]
        growth = (last["seconds"] / first["seconds"]) / (last["images"] / first["images"])
        print(f"time an image at {last['images']:,} beside {first['images']:,}: {growth:.2f}")
    if given.json:
        print(json.dumps({"runs": runs}))


if __name__ == "__main__":
    main()

"""Training windows of a student beside torchvision's COCO loader: milliseconds of one core an image, and memory over many steps.

    USS_MIRROR=/datasets python benchmarks/student_loader.py [--images 100] [--rounds 3] [--size S] [--steps 10000]

The same COCO val2017 photographs, window sizes and side of the square in both, on one thread, in turns:

    first       the first pass: a photograph is decoded, it and its masks are reduced, and both are written to the disk
    later       further passes, which read what is stored; nothing is held in memory
    torchvision ``CocoDetection``, each mask by ``annToMask``, then ``RandomResizedCrop``, flip and ``ColorJitter`` of ``transforms.v2``

Twice: with the masks that people drew, and with up to 300 masks a photograph from ``contour_merge``, as a curated set has them. Ours also chooses
prompts and reduces targets to the side that the network predicts; torchvision's masks have the side of the image.

``--steps``: then so many batches of two windows, with a cache of 32 MiB, which these photographs overflow; prints the memory of the process along the way.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from uss_dagster.runtime import quiet_environment

quiet_environment()

import numpy as np  # noqa: E402
import torch  # noqa: E402

import uss_dagster as uss  # noqa: E402
from uss_dagster.student.data import Source, coco_source  # noqa: E402
from uss_dagster.student.example_shards import ExampleShards, stored_examples  # noqa: E402
from uss_dagster.student.loading import Loading  # noqa: E402
from uss_dagster.student.settings import StudentSettings  # noqa: E402
from uss_dagster.student.views import Views, longest_side  # noqa: E402
from uss_dagster.torchvision_import import ensure_torchvision  # noqa: E402

MOST = 300
SMALL_CACHE = 32 * 1024**2


def annotations_of(mirror: Path, images: int) -> dict[str, object]:
    """People's masks of the first photographs, by name; those of crowds are left out."""
    content = json.loads((mirror / "annotations" / "instances_val2017.json").read_text(encoding="utf-8"))
    present = [entry for entry in content["images"] if (mirror / "val2017" / entry["file_name"]).is_file()]
    chosen = sorted(present, key=lambda entry: entry["file_name"])[:images]
    numbers = {entry["id"] for entry in chosen}
    annotations = [a for a in content["annotations"] if a["image_id"] in numbers and not a["iscrowd"]]
    for entry in chosen:
        entry["split"] = "train"
    return {"images": chosen, "annotations": annotations, "categories": content["categories"]}


def with_regions(people: dict[str, object], photographs: Path) -> dict[str, object]:
    """The same photographs with the regions of ``contour_merge``."""
    annotations: list[dict[str, object]] = []
    for entry in people["images"]:  # type: ignore[attr-defined]
        regions = uss.segment(photographs / entry["file_name"], method="contour_merge")
        codes, largest = regions.rles(), np.sort(np.argsort(-regions.area, kind="stable")[:MOST])
        for code, area in zip((codes[i] for i in largest), regions.area[largest].tolist(), strict=True):
            mask = {"size": [entry["height"], entry["width"]], "counts": code.decode("ascii")}
            annotations.append({"id": len(annotations) + 1, "image_id": entry["id"], "category_id": 1, "iscrowd": 0, "area": int(area)})
            annotations[-1]["segmentation"] = mask
    return {**people, "annotations": annotations}


def torchvision_windows(photographs: Path, file: Path, settings: StudentSettings) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """One pass: the image and the masks of each window."""
    ensure_torchvision()
    from torchvision import tv_tensors
    from torchvision.datasets import CocoDetection
    from torchvision.transforms import v2

    with contextlib.redirect_stdout(io.StringIO()):
        dataset = CocoDetection(str(photographs), str(file))
    changes = v2.Compose(
        [
            v2.RandomResizedCrop(settings.input, scale=(settings.smallest_crop**2, settings.largest_crop**2), ratio=(0.67, 1.5)),
            v2.RandomHorizontalFlip(),
            v2.ColorJitter(0.2, 0.2),
            v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
        ]
    )
    for index in range(len(dataset)):
        image, annotations = dataset[index]
        masks = np.array([dataset.coco.annToMask(annotation) for annotation in annotations]).reshape(-1, image.height, image.width)
        pixels, targets = changes(v2.functional.to_image(image), tv_tensors.Mask(torch.from_numpy(masks)))
        yield pixels, targets[targets.flatten(1).any(1).bool()]


def milliseconds(passes: Iterator[object], images: int) -> float:
    begun = time.process_time()
    for _ in passes:
        pass
    return 1000 * (time.process_time() - begun) / images


def stored(source: Source, folder: Path, settings: StudentSettings) -> tuple[ExampleShards, float]:
    begun = time.process_time()
    shards = stored_examples(source, longest_side(settings), folder, Loading())
    return shards, 1000 * (time.process_time() - begun) / len(source)


def compare(name: str, photographs: Path, file: Path, settings: StudentSettings, rounds: int, folder: Path) -> ExampleShards:
    """Prints one row; returns what was stored."""
    source = coco_source(file, photographs)
    shards, first = stored(source, folder / name.replace(" ", "_"), settings)
    count = len(source)
    ours, other = [], []
    for turn in range(rounds):
        views = Views(source, settings, shards, cache=0)
        ours.append(milliseconds((views.batch(step) for step in range(turn * count, (turn + 1) * count)), count))
        other.append(milliseconds(torchvision_windows(photographs, file, settings), count))
    masks = np.mean([len(source[i].codes) for i in range(count)])
    columns = (
        f"{masks:.0f}",
        f"{first:.1f}",
        f"{min(ours):.1f}",
        f"{1000 / min(ours):.0f}",
        f"{min(other):.1f}",
        f"{min(other) / min(ours):.1f}",
    )
    print(f"| {name}, {count} photographs | " + " | ".join(columns) + " |", flush=True)
    return shards


def memory(shards: ExampleShards, settings: StudentSettings, steps: int) -> None:
    views = Views(shards.source, settings, shards, SMALL_CACHE)
    print("\n| step | MB of the process |\n| ---: | ---: |")
    for step, _ in enumerate(views.batches(range(steps)), 1):
        if step in (100, 1000) or step % max(1, steps // 5) == 0:
            print(f"| {step} | {resident_mb():.0f} |", flush=True)


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", default="S")
    parser.add_argument("--steps", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    mirror = Path(os.environ["USS_MIRROR"]) / "coco_val2017"
    photographs = mirror / "val2017"
    settings = StudentSettings(size=arguments.size, batch=1)
    people = annotations_of(mirror, arguments.images)
    print(f"size {arguments.size}, side {settings.input}; milliseconds of one core an image\n")
    print("| masks | masks a photograph | first | later | later, images a second | torchvision | ratio to later |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, content in (("people", people), ("contour_merge", with_regions(people, photographs))):
            file = folder / f"{name}.json"
            file.write_text(json.dumps(content), encoding="utf-8")
            shards = compare(name, photographs, file, settings, arguments.rounds, folder)
        if arguments.steps:
            memory(shards, StudentSettings(size=arguments.size, batch=2), arguments.steps)


if __name__ == "__main__":
    main()

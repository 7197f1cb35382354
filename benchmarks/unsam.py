"""UnSAM's pool on photographs: average recall beside other pools of the same run, and seconds and memory of an image.

    USS_MIRROR=… python benchmarks/unsam.py [--every 1] [--offset 0] [--only coco|bsds] [--keep FOLDER]
    python benchmarks/unsam.py --time [PHOTO]

Pools, all from the embedded backbone or pixels: UnSAM's, the nodes of ``contour_merge``, Felzenszwalb's segments at ten scales, and the nodes of
``slic_merge``, each ranked by its own score (trees: by height). AR over at most 1000 masks an image, class-agnostic, as COCO computes it;
then UnSAM's again with as many masks an image as each of the others has there. Ground truth: COCO's instances; the regions of all annotators of
BSDS500. ``--every 2 --offset 1`` takes the 2nd, 4th, … image. ``--keep`` stores each pool, so that a run that was stopped goes on.

``--time`` runs one photograph in this process, on one thread, the first time to compile: seconds of the fastest of three, with the backbone.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from uss_dagster.runtime import peak_memory_mb, quiet_environment, single_thread

quiet_environment()
single_thread()

import numpy as np  # noqa: E402

from uss_dagster import registry  # noqa: E402
from uss_dagster.artifacts.image_files import decode  # noqa: E402
from uss_dagster.backbones.base import Encoder  # noqa: E402
from uss_dagster.datasets.base import Sample  # noqa: E402
from uss_dagster.files import write_whole  # noqa: E402
from uss_dagster.metrics.coco.matches import Matches, match_codes, summaries  # noqa: E402
from uss_dagster.regions import Regions, rle  # noqa: E402

POOLS = ("unsam", "contour_merge", "felzenszwalb", "slic_merge")
COLUMNS = ("ar1000", "ar_small", "ar_medium", "ar_large", "ar100")
ENCODER = Encoder.of("patches", {"facets": ["keys", "tokens"]})


@dataclass(frozen=True)
class Photo:
    """truths: COCO codes. area: what decides a truth's size, None for that of its mask."""

    name: str
    path: Path
    size: tuple[int, int]
    truths: list[bytes]
    area: list[float] | None
    crowd: list[bool] | None


def coco(folder: Path) -> Iterator[Photo]:
    from pycocotools import mask as coco_mask

    found = json.loads(next((folder / "annotations").glob("instances_*.json")).read_text())
    of_image: dict[int, list[dict]] = {}
    for annotation in found["annotations"]:
        of_image.setdefault(annotation["image_id"], []).append(annotation)
    for image in sorted(found["images"], key=lambda image: image["id"]):
        size = int(image["height"]), int(image["width"])
        mine = of_image.get(image["id"], [])
        codes = []
        for annotation in mine:
            drawn = coco_mask.frPyObjects(annotation["segmentation"], *size)
            codes.append((coco_mask.merge(drawn) if isinstance(drawn, list) else drawn)["counts"])
        path = next(folder.glob(f"*/{image['file_name']}"))
        yield Photo(path.stem, path, size, codes, [a["area"] for a in mine], [bool(a["iscrowd"]) for a in mine])


def bsds(folder: Path) -> Iterator[Photo]:
    from scipy.io import loadmat

    for path in sorted(folder.glob("**/images/test/*.jpg"), key=lambda path: int(path.stem)):
        truth = loadmat(next(folder.glob(f"**/groundTruth/test/{path.stem}.mat")))["groundTruth"]
        maps = [truth[0, k]["Segmentation"][0, 0] for k in range(truth.shape[1])]
        codes = [code for labels in maps for code in rle.encode(labels == np.unique(labels)[:, None, None])]
        yield Photo(path.stem, path, maps[0].shape, codes, None, None)


def pool_of(method: str, image: np.ndarray) -> tuple[list[bytes], np.ndarray]:
    """Codes and scores of the masks of a method, best first, each once, without the whole image."""
    module = registry.load("method", method)
    sample = Sample("photo", image, ENCODER([image])[0], ENCODER)
    regions: Regions = module.segment(sample, module.SPEC.params())
    score = regions.level if method in ("contour_merge", "slic_merge") else regions.score
    codes, best = regions.rles(), {}
    for region in np.argsort(-score, kind="stable").tolist():
        if not regions.is_root[region] and regions.area[region]:
            best.setdefault(codes[region], float(score[region]))
    return list(best), np.array(list(best.values()))


def kept(folder: Path | None, name: str, make: Callable[[], tuple[list[bytes], np.ndarray]]) -> tuple[list[bytes], np.ndarray]:
    if folder is None:
        return make()
    path = folder / f"{name}.json"
    if not path.exists():
        codes, scores = make()
        write_whole(path, json.dumps([[code.decode("ascii") for code in codes], scores.tolist()]))
    texts, values = json.loads(path.read_text())
    return [text.encode("ascii") for text in texts], np.array(values)


def scored(photos: list[Photo], pools: dict[str, tuple[list[bytes], np.ndarray]], most: dict[str, int] | None = None) -> str:
    """Cells of a table row: masks an image, then AR in percent. most: masks allowed, by image."""
    images: list[Matches] = []
    for photo in photos:
        codes, score = pools[photo.name]
        allowed = min(1000, most[photo.name] if most else 1000)
        images.append(match_codes(photo.size, photo.truths, codes[:allowed], score[:allowed], truth_area=photo.area, crowd=photo.crowd))
    values = next(summaries(images, np.ones((1, len(images)), np.int64)))
    count = np.mean([len(image.score) for image in images])
    return f"{count:.0f} | " + " | ".join(f"{100 * values[name]:.1f}" if name in values else "–" for name in COLUMNS)


def compare(photos: list[Photo], title: str, folder: Path | None) -> None:
    pools: dict[str, dict[str, tuple[list[bytes], np.ndarray]]] = {method: {} for method in POOLS}
    for photo in photos:
        image = decode(photo.path.read_bytes(), photo.path.name)
        for method in POOLS:
            pools[method][photo.name] = kept(folder, f"{method}-{photo.name}", lambda m=method, i=image: pool_of(m, i))  # type: ignore[misc]
    print(
        f"\n{title}, {len(photos)} images\n\n| pool | masks | AR@1000 | small | medium | large | AR@100 |\n| --- | --- | --- | --- | --- | --- | --- |"
    )
    for method in POOLS:
        print(f"| {method} | {scored(photos, pools[method])} |", flush=True)
    for method in POOLS[1:]:
        most = {photo.name: len(pools[method][photo.name][0]) for photo in photos}
        print(f"| unsam, as many as {method} | {scored(photos, pools['unsam'], most)} |", flush=True)


def time_one(path: Path | None) -> None:
    if path is None:
        from skimage import data

        image = np.ascontiguousarray(np.asarray(data.astronaut())[:320, :480])
    else:
        image = decode(path.read_bytes(), path.name)
    seconds = []
    for _ in range(4):
        begun = time.perf_counter(), time.process_time()
        codes, _ = pool_of("unsam", image)
        seconds.append((time.perf_counter() - begun[0], time.process_time() - begun[1]))
    wall, cpu = (min(column) for column in zip(*seconds[1:], strict=True))
    print(
        f"{image.shape[1]}×{image.shape[0]}: {len(codes)} masks in {wall:.2f} s ({cpu:.2f} s of processor), peak {peak_memory_mb():.0f} MB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Average recall of UnSAM's pool beside others.")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--offset", type=int, default=0)
    parser.add_argument("--only", choices=("coco", "bsds"))
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--time", nargs="?", const="", metavar="PHOTO")
    arguments = parser.parse_args()
    if arguments.time is not None:
        return time_one(Path(arguments.time) if arguments.time else None)
    mirror = Path(os.environ["USS_MIRROR"])
    sets = {"coco": ("COCO val2017", coco, "coco_val2017"), "bsds": ("BSDS500 test, regions of all annotators", bsds, "bsds500")}
    for name, (title, read, folder) in sets.items():
        if arguments.only in (None, name):
            compare(list(read(mirror / folder))[arguments.offset :: arguments.every], title, arguments.keep)
    return None


if __name__ == "__main__":
    main()

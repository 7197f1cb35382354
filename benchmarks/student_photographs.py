"""UnSAM's loop on photographs: a pool of masks, a student of it, self-training, a second student; each on photographs that none of them saw.

    USS_MIRROR=/datasets python benchmarks/student_photographs.py --keep FOLDER [--rounds first,second,again,plus] [--param NAME=VALUE …]

Learned from: all photographs of the VOC 2012 sample, and every second one of the COCO val2017 and BSDS500 test samples, from the first, in the order of
their names; ``uss curate --method unsam --backbone dinov2_vits14_saliency`` makes their masks. Scored on the other halves of COCO and BSDS500:

    pool      the masks that the same method gives these photographs
    first     a student of the pool's masks
    second    from its weights: the pool's masks, merged with those that ``first`` is sure of
    again     from its weights: the pool's masks alone, what more steps give without self-training
    plus      the pool's masks, and people's masks of every second COCO photograph merged in, as UnSAM+ does (has seen labels)

AR over at most 1000 masks an image, class-agnostic. One click at the middle of each object: the IoU of the answer with the highest score, and of the best
of as many answers as a student gives (``grains``; the pool answers with its masks at that point). Intervals: 95 %, over images, paired. ``--param`` is a
setting of the student. ``--keep`` stores sets, students and scores, so that a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from uss_dagster.runtime import quiet_environment

quiet_environment()

import numpy as np  # noqa: E402
from deep_photographs import HALVES, REPLICATES, WEIGHTS, percentiles  # noqa: E402
from unsam import Photo, bsds, coco, kept  # noqa: E402
from unsam_deep import pool_of  # noqa: E402

from uss_dagster import registry  # noqa: E402
from uss_dagster.artifacts.image_files import decode  # noqa: E402
from uss_dagster.backbones.base import Encoder  # noqa: E402
from uss_dagster.commands.parameters import parse_parameters  # noqa: E402
from uss_dagster.metrics.base import poisson_weights  # noqa: E402
from uss_dagster.metrics.coco.clicks import click_point, one_click  # noqa: E402
from uss_dagster.metrics.coco.matches import Matches, match_codes, summaries  # noqa: E402
from uss_dagster.regions import rle  # noqa: E402
from uss_dagster.student.card import ModelCard  # noqa: E402
from uss_dagster.student.inputs import curated_data  # noqa: E402
from uss_dagster.student.model import Student  # noqa: E402
from uss_dagster.student.self_training import stored_labels  # noqa: E402
from uss_dagster.student.settings import StudentSettings  # noqa: E402
from uss_dagster.student.training import train  # noqa: E402

COLUMNS = ("ar1000", "ar_small", "ar_medium", "ar_large", "ar100", "click_max", "click_oracle")
Answers = tuple[list[bytes], np.ndarray]
"""Codes and scores, best first."""


def photographs(mirror: Path, half: str) -> dict[str, list[Photo]]:
    """COCO's and BSDS500's photographs of one half, by dataset."""
    sets = {"COCO": coco(mirror / "coco_val2017"), "BSDS500": bsds(mirror / "bsds500")}
    return {name: sorted(photos, key=lambda photo: photo.name)[HALVES[half]] for name, photos in sets.items()}


def training_set(mirror: Path, folder: Path, human: bool, most: int, one_of: int) -> Path:
    """The curated set of one photograph in ``one_of``; ``human``: with people's masks of every second COCO photograph."""
    files = sorted((mirror / "voc2012").glob("**/JPEGImages/*.jpg"))
    halves = photographs(mirror, "tuning")
    files += [photo.path for photos in halves.values() for photo in photos]
    images, out = folder / "photographs", folder / ("set_plus" if human else "set")
    if not (out / "manifest.json").is_file():
        images.mkdir(parents=True, exist_ok=True)
        for file in sorted(files, key=lambda file: file.name)[::one_of]:
            shutil.copyfile(file, images / file.name)
        command = [sys.executable, "-m", "uss_dagster.cli", "curate", str(images), "--out", str(out), "--backbone", WEIGHTS, "--copy"]
        command += ["--set", f"most={most}"]
        if human:
            labels = folder / "labels.json"
            write_labels(labels, halves["COCO"][::2])
            command += ["--labels", str(labels)]
            if not (out / ".curate").exists():
                shutil.copytree(folder / "set" / ".curate", out / ".curate")  # the same masks were computed for the other set
        subprocess.run(command, check=True)
    return out


def write_labels(path: Path, photos: list[Photo]) -> None:
    """People's masks of photographs as COCO json."""
    images, annotations = [], []
    for number, photo in enumerate(photos, 1):
        images.append({"id": number, "file_name": photo.path.name, "height": photo.size[0], "width": photo.size[1]})
        areas = rle.areas(photo.truths, *photo.size).tolist()
        for code, area, crowd in zip(photo.truths, areas, photo.crowd or [False] * len(areas), strict=True):
            segmentation = {"size": list(photo.size), "counts": code.decode("ascii")}
            annotations.append({"id": len(annotations) + 1, "image_id": number, "category_id": 1, "iscrowd": int(crowd), "area": area})
            annotations[-1]["segmentation"] = segmentation
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "object"}]}))


def score(photo: Photo, masks: Answers, click: Callable[[np.ndarray], list[Answers]], most: int) -> Matches:
    """Match masks with an image's truth, and click each object. click: points (P, 2) → the answers to each, of which ``most`` count."""
    codes, values = masks
    result = match_codes(photo.size, photo.truths, codes[:1000], values[:1000], truth_area=photo.area, crowd=photo.crowd)
    objects = [code for code, crowd in zip(photo.truths, photo.crowd or [False] * len(photo.truths), strict=True) if not crowd]
    truths = [rle.decode(code, *photo.size) for code in objects]
    if truths:
        points = np.array([click_point(truth) for truth in truths])
        for truth, (answer_codes, quality) in zip(truths, click(points), strict=True):
            answers = np.array([rle.decode(code, *photo.size) for code in answer_codes[:most]]).reshape(-1, *photo.size)
            result.clicks[:] += one_click(truth[None], [answers], [quality[:most]])["clicks"]
    return result


def of_pool(photo: Photo, masks: Answers, most: int) -> Matches:
    codes, values = masks
    codes, values = codes[:1000], values[:1000]

    def click(points: np.ndarray) -> list[Answers]:
        decoded = [rle.decode(code, *photo.size) for code in codes]
        held = np.array([[mask[y, x] for x, y in points.tolist()] for mask in decoded], bool).reshape(len(codes), len(points))
        return [([codes[i] for i in np.flatnonzero(column)], values[column]) for column in held.T]

    return score(photo, masks, click, most)


def of_student(student: Student, photo: Photo, split: int, grid: int) -> Matches:
    image = decode(photo.path.read_bytes(), photo.path.name)
    masks = student.masks(image, "union", split=split, grid=grid)
    encoded = student.encode(image, split)

    def click(points: np.ndarray) -> list[Answers]:
        return [([a.code for a in answers], np.array([a.quality for a in answers])) for answers in encoded.clicks(points)]

    return score(photo, (masks.codes, masks.score), click, student.settings.grains)


def stored(path: Path, make: Callable[[], Matches]) -> Matches:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        matches = make()
        np.savez(path, **{name: getattr(matches, name) for name in ("score", "found", "void", "truths", "clicks")})
    with np.load(path) as arrays:
        return Matches(**{name: arrays[name] for name in arrays.files})


def table(title: str, photos: list[Photo], rounds: dict[str, list[Matches]]) -> None:
    """A row a round: values with the interval of their difference to the pool, and to the first student."""
    draws = np.stack([np.ones(len(photos), np.int64), *np.stack([poisson_weights(photo.name, REPLICATES) for photo in photos]).T])
    values = {name: [{c: 100 * v.get(c, np.nan) for c in COLUMNS} for v in summaries(images, draws)] for name, images in rounds.items()}
    columns = (*COLUMNS, "ar1000 less pool", "click_oracle less pool", "ar1000 less first")
    print(f"\n{title}, {len(photos)} photographs\n\n| | " + " | ".join(columns) + " |\n| --- |" + " ---: |" * len(columns))

    def less(name: str, other: str, column: str) -> str:
        if name == other or other not in values:
            return "–"
        differences = np.array([a[column] - b[column] for a, b in zip(values[name], values[other], strict=True)])
        low, high = percentiles(differences[1:])
        return f"{differences[0]:+.1f} ({low:+.1f} to {high:+.1f})"

    for name, of_draws in values.items():
        cells = [f"{of_draws[0][column]:.1f}" for column in COLUMNS]
        cells += [less(name, "pool", "ar1000"), less(name, "pool", "click_oracle"), less(name, "first", "ar1000")]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def train_students(
    names: list[str], folder: Path, mirror: Path, settings: StudentSettings, arguments: argparse.Namespace
) -> dict[str, Student]:
    students: dict[str, Student] = {}
    for name in names:
        out = folder / "students" / name
        if not (out / "config.json").is_file():
            data = curated_data(training_set(mirror, folder, name == "plus", arguments.most, arguments.one_of), None)
            first = None if name in ("first", "plus") else folder / "students" / "first"
            source = data.train
            if name == "second":
                source = stored_labels(students["first"], source, folder / "labels_of_first")
            result = train(
                source, None, settings, out, threads=arguments.threads, card=ModelCard(name, data.data, data.version), start=first
            )
            fall = 1 - result.losses[-1][1] / result.losses[0][1]
            print(f"{name}: {len(source)} photographs, {result.seconds / 60:.0f} minutes, loss -{fall:.0%}", file=sys.stderr, flush=True)
        students[name] = Student.load(out)
    return students


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, required=True)
    parser.add_argument("--rounds", default="first,second,again,plus", help="of the students, in order; empty for the pool alone")
    parser.add_argument("--param", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--most", type=int, default=100, help="masks an image to learn from")
    parser.add_argument("--one-of", type=int, default=1, help="learn from one photograph in so many")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--split", type=int, default=4)
    parser.add_argument("--grid", type=int, default=12)
    parser.add_argument("--images", type=int, help="so many of each dataset's held-out photographs")
    parser.add_argument("--pools", type=Path, help="where unsam_deep.py --keep stored the pools of these photographs")
    arguments = parser.parse_args()
    mirror = Path(os.environ["USS_MIRROR"])
    settings = registry.build_params(StudentSettings, parse_parameters(arguments.param, StudentSettings, "student"), "student")
    students = train_students(arguments.rounds.split(",") if arguments.rounds else [], arguments.keep, mirror, settings, arguments)
    encoders = {"deep": Encoder.of("vit", {"model": WEIGHTS, "facets": ["keys", "tokens"]})}
    for title, photos in photographs(mirror, "held-out").items():
        photos = photos[: arguments.images]
        pools = {}
        for photo in photos:
            image = decode(photo.path.read_bytes(), photo.path.name)
            make = lambda i=image: pool_of("unsam, deep", i, encoders)  # noqa: E731
            masks = kept(arguments.pools or arguments.keep, f"unsam-deep-{photo.name}", make)
            pools[photo.name] = stored(
                arguments.keep / "scores" / "pool" / f"{photo.name}.npz", lambda p=photo, m=masks: of_pool(p, m, settings.grains)
            )
        rounds = {"pool": [pools[photo.name] for photo in photos]}
        for name, student in students.items():
            of_round = arguments.keep / "scores" / name
            rounds[name] = [
                stored(of_round / f"{photo.name}.npz", lambda p=photo, s=student: of_student(s, p, arguments.split, arguments.grid))
                for photo in photos
            ]
        table(title, photos, rounds)


if __name__ == "__main__":
    main()

"""Peak memory and time of the commands on large photographs.

    python benchmarks/memory.py [--megapixels 12,24] [--steps segment,explorer,curate,train,score]

The photographs are those of scikit-learn and scikit-image, enlarged. Each command runs in a process of its own, whose greatest
resident memory the operating system counts. The target: at most 1.5 GB + 40 bytes a pixel of the largest picture.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from uss_dagster.curation.splits import split_of
from uss_dagster.hashing import sha256_of_file
from uss_dagster.text import aligned

FIXED, A_PIXEL = 1.5e9, 40
"""The target: bytes of any command, and bytes a pixel of the largest picture."""
STEPS = ("segment", "explorer", "curate", "train", "score")
EXPLORE = """import sys
from pathlib import Path
from uss_dagster.artifacts.image_files import read_picture
from uss_dagster.report.own_images_explorer import explore
folder, photo = Path(sys.argv[1]), Path(sys.argv[2])
explore(folder, folder / "regions.parquet", [photo.stem], lambda image_id: read_picture(photo), "regions", "Regions")
"""


@dataclass(frozen=True)
class Use:
    """What a process took: greatest resident bytes, seconds, exit status."""

    memory: float
    seconds: float
    status: int


def photographs(folder: Path, megapixels: int) -> list[Path]:
    """Two photographs of so many megapixels, 4:3, as JPEG."""
    from skimage.data import coffee
    from sklearn.datasets import load_sample_image

    folder.mkdir(parents=True)
    width = round((megapixels * 1e6 * 4 / 3) ** 0.5)
    paths = []
    for name, pixels in (("china", load_sample_image("china.jpg")), ("coffee", coffee())):
        paths.append(folder / f"{name}.jpg")
        Image.fromarray(pixels).resize((width, round(width * 3 / 4)), Image.Resampling.BICUBIC).save(paths[-1], quality=90)
    return paths


def run(words: list[str]) -> Use:
    """Run a Python command in a process of its own; its output is shown only if it fails."""
    with tempfile.TemporaryFile() as output:
        started = time.perf_counter()
        process = os.fork()
        if not process:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            os.execv(sys.executable, [sys.executable, *words])
        _, status, usage = os.wait4(process, 0)
        if status:
            output.seek(0)
            print(output.read().decode()[-2000:], file=sys.stderr)
        return Use(usage.ru_maxrss * 1024, time.perf_counter() - started, status)


def labels_of(photo: Path, target: Path) -> None:
    """A label picture of the photograph's size: 16 grey levels of its reduced version."""
    with Image.open(photo) as picture:
        size, small = picture.size, np.asarray(picture.convert("L").resize((64, 48)))
    target.parent.mkdir(exist_ok=True)
    Image.fromarray(small // 16).resize(size, Image.Resampling.NEAREST).save(target)


def seed_of_both_splits(photos: list[Path]) -> int:
    """A seed that puts one photograph into train and one into val."""
    hashes = [sha256_of_file(photo) for photo in photos]
    return next(seed for seed in range(1000) if {split_of(sha256, seed, (1, 1, 0)) for sha256 in hashes} == {"train", "val"})


def commands(folder: Path, megapixels: int) -> dict[str, list[str]]:
    """The arguments of Python for each step."""
    photos = photographs(folder / "photos", megapixels)
    labels_of(photos[0], folder / "labels" / "china.png")
    uss = ["-m", "uss_dagster.cli"]
    segments, curated = folder / "segments", folder / "curated"
    settings = ["--set", "splits=[1,1,0]", "--set", f"seed={seed_of_both_splits(photos)}", "--set", "duplicates=keep"]
    training = ["--steps", "2", "--param", "batch=1", "--param", "every=1"]
    return {
        "segment": [*uss, "segment", str(photos[0]), "--out", str(segments)],
        "explorer": ["-c", EXPLORE, str(segments), str(photos[0])],
        "curate": [*uss, "curate", *map(str, photos), "--out", str(curated), *settings],
        "train": [
            *uss,
            "train",
            "student",
            "--masks",
            str(curated),
            "--images",
            str(folder / "photos"),
            "--out",
            str(folder / "m"),
            *training,
        ],
        "score": [*uss, "score", "--pred", str(segments / "regions.parquet"), "--gt", str(folder / "labels"), "--bootstrap", "0"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megapixels", default="12,24", help="Sizes of the photographs.")
    parser.add_argument("--steps", default=",".join(STEPS), help="Which steps; explorer and score need segment, train needs curate.")
    options = parser.parse_args()
    rows = []
    for megapixels in map(int, options.megapixels.split(",")):
        folder = Path(tempfile.mkdtemp())
        try:
            for step, words in commands(folder, megapixels).items():
                if step in options.steps.split(","):
                    use = run(words)
                    target = FIXED + A_PIXEL * megapixels * 1e6
                    verdict = f"failed ({use.status})" if use.status else "yes" if use.memory <= target else "no"
                    rows.append([step, str(megapixels), f"{use.memory / 1e9:.2f}", f"{target / 1e9:.2f}", verdict, f"{use.seconds:.0f}"])
                    print(*rows[-1], file=sys.stderr, flush=True)
        finally:
            shutil.rmtree(folder)
    for line in aligned(
        ["step", "megapixels", "peak GB", "target GB", "within", "seconds"], rows, right=("megapixels", "peak GB", "target GB", "seconds")
    ):
        print(line)


if __name__ == "__main__":
    main()

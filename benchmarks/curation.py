"""Curation: near-duplicate search, mask measures, and whole runs of `uss curate` as the number of pictures grows.

    python benchmarks/curation.py [--images 1000]

Side by side with what a user would otherwise run: all pairs of hashes with NumPy; a loop over masks with SciPy. The runs draw small pictures
into a temporary folder, so nothing is downloaded; the last one replaces ten of them.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from uss_dagster.curation.duplicates import near_pairs
from uss_dagster.curation.measures import measure
from uss_dagster.datasets.base import Sample
from uss_dagster.methods import felzenszwalb

USS = Path(sys.executable).with_name("uss")


def picture(seed: int, height: int = 64, width: int = 80) -> np.ndarray:
    """Boxes within boxes on a shaded ground, with noise."""
    rng = np.random.default_rng(seed)
    image = np.empty((height, width, 3))
    image[:] = rng.uniform(30, 220, 3) + np.linspace(0, 40, width)[None, :, None] * rng.uniform(-1, 1, 3)
    for _ in range(int(rng.integers(3, 7))):
        y, x = rng.integers(0, height - 16), rng.integers(0, width - 16)
        tall, wide = rng.integers(10, 32, 2)
        image[y : y + tall, x : x + wide] = rng.uniform(0, 255, 3)
        image[y + 3 : y + tall // 2, x + 3 : x + wide // 2] = rng.uniform(0, 255, 3)
    return np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)


def search(count: int, radius: int = 6) -> None:
    """All pairs within a radius, by comparing all with all and by bands."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, count, dtype=np.uint64)
    near = hashes[: count // 50] ^ (np.uint64(1) << rng.integers(0, 64, count // 50, dtype=np.uint64))
    hashes = np.concatenate([hashes, near])
    started = time.perf_counter()
    plain = []
    for start in range(0, len(hashes), 256):
        i, j = np.nonzero(np.bitwise_count(hashes[start : start + 256, None] ^ hashes[None, :]) <= radius)
        plain.append(np.stack([i + start, j], axis=1))
    middle = time.perf_counter()
    ours = near_pairs(hashes, hashes, radius)
    end = time.perf_counter()
    assert np.array_equal(np.concatenate(plain), ours)
    print(
        f"near-duplicates of {len(hashes):,} hashes: all pairs {middle - started:.2f} s, bands {end - middle:.2f} s, "
        f"{(middle - started) / (end - middle):.0f} times as fast, the same {len(ours):,} pairs"
    )


def one_by_one(image: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Separation of each mask as a script would take it: dilate, take means."""
    from scipy.ndimage import binary_dilation
    from skimage.color import rgb2lab

    lab = rgb2lab(image)
    found = []
    for mask in masks:
        ring = binary_dilation(mask) & ~mask
        inside, around = lab[mask], lab[ring] if ring.any() else lab[mask]
        spread = np.sqrt(((inside - inside.mean(axis=0)) ** 2).sum(axis=1).mean())
        apart = np.linalg.norm(inside.mean(axis=0) - around.mean(axis=0))
        found.append(apart / (apart + spread + 2))
    return np.array(found)


def measures() -> None:
    """Separation alone of the loop, against edge, separation and quality of ours."""
    image = picture(5, 240, 320)
    regions = felzenszwalb.segment(Sample("a", image), felzenszwalb.Params(scales=6))
    masks = regions.masks()
    measure(image, regions, refine=False)
    started = time.perf_counter()
    plain = one_by_one(image, masks)
    middle = time.perf_counter()
    ours = measure(image, regions, refine=False)["separation"]
    end = time.perf_counter()
    agree = np.corrcoef(plain, ours)[0, 1]
    print(
        f"measures of {len(masks)} masks over 240×320: mask by mask {middle - started:.3f} s (separation only), by atoms {end - middle:.3f} s "
        f"(all), {(middle - started) / (end - middle):.0f} times as fast; separation correlates {agree:.3f}"
    )


def curate(folder: Path, out: Path) -> tuple[float, float, str]:
    """(CPU seconds, peak memory in MiB of the largest process, what it said of its work)."""
    words = [str(USS), "curate", str(folder), "--out", str(out), "-m", "felzenszwalb", "--param", "scales=2"]
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(words, stdout=said, env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"})
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        text = said.read()
    if process.returncode:
        raise SystemExit(f"uss curate ended with {process.returncode}:\n{text}")
    work = re.search(r"computed \d+, reused \d+", text)
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, work.group() if work else ""


def runs(images: int) -> None:
    """A quarter, a half and all of the pictures, each into its own folder; then all again with ten replaced."""
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        for count in (images // 4, images // 2, images):
            folder = home / f"pictures{count}"
            folder.mkdir()
            for number in range(count):
                Image.fromarray(picture(number)).save(folder / f"p{number:05d}.png")
            seconds, memory, work = curate(folder, home / f"out{count}")
            print(
                f"uss curate, {count:5d} pictures: {seconds:7.1f} CPU s, {seconds / count * 1000:6.1f} ms each, {memory:5.0f} MiB; {work}",
                flush=True,
            )
        for number in range(0, images, max(1, images // 10)):
            Image.fromarray(picture(10**6 + number)).save(folder / f"p{number:05d}.png")
        seconds, memory, work = curate(folder, home / f"out{images}")
        print(f"           10 replaced: {seconds:7.1f} CPU s, {memory:5.0f} MiB; {work}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1000)
    images = parser.parse_args().images
    search(20_000)
    measures()
    runs(images)


if __name__ == "__main__":
    main()

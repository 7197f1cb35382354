"""What the tiny student learns from plain shapes, as its spec has them, and from drawn scenes, which are far harder; on pictures of another series."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from students import regions_source

from uss_dagster.artifacts.image_files import decode
from uss_dagster.datasets.scenes import Params, examples
from uss_dagster.regions import rle
from uss_dagster.student.data import Source
from uss_dagster.student.evaluate import matches, values
from uss_dagster.student.model import Student
from uss_dagster.student.settings import StudentSettings
from uss_dagster.student.training import train


def plain_scene(series: int, number: int, side: int = 96) -> tuple[np.ndarray, list[bytes]]:
    """Two to four ellipses and rectangles that hide each other, half of them in two parts of different brightness."""
    rng = np.random.default_rng([series, number])
    y, x = np.mgrid[:side, :side]
    image = np.full((side, side, 3), rng.uniform(30, 220, 3))
    image += 8 * rng.normal(0, 1, (side // 8, side // 8, 3)).repeat(8, 0).repeat(8, 1)
    masks: list[np.ndarray] = []
    for _ in range(rng.integers(2, 5)):
        row, column = rng.uniform(15, side - 15, 2)
        long, short = rng.uniform(9, 24, 2)
        turn = rng.uniform(0, np.pi)
        u = (x - column) * np.cos(turn) + (y - row) * np.sin(turn)
        v = (y - row) * np.cos(turn) - (x - column) * np.sin(turn)
        ellipse = rng.random() < 0.5
        shape = (u / long) ** 2 + (v / short) ** 2 <= 1 if ellipse else (abs(u) <= 0.85 * long) & (abs(v) <= 0.85 * short)
        colour = rng.uniform(20, 235, 3)
        image[shape] = colour
        masks = [*(mask & ~shape for mask in masks), shape]
        if rng.random() < 0.5:
            part = shape & (u > rng.uniform(-0.3, 0.3) * long)
            image[part] = np.clip(colour + rng.uniform(25, 70, 3) * rng.choice([-1, 1], 3), 0, 255)
            masks += [part, shape & ~part]
    noisy = np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)
    return noisy, rle.encode(np.array([mask for mask in masks if mask.sum() >= 20]))


def plain_scenes(series: int, count: int) -> Source:
    drawn = {f"plain{i:04d}": plain_scene(series, i) for i in range(count)}
    return Source(list(drawn), lambda i: drawn[i][0], lambda i: (drawn[i][1], np.zeros(len(drawn[i][1]), bool)))


def scenes(series: int, count: int) -> Source:
    """Objects and parts of drawn scenes; background and what is not counted are no targets."""
    from uss_dagster.datasets.scenes import SPEC
    from uss_dagster.regions.classes import FOREGROUND, INNER

    assert SPEC.classes is not None
    kind = np.append(SPEC.classes.kind, -9)
    found = []
    for example in examples(Params(images=count, seed=series)):
        regions = example.truth
        counts = ~regions.is_root & (regions.label > 0) & np.isin(kind[regions.label], (FOREGROUND, INNER))
        found.append((example.image_id, decode(example.image, example.image_id), regions.select(counts)))
    return regions_source(found)


def learnt(source: Source, unseen: Source, settings: StudentSettings, folder: Path, **options: Any) -> tuple[dict[str, float], str]:
    """``fall`` of the loss and the scores, and the same as text."""
    result = train(source, None, settings, folder, threads=2)
    losses = [loss for _, loss in result.losses]
    scores = {"fall": float(1 - np.mean(losses[-5:]) / losses[0]), "seconds": result.seconds}
    scores |= values(matches(Student.load(folder), unseen, "union", **options))
    told = json.dumps({name: round(float(value), 3) for name, value in scores.items()})
    print(told)
    return scores, told


@pytest.mark.slow
def test_a_tiny_student_learns_plain_shapes_as_well_as_the_size_should(tmp_path: Path) -> None:
    settings = StudentSettings("tiny", steps=150, clicks=4, smallest_crop=1.0)
    scores, told = learnt(plain_scenes(1, 250), plain_scenes(2, 40), settings, tmp_path, grid=8)
    assert scores["fall"] > 0.6, told
    assert scores["ar1000"] > 0.35, told
    assert scores["click_oracle"] > 0.45, told
    assert scores["click_oracle"] >= scores["click_max"], told


@pytest.mark.slow
def test_a_tiny_student_learns_drawn_scenes_as_well_as_the_size_should(tmp_path: Path) -> None:
    """400 scenes to learn from, by the drawing's own masks; 40 of another series, by which nothing was chosen."""
    scores, told = learnt(scenes(101, 400), scenes(77, 40), StudentSettings("tiny"), tmp_path, split=4)
    assert scores["fall"] > 0.6, told
    assert scores["ar1000"] > 0.35, told
    assert scores["click_oracle"] > 0.45, told
    assert scores["click_oracle"] >= scores["click_max"], told

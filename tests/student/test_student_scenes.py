"""What the tiny student learns from drawn scenes in its usual number of steps, seen on scenes of another series.

The bounds lie well below what 400 steps gave (AR 0.12, one click 0.29, loss fallen by 51 %): they tell a student that learns from
one that does not. They are not the aims for the size (AR 0.35, one click 0.45), which it does not reach on these scenes: see docs/student.md.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from uss_dagster.artifacts.pictures import decode
from uss_dagster.datasets.scenes import Params, examples
from uss_dagster.student.data import LazySource, regions_source
from uss_dagster.student.evaluate import evaluate
from uss_dagster.student.model import Student
from uss_dagster.student.settings import preset
from uss_dagster.student.training import train

TRAINED_ON, UNSEEN = 400, 40
LOSS_FALLS, AR, ORACLE = 0.4, 0.06, 0.15


def scenes(series: int, count: int) -> LazySource:
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


@pytest.mark.slow
def test_a_tiny_student_learns_drawn_scenes(tmp_path: Path) -> None:
    result = train(scenes(101, TRAINED_ON), None, preset("tiny"), tmp_path, threads=2)
    assert result.finished
    losses = [loss for _, loss in result.losses]
    fall = 1 - np.mean(losses[-5:]) / losses[0]
    scores = evaluate(Student.load(tmp_path), scenes(77, UNSEEN), "union", split=2)
    told = json.dumps({"fall": round(float(fall), 3), "seconds": round(result.seconds), **{k: round(v, 3) for k, v in scores.items()}})
    assert fall > LOSS_FALLS, told
    assert scores["ar1000"] > AR, told
    assert scores["click_oracle"] > ORACLE, told
    assert scores["click_oracle"] >= scores["click_max"], told

"""Prompts: how well a model that can be asked selects each object of the ground truth by clicks and by a box.

What the objects of an image add comes from the stage ``prompted``, which has the images and the model; ``student.interactive`` says how it asks. The
objects are those of ``proposals``. An answer is refined by each further click, which ``clicks`` cannot do: it knows regions alone.
"""

from __future__ import annotations

from uss_dagster.metrics.base import Contribution, Truth, metric_spec
from uss_dagster.regions import Regions

SPEC = metric_spec(__file__)
SIZES = {"first": 2, "iou": 20, "needed": 2, "box": 1, "objects": 1}
"""Numbers a contribution: best by score and best of all after one click; IoU after each click; clicks to .85 and .90; IoU of a box; objects."""


def measure(truth: Truth, prediction: Regions) -> Contribution | None:
    """Nothing: regions cannot be asked. The contributions come from the stage ``prompted``."""
    return None


def reduce(total: Contribution) -> dict[str, float]:
    """Means over all objects."""
    count = float(total["objects"])
    if not count:
        return {}
    curve, needed = total["iou"] / count, total["needed"] / count
    after = {f"prompt_iou{number}": float(curve[number - 1]) for number in (1, 3, 5)}
    nocs = {"prompt_noc85": float(needed[0]), "prompt_noc90": float(needed[1])}
    return {**nocs, **after, "prompt_oracle": float(total["first"][1] / count), "prompt_box": float(total["box"] / count)}

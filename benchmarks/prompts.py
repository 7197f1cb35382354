"""How well a student is asked: one click, IoU after 1, 3 and 5 clicks, NoC@.85 and .90, and a box.

    python benchmarks/prompts.py --model DIR --coco instances.json --images FOLDER [--split val] [--limit 100]
    python benchmarks/prompts.py --model DIR [--scenes 24]
    python benchmarks/prompts.py --steps

With COCO json: the images of one split (of json without splits, a tenth of the images is ``val``). Without: drawn scenes of the series that no student
here learns from. ``student/interactive.py`` says how it clicks.

``--steps``: processor time of a training step of size tiny, with prompts as they are by default, without corrections, and with clicks alone.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

from uss_dagster.runtime import quiet_environment

quiet_environment()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from student import TRAIN_SERIES, UNSEEN_SERIES, draw, source_of  # noqa: E402

from uss_dagster.student.card import ModelCard  # noqa: E402
from uss_dagster.student.data import coco_source  # noqa: E402
from uss_dagster.student.interactive import scores  # noqa: E402
from uss_dagster.student.model import Student  # noqa: E402
from uss_dagster.student.settings import StudentSettings  # noqa: E402
from uss_dagster.student.training import Trainer  # noqa: E402


def steps() -> None:
    """Print the seconds of a step, the median of eight."""
    source = source_of(draw(TRAIN_SERIES, 16))
    kinds: dict[str, dict[str, float]] = {
        "by default": {},
        "without corrections": {"corrections": 0},
        "clicks alone": {"corrections": 0, "box_share": 0},
    }
    torch.set_num_threads(1)
    with ThreadPoolExecutor(1) as crew, TemporaryDirectory() as folder:
        trainers = {
            name: Trainer(source, None, StudentSettings("tiny", **values), Path(folder), torch.device("cpu"), ModelCard())
            for name, values in kinds.items()
        }
        seconds: dict[str, list[float]] = {name: [] for name in kinds}
        for number in range(9):  # in turn, so that other work on the machine meets all alike
            for name, trainer in trainers.items():
                batch = trainer.views.batch(number)
                begun = time.process_time()
                trainer.step(batch, crew)
                seconds[name].append(time.process_time() - begun)
    print({name: round(float(np.median(values[1:])), 3) for name, values in seconds.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--coco", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--split", default="val")
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--scenes", type=int, default=24)
    parser.add_argument("--clicks", type=int, default=20)
    parser.add_argument("--windows", type=int, default=4, help="windows a side, see Student.encode")
    parser.add_argument("--steps", action="store_true")
    arguments = parser.parse_args()
    if arguments.steps:
        steps()
        return
    if arguments.coco:
        source = coco_source(arguments.coco, arguments.images, arguments.split)
    else:
        source = source_of(draw(UNSEEN_SERIES, arguments.scenes))
    examples = [source[i] for i in range(min(len(source), arguments.limit))]
    begun = time.process_time()
    found = scores(Student.load(arguments.model), examples, clicks=arguments.clicks, objects=10, split=arguments.windows)
    print(len(examples), "images,", round((time.process_time() - begun) / len(examples), 2), "s of processor time an image")
    for name, value in found.items():
        print(f"{name:<14} {value:.3f}")


if __name__ == "__main__":
    main()

"""The tiny student on drawn scenes: what it learns from people's masks, from UnSAM's, from its own, and from both; beside the pool that taught it.

    python benchmarks/student.py [--scenes 400] [--unseen 60] [--steps 0] [--threads 2] [--most 60] [--keep FOLDER]
    python benchmarks/student.py --ways --keep FOLDER
    python benchmarks/student.py --chosen --keep FOLDER
    python benchmarks/student.py --memory

Scenes of one series are trained on, scenes of another are scored. Pseudo-masks: ``unsam`` as in
uss_dagster/profiles/demo.yaml, curated with the preset ``train``. Rounds:

    truth     the drawing's own masks
    pseudo    pseudo-masks alone
    self      pseudo-masks merged with what ``pseudo`` is sure of, weights from ``pseudo``
    again     pseudo-masks alone, weights from ``pseudo`` too: what more steps alone give
    plus      pseudo-masks, and the drawing's masks of every second scene merged in as UnSAM+ does

Each row: seconds of training, the share by which the loss fell, AR@1000 and one click (best score, best answer). Then, paired over scenes: the difference
of each later round to ``pseudo`` with its 95 % interval. ``--keep`` stores pictures, pools and students, so that a run that was stopped goes on.

``--ways``: the student ``truth`` of that folder, asked in one pass, in more and more windows, and without letting masks end where colours change.

``--chosen``: of UnSAM's masks of the first 24 scenes: AR@1000 of the best by quality, by score, by both, and as ``curate`` chooses them.

``--memory``: peak of a process that makes 300 masks of 1024×1024 with the network of size S, beside one that upsamples all of them at once.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from uss_dagster.runtime import peak_memory_mb, quiet_environment

quiet_environment()

import numpy as np  # noqa: E402
import pyarrow as pa  # noqa: E402

from uss_dagster import registry  # noqa: E402
from uss_dagster.artifacts.image_files import decode  # noqa: E402
from uss_dagster.backbones.base import Encoder  # noqa: E402
from uss_dagster.curation.curate import curate  # noqa: E402
from uss_dagster.curation.filters import filter_masks, mask_value  # noqa: E402
from uss_dagster.curation.human import HumanMasks, Labels, no_labels  # noqa: E402
from uss_dagster.curation.mask_pool import MaskFamily, MaskPoolParams, pool_masks, source_image_row  # noqa: E402
from uss_dagster.curation.params import CurateParams, Description  # noqa: E402
from uss_dagster.datasets.base import Sample  # noqa: E402
from uss_dagster.datasets.scenes import SPEC, Params, examples  # noqa: E402
from uss_dagster.hashing import sha256_of  # noqa: E402
from uss_dagster.metrics.base import Truth  # noqa: E402
from uss_dagster.metrics.coco.matches import Matches, match_codes  # noqa: E402
from uss_dagster.metrics.proposals import ground_truth  # noqa: E402
from uss_dagster.student.data import Source  # noqa: E402
from uss_dagster.student.evaluate import values  # noqa: E402

TRAIN_SERIES, UNSEEN_SERIES = 101, 77
SHOWN = ("ar1000", "ar100", "click_max", "click_oracle")
DESCRIPTION = Description("drawn scenes", "benchmark", "unsam", "MIT")


@dataclass(frozen=True)
class Scene:
    """codes: of the drawing's own objects and parts."""

    image_id: str
    image: np.ndarray
    sha256: str
    codes: list[bytes]


def draw(series: int, count: int) -> dict[str, Scene]:
    found = {}
    for example in examples(Params(images=count, seed=series)):
        kept, _, _ = ground_truth(Truth("classes", example.truth, SPEC.classes))
        codes = example.truth.rles()
        image = decode(example.image, example.image_id)
        found[example.image_id] = Scene(example.image_id, image, sha256_of(example.image), [codes[i] for i in kept])
    return found


class Pools:
    """``curation.tables.MaskPool`` of scenes, by ``unsam`` as the demo has it; each scene is segmented once."""

    def __init__(self, scenes: dict[str, Scene], folder: Path) -> None:
        self.scenes, self.folder = scenes, folder
        self.seconds = 0.0
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def images(self) -> pa.Table:
        return pa.concat_tables(source_image_row(s.image_id, f"{s.image_id}.jpg", s.sha256, s.image) for s in self.scenes.values())

    def masks(self) -> Iterator[tuple[str, pa.Table]]:
        import pyarrow.parquet as pq

        encoder = Encoder.of("patches", {"facets": ["keys", "tokens"]})
        method = registry.load("method", "unsam")
        params = registry.build_params(method.SPEC.params, {"leaves": {"trees": 3, "most": 400}, "pool": {"most": 400}}, "unsam")
        for scene in self.scenes.values():
            path = self.folder / f"{scene.image_id}.parquet"
            if not path.exists():
                begun = time.perf_counter()
                regions = method.segment(Sample(scene.image_id, scene.image, encoder([scene.image])[0]), params)
                self.seconds += time.perf_counter() - begun
                pq.write_table(pool_masks(scene.image_id, scene.image, [MaskFamily("unsam", regions)], MaskPoolParams(refine=False)), path)
            yield scene.image_id, pq.read_table(path)


def every_second(scenes: dict[str, Scene]) -> Labels:
    """The drawing's masks of every second scene."""
    chosen = set(sorted(scenes)[::2])

    def of(image_id: str, shape: tuple[int, int]) -> HumanMasks:
        if image_id not in chosen:
            return HumanMasks()
        codes = scenes[image_id].codes
        return HumanMasks(tuple(codes), (-1,) * len(codes), (False,) * len(codes))

    return of


def curated(pools: Pools, labels: Labels, most: int, folder: Path) -> Path:
    """All in one split: unseen scenes are of another series. most: pseudo-masks a scene."""
    if not (folder / "summary.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        curate(pools, labels, CurateParams(splits=(1.0, 0.0, 0.0), formats=(), most=most), folder, DESCRIPTION)
    return folder


def source_of(scenes: dict[str, Scene]) -> Source:
    return Source(list(scenes), lambda i: scenes[i].image, lambda i: (scenes[i].codes, np.zeros(len(scenes[i].codes), bool)))


def compare(arguments: argparse.Namespace, folder: Path) -> None:
    from uss_dagster.student.data import curated_source
    from uss_dagster.student.evaluate import difference, matches
    from uss_dagster.student.model import Student
    from uss_dagster.student.self_training import self_train_labels
    from uss_dagster.student.settings import StudentSettings
    from uss_dagster.student.training import train

    scenes, unseen = draw(TRAIN_SERIES, arguments.scenes), draw(UNSEEN_SERIES, arguments.unseen)
    print(f"{len(scenes)} scenes to learn from, {len(unseen)} unseen", flush=True)
    settings = StudentSettings("tiny", steps=arguments.steps)
    truth = source_of(unseen)
    found: dict[str, dict[str, Matches]] = {}

    def report(name: str, seconds: float, fall: float) -> None:
        scores = values(found[name])
        print(
            f"{name:8} {seconds:6.0f} s  loss -{fall:4.0%}  " + "  ".join(f"{n} {scores.get(n, float('nan')):.3f}" for n in SHOWN),
            flush=True,
        )

    pool = Pools(unseen, folder / "pool_unseen")
    found["pool"] = {}
    for image_id, rows in pool.masks():
        size = unseen[image_id].image.shape[:2]
        score = np.nan_to_num(rows["score"].to_numpy())
        found["pool"][image_id] = match_codes(size, unseen[image_id].codes, rows["rle"].to_pylist(), score, image_id=image_id)
    report("pool", pool.seconds, 0.0)

    def round_of(name: str, source: Callable[[], Source], start: Path | None = None) -> Path:
        out = folder / name
        seconds, fall = 0.0, float("nan")
        if not (out / "config.json").exists():
            result = train(source(), None, settings, out, threads=arguments.threads, start=start)
            seconds, fall = result.seconds, 1 - result.losses[-1][1] / result.losses[0][1]
        found[name] = matches(Student.load(out), truth, "union", split=arguments.split, grid=arguments.grid)
        report(name, seconds, fall)
        return out

    round_of("truth", lambda: source_of(scenes))
    pools = Pools(scenes, folder / "pool")
    read = lambda image_id: scenes[image_id].image  # noqa: E731
    pseudo = curated_source(curated(pools, no_labels, arguments.most, folder / "curated"), read)
    first = round_of("pseudo", lambda: pseudo)
    round_of("self", lambda: self_train_labels(Student.load(first), pseudo, grid=8), first)
    round_of("again", lambda: pseudo, first)
    plus = curated(pools, every_second(scenes), arguments.most, folder / "curated_plus")
    round_of("plus", lambda: curated_source(plus, read))
    for name in ("self", "again", "plus"):
        for value in ("ar1000", "click_oracle"):
            gain, low, high = difference(found["pseudo"], found[name], value)
            print(f"{name} - pseudo, {value}: {gain:+.3f} [{low:+.3f}, {high:+.3f}]")
    gain, low, high = difference(found["again"], found["self"], "ar1000")
    print(f"self - again, ar1000: {gain:+.3f} [{low:+.3f}, {high:+.3f}]")


def ways(arguments: argparse.Namespace, folder: Path) -> None:
    from uss_dagster.student.evaluate import matches
    from uss_dagster.student.model import Student

    unseen, student = source_of(draw(UNSEEN_SERIES, arguments.unseen)), Student.load(folder / "truth")
    for auto, split, snap in (("queries", 1, True), ("union", 1, True), ("union", 2, True), ("union", 4, True), ("union", 4, False)):
        begun = time.process_time()
        scores = values(matches(student, unseen, auto, split=split, grid=arguments.grid, snap=snap))  # type: ignore[arg-type]
        seconds = (time.process_time() - begun) / len(unseen)
        told = "  ".join(f"{n} {scores.get(n, float('nan')):.3f}" for n in (*SHOWN, "ar_small", "ar_medium", "ar_large"))
        print(
            f"{auto:8} split {split}  {'snapped' if snap else 'as they are':12} {seconds:4.1f} s of processor time a scene  {told}",
            flush=True,
        )


def chosen(arguments: argparse.Namespace, folder: Path) -> None:
    scenes = draw(TRAIN_SERIES, 24)
    rows = dict(Pools(scenes, folder / "pool").masks())
    ways_to_choose: dict[str, Callable[[pa.Table, tuple[int, int]], np.ndarray]] = {
        "quality": lambda table, shape: np.nan_to_num(table["quality"].to_numpy()),
        "score": lambda table, shape: np.nan_to_num(table["score"].to_numpy()),
        "both": lambda table, shape: np.nan_to_num(table["quality"].to_numpy() * table["score"].to_numpy()),
        "value": mask_value,
    }
    for most in (1000, 100, 60):
        for name, value in ways_to_choose.items():
            found = {}
            for image_id, scene in scenes.items():
                shape = scene.image.shape[:2]
                table, _ = filter_masks(rows[image_id], HumanMasks(), shape, CurateParams())
                best = table.take(np.argsort(-value(table, shape), kind="stable")[:most])
                found[image_id] = match_codes(
                    shape, scene.codes, best["rle"].to_pylist(), np.ones(best.num_rows, np.float32), image_id=image_id
                )
            print(f"the best {most:4} by {name:8} ar1000 {values(found)['ar1000']:.3f}", flush=True)


ONE = """
import numpy as np, torch
from uss_dagster.student.model import Student, build
from uss_dagster.student.settings import StudentSettings
student = Student(build(StudentSettings("S")), StudentSettings("S"))
image = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), dtype=np.uint8)
"""
CHUNKED = "found = student.masks(image, 'queries', iou=1.0)\n"
AT_ONCE = """
from uss_dagster.regions import rle
logits = student.encode(image)._decode(0, None, True)[0]
inside = torch.nn.functional.interpolate(logits[None], (1024, 1024), mode="bilinear")[0].sigmoid() > 0.5
codes = rle.encode(inside.numpy())
"""
PEAK = "import time\nfrom uss_dagster.runtime import peak_memory_mb\nprint(peak_memory_mb())\n"


def memory() -> None:
    print(f"this process: {peak_memory_mb():.0f} MiB")
    for name, code in (("few at a time, straight to codes", CHUNKED), ("all at once", AT_ONCE)):
        begun = time.perf_counter()
        out = subprocess.run([sys.executable, "-c", ONE + code + PEAK], capture_output=True, text=True, check=True).stdout
        print(f"{name:34} {float(out):7.0f} MiB at its peak, {time.perf_counter() - begun:.0f} s with torch's import")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--scenes", type=int, default=400)
    parser.add_argument("--unseen", type=int, default=60)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--split", type=int, default=4)
    parser.add_argument("--grid", type=int, default=12)
    parser.add_argument("--most", type=int, default=60)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--ways", action="store_true")
    parser.add_argument("--chosen", action="store_true")
    parser.add_argument("--memory", action="store_true")
    arguments = parser.parse_args()
    if arguments.memory:
        memory()
        return
    if arguments.ways or arguments.chosen:
        if arguments.keep is None:
            parser.error("--ways and --chosen need --keep, the folder of an earlier run")
        (ways if arguments.ways else chosen)(arguments, arguments.keep)
        return
    with tempfile.TemporaryDirectory() as scratch:
        compare(arguments, arguments.keep or Path(scratch))


if __name__ == "__main__":
    main()

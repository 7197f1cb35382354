"""Which entry to use on a person's own images, without labels: runs the entries on a sample and ranks them.

What an image gave is stored in ``DIR/.recommend`` under a hash of its file and of all that decides it, so a stopped run goes on where it was.
"""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypedDict, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from uss_dagster.artifacts.image_files import decode, read_file, read_picture, shrunk
from uss_dagster.artifacts.images import evenly_spaced
from uss_dagster.artifacts.schemas import REGIONS
from uss_dagster.artifacts.shards import map_shards, worker_count
from uss_dagster.artifacts.tables import iterate_regions, read_table, regions_to_table, write_table
from uss_dagster.backbones.base import Encoder, Features
from uss_dagster.errors import BadData, UsageError
from uss_dagster.files import make_folder, read_json, remove, write_whole
from uss_dagster.hashing import sha256_of, sha256_of_json
from uss_dagster.metrics.unlabelled.rank_model import DEEP, expected_scores, load_model
from uss_dagster.own_images import files
from uss_dagster.own_images.entries import RivalEntry, encode, has_deep_weights, make_encoders, read_entries, segment
from uss_dagster.own_images.region_files import ENTRIES, RANKING, TABLE, RegionFiles
from uss_dagster.planning.fingerprints import fingerprint
from uss_dagster.report.recommendation import PAGE, SamplePicture, write_page
from uss_dagster.scoring.label_free import FEWEST, LabelFreeRanking, rank_entries
from uss_dagster.segmenter import at_size

PRIVATE = ".recommend"
SCORES = "scores.json"
QUALITY, SUMMARY = "quality.parquet", "recommendation.json"
SHOWN = 6
"""Leading entries, and pictures, side by side on the page."""
TIMED = 2
"""Images on which entries are timed; the fastest run of each counts, since the first compiles and loads."""


@dataclass(frozen=True)
class Request:
    """What the command line asks for, see its options. sample: most images that are used. budget: seconds an image, None for any."""

    out: Path
    goal: str
    budget: float | None
    sample: int
    long_side: int


class ImageScores(TypedDict):
    """``scores.json`` of an image. expected: measure → a score an entry; regions: how many each has."""

    expected: dict[str, list[float]]
    regions: list[int]


@dataclass(frozen=True)
class Image:
    """One image: its id, its name below the folder that holds all, its file."""

    image_id: str
    name: str
    path: Path


@dataclass(frozen=True)
class ComparedImage:
    """An image that all entries have segmented."""

    image: Image
    scores: ImageScores


@dataclass(frozen=True)
class Work:
    """What a worker needs to know. key: hash of all that decides the results beside the image."""

    entries: list[RivalEntry]
    deep: bool
    long_side: int
    folder: Path
    key: str

    def folder_of(self, data: bytes) -> Path:
        """Where the results of an image lie. data: of its file."""
        return self.folder / self.key / sha256_of(data)[:32]


def recommend(paths: list[Path], request: Request, report: Callable[[str], None], report_failure: Callable[[str], None]) -> None:
    """Rank the entries on some images, and write regions, tables and a page into the folder.

    Raises
    ------
    BadData
        No image could be used.
    """
    images = _sample(paths, request, report, report_failure)
    deep = has_deep_weights()
    if not deep:
        report_failure(f"left out: all entries on the pretrained encoder; `uss weights get {DEEP}` fetches its weights.")
    entries = read_entries(deep)
    costs = _costs(images, entries, deep, request, report)
    fitting = _within_budget(entries, costs, request.budget, report)
    done = _run(images, _work(fitting, deep, request), request.out, report, report_failure)
    table = np.array([image.scores["expected"][request.goal] for image in done]).reshape(len(done), len(fitting))
    usable = np.isfinite(table).all(axis=1)
    if not usable.any():
        raise BadData(
            "Nothing can be recommended: "
            + ("no entry finds a region between 0.2 % and 95 % of any picture." if done else "none of the pictures could be used.")
        )
    names, features = [entry.name for entry in fitting], "deep" if deep else "patches"
    shown = [image for image, good in zip(done, usable, strict=True) if good]
    ids = [image.image.image_id for image in shown]
    ranking = rank_entries(names, [entry.kind for entry in fitting], ids, table[usable], load_model(features), request.goal)
    _write_tables(request, ranking, names, done, costs, features)
    titles = {entry.name: entry.full_title for entry in fitting}
    pictures = _pictures(request.out, [row.entry for row in ranking.entries[:SHOWN]], shown, table[usable])
    write_page(request.out, request.goal, features, ranking, titles, costs, pictures)
    labels = {entry.name: entry.labels for entry in fitting if entry.labels}
    for line in summary_lines(ranking, request.goal, costs, len(shown), labels):
        report(line)
    report(f"pictures side by side: {request.out / PAGE}; to be surer, label a few: `uss annotate {paths[0]} --from {request.out}`")


def _within_budget(
    entries: Sequence[RivalEntry], costs: dict[str, float], budget: float | None, report: Callable[[str], None]
) -> list[RivalEntry]:
    """The entries that take no longer an image than the budget; reports the others."""
    if budget is None:
        return list(entries)
    fitting = [entry for entry in entries if costs[entry.name] <= budget]
    for entry in entries:
        if entry not in fitting:
            report(f"left out: {entry.name} takes {costs[entry.name]:.1f} s an image, the budget is {budget:g} s")
    if len(fitting) < FEWEST:
        raise UsageError(f"{len(fitting)} entries fit a budget of {budget:g} s an image; at least {FEWEST} are compared. Raise --budget.")
    return fitting


def summary_lines(ranking: LabelFreeRanking, goal: str, costs: dict[str, float], images: int, labels: dict[str, str]) -> list[str]:
    """The ranking as text. labels: entry → labels that its weights have seen, where there are any."""
    width = max(len(row.entry) for row in ranking.entries)
    lines = [f"{'':3} {'entry':{width}}  pictures  experience  behind the first (95 %)   best  s/image"]
    for row in ranking.entries:
        behind = "" if row.rank == 1 else f"{row.behind:.3f} ({row.behind_low:+.3f} to {row.behind_high:+.3f})"
        place, cost = f"{row.rank:2}{' ' if row.apart else '*'}", costs[row.entry]
        lines.append(
            f"{place} {row.entry:{width}}  {row.score:8.3f}  {row.experience:+10.3f}  {behind:24} {row.best_chance:4.0%}  {cost:7.2f}"
            + (f"  weights have seen {labels[row.entry]}" if row.entry in labels else "")
        )
    leaders = ranking.leaders
    told = (
        f"{leaders[0]} is best"
        if len(leaders) == 1
        else f"{leaders[0]} comes first; {len(leaders) - 1} others (*) can't be told apart from it"
    )
    return [*lines, f"Without labels, on {images} pictures, goal {goal}: {told}. Expected regret of taking it: {ranking.regret:.3f}."]


# -- images and costs ---------------------------------------------------------------------------------


def _sample(paths: list[Path], request: Request, report: Callable[[str], None], report_failure: Callable[[str], None]) -> list[Image]:
    """The images to use: all, or as many as the sample holds, evenly spaced in their ids."""
    out = request.out.absolute()
    pictures = [path for path in files.pictures(paths) if out not in path.absolute().parents]
    if not pictures:
        raise UsageError(f"All pictures given lie in {request.out}, the folder of results. Choose another folder with --out.")
    files.check_out_folder(request.out)
    if request.out.is_dir() and any(request.out.iterdir()) and not (request.out / PRIVATE).is_dir():
        raise UsageError(f"{request.out} holds files, and `uss recommend` did not make them. Choose another folder with --out.")
    make_folder(request.out / PRIVATE)
    files.report_not_read(paths, report_failure)
    folder = files.common_folder(pictures)
    path_of = dict(zip(files.ids_of(pictures), pictures, strict=True))
    chosen = evenly_spaced(sorted(path_of), request.sample)
    if len(chosen) < len(path_of):
        report(f"{len(chosen)} of {len(path_of)} pictures are used, evenly spaced in their names; --sample takes more")
    return [Image(image_id, files.relative_name(path_of[image_id], folder), path_of[image_id]) for image_id in chosen]


def _costs(
    images: Sequence[Image], entries: Sequence[RivalEntry], deep: bool, request: Request, report: Callable[[str], None]
) -> dict[str, float]:
    """Seconds an image of each entry with its backbone, on this machine; measured once a folder of results, so that a run can go on."""
    path = request.out / PRIVATE / "costs.json"
    known = read_json(path)
    if set(known) == {entry.name for entry in entries}:
        return dict(known)
    report(f"timing {len(entries)} entries on {min(TIMED, len(images))} of {len(images)} pictures")
    encoders, costs = make_encoders(deep), {entry.name: np.inf for entry in entries}
    timed = 0
    for image in images:
        if timed == TIMED:
            break
        try:
            pixels = shrunk(read_picture(image.path), request.long_side)
        except BadData:
            continue  # reported when its turn comes
        timed += 1
        features: dict[str, Features] = {}
        of_backbone = {"": 0.0}
        for name, encoder in encoders.items():
            start = time.perf_counter()
            features |= encode(pixels, {name: encoder})
            of_backbone[name] = time.perf_counter() - start
        for entry in entries:
            start = time.perf_counter()
            segment(entry, image.image_id, pixels, features, encoders)
            costs[entry.name] = min(costs[entry.name], time.perf_counter() - start + of_backbone[entry.backbone])
    if not np.isfinite(list(costs.values())).all():
        return dict.fromkeys(costs, 0.0)
    write_whole(path, json.dumps({name: round(seconds, 3) for name, seconds in costs.items()}, indent=1) + "\n")
    return costs


# -- running ------------------------------------------------------------------------------------------


def _work(entries: list[RivalEntry], deep: bool, request: Request) -> Work:
    modules = [__name__, *(module for entry in entries for module in entry.segmenter.modules())]
    encoders = {name: asdict(encoder) for name, encoder in make_encoders(deep).items()}
    depends_on = [
        [(entry.name, entry.backbone, entry.segmenter.identity) for entry in entries],
        encoders,
        request.long_side,
        fingerprint(modules),
    ]
    return Work(entries, deep, request.long_side, request.out / PRIVATE, sha256_of_json(depends_on, 16))


def _run(
    images: Sequence[Image], work: Work, out: Path, report: Callable[[str], None], report_failure: Callable[[str], None]
) -> list[ComparedImage]:
    """Run all entries on all images and write the regions of each entry; returns the images that could be used."""
    for other in work.folder.iterdir():
        if other.is_dir() and other.name != work.key:  # of other entries, sizes or code
            remove(other)
    done: list[ComparedImage] = []
    with ExitStack() as stack:
        tables = {}
        for entry in work.entries:
            make_folder(out / ENTRIES / entry.name)
            tables[entry.name] = stack.enter_context(RegionFiles(out / ENTRIES / entry.name, f".{os.getpid()}"))
        results = stack.enter_context(closing(map_shards(functools.partial(_run_one, work=work), images, worker_count(len(images)))))
        for number, (image, (folder, problem)) in enumerate(zip(images, results, strict=True), start=1):
            counter = f"{number:{len(str(len(images)))}}/{len(images)}"
            if folder is None:
                report_failure(f"{counter}  left out: {problem}")
                continue
            report(f"{counter}  {image.name}")
            for entry in work.entries:
                rows = read_table(folder / f"{entry.name}.parquet", REGIONS)
                if rows.num_rows:
                    tables[entry.name].add(image.image_id, image.name, _named(rows, image.image_id))
            done.append(ComparedImage(image, cast(ImageScores, read_json(folder / SCORES))))
    for other in (out / ENTRIES).iterdir():
        if other.name not in tables:
            remove(other)
    return done


def _named(rows: pa.Table, image_id: str) -> pa.Table:
    """The rows under the id of this run, whatever the image was called when they were computed."""
    place = rows.schema.get_field_index("image_id")
    return rows.set_column(place, rows.schema.field(place), pa.array([image_id] * rows.num_rows, rows.schema.field(place).type))


def _run_one(image: Image, work: Work) -> tuple[Path | None, str]:
    """Run all entries on one image, unless an earlier run did; returns where the results lie, or why it cannot be used. Runs in a worker."""
    try:
        data = read_file(image.path)
        folder = work.folder_of(data)
        if (folder / SCORES).exists():
            return folder, ""
        pixels = decode(data, str(image.path))
    except BadData as error:
        return None, str(error)
    make_folder(folder)
    small, encoders = shrunk(pixels, work.long_side), _encoders(work.deep)
    features = encode(small, encoders)
    families = [segment(entry, image.image_id, small, features, encoders) for entry in work.entries]
    kind = "deep" if work.deep else "patches"
    scores = expected_scores(small, features[kind]["tokens"], families, [entry.method for entry in work.entries], kind)
    for entry, regions in zip(work.entries, families, strict=True):
        write_table(folder / f"{entry.name}.parquet", regions_to_table(image.image_id, at_size(regions, pixels)), REGIONS)
    rounded = {measure: [round(float(value), 6) for value in values] for measure, values in scores.items()}
    write_whole(folder / SCORES, json.dumps({"expected": rounded, "regions": [len(regions) for regions in families]}) + "\n")
    return folder, ""


@functools.cache
def _encoders(deep: bool) -> dict[str, Encoder]:
    return make_encoders(deep)


# -- results ------------------------------------------------------------------------------------------


def _write_tables(
    request: Request,
    ranking: LabelFreeRanking,
    names: Sequence[str],
    images: Sequence[ComparedImage],
    costs: dict[str, float],
    features: str,
) -> None:
    """``ranking.parquet``, ``quality.parquet`` with a row an image and entry, and ``recommendation.json``."""
    rows = [asdict(row) | {"seconds": costs[row.entry]} for row in ranking.entries]
    pq.write_table(pa.Table.from_pylist(rows), request.out / RANKING)
    quality = [
        {"image_id": image.image.image_id, "entry": name, "regions": image.scores["regions"][place]}
        | {goal: values[place] for goal, values in image.scores["expected"].items()}
        for image in images
        for place, name in enumerate(names)
    ]
    pq.write_table(pa.Table.from_pylist(quality), request.out / QUALITY)
    finite = [{key: None if value != value else value for key, value in row.items()} for row in rows]  # JSON has no NaN
    summary = {"goal": request.goal, "features": features, "images": len(images), "expected_regret": round(ranking.regret, 4)}
    write_whole(request.out / SUMMARY, json.dumps(summary | {"leaders": ranking.leaders, "entries": finite}, indent=1) + "\n")


def _pictures(out: Path, entries: Sequence[str], images: Sequence[ComparedImage], table: np.ndarray) -> Iterator[SamplePicture]:
    """The images whose expected scores differ most between entries, with the regions of the leading ones."""
    for place in np.argsort(-table.std(axis=1), kind="stable")[:SHOWN].tolist():
        image = images[place].image
        files_of = {entry: out / ENTRIES / entry / TABLE for entry in entries}
        regions = {
            entry: next((r for _, r in iterate_regions([path], {image.image_id})), None) if path.exists() else None
            for entry, path in files_of.items()
        }
        yield image.name, read_picture(image.path), regions

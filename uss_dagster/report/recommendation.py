"""The page of ``uss recommend``: the ranking, how sure it is, and the leading entries side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from uss_dagster.drawing import colour_map, flat_cut, paint, shrunk
from uss_dagster.files import make_folder, remove, write_whole
from uss_dagster.metrics.unlabelled.rank_model import LeftOut, load_model
from uss_dagster.regions import Regions
from uss_dagster.report.html import asset
from uss_dagster.report.jpeg import save_jpeg
from uss_dagster.scoring.label_free import LabelFreeRanking
from uss_dagster.templates import render

READS = ("assets", "templates")
PAGE, PICTURES = "index.html", "pictures"
N_REGIONS = 8
LONGEST = 360
"""Longer side of a picture in pixels."""
GOALS = {
    "parts": "Regions of every size: the mean, over regions that a person would annotate, of the best IoU that any region of the entry has "
    "(NMCovering).",
    "objects": "Objects found: the share of regions that a person would annotate which some region of the entry has with an IoU of at least .5.",
    "scenes": "One flat segmentation of about 16 regions: the mean best IoU of regions that a person would annotate with one of them.",
    "masks": "Precise masks: the share found, averaged over IoU from .5 to .95 (average recall).",
}
"""What is estimated for each goal."""
SamplePicture = tuple[str, np.ndarray, Mapping[str, Regions | None]]
"""Name of an image, its pixels, and the regions of entries."""


def write_page(
    out: Path,
    goal: str,
    features: str,
    ranking: LabelFreeRanking,
    titles: Mapping[str, str],
    costs: Mapping[str, float],
    pictures: Iterable[SamplePicture],
) -> None:
    """Write ``index.html`` and ``pictures/`` into a folder.

    Parameters
    ----------
    out : Path
    goal : str
        One of ``GOALS``.
    features : str
        Which model ranked.
    ranking : LabelFreeRanking
    titles, costs : mapping
        Entry → its title, and seconds an image.
    pictures : iterable of SamplePicture
        Drawn one after the other.
    """
    remove(out / PICTURES)
    make_folder(out / PICTURES)
    rows = [_draw(out, number, *picture) for number, picture in enumerate(pictures)]
    tests = [row for row in load_model(features).left_out if row["measure"] == goal]
    values = {
        "title": "Which entry for these pictures?",
        "goal": goal,
        "meaning": GOALS[goal],
        "ranking": ranking,
        "sentence": sentence(ranking, titles),
        "titles": titles,
        "costs": costs,
        "widest": max(row.score for row in ranking.entries),
        "rows": rows,
        "deep": features == "deep",
        "tests": tests,
        "tau": _mean(tests, "tau"),
        "lost": _mean(tests, "regret"),
        "page_css": asset("page.css"),
    }
    write_whole(out / PAGE, render("uss_dagster.report", "recommendation.html.j2", **values))


def sentence(ranking: LabelFreeRanking, titles: Mapping[str, str]) -> str:
    """The result in one sentence."""
    first, *others = ranking.leaders
    if not others:
        return f"{titles[first]} is expected to be best, beyond what can be explained by the sample or by the model's known errors."
    few = f"{len(others)} others" if len(others) > 1 else "one other"
    return f"{titles[first]} comes first, but {few} cannot be told apart from it without labels."


def _draw(out: Path, number: int, name: str, pixels: np.ndarray, regions: Mapping[str, Regions | None]) -> dict[str, object]:
    """Draw an image and its regions by each entry; a region has the colour of what it overlaps most in the first entry's picture."""
    small = shrunk(pixels, LONGEST)
    shapes = {}
    reference = None
    save_jpeg(out / PICTURES / f"{number}-photo.jpg", small, 85)
    for place, (entry, family) in enumerate(regions.items()):
        if family is None or not len(family):
            continue
        labels = flat_cut(family.resized(*small.shape[:2]), N_REGIONS)
        colours = colour_map(labels, reference)
        reference = colours if reference is None else reference
        file = f"{PICTURES}/{number}-{place}.jpg"
        save_jpeg(out / file, paint(small, colours), 85)
        shapes[entry] = file
    height, width = small.shape[:2]
    return {"name": name, "photo": f"{PICTURES}/{number}-photo.jpg", "entries": shapes, "height": height, "width": width}


def _mean(tests: list[LeftOut], column: str) -> float:
    values = [float(row[column]) for row in tests]  # type: ignore[literal-required]
    return sum(values) / len(values) if values else float("nan")

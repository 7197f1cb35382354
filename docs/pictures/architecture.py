"""Draws docs/images/architecture.svg: what people edit, what is planned from it, the stages and their artefacts, and who runs them.

Run it from the project folder: ``python docs/pictures/architecture.py``. The same code gives the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

TARGET = Path("docs/images/architecture.svg")
INK, GREY = "#1f2933", "#6b7785"
COLOURS = {"edit": "#fdf3d8", "plan": "#e4eefb", "stage": "#e3f4e6", "run": "#f6e4ee", "show": "#ece6f8"}


@dataclass(frozen=True)
class Box:
    """A labelled box; x and y are its centre."""

    title: str
    text: str
    x: float
    y: float
    colour: str
    width: float = 2.1
    height: float = 0.86


BOXES = {
    "params": Box("params.yaml, profiles/", "what to run", 1.3, 6.1, "edit"),
    "code": Box("uss_dagster/", "code and plug-ins", 1.3, 4.9, "edit"),
    "plan": Box("uss plan", "typed cells,\ncode fingerprints", 4.2, 5.5, "plan", height=1.1),
    "files": Box("dvc.yaml, pipelines/", "one stage and one\nparameter file a cell", 7.1, 5.5, "plan", 2.3, 1.1),
    "dvc": Box("DVC", "decides what is stale,\nrecords hashes in dvc.lock", 10.2, 6.1, "run", 2.5),
    "dagster": Box("Dagster", "decides when and where,\nshows assets and checks", 10.2, 4.9, "run", 2.5),
    "datasets": Box("datasets", "images, truth", 1.3, 2.9, "stage"),
    "features": Box("features", "of a backbone", 4.2, 3.4, "stage"),
    "segments": Box("segments", "regions of an entry", 7.1, 2.9, "stage"),
    "labels": Box("labels", "same over a dataset", 9.5, 3.85, "stage", 1.9),
    "scores": Box("scores", "against the truth", 11.9, 2.9, "stage"),
    "estimates": Box("estimates", "without a truth", 11.0, 1.5, "stage"),
    "pool": Box("mask_pool", "masks, measured", 7.1, 0.7, "stage"),
    "curated": Box("curated", "training set", 4.2, 0.7, "stage"),
    "models": Box("models", "trained students", 1.3, 0.7, "stage"),
    "leaderboard": Box("leaderboard", "ranks, intervals", 14.6, 2.9, "show"),
    "site": Box("site", "page and explorer", 14.6, 1.5, "show"),
}
ARROWS = (
    ("params", "plan"),
    ("code", "plan"),
    ("plan", "files"),
    ("files", "dvc"),
    ("files", "dagster"),
    ("datasets", "features"),
    ("features", "segments"),
    ("datasets", "segments"),
    ("segments", "scores"),
    ("segments", "labels"),
    ("labels", "scores"),
    ("segments", "estimates"),
    ("estimates", "site"),
    ("segments", "pool"),
    ("pool", "curated"),
    ("curated", "models"),
    ("scores", "leaderboard"),
    ("leaderboard", "site"),
)


def draw() -> Figure:
    """The picture."""
    figure = Figure(figsize=(15.8, 6.8))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, 15.8)
    axes.set_ylim(0, 6.8)
    axes.axis("off")
    for start, end in ARROWS:
        axes.add_patch(_arrow(BOXES[start], BOXES[end]))
    axes.add_patch(_arrow(BOXES["dagster"], BOXES["dvc"]))
    axes.text(10.35, 5.5, "runs dvc repro\non one stage", fontsize=9, color=GREY, va="center")
    axes.text(0.25, 4.05, "each stage is one run of  uss stage FILE", fontsize=9, color=GREY)
    for box in BOXES.values():
        left, bottom = box.x - box.width / 2, box.y - box.height / 2
        style = "round,pad=0,rounding_size=0.12"
        axes.add_patch(FancyBboxPatch((left, bottom), box.width, box.height, boxstyle=style, facecolor=COLOURS[box.colour], edgecolor=GREY))
        axes.text(box.x, box.y + box.height / 2 - 0.22, box.title, ha="center", va="center", fontsize=11, weight="bold", color=INK)
        axes.text(box.x, box.y - 0.16, box.text, ha="center", va="center", fontsize=9, color=INK, linespacing=1.2)
    return figure


def _arrow(start: Box, end: Box) -> FancyArrowPatch:
    """From the edge of one box to the edge of another, along the longer distance."""
    if abs(end.x - start.x) > abs(end.y - start.y):
        side = 1 if end.x > start.x else -1
        points = (start.x + side * start.width / 2, start.y), (end.x - side * end.width / 2, end.y)
    else:
        side = 1 if end.y > start.y else -1
        points = (start.x, start.y + side * start.height / 2), (end.x, end.y - side * end.height / 2)
    return FancyArrowPatch(*points, arrowstyle="-|>", mutation_scale=12, color=GREY, linewidth=1.1)


def main() -> None:
    mpl.rcParams.update({"svg.hashsalt": "uss_dagster", "svg.fonttype": "none", "font.family": "sans-serif"})
    FigureCanvasSVG(draw()).print_svg(str(TARGET), metadata={"Date": None})


if __name__ == "__main__":
    main()

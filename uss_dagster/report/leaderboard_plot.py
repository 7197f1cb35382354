"""The leaderboard as figures: entries below each other, a dot for the value, a bar for its interval."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from uss_dagster.report.leaderboard import Row, by_ranking, entry_order, rows_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_PANELS = 6
MOST_METRICS = 3
"""Metrics side by side in a dataset's figure."""
MOST_ENTRIES = 40
BEST, OTHER, GRID = "#0b6e63", "#5b6770", "#e3e6e8"
_STYLE: Any = {"svg.hashsalt": "uss_dagster", "svg.fonttype": "path", "font.family": "DejaVu Sans", "font.size": 9.0}


def leaderboard_picture(frame: pd.DataFrame) -> bytes | None:
    """A PNG of each dataset's first metric; None without rows. frame: the result of ``leaderboard.read``."""
    rows = rows_of(frame)
    datasets = list(dict.fromkeys(row.dataset for row in rows))[:MOST_PANELS]
    if not datasets:
        return None
    by_dataset = [[row for row in rows if row.dataset == dataset] for dataset in datasets]
    heights = [0.9 + 0.28 * len({row.entry for row in of_dataset}) for of_dataset in by_dataset]
    figure = _figure(7.5, sum(heights), dpi=100)
    panels = figure.subplots(len(datasets), 1, squeeze=False, height_ratios=heights)[:, 0]
    for panel, of_dataset in zip(panels, by_dataset, strict=True):
        first = of_dataset[0]
        better = "higher" if first.higher_is_better else "lower"
        _draw_ranking(panel, by_ranking(of_dataset)[first.ranking], entry_order(of_dataset), _titles(of_dataset))
        panel.set_title(f"{first.dataset}: {_plain(first.metric_title)} ({better} is better)", loc="left", fontsize=10)
    return _file(figure, "png")


def dataset_figures(rows: Sequence[Row], title: str) -> Mapping[str, bytes]:
    """'svg' and 'png' of one dataset's first metrics side by side, details and oracles left out where there are others."""
    import matplotlib

    if not rows:
        return {}
    plain = [row for row in rows if not row.detail and not row.oracle] or rows
    groups = list(by_ranking(plain).values())[:MOST_METRICS]
    order = entry_order(plain)
    names = order[:MOST_ENTRIES]
    with matplotlib.rc_context(_STYLE):
        figure = _figure(2.6 + 2.3 * len(groups), 1.0 + 0.26 * len(names), dpi=200)
        panels = figure.subplots(1, len(groups), squeeze=False, sharey=True)[0]
        for panel, group in zip(panels, groups, strict=True):
            _draw_ranking(panel, group, names, _titles(rows))
            panel.set_title(f"{_plain(group[0].metric_title)} {'↑' if group[0].higher_is_better else '↓'}", loc="left", fontsize=8.5)
        remark = f" (best {len(names)} of {len(order)} entries)" if len(order) > len(names) else ""
        figure.suptitle(title + remark, fontsize=10, x=0.01, ha="left")
        return {kind: _file(figure, kind) for kind in ("svg", "png")}


def _figure(width: float, height: float, dpi: int) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=dpi, layout="constrained")


def _titles(rows: Sequence[Row]) -> dict[str, str]:
    return {row.entry: row.title for row in rows}


def _draw_ranking(panel: Axes, group: Sequence[Row], names: Sequence[str], titles: Mapping[str, str]) -> None:
    """A dot and a bar for each row of a ranking, the entries below each other as ``names`` has them."""
    rows = [row for row in group if row.entry in names and not math.isnan(row.value)]
    places = [names.index(row.entry) for row in rows]
    colours = [BEST if row.tied_with_best else OTHER for row in rows]
    panel.hlines(places, [row.low for row in rows], [row.high for row in rows], colors=colours, linewidth=2)
    panel.scatter([row.value for row in rows], places, c=colours, s=36, zorder=3)
    panel.set_yticks(range(len(names)), [_plain(titles[name]) for name in names])
    panel.set_ylim(len(names) - 0.5, -0.5)
    panel.grid(axis="x", color=GRID)
    panel.set_axisbelow(True)
    for side in ("top", "right", "left"):
        panel.spines[side].set_visible(False)
    panel.tick_params(axis="y", length=0)


def _plain(text: str) -> str:
    """Text in which matplotlib finds no formula."""
    return text.replace("$", r"\$")


def _file(figure: Figure, kind: str) -> bytes:
    """The file's bytes, without the date and the program's version."""
    target = io.BytesIO()
    figure.savefig(target, format=kind, metadata={"Software": None} if kind == "png" else {"Date": None, "Creator": None})
    return target.getvalue()

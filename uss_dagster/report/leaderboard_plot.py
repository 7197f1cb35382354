"""The leaderboard as figures: entries below each other, a dot for the value, a bar for its interval."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from uss_dagster.report.leaderboard import GROUP, entry_order

MOST_PANELS = 6
MOST_METRICS = 3
"""Metrics side by side in a dataset's figure."""
MOST_ENTRIES = 40
BEST, OTHER, GRID = "#0b6e63", "#5b6770", "#e3e6e8"
_STYLE: Any = {"svg.hashsalt": "uss_dagster", "svg.fonttype": "path", "font.family": "DejaVu Sans", "font.size": 9.0}


def leaderboard_picture(frame: pd.DataFrame) -> bytes | None:
    """A PNG of each dataset's first metric; None without rows. frame: as ``leaderboard.read`` gives it."""
    datasets = list(frame["dataset"].unique())[:MOST_PANELS]
    if not datasets:
        return None
    entries = [entry_order(frame[frame["dataset"] == dataset]) for dataset in datasets]
    heights = [0.9 + 0.28 * len(names) for names in entries]
    figure = _figure(7.5, sum(heights), dpi=100)
    panels = figure.subplots(len(datasets), 1, squeeze=False, height_ratios=heights)[:, 0]
    for panel, dataset, names in zip(panels, datasets, entries, strict=True):
        here = frame[frame["dataset"] == dataset]
        _panel(panel, here, _group(here, here.iloc[0]), names, f"{dataset}: ")
    return _saved(figure, "png")


def dataset_figures(frame: pd.DataFrame, title: str) -> Mapping[str, bytes]:
    """'svg' and 'png' of one dataset's first metrics side by side, details and oracles left out where there are others."""
    import matplotlib

    if frame.empty:
        return {}
    plain = frame[~frame["detail"] & ~frame["oracle"]]
    shown = frame if plain.empty else plain
    firsts = [group.iloc[0] for _, group in shown.groupby(GROUP, sort=False)][:MOST_METRICS]
    names = entry_order(shown)[:MOST_ENTRIES]
    with matplotlib.rc_context(_STYLE):
        figure = _figure(2.6 + 2.3 * len(firsts), 1.0 + 0.26 * len(names), dpi=200)
        panels = figure.subplots(1, len(firsts), squeeze=False, sharey=True)[0]
        for panel, first in zip(panels, firsts, strict=True):
            _panel(panel, frame, _group(frame, first), names, "")
        left_out = len(entry_order(shown)) - len(names)
        figure.suptitle(
            title + (f" (best {len(names)} of {len(names) + left_out} entries)" if left_out else ""), fontsize=10, x=0.01, ha="left"
        )
        return {kind: _saved(figure, kind) for kind in ("svg", "png")}


def _figure(width: float, height: float, dpi: int) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=dpi, layout="constrained")


def _group(frame: pd.DataFrame, first: Any) -> pd.DataFrame:
    """The ranking that a row stands in, by entry."""
    return frame[frame[GROUP].eq([first[c] for c in GROUP]).all(axis=1)].set_index("entry")


def _panel(panel: Any, frame: pd.DataFrame, group: pd.DataFrame, names: Sequence[str], before: str) -> None:
    first = group.iloc[0]
    shown = group[group.index.isin(names) & group["value"].notna()]
    places = [names.index(name) for name in shown.index]
    colours = [BEST if tied else OTHER for tied in shown["tied_with_best"]]
    panel.hlines(places, shown["low"], shown["high"], colors=colours, linewidth=2)
    panel.scatter(shown["value"], places, c=colours, s=36, zorder=3)
    titles = dict(zip(frame["entry"], frame["title"], strict=True))
    panel.set_yticks(range(len(names)), [_plain(titles[name]) for name in names])
    panel.set_ylim(len(names) - 0.5, -0.5)
    better, arrow = ("higher", "↑") if first["higher_is_better"] else ("lower", "↓")
    title = f"{before}{_plain(first['metric_title'])}"
    panel.set_title(f"{title} ({better} is better)" if before else f"{title} {arrow}", loc="left", fontsize=10 if before else 8.5)
    panel.grid(axis="x", color=GRID)
    panel.set_axisbelow(True)
    for side in ("top", "right", "left"):
        panel.spines[side].set_visible(False)
    panel.tick_params(axis="y", length=0)


def _plain(text: Any) -> str:
    """Text in which matplotlib finds no formula."""
    return str(text).replace("$", r"\$")


def _saved(figure: Any, kind: str) -> bytes:
    """The bytes, without the date and the program's version."""
    target = io.BytesIO()
    figure.savefig(target, format=kind, metadata={"Software": None} if kind == "png" else {"Date": None, "Creator": None})
    return target.getvalue()

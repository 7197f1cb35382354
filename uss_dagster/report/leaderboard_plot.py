"""The leaderboard as a picture: for each dataset its first metric, one line an entry, value and interval."""

from __future__ import annotations

import io

import pandas as pd

from uss_dagster.report.leaderboard import GROUP, entry_order

MOST_PANELS = 6


def leaderboard_picture(frame: pd.DataFrame) -> bytes | None:
    """A PNG; None without rows. frame: as ``leaderboard.read`` gives it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    datasets = list(frame["dataset"].unique())[:MOST_PANELS]
    if not datasets:
        return None
    entries = [entry_order(frame[frame["dataset"] == dataset]) for dataset in datasets]
    heights = [0.9 + 0.28 * len(names) for names in entries]
    figure = Figure(figsize=(7.5, sum(heights)), dpi=100, layout="constrained")
    panels = figure.subplots(len(datasets), 1, squeeze=False, height_ratios=heights)[:, 0]
    for panel, dataset, names in zip(panels, datasets, entries, strict=True):
        here = frame[frame["dataset"] == dataset]
        first = here.iloc[0]
        group = here[here[GROUP].eq(first[GROUP].tolist()).all(axis=1)].set_index("entry")
        for place, name in enumerate(names):
            if name not in group.index or pd.isna(group.at[name, "value"]):
                continue
            row = group.loc[name]
            colour = "#0b6e4f" if row["tied_with_best"] else "#5b6770"
            if pd.notna(row["low"]):
                panel.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=2, solid_capstyle="butt")
            panel.plot([row["value"]], [place], "o", color=colour, markersize=6)
        panel.set_yticks(range(len(names)), [str(here[here["entry"] == name]["title"].iloc[0]) for name in names])
        panel.set_ylim(len(names) - 0.5, -0.5)
        panel.set_title(
            f"{dataset}: {first['metric_title']} ({'higher' if first['higher_is_better'] else 'lower'} is better)", loc="left", fontsize=10
        )
        panel.grid(axis="x", color="#e3e6e8")
        panel.set_axisbelow(True)
        for side in ("top", "right", "left"):
            panel.spines[side].set_visible(False)
        panel.tick_params(axis="y", length=0)
    target = io.BytesIO()
    FigureCanvasAgg(figure).print_png(target, metadata={"Software": None})
    return target.getvalue()

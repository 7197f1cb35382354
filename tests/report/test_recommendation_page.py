"""The page of ``uss recommend`` in a browser, from a made-up ranking."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from axe import AUDITED, axe_source, layout_shift, violations
from devtools import Page

from uss_dagster.regions import Regions
from uss_dagster.report.recommendation import write_page
from uss_dagster.scoring.label_free import LabelFreeRanking, RankedEntry


def test_axe_finds_nothing_and_nothing_moves(tab: Page, tmp_path: Path) -> None:
    rows = [
        RankedEntry(1, "first", 0.61, 0.02, 0.0, math.nan, math.nan, False, 0.7),
        RankedEntry(2, "second", 0.58, -0.01, 0.03, -0.01, 0.07, False, 0.3),
        RankedEntry(3, "third", 0.40, -0.05, 0.21, 0.1, 0.32, True, 0.0),
    ]
    labels = np.indices((60, 80)).sum(axis=0) // 40
    photo = np.repeat((labels * 60).astype(np.uint8)[..., None], 3, axis=2)
    pictures = [("a photo", photo, {row.entry: Regions.from_label_map(labels) for row in rows})]
    titles = {row.entry: row.entry.capitalize() for row in rows}
    write_page(tmp_path, "parts", "patches", LabelFreeRanking(rows, 0.01), titles, dict.fromkeys(titles, 0.5), pictures)
    for width, scheme in AUDITED:
        tab.open((tmp_path / "index.html").as_uri(), width, 900, scheme, touch=width < 500)
        assert layout_shift(tab) <= 0.01, width
        assert tab.ask("document.documentElement.scrollWidth") == width
        assert violations(tab, axe_source()) == [], (width, scheme)

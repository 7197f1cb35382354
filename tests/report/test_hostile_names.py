"""Names and texts of datasets, entries and images that look like HTML: no page, script or table takes them for it."""

from __future__ import annotations

import dataclasses
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from devtools import Page
from small_benchmark import DATASETS, ENTRIES, METRICS, make_cells

from uss_dagster.regions import Regions
from uss_dagster.report import leaderboard, site
from uss_dagster.report.evidence import Evidence, Gallery, GalleryImage
from uss_dagster.report.facts import Check, ClassFacts, Parameter
from uss_dagster.report.html import link_parts
from uss_dagster.report.leaderboard import Ranking
from uss_dagster.report.published import PublishedRow
from uss_dagster.report.site_pictures import Picture

pytestmark = pytest.mark.filterwarnings("ignore:constrained_layout not applied")  # the titles are wider than their figure
HOSTILE = """</script></title>'"><img src=x onerror="window.HACKED = 1">&{{ 7 * 7 }}"""
WITH_LINK = f'{HOSTILE} https://example.org/"onmouseover="window.HACKED=1 javascript:alert(1)'


class Elements(HTMLParser):
    """Collects the elements whose attributes or name no page of ours has."""

    def __init__(self) -> None:
        super().__init__()
        self.foreign: list[tuple[str, list[tuple[str, str | None]]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        address = dict(attrs).get("href") or ""
        if any(name.startswith("on") for name, _ in attrs) or address.startswith("javascript") or dict(attrs).get("src") == "x":
            self.foreign.append((tag, attrs))


@pytest.fixture(scope="module")
def hostile_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small benchmark with every text hostile, and entry beta and dataset dogs named so."""
    home = tmp_path_factory.mktemp("hostile")
    entry = dataclasses.replace(
        ENTRIES["alpha"],
        **dict.fromkeys(("title", "method", "backbone", "licence", "summary"), HOSTILE),
        paper=WITH_LINK,
        params={HOSTILE: HOSTILE, "list": [HOSTILE]},
        parameters=[Parameter(HOSTILE, HOSTILE, None, [HOSTILE, "b"], HOSTILE), Parameter("p", 1, 2, kind=HOSTILE)],
    )
    dataset = dataclasses.replace(
        DATASETS["cats"],
        **dict.fromkeys(("title", "kind", "truth", "licence", "version"), HOSTILE),
        citation=WITH_LINK,
        homepage=WITH_LINK,
        splits={HOSTILE: 3},
        checks=[Check(HOSTILE, False, HOSTILE)],
        classes=[ClassFacts(HOSTILE, -1, HOSTILE, 1.0, 1), ClassFacts(HOSTILE, 0, HOSTILE, 0.5, 1)],
        published=[PublishedRow(HOSTILE, HOSTILE, HOSTILE, True, {"overlap": 0.5})],
    )
    metrics = {name: dataclasses.replace(facts, title=HOSTILE, family=HOSTILE) for name, facts in METRICS.items()}
    entries = {name: dataclasses.replace(facts, title=HOSTILE) for name, facts in ENTRIES.items()} | {HOSTILE: entry}
    frame = leaderboard.build(make_cells(home), entries, DATASETS, metrics).replace({"beta": HOSTILE, "dogs": HOSTILE})
    regions = Regions.from_label_map(np.indices((30, 40)).sum(axis=0) // 20)
    pixels = np.zeros((30, 40, 3), np.uint8)
    gallery = Gallery(Ranking(HOSTILE, "overlap", "loose", "image", "full"), [GalleryImage(HOSTILE, HOSTILE, 0.5)])
    evidence = Evidence(galleries={HOSTILE: gallery}, skipped={HOSTILE: [HOSTILE]})
    return site.build(
        home / "site",
        frame,
        entries,
        {"cats": dataset, HOSTILE: dataset},
        metrics,
        [Picture(HOSTILE, HOSTILE, pixels, regions, {HOSTILE: regions})],
        lambda name: evidence,
    ).parent


def test_no_text_becomes_an_element(hostile_site: Path) -> None:
    pages = sorted(hostile_site.rglob("*.html"))
    assert len(pages) == 6 + 4 + 2
    for page in pages:
        elements = Elements()
        elements.feed(page.read_text(encoding="utf-8"))
        assert elements.foreign == [], page
        assert page.parent == hostile_site or "{{ 7 * 7 }}" in page.read_text(encoding="utf-8"), "a text is no template"
    for file in (*pages, *hostile_site.rglob("*.js")):
        text = file.read_text(encoding="utf-8")
        assert "<img src=x" not in text, file


def test_names_stay_inside_the_folder(hostile_site: Path) -> None:
    for path in hostile_site.rglob("*"):
        assert not set("<>'\"&{} ") & set(path.name), path


def test_a_browser_runs_nothing_of_them(tab: Page, hostile_site: Path) -> None:
    for page in sorted(hostile_site.rglob("*.html")):
        tab.open(page.as_uri())
        tab.ask("new Promise(done => setTimeout(done, 60))")
        assert tab.ask("window.HACKED === undefined"), page


def test_addresses_are_links_and_nothing_else_is() -> None:
    assert link_parts("See https://example.org/a?b=1. arXiv 2412.04678; javascript:alert(1)") == [
        ("See ", ""),
        ("https://example.org/a?b=1", "https://example.org/a?b=1"),
        (". ", ""),
        ("arXiv 2412.04678", "https://arxiv.org/abs/2412.04678"),
        ("; javascript:alert(1)", ""),
    ]
    assert link_parts(None) == link_parts("") == []

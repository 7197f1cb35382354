"""A dataset without scores on the site: its pictures with all entries side by side, and no ranking."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from devtools import Page
from small_benchmark import DATASETS, ENTRIES, METRICS, evidence, make_cells, pictures

from uss_dagster.regions import Regions
from uss_dagster.report import leaderboard, site
from uss_dagster.report.facts import DatasetFacts, EntryFacts
from uss_dagster.report.site_pictures import Picture

PHOTOS = ("boat", "tree", "zebra")
TITLE = "Deep [weights have seen labels of saliency]"
DEEP = EntryFacts(TITLE, "alpha", "saliency", weights_labels="labels of saliency", versions={"photos": "code-deep"})
ALPHA = dataclasses.replace(ENTRIES["alpha"], versions={"cats": "code-alpha", "photos": "code-alpha-photos"})


def photos() -> Iterator[Picture]:
    rng = np.random.default_rng(3)
    for name in PHOTOS:
        labels = np.indices((40, 60)).sum(axis=0) // 25
        regions = {"alpha": Regions.from_label_map(labels), "deep": Regions.from_label_map(labels // 2)}
        yield Picture("photos", name, rng.integers(0, 256, (40, 60, 3), dtype=np.uint8), None, regions)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small benchmark's site with three photos that only alpha and a deep entry ran on."""
    home = tmp_path_factory.mktemp("unscored")
    cells = make_cells(home)
    entries = {**ENTRIES, "alpha": ALPHA, "deep": DEEP}
    datasets = {**DATASETS, "photos": DatasetFacts(title="Photos", images=3, truth="none", version="data-photos")}

    def all_pictures() -> Iterator[Picture]:
        yield from photos()
        yield from pictures()

    target = home / "reports" / "site"
    site.build(target, leaderboard.build(cells, entries, datasets, METRICS), entries, datasets, METRICS, all_pictures(), evidence(cells))
    for name in ("costs.js", "history.js"):
        (target.parent / name).write_text("", encoding="utf-8")
    return target


def test_an_entry_without_scores_has_a_page_that_names_the_labels_of_its_weights(pages: Path) -> None:
    deep = (pages / "methods" / "deep.html").read_text()
    assert f"<h1>{TITLE}" in deep
    assert "its weights have seen labels of saliency" in deep
    assert "None: it runs only on datasets without ground truth." in deep
    assert "uss repro segments/deep/photos" in deep
    assert "code-deep" in deep
    assert "data-photos" in deep
    assert deep.count('class="gallery-row"') == len(PHOTOS)
    alpha = (pages / "methods" / "alpha.html").read_text()
    for part in ("uss repro scores/alpha/cats", "uss repro segments/alpha/photos", "code-alpha-photos", "On Photos", "On Cats"):
        assert part in alpha
    beta = (pages / "methods" / "beta.html").read_text()
    assert "segments/beta" not in beta


def test_its_page_shows_all_pictures_and_no_leaderboard(pages: Path) -> None:
    page = (pages / "datasets" / "photos.html").read_text()
    assert "Its leaderboard" not in page
    assert "All its images." in page
    assert page.count('class="picture-row"') == 3, "the photo, alpha and the deep entry"


def test_the_first_page_counts_what_is_scored_and_shows_the_photos(pages: Path) -> None:
    page = (pages / "index.html").read_text()
    assert "4 entries on 2 datasets" in page
    for name in PHOTOS:
        assert f'href="explorer.html#d=photos&amp;i={name}"' in page


def test_in_a_browser_entries_stand_side_by_side_and_rankings_come_back(pages: Path, tab: Page) -> None:
    tab.complaints.clear()
    tab.open("about:blank")
    tab.open(f"{pages.as_uri()}/index.html#d=photos")
    shown = "[...document.querySelectorAll('#pictures figcaption b')].map((b) => b.textContent)"
    assert tab.ask(shown) == ["Photo", "Alpha", TITLE]
    hidden = "['ranked', 'all', 'metric', 'protocol'].map((id) => !document.getElementById(id).offsetParent)"
    assert tab.ask(hidden) == [True] * 4
    assert "no ground truth" in tab.ask("document.getElementById('looks-facts').textContent")
    pick = "((id, value) => { const e = document.getElementById(id); e.value = value; e.dispatchEvent(new Event('change')); })"
    tab.ask(f"{pick}('image', '2')")
    assert tab.ask("document.querySelector('#pictures img').alt") == "Photo, image zebra"
    tab.ask(f"{pick}('backbone', 'saliency')")
    assert tab.ask(shown) == ["Photo", TITLE]
    tab.ask(f"{pick}('backbone', '')")
    tab.ask(f"{pick}('dataset', 'cats')")
    assert tab.ask("new Promise((done) => setTimeout(() => done(document.querySelectorAll('#rows tr').length), 300))") == 4
    assert tab.ask(hidden) == [False, False, False, False]
    tab.open(f"{pages.as_uri()}/explorer.html#d=photos&i=tree")
    ready = (
        "new Promise((done) => { const look = () => (window.USS.explorer.columns().length > 2 ? done() : setTimeout(look, 50)); look(); })"
    )
    tab.ask(f"{ready}.then(() => 0)")
    assert tab.ask("window.USS.explorer.columns().map((column) => column.id)") == ["~photo", "alpha", "deep"]
    assert tab.complaints == []

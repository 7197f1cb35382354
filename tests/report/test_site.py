"""The page: escaping, determinism, and how it behaves in a real browser."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from devtools import Page, browser, find_chromium
from small_benchmark import DATASETS, ENTRIES, METRICS

from uss_dagster.regions import Regions
from uss_dagster.report import leaderboard, site

COSTS = {
    "alpha": {"cats": {"seconds_per_image": 2.5, "peak_memory_mb": 900.0, "device": "cpu </script>", "images": 40}},
    "beta": {"cats": {"seconds_per_image": 0.25, "peak_memory_mb": float("nan"), "device": "cpu", "images": 40}},
}


def pictures() -> Iterator[site.Picture]:
    rng = np.random.default_rng(0)
    for number, (height, width) in enumerate(((40, 60), (60, 40))):
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        labels = np.indices((height, width)).sum(axis=0) // 20
        found = {"alpha": Regions.from_label_map(labels)} | ({"beta": Regions.from_label_map(labels % 2)} if number else {})
        yield "cats", f"a/b <{number}>", image, Regions.from_label_map(labels), found


@pytest.fixture
def folder(cells: list[Path], tmp_path: Path) -> Path:
    frame = leaderboard.build(cells, ENTRIES, DATASETS, METRICS)
    site.build(tmp_path / "reports" / "site", frame, ENTRIES, DATASETS, METRICS, pictures())
    (tmp_path / "reports" / "costs.js").write_text(site.costs_js(COSTS))
    return tmp_path / "reports" / "site"


class Tags(HTMLParser):
    """Collects tags; complains about an end tag that closes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.scripts += tag == "script"
        self.ids += [found["id"] or ""] if "id" in found else []
        self.links += [v or "" for k, v in attrs if k in ("href", "src", "data-flat", "data-lines")]
        if tag not in ("meta", "link", "img", "br", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing at {self.getpos()}"


def test_the_page_is_sound(folder: Path) -> None:
    tags = Tags()
    tags.feed((folder / "index.html").read_text())
    assert not tags.open
    assert len(tags.ids) == len(set(tags.ids))
    assert tags.scripts == 2, "costs.js and the page's own script; a title cannot add one"
    for link in tags.links:
        if link.startswith("#"):
            assert link[1:] in tags.ids
        elif not link.startswith(("https://example.org/", "data:,")):
            assert (folder / link).resolve().is_file(), link
    assert not re.search(r"src=\"(https?:)?//", (folder / "index.html").read_text()), "nothing is loaded from the network"


def test_what_is_data_is_escaped_and_what_matters_is_said(folder: Path) -> None:
    page = (folder / "index.html").read_text()
    assert "Beta &lt;script&gt;" in page
    assert "dvc repro scores@alpha__cats" in page
    assert "evenly spaced in the sorted image ids" in page
    assert "Not run on this dataset: Gamma, Labelled." in page
    assert "Best without labels: Alpha" in page or "Best without labels: Gamma" in page
    assert 'href="https://example.org/paper?a=1&amp;b=2"' in page
    assert "Cat et al." in page


def test_same_inputs_same_files(cells: list[Path], folder: Path, tmp_path: Path) -> None:
    frame = leaderboard.build(cells[::-1], ENTRIES, DATASETS, METRICS)
    site.build(tmp_path / "again", frame, ENTRIES, DATASETS, METRICS, pictures())
    files = [p.relative_to(folder) for p in sorted(folder.rglob("*")) if p.is_file()]
    assert len(files) == 1 + 2 * 3 + 3 * 2, "the page; photo and truth of two images; three segmentations in two views"
    for name in files:
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


def test_no_scores_no_pictures(tmp_path: Path) -> None:
    page = site.build(tmp_path, leaderboard.build([], ENTRIES, DATASETS, METRICS), ENTRIES, DATASETS, METRICS)
    assert "No scores yet" in page.read_text()


def test_costs_are_plain_data() -> None:
    text = site.costs_js(COSTS)
    assert "</script>" not in text
    facts = json.loads(text.removeprefix("window.USS_COSTS = ").removesuffix(";\n"))
    assert facts["beta"]["cats"]["peak_memory_mb"] is None
    assert facts["alpha"]["cats"]["device"] == "cpu </script>"
    assert site.costs_js({}) == "window.USS_COSTS = {};\n"
    assert site.costs_table(COSTS).splitlines()[2] == "beta,cats,0.25,,cpu,40"


@pytest.mark.parametrize("values", [[0.5, 0.5], [0.31, 0.62], [1e-4, 2e-4], [1.2, 240.0], [-3.0, 5.0]])
def test_axes_hold_all_values_and_have_few_round_ticks(values: list[float]) -> None:
    import pandas as pd

    low, high, ticks = site._axis(pd.DataFrame({"value": values, "low": values, "high": values}))
    assert low < min(values) <= max(values) < high
    assert 1 <= len(ticks) <= 5
    assert all(low <= t <= high for t in ticks)


# -- in a browser ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tab() -> Iterator[Page]:
    executable = find_chromium()
    if executable is None:
        pytest.skip("NOT TESTED IN A BROWSER: no chromium here (Debian: apt-get install chromium).")
    pytest.importorskip("websockets.sync.client", reason="NOT TESTED IN A BROWSER: the DevTools protocol needs the package websockets.")
    with browser(executable) as page:
        yield page


FIRST = "document.querySelector('.ranking')"
NAMES = f"[...{FIRST}.tBodies[0].rows].map(r => r.cells[1].querySelector('a').textContent.split(' ')[0])"


def test_sorting_tabs_views_and_costs_work_without_complaints(tab: Page, folder: Path) -> None:
    tab.complaints.clear()
    tab.open((folder / "index.html").as_uri())
    assert tab.ask(NAMES)[0] == "Labelled"
    assert tab.ask("document.querySelectorAll('.panel:not([hidden])').length") == 2, "one panel a dataset"

    head = f"{FIRST}.tHead.rows[0].cells"
    tab.ask(f"{head}[1].querySelector('button').focus()")
    tab.press("Enter")
    assert tab.ask(NAMES) == ["Alpha", "Beta", "Gamma", "Labelled"]
    assert tab.ask(f"[...{head}].map(h => h.getAttribute('aria-sort'))") == [None, "ascending", None, None, None]
    tab.press("Enter")
    assert tab.ask(NAMES) == ["Labelled", "Gamma", "Beta", "Alpha"]
    tab.ask(f"{head}[2].querySelector('button').click()")
    assert tab.ask(f"[...{FIRST}.tBodies[0].rows].map(r => r.cells[0].textContent)") == ["1", "2", "3", "4"]
    tab.ask(f"{head}[3].querySelector('button').click()")
    assert tab.ask(NAMES)[:2] == ["Beta", "Alpha"], "fastest first, unknown last"
    costs = tab.ask(f"[...{FIRST}.tBodies[0].rows].map(r => [r.cells[3].textContent, r.cells[4].textContent])")
    assert costs == [["0.25", "–"], ["2.5", "900"], ["–", "–"], ["–", "–"]]

    tab.ask("document.querySelector('[role=tab]').focus()")
    tab.press("ArrowRight")
    assert tab.ask("document.activeElement.textContent") == "Error"
    assert tab.ask("document.querySelector('.panel:not([hidden]) h3').textContent.trim()") == "Error"
    tab.press("End")
    assert tab.ask("document.querySelector('.panel:not([hidden]) h3').textContent.trim()") == "All metrics"

    tab.ask("document.querySelector('.views input[value=lines]').click()")
    shown = tab.ask("[...document.querySelectorAll('img[data-lines]')].map(i => i.getAttribute('src'))")
    assert shown
    assert all(s.endswith("-lines.jpg") for s in shown)
    assert tab.ask("document.querySelectorAll('script').length") == 2
    assert tab.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 768, 1280, 1920])
def test_the_page_fits_its_window(tab: Page, folder: Path, width: int, scheme: str) -> None:
    tab.complaints.clear()
    tab.open((folder / "index.html").as_uri(), width=width, scheme=scheme)
    assert tab.ask("document.documentElement.scrollWidth") == width
    cut_off = "[...document.querySelectorAll('.ranking td, .ranking th')].filter(c => c.scrollWidth > c.clientWidth + 1).length"
    assert tab.ask(cut_off) == 0
    paper, ink = (tab.ask(f"getComputedStyle(document.body).{p}").removeprefix("rgb(").split(",")[0] for p in ("backgroundColor", "color"))
    assert (int(paper) > int(ink)) == (scheme == "light")
    assert tab.complaints == []


def test_a_page_without_its_costs_shows_dashes_and_still_sorts(tab: Page, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "elsewhere" / "site")
    tab.open((tmp_path / "elsewhere" / "site" / "index.html").as_uri())
    assert tab.ask(f"{FIRST}.tBodies[0].rows[0].cells[3].textContent") == "–"
    tab.ask(f"{FIRST}.tHead.rows[0].cells[1].querySelector('button').click()")
    assert tab.ask(NAMES)[0] == "Alpha"

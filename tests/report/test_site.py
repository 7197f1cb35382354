"""The site: escaping, determinism, what its pages say, and how they behave in a real browser."""

from __future__ import annotations

import base64
import json
import re
import shutil
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from axe import axe_source, layout_shift, violations
from devtools import Page
from small_benchmark import COSTS, DATASETS, ENTRIES, METRICS, build_site, image_values, make_cells

from uss_dagster.report import leaderboard, site
from uss_dagster.report.costs import costs_js, costs_table
from uss_dagster.scoring.intervals import half_widths

BETA = "beta"


class Tags(HTMLParser):
    """Collects tags; complains about an end tag that closes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.sources: list[str | None] = []
        self.pictures_without_words = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag == "script":
            self.sources.append(found.get("src"))
        self.pictures_without_words += tag == "img" and not found.get("alt")
        self.ids += [found["id"] or ""] if "id" in found else []
        self.links += [v or "" for k, v in attrs if k in ("href", "src", "data-flat", "data-lines")]
        if tag not in ("meta", "link", "img", "br", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing at {self.getpos()}"


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def board(folder: Path, name: str) -> dict:
    text = read(folder / "data" / f"board-{name}.js")
    return json.loads(text[text.index("] = ") + 4 :].rstrip(";\n"))


def test_every_page_is_sound_and_its_links_lead_somewhere(folder: Path) -> None:
    pages = sorted(folder.rglob("*.html"))
    assert len(pages) == 6 + 4 + 2, "leaderboard, explorer, methods, datasets, history, exports; four entries; two datasets"
    for page in pages:
        tags = Tags()
        tags.feed(read(page))
        assert not tags.open, page
        assert len(tags.ids) == len(set(tags.ids)), page
        assert not tags.pictures_without_words, page
        assert all(source is None or "script>" not in source for source in tags.sources), "a title cannot add a script"
        assert tags.sources.count(None) == (3 if page.name == "explorer.html" else 1), page
        for link in tags.links:
            if not link.startswith(("https://", "data:,", "#")):
                assert (page.parent / link.partition("#")[0]).resolve().is_file(), (page, link)
        assert not re.search(r"src=\"(https?:)?//", read(page)), "nothing is loaded from the network"


def test_what_is_data_is_escaped_everywhere(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.suffix in (".html", ".js"):
            assert "<script>alert" not in read(path), path
            assert "a/b <script>" not in read(path), path
    method, dataset = read(folder / "methods" / "beta.html"), read(folder / "datasets" / "cats.html")
    assert "Beta &lt;script&gt;" in method
    assert 'href="https://example.org/paper?a=1&amp;b=2"' in method
    assert "Cat et al. &amp; &lt;others&gt;." in dataset
    assert "cat &lt;b&gt;" in dataset
    assert "x &lt; y" in dataset


def test_a_methods_page_says_how_to_repeat_it_and_where_it_fails(folder: Path) -> None:
    page = read(folder / "methods" / "alpha.html")
    assert "uss repro scores/alpha/cats" in page
    assert "uss segment PICTURES --method alpha --backbone vit --param levels=3" in page
    assert "Best, median and worst of 40 images by Overlap" in page
    values = image_values("alpha", "overlap")
    order = np.argsort(values)
    shown = page[page.index("Where it fails") :]
    places = [shown.index(f">i{i}<") for i in order[:10]]
    assert places == sorted(places), "worst first"
    assert f"{values[order[0]]:.3f}" in shown
    assert "1 images have no score" in page or "i7 &lt;i&gt;" in page
    assert "<b>3</b>" in page, "a parameter that differs from its default"
    assert "code-alpha" in page
    assert "data-cats" in page
    assert page.index("NMCovering" if "NMCovering" in page else "Overlap") < page.index("Parameters and ablations")
    assert "explorer.html#d=cats&amp;i=a%2Fb%20%3Cscript%3E&amp;e=alpha" in page


def test_a_datasets_page_counts_and_shows_its_classes(folder: Path) -> None:
    page = read(folder / "datasets" / "cats.html")
    assert "25.00% · 30 images" in page
    assert "2 of 2 checks passed" in page
    assert "evenly spaced in the sorted image ids" in page
    assert "2 classes without children" in page
    assert "CC0" in page


def test_rankings_are_those_of_the_table_and_pairs_those_of_the_scores(folder: Path, tmp_path: Path) -> None:
    cells = make_cells(tmp_path)
    frame = leaderboard.build(cells, ENTRIES, DATASETS, METRICS)
    cats = board(folder, "cats")
    assert [g["metric"] for g in cats["groups"]] == ["overlap", "error", "ceiling"]
    first = frame[(frame["dataset"] == "cats") & (frame["metric"] == "overlap")]
    assert [r[0] for r in cats["groups"][0]["rows"]] == first["entry"].tolist()
    assert [r[1] for r in cats["groups"][0]["rows"]] == pytest.approx(first["value"].tolist(), abs=1e-7)
    dogs = board(folder, "dogs")
    assert [(g["metric"], g["protocol"]) for g in dogs["groups"]] == [("overlap", "loose"), ("overlap", "strict"), ("error", "bits")]
    text = read(folder / cats["groups"][0]["pairs"])
    pairs = json.loads(text[text.index("] = ") + 4 :].rstrip(";\n"))
    kept = np.frombuffer(base64.b64decode(pairs["values"]["alpha"]), "<f4")
    assert kept == pytest.approx([image_values("alpha", "overlap")[int(i[1:])] for i in pairs["images"]], abs=1e-6)


def test_same_inputs_same_files(folder: Path, tmp_path: Path) -> None:
    build_site(tmp_path / "again", make_cells(tmp_path)[::-1])
    files = [p.relative_to(folder) for p in sorted(folder.rglob("*")) if p.is_file()]
    assert files == [p.relative_to(tmp_path / "again") for p in sorted((tmp_path / "again").rglob("*")) if p.is_file()]
    for name in files:
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


def test_no_scores_no_pictures(tmp_path: Path) -> None:
    page = site.build(tmp_path, leaderboard.build([], ENTRIES, DATASETS, METRICS), ENTRIES, DATASETS, METRICS)
    assert "0 entries on 0 datasets" in read(page)
    assert (tmp_path / "explorer.html").exists()


def test_costs_are_plain_data() -> None:
    text = costs_js(COSTS)
    assert "</script>" not in text
    facts = json.loads(text.removeprefix("window.USS_COSTS = ").removesuffix(";\n"))
    assert facts["beta"]["cats"]["peak_memory_mb"] is None
    assert facts["alpha"]["cats"]["device"] == "cpu </script>"
    assert costs_js([]) == "window.USS_COSTS = {};\n"
    assert costs_table(COSTS).splitlines()[2] == "beta,cats,0.25,,cpu,40"


# -- in a browser ---------------------------------------------------------------------------------------

NAMES = "[...document.querySelectorAll('#rows tr[data-entry]')].map(r => r.dataset.entry)"
READY = "new Promise(done => { const wait = () => document.querySelector('#rows tr') ? done(1) : setTimeout(wait, 5); wait(); })"


def opened(tab: Page, folder: Path, place: str = "", **window: int | str) -> None:
    tab.complaints.clear()
    tab.requests.clear()
    tab.open("about:blank")
    tab.open((folder / "index.html").as_uri() + place, **window)  # type: ignore[arg-type]
    tab.ask(READY)
    tab.send("Page.resetNavigationHistory")  # of other tests: a tab has at most 50 entries


def choose(tab: Page, name: str, value: str, event: str = "change") -> None:
    tab.ask(
        f"(() => {{ const e = document.getElementById('{name}'); e.value = {json.dumps(value)}; e.dispatchEvent(new Event('{event}')); }})()"
    )


def test_sorting_by_mouse_and_keyboard(tab: Page, folder: Path) -> None:
    opened(tab, folder)
    assert tab.ask(NAMES)[0] == "labelled"
    head = "document.querySelector('#heads').cells"
    tab.ask(f"{head}[1].querySelector('button').focus()")
    tab.press("Enter")
    assert tab.ask(NAMES) == ["alpha", "beta", "gamma", "labelled"]
    assert tab.ask(f"[...{head}].map(h => h.getAttribute('aria-sort'))") == [None, "ascending", None, None, None, None]
    tab.press("Enter")
    assert tab.ask(NAMES) == ["labelled", "gamma", "beta", "alpha"]
    tab.ask(f"{head}[2].querySelector('button').click()")
    assert tab.ask("[...document.querySelectorAll('#rows .rank')].map(c => c.textContent)") == ["1", "2 2–3", "3 2–3", "4"]
    tab.ask(f"{head}[3].querySelector('button').click()")
    assert tab.ask(NAMES)[:2] == ["beta", "alpha"], "fastest first, unknown last"
    costs = tab.ask("[...document.querySelectorAll('#rows tr')].map(r => [r.cells[3].textContent, r.cells[4].textContent])")
    assert costs == [["0.25", "–"], ["2.5", "900"], ["–", "–"], ["–", "–"]]
    tab.press("Tab")
    assert tab.ask("document.activeElement.closest('table, form, nav, header') !== null"), "the keyboard goes on from there"
    assert tab.complaints == []


def test_filters_narrow_the_ranking_and_the_finding_follows(tab: Page, folder: Path) -> None:
    opened(tab, folder)
    finding = "document.getElementById('finding').textContent"
    clear = "Its lead over every other entry is clear at 95 %, all pairs judged together."
    assert tab.ask(finding).startswith(f"Best: Labelled. {clear} Best without labels: ")
    choose(tab, "labels", "no")
    assert set(tab.ask(NAMES)) == {"alpha", "beta", "gamma"}
    tab.ask("new Promise(done => { const wait = () => document.querySelector('tr.tied') ? done(1) : setTimeout(wait, 5); wait(); })")
    assert tab.ask("document.querySelectorAll('tr.best').length + document.querySelectorAll('tr.tied').length") == 2, (
        "alpha and gamma are tied"
    )
    assert "1 other cannot be told apart" in tab.ask(finding)
    choose(tab, "seconds", "1", "input")
    assert tab.ask(NAMES) == ["beta"]
    assert "Only Beta" in tab.ask(finding)
    assert "2 without a known time left out" in tab.ask("document.getElementById('facts').textContent")
    assert "s=1" in tab.ask("location.hash")
    tab.ask("document.querySelector('#controls button[type=reset]').click()")
    tab.ask("new Promise(done => setTimeout(done, 50))")
    assert len(tab.ask(NAMES)) == 4
    choose(tab, "backbone", "none")
    assert tab.ask(NAMES) == ["beta"]
    opened(tab, folder, "#d=dogs&m=error&b=vit")
    assert tab.ask(NAMES) == ["alpha"], "the address keeps dataset, metric and filters"
    assert tab.complaints == []


def test_protocols_are_never_ranked_together(tab: Page, folder: Path) -> None:
    opened(tab, folder, "#d=dogs")
    options = tab.ask("[...document.querySelectorAll('#metric option')].map(o => o.textContent)")
    assert options == ["Overlap (loose)", "Overlap (strict)", "Error"]
    assert tab.ask(NAMES) == ["beta"]
    assert "protocol loose, matched within each image" in tab.ask("document.getElementById('facts').textContent")
    choose(tab, "protocol", "strict")
    assert tab.ask(NAMES) == ["alpha"]


def test_published_values_stand_beside_ours(tab: Page, folder: Path) -> None:
    opened(tab, folder)
    rows = tab.ask("[...document.querySelectorAll('#repeated tbody tr')].map((row) => [...row.cells].map((cell) => cell.textContent))")
    assert [row[:3] for row in rows] == [["cats: Alpha", "Error", "1.250"]]
    assert rows[0][-2:] == ["40", "40 of 1,449 images; reimplemented"]
    assert (folder / "exports/published.csv").read_text().splitlines()[1].startswith("cats,error,bits,image,full,table/b,Paper B,")


def test_published_figures_stand_apart(tab: Page, folder: Path) -> None:
    opened(tab, folder)
    assert tab.ask("document.querySelector('#published h3').textContent") == "Published figures, not measured here"
    assert tab.ask("document.querySelector('#published tbody').textContent") == "Paper <b>A</b>uses labels0.987A & B, 2020; all images"
    assert tab.ask("document.querySelectorAll('#rows tr').length") == 4
    choose(tab, "metric", "2")
    assert tab.ask("document.getElementById('published').childElementCount") == 0


def test_why_a_row_differs_is_what_compare_says_and_how_to_repeat_it(tab: Page, folder: Path, tmp_path: Path) -> None:
    opened(tab, folder, "#l=no")
    tab.ask("document.querySelector('#rows tr[data-entry=beta] .why').focus()")
    tab.press("Enter")
    text = tab.ask(
        "new Promise(done => { const wait = () => { const d = document.querySelector('.explained'); d ? done(d.textContent) : setTimeout(wait, 5); };"
        " wait(); })"
    )
    best = tab.ask(NAMES)[0]
    scores, replicates = leaderboard.read_cells([c for c in make_cells(tmp_path) if c.name == "cats"])
    group = scores[scores["metric"] == "overlap"]
    pairs = leaderboard.pairs_among(group, replicates["cats", "overlap", "strict", "image", "full"])
    place = tuple(group["entry"].tolist().index(entry) for entry in ("beta", best))
    gap, half = pairs.difference[place], half_widths([pairs])[0][place]
    assert f"−{half - gap:.3f} to −{-gap - half:.3f}, judged with all pairs of 4 entries" in text
    assert "Worse, at 95 % confidence." in text
    worse = int((image_values("beta", "overlap") < image_values(best, "overlap")).sum())
    assert f"worse on {worse} of 40 images" in text
    assert "uss repro scores/beta/cats" in text
    assert tab.ask("document.querySelectorAll('.strip circle').length") == 40
    tab.ask("document.querySelector('.explained .copy').click()")
    copied = "new Promise(done => setTimeout(() => done(document.querySelector('.explained .copy').textContent), 60))"
    assert tab.ask(copied) in ("Copied", "Select and copy by hand")
    tab.ask("document.querySelector('#heads').cells[1].querySelector('button').click()")
    assert tab.ask("document.querySelector('#rows tr[data-entry=beta]').nextElementSibling.className") == "detail", "sorting keeps it open"
    tab.ask("document.querySelector('#rows tr[data-entry=beta] .why').click()")
    assert tab.ask("document.querySelectorAll('.explained').length") == 0
    assert tab.complaints == []


def test_quality_against_cost(tab: Page, folder: Path) -> None:
    opened(tab, folder)
    assert tab.ask("document.querySelectorAll('#pareto a').length") == 2, "the entries whose cost is known"
    assert tab.ask("document.querySelectorAll('#pareto a.on-front').length") == 2, "one is cheaper, the other better"
    assert "2 without a known cost" in tab.ask("document.getElementById('pareto-facts').textContent")
    choose(tab, "cost", "peak_memory_mb")
    assert tab.ask("document.querySelectorAll('#pareto a').length") == 1


def test_pictures_open_the_explorer_and_an_image_called_script_is_harmless(tab: Page, folder: Path) -> None:
    opened(tab, folder)
    assert tab.ask("[...document.querySelectorAll('#image option')].map(o => o.textContent)") == ["a/b <script>", "i1"]
    assert tab.ask("document.querySelectorAll('#pictures img').length") == 3, "photo, ground truth, alpha"
    choose(tab, "image", "1")
    assert tab.ask("document.querySelectorAll('#pictures img').length") == 4
    choose(tab, "view", "1")
    assert tab.ask("[...document.querySelectorAll('#pictures img')].slice(1).every(i => i.src.endsWith('-lines.jpg'))")
    link = tab.ask("document.querySelector('#pictures a').href")
    assert "explorer.html#d=cats&i=i1&e=" in link
    tab.ask("document.getElementById('all').open = true")
    tab.ask("new Promise(done => setTimeout(done, 30))")
    assert tab.ask("document.querySelectorAll('#all-table tbody tr').length") == 4
    assert tab.complaints == []


def test_a_person_chooses_light_or_dark(tab: Page, folder: Path) -> None:
    opened(tab, folder, scheme="dark")
    paper = "parseInt(getComputedStyle(document.body).backgroundColor.slice(4))"
    assert tab.ask(paper) < 60
    tab.ask("document.querySelector('.theme').click()")
    assert tab.ask(paper) > 200
    tab.open((folder / "methods" / "alpha.html").as_uri(), scheme="dark")
    assert tab.ask(paper) > 200, "other pages know the choice"
    tab.ask("localStorage.clear()")


PAGES = [
    "index.html",
    "explorer.html",
    "methods.html",
    "methods/alpha.html",
    "datasets.html",
    "datasets/cats.html",
    "history.html",
    "exports.html",
]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1920])
def test_pages_fit_their_window_load_nothing_and_do_not_complain(tab: Page, folder: Path, width: int, scheme: str) -> None:
    for page in PAGES:
        tab.complaints.clear()
        tab.requests.clear()
        tab.open((folder / page).as_uri(), width=width, scheme=scheme)
        if page == "index.html":
            tab.ask(READY)
        assert layout_shift(tab) <= 0.01, page
        unfold(tab)
        assert tab.ask("document.documentElement.scrollWidth") == width, page
        paper, ink = (
            tab.ask(f"getComputedStyle(document.body).{p}").removeprefix("rgb(").split(",")[0] for p in ("backgroundColor", "color")
        )
        assert (int(paper) > int(ink)) == (scheme == "light")
        assert tab.complaints == [], page
        assert all(r.startswith(("file:", "data:")) for r in tab.requests), page


def unfold(tab: Page) -> None:
    """Open all that a page can show: the comparison of a row, and every folded part."""
    tab.ask("document.querySelectorAll('.why')[1]?.click()")
    tab.ask("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    tab.ask("new Promise(done => setTimeout(done, 80))")


def audited(tab: Page, folder: Path, page: str, width: int, scheme: str) -> list[str]:
    """What axe finds on a page with everything open."""
    tab.open("about:blank")
    tab.open((folder / page).as_uri(), width=width, scheme=scheme, touch=width < 500)
    if page == "index.html":
        tab.ask(READY)
    unfold(tab)
    return violations(tab, axe_source())


@pytest.mark.parametrize(
    ("page", "width", "scheme"),
    [
        ("index.html", 390, "light"),
        ("index.html", 1400, "dark"),
        ("explorer.html", 768, "light"),
        ("methods/alpha.html", 390, "dark"),
        ("datasets/cats.html", 768, "light"),
    ],
)
def test_axe_finds_nothing(tab: Page, folder: Path, page: str, width: int, scheme: str) -> None:
    assert audited(tab, folder, page, width, scheme) == []


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 768, 1400])
def test_axe_finds_nothing_on_any_page_at_any_width(tab: Page, folder: Path, width: int, scheme: str) -> None:
    for page in PAGES:
        assert audited(tab, folder, page, width, scheme) == [], page
        assert layout_shift(tab) <= 0.01, page


def test_a_layout_that_shifts_is_measured(tab: Page, tmp_path: Path) -> None:
    (tmp_path / "shift.html").write_text(
        "<!doctype html><div id=a></div><p style='height:300px;background:#ccc'>text</p>"
        "<script>requestAnimationFrame(() => setTimeout(() => { document.getElementById('a').style.height = '200px'; }, 60))</script>"
    )
    tab.open((tmp_path / "shift.html").as_uri(), width=390, height=800)
    tab.ask("new Promise(done => setTimeout(done, 200))")
    assert layout_shift(tab) > 0.05


@pytest.mark.slow
@pytest.mark.parametrize("width", [480, 768, 1024, 1280, 2560, 3840])
def test_pages_fit_any_window(tab: Page, folder: Path, width: int) -> None:
    for page in PAGES:
        tab.open((folder / page).as_uri(), width=width)
        assert tab.ask("document.documentElement.scrollWidth") == width, page


def test_a_site_without_its_costs_shows_dashes_and_still_sorts(tab: Page, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "elsewhere" / "site")
    opened(tab, tmp_path / "elsewhere" / "site")
    assert tab.ask("document.querySelector('#rows tr').cells[3].textContent") == "–"
    assert "No cost of these entries is known" in tab.ask("document.getElementById('pareto-facts').textContent")
    tab.ask("document.querySelector('#heads').cells[1].querySelector('button').click()")
    assert tab.ask(NAMES)[0] == "alpha"


def until(tab: Page, expression: str, wanted: object) -> bool:
    """Whether an expression has a value within ten seconds."""
    deadline = time.monotonic() + 10
    while tab.ask(expression) != wanted:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_every_choice_is_in_the_address_and_back_undoes_it(tab: Page, folder: Path) -> None:
    opened(tab, folder)
    first = tab.ask("location.hash")
    assert first == "#d=cats&m=overlap"
    tab.ask("document.querySelector('#heads').cells[1].querySelector('button').click()")
    choose(tab, "image", "1")
    choose(tab, "view", "1")
    choose(tab, "metric", "1")
    choose(tab, "labels", "no")
    assert tab.ask("location.hash") == "#d=cats&m=error&l=no&o=entry&i=i1&v=1"
    for part in ("m=error&o=entry&i=i1&v=1", "m=overlap&o=entry&i=i1&v=1", "m=overlap&o=entry&i=i1", "m=overlap&o=entry", "m=overlap"):
        tab.ask("history.back()")
        assert until(tab, "location.hash", f"#d=cats&{part}")
    assert until(tab, f"({NAMES})[0]", "labelled"), "sorted by rank again"
    assert tab.ask("[document.getElementById('image').value, document.getElementById('view').value]") == ["0", "2"]
    for letter in "alp":
        choose(tab, "text", tab.ask("document.getElementById('text').value") + letter, "input")
    assert tab.ask(NAMES) == ["alpha"]
    tab.ask("history.back()")
    assert until(tab, "[location.hash, document.getElementById('text').value]", [first, ""]), "typing is one step"
    tab.ask("location.hash = '#d=cats&m=error&o=-entry&i=i1&v=0'")
    assert until(tab, "document.getElementById('view').value", "0"), "an address opened by hand"
    assert tab.ask(NAMES) == ["labelled", "gamma", "beta", "alpha"]
    assert tab.ask("document.querySelectorAll('#pictures img')[2].src").endswith("001-beta-flat.jpg"), "in the order of the table"
    tab.ask("location.hash = '#d=dogs&m=overlap&w=strict%2C%20full'")
    assert until(tab, NAMES, ["alpha"]), "one metric in two protocols"
    assert tab.complaints == []


def test_another_picture_of_the_explorer_is_a_step_back(tab: Page, folder: Path) -> None:
    tab.open("about:blank")
    tab.open((folder / "explorer.html").as_uri())
    arrives = (
        "new Promise(done => { const wait = n => decodeURIComponent(location.hash).includes('i=%s&') || !n ? done(n > 0) : "
        "setTimeout(wait, 50, n - 1); wait(100); })"
    )
    assert tab.ask(arrives % "a/b <script>")
    tab.ask("document.querySelectorAll('.x-strip button')[1].click()")
    assert tab.ask(arrives % "i1")
    tab.ask("history.back()")
    assert tab.ask(arrives % "a/b <script>")
    assert tab.ask("new Promise(done => setTimeout(() => done(window.USS.explorer.state.image.id), 100))") == "a/b <script>"


def test_pictures_show_the_best_matches_with_the_score_of_this_image(tab: Page, folder: Path) -> None:
    opened(tab, folder, "#d=cats&i=i1")
    pictures = (
        "[...document.querySelectorAll('#pictures figure')].map(f => [f.querySelector('img').src.split('/').pop(), f.textContent.trim()])"
    )
    named = dict(tab.ask(pictures))
    assert set(named) == {"001-photo.jpg", "001-truth-flat.jpg", "001-alpha-match.jpg", "001-beta-match.jpg"}
    assert f"{image_values('alpha', 'overlap')[1]:.3f} on this image · 5 of its 5 regions" in named["001-alpha-match.jpg"]
    assert f"{image_values('beta', 'overlap')[1]:.3f} on this image · 2 of its 2 regions" in named["001-beta-match.jpg"]
    assert "what NMCovering counts" in tab.ask("document.getElementById('looks-key').textContent")
    method = read(folder / "methods" / "alpha.html")
    assert 'src="../pictures/cats/001-alpha-match.jpg" data-match=' in method


def test_the_plot_is_as_wide_as_its_card(tab: Page, folder: Path) -> None:
    for width in (390, 768, 1400, 1920):
        opened(tab, folder, width=width)
        drawn, card = tab.ask("['#pareto svg', '#pareto'].map(s => document.querySelector(s).getBoundingClientRect().width)")
        assert drawn == pytest.approx(card), width
        assert tab.ask("document.querySelector('#pareto svg').getBoundingClientRect().height") <= 640, width


def test_nothing_is_lost_on_a_phone(tab: Page, folder: Path) -> None:
    opened(tab, folder, width=390, touch=True)
    parts = "['.track', '.whisker', '.dot'].map(s => t.parentElement.querySelector(s).getBoundingClientRect().width)"
    bars = tab.ask(f"[...document.querySelectorAll('#rows .track')].map(t => {parts})")
    assert len(bars) == 4
    for track, interval, dot in bars:
        assert track > 250
        assert interval > dot + 10, "the interval is seen beside its dot"
    watched = "h1, .bar a, #heads button, .why, .chip, #rows .entry a, #rows .number b"
    halves = (
        "(e => { const r = document.createRange(), t = e.firstChild, broken = []; for (const m of t.data.matchAll(/[^ /–-]+/g)) { "
        "r.setStart(t, m.index); r.setEnd(t, m.index + m[0].length); if (r.getClientRects().length > 1) broken.push(m[0]); } return broken; })"
    )
    title = "Diffuse–Walk–Cut, embedded network (reimplementation)"
    tab.ask(f"document.querySelectorAll('#rows .entry a').forEach(a => {{ a.textContent = '{title}'; }})")
    texts = f"[...document.querySelectorAll('{watched}')].filter(e => e.offsetWidth && e.firstChild.data)"
    assert tab.ask(f"{texts}.flatMap({halves})") == [], "no word is split"


def test_without_scripts_there_are_plain_tables(tab: Page, folder: Path) -> None:
    tab.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        tab.open("about:blank")
        tab.open((folder / "index.html").as_uri(), width=390)
        tree = tab.send("Accessibility.getFullAXTree")["nodes"]
    finally:
        tab.send("Emulation.setScriptExecutionDisabled", value=False)
    names = {(node["role"]["value"], node.get("name", {}).get("value", "")) for node in tree if not node.get("ignored") and "role" in node}
    assert ("table", "Scores on Cats") in names
    assert ("table", "Scores on Dogs") in names
    assert ("rowheader", "Alpha") in names
    assert not [name for role, name in names if role == "button"], "nothing that would need a script"
    value = image_values("alpha", "overlap").mean()
    assert [name for role, name in names if role == "cell" and name.startswith(f"{value:.3f} ± ")]


def test_lists_lead_to_entries_and_datasets(folder: Path) -> None:
    methods, datasets = read(folder / "methods.html"), read(folder / "datasets.html")
    for name in ENTRIES:
        assert f'href="methods/{name}.html"' in methods
    assert 'href="datasets/cats.html"' in datasets
    assert 'href="index.html#d=dogs"' in datasets
    assert '<a href="../methods.html" aria-current="true">Methods</a>' in read(folder / "methods" / "alpha.html")
    assert '<a href="methods.html" aria-current="page">Methods</a>' in methods

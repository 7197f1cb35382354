"""The cells of the small benchmark on disk, its site, and a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from devtools import Page, browser, find_chromium
from small_benchmark import COSTS, build_site, make_cells

from uss_dagster.report.costs import costs_js


@pytest.fixture
def cells(tmp_path: Path) -> list[Path]:
    """All entries on cats; alpha and beta on dogs, where beta's error is undefined and its overlap is of another protocol."""
    return make_cells(tmp_path)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of the small benchmark, with costs beside it. Do not change it."""
    home = tmp_path_factory.mktemp("site")
    target = home / "reports" / "site"
    build_site(target, make_cells(home))
    (home / "reports" / "costs.js").write_text(costs_js(COSTS), encoding="utf-8")
    (home / "reports" / "history.js").write_text("", encoding="utf-8")
    return target


@pytest.fixture(scope="session")
def tab() -> Iterator[Page]:
    """A browser's tab."""
    executable = find_chromium()
    if executable is None:
        pytest.skip("NOT TESTED IN A BROWSER: no chromium here (Debian: apt-get install chromium).")
    pytest.importorskip("websockets.sync.client", reason="NOT TESTED IN A BROWSER: the DevTools protocol needs the package websockets.")
    with browser(executable) as page:
        yield page

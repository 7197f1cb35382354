"""axe-core, which judges how accessible a page is: fetched from npm's registry once, checked by its hash, never part of the project."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any, NoReturn

import pytest
from devtools import Page

VERSION = "4.14.1"
INTEGRITY = "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="
"""The package's sha512, as the registry states it."""
HOME = Path(__file__).parents[2] / ".cache" / "axe"


def axe_source() -> str:
    """The script, from the cache folder or the registry; where neither has it the test fails in CI, and is skipped elsewhere."""
    package = HOME / f"axe-core-{VERSION}.tgz"
    if not package.exists():
        HOME.mkdir(parents=True, exist_ok=True)
        npm = shutil.which("npm")
        if npm is None:
            _without_axe("axe-core is not in .cache/axe, and there is no npm to fetch it.")
        words = [npm, "pack", f"axe-core@{VERSION}", "--pack-destination", str(HOME), "--silent"]
        try:
            done = subprocess.run(words, cwd=HOME, capture_output=True, text=True, timeout=90)
        except subprocess.TimeoutExpired:
            _without_axe("npm did not fetch axe-core within 90 s.")
        if done.returncode or not package.exists():
            _without_axe(f"npm could not fetch axe-core: {done.stderr.strip()[-200:]}")
    digest = base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode()
    assert digest == INTEGRITY, f"{package} is not the axe-core {VERSION} that the registry names; delete it."
    with tarfile.open(package) as archive:
        member = archive.extractfile("package/axe.min.js")
        assert member is not None
        return member.read().decode("utf-8")


def _without_axe(why: str) -> NoReturn:
    if os.environ.get("USS_NEEDS_AXE"):
        pytest.fail(f"Pages were not tested with axe: {why}")
    pytest.skip(f"NOT TESTED WITH AXE: {why}")


def violations(page: Page, source: str) -> list[str]:
    """What axe-core finds wrong on the page as it stands, whatever the impact: rule, and the first places."""
    page.ask(f"{source}\n;0")
    found: list[dict[str, Any]] = page.ask(
        "axe.run(document, {preload: false, resultTypes: ['violations']}).then(r => r.violations.map(v => ({id: v.id, impact: v.impact, help: v.help, "
        "nodes: v.nodes.slice(0, 3).map(n => n.html.slice(0, 160) + ' ' + (n.any[0]?.message || ''))})))"
    )
    return [f"{v['impact']} {v['id']}: {v['help']} {v['nodes']}" for v in found]


AUDITED = ((390, "dark"), (768, "light"), (1400, "dark"))
"""Widths and colour schemes at which pages are audited."""


def layout_shift(page: Page) -> float:
    """The cumulative layout shift since the page was opened: 0 where nothing moved that a person had already seen."""
    return float(
        page.ask(
            "new Promise(done => { let sum = 0; new PerformanceObserver(list => { for (const shift of list.getEntries()) "
            "if (!shift.hadRecentInput) sum += shift.value; }).observe({type: 'layout-shift', buffered: true}); "
            "requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(() => done(sum), 30))); })"
        )
    )

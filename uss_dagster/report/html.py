"""Markup: templates, escaping, names that are safe in paths, and the frame that every page of the site shares.

Belongs here: whatever more than one page needs to become text. Does not belong here: what any page says.
"""

from __future__ import annotations

import hashlib
import html
import json
import math
import re
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

READS = ("assets",)
"""Templates, styles and scripts count in the fingerprint of what is made with them."""
PAGES = (("index.html", "Leaderboard"), ("explorer.html", "Explorer"), ("history.html", "History"), ("exports.html", "Exports"))


class Html(str):
    """Text that is markup already and is not escaped again."""


LABELS_CHIP = Html(' <span class="chip labels">uses labels</span>')


def asset(name: str) -> str:
    """The text of a file in ``assets``."""
    return (resources.files("uss_dagster.report") / "assets" / name).read_text(encoding="utf-8")


def fill(template: str, **values: Any) -> Html:
    """A template with its ``$names`` filled in, each escaped unless it is ``Html``."""
    return Html(Template(asset(template)).substitute({k: escaped(v) for k, v in values.items()}))


def frame_page(title: str, body: Html, up: str = "", here: str = "", scripts: Iterable[str] = (), costs: bool = False) -> str:
    """A whole page. up: from its folder to the site's, '' or '../'. here: which of ``PAGES`` it is. scripts: paths from the site's folder.

    costs: whether it reads ``costs.js``, the file beside the site's folder that says what runs took on this machine.
    """
    current = ' aria-current="page"'
    links = join((Html(f'<a href="{up}{file}"{current if file == here else ""}>{name}</a>') for file, name in PAGES), "")
    loaded = [*(["../costs.js"] if costs else []), *scripts]
    return fill(
        "page.html",
        title=title,
        up=up,
        links=links,
        body=body,
        scripts=join(Html(f'<script src="{up}{html.escape(path)}"></script>') for path in [*loaded, "assets/page.js"]),
    )


def escaped(value: Any) -> str:
    """Text that is safe in an element and in a quoted attribute."""
    return value if isinstance(value, Html) else html.escape(str(value))


def join(parts: Iterable[Html], between: str = "\n") -> Html:
    """Markup one after the other."""
    return Html(between.join(parts))


def tag(name: str, content: Any, **attributes: Any) -> Html:
    """One element; ``class_`` stands for the attribute class."""
    given = "".join(f' {k.rstrip("_").replace("_", "-")}="{escaped(v)}"' for k, v in attributes.items() if v not in (None, ""))
    return Html(f"<{name}{given}>{escaped(content)}</{name}>")


def table(heads: Iterable[Any], rows: Iterable[Iterable[Any]], caption: str, class_: str = "plain") -> Html:
    """A table that scrolls sideways where it is too wide; the first cell of a row is its head."""
    head = join((tag("th", h, scope="col") for h in heads), "")
    lines = []
    for first, *others in rows:
        lines.append(tag("tr", join([tag("th", first, scope="row"), *(tag("td", cell) for cell in others)], "")))
    inner = f'<caption class="hidden">{escaped(caption)}</caption><thead><tr>{head}</tr></thead>\n<tbody>{join(lines)}</tbody>'
    return Html(
        f'<div class="scroller" tabindex="0" role="region" aria-label="{escaped(caption)}"><table class="{class_}">{inner}</table></div>'
    )


def command(text: str) -> Html:
    """A line for a terminal, with a button that copies it."""
    return Html(
        f'<div class="command"><pre tabindex="0"><code>{html.escape(text)}</code></pre>'
        '<button type="button" class="copy" hidden>Copy</button></div>'
    )


def definitions(stated: Mapping[str, Any]) -> Html:
    """A list of facts; what is None or empty is left out."""
    return tag("dl", join((tag("dt", k) + tag("dd", v) for k, v in stated.items() if v not in (None, "")), ""), class_="facts-list")  # type: ignore[misc]


def linked(text: Any) -> Html | None:
    """Escaped text whose http(s) addresses are links; arXiv numbers are too."""
    if not text:
        return None
    parts = re.split(r"(https?://[^\s<>\"']+[^\s<>\"'.,;)]|arXiv[: ]\d{4}\.\d{4,5})", str(text))
    made = []
    for number, part in enumerate(parts):
        if number % 2:
            address = part if part.startswith("http") else f"https://arxiv.org/abs/{part[6:]}"
            made.append(tag("a", part, href=address, rel="noopener noreferrer"))
        else:
            made.append(Html(html.escape(part)))
    return join(made, "")


def slug(name: str) -> str:
    """A name that is safe in a path and an anchor; one that had to be changed gets a few digits of its hash, so none collide."""
    safe = re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-")
    return safe if safe == name else f"{safe[:40]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def script(name: str, value: Any) -> str:
    """JavaScript that puts JSON under ``window.USS``: what a page on ``file://`` can load, as it may not read other files."""
    return f"(window.USS = window.USS || {{}}).{name} = {packed(value)};\n"


def packed(value: Any, indent: int | None = None) -> str:
    """JSON without NaN and without anything that could end a script."""
    separators = (",", ":") if indent is None else None
    text = json.dumps(finite(value), sort_keys=True, indent=indent, allow_nan=False, ensure_ascii=False, separators=separators)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def finite(value: Any) -> Any:
    """Plain JSON values; NaN and infinity become null."""
    if isinstance(value, Mapping):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, np.bool_):
        return bool(value)
    return int(value) if isinstance(value, np.integer) else value


def write(target: Path, name: str, text: str) -> Path:
    """Write a file of the site, its folder made where needed."""
    path = target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")
    return path


def title_of(facts: Mapping[str, Mapping[str, Any]], name: str) -> str:
    """What people call it."""
    return str(facts.get(name, {}).get("title") or name)

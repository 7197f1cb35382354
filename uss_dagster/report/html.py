"""Pages of the site: rendering a template, addresses that are safe, and JSON that a script may hold.

Belongs here: whatever more than one page needs to become text. Does not belong here: what any page says (``templates``).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Mapping
from importlib import resources

import numpy as np

from uss_dagster.templates import render

READS = ("assets", "templates")
"""Templates, styles and scripts count in the fingerprint of what is made with them."""
PAGES = (
    ("index.html", "Leaderboard"),
    ("explorer.html", "Explorer"),
    ("methods.html", "Methods"),
    ("datasets.html", "Datasets"),
    ("history.html", "History"),
    ("exports.html", "Exports"),
)
"""Files and names of the pages that every page links to."""


def asset(name: str) -> str:
    """The text of a file in ``assets``."""
    return (resources.files("uss_dagster.report") / "assets" / name).read_text(encoding="utf-8")


def render_page(template: str, title: str, path: str = "", **values: object) -> str:
    """A page from its template, which extends ``page.html.j2``.

    Parameters
    ----------
    template : str
        Name of the template's file.
    title : str
        The page's title.
    path : str, optional
        Where the page lies in the site, with slashes; links to other pages depend on it.
    **values
        What else the template uses.
    """
    up = "../" * path.count("/")
    section = f"{path.partition('/')[0]}.html" if up else path
    return render("uss_dagster.report", template, title=title, up=up, path=path, section=section, pages=PAGES, **values)


def link_parts(text: str | None) -> list[tuple[str, str]]:
    """A text in pieces (text, address): http(s) addresses and arXiv numbers are links, the rest has an empty address."""
    pieces = re.split(r"(https?://[^\s<>\"']+[^\s<>\"'.,;)]|arXiv[: ]\d{4}\.\d{4,5})", text or "")
    parts = []
    for number, piece in enumerate(pieces):
        is_link = number % 2 == 1  # re.split puts what the group matched between what it did not match
        address = f"https://arxiv.org/abs/{piece[6:]}" if is_link and not piece.startswith("http") else piece
        parts.append((piece, address if is_link else ""))
    return [part for part in parts if part[0]]


def slug(name: str) -> str:
    """A name that is safe in a path and an anchor; one that had to be changed gets a few digits of its hash, so none collide."""
    safe = re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-")
    return safe if safe == name else f"{safe[:40]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def entry_page(entry: str) -> str:
    """Path of an entry's page from the site's folder."""
    return f"methods/{slug(entry)}.html"


def dataset_page(dataset: str) -> str:
    """Path of a dataset's page from the site's folder."""
    return f"datasets/{slug(dataset)}.html"


# -- data for scripts: a page opened from disk may not read other files, but it may load scripts ----------


def script(variable: str, value: object, key: str | None = None) -> str:
    """JavaScript that puts a value under ``window.USS.<variable>``, or under one key of it."""
    if key is None:
        return f"(window.USS = window.USS || {{}}).{variable} = {packed(value)};\n"
    return f"((window.USS = window.USS || {{}}).{variable} = window.USS.{variable} || {{}})[{packed(key)}] = {packed(value)};\n"


def packed(value: object, indent: int | None = None) -> str:
    """JSON with null for NaN, and without anything that could end a script."""
    separators = (",", ":") if indent is None else None
    text = json.dumps(_plain(value), sort_keys=True, indent=indent, allow_nan=False, ensure_ascii=False, separators=separators)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _plain(value: object) -> object:
    """A value in JSON's types; NaN and infinity become null, a dataclass becomes an object."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""What to cite for a method, a dataset or a metric, as BibTeX. The works are in ``references.yaml``.

A plug-in that the table does not know is cited by the sentence its ``SPEC`` gives, as a ``@misc`` entry, so that no row of a table is
left without its source.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml


def keys_of(family: str, name: str, stated: str) -> list[str]:
    """Keys in the bibliography. stated: what the plug-in says of its source, for those that the table does not know."""
    known = _table()["cites"].get(family, {}).get(name)
    if known:
        return list(known)
    return [_own_key(family, name)] if stated else []


def bibtex(wanted: Mapping[tuple[str, str], str]) -> str:
    """The bibliography of some plug-ins, each work once, sorted by key. wanted: (family, name) → what the plug-in says of its source."""
    entries: dict[str, str] = {}
    for (family, name), stated in wanted.items():
        for key in keys_of(family, name, stated):
            work = _table()["works"].get(key) or {"type": "misc", "title": name, "note": stated}
            entries[key] = _entry(key, work)
    return "\n".join(entries[key] for key in sorted(entries))


@cache
def _table() -> dict[str, Any]:
    text = Path(__file__).with_name("references.yaml").read_text(encoding="utf-8")
    return dict(yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


def _own_key(family: str, name: str) -> str:
    return f"{family}_{re.sub('[^a-z0-9]+', '_', name.lower())}"


def _entry(key: str, work: Mapping[str, Any]) -> str:
    lines = [f"  {field} = {{{_title(value) if field == 'title' else _text(value)}}}," for field, value in work.items() if field != "type"]
    return "\n".join([f"@{work['type']}{{{key},", *lines, "}\n"])


def _title(value: Any) -> str:
    """Braces keep the case that a bibliography style would lower."""
    return f"{{{_text(value)}}}"


def _text(value: Any) -> str:
    return re.sub(r"([&%#_$])", r"\\\1", re.sub(r"[{}\\]", "", str(value)))

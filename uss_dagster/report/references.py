"""What to cite for a method, a dataset or a metric, as BibTeX. The works are in ``references.yaml``.

A plug-in that the table does not know is cited by the sentence its ``SPEC`` gives, as a ``@misc`` entry, so that no row of a table is
left without its source.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TypedDict

from uss_dagster.files import parse_yaml

Work = Mapping[str, object]
"""Field of a BibTeX entry → value; ``type`` is the entry's type."""


class References(TypedDict):
    """What ``references.yaml`` holds. cites: plug-in family → plug-in → keys of works. works: key → work."""

    cites: dict[str, dict[str, list[str]]]
    works: dict[str, Work]


def keys_of(family: str, name: str, citation: str) -> list[str]:
    """Keys in the bibliography.

    Parameters
    ----------
    family : str
        'method', 'dataset' or 'metric'.
    name : str
        The plug-in.
    citation : str
        What the plug-in says of its source; used only if the table does not know it.
    """
    keys = references()["cites"].get(family, {}).get(name)
    if keys:
        return list(keys)
    return [f"{family}_{re.sub('[^a-z0-9]+', '_', name.lower())}"] if citation else []


def bibtex(citations: Mapping[tuple[str, str], str]) -> str:
    """The bibliography of some plug-ins, each work once, sorted by key. citations: (family, name) → see ``keys_of``."""
    entries: dict[str, str] = {}
    for (family, name), citation in citations.items():
        for key in keys_of(family, name, citation):
            entries[key] = _entry(key, references()["works"].get(key) or {"type": "misc", "title": name, "note": citation})
    return "\n".join(entries[key] for key in sorted(entries))


@cache
def references() -> References:
    """The table of works."""
    table: References = parse_yaml(Path(__file__).with_suffix(".yaml").read_bytes())
    return table


def _entry(key: str, work: Work) -> str:
    """One entry. A title stands in braces of its own, since a bibliography style would lower its case."""
    lines = []
    for field, value in work.items():
        text = re.sub(r"([&%#_$])", r"\\\1", re.sub(r"[{}\\]", "", str(value)))
        if field != "type":
            lines.append(f"  {field} = {{{{{text}}}}}," if field == "title" else f"  {field} = {{{text}}},")
    return "\n".join([f"@{work['type']}{{{key},", *lines, "}\n"])

"""Text that commands and messages share: aligned tables, short lists of names, numbers with their intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> list[str]:
    """Lines of a table; columns named in ``right`` are right-aligned."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    cells = [[c.rjust(w) if h in right else c.ljust(w) for h, c, w in zip(head, row, widths, strict=True)] for row in (head, *rows)]
    return ["  ".join(line).rstrip() for line in cells]


def printable(text: str) -> str:
    """The text with escapes for control characters and for bytes that are no UTF-8, so that a file's name cannot steer a terminal."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" if ord(c) < 256 else f"\\u{ord(c):04x}" for c in text)


def few(names: Sequence[object], most: int = 5) -> str:
    """The first ``most`` names, and an ellipsis where there are more."""
    return ", ".join(map(str, names[:most])) + (", …" if len(names) > most else "")


def number(value: float, sign: str = "") -> str:
    """Four decimals; a dash where there is no number. sign: '+' to show it always."""
    return "–" if math.isnan(value) else f"{value:{sign}.4f}"


def span(low: float, high: float, sign: str = "") -> str:
    """An interval; a dash where there is none."""
    return "–" if math.isnan(low) or math.isnan(high) else f"{low:{sign}.4f} … {high:{sign}.4f}"

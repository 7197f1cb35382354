"""The values that parameters may have: bounds in words and as a test, checked in the ``__post_init__`` of a parameter dataclass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from uss_dagster.errors import ParameterError


@dataclass(frozen=True)
class Bounds:
    """The values that a parameter may have, in words and as a test."""

    words: str
    hold: Callable[[Any], bool]


def at_least(least: float) -> Bounds:
    return Bounds(f"{least} or more", lambda value: value >= least)


def within(least: float, greatest: float) -> Bounds:
    return Bounds(f"{least} to {greatest}", lambda value: least <= value <= greatest)


POSITIVE = Bounds("above 0", lambda value: value > 0)
SHARE = within(0, 1)
PART = Bounds("0 to below 1", lambda value: 0 <= value < 1)


def check_bounds(params: object, **bounds: Bounds) -> None:
    """Refuse a parameter dataclass with a value out of its bounds; None is always within them."""
    for name, bound in bounds.items():
        value = getattr(params, name)
        if value is not None and not bound.hold(value):
            raise wrong_value(name, value, bound.words)


def wrong_value(name: str, value: object, expected: str) -> ParameterError:
    """The error for a value that a parameter cannot have. The message starts with the name, so that sections can be put before it."""
    return ParameterError(f"{name} is {value}, expected {expected}.", (name,))

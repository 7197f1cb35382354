"""What is said where a remote of DVC cannot be used. Imports nothing."""

from __future__ import annotations

EXTRAS = ("s3", "gs", "ssh", "azure")
"""Kinds of remotes for which DVC needs a package more: dvc-KIND, which the extra KIND of this package brings."""


def lacks_extra(name: str, address: str, kind: str) -> str:
    """The sentence where that package is missing."""
    return f"The remote '{name}' ({address}) needs a package that is not installed. Run `pip install dvc-{kind}`."

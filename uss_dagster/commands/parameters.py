"""The method and backbone of a command line: ``NAME=VALUE`` words become parameters, and both together a segmenter."""

from __future__ import annotations

import types
import typing

from uss_dagster import registry
from uss_dagster.errors import UsageError
from uss_dagster.own_images.segmenters import DEFAULT_BACKBONE, backbone_named, segmenter_of
from uss_dagster.segmenter import Segmenter


def parse_parameters(words: list[str], cls: type, owner: str) -> registry.Values:
    """Values of a parameter dataclass from ``name=value`` words.

    Parameters
    ----------
    words
        Such as 'scale=0.5'. Values are YAML, except where the parameter is text. A parameter of a section has a dotted name.
    cls
        The parameter dataclass, which tells the types.
    owner
        Named in messages, such as "method 'kmeans'".

    Examples
    --------
    >>> parse_parameters(["seed=1", "refine.kind=guided"], Params, "method 'unsam'")  # doctest: +SKIP
    {'seed': 1, 'refine': {'kind': 'guided'}}
    """
    import yaml

    hints = registry.flat_types(cls)
    values: registry.Values = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name:
            raise UsageError(f"{owner}: a parameter is written name=value, got '{word}'.")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = text
        hint = hints.get(name)
        if clash := next((other for other in values if f"{other}.".startswith(f"{name}.") != f"{name}.".startswith(f"{other}.")), None):
            raise UsageError(f"{owner}: '{name}' and '{clash}' are given; give the section as a whole, or its parameters one by one.")
        is_text = hint is str or (typing.get_origin(hint) in (types.UnionType, typing.Union) and str in typing.get_args(hint))
        values[name] = text if is_text and not isinstance(value, str | None) else value
    return registry.nested_params(values)


def make_segmenter(
    method: str, words: list[str] | None, backbone: str | None, backbone_words: list[str] | None, long_side: int = 0
) -> Segmenter:
    """The segmenter of the options --method, --param, --backbone, --backbone-param and --long-side."""
    values = parse_parameters(words or [], registry.load("method", method).SPEC.params, f"method '{method}'")
    source, _ = backbone_named(backbone or DEFAULT_BACKBONE)
    backbone_values = parse_parameters(backbone_words or [], registry.load("backbone", source).SPEC.params, f"backbone '{source}'")
    return segmenter_of(method, values, backbone, backbone_values, long_side)

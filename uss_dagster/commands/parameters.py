"""What a person says of a method and its backbone on the command line: words → parameters, and the backbone that a method reads."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from typing import Any

from uss_dagster import registry
from uss_dagster.backbones.base import Encoder, loaded
from uss_dagster.errors import UsageError

DEFAULT_BACKBONE = "patches"


def parse_parameters(words: list[str], cls: type, owner: str) -> registry.Values:
    """``name=value`` words for a parameter dataclass, as a mapping for ``registry.build_params``.

    Values are YAML, but text stays text where text is meant. A parameter of a section has a dotted name.

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
        wants_text = hint is str or (typing.get_origin(hint) in (types.UnionType, typing.Union) and str in typing.get_args(hint))
        values[name] = text if wants_text and not isinstance(value, str | None) else value
    return registry.nested_params(values)


def encoder_for(method: str, backbone: str | None, parameters: Mapping[str, Any]) -> Encoder | None:
    """The backbone, loaded and writing the facets that a method reads; None for one that looks at pixels only. What is wrong is said here."""
    spec = registry.load("method", method).SPEC
    facets = tuple(dict.fromkeys((*spec.needs, *spec.encodes)))
    if not facets:
        if backbone or parameters:
            raise UsageError(f"Method '{method}' looks at pixels only; leave out --backbone and --backbone-param.")
        return None
    backbone = backbone or DEFAULT_BACKBONE
    of = registry.load("backbone", backbone).SPEC
    if missing := [facet for facet in facets if facet not in of.facets]:
        raise UsageError(f"Backbone '{backbone}' cannot give {', '.join(missing)} (it has: {', '.join(of.facets)}). Choose another one.")
    encoder = Encoder.of(backbone, {"facets": list(facets), **parameters})
    loaded(encoder.kind, encoder.parameters)
    return encoder


def asked(
    method: str, words: list[str] | None, backbone: str | None, backbone_words: list[str] | None
) -> tuple[dict[str, Any], Encoder | None]:
    """The parameters of a method and the backbone that it reads, from the words of --param and --backbone-param."""
    parameters = parse_parameters(words or [], registry.load("method", method).SPEC.params, f"method '{method}'")
    source = backbone or DEFAULT_BACKBONE
    given = parse_parameters(backbone_words or [], registry.load("backbone", source).SPEC.params, f"backbone '{source}'")
    return parameters, encoder_for(method, backbone, given)

"""A segmenter from the names and values that a person gives: of the command line, or of Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from uss_dagster import registry
from uss_dagster.backbones.base import Encoder, loaded
from uss_dagster.errors import UsageError
from uss_dagster.methods.base import MethodSpec
from uss_dagster.segmenter import Segmenter

DEFAULT_BACKBONE = "patches"


def segmenter_of(
    method: str, values: Mapping[str, object], backbone: str | None, backbone_values: Mapping[str, object], long_side: int = 0
) -> Segmenter:
    """A method with its backbone, which is loaded.

    Parameters
    ----------
    method : str
        Name of the method.
    values : mapping
        Its parameters, those of a section as a mapping.
    backbone : str or None
        Name of a backbone, or of one of its models. None: ``DEFAULT_BACKBONE`` for a method that needs features, no backbone for others.
    backbone_values : mapping
        Parameters of the backbone.
    long_side : int, default 0
        See ``Segmenter``.
    """
    source, model = backbone_named(backbone or DEFAULT_BACKBONE)
    segmenter = Segmenter.of(method, values, None, long_side)
    encoder = make_encoder(method, segmenter.params, backbone and source, model | dict(backbone_values))
    return replace(segmenter, encoder=encoder)


def make_encoder(method: str, params: object, backbone: str | None, parameters: Mapping[str, object]) -> Encoder | None:
    """The backbone with the facets that a method reads, loaded; None for a method that reads pixels only."""
    spec = registry.load("method", method).SPEC
    if not spec.takes_backbone:
        if backbone or parameters:
            raise UsageError(f"Method '{method}' looks at pixels only; it takes no backbone and no parameters of one.")
        return None
    if backbone is None and not (spec.needs or spec.encodes or parameters):
        return None
    facets = spec.facets_read(params)
    backbone = backbone or DEFAULT_BACKBONE
    available = registry.load("backbone", backbone).SPEC.facets
    if missing := [facet for facet in facets if facet not in available]:
        raise UsageError(f"Backbone '{backbone}' cannot give {', '.join(missing)} (it has: {', '.join(available)}). Choose another one.")
    encoder = Encoder.of(backbone, {"facets": list(facets), **parameters})
    loaded(encoder.kind, encoder.parameters)
    return encoder


def backbone_named(name: str) -> tuple[str, registry.Values]:
    """A backbone and its parameters from its own name, or from the name of one of its models, such as 'dinov2_vits14'."""
    backbones = registry.names("backbone")
    if name not in backbones:
        for backbone in backbones:
            if name in models_of(backbone):
                return backbone, {"model": name}
    return name, {}


def backbones_for(spec: MethodSpec, params: object) -> list[str]:
    """Names that a method takes as its backbone: of the backbones that have the facets it reads, and of their models."""
    facets = set(spec.facets_read(params))
    able = [name for name in registry.names("backbone") if facets <= set(registry.load("backbone", name).SPEC.facets)]
    return [name for backbone in able for name in (backbone, *models_of(backbone))]


def models_of(backbone: str) -> tuple[str, ...]:
    """The models of a backbone that can be named in its place."""
    return tuple(getattr(registry.load("backbone", backbone), "MODELS", ()))

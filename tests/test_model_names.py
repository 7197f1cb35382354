"""A backbone on the command line by the name of one of its models."""

from __future__ import annotations

import json

import pytest

from uss_dagster.commands.parameters import make_segmenter
from uss_dagster.errors import UsageError
from uss_dagster.own_images import segmenters
from uss_dagster.own_images.segmenters import backbone_named


def test_a_model_stands_for_its_backbone() -> None:
    assert backbone_named("patches") == ("patches", {})
    assert backbone_named("vit") == ("vit", {})
    assert backbone_named("dinov2_vits14_saliency") == ("vit", {"model": "dinov2_vits14_saliency"})
    assert backbone_named("nothing") == ("nothing", {})


def test_the_segmenter_gets_the_model_and_the_facet_that_its_method_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segmenters, "loaded", lambda kind, values: None)
    encoder = make_segmenter("tokencut", ["facet=tokens"], "dino_vits16", ["checkpoint=random"]).encoder
    assert encoder is not None
    assert encoder.kind == "vit"
    assert json.loads(encoder.parameters) == {"model": "dino_vits16", "checkpoint": "random", "facets": ["tokens"]}
    with pytest.raises(UsageError, match="Unknown backbone 'dino_vit'"):
        make_segmenter("tokencut", [], "dino_vit", [])

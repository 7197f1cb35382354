"""The photographs that installed packages hold: they are there without a download, and are what the packages ship."""

import importlib.metadata
import socket
from pathlib import Path

import numpy as np
import pytest

from uss_dagster.artifacts.image_files import decode
from uss_dagster.datasets import photographs
from uss_dagster.errors import Unavailable

DISTRIBUTIONS = {"skimage": "scikit-image", "sklearn": "scikit-learn"}


def test_every_picture_is_a_file_of_an_installed_wheel():
    shipped = {str(file) for name in DISTRIBUTIONS.values() for file in importlib.metadata.files(name) or ()}
    assert set(photographs.PICTURES.values()) <= shipped


def test_pictures_need_no_network_and_have_no_regions(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    examples = list(photographs.examples(photographs.Params(longest=128)))
    assert [example.image_id for example in examples] == sorted(photographs.PICTURES)
    assert len(examples) == photographs.SPEC.counts["all"]
    for example in examples:
        pixels = decode(example.image, example.image_id)
        assert max(pixels.shape[:2]) == 128
        assert example.truth.shape == pixels.shape[:2]
        assert not len(example.truth)
        assert np.ptp(pixels.mean((0, 1))) > 2, "in colour"


def test_a_picture_that_is_small_enough_stays_as_released():
    params = photographs.Params()
    chelsea = next(example for example in photographs.examples(params) if example.image_id == "chelsea")
    released = next(path for path in photographs.inputs(params) if path.name == "chelsea.png")
    assert chelsea.image == released.read_bytes()
    assert len(photographs.inputs(photographs.Params(limit=3))) == 3
    with pytest.raises(ValueError, match="at least 16"):
        photographs.Params(longest=8)


def test_the_source_and_licence_of_each_picture_is_stated():
    assert photographs.SPEC.truth == "none"
    for image_id in photographs.PICTURES:
        assert f"{image_id}: " in photographs.SPEC.citation


def test_a_missing_package_is_said(monkeypatch):
    monkeypatch.setattr(photographs, "_file", lambda image_id: Path("/nowhere") / image_id)
    with pytest.raises(Unavailable, match=r"astronaut\.png is not in the installed packages"):
        next(photographs.examples(photographs.Params()))

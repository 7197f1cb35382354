"""Encoders of timm: maps of any size of image, their own weights, frozen ones, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from student_cases import settings, source

from uss_dagster.artifacts.training_runs import read_run
from uss_dagster.student.model import WEIGHTS, Student, build
from uss_dagster.student.stored_features import FOLDER
from uss_dagster.student.training import CHECKPOINT, train

VIT = {"encoder": "vit_tiny_patch16_224", "weights": "random", "tune": "frozen"}


def model_of(folder: Path) -> dict[str, torch.Tensor]:
    return Student.load(folder).net.encoder.get_submodule("model").state_dict()


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student of stored windows with a frozen ViT."""
    out = tmp_path_factory.mktemp("frozen")
    assert train(source(), source(2), settings(**VIT, views=2, steps=5), out).finished
    return out


def test_a_frozen_encoder_stays_and_what_follows_it_learns(frozen: Path) -> None:
    before, after = build(settings(**VIT)).state_dict(), Student.load(str(frozen)).net.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert not [name for name in changed if name.startswith("encoder.model.")]
    assert {"encoder.pyramid.reduce.0.weight", "encoder.pyramid.stem.0.0.0.weight", "pixel.weight"} <= changed
    assert not (frozen / FOLDER).exists()


def test_a_stopped_run_with_stored_windows_goes_on_to_the_same_bytes(frozen: Path, tmp_path: Path) -> None:
    values = settings(**VIT, views=2, steps=5)
    assert not train(source(), source(2), values, tmp_path, stop=iter([False, False, True]).__next__).finished
    tensors, _ = read_run(tmp_path / CHECKPOINT)
    assert not [name for name in tensors if ".encoder.model." in name]
    assert len(list((tmp_path / FOLDER).rglob("*.safetensors"))) in (6, 8)  # of three batches of two, and perhaps of the next
    assert train(source(), source(2), values, tmp_path).finished
    assert (tmp_path / WEIGHTS).read_bytes() == (frozen / WEIGHTS).read_bytes()


def test_the_maps_of_a_fixed_window_are_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from uss_dagster.student.encoders import TimmEncoder

    sides: list[tuple[int, ...]] = []
    features = TimmEncoder.features
    monkeypatch.setattr(TimmEncoder, "features", lambda self, x: sides.append(tuple(x.shape)) or features(self, x))
    train(source(3), None, settings(**VIT, views=2, steps=8), tmp_path)
    assert len(sides) == 3 * 2  # of 16 windows that were learned from

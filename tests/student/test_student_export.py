"""A student for other programs: ONNX that computes what torch does, and a folder of plain files."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from student_cases import settings, source

from uss_dagster.errors import BadData, Unavailable, UsageError
from uss_dagster.student import export
from uss_dagster.student.model import Student, build
from uss_dagster.student.net import StudentNet
from uss_dagster.student.training import train


@pytest.fixture(scope="module")
def student() -> Student:
    return Student(build(settings()), settings())


def test_without_onnx_one_sentence_says_what_to_install(student: Student, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Unavailable, match="pip install onnx onnxruntime"):
        export.export_onnx(student, tmp_path / "student.onnx")
    assert not (tmp_path / "student.onnx").exists()


@pytest.mark.slow
def test_the_graph_computes_what_torch_does_for_any_number_of_clicks(student: Student, tmp_path: Path) -> None:
    if importlib.util.find_spec("onnx") is None:
        pytest.skip("onnx is not installed: `pip install onnx onnxruntime` to run this test")
    gap = export.export_onnx(student, tmp_path / "student.onnx")
    assert gap <= export.TOLERANCE
    data = (tmp_path / "student.onnx").read_bytes()
    image, points = np.random.default_rng(1).random((1, 3, 32, 32), np.float32), np.random.default_rng(2).random((1, 7, 2), np.float32)
    masks, objectness, quality = export.run_onnx(data, image, points)
    with torch.no_grad():
        expected = export.LastOutput(student.net)(torch.from_numpy(image), torch.from_numpy(points))
    assert masks.shape == (1, 24 + 7 * 3, 16, 16)
    for found, wanted in zip((masks, objectness, quality), expected, strict=True):
        assert np.abs(found - wanted.numpy()).max() <= export.TOLERANCE


def test_a_graph_that_differs_is_not_written(student: Student, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.onnx, "export", lambda *arguments, **options: None)
    monkeypatch.setattr(
        export, "run_onnx", lambda data, image, points: [np.full((1, 36, 16, 16), 9.0), np.zeros((1, 36)), np.zeros((1, 36))]
    )
    with pytest.raises(BadData, match="differs from torch by"):
        export.export_onnx(student, tmp_path / "student.onnx")
    assert not (tmp_path / "student.onnx").exists()


def test_the_folder_can_be_loaded_and_says_how_pixels_are_read(tmp_path: Path) -> None:
    train(source(), None, settings(steps=1), tmp_path / "trained")
    export.export_folder(tmp_path / "trained", tmp_path / "plain")
    assert Student.load(tmp_path / "plain").digest == Student.load(tmp_path / "trained").digest
    told = json.loads((tmp_path / "plain" / "preprocessor_config.json").read_text())
    assert told["size"] == {"height": 32, "width": 32}
    assert (tmp_path / "plain" / "README.md").exists()
    with pytest.raises(UsageError, match="is not empty"):
        export.export_folder(tmp_path / "trained", tmp_path / "plain")


def test_shares_by_logarithms_are_the_same() -> None:
    """Also of a mask that is nowhere, whose probabilities are too small for onnxruntime's sigmoid."""
    logits = torch.randn(1, 3, 400, generator=torch.Generator().manual_seed(0)) * 5 - torch.tensor([0.0, 15.0, 60.0])[:, None]
    assert torch.allclose(export.log_shares(logits), StudentNet.shares(logits), rtol=1e-4, atol=1e-7)

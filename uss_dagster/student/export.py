"""Export of a student for other programs: as ONNX or as a program of ``torch.export``, checked against torch, or as a folder with weights,
config and preprocessing.

Both graphs take ``image`` (1, 3, S, S) in 0..1 and ``points`` (1, P, 2), clicks as (x, y) in 0..1. They give ``masks`` (1, Q + P·G, s, s) as
logits, ``objectness`` and ``quality`` (1, Q + P·G) in 0..1: first the learned queries, then the grains of each click.
"""

from __future__ import annotations

import copy
import importlib.util
import io
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from uss_dagster.errors import BadData, Unavailable, UsageError
from uss_dagster.files import write_whole
from uss_dagster.student.model import CONFIG, WEIGHTS, Student
from uss_dagster.student.net import DEVIATION, MEAN, StudentNet
from uss_dagster.student.prompts import Prompts

TOLERANCE = 1e-3
"""Greatest difference between ONNX and torch."""
OPSET = 17
MOST_CLICKS = 1024
"""Of a program of ``torch.export``."""
CLICKS = 4
"""Number of clicks with which a graph is traced; it takes any number from one."""
NAMES = ("masks", "objectness", "quality")


class LastOutput(nn.Module):
    """The network's last output as three tensors."""

    def __init__(self, net: StudentNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        output = self.net(image, Prompts.clicks(points))[0][-1]
        return output.masks, output.objectness.sigmoid(), output.quality.sigmoid()


def export_onnx(student: Student, path: Path) -> float:
    """Write the network as ONNX.

    Parameters
    ----------
    student : Student
    path : Path
        Of the file.

    Returns
    -------
    float
        The greatest difference to torch.

    Raises
    ------
    Unavailable
        If the package onnx is not installed.
    BadData
        If the difference exceeds ``TOLERANCE``; nothing is written then.
    """
    if importlib.util.find_spec("onnx") is None:
        raise Unavailable("ONNX export needs the package 'onnx', which is not installed. Run `pip install onnx onnxruntime` and try again.")
    net, inputs = _network_and_inputs(student)
    net.shares = log_shares  # type: ignore[method-assign,assignment]
    model = LastOutput(net).eval()
    buffer = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            inputs,
            buffer,  # type: ignore[arg-type]
            input_names=["image", "points"],
            output_names=list(NAMES),
            dynamic_axes={"points": {1: "clicks"}, **{name: {1: "answers"} for name in NAMES}},
            opset_version=OPSET,
            dynamo=False,
        )
        del net.shares
        expected = [value.numpy() for value in model(*inputs)]
    data = buffer.getvalue()
    gap = max(float(np.abs(a - b).max()) for a, b in zip(expected, run_onnx(data, *(value.numpy() for value in inputs)), strict=True))
    if not gap <= TOLERANCE:
        raise BadData(
            f"The ONNX graph differs from torch by {gap:.2g}, more than {TOLERANCE:g}; nothing was written. Try another version of onnx."
        )
    write_whole(path, data)
    return gap


def export_program(student: Student, path: Path) -> float:
    """Write the network as a program that ``torch.export.load`` reads, without the code of this package.

    Parameters
    ----------
    student : Student
    path : Path
        Of the file, whose name ends in .pt2.

    Returns
    -------
    float
        The greatest difference to the network, also with another number of clicks.

    Raises
    ------
    UsageError
        If the name of the file does not end in .pt2.
    BadData
        If the difference exceeds ``TOLERANCE``; nothing is written then.
    """
    if path.suffix != ".pt2":
        raise UsageError(f"'{path}' does not end in .pt2, by which torch knows such a file.")
    net, (image, points) = _network_and_inputs(student)
    model, buffer = LastOutput(net).eval(), io.BytesIO()
    clicks = torch.export.Dim("clicks", min=1, max=MOST_CLICKS)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(model, (image, points), dynamic_shapes={"image": None, "points": {1: clicks}}), buffer)
        data = buffer.getvalue()
        written = torch.export.load(io.BytesIO(data)).module()
        pairs = [(written(image, some), model(image, some)) for some in (points, points[:, :1])]
    gap = max(float((a - b).abs().max()) for ours, theirs in pairs for a, b in zip(ours, theirs, strict=True))
    if not gap <= TOLERANCE:
        raise BadData(f"The program differs from torch by {gap:.2g}, more than {TOLERANCE:g}; nothing was written.")
    write_whole(path, data)
    return gap


def _network_and_inputs(student: Student) -> tuple[StudentNet, tuple[Tensor, Tensor]]:
    """A copy of the network on the CPU, and an image and clicks with which it is traced and checked."""
    net, side = copy.deepcopy(student.net).cpu(), student.settings.test_input
    if student.settings.encoder != "conv":
        net.encoder.fix_size(side)  # type: ignore[operator,union-attr]
    generator = torch.Generator().manual_seed(0)
    return net, (torch.rand(1, 3, side, side, generator=generator), torch.rand(1, CLICKS, 2, generator=generator))


def log_shares(logits: Tensor) -> Tensor:
    """``StudentNet.shares`` by logarithms.

    onnxruntime computes the sigmoid of large negative numbers with a small absolute, but a large relative error. The shares of an empty mask are
    ratios of such numbers.
    """
    return (-softplus(-logits)).softmax(-1)


def run_onnx(data: bytes, image: np.ndarray, points: np.ndarray) -> list[Any]:
    """Masks, objectness and quality from onnxruntime if it is installed, else from the (slow) evaluator of onnx."""
    feed = {"image": image, "points": points}
    if importlib.util.find_spec("onnxruntime") is not None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"]).run(list(NAMES), feed)
    import onnx
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(onnx.load_from_string(data)).run(list(NAMES), feed)


def export_folder(folder: Path, out: Path) -> None:
    """Copy a student's weights, config and card, and add ``preprocessor_config.json`` as `transformers` writes it.

    Raises
    ------
    UsageError
        If ``out`` is not empty.
    """
    student = Student.load(folder)
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"'{out}' is not empty. Name a folder that is not there yet.")
    out.mkdir(parents=True, exist_ok=True)
    for name in (WEIGHTS, CONFIG, "README.md"):
        if (folder / name).is_file():
            shutil.copyfile(folder / name, out / name)
    side = student.settings.test_input
    preprocessing = {
        "do_resize": True,
        "size": {"height": side, "width": side},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": False,
        "normalised_inside": {"mean": MEAN, "std": DEVIATION},
    }
    write_whole(out / "preprocessor_config.json", json.dumps(preprocessing, indent=1) + "\n")

"""``uss export``: a trained student in forms that other programs load."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from uss_dagster.commands.options import echo
from uss_dagster.errors import UsageError


def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The folder of a trained student.")],
    onnx: Annotated[Path | None, typer.Option("--onnx", metavar="FILE", help="Write the network to this file.")] = None,
    folder: Annotated[
        Path | None,
        typer.Option("--folder", metavar="DIR", help="Write weights, config, card and preprocessing here."),
    ] = None,
) -> None:
    """Write a trained student as ONNX or as a plain folder."""
    from uss_dagster.student.export import export_folder, export_onnx
    from uss_dagster.student.model import Student

    if onnx is None and folder is None:
        raise UsageError("Say what to write: --onnx FILE, --folder DIR, or both.")
    if folder is not None:
        export_folder(model, folder)
        echo(f"{folder}: weights, config, card, preprocessing.")
    if onnx is None:
        return
    if onnx.is_dir() or not onnx.absolute().parent.is_dir():
        raise UsageError(f"--onnx {onnx}: name a file in a folder that is there.")
    difference = export_onnx(Student.load(model), onnx)
    echo(f"{onnx}: at most {difference:.1e} from torch.")

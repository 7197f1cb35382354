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
    program: Annotated[
        Path | None, typer.Option("--torch", metavar="FILE", help="Write the network to this file, *.pt2, for `torch.export.load`.")
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option("--folder", metavar="DIR", help="Write weights, config, card and preprocessing here."),
    ] = None,
) -> None:
    """Write a trained student for other programs."""
    from uss_dagster.student.export import export_folder, export_onnx, export_program
    from uss_dagster.student.model import Student

    if onnx is None and program is None and folder is None:
        raise UsageError("Say what to write: --onnx FILE, --torch FILE, --folder DIR, or several of them.")
    for option, file in (("--onnx", onnx), ("--torch", program)):
        if file is not None and (file.is_dir() or not file.absolute().parent.is_dir()):
            raise UsageError(f"{option} {file}: name a file in a folder that is there.")
    if folder is not None:
        export_folder(model, folder)
        echo(f"{folder}: weights, config, card, preprocessing.")
    for file, write in ((onnx, export_onnx), (program, export_program)):
        if file is not None:
            echo(f"{file}: at most {write(Student.load(model), file):.1e} from torch.")

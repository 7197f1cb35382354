"""``uss export``: regions in the formats of other programs, and a trained student in forms that other programs load."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from uss_dagster.commands.options import AsJson, echo, echo_error, echo_json, echo_lines
from uss_dagster.errors import UsageError


def _format_names(incomplete: str) -> list[str]:
    """Completes the names of formats in a shell."""
    from uss_dagster.formats import catalogue

    return [name for name in catalogue.names() if name.startswith(incomplete)]


FormatName = Annotated[
    str | None,
    typer.Option("--format", "-f", metavar="NAME", help="Of masks; `uss export --list` shows all.", autocompletion=_format_names),
]


def export(
    source: Annotated[
        Path | None,
        typer.Argument(metavar="PATH", help="Regions (a folder of `uss segment`, data/segments/…, a curated set), or a trained student."),
    ] = None,
    formats: Annotated[bool, typer.Option("--list", help="Show the formats of masks, and what each keeps.")] = False,
    json: AsJson = False,
    name: FormatName = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="DIR", help="With --format: the new folder.")] = None,
    images: Annotated[
        Path | None,
        typer.Option("--images", metavar="DIR", help="The pictures, copied where the format has a place for them; a folder or a dataset."),
    ] = None,
    licence: Annotated[str, typer.Option(metavar="TEXT", help="Of the pictures and masks, where the format states it.")] = "not stated",
    onnx: Annotated[Path | None, typer.Option("--onnx", metavar="FILE", help="Of a student: write the network to this file.")] = None,
    program: Annotated[
        Path | None,
        typer.Option("--torch", metavar="FILE", help="Of a student: write the network to this file, *.pt2, for `torch.export.load`."),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option("--folder", metavar="DIR", help="Of a student: write weights, config, card and preprocessing here."),
    ] = None,
) -> None:
    """Write regions, or a trained student, for other programs.

    Regions: `uss export PATH --format coco --out DIR`. A student: `uss export PATH --onnx FILE`, `--torch FILE` or `--folder DIR`.
    """
    if formats:
        _show_formats(json)
        return
    if source is None:
        raise UsageError("Name what is to be exported, or pass --list.")
    if name is None and out is None:
        _export_student(source, onnx, program, folder)
        return
    if onnx or program or folder:
        raise UsageError("--format is for regions; --onnx, --torch and --folder are for a student. Pass one or the other.")
    if name is None or out is None:
        raise UsageError("Regions are exported with --format NAME and --out DIR; `uss export --list` shows the formats.")
    _export_regions(source, name, out, images, licence)


def _show_formats(as_json: bool) -> None:
    from uss_dagster.formats import catalogue
    from uss_dagster.formats.base import ASPECTS
    from uss_dagster.text import aligned

    specs = catalogue.specs()
    if as_json:
        echo_json([spec.facts for spec in specs])
        return
    rows = [(spec.name, *(spec.keeps(aspect) for aspect in ASPECTS)) for spec in specs]
    echo_lines(aligned(("format", *ASPECTS), rows))
    for spec in specs:
        echo_lines(("", f"{spec.name}: {spec.title}. {spec.layout}"))
        echo_lines(f"  {remark}" for remark in catalogue.remarks(spec))


def _export_regions(source: Path, name: str, out: Path, images: Path | None, licence: str) -> None:
    from uss_dagster.formats.catalogue import load
    from uss_dagster.formats.sources import open_source
    from uss_dagster.formats.transfer import export_masks

    title = load(name).SPEC.title
    done = export_masks(replace(open_source(source, images), licence=licence), name, out)
    for note in done.notes:
        echo_error(note)
    pictures = f", {done.pictures} pictures" if done.pictures else ", no pictures (--images DIR copies them)"
    echo(f"{out}: {title}; {done.images} images, {done.regions} regions{pictures}.")


def _export_student(model: Path, onnx: Path | None, program: Path | None, folder: Path | None) -> None:
    if onnx is None and program is None and folder is None:
        raise UsageError(
            "Say what to write: of regions --format NAME and --out DIR; of a student --onnx FILE, --torch FILE, --folder DIR, or several of them."
        )
    from uss_dagster.student.export import export_folder, export_onnx, export_program
    from uss_dagster.student.model import Student

    for option, file in (("--onnx", onnx), ("--torch", program)):
        if file is not None and (file.is_dir() or not file.absolute().parent.is_dir()):
            raise UsageError(f"{option} {file}: name a file in a folder that is there.")
    if folder is not None:
        export_folder(model, folder)
        echo(f"{folder}: weights, config, card, preprocessing.")
    for file, write in ((onnx, export_onnx), (program, export_program)):
        if file is not None:
            echo(f"{file}: at most {write(Student.load(model), file):.1e} from torch.")

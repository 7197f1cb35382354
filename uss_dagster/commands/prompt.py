"""``uss prompt``: the masks that a trained student finds at points of an image, or a page to click on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from uss_dagster.commands.options import echo, echo_lines
from uss_dagster.errors import UsageError


def prompt(
    image: Annotated[Path | None, typer.Argument(metavar="IMAGE", help="The image.", show_default=False)] = None,
    model: Annotated[Path, typer.Option("--model", metavar="DIR", help="A trained student.")] = Path("student"),
    point: Annotated[
        list[str] | None,
        typer.Option("--point", metavar="X,Y", help="Pixels from the upper left corner; can be repeated.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="Write the masks: a picture (.png) or COCO (.json).", show_default=False),
    ] = None,
    serve: Annotated[bool, typer.Option("--serve", help="A page to click on, on 127.0.0.1 only.")] = False,
    images: Annotated[Path | None, typer.Option("--images", metavar="FOLDER", help="Images for the page.", show_default=False)] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the page; 0 for any that is free.")] = 8765,
    device: Annotated[str, typer.Option(metavar="NAME", help="cpu, cuda, cuda:1, or auto.")] = "auto",
) -> None:
    """The masks of a student at a point: nested, with qualities."""
    if serve:
        if point or out:
            raise UsageError("--serve shows masks on its page; leave out --point and --out.")
        _serve(model, [path for path in (image, images) if path], port, device)
        return
    if image is None or images is not None:
        raise UsageError("Name one picture to ask, as in `uss prompt IMAGE --point 120,45`; --images goes with --serve.")
    points = [parse_point(text) for text in point or []]
    if not points:
        raise UsageError("Nothing was asked: give --point X,Y, or --serve for a page to click on.")
    _answer(image, points, model, out, device)


def parse_point(text: str) -> tuple[int, int]:
    """'120,45' → (120, 45): pixels from the left and from the top."""
    try:
        x, y = (int(part) for part in text.replace(" ", "").split(","))
    except ValueError:
        raise UsageError(f"--point is '{text}', expected X,Y in whole pixels from the upper left corner, such as 120,45.") from None
    return x, y


def _answer(path: Path, points: list[tuple[int, int]], model: Path, out: Path | None, device: str) -> None:
    """Print the masks at each point, and write them to ``out``."""
    from uss_dagster.artifacts.image_files import read_picture
    from uss_dagster.files import write_whole
    from uss_dagster.student.model import Student
    from uss_dagster.student.prompting import SPLIT, answer_lines, answers_json, draw_answers, masks_at

    if out is not None:
        check_out(out, path)
    pixels = read_picture(path)
    height, width = pixels.shape[:2]
    for x, y in points:
        if not (0 <= x < width and 0 <= y < height):
            raise UsageError(f"--point {x},{y} lies outside {path}, which is {width}×{height} pixels (width × height).")
    encoded = Student.load(model, device).encode(pixels, SPLIT)
    answers = [masks_at(encoded, point) for point in points]
    echo_lines(answer_lines(answers))
    if out is not None:
        is_json = out.suffix.lower() == ".json"
        write_whole(out, json.dumps(answers_json(path.name, answers), indent=1) + "\n" if is_json else draw_answers(pixels, answers))
        echo(f"{out} written")


def _serve(model: Path, paths: list[Path], port: int, device: str) -> None:
    from uss_dagster.own_images.files import common_folder, pictures, relative_name
    from uss_dagster.student.model import Student
    from uss_dagster.student.prompt_page import Gallery, serve

    files = pictures(paths) if paths else []
    folder = common_folder(files) if files else Path()
    serve(Gallery(Student.load(model, device), files, [relative_name(file, folder) for file in files]), port, echo)


def check_out(out: Path, image: Path) -> None:
    """Refuse a file that is neither .png nor .json, the image itself, and a .png that ``uss prompt`` did not draw."""
    from uss_dagster.own_images.files import is_overlay
    from uss_dagster.student.prompting import SIGNATURE

    if out.suffix.lower() not in (".png", ".json"):
        raise UsageError(f"--out is '{out}', expected a file that ends in .png or .json.")
    if out.is_dir() or not out.absolute().parent.is_dir():
        problem = "it is a folder" if out.is_dir() else f"{out.parent} is no folder"
        raise UsageError(f"--out {out}: {problem}. Name a file in a folder there.")
    if out.exists() and out.samefile(image):
        raise UsageError(f"--out {out} is the picture itself. Choose another name; nothing was changed.")
    if out.exists() and out.suffix.lower() == ".png" and not is_overlay(out, SIGNATURE):
        raise UsageError(f"{out} is there already, and `{SIGNATURE}` did not draw it. Choose another name; nothing was changed.")

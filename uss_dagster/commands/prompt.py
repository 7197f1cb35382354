"""``uss prompt``: the masks that a trained student finds for points, boxes and previous masks, or a page to ask on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from uss_dagster.commands.options import echo, echo_lines
from uss_dagster.errors import UsageError

if TYPE_CHECKING:
    from uss_dagster.student.prompt_input import Prompt

ORDER = "uss_dagster.order"
"""In the context: the names of the options in the order in which they were given, one an occurrence."""
NOTHING = "Nothing was asked: give --point X,Y, --box or --mask, or --serve for a page to click on."


class Command(typer.core.TyperCommand):
    """Remembers the order of options, since ``--object`` divides those before it from those after it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As usual; ``ORDER`` is put into the context."""
        ctx.meta[ORDER] = [param.name for param in self.make_parser(ctx).parse_args(args=list(args))[2]]
        return super().parse_args(ctx, args)


def prompt(
    ctx: typer.Context,
    image: Annotated[Path | None, typer.Argument(metavar="IMAGE", help="The image.", show_default=False)] = None,
    model: Annotated[Path, typer.Option("--model", metavar="DIR", help="A trained student.")] = Path("student"),
    point: Annotated[
        list[str] | None,
        typer.Option(
            "--point", metavar="X,Y", help="A pixel of the object, from the upper left corner; can be repeated.", show_default=False
        ),
    ] = None,
    negative: Annotated[
        list[str] | None,
        typer.Option("--negative", metavar="X,Y", help="A pixel that is not of the object; can be repeated.", show_default=False),
    ] = None,
    box: Annotated[
        list[str] | None,
        typer.Option("--box", metavar="X,Y,X,Y", help="Two opposite corners of a box around the object.", show_default=False),
    ] = None,
    mask: Annotated[
        list[Path] | None,
        typer.Option(
            "--mask", metavar="FILE", help="A previous mask to refine, white on black, as large as the image.", show_default=False
        ),
    ] = None,
    object_: Annotated[int, typer.Option("--object", count=True, help="What follows is about another object.", show_default=False)] = 0,
    granularity: Annotated[
        float | None,
        typer.Option("--granularity", metavar="G", help="One mask an object: 0 the smallest part … 1 the whole.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="Write the masks: a picture (.png) or COCO (.json).", show_default=False),
    ] = None,
    save_mask: Annotated[
        Path | None,
        typer.Option("--save-mask", metavar="FILE", help="Write the best mask of the first object (.png), for --mask.", show_default=False),
    ] = None,
    serve: Annotated[bool, typer.Option("--serve", help="A page to click on, on 127.0.0.1 only.")] = False,
    images: Annotated[Path | None, typer.Option("--images", metavar="FOLDER", help="Images for the page.", show_default=False)] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the page; 0 for any that is free.")] = 8765,
    device: Annotated[str, typer.Option(metavar="NAME", help="cpu, cuda, cuda:1, or auto.")] = "auto",
) -> None:
    """The masks of a student for points, boxes and masks."""
    given: dict[str, list[Any]] = {"point": point or [], "negative": negative or [], "box": box or [], "mask": mask or []}
    if serve:
        if any(given.values()) or object_ or out or save_mask or granularity is not None:
            raise UsageError("--serve shows masks on its page; leave out --point, --out and the like.")
        _serve(model, [path for path in (image, images) if path], port, device)
        return
    if image is None or images is not None:
        raise UsageError("Name one picture to ask, as in `uss prompt IMAGE --point 120,45`; --images goes with --serve.")
    if not any(given.values()):
        raise UsageError(NOTHING)
    _answer(image, by_object(ctx.meta[ORDER], given), granularity, model, out, save_mask, device)


def by_object(order: Sequence[str], given: dict[str, list[Any]]) -> list[dict[str, list[Any]]]:
    """The values of each object, in the order of the options. order: names of options, of which ``object_`` begins the next object."""
    values = {name: iter(of_name) for name, of_name in given.items()}
    objects: list[dict[str, list[Any]]] = [{name: [] for name in given}]
    for name in order:
        if name == "object_" and any(objects[-1].values()):
            objects.append({name: [] for name in given})
        elif name in values:
            objects[-1][name].append(next(values[name]))
    if not any(objects[-1].values()):
        raise UsageError("Nothing follows the last --object: give --point X,Y, --box or --mask after it.")
    for several in objects:
        for name in ("box", "mask"):
            if len(several[name]) > 1:
                raise UsageError(f"An object has one --{name}; put --object before the next one.")
    return objects


def parse_numbers(text: str, option: str, count: int) -> tuple[int, ...]:
    """'120,45' → (120, 45): pixels from the left and from the top."""
    try:
        numbers = tuple(int(part) for part in text.replace(" ", "").split(","))
        if len(numbers) != count:
            raise ValueError
    except ValueError:
        shape, example = ("X,Y", "120,45") if count == 2 else ("X,Y,X,Y, two corners,", "10,10,80,90")
        raise UsageError(
            f"--{option} is '{text}', expected {shape} in whole pixels from the upper left corner, such as {example}."
        ) from None
    return numbers


def _prompt_of(given: dict[str, list[Any]], image: Path, shape: tuple[int, int]) -> Prompt:
    """The prompt of one object on an image of (height, width)."""
    from uss_dagster.artifacts.image_files import read_picture
    from uss_dagster.student.prompt_input import Prompt

    height, width = shape
    points = {name: [parse_numbers(text, name, 2) for text in given[name]] for name in ("point", "negative")}
    for name, places in points.items():
        for x, y in places:
            if not (0 <= x < width and 0 <= y < height):
                raise UsageError(f"--{name} {x},{y} lies outside {image}, which is {width}×{height} pixels (width × height).")
    box = parse_numbers(given["box"][0], "box", 4) if given["box"] else None
    mask = None
    if given["mask"]:
        brightness = read_picture(given["mask"][0]).max(axis=2)
        mask = brightness >= max(1, brightness.max() / 2)
    labels = [1] * len(points["point"]) + [0] * len(points["negative"])
    asked = Prompt.of([(x, y) for places in points.values() for x, y in places], labels, box, mask)
    asked.check(shape)
    return asked


def _answer(
    path: Path,
    objects: list[dict[str, list[Any]]],
    granularity: float | None,
    model: Path,
    out: Path | None,
    save: Path | None,
    device: str,
) -> None:
    """Print the masks of each object, and write them to ``out`` and ``save``."""
    from uss_dagster.artifacts.image_files import read_picture
    from uss_dagster.files import write_whole
    from uss_dagster.student.model import Student
    from uss_dagster.student.prompting import SPLIT, answer_lines, answers_json, draw_answers, mask_png, masks_of

    if out is not None:
        check_out(out, path)
    if save is not None:
        check_out(save, path, "--save-mask", (".png",))
    pixels = read_picture(path)
    prompts = [_prompt_of(given, path, (pixels.shape[0], pixels.shape[1])) for given in objects]
    encoded = Student.load(model, device).encode(pixels, SPLIT)
    answers = [masks_of(encoded, asked, granularity) for asked in prompts]
    echo_lines(answer_lines(answers))
    if out is not None:
        is_json = out.suffix.lower() == ".json"
        write_whole(out, json.dumps(answers_json(path.name, answers), indent=1) + "\n" if is_json else draw_answers(pixels, answers))
        echo(f"{out} written")
    if save is not None:
        write_whole(save, mask_png(answers[0]))
        echo(f"{save} written")


def _serve(model: Path, paths: list[Path], port: int, device: str) -> None:
    from uss_dagster.own_images.files import common_folder, pictures, relative_name
    from uss_dagster.student.model import Student
    from uss_dagster.student.prompt_page import Gallery, serve

    files = pictures(paths) if paths else []
    folder = common_folder(files) if files else Path()
    serve(Gallery(Student.load(model, device), files, [relative_name(file, folder) for file in files]), port, echo)


def check_out(out: Path, image: Path, option: str = "--out", endings: Sequence[str] = (".png", ".json")) -> None:
    """Refuse a file of another ending, the image itself, and a .png that ``uss prompt`` did not draw."""
    from uss_dagster.own_images.files import is_overlay
    from uss_dagster.student.prompting import SIGNATURE

    if out.suffix.lower() not in endings:
        raise UsageError(f"{option} is '{out}', expected a file that ends in {' or '.join(endings)}.")
    if out.is_dir() or not out.absolute().parent.is_dir():
        problem = "it is a folder" if out.is_dir() else f"{out.parent} is no folder"
        raise UsageError(f"{option} {out}: {problem}. Name a file in a folder there.")
    if out.exists() and out.samefile(image):
        raise UsageError(f"{option} {out} is the picture itself. Choose another name; nothing was changed.")
    if out.exists() and out.suffix.lower() == ".png" and not is_overlay(out, SIGNATURE):
        raise UsageError(f"{out} is there already, and `{SIGNATURE}` did not draw it. Choose another name; nothing was changed.")

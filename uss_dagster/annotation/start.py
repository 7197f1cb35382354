"""From the arguments of ``uss annotate`` to the workbench of its page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from uss_dagster.annotation.document import Document, Picture
from uss_dagster.annotation.entries import Entries, segment_entries
from uss_dagster.annotation.order import Order, differences
from uss_dagster.annotation.progress import Progress
from uss_dagster.annotation.workbench import Workbench
from uss_dagster.artifacts.image_files import open_picture, upright_size
from uss_dagster.errors import BadData, UsageError
from uss_dagster.own_images.files import common_folder, ids_of, pictures, relative_name, report_not_read
from uss_dagster.segmenter import Segmenter
from uss_dagster.text import few

Tell = Callable[[str], None]


def named_files(paths: list[Path]) -> list[tuple[str, Path]]:
    """(id, file) of each image, ascending by id."""
    files = pictures(paths)
    return sorted(zip(ids_of(files), files, strict=True))


def check_out(out: Path) -> None:
    """Refuse an output that is no file, or one that `uss annotate` did not write, before anything is computed."""
    if out.is_dir() or out.suffix.lower() != ".json":
        raise UsageError(f"--out {out}: name a file that ends in .json.")
    Document(out, [])


def work_folder(out: Path) -> Path:
    """Where the regions lie that `uss annotate` finds itself."""
    return out.with_name(f".{out.stem}.regions")


def segmented(paths: list[Path], segmenters: Mapping[str, Segmenter], out: Path, report: Tell, report_failure: Tell) -> Entries:
    """Regions of the images by several methods, in the folder beside the output."""
    report_not_read(paths, report_failure)
    return segment_entries(named_files(paths), segmenters, work_folder(out), report, report_failure)


def make_workbench(
    paths: list[Path], entries: Entries, out: Path, classes: Sequence[str], margin: float, report_failure: Tell
) -> Workbench:
    """The images that have regions, with the annotations that the output has already.

    Raises
    ------
    BadData
        No image has regions.
    """
    shown, without = [], []
    named = named_files(paths)
    folder = paths[0] if len(paths) == 1 and paths[0].is_dir() else common_folder([path for _, path in named])
    for image_id, path in named:
        if image_id not in entries.ids:
            without.append(image_id)
            continue
        try:
            with open(path, "rb") as file, open_picture(file, str(path)) as picture:
                shape = upright_size(picture)
        except (OSError, BadData) as error:
            report_failure(f"left out: {error}")
            continue
        shown.append(Picture(image_id, relative_name(path, folder.absolute()), path, shape))
    if without:
        report_failure(f"left out, for want of regions: {len(without)} of {len(named)} images: {few(without)}")
    if not shown:
        raise BadData(f"None of the {len(named)} images has regions in {entries.folder}.")
    different = differences(entries)
    order = Order({picture.image_id: different[picture.image_id] for picture in shown})
    return Workbench(Document(out, shown, classes), entries, order, Progress(entries, order.weights, margin))

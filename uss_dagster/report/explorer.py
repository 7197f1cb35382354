"""The hierarchy explorer: pictures, their ground truth and the regions of any entries side by side, from coarse to fine.

Belongs here: turning a stream of segmented pictures into ``explorer.html`` and the small files that it reads. Does not belong here:
how regions are coded (``explorer_codes``) and coloured (``explorer_colours``), choosing pictures, other pages.

The page opens from disk, without a server or a network: each picture's data is a script of its own, loaded when it is asked for.
A link to a view of it is ``explorer.html#d=<dataset>&i=<image>&e=<entry>,<entry>&g=<regions in view>``, each part percent-encoded
and each optional (see ``link``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np

from uss_dagster.drawing import annotators, shrunk
from uss_dagster.files import write_whole
from uss_dagster.regions import Regions
from uss_dagster.report.explorer_codes import Nested, encode, encode_numbers
from uss_dagster.report.explorer_colours import SHADES, assign, palette
from uss_dagster.report.html import asset, packed, render_page
from uss_dagster.report.jpeg import save_jpeg

TITLE = "Hierarchy explorer"
LONGEST = 640
"""Longer side of what is drawn, in pixels. Areas and the IoU with the ground truth are those of the full size."""
PAGE, FOLDER = "explorer.html", "explorer"


@dataclass(frozen=True)
class SegmentedImage:
    """One picture and everything that cuts it into regions.

    Parameters
    ----------
    dataset, image_id : str
        Names.
    pixels : numpy.ndarray
        uint8 (H, W, 3), of the regions' size.
    truths : sequence of (str, Regions)
        Title and regions of each ground truth, see ``truths_of``.
    regions : mapping of str to Regions
        Entry to its regions, in the order of the columns.
    scores : mapping, optional
        Entry to metric to its score on this picture.
    classes : sequence of str
        Names of the ground truth's labels.
    size : (int, int), optional
        The picture's own (height, width), where pixels and regions are reduced already.
    """

    dataset: str
    image_id: str
    pixels: np.ndarray
    truths: Sequence[tuple[str, Regions]]
    regions: Mapping[str, Regions]
    scores: Mapping[str, Mapping[str, float]] | None = None
    classes: Sequence[str] = ()
    size: tuple[int, int] | None = None


def write(folder: Path, images: Iterable[SegmentedImage], titles: Mapping[str, str], in_site: bool = False) -> list[Path]:
    """Write ``explorer.html`` and ``explorer/`` into a folder, one picture after the other.

    Parameters
    ----------
    folder : Path
        The site's folder, or any that exists.
    images : iterable of SegmentedImage
        The pictures, in the order of the page.
    titles : mapping of str to str
        Titles of datasets, entries and metrics; a name without one is its own title.
    in_site : bool, default False
        Whether the page has the site's frame, which needs the site's style sheet, or is complete without other pages.

    Returns
    -------
    list of Path
        The files, the page first.
    """
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    listed: list[dict[str, object]] = []
    names: list[str] = []
    for number, image in enumerate(images):
        stem = f"{FOLDER}/{number:04d}"
        key = f"picture-{number:04d}"
        height, width = shrunk_size(image.pixels.shape[:2])
        photo, data = folder / f"{stem}.jpg", folder / f"{stem}.js"
        save_jpeg(photo, shrunk(image.pixels, LONGEST), 86)
        columns = _columns(image, (height, width), titles)
        write_whole(data, f"(window.USS = window.USS || {{}})[{packed(key)}] = {packed(columns)};\n")
        written += [photo, data]
        ids = [column["id"] for column in columns]
        names += [image.dataset, *image.regions]
        sizes = {"size": [height, width], "full": list(image.size or image.pixels.shape[:2])}
        listed.append({"dataset": image.dataset, "id": image.image_id, "file": stem, "key": key, "columns": ids, **sizes})
    index = {"images": listed, "palette": palette(), "shades": len(SHADES), "titles": {name: titles.get(name, name) for name in names}}
    assets = {"css": asset("explorer.css").strip(), "js": asset("explorer.js").strip(), "page_css": asset("page.css").strip()}
    page = render_page("explorer.html.j2", TITLE, PAGE, in_site=in_site, index=packed(index), **assets)
    write_whole(folder / PAGE, page)
    return [folder / PAGE, *written]


def is_page(path: Path) -> bool:
    """Whether a file is an explorer's page."""
    try:
        return b'id="explorer-index"' in path.read_bytes()
    except OSError:
        return False


def link(dataset: str, image_id: str = "", entries: Iterable[str] = (), granularity: int | None = None) -> str:
    """The address of a view, relative to the folder of ``write``."""
    parts = {"d": quote(dataset, safe=""), "i": quote(image_id, safe=""), "e": ",".join(quote(e, safe="") for e in entries)}
    parts["g"] = "" if granularity is None else str(granularity)
    return f"{PAGE}#" + "&".join(f"{k}={v}" for k, v in parts.items() if v)


def truths_of(truth: Regions | None) -> list[tuple[str, Regions]]:
    """Ground truth as columns: one, or one an annotator where several drew the picture (told apart by ``source``).

    The annotator with the median number of regions comes first, as in ``drawing.truth_map``.
    """
    if truth is None or not len(truth):
        return []
    people, source = annotators(truth), np.asarray(truth.source)
    if len(people) < 2:
        return [("Ground truth", truth)]
    return [(f"Ground truth, {person}", truth.select(source == person).compact()) for person in people]


def shrunk_size(shape: tuple[int, ...]) -> tuple[int, int]:
    """(height, width) of ``drawing.shrunk`` at ``LONGEST``."""
    scale = min(1.0, LONGEST / max(shape[:2]))
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def _columns(image: SegmentedImage, shape: tuple[int, int], titles: Mapping[str, str]) -> list[dict[str, object]]:
    """One object a family for the script, the ground truths first. shape: (height, width) of what is drawn."""
    truths = [regions for _, regions in image.truths]
    families = [(f"~truth{number or ''}", title, regions) for number, (title, regions) in enumerate(image.truths)]
    families += [(entry, titles.get(entry, entry), regions) for entry, regions in image.regions.items()]
    reference: tuple[Nested, np.ndarray] | None = None
    columns: list[dict[str, object]] = []
    for name, title, regions in families:
        nested = Nested.of(regions)
        colours = assign(nested, reference)
        if reference is None and len(regions):
            reference = nested, colours
        is_truth = name.startswith("~")
        coded = encode(nested, shape, names=image.classes) if is_truth else encode(nested, shape, truths)
        scores = {} if is_truth else (image.scores or {}).get(name, {})
        columns.append(
            {
                **asdict(coded),
                "id": name,
                "title": title,
                "colour": encode_numbers(colours.tolist()),
                "scores": [[titles.get(metric, metric), round(float(v), 6)] for metric, v in scores.items() if np.isfinite(v)],
            }
        )
    return columns

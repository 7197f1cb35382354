"""What all readers of masks share: a reader knows which images a file or folder holds, and reads the regions of one of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from uss_dagster.artifacts.image_files import MAX_PIXELS
from uss_dagster.errors import BadData
from uss_dagster.regions import Regions
from uss_dagster.text import few

Shape = tuple[int, int]
"""(height, width) in pixels."""


class Masks:
    """Masks of many images.

    Parameters
    ----------
    path : Path
        Where they are, for errors.
    ids : iterable of str
        The images.
    named : bool
        Ids are file stems; otherwise they are the numbers of a COCO file as text. Default: True.
    labelled : bool, optional
        Regions carry labels that mean the same in all images; None where that cannot be known. Default: False.

    Attributes
    ----------
    unscored : str
        Names the first mask whose score is missing; empty where there is none.
    own_images : bool
        The file itself says which names and numbers its images have.
    """

    unscored = ""
    own_images = False

    def __init__(self, path: Path, ids: Iterable[str], *, named: bool = True, labelled: bool | None = False) -> None:
        self.path, self.ids, self.named, self.labelled = path, sorted(ids), named, labelled
        for image_id in self.ids:
            try:
                image_id.encode()
            except UnicodeEncodeError:
                raise BadData(f"{path}: the name of image {image_id!a} is not text in UTF-8. Rename it.") from None

    def number(self, image_id: str) -> int | None:
        """The COCO number of an image, for partners that know numbers only."""
        return int(image_id) if image_id.isascii() and image_id.isdecimal() else None

    def place(self, image_id: str) -> int:
        """See ``Truth.place``: the COCO number of an image that a COCO file lists, else 0."""
        return 0

    def rules(self) -> Iterator[str]:
        """A sentence on which values of label pictures are no region."""
        yield from ()

    def complaints(self) -> Iterator[str]:
        """A sentence for each thing in what was read so far that is probably meant otherwise."""
        yield from ()

    def regions(self, image_id: str, shape: Shape | None = None) -> Regions:
        """The regions of one image; shape: (height, width) where the masks do not say it themselves."""
        raise NotImplementedError

    def shape(self, image_id: str) -> Shape:
        """(height, width) of one image."""
        return self.regions(image_id).shape


def pair_up(truth: Masks, prediction: Masks) -> tuple[dict[str, str], list[str]]:
    """Match images by file stem where both sides have names, else by COCO number.

    Names of which none is on both sides may be numbers: those that the one side's 'images' give to its names.

    Returns
    -------
    pairs : dict
        Id in the ground truth → id in the prediction.
    strangers : list of str
        Predicted images without ground truth.

    Raises
    ------
    BadData
        The two have no image in common.
    """
    ids = set(truth.ids)
    pairs = {i: i for i in prediction.ids if i in ids} if truth.named and prediction.named else {}
    if not pairs and not (truth.named and prediction.named and truth.own_images == prediction.own_images):
        true, predicted = _by_number(truth), _by_number(prediction)
        pairs = {true[number]: predicted[number] for number in true if number in predicted}
    if not pairs:
        raise BadData(
            f"None of the {len(prediction.ids)} images of {prediction.path} ({_examples(prediction.ids)}) is in {truth.path} "
            f"({_examples(truth.ids)}). Images are matched by file name without its ending, or by COCO number."
        )
    used = set(pairs.values())
    return dict(sorted(pairs.items())), [i for i in prediction.ids if i not in used]


def files_below(folder: Path, suffix: str) -> dict[str, Path]:
    """Stem → file, of the visible files with an ending in a folder and below it, sorted; a stem that two files share is refused."""
    files: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.suffix.lower() != suffix or any(part.startswith(".") for part in inside.parts) or not path.is_file():
            continue
        if path.stem in files:
            raise BadData(
                f"{files[path.stem]} and {path} are both image '{path.stem}': images go by file name. Rename one, or pass its folder."
            )
        files[path.stem] = path
    return files


def _by_number(masks: Masks) -> dict[int, str]:
    ids: dict[int, str] = {}
    for image_id in masks.ids:
        number = masks.number(image_id)
        if number is None:
            continue
        if number in ids:
            raise BadData(f"{masks.path}: images '{ids[number]}' and '{image_id}' are both number {number}. Rename one of them.")
        ids[number] = image_id
    return ids


def _examples(ids: Sequence[str]) -> str:
    return few([f"'{i}'" for i in ids], 3) if ids else "it has none"


def checked_json(path: Path) -> Any:
    """The content of a JSON file that a person named; refused where it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadData(f"{path} cannot be read ({error.strerror}).") from None
    except ValueError as error:
        raise BadData(f"{path} is not JSON ({error}). Copy or make it again.") from None
    except RecursionError:
        raise BadData(f"{path} is nested too deeply to be read. Copy or make it again.") from None


def check_shape(size: Any, what: str) -> Shape:
    """(height, width) from two numbers of a file; what: names them in an error."""
    if not isinstance(size, list | tuple) or len(size) != 2 or not all(_is_side(value) for value in size):
        raise BadData(f"{what} has the size {size!r:.80}; height and width are whole numbers above 0.")
    height, width = int(size[0]), int(size[1])
    if height * width > MAX_PIXELS:
        raise BadData(f"{what} is {height}×{width} (height×width), more than {MAX_PIXELS:,} pixels. Scale it down first.")
    return height, width


def _is_side(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 2**31 and value == int(value)


def empty(shape: Shape | None, image_id: str) -> Regions:
    """No region over an image of this shape."""
    if shape is None:
        raise BadData(f"Image '{image_id}' has no regions, and its size is not known. Give 'height' and 'width' in 'images'.")
    return Regions.from_masks([], shape=shape)

"""``uss.Regions``: the regions of one picture with what people do with them, and ``uss.regions``, which builds them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from uss_dagster.api.pictures import WITHOUT_A_NAME, Picture, file_name_of, pixels_of, plain_array
from uss_dagster.artifacts.mask_readers import open_masks
from uss_dagster.artifacts.tables import regions_to_table
from uss_dagster.drawing import appearance, overlay, visible_regions
from uss_dagster.errors import BadData, UsageError
from uss_dagster.files import make_folder, write_whole
from uss_dagster.own_images.region_files import COCO, TABLE, RegionFiles
from uss_dagster.regions.coco import CocoAnnotation, RunLengths, code_of
from uss_dagster.regions.regions import Columns
from uss_dagster.regions.regions import Regions as RegionFamily
from uss_dagster.report.explorer import PAGE
from uss_dagster.report.own_images_explorer import check_place, put_in_place, segmented_image
from uss_dagster.text import few

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Regions(RegionFamily):
    """The regions of one picture, nested or overlapping, with the picture.

    ``uss.segment`` and ``uss.regions`` make them. ``len(regions)`` is their number K; ``regions.mask(i)`` is the mask of one, bool (H, W);
    ``parent``, ``level``, ``score``, ``label``, ``area`` and ``boxes`` are arrays of length K. Parents come before their children.

    Parameters
    ----------
    atoms, members, parent, **columns
        As ``uss_dagster.regions.Regions`` takes them.

    Attributes
    ----------
    image : ndarray or None
        The picture, uint8 (H, W, 3); None where it is not known.
    file_name : str
        Name of the picture's file.

    Examples
    --------
    >>> import numpy as np
    >>> import uss_dagster as uss
    >>> regions = uss.regions(np.array([[0, 0, 1], [0, 2, 1]]))
    >>> len(regions), regions.area.tolist()
    (3, [3, 2, 1])
    """

    image: np.ndarray | None = None
    file_name: str = WITHOUT_A_NAME

    @classmethod
    def of(cls, regions: RegionFamily, image: np.ndarray | None = None, file_name: str = WITHOUT_A_NAME) -> Self:
        """Regions of any origin, with their picture.

        Parameters
        ----------
        regions : Regions
            Of any class of the package.
        image : ndarray, optional
            The picture, uint8 (H, W, 3). Default: None, not known.
        file_name : str, default "image"
            Name of its file.

        Returns
        -------
        Regions
            The same regions.

        Raises
        ------
        BadData
            The picture has another size.
        """
        if image is not None and image.shape[:2] != regions.shape:
            raise BadData(f"The regions are of a picture of {regions.shape} (height, width), the one given has {image.shape[:2]}.")
        result = cls(regions.atoms, regions.members, regions.parent, **regions.columns)
        result.score, result.coco = regions.score, regions.coco
        result.image, result.file_name = image, file_name
        return result

    @classmethod
    def load(cls, path: str | os.PathLike[str], name: str | None = None) -> Self:
        """Read the regions of one picture from a file.

        Parameters
        ----------
        path : path
            What ``save`` or ``uss segment`` wrote, another COCO json, or a folder of label PNGs.
        name : str, optional
            Which picture: its file name without the ending. Default: None, the only one.

        Returns
        -------
        Regions
            Without the picture.

        Raises
        ------
        UsageError
            The file holds several pictures and none was named, or not the one that was; the sentence names them.
        """
        masks = open_masks(Path(path))
        if name not in masks.ids and (name is not None or len(masks.ids) != 1):
            problem = f"no picture '{name}'" if name is not None else f"{len(masks.ids)} pictures, so name one"
            raise UsageError(f"{path} holds {problem}: {few(masks.ids)}.")
        image_id = masks.ids[0] if name is None else name
        return cls.of(masks.regions(image_id), file_name=image_id)

    @property
    def name(self) -> str:
        """The name of the picture: that of its file without the ending."""
        return Path(self.file_name).stem

    def at(self, k: int) -> np.ndarray:
        """A flat label map: the hierarchy opened from the top, as far as at most k regions are in view.

        The region of the highest level is opened first (of the greatest area where there are no levels). Of overlapping masks the k largest
        are shown, without near repetitions.

        Parameters
        ----------
        k : int
            Greatest number of regions.

        Returns
        -------
        ndarray
            int32 (H, W), 1 to at most k; 0 where no region is.

        Examples
        --------
        >>> import numpy as np
        >>> import uss_dagster as uss
        >>> halves = np.repeat([[True, True, False, False], [False, False, True, True]], 2, axis=0).reshape(2, 2, 4)
        >>> regions = uss.regions([np.ones((2, 4), bool), *halves], parent=[-1, 0, 0])
        >>> regions.at(2)[0].tolist(), regions.at(1)[0].tolist()
        ([1, 1, 2, 2], [1, 1, 1, 1])
        """
        if k < 1:
            raise UsageError(f"k is {k}, expected 1 or more regions.")
        appears = appearance(self)
        steps = np.unique(appears[np.isfinite(appears)])
        is_tree, low, high = self.is_tree, 0, len(steps)
        while low < high:  # the last step that shows no more than k
            middle = (low + high + 1) // 2
            low, high = (middle, high) if len(self._in_view(steps[middle - 1], is_tree)[0]) <= k else (low, middle - 1)
        shown, holder = self._in_view(steps[low - 1] if low else -1, is_tree)
        numbers = np.zeros(len(self) + 1, np.int32)  # the last entry serves -1, no region
        numbers[shown] = np.arange(1, len(shown) + 1)
        return np.asarray(numbers[holder][self.atoms])

    def _in_view(self, step: float, is_tree: bool) -> tuple[np.ndarray, np.ndarray]:
        """(the regions that are seen, ascending; that of each atom, -1 for none) when those that appear by ``step`` are drawn."""
        holder = visible_regions(self, step, is_tree)
        return np.unique(holder[(holder >= 0) & (self.atom_area > 0)]), holder

    def show(self, levels: Sequence[int] = (4, 16, 64), axes: Sequence[Axes] | None = None) -> np.ndarray:
        """Draw the picture, and beside it the regions from coarse to fine, with matplotlib.

        Parameters
        ----------
        levels : sequence of int, default (4, 16, 64)
            About how many regions each drawing shows.
        axes : sequence of Axes, optional
            Where to draw: one for the picture and one for each level. Default: None, a new figure.

        Returns
        -------
        ndarray of Axes
            One for each drawing; ``axes[0].figure`` is the figure.

        Examples
        --------
        >>> import uss_dagster as uss
        >>> uss.segment("photo.jpg").show()  # doctest: +SKIP
        """
        if axes is None:
            import matplotlib.pyplot as plt

            _, axes = plt.subplots(1, 1 + len(levels), figsize=(3.2 * (1 + len(levels)), 3.2), layout="constrained")
        elif len(axes) != 1 + len(levels):
            raise UsageError(f"{1 + len(levels)} axes are needed, one for the picture and one for each level; {len(axes)} were given.")
        picture = self._pixels()
        titles = [self.name, *(f"about {level} regions" for level in levels)]
        for axis, title, drawn in zip(axes, titles, [picture, *(overlay(picture, self, level) for level in levels)], strict=True):
            axis.imshow(drawn)
            axis.set_title(title)
            axis.set_axis_off()
        return np.asarray(axes)

    def explore(self, folder: str | os.PathLike[str]) -> Path:
        """Write a page on which the hierarchy can be explored from coarse to fine.

        Parameters
        ----------
        folder : path
            Where it is written; made if it is not there.

        Returns
        -------
        Path
            ``explorer.html``, which opens in a browser without a server.

        Examples
        --------
        >>> import uss_dagster as uss
        >>> uss.segment("photo.jpg").explore("photo")  # doctest: +SKIP
        PosixPath('photo/explorer.html')
        """
        target, picture = Path(folder), self._pixels()
        check_place(target)
        make_folder(target)
        put_in_place(target, [segmented_image(self.name, picture, self, "regions")], {"regions": "Regions"})
        return target / PAGE

    def to_coco(self, image_id: int = 1, first_id: int = 1) -> list[CocoAnnotation]:
        """The regions as annotations of COCO, with ``score`` and ``parent`` as additions; ``save("regions.json")`` writes the whole file.

        Parameters
        ----------
        image_id : int, default 1
            Number of the picture.
        first_id : int, default 1
            Number of the first annotation; the others follow.

        Returns
        -------
        list of dict
            ``id``, ``image_id``, ``category_id`` (1 where a region has no label), ``segmentation`` (run lengths), ``area``, ``bbox``, …
        """
        return super().to_coco(image_id, first_id)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the regions to a file, the same that ``uss segment`` writes for this picture.

        Parameters
        ----------
        path : path
            Ends in ``.parquet`` (a row for each region) or ``.json`` (COCO).

        Returns
        -------
        Path
            The file.

        Raises
        ------
        UsageError
            The path ends in something else.
        """
        target = Path(path)
        suffixes = {Path(name).suffix: name for name in (TABLE, COCO)}
        if target.suffix.lower() not in suffixes:
            raise UsageError(f"{target}: the ending says the format; {', '.join(suffixes)} are known.")
        if not len(self):
            raise BadData(f"There is no region of {self.file_name} to write.")
        with tempfile.TemporaryDirectory() as folder:
            with RegionFiles(Path(folder), "regions") as files:
                files.add(self.name, self.file_name, regions_to_table(self.name, self))
            write_whole(target, Path(folder, suffixes[target.suffix.lower()]).read_bytes())
        return target

    def _pixels(self) -> np.ndarray:
        if self.image is None:
            raise UsageError("The picture of these regions is not known. Give it: uss.regions(regions, image=picture).")
        return self.image


def regions(
    source: Any,
    image: Picture | None = None,
    *,
    name: str | None = None,
    parent: Sequence[int] | np.ndarray | None = None,
    score: Sequence[float] | np.ndarray | None = None,
    label: Sequence[int] | np.ndarray | None = None,
    ignore: int | Collection[int] = (),
) -> Regions:
    """Regions from a label map, masks, run-length codes or a file.

    Parameters
    ----------
    source : array, tensor, sequence, path or Regions
        A label map, int (H, W): one region for each value. Masks, bool (K, H, W), or a sequence of bool (H, W). A sequence of COCO run-length
        codes, ``{"size": [H, W], "counts": …}``, or of annotations that have one as their ``segmentation``. A path: see ``Regions.load``.
        Regions: the same, to give them a picture.
    image : path, array, PIL image or tensor, optional
        The picture, which ``show`` and ``explore`` need.
    name : str, optional
        Which picture of a file with several.
    parent : sequence of int, length K, optional
        Of masks and codes: index of the smallest region above each, -1 for none. Parents come before their children.
    score, label : sequence, length K, optional
        Of masks and codes: confidence and class of each.
    ignore : int or collection of int, default ()
        Of a label map: values that are no region.

    Returns
    -------
    Regions
        The regions, with the picture if it was given.

    Raises
    ------
    BadData
        Shapes do not fit, or a file is damaged.
    UsageError
        The source is none of these.

    Examples
    --------
    >>> import numpy as np
    >>> import uss_dagster as uss
    >>> len(uss.regions(np.array([[0, 1, 1], [0, 2, 2]]), ignore=0))
    2
    """
    family, file_name = _family_of(source, name, parent, {"score": score, "label": label}, ignore)
    if image is None:
        return Regions.of(family, getattr(source, "image", None), file_name)
    return Regions.of(family, pixels_of(image), file_name if file_name != WITHOUT_A_NAME else file_name_of(image))


def _family_of(
    source: Any, name: str | None, parent: Sequence[int] | np.ndarray | None, columns: Columns, ignore: int | Collection[int]
) -> tuple[RegionFamily, str]:
    """(regions, file name of their picture)."""
    if isinstance(source, str | os.PathLike):
        loaded = Regions.load(source, name)
        return loaded, loaded.file_name
    if isinstance(source, RegionFamily):
        return source, getattr(source, "file_name", WITHOUT_A_NAME)
    if isinstance(source, Sequence) and source and isinstance(source[0], Mapping):
        return _from_codes(source, parent, columns), WITHOUT_A_NAME
    masks = np.asarray([np.asarray(mask) for mask in source]) if isinstance(source, Sequence) else plain_array(source)
    if masks.ndim == 2 and masks.dtype.kind in "iu":
        if any(value is not None for value in (parent, *columns.values())):
            raise UsageError("A label map takes no parent, score or label; give masks.")
        return RegionFamily.from_label_map(masks, ignore=ignore), WITHOUT_A_NAME
    if masks.dtype == bool and masks.ndim in (2, 3) and masks.size:
        return RegionFamily.from_masks(masks if masks.ndim == 3 else masks[None], parent, **columns), WITHOUT_A_NAME
    raise UsageError(
        f"Regions come from a label map (H, W) of whole numbers, masks (K, H, W) of bool, run-length codes or a file, got {masks.dtype} {masks.shape}."
    )


def _from_codes(source: Sequence[RunLengths | CocoAnnotation], parent: Sequence[int] | np.ndarray | None, columns: Columns) -> RegionFamily:
    codes: list[Any] = [item.get("segmentation", item) for item in source]
    if not all(isinstance(code, Mapping) and "size" in code and "counts" in code for code in codes):
        raise UsageError('Run-length codes are mappings {"size": [height, width], "counts": …}; for polygons pass the COCO file.')
    height, width = codes[0]["size"]
    coded = [code_of(code, height, width, f"Region {number}") for number, code in enumerate(codes)]
    return RegionFamily.from_codes(coded, (height, width), parent, **columns)

"""``Regions``: any family of masks over one image, held as atoms.

Every family of masks cuts an image into *atoms*: an atom is the set of pixels that the same regions hold. One integer map of atoms
and a small boolean matrix regions × atoms hold the whole family. The intersections of two families are ``A @ H @ B.T`` with ``H``
the joint histogram of their atoms, so no product of pixels and regions is ever formed (``benchmarks/covering.py``).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Literal, TypedDict, Unpack

import numpy as np

from uss_dagster.errors import BadData
from uss_dagster.pixels import count_of_each, distinct_values, nearest_cells, numbered_by_first, places_among
from uss_dagster.regions import rle
from uss_dagster.regions.atoms import atoms_of_codes, atoms_of_masks
from uss_dagster.regions.coco import CocoAnnotation, CocoFacts, annotation


class Columns(TypedDict, total=False):
    """What is known of each of K regions beside its pixels and its parent; see ``Regions``."""

    level: Sequence[float] | np.ndarray | None
    score: Sequence[float] | np.ndarray | None
    label: Sequence[int] | np.ndarray | None
    source: Sequence[str] | str


class Regions:
    """K regions over one image of H × W pixels.

    Parameters
    ----------
    atoms : ndarray of int, shape (H, W)
        Atom of each pixel, 0..A-1; kept as int32.
    members : ndarray of bool, shape (K, A)
        Which atoms each region holds.
    parent : sequence of int, length K, optional
        Index of the smallest region above each region, smaller than the region's own index, or -1 for none (default).
    level : sequence of float, length K, optional
        Height at which each region forms, 0 the finest; NaN (default) where the method has none.
    score : sequence of float, length K, optional
        Confidence; 1 (default) where the method has none.
    label : sequence of int, length K, optional
        Class of each region, or -1 for none (default).
    source : sequence of str, length K, or one str, default ""
        View, scale or annotator that each region comes from.

    Raises
    ------
    BadData
        If the shapes do not fit, an atom is outside 0..A-1, or a parent does not come before its child.
    """

    __slots__ = ("__dict__", "atoms", "label", "level", "members", "parent", "score", "source")
    coco: CocoFacts | None = None
    """What a COCO file says beside masks; only readers of such files set it, and scores of double precision with it."""

    def __init__(
        self, atoms: np.ndarray, members: np.ndarray, parent: Sequence[int] | np.ndarray | None = None, **columns: Unpack[Columns]
    ) -> None:
        self.atoms = np.ascontiguousarray(atoms, np.int32)
        self.members = np.asarray(members, bool)
        if self.atoms.ndim != 2 or self.members.ndim != 2:
            raise BadData(f"Regions take atoms (H, W) and members (K, A), got {self.atoms.shape} and {self.members.shape}.")
        if self.atoms.size and not 0 <= int(self.atoms.min()) <= int(self.atoms.max()) < self.members.shape[1]:
            raise BadData(f"Atoms run from {self.atoms.min()} to {self.atoms.max()}, but members know {self.members.shape[1]} of them.")
        self._set_columns(len(self.members), parent, **columns)

    def _set_columns(
        self,
        k: int,
        parent: Sequence[int] | np.ndarray | None,
        *,
        level: Sequence[float] | np.ndarray | None = None,
        score: Sequence[float] | np.ndarray | None = None,
        label: Sequence[int] | np.ndarray | None = None,
        source: Sequence[str] | str = "",
    ) -> None:
        """Set the columns of k regions, each of length k."""
        self.parent = np.full(k, -1, np.int32) if parent is None else np.asarray(parent, np.int32).copy()
        self.level = np.full(k, np.nan, np.float32) if level is None else np.asarray(level, np.float32)
        self.score = np.ones(k, np.float32) if score is None else np.asarray(score, np.float32)
        self.label = np.full(k, -1, np.int32) if label is None else np.asarray(label, np.int32)
        self.source = (source,) * k if isinstance(source, str) else tuple(source)
        for name in ("parent", "level", "score", "label", "source"):
            if len(getattr(self, name)) != k:
                raise BadData(f"{k} regions, but {len(getattr(self, name))} values of '{name}'.")
        _check_parents(self.parent)

    # -- constructors -----------------------------------------------------------------------------

    @classmethod
    def from_tree(cls, leaf_map: np.ndarray, parent: Sequence[int] | np.ndarray, **columns: Unpack[Columns]) -> Regions:
        """A tree of nested regions.

        Parameters
        ----------
        leaf_map : ndarray of int, shape (H, W)
            The deepest node that holds each pixel, or -1 for none. A pixel may belong to an inner node directly.
        parent : sequence of int, length K
            Parent of each node; parents come before their children. The first node is the root, with parent -1 or 0. Further
            nodes with parent -1 make the tree a forest.
        **columns
            Level, score, label and source of each node, as for ``Regions``.
        """
        leaf_map = np.asarray(leaf_map)
        above = np.asarray(parent, np.int32).copy()
        if len(above) and above[0] == 0:
            above[0] = -1
        _check_parents(above)
        n = len(above)
        if leaf_map.ndim != 2 or leaf_map.dtype.kind not in "iu":
            raise BadData(f"A leaf map is an integer array (H, W), got {leaf_map.dtype} {leaf_map.shape}.")
        if leaf_map.size and not -1 <= int(leaf_map.min()) <= int(leaf_map.max()) < n:
            raise BadData(f"The leaf map holds {leaf_map.min()}..{leaf_map.max()}, but the tree has nodes 0..{n - 1} (-1 is no region).")
        holds = ancestor_matrix(above)
        used = np.bincount(leaf_map.ravel().astype(np.int64) + 1, minlength=n + 1) > 0
        members = np.concatenate([np.zeros((n, 1), bool), holds], axis=1)[:, used]
        rank = np.cumsum(used) - 1
        return cls(rank[leaf_map + 1], members, above, **columns)

    @classmethod
    def from_masks(
        cls,
        masks: Sequence[np.ndarray] | np.ndarray,
        parent: Sequence[int] | np.ndarray | None = None,
        *,
        shape: tuple[int, int] | None = None,
        **columns: Unpack[Columns],
    ) -> Regions:
        """Any masks, overlapping or not.

        Parameters
        ----------
        masks : ndarray of bool, shape (K, H, W), or a sequence of (H, W)
        parent : sequence of int, length K, optional
        shape : (int, int), optional
            Height and width of the image; needed only if there are no masks.
        **columns
            Level, score, label and source of each mask, as for ``Regions``.
        """
        if not len(masks):
            if shape is None:
                raise BadData("Regions.from_masks got no masks; pass shape=(height, width) so that the image size is known.")
            return cls(np.zeros(shape, np.int32), np.zeros((0, 1), bool))
        shapes = {m.shape for m in masks}
        if len(shapes) > 1:
            raise BadData(f"Masks of one image must have one size, got {sorted(shapes)}.")
        return cls(*atoms_of_masks(masks), parent, **columns)

    @classmethod
    def from_codes(
        cls,
        codes: Sequence[bytes],
        shape: tuple[int, int],
        parent: Sequence[int] | np.ndarray | None = None,
        *,
        size: tuple[int, int] | None = None,
        **columns: Unpack[Columns],
    ) -> Regions:
        """Any masks, as COCO run-length codes over an image of ``shape`` (height, width); see ``from_masks``. No mask is decoded.

        With ``size``, (height, width) of a smaller image, the same as ``resized`` to it, at less cost.
        """
        return cls(*atoms_of_codes(codes, shape, size), parent, **columns)

    @classmethod
    def from_label_map(
        cls, labels: np.ndarray, *, ignore: int | Collection[int] = (), use_labels: bool = False, source: str = ""
    ) -> Regions:
        """One region for each distinct value, in ascending order, without a root.

        Parameters
        ----------
        labels : ndarray of int, shape (H, W)
        ignore : int or collection of int, default ()
            Value, or values, of the pixels that belong to no region.
        use_labels : bool, default False
            Keep the values as labels of the regions.
        source : str, default ""
        """
        values, _ = distinct_values(labels)
        keep = ~np.isin(values, [ignore] if isinstance(ignore, int) else list(ignore))
        members = np.eye(len(values), dtype=bool)[keep]
        return cls(places_among(labels, values), members, label=values[keep] if use_labels else None, source=source)

    # -- properties and pixels --------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.members)

    def __repr__(self) -> str:
        height, width = self.shape
        depth = int(self.depth.max(initial=0))
        return f"Regions({len(self)} over {height}×{width}, {self.members.shape[1]} atoms, depth {depth})"

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the image."""
        return self.atoms.shape[0], self.atoms.shape[1]

    @property
    def columns(self) -> Columns:
        """Level, score, label and source, as the constructors take them."""
        return {"level": self.level, "score": self.score, "label": self.label, "source": self.source}

    @cached_property
    def atom_area(self) -> np.ndarray:
        """Pixels in each atom, int64 (A,)."""
        return count_of_each(self.atoms, self.members.shape[1])

    @cached_property
    def area(self) -> np.ndarray:
        """Pixels in each region, int64 (K,)."""
        return np.asarray(self.members @ self.atom_area)

    @cached_property
    def depth(self) -> np.ndarray:
        """Number of regions above each region, int32 (K,)."""
        return depth_of(self.parent)

    @cached_property
    def is_root(self) -> np.ndarray:
        """Bool (K,): the region is the whole image, nothing lies above it, and it is no segment of its own.

        It is a segment where it alone has a label, as in a label picture of one value, and where it comes from a COCO file and nothing lies
        below it. Coverings leave roots out, and only them: the first node of a tree that leaves pixels out is no root.
        """
        segment = np.full(len(self), self.coco is not None)
        segment[self.parent[self.parent >= 0]] = False
        if len(self) == 1:
            segment |= self.label >= 0
        return np.asarray((self.parent < 0) & (self.area == self.shape[0] * self.shape[1]) & ~segment)

    @property
    def is_tree(self) -> bool:
        """Whether any two regions are disjoint or one lies above the other."""
        last = self.last_holder()
        held = (last >= 0) & (self.atom_area > 0)
        return bool((self.members.sum(axis=0)[held] == self.depth[last[held]] + 1).all())

    @cached_property
    def boxes(self) -> np.ndarray:
        """COCO boxes (x, y, width, height), int32 (K, 4); zeros for an empty region."""
        from scipy.ndimage import find_objects

        far = 2**30
        spans = find_objects(self.atoms + 1, self.members.shape[1])  # of each atom, None for one without pixels
        edges = np.array([(s[1].start, s[0].start, -s[1].stop, -s[0].stop) if s else (far,) * 4 for s in spans], np.int32)
        boxes = np.zeros((len(self), 4), np.int32)
        for region, held in enumerate(self.members & (self.atom_area > 0)):
            if held.any():
                x, y, right, bottom = edges[held].min(axis=0)
                boxes[region] = x, y, -right - x, -bottom - y
        return boxes

    def mask(self, region: int) -> np.ndarray:
        """Bool (H, W) of one region."""
        return np.asarray(self.members[region][self.atoms])

    def window(self, region: int, window: tuple[slice, slice]) -> np.ndarray:
        """``mask(region)[window]``, rows and columns."""
        return np.asarray(self.members[region][self.atoms[window]])

    def masks(self) -> np.ndarray:
        """Bool (K, H, W) of all regions. Large: prefer ``mask`` or the atoms."""
        return self.members[:, self.atoms]

    def last_holder(self, regions: np.ndarray | None = None) -> np.ndarray:
        """Position of the last region that holds each atom, int64 (A,), -1 for none.

        Parameters
        ----------
        regions : ndarray of int, shape (n,), optional
            Indices of the regions to look at, ascending; positions count in this array. All regions where it is missing.
        """
        members = self.members if regions is None else self.members[regions]
        if not len(members):
            return np.full(members.shape[1], -1)
        return np.where(members.any(axis=0), len(members) - 1 - np.argmax(members[::-1], axis=0), -1)

    def deepest(self) -> np.ndarray:
        """Index of the last (so, in a tree, the deepest) region that holds each pixel, int32 (H, W), -1 for none."""
        return np.asarray(self.last_holder().astype(np.int32)[self.atoms])

    def cut(self, threshold: float) -> np.ndarray:
        """Index of the region at each pixel in a flat segmentation, int32 (H, W), -1 for none.

        It consists of the largest regions whose level is at most ``threshold``. Where no region is that fine, the smallest
        region that holds the pixel is taken.
        """
        fine = self.level <= threshold
        above_is_fine = np.where(self.parent >= 0, fine[self.parent], False)
        tops = np.flatnonzero(fine & ~above_is_fine)
        top = np.append(tops, -1)[self.last_holder(tops)]
        return np.asarray(np.where(top >= 0, top, self.last_holder())[self.atoms].astype(np.int32))

    def runs(self, order: Literal["C", "F"]) -> tuple[np.ndarray, np.ndarray]:
        """First pixel of each run of one atom, int64 (R,), and that atom, (R,), along rows ("C") or columns ("F")."""
        flat = self.atoms.ravel(order=order)
        start = np.flatnonzero(np.concatenate([np.ones(min(1, flat.size), bool), flat[1:] != flat[:-1]]))
        return start, flat[start]

    # -- other regions of the same image ----------------------------------------------------------

    def select(self, keep: np.ndarray) -> Regions:
        """Some of the regions; each gets the nearest selected region above it as parent.

        Parameters
        ----------
        keep : ndarray of bool, shape (K,), or ndarray of int
            Mask of the regions, or their indices in ascending order.
        """
        keep = np.flatnonzero(keep) if np.asarray(keep).dtype == bool else np.asarray(keep, np.int64)
        parent, columns = self._selected(keep)
        return Regions(self.atoms, self.members[keep], parent, **columns)

    def _selected(self, keep: np.ndarray) -> tuple[np.ndarray, Columns]:
        """Parent and columns of these regions (indices in ascending order), each under the nearest of them that was above it."""
        source = [self.source[i] for i in keep]
        return parents_among(self.parent, keep), {
            "level": self.level[keep],
            "score": self.score[keep],
            "label": self.label[keep],
            "source": source,
        }

    def pruned(self) -> Regions:
        """Without regions that own no pixel."""
        return self if bool((self.area > 0).all()) else self.select(self.area > 0)

    def labelled(self, regions: np.ndarray, labels: np.ndarray) -> Regions:
        """The same regions with these labels on the given ones (indices), and none on all others."""
        label = np.full(len(self), -1, np.int32)
        label[regions] = labels
        labelled = Regions(self.atoms, self.members, self.parent, **(self.columns | Columns(label=label)))
        labelled.score, labelled.coco = self.score, self.coco
        return labelled

    def compact(self) -> Regions:
        """The same regions over one atom for each combination of regions that occurs, numbered as they come row by row."""
        packed = np.packbits(self.members, axis=0).T if len(self) else np.zeros((self.members.shape[1], 1), np.uint8)
        _, kind = np.unique(packed, axis=0, return_inverse=True)
        atoms, first = numbered_by_first(kind.reshape(-1)[self.atoms])
        return Regions(atoms, self.members[:, self.atoms.ravel()[first]], self.parent, **self.columns)

    def with_atoms_in_order(self) -> Regions:
        """The same regions with atoms numbered by the last region that holds them, as ``from_tree`` numbers those of a tree."""
        order = np.argsort(self.last_holder(), kind="stable")
        rank = np.empty(len(order), np.int32)
        rank[order] = np.arange(len(order), dtype=np.int32)
        return Regions(rank[self.atoms], self.members[:, order], self.parent, **self.columns)

    def resized(self, height: int, width: int) -> Regions:
        """Nearest-neighbour to another size (pixel centres); regions that vanish stay, empty."""
        atoms = self.atoms[nearest_cells(height, self.shape[0])[:, None], nearest_cells(width, self.shape[1])]
        regions = Regions(atoms, self.members, self.parent, **self.columns)
        regions.score = self.score  # of double precision where a file gave such
        regions.coco = self.coco and replace(self.coco, area=np.full(len(self), np.nan))  # areas are of the image's own pixels
        return regions

    # -- codes ------------------------------------------------------------------------------------

    def rles(self) -> list[bytes]:
        """COCO codes of all regions, from the runs of the atoms: the work grows with boundaries, not with pixels."""
        start, atom = self.runs("F")
        codes: list[bytes] = []
        for held in self.members:
            inside = held[atom]
            edges = start[np.flatnonzero(inside[1:] != inside[:-1]) + 1]
            # A code begins with a run of pixels outside, which may be empty.
            edges = np.concatenate([[0, 0] if inside[:1].any() else [0], edges, [self.atoms.size]])
            codes.append(rle.encode_runs(np.diff(edges)))
        return codes

    def to_coco(self, image_id: int, first_id: int = 1) -> list[CocoAnnotation]:
        """COCO annotations (class-agnostic where a region has no label), with ``parent`` and ``score`` kept as extra keys."""
        parents = [first_id + p if p >= 0 else None for p in self.parent.tolist()]
        rows = zip(self.label.tolist(), self.area.tolist(), self.boxes, self.rles(), self.score.tolist(), parents, strict=True)
        return [
            annotation(first_id + region, image_id, label, area, box, self.shape, code, score, parent)
            for region, (label, area, box, code, score, parent) in enumerate(rows)
        ]


def intersections(first: Regions, second: Regions, valid: np.ndarray | None = None) -> np.ndarray:
    """Pixels shared by every pair of regions, int64 (K1, K2), over the valid pixels (bool (H, W)) only."""
    counts = joint_histogram(first, second, valid).astype(np.float64)  # exact below 2⁵³, and multiplied by BLAS
    return (first.members.astype(np.float64) @ counts @ second.members.T.astype(np.float64)).astype(np.int64)


def joint_histogram(first: Regions, second: Regions, valid: np.ndarray | None = None) -> np.ndarray:
    """Pixels in every pair of atoms, int64 (A1, A2)."""
    if first.shape != second.shape:
        raise BadData(f"Regions of one image must have one size, got {first.shape} and {second.shape} (height, width).")
    from uss_dagster.regions.counting import pair_counts

    pixels = slice(None) if valid is None else valid.ravel()
    a, b = first.members.shape[1], second.members.shape[1]
    return pair_counts(first.atoms.ravel()[pixels], second.atoms.ravel()[pixels], a, b)[:-1, :-1]


def depth_of(parent: Sequence[int] | np.ndarray) -> np.ndarray:
    """Number of nodes above each, int32 (n,); parents (-1 for none) come before their children."""
    depth = np.zeros(len(parent), np.int32)
    for node, above in enumerate(np.asarray(parent).tolist()):
        if above >= 0:
            depth[node] = depth[above] + 1
    return depth


def parents_among(parent: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """For each node kept (int, ascending) the place of the nearest one above it that is kept, int64, -1 for none; parents as above."""
    new = np.full(len(parent) + 1, -1, np.int64)  # the last entry serves parent -1
    new[keep] = np.arange(len(keep))
    nearest = np.full(len(parent) + 1, -1, np.int64)
    for node, above in enumerate(parent.tolist()):
        nearest[node] = new[above] if above < 0 or new[above] >= 0 else nearest[above]
    return np.asarray(nearest[keep])


def ancestor_matrix(parent: Sequence[int] | np.ndarray) -> np.ndarray:
    """Bool (n, n): ``[a, b]`` where node a is b or lies above b; parents (-1 for none) come before their children."""
    holds = np.eye(len(parent), dtype=bool)
    for node, above in enumerate(np.asarray(parent).tolist()):
        if above >= 0:
            holds[:, node] |= holds[:, above]
    return holds


def _check_parents(parent: np.ndarray) -> None:
    bad = np.flatnonzero((parent >= np.arange(len(parent))) | (parent < -1))
    if len(bad):
        raise BadData(f"Region {bad[0]} has parent {parent[bad[0]]}; a parent comes before its children, or is -1 for none.")

"""Pictures of regions: flat cuts painted on the photo, contours of a whole hierarchy, ground truth, montages.

Belongs here: turning an image and ``Regions`` into pixels, with NumPy and Pillow only, the same bytes every time. Does not belong
here: choosing images, writing files, pages (``site``).

Both views use one number a region, ``appearance``: how many regions are in view when it first shows as the hierarchy is opened from the
top. A flat cut of n regions shows those that appear by n. Contours are wider the earlier they appear. So trees with levels, trees
without, and overlapping families are drawn at comparable granularity.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from uss_dagster.artifacts.image_files import shrunk as shrunk
from uss_dagster.errors import BadData
from uss_dagster.regions import Regions

DRAWN = 1024
"""Longer side at which regions are drawn for a thumbnail, in pixels; a larger picture is reduced to it first."""
SMALL = 0.002
"""Regions below this share of the image do not count towards the number of regions in view."""
SAME = 0.7
"""Overlapping masks with at least this IoU are variants of one mask; the larger is drawn."""
ALIKE = 0.05
"""Two regions of this IoU or more are taken for the same thing, which has one colour in all pictures."""
BANDS = ((4, 3, (45, 11, 89)), (8, 2, (156, 41, 100)), (16, 1, (226, 92, 48)), (math.inf, 1, (247, 178, 84)))
"""Contours: (appears by this number of regions, line width in pixels, colour), widest first."""


_RECENT: deque[tuple[Regions, np.ndarray]] = deque(maxlen=24)


def colours(n: int) -> np.ndarray:
    """Uint8 (n, 3): a palette of even lightness whose neighbours differ in hue; colour i does not depend on n.

    Hues step by the golden angle in OKLCH.
    """
    i = np.arange(n)
    hue, chroma = np.deg2rad(250.0 + i * 137.50776), 0.15
    return oklab_to_srgb(np.array([0.70, 0.62, 0.80])[i % 3], chroma * np.cos(hue), chroma * np.sin(hue))


def oklab_to_srgb(lightness: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Colours of OKLab as uint8 (n, 3); those that no screen has are clipped.

    Reference: B. Ottosson, "A perceptual color space for image processing", 2020.
    """
    lms = np.stack(
        [
            lightness + 0.3963377774 * a + 0.2158037573 * b,
            lightness - 0.1055613458 * a - 0.0638541728 * b,
            lightness - 0.0894841775 * a - 1.2914855480 * b,
        ]
    )
    to_rgb = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = np.clip(to_rgb @ lms**3, 0, 1).T
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(srgb * 255).astype(np.uint8)


# -- which regions to show ------------------------------------------------------------------------------


def appearance(regions: Regions) -> np.ndarray:
    """The number of regions in view when each region first shows.

    A tree is opened from the top, highest ``level`` first (largest region first where levels are missing); all children of the
    opened region appear together. An overlapping family shows its masks from largest to smallest, without near-duplicates. Results
    for the last families are cached, since every drawing of one needs them.

    Returns
    -------
    numpy.ndarray
        float64 (K,), read-only; infinite for regions that are never shown.
    """
    for recent, appears in _RECENT:
        if recent is regions:
            return appears
    appears = _open_tree(regions) if regions.is_tree else _largest_first(regions)
    appears.flags.writeable = False
    _RECENT.append((regions, appears))
    return appears


def flat_cut(regions: Regions, n_regions: int = 8) -> np.ndarray:
    """The region shown at each pixel when a few are in view.

    Parameters
    ----------
    regions : Regions
        Any family. One without a hierarchy cannot be coarsened and is shown whole.
    n_regions : int, default 8
        About how many regions are in view.

    Returns
    -------
    numpy.ndarray
        int32 (H, W), index of a region, or -1 for none.
    """
    return visible_regions(regions, n_regions, regions.is_tree)[regions.atoms]


def visible_regions(regions: Regions, n_regions: float, tiled: bool) -> np.ndarray:
    """Int32 (A,): index of the region shown at each atom in ``flat_cut``, -1 for none. tiled: whether they are a tree."""
    visible = np.flatnonzero(appearance(regions) <= n_regions)
    if not tiled:
        visible = visible[np.argsort(-regions.area[visible], kind="stable")]
    holder = np.full(regions.members.shape[1], -1, np.int32)
    for region in visible:
        holder[regions.members[region]] = region
    return holder


def shared_pixels(regions: Regions) -> np.ndarray:
    """Float (K, K): the number of pixels that any two regions of a family have in common."""
    from scipy import sparse

    members = sparse.csr_array(regions.members, dtype=np.float64)  # few of thousands of regions hold an atom; counts below 2⁵³ stay exact
    return np.asarray((members.multiply(regions.atom_area).tocsr() @ members.T).toarray())


def truth_map(truth: Regions) -> np.ndarray:
    """Int32 (H, W): the deepest ground-truth region at each pixel, -1 for none.

    Of several annotators (told apart by ``source``) the one with the median number of regions is shown.
    """
    return truth.select(np.asarray(truth.source) == annotators(truth)[0]).deepest() if len(truth) else truth.deepest()


def annotators(truth: Regions) -> list[str]:
    """The annotators of a ground truth, told apart by ``source``: the one with the median number of regions, then the others by name."""
    names = sorted(set(truth.source))
    median = sorted(names, key=truth.source.count)[(len(names) - 1) // 2]
    return sorted(names, key=lambda name: (name != median, name))


def _open_tree(regions: Regions) -> np.ndarray:
    least = SMALL * regions.atoms.size
    counted = (regions.area >= least).tolist()
    children: list[list[int]] = [[] for _ in range(len(regions))]
    for region, above in enumerate(regions.parent.tolist()):
        if above >= 0:
            children[above].append(region)
    by_level = not np.isnan(regions.level[[bool(c) for c in children]]).any()
    height = (regions.level if by_level else regions.area).tolist()

    appears = np.full(len(regions), math.inf)
    roots = np.flatnonzero(regions.parent < 0).tolist()
    appears[roots] = 1
    in_view = sum(counted[r] for r in roots)
    queue = [(-height[r], -int(regions.area[r]), r) for r in roots if children[r]]
    heapq.heapify(queue)
    while queue:
        _, _, opened = heapq.heappop(queue)
        rest = int(regions.area[opened]) - int(regions.area[children[opened]].sum())
        after = in_view - counted[opened] + sum(counted[c] for c in children[opened]) + (rest >= least)
        # A split in two appears with its second child; a wider one once the regions after it are as near to n as those before it.
        appears[children[opened]] = 2 if in_view <= 1 else max(math.ceil((in_view + after) / 2), 2)
        in_view = max(in_view, after)
        for child in children[opened]:
            if children[child]:
                heapq.heappush(queue, (-height[child], -int(regions.area[child]), child))
    return appears


def _largest_first(regions: Regions) -> np.ndarray:
    shared = shared_pixels(regions)
    area, is_root = regions.area, regions.is_root
    appears = np.full(len(regions), math.inf)
    drawn, count = np.zeros(len(regions), np.intp), 0
    for region in np.argsort(-area, kind="stable").tolist():
        if is_root[region] or not area[region]:
            continue
        before = drawn[:count]
        joint = shared[region, before]
        if (joint < SAME * (area[region] + area[before] - joint)).all():
            drawn[count], count = region, count + 1
            appears[region] = count
    return appears


# -- painting -------------------------------------------------------------------------------------------


def overlay(image: np.ndarray, regions: Regions, n_regions: int = 8, reference: np.ndarray | None = None) -> np.ndarray:
    """Regions as colours over the photo, with thin contours; grey where there is no region.

    Parameters
    ----------
    image : numpy.ndarray
        uint8 (H, W, 3).
    regions : Regions
        Any family; one of another size is resized to the image.
    n_regions : int, default 8
        About how many regions are in view.
    reference : numpy.ndarray, optional
        The ``colour_map`` of another family of the image. A region takes the colour of the one it overlaps most, so that one thing
        has one colour in the pictures of all methods.

    Returns
    -------
    numpy.ndarray
        uint8 (H, W, 3).
    """
    return paint(image, colour_map(flat_cut(_fitted(regions, image), n_regions), reference))


def thumbnail(image: np.ndarray, regions: Regions, longest: int, n_regions: int = 8) -> np.ndarray:
    """The ``overlay`` with its longer side at most ``longest`` pixels, from an image of any size and its regions."""
    return shrunk(overlay(shrunk(image, DRAWN), regions, n_regions), longest)


def colour_map(labels: np.ndarray, reference: np.ndarray | None = None) -> np.ndarray:
    """A colour index for each region of a label map, the largest region first.

    Parameters
    ----------
    labels : numpy.ndarray
        Integers (H, W); -1 stays -1.
    reference : numpy.ndarray, optional
        An earlier colour map. Regions take its indices one to one, best IoU first; the others get indices that it does not use.

    Returns
    -------
    numpy.ndarray
        int32 (H, W).
    """
    values, inverse, areas = np.unique(labels, return_inverse=True, return_counts=True)
    index = np.full(len(values), -1, np.int32)
    fresh = 0
    if reference is not None and (reference >= 0).any():
        fresh = int(reference.max()) + 1
        shared = np.bincount(inverse.ravel() * (fresh + 1) + reference.ravel() + 1, minlength=len(values) * (fresh + 1))
        shared = shared.reshape(len(values), fresh + 1)[:, 1:]
        iou = shared / (areas[:, None] + np.bincount(reference[reference >= 0], minlength=fresh) - shared)
        iou[values < 0] = 0
        for region, colour in best_pairs(iou):
            index[region] = colour
    for region in np.argsort(-areas, kind="stable"):
        if values[region] >= 0 and index[region] < 0:
            index[region], fresh = fresh, fresh + 1
    return index[inverse].reshape(labels.shape)


def best_pairs(iou: np.ndarray) -> list[tuple[int, int]]:
    """(row, column) of the pairs of an IoU matrix that count as alike (``ALIKE``), one to one, the best first."""
    pairs: list[tuple[int, int]] = []
    for flat in np.argsort(-iou, axis=None, kind="stable"):
        row, column = divmod(int(flat), iou.shape[1])
        if iou[row, column] < ALIKE:
            break
        if all(row != r and column != c for r, c in pairs):
            pairs.append((row, column))
    return pairs


def paint(image: np.ndarray, colour_indices: np.ndarray, strength: float = 0.62) -> np.ndarray:
    """Uint8 (H, W, 3): a colour map over the photo's light and shade, with contours between its regions.

    Parameters
    ----------
    image : numpy.ndarray
        uint8 (H, W, 3).
    colour_indices : numpy.ndarray
        Integers (H, W), see ``colour_map``.
    strength : float, default 0.62
        Share of the colour, from 0 to 1.
    """
    _check_image(image, colour_indices.shape)
    grey = _grey(image)
    palette = np.concatenate([colours(int(colour_indices.max(initial=-1)) + 1), [[0, 0, 0]]]).astype(np.float32)
    # Most of the photo's hue is removed, so that a colour means a region; its light and shade stay, so that the photo can be recognised.
    backdrop = 0.35 * image + 0.65 * grey[..., None]
    painted = (1 - strength) * backdrop + strength * palette[colour_indices]
    canvas = np.where(colour_indices[..., None] >= 0, painted, 60 + 0.55 * grey[..., None])
    across, down = _steps(colour_indices, np.not_equal)
    canvas[_widened(across, down, _line_width(image, 1))] = 255
    return np.rint(canvas).clip(0, 255).astype(np.uint8)


def contours(image: np.ndarray, regions: Regions) -> np.ndarray:
    """Uint8 (H, W, 3): all boundaries of a family over the faded photo, wide and dark where they appear early (see ``BANDS``)."""
    regions = _fitted(regions, image)
    n = regions.members.shape[1]
    across, down = _steps(regions.atoms, lambda a, b: np.where(a == b, -1, a.astype(np.int64) * n + b))
    keys = np.unique(np.concatenate([across.ravel(), down.ravel()]))
    keys = keys[keys >= 0]
    appears = _separation(np.stack(np.divmod(keys, n), axis=1), regions.members, appearance(regions))
    appears = np.append(appears, math.nan)  # the last entry serves the key -1, no step between atoms
    across, down = (appears[np.where(k < 0, len(keys), np.searchsorted(keys, k))] for k in (across, down))
    return _draw_bands(image, across, down)


def truth_contours(image: np.ndarray, truth: Regions) -> np.ndarray:
    """Like ``contours``; of several annotators, the darker the more of them drew a boundary there (all, three quarters, half, fewer).

    Annotators agree on a boundary where theirs are within 0.75 % of the image's diagonal, the tolerance of the BSDS benchmark.
    """
    truth = _fitted(truth, image)
    names = sorted(set(truth.source))
    if len(names) < 2:
        return contours(image, truth)
    tolerance = max(1, round(0.0075 * math.hypot(*truth.shape)))
    agreement = np.zeros(truth.shape)
    drawn = [np.zeros(truth.shape, bool)[:, 1:], np.zeros(truth.shape, bool)[1:]]
    for name in names:
        steps = _steps(truth.select(np.asarray(truth.source) == name).deepest(), np.not_equal)
        agreement += _widened(*steps, 2 * tolerance + 1)
        drawn = [a | b for a, b in zip(drawn, steps, strict=True)]
    share = agreement / len(names)
    appears = np.select([share >= 1, share >= 0.75, share >= 0.5], [limit for limit, _, _ in BANDS[:3]], BANDS[2][0] + 1.0)
    return _draw_bands(image, np.where(drawn[0], appears[:, :-1], math.nan), np.where(drawn[1], appears[:-1], math.nan), thin=True)


def montage(images: Sequence[np.ndarray], captions: Sequence[str], columns: int | None = None) -> np.ndarray:
    """Uint8 (H, W, 3): images side by side, each under its caption; smaller images are centred in their cell.

    Parameters
    ----------
    images : sequence of numpy.ndarray
        uint8 (h, w, 3) each.
    captions : sequence of str
        One an image; a long one is cut.
    columns : int, optional
        Images in a row; up to six by default.
    """
    if not images or len(images) != len(captions):
        raise BadData(f"A montage takes as many captions as images and at least one, got {len(captions)} and {len(images)}.")
    columns = columns or min(len(images), 6)
    height, width = max(i.shape[0] for i in images), max(i.shape[1] for i in images)
    gap, line = 8, max(18, width // 18)
    rows = -(-len(images) // columns)
    canvas = Image.new("RGB", (gap + columns * (width + gap), gap + rows * (height + line + 2 * gap)), (255, 255, 255))
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=line * 0.72)
    for i, (image, caption) in enumerate(zip(images, captions, strict=True)):
        x, y = gap + i % columns * (width + gap), gap + i // columns * (height + line + 2 * gap)
        draw.text((x, y), _shortened(caption, font, width), fill=(30, 30, 34), font=font)
        picture = Image.fromarray(image)
        canvas.paste(picture, (x + (width - picture.width) // 2, y + line + gap // 2 + (height - picture.height) // 2))
    return np.asarray(canvas)


# -- lines ----------------------------------------------------------------------------------------------


def _draw_bands(image: np.ndarray, across: np.ndarray, down: np.ndarray, thin: bool = False) -> np.ndarray:
    """Contours by when they appear. across, down: float (H, W-1) and (H-1, W), NaN where there is no boundary."""
    _check_image(image, (across.shape[0], down.shape[1]))
    canvas = np.repeat((255 - 0.5 * (255 - _grey(image)))[..., None], 3, axis=2)
    earlier = (-math.inf, *(limit for limit, _, _ in BANDS[:-1]))
    for above, (limit, width, colour) in reversed(list(zip(earlier, BANDS, strict=True))):
        hit = [(step > above) & (step <= limit) for step in (across, down)]
        canvas[_widened(hit[0], hit[1], _line_width(image, 1 if thin else width))] = colour
    return np.rint(canvas).clip(0, 255).astype(np.uint8)


def _separation(pairs: np.ndarray, members: np.ndarray, appears: np.ndarray) -> np.ndarray:
    """For atom pairs (P, 2), when the first region appears that holds exactly one of the two; NaN where none ever does."""
    result = np.full(len(pairs), math.nan)
    order = np.argsort(appears, kind="stable")
    order = order[np.isfinite(appears[order])]
    holds = members[order].T
    for start in range(0, len(pairs) if len(order) else 0, 2048):
        chunk = pairs[start : start + 2048]
        apart = holds[chunk[:, 0]] != holds[chunk[:, 1]]
        result[start : start + 2048] = np.where(apart.any(axis=1), appears[order][apart.argmax(axis=1)], math.nan)
    return result


def _steps(labels: np.ndarray, compare) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[no-untyped-def]
    """``compare`` of each pixel with its right and its lower neighbour, (H, W-1) and (H-1, W)."""
    return compare(labels[:, :-1], labels[:, 1:]), compare(labels[:-1], labels[1:])


def _widened(across: np.ndarray, down: np.ndarray, width: int) -> np.ndarray:
    """Bool (H, W): lines ``width`` pixels wide along the steps between pixels."""
    height, columns = across.shape[0], down.shape[1]
    line = np.zeros((height, columns), bool)
    line[:, :-1] |= across
    line[:-1] |= down
    for grown in range(1, width):  # in turn to the lower right and to the upper left, so that lines stay on their edge
        wider = line.copy()
        if grown % 2:
            wider[1:] |= line[:-1]
            wider[:, 1:] |= line[:, :-1]
        else:
            wider[:-1] |= line[1:]
            wider[:, :-1] |= line[:, 1:]
        line = wider
    return line


def _line_width(image: np.ndarray, width: int) -> int:
    """A line width meant for pictures up to 700 pixels, scaled up for larger ones."""
    return max(width, round(width * max(image.shape[:2]) / 700))


def _shortened(caption: str, font, width: int) -> str:  # type: ignore[no-untyped-def]
    if font.getlength(caption) <= width:
        return caption
    while caption and font.getlength(caption + "…") > width:
        caption = caption[:-1]
    return caption + "…"


def _grey(image: np.ndarray) -> np.ndarray:
    """Luma, float32 (H, W)."""
    return image.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)


def _fitted(regions: Regions, image: np.ndarray) -> Regions:
    return regions if regions.shape == image.shape[:2] else regions.resized(image.shape[0], image.shape[1])


def _check_image(image: np.ndarray, shape: tuple[int, ...]) -> None:
    if image.dtype != np.uint8 or image.shape != (*shape, 3):
        raise BadData(f"A picture is drawn on a uint8 image {(*shape, 3)}, got {image.dtype} {image.shape}. Convert it to RGB first.")

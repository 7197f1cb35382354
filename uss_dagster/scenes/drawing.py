"""The canvas of the drawn scenes: shapes, light, shadows, and the bookkeeping that makes ground truth exact.

A shape is rasterised once, at four times the resolution, into a coverage between 0 and 1. The picture blends by that
coverage; the label map takes the shape where it covers at least half a pixel. So picture and truth come from the same
numbers, in painter's order.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from uss_dagster.regions import ClassTree, Regions
from uss_dagster.scenes.textures import Material, Patch, mix, noise

FINE = 4
"""Sub-pixels a pixel, along each axis."""
SMALLEST = 16
"""Visible pixels below which a region is not told apart from its surroundings."""

Shape = list[tuple[np.ndarray, bool]]
"""Polygons (n, 2) of x, y with their ink: True adds to the shape, False cuts out."""
Points = Sequence[tuple[float, float]] | np.ndarray


# -- shapes, in whatever unit the caller uses -------------------------------------------------------


def polygon(*points: tuple[float, float]) -> Shape:
    return [(np.array(points, float), True)]


def box(x0: float, y0: float, x1: float, y1: float) -> Shape:
    return polygon((x0, y0), (x1, y0), (x1, y1), (x0, y1))


def ellipse(x: float, y: float, rx: float, ry: float, turn: float = 0.0, corners: int = 36) -> Shape:
    t = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    u, v = rx * np.cos(t), ry * np.sin(t)
    c, s = np.cos(turn), np.sin(turn)
    return [(np.stack([x + c * u - s * v, y + s * u + c * v], axis=1), True)]


def curve(points: Points, closed: bool = True, pieces: int = 7) -> np.ndarray:
    """A smooth line through the points (Catmull–Rom), as points."""
    p = np.asarray(points, float)
    n = len(p)
    index = np.arange(n if closed else n - 1)
    around = (lambda i: p[i % n]) if closed else (lambda i: p[np.clip(i, 0, n - 1)])
    a, b, c, d = (around(index + k)[:, None] for k in (-1, 0, 1, 2))
    t = (np.arange(pieces) / pieces)[None, :, None]
    line = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    flat = line.reshape(-1, 2)
    return flat if closed else np.concatenate([flat, p[-1:]])


def rounded(*points: tuple[float, float]) -> Shape:
    """A closed smooth outline through the points."""
    return [(curve(points), True)]


def stroke(points: Points, width: float, end: float | None = None) -> Shape:
    """A line with round joints, tapering from ``width`` to ``end``."""
    p = np.asarray(points, float)
    widths = np.linspace(width, width if end is None else end, len(p))
    pieces: Shape = []
    for i in range(len(p) - 1):
        along = p[i + 1] - p[i]
        normal = np.array([-along[1], along[0]]) / (np.hypot(*along) + 1e-9) / 2
        a, b = normal * widths[i], normal * widths[i + 1]
        pieces.append((np.array([p[i] + a, p[i + 1] + b, p[i + 1] - b, p[i] - a]), True))
    for (x, y), w in zip(p, widths, strict=True):
        pieces += ellipse(x, y, w / 2, w / 2, corners=10)
    return pieces


def ring(x: float, y: float, outer: float, inner: float) -> Shape:
    return ellipse(x, y, outer, outer, corners=48) + without(ellipse(x, y, inner, inner, corners=48))


def without(shape: Shape) -> Shape:
    """The same outlines, cutting out."""
    return [(points, False) for points, _ in shape]


def blob(rng: np.random.Generator, x: float, y: float, rx: float, ry: float, rough: float = 0.12, knots: int = 11) -> Shape:
    """An uneven round outline."""
    t = np.arange(knots) * 2 * np.pi / knots
    r = 1 + rng.uniform(-rough, rough, knots)
    return [(curve(np.stack([x + rx * r * np.cos(t), y + ry * r * np.sin(t)], axis=1), pieces=5), True)]


# -- light ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Light:
    """toward: unit vector (x, y down) to the light. tint: its colour. shadow: 0 none to 1 black. haze: colour of the distance."""

    toward: tuple[float, float]
    tint: np.ndarray
    shadow: float
    haze: np.ndarray


@dataclass(frozen=True)
class Stencil:
    """Coverage float32 (h, w) whose first pixel is (top, left); ``span``: x0, y0, x1, y1 of the whole shape, also outside the canvas."""

    top: int
    left: int
    alpha: np.ndarray
    span: tuple[float, float, float, float]

    @property
    def window(self) -> tuple[slice, slice]:
        return slice(self.top, self.top + self.alpha.shape[0]), slice(self.left, self.left + self.alpha.shape[1])


def rasterise(shape: Shape, height: int, width: int) -> Stencil | None:
    """Coverage of a shape in pixels, or None where nothing of it is on the canvas."""
    low = np.min([p.min(axis=0) for p, _ in shape], axis=0)
    high = np.max([p.max(axis=0) for p, _ in shape], axis=0)
    left, top = (max(0, int(np.floor(v)) - 1) for v in low)
    right, bottom = min(width, int(np.ceil(high[0])) + 2), min(height, int(np.ceil(high[1])) + 2)
    if right <= left or bottom <= top:
        return None
    fine = Image.new("L", ((right - left) * FINE, (bottom - top) * FINE))
    pen = ImageDraw.Draw(fine)
    for points, ink in shape:
        at = (points - (left, top)) * FINE - 0.5
        pen.polygon([(float(x), float(y)) for x, y in at], fill=255 if ink else 0)
    alpha = np.asarray(fine.reduce(FINE), np.float32) / 255
    return Stencil(top, left, alpha, (float(low[0]), float(low[1]), float(high[0]), float(high[1])))


@dataclass(frozen=True)
class _Stroke:
    """One layer of an object: a part's number, or None for a detail that belongs to whatever part lies below it."""

    part: int | None
    stencil: Stencil
    colour: np.ndarray


class Thing:
    """One object under construction, in its own frame: (0, 0) is its foot, x right (mirrored by ``flip``), y up, 1 is ``size`` pixels."""

    def __init__(
        self, canvas: Canvas, name: str, x: float, y: float, size: float, *, flip: bool = False, turn: float = 0.0, far: float = 0.0
    ):
        self.canvas, self.name, self.x, self.y, self.size, self.far = canvas, name, x, y, size, far
        self.turn, self.flip = turn, -1.0 if flip else 1.0
        self.parts: list[str] = []
        self.strokes: list[_Stroke] = []

    def px(self, pixels: float, least: float = 0.0) -> float:
        """A length of so many pixels in this object's unit, but at least ``least``."""
        return max(pixels / self.size, least)

    def part(self, name: str, shape: Shape, material: Material, *, own: bool = False, bevel: float = 0.5, flat: bool = False) -> None:
        """Add a layer to the part of this name, or start another part of it (``own``). bevel: how far the edges round off."""
        label = f"{self.name} {name}"
        if own or label not in self.parts:
            self.parts.append(label)
        last = len(self.parts) - 1 - self.parts[::-1].index(label)
        self._add(last, shape, material, 0.0 if flat else bevel)

    def detail(self, shape: Shape, material: Material) -> None:
        """Colour that is no region of its own: an eye, a hub, a door handle. It stays inside the object."""
        self._add(None, shape, material, 0.0)

    def _add(self, part: int | None, shape: Shape, material: Material, bevel: float) -> None:
        c, s = np.cos(self.turn), np.sin(self.turn)
        placed = []
        for points, ink in shape:
            x, y = self.flip * points[:, 0] * self.size, -points[:, 1] * self.size
            placed.append((np.stack([self.x + c * x - s * y, self.y + s * x + c * y], axis=1), ink))
        stencil = rasterise(placed, *self.canvas.shape)
        if stencil is None or stencil.alpha.size == 0:
            return
        colour = material(self._patch(stencil))
        light = self.canvas.light
        if bevel:
            colour = colour * _relief(stencil.alpha, light.toward, bevel, max(1.2, 0.05 * self.size))[..., None]
        self.strokes.append(_Stroke(part, stencil, mix(colour * light.tint, light.haze, self.far)))

    def _patch(self, stencil: Stencil) -> Patch:
        h, w = stencil.alpha.shape
        y = np.arange(stencil.top, stencil.top + h, dtype=np.float32)[:, None] + 0.5
        x = np.arange(stencil.left, stencil.left + w, dtype=np.float32)[None, :] + 0.5
        x0, y0, x1, y1 = stencil.span
        return Patch(self.canvas.rng, y - self.y, (x - self.x) * self.flip, (y - y0) / max(y1 - y0, 1), (x - x0) / max(x1 - x0, 1))


def _relief(alpha: np.ndarray, toward: tuple[float, float], strength: float, soft: float) -> np.ndarray:
    """Brightness of a shape whose edges round off: edges that face the light gain, the others lose."""
    from scipy.ndimage import gaussian_filter

    if min(alpha.shape) < 3:
        return np.ones_like(alpha)
    height = gaussian_filter(alpha, soft, mode="constant", truncate=2.5)
    gy, gx = np.gradient(height)
    return 1 - strength * soft * 1.7 * (gx * toward[0] + gy * toward[1]) - 0.12 * strength * (1 - height)


# -- canvas -----------------------------------------------------------------------------------------


class Canvas:
    """The picture being drawn, float32 RGB, and the number of the leaf that owns each pixel."""

    def __init__(self, height: int, width: int, rng: np.random.Generator, light: Light) -> None:
        self.shape = (height, width)
        self.rng, self.light = rng, light
        self.rgb = np.zeros((height, width, 3), np.float32)
        self.owner = np.zeros((height, width), np.int32)
        self.leaves: list[tuple[int, str]] = []
        """Per leaf: the number of its object (-1 for background) and its class."""
        self.things: list[str] = []
        self.ground = np.zeros((height, width), bool)
        """Where shadows can fall."""
        self.mirror = np.zeros((height, width), bool)
        """Where objects are reflected."""

    @property
    def rows(self) -> np.ndarray:
        """Pixel centres down the picture, float32 (H, 1)."""
        return np.arange(self.shape[0], dtype=np.float32)[:, None] + 0.5

    @property
    def columns(self) -> np.ndarray:
        return np.arange(self.shape[1], dtype=np.float32)[None, :] + 0.5

    def noise(self, scale: float, octaves: int = 3, stretch: float = 1.0) -> np.ndarray:
        return noise(self.rng, *self.shape, scale, octaves, stretch)

    def backdrop(self, name: str, alpha: np.ndarray, colour: np.ndarray, *, ground: bool = False, mirror: bool = False) -> None:
        """A background region: coverage (H, W) and colour (H, W, 3), with its light already on it."""
        self.leaves.append((-1, name))
        inside = alpha >= 0.5
        self.rgb += alpha[..., None].astype(np.float32) * (colour - self.rgb)
        self.owner[inside] = len(self.leaves) - 1
        self.ground[inside], self.mirror[inside] = ground, mirror

    def place(self, thing: Thing, *, shadow: float = 1.0, lean: float | None = None, foot: float = 0.5, reflect: float = 0.0) -> None:
        """Paint an object with its cast shadow. lean: shadow length along x for a height of 1; foot: half width of the contact shadow."""
        cover = np.zeros(self.shape, np.float32)
        for layer in thing.strokes:
            if layer.part is not None:
                np.maximum(cover[layer.stencil.window], layer.stencil.alpha, out=cover[layer.stencil.window])
        if shadow:
            self._cast(cover, thing, shadow, lean, foot)
        number, first = len(self.things), len(self.leaves)
        self.things.append(thing.name)
        self.leaves += [(number, label) for label in thing.parts]
        for layer in thing.strokes:
            window, alpha = layer.stencil.window, layer.stencil.alpha
            if layer.part is None:
                alpha = alpha * (self.owner[window] >= first)
            self.rgb[window] += alpha[..., None] * (layer.colour - self.rgb[window])
            if layer.part is not None:
                self.owner[window][alpha >= 0.5] = first + layer.part
        if reflect:
            self._reflect(cover, thing, reflect)
        owned = self.owner >= first
        self.ground[owned] = self.mirror[owned] = False

    def _cast(self, cover: np.ndarray, thing: Thing, strength: float, lean: float | None, foot: float) -> None:
        """Darken the ground: the silhouette laid down away from the light, and a soft patch under the foot."""
        from scipy.ndimage import gaussian_filter

        slope = -self.light.toward[0] * 0.9 if lean is None else lean
        flat, r, blur = 0.3, foot * thing.size, max(1.0, 0.025 * thing.size)
        tall = thing.y - float(np.argmax(cover.any(axis=1)))
        top = min(max(0, int(thing.y - flat * tall - 3 * blur)), self.shape[0] - 1)
        below = slice(top, min(self.shape[0], max(top + 1, int(thing.y + 0.3 * r + 3 * blur + 5))))
        # Output pixel (x, y) takes the silhouette at (x - slope * up, foot - up) with up = (foot - y) / flat; y starts at top.
        rise = (thing.y - top) / flat
        a = (1.0, slope / flat, -slope * rise, 0.0, 1 / flat, thing.y - rise)
        size = (self.shape[1], below.stop - below.start)
        laid = Image.fromarray((cover * 255).astype(np.uint8)).transform(size, Image.Transform.AFFINE, a, Image.Resampling.BILINEAR)
        soft = gaussian_filter(np.asarray(laid, np.float32) / 255, blur, truncate=2)
        contact = np.exp(-(((self.columns - thing.x) / r) ** 2 + ((self.rows[below] - thing.y) / (0.14 * r + 1.5)) ** 2) * 1.5)
        dark = np.maximum(0.8 * soft, 0.75 * contact) * (self.light.shadow * strength * (1 - thing.far)) * self.ground[below]
        shade = np.array([0.95, 0.9, 0.78], np.float32)  # sky light keeps shadows a little blue
        self.rgb[below] *= 1 - dark[..., None] * shade

    def _reflect(self, cover: np.ndarray, thing: Thing, strength: float) -> None:
        """A broken mirror image below the foot, on water only."""
        foot = int(thing.y)
        depth = min(self.shape[0] - foot, foot)
        if depth < 2:
            return
        down = np.arange(depth)
        source = np.clip(foot - 1 - (down * 1.15).astype(int), 0, None)
        shift = np.round(np.sin(down * 1.3) * (0.4 + 0.05 * down)).astype(int)[:, None] + np.arange(self.shape[1])[None, :]
        shift = np.clip(shift, 0, self.shape[1] - 1)
        picked, alpha = self.rgb[source[:, None], shift], cover[source[:, None], shift]
        fade = strength * np.exp(-down / (0.9 * thing.size + 1))[:, None] * (0.75 + 0.25 * np.sin(down * 2.1))[:, None]
        below = slice(foot, foot + depth)
        share = alpha * fade * self.mirror[below]
        self.rgb[below] += share[..., None] * (picked * 0.85 - self.rgb[below])

    def glow(self, x: float, y: float, radius: float, colour: np.ndarray, strength: float) -> None:
        """Light that a lamp or the sun adds around itself."""
        near = np.exp(-((self.columns - x) ** 2 + (self.rows - y) ** 2) / radius**2)
        self.rgb += (strength * near)[..., None] * colour * (0.35 + 0.65 * self.rgb)

    # -- what comes out ---------------------------------------------------------------------------

    def picture(self) -> np.ndarray:
        """uint8 (H, W, 3): the drawing as a small camera sees it, with vignette, slight blur and sensor noise."""
        from scipy.ndimage import gaussian_filter

        rng, (height, width) = self.rng, self.shape
        off = ((self.columns / width - 0.5) ** 2 + (self.rows / height - 0.5) ** 2)[..., None]
        image = np.clip(self.rgb, 0, 1.25) * (1.03 - rng.uniform(0.15, 0.4) * off)
        bloom = gaussian_filter(np.maximum(image - 0.8, 0), (4, 4, 0), truncate=2)
        image = image + 0.8 * bloom
        image = gaussian_filter(image, (s := rng.uniform(0.35, 0.65), s, 0), truncate=2.5)
        # A soft shoulder instead of a hard clip keeps texture in bright places.
        image = np.where(image > 0.8, 0.8 + 0.2 * np.tanh((image - 0.8) / 0.2), image)
        grain = rng.standard_normal((height, width, 3), np.float32)
        luma = rng.standard_normal((height, width, 1), np.float32)
        image = image + rng.uniform(0.006, 0.016) * (0.5 * grain + luma) * (0.6 + 0.6 * np.sqrt(np.clip(image, 0, 1)))
        return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)

    def photograph(self) -> bytes:
        """The picture as JPEG, of a quality drawn at random."""
        out = io.BytesIO()
        Image.fromarray(self.picture()).save(out, "JPEG", quality=int(self.rng.integers(84, 95)))
        return out.getvalue()

    def truth(self, classes: ClassTree) -> Regions:
        """The whole image, the background regions, then each object with its parts; only what can be seen."""
        owner = _absorb_specks(self.owner, len(self.leaves))
        seen = np.bincount(owner.ravel(), minlength=len(self.leaves)) > 0
        class_id = {name: number for number, name in enumerate(classes.names)}
        parent, label = [-1], [0]
        node = np.zeros(len(self.leaves), np.int32)
        object_node: dict[int, int] = {}
        # Background first; otherwise in painting order, in which an object's parts follow each other.
        for leaf in sorted(np.flatnonzero(seen).tolist(), key=lambda i: self.leaves[i][0] >= 0):
            thing, name = self.leaves[leaf]
            above = 0
            if thing >= 0:
                if thing not in object_node:
                    object_node[thing] = len(parent)
                    parent.append(0)
                    label.append(class_id[self.things[thing]])
                above = object_node[thing]
            node[leaf] = len(parent)
            parent.append(above)
            label.append(class_id[name])
        return Regions.from_tree(node[owner], parent, label=label)


def _absorb_specks(owner: np.ndarray, leaves: int) -> np.ndarray:
    """Leaves with fewer than SMALLEST visible pixels give them to the nearest leaf that has more."""
    from scipy.ndimage import distance_transform_edt

    area = np.bincount(owner.ravel(), minlength=leaves)
    specks = (area < SMALLEST)[owner]
    if not specks.any():
        return owner
    rows, columns = distance_transform_edt(specks, return_distances=False, return_indices=True)
    return owner[rows, columns]

"""Surfaces for the drawn scenes: noise fields, and materials that colour a patch of picture.

A material is a function of a ``Patch`` that returns float32 (h, w, 3), RGB in 0..1, before light falls on it.
"""

from __future__ import annotations

import colorsys
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Concatenate, ParamSpec

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Patch:
    """Where a material is asked: open pixel grids y (h, 1) and x (1, w) from the object's foot; fy, fx go from 0 to 1 over the shape."""

    rng: np.random.Generator
    y: np.ndarray
    x: np.ndarray
    fy: np.ndarray
    fx: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        return self.y.shape[0], self.x.shape[1]

    def noise(self, scale: float, octaves: int = 3, stretch: float = 1.0) -> np.ndarray:
        return noise(self.rng, *self.shape, scale, octaves, stretch)


Material = Callable[[Patch], np.ndarray]
A = ParamSpec("A")


def material(paint: Callable[Concatenate[Patch, A], np.ndarray]) -> Callable[A, Material]:
    """Make ``paint(patch, …)`` a function of its other arguments that gives a material."""

    @functools.wraps(paint)
    def of(*args: A.args, **options: A.kwargs) -> Material:
        return lambda patch: paint(patch, *args, **options)

    return of


def hsv(hue: float, saturation: float, value: float) -> np.ndarray:
    """RGB float32 (3,) in 0..1; hue in turns."""
    return np.array(colorsys.hsv_to_rgb(hue % 1, min(max(saturation, 0), 1), min(max(value, 0), 1)), np.float32)


def mix(a: np.ndarray, b: np.ndarray, t: np.ndarray | float) -> np.ndarray:
    """From colour a to colour b by t, a number or (h, w)."""
    share = np.asarray(t, np.float32)[..., None]
    return a + share * (b - a)


def step(low: float, high: float, value: np.ndarray) -> np.ndarray:
    """0 below low, 1 above high, smooth between."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def noise(rng: np.random.Generator, height: int, width: int, scale: float, octaves: int = 3, stretch: float = 1.0) -> np.ndarray:
    """Smooth noise, float32 (height, width), about -1..1: the coarsest waves ``scale`` pixels high, ``stretch`` times as wide."""
    total = np.zeros((height, width), np.float32)
    weight, norm = 1.0, 0.0
    for octave in range(octaves):
        high = scale / 2**octave
        if octave and high < 1.2:
            break
        rows, columns = max(height / high, 0.1), max(width / (high * stretch), 0.1)
        grid = rng.uniform(-1, 1, (int(rows) + 4, int(columns) + 4)).astype(np.float32)
        layer = Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC, box=(1, 1, 1 + columns, 1 + rows))
        total += weight * np.asarray(layer)
        norm += weight
        weight *= 0.6
    return total * (1.5 / norm)


# -- materials --------------------------------------------------------------------------------------


@material
def plain(p: Patch, colour: np.ndarray, rough: float = 0.05, scale: float = 12.0) -> np.ndarray:
    """Paint, skin, plaster: one colour with a little unevenness."""
    return colour * (1 + rough * p.noise(scale))[..., None]


@material
def wood(p: Patch, colour: np.ndarray, scale: float = 10.0, upright: bool = True) -> np.ndarray:
    """Long grain with darker veins."""
    grain = p.noise(scale * 2.5, 3, 0.18) if upright else p.noise(scale * 0.5, 3, 7.0)
    fine = p.noise(scale, 3, 0.1) if upright else p.noise(1.6, 2, 12.0)
    return colour * (1 + 0.16 * np.sin(5 * grain) + 0.1 * fine)[..., None]


@material
def planks(p: Patch, colour: np.ndarray, width: float, upright: bool = False) -> np.ndarray:
    """Boards of one width with dark joints, each board a little different."""
    along = (p.x if upright else p.y) / width + 0 * (p.x + p.y)
    board = np.floor(along)
    tone = p.rng.uniform(-1, 1, 64)[board.astype(int) % 64]
    joint = step(0.0, 0.22, along - board) * 0.28 + 0.72
    grain = p.noise(8, 2, 0.2) if upright else p.noise(3, 2, 6)
    return colour * ((1 + 0.09 * tone + 0.07 * grain) * joint)[..., None]


def _courses(p: Patch, height: float, length: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pieces in rows, each row shifted by half a piece: place of each pixel in its piece, 0..1 (down, across), and a tone of each piece, -1..1.

    height: of a piece, in pixels. length: of a piece, in heights.
    """
    row = np.floor(p.y / height)
    along = p.x / (length * height) + 0.5 * (row % 2)
    column = np.floor(along)
    tone = p.rng.uniform(-1, 1, (32, 32))[row.astype(int) % 32, column.astype(int) % 32]
    return p.y / height - row, along - column, tone


@material
def brick(p: Patch, colour: np.ndarray, height: float) -> np.ndarray:
    """Running bond with light mortar."""
    up, right, tone = _courses(p, height, 2.3)
    solid = step(0.0, 0.3, up + 0 * right) * step(0.0, 0.14, right + 0 * up)
    mortar = mix(colour, np.full(3, 0.78, np.float32), 0.6)
    bricks = colour * (1 + 0.2 * tone + 0.08 * p.noise(6))[..., None]
    return mix(mortar, bricks, solid)


@material
def tiles(p: Patch, colour: np.ndarray, height: float) -> np.ndarray:
    """Overlapping roof tiles: each row darkens under the one above."""
    down, across, tone = _courses(p, height, 1.3)
    curve = 0.72 + 0.34 * down - 0.12 * np.abs(across - 0.5) * 2
    return colour * ((1 + 0.12 * tone + 0.06 * p.noise(9)) * curve)[..., None]


@material
def foliage(p: Patch, colour: np.ndarray, scale: float) -> np.ndarray:
    """Clumps of leaves: dark gaps, sunlit tips that lean towards yellow."""
    clumps, leaves, twigs = p.noise(scale, 2), p.noise(max(2.4, scale * 0.32), 2), p.noise(1.8, 1)
    lit = 0.86 + 0.2 * clumps + 0.17 * np.tanh(1.8 * leaves) + 0.07 * twigs - 0.3 * (p.fy - 0.45)
    warm = mix(colour, colour * np.array([1.25, 1.1, 0.65], np.float32), step(-0.4, 1.1, leaves + 0.6 * clumps))
    return warm * lit[..., None]


@material
def bark(p: Patch, colour: np.ndarray, scale: float) -> np.ndarray:
    """Upright ridges."""
    return colour * (1 + 0.28 * p.noise(scale * 3, 3, 0.25) + 0.1 * p.noise(3, 1))[..., None]


@material
def fabric(p: Patch, colour: np.ndarray, second: np.ndarray, kind: str, pitch: float) -> np.ndarray:
    """Cloth: 'plain', 'stripes', 'hoops', 'check' or 'dots', over a fine weave."""
    u, v = p.x / pitch + 0 * p.y, p.y / pitch + 0 * p.x
    if kind == "stripes":
        share = step(-0.25, 0.25, np.sin(2 * np.pi * u))
    elif kind == "hoops":
        share = step(-0.25, 0.25, np.sin(2 * np.pi * v))
    elif kind == "check":
        share = 0.5 * (np.sin(2 * np.pi * u) > 0) + 0.5 * (np.sin(2 * np.pi * v) > 0)
    elif kind == "dots":
        share = step(0.55, 0.9, np.sin(2 * np.pi * u) * np.sin(2 * np.pi * v))
    else:
        share = np.zeros_like(u)
    weave = p.noise(2.0, 1)
    folds = p.noise(max(6.0, pitch * 2), 2, 0.6)
    return mix(colour, second, share) * (1 + 0.06 * weave + 0.09 * folds)[..., None]


@material
def lacquer(p: Patch, colour: np.ndarray, sheen: float = 0.35) -> np.ndarray:
    """Painted metal: a sky reflection above, a dark band below the middle."""
    tone = 1.08 - 0.38 * p.fy + 0.05 * p.noise(20, 2)
    shine = sheen * np.exp(-(((p.fy - 0.3) / 0.1) ** 2)) + 0 * p.fx
    return np.minimum(colour * tone[..., None] + shine[..., None], 1.1)


@material
def glass(p: Patch, tint: np.ndarray) -> np.ndarray:
    """Sky in a pane, with slanted streaks of light."""
    slant = np.sin(9 * (p.fx - 0.7 * p.fy) + 1.0)
    tone = 0.75 + 0.45 * (1 - p.fy) + 0.1 * p.noise(14, 2)
    return np.minimum(tint * tone[..., None] + 0.14 * step(0.55, 0.95, slant)[..., None], 1.1)


@material
def scales(p: Patch, colour: np.ndarray, second: np.ndarray, bands: float, pitch: float) -> np.ndarray:
    """A fish's flank: scales, a pale belly, and ``bands`` upright bands of the second colour (0 for none)."""
    row = np.floor(p.y / pitch)
    across = p.x / pitch + 0.5 * (row % 2)
    u, v = across - np.floor(across) - 0.5, p.y / pitch - row
    edge = 0.84 + 0.28 * step(0.75, 0.35, np.hypot(u, v)) if pitch > 2.2 else 1 + 0.1 * p.noise(2.5, 1)
    share = step(-0.1, 0.3, np.sin(2 * np.pi * bands * p.fx + 0.8 * p.noise(14, 1))) if bands else np.zeros(p.shape)
    body = mix(mix(colour, second, share), np.array([0.95, 0.93, 0.85], np.float32), 0.55 * step(0.5, 1.0, p.fy + 0 * p.fx))
    return body * (edge + 0 * p.fx + 0 * p.fy)[..., None]


@material
def rays(p: Patch, colour: np.ndarray, second: np.ndarray, pitch: float) -> np.ndarray:
    """Fins and petals: fine lines, paler towards one end."""
    lines = 0.5 + 0.5 * np.sin((p.x * 0.8 + p.y) * 2 * np.pi / pitch)
    return mix(colour, second, 0.35 * lines + 0.3 * p.fy) * (1 + 0.06 * p.noise(6, 2))[..., None]


@material
def fur(p: Patch, colour: np.ndarray, second: np.ndarray, pitch: float, stripes: float) -> np.ndarray:
    """Short hair with wavy bands of the second colour."""
    wave = np.sin(2 * np.pi * p.y / pitch + 2.2 * p.noise(pitch * 2, 2)) + 0 * p.x
    return mix(colour, second, stripes * step(0.1, 0.7, wave)) * (1 + 0.13 * p.noise(2.6, 2, 0.6))[..., None]


@material
def landscape(p: Patch, sky: np.ndarray, land: np.ndarray) -> np.ndarray:
    """A small painting: hills under a sky, or an abstract of both."""
    line = 0.55 + 0.2 * noise(p.rng, 1, p.shape[1], 14, 2)
    share = step(-0.03, 0.03, p.fy - line)
    return mix(sky * (1.1 - 0.3 * p.fy[..., None]), land, share) * (1 + 0.14 * p.noise(7, 3))[..., None]

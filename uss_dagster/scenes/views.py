"""The five kinds of drawn scene: village, shore, meadow, room and reef.

Each function fills a canvas from back to front: background first, then objects by the row of their foot. The order of its calls of the
random generator is part of the dataset: changing it changes every picture.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from uss_dagster.scenes import objects
from uss_dagster.scenes.drawing import Canvas, Light
from uss_dagster.scenes.textures import Patch, brick, fabric, hsv, mix, plain, planks, step

SIZES = ((240, 320), (320, 240), (224, 304), (256, 336), (304, 224), (240, 300))
"""Heights and widths; a picture's size is drawn from these."""


class Objects:
    """Collects the objects of a scene and paints them from back to front, by the row of their foot."""

    def __init__(self, canvas: Canvas) -> None:
        self.canvas = canvas
        self._drawings: list[tuple[float, Callable[[], object]]] = []

    def add(self, paint: Callable[..., object], x: float, y: float, size: float, *args: object, **options: object) -> None:
        """An object with its foot at column x and row y. args, options: what else ``paint`` takes."""
        self._drawings.append((y, partial(paint, self.canvas, x, y, size, *args, **options)))

    def paint(self) -> None:
        """Draw what was added."""
        for _, paint in sorted(self._drawings, key=lambda drawing: drawing[0]):
            paint()


def draw(seed: int, number: int) -> Canvas:
    """Picture ``number`` of a seed, by its own stream of random numbers.

    Parameters
    ----------
    seed : int
        Of the series of pictures, 0 or more.
    number : int
        Of the picture, from 0. Which kind of scene it is follows from seed and number.
    """
    rng = np.random.default_rng([seed, number])
    height, width = SIZES[rng.choice(len(SIZES), p=[0.3, 0.25, 0.1, 0.15, 0.1, 0.1])]
    view = VIEWS[(number + seed) % len(VIEWS)]
    return view(height, width, rng)


class Outdoors(NamedTuple):
    """horizon: its row. zenith, low: the sky's colours above and at the horizon, float32 (3,)."""

    canvas: Canvas
    horizon: float
    zenith: np.ndarray
    low: np.ndarray


def _sun(rng: np.random.Generator) -> tuple[Light, np.ndarray, np.ndarray]:
    """Outdoor light at some hour, with the sky's colours above and at the horizon."""
    hour = rng.choice(["noon", "gold", "dusk", "grey"], p=[0.45, 0.3, 0.12, 0.13])
    side = rng.choice([-1, 1]) * rng.uniform(0.35, 0.85)
    up = -np.sqrt(1 - side**2)
    if hour == "noon":
        zenith, horizon, tint, dark = hsv(rng.uniform(0.55, 0.61), 0.6, 0.85), hsv(0.55, 0.17, 0.97), (1.02, 1.0, 0.96), 0.6
    elif hour == "gold":
        zenith, horizon, tint, dark = hsv(0.58, 0.38, 0.78), hsv(rng.uniform(0.07, 0.12), 0.38, 1.0), (1.08, 0.98, 0.82), 0.65
    elif hour == "dusk":
        zenith, horizon, tint, dark = (
            hsv(rng.uniform(0.66, 0.74), 0.42, 0.55),
            hsv(rng.uniform(0.96, 1.05), 0.42, 0.95),
            (0.95, 0.82, 0.84),
            0.45,
        )
    else:
        zenith, horizon, tint, dark = hsv(0.58, 0.14, 0.72), hsv(0.57, 0.05, 0.86), (0.93, 0.95, 0.97), 0.3
    return Light((float(side), float(up)), np.array(tint, np.float32), dark, mix(horizon, zenith, 0.25)), zenith, horizon


def _outdoors(height: int, width: int, rng: np.random.Generator, lowest: float, highest: float) -> Outdoors:
    """A canvas with its sky. lowest, highest: between these shares of the height lies the horizon."""
    light, zenith, low = _sun(rng)
    c = Canvas(height, width, rng, light)
    horizon = height * rng.uniform(lowest, highest)
    _sky(c, horizon, zenith, low)
    return Outdoors(c, horizon, zenith, low)


def _sky(c: Canvas, horizon_row: float, zenith: np.ndarray, low: np.ndarray) -> None:
    height, width = c.shape
    down = np.clip(c.rows / max(horizon_row, 1), 0, 1) + 0 * c.columns
    colour = mix(zenith, low, down**1.3)
    puff = c.noise(c.rng.uniform(30, 60), 4, 2.2) - 0.5 * (down - 0.5) ** 2
    cover = step(c.rng.uniform(0.1, 0.4), 0.8, puff)
    bright = mix(low, np.ones(3, np.float32), 0.7) * (1 - 0.14 * step(0.4, 1.0, puff))[..., None]
    colour = mix(colour, bright, 0.85 * cover)
    c.backdrop("sky", np.ones((height, width), np.float32), colour)
    if c.rng.random() < 0.35:
        c.glow(
            width * (0.5 + 0.5 * c.light.toward[0]),
            horizon_row * c.rng.uniform(0.3, 0.8),
            0.13 * width,
            mix(low, np.array([1.0, 0.93, 0.75], np.float32), 0.7),
            0.4,
        )


def _below(c: Canvas, line: np.ndarray | float) -> np.ndarray:
    """Coverage (H, W) of what lies below a row, one per column or the same for all."""
    return np.clip(c.rows + 0.5 - line + 0 * c.columns, 0, 1)


def _hills(c: Canvas, horizon_row: float, count: int) -> None:
    rng = c.rng
    height, width = c.shape
    for k in range(count):
        rise = (0.3 - 0.12 * k) * height * rng.uniform(0.5, 1.0)
        wave = c.noise(1e4, 1)[:1]  # one row: a smooth line
        line = horizon_row - rise * (0.55 + 0.45 * wave + 0.6 * np.sin(c.columns / width * rng.uniform(2, 6) + rng.uniform(0, 6)) * 0.5)
        line = line - 1.2 * _line_noise(c, 7)
        far = 0.55 - 0.3 * k
        base = hsv(rng.choice([0.25, 0.3, 0.38, 0.58]), rng.uniform(0.25, 0.5), rng.uniform(0.4, 0.62))
        texture = 1 + 0.14 * c.noise(12, 3, 1.6) + 0.05 * c.noise(3, 1)
        c.backdrop("hill", _below(c, line), mix(base * c.light.tint * texture[..., None], c.light.haze, far))


def _line_noise(c: Canvas, scale: float) -> np.ndarray:
    """Roughness of a horizon, (1, W)."""
    return Patch(c.rng, np.zeros((1, 1)), c.columns, np.zeros((1, 1)), c.columns).noise(scale, 2)


def _nearness(c: Canvas, horizon_row: float) -> np.ndarray:
    """(H, 1): 0 at the horizon, 1 at the lower edge."""
    return np.clip((c.rows - horizon_row) / (c.shape[0] - horizon_row), 0, 1)


def _grass(c: Canvas, line: np.ndarray | float, horizon_row: float) -> None:
    rng = c.rng
    near = _nearness(c, horizon_row)
    base = hsv(rng.choice([0.18, 0.22, 0.26, 0.31, 0.13]), rng.uniform(0.35, 0.62), rng.uniform(0.45, 0.68))
    blades = c.noise(8, 3, 0.35) * near + c.noise(2.5, 1, 1.5) * (1 - near)
    patches = c.noise(45, 2, 2.5)
    texture = 0.9 + 0.2 * blades + 0.12 * patches - 0.08 * near
    warm = mix(base, base * np.array([1.25, 1.05, 0.7], np.float32), step(-0.2, 0.9, patches))
    tufts = step(0.75, 1.1, c.noise(5, 2) + 0.3 * patches) * near * rng.choice([0.0, 0.5])
    colour = mix(warm * texture[..., None], hsv(rng.uniform(), 0.35, 0.95), tufts)
    c.backdrop("grass", _below(c, line), mix(colour * c.light.tint, c.light.haze, 0.25 * (1 - near) ** 2 + 0 * c.columns), ground=True)


def _sand(c: Canvas, line: np.ndarray | float, horizon_row: float) -> None:
    rng = c.rng
    near = _nearness(c, horizon_row)
    base = hsv(rng.uniform(0.08, 0.13), rng.uniform(0.2, 0.42), rng.uniform(0.72, 0.9))
    ripple = np.sin(c.rows * (1.6 - 0.9 * near) + 2.5 * c.noise(40, 2, 3)) * 0.05
    texture = 0.97 + ripple + 0.06 * c.noise(2.2, 1) + 0.07 * c.noise(30, 2, 2)
    c.backdrop("sand", _below(c, line), base * texture[..., None] * c.light.tint, ground=True)


def _water(c: Canvas, line: np.ndarray | float, horizon_row: float, zenith: np.ndarray, low: np.ndarray) -> None:
    rng = c.rng
    near = _nearness(c, horizon_row)
    deep = mix(hsv(rng.uniform(0.46, 0.6), 0.6, 0.5), zenith * 0.7, 0.4)
    far_waves, near_waves = c.noise(3, 2, 7), c.noise(9, 3, 4)
    wave = far_waves * (1 - near) + near_waves * near
    colour = mix(mix(low * 0.9, deep, np.sqrt(near) + 0 * c.columns), np.minimum(low * 1.1, 1), 0.55 * step(0.25, 0.95, wave))
    c.backdrop("water", _below(c, line), colour * (0.96 + 0.1 * wave)[..., None], mirror=True)


def _road(c: Canvas, horizon_row: float) -> float:
    """A road across the picture, or one that runs to the horizon; returns the row on which traffic stands."""
    rng = c.rng
    height, width = c.shape
    tone = hsv(rng.choice([0.6, 0.08]), rng.uniform(0.03, 0.2), rng.uniform(0.42, 0.62))
    grain = tone * (1 + 0.1 * c.noise(2, 1) + 0.09 * c.noise(25, 2, 3))[..., None] * c.light.tint
    upper = horizon_row + rng.uniform(0.4, 0.5) * (height - horizon_row)
    deep = rng.uniform(0.26, 0.36) * (height - horizon_row)
    tilt = rng.uniform(-0.05, 0.05)
    top = upper + tilt * (c.columns - width / 2) + 0.6 * _line_noise(c, 9)
    alpha = _below(c, top) * (1 - _below(c, top + deep))
    middle = (np.abs(c.rows - top - deep / 2) < max(0.9, deep * 0.03)) & ((c.columns + 0 * c.rows) % 26 < 14)
    c.backdrop("road", alpha, np.where(middle[..., None], np.float32(0.85) * c.light.tint, grain), ground=True)
    return float(upper + 0.66 * deep)


def _spread(rng: np.random.Generator, count: int, low: float, high: float) -> np.ndarray:
    """Positions that keep a distance: one per equal stretch, in random order."""
    edges = np.linspace(low, high, count + 1)
    return rng.permutation(edges[:-1] + rng.uniform(0.15, 0.85, count) * np.diff(edges))


def village(height: int, width: int, rng: np.random.Generator) -> Canvas:
    c, horizon, _, _ = _outdoors(height, width, rng, 0.42, 0.55)
    _hills(c, horizon, int(rng.integers(0, 3)))
    _grass(c, horizon - 2 * _line_noise(c, 20), horizon)
    depth = height - horizon
    traffic = _road(c, horizon) if rng.random() < 0.65 else None
    unit = min(height, width)
    things = Objects(c)
    places = _spread(rng, 3 if width > height else 2, 0.0, width)
    for k, x in enumerate(places.tolist()):
        y = horizon + depth * rng.uniform(0.1, 0.34)
        near = (y - horizon) / depth
        if k == 0 or (k == 1 and rng.random() < 0.5):
            size = unit * (0.44 + 0.4 * near) * rng.uniform(0.9, 1.15)
            things.add(objects.house, x, y, size)
        else:
            size = unit * (0.48 + 0.6 * near) * rng.uniform(0.8, 1.2)
            things.add(objects.tree, x, y, size, 0.15 * (1 - 2 * near))
    busy = width * rng.uniform(0.2, 0.8)
    if traffic is not None:
        if rng.random() < 0.6:
            things.add(objects.car, busy, traffic, unit * 0.25)
        else:
            things.add(objects.bicycle, busy, traffic, unit * 0.3)
    if rng.random() < 0.6:
        y, x2 = horizon + depth * rng.uniform(0.5, 0.7), width * rng.uniform(0.08, 0.92)
        things.add(objects.street_lamp, x2, y, unit * rng.uniform(0.55, 0.75))
    for aside in _spread(rng, int(rng.choice([1, 1, 2])), 0.22, 0.78).tolist():
        x = (busy + aside * width) % width  # beside the traffic more often than before it
        y = horizon + depth * rng.uniform(0.62, 0.93)
        size = unit * (0.2 + 0.3 * (y - horizon) / depth)
        things.add(objects.person, x, y, size)
    if rng.random() < 0.4:
        x4, y4 = width * rng.uniform(0.1, 0.9), height * rng.uniform(0.93, 0.99)
        things.add(objects.bird, x4, y4, unit * 0.14, flying=False)
    _birds(c, horizon, int(rng.integers(0, 2)))
    things.paint()
    return c


def _birds(c: Canvas, horizon: float, count: int) -> None:
    for x in _spread(c.rng, count, 0.05 * c.shape[1], 0.95 * c.shape[1]).tolist() if count else []:
        objects.bird(c, x, horizon * c.rng.uniform(0.15, 0.6), min(c.shape) * c.rng.uniform(0.14, 0.24), flying=True)


def shore(height: int, width: int, rng: np.random.Generator) -> Canvas:
    c, horizon, zenith, low = _outdoors(height, width, rng, 0.36, 0.5)
    if rng.random() < 0.6:
        _hills(c, horizon, 1)
    beach = height * rng.uniform(0.68, 0.8)
    _water(c, horizon, horizon, zenith, low)
    slope = rng.uniform(-0.12, 0.12)
    line = (
        beach + slope * (c.columns - width / 2) + 0.02 * height * np.sin(c.columns / width * rng.uniform(4, 9)) + 1.0 * _line_noise(c, 12)
    )
    foam = _below(c, line - rng.uniform(2, 4)) * (0.55 + 0.35 * c.noise(6, 2, 3))
    c.rgb += np.clip(foam, 0, 1)[..., None] * (0.95 * c.light.tint - c.rgb)
    if rng.random() < 0.7:
        _sand(c, line, horizon)
    else:
        _grass(c, line, horizon)
    unit = min(height, width)
    _birds(c, horizon, int(rng.integers(0, 3)))
    things = Objects(c)
    for x in _spread(rng, int(rng.integers(1, 3)), 0.05 * width, 0.95 * width).tolist():
        y = horizon + (beach - horizon) * rng.uniform(0.15, 0.75)
        size = unit * (0.32 + 0.5 * (y - horizon) / (beach - horizon)) * rng.uniform(0.8, 1.15)
        things.add(objects.boat, x, y, size)
    for x in _spread(rng, int(rng.integers(1, 4)), 0.06 * width, 0.94 * width).tolist():
        y = max(beach + 0.04 * height + abs(slope) * width / 2, height * rng.uniform(0.86, 0.97))
        y = min(y, 0.98 * height)
        what = rng.choice(["palm", "person", "bird", "bicycle"], p=[0.3, 0.4, 0.2, 0.1])
        if what == "palm":
            things.add(objects.tree, x, y, unit * rng.uniform(0.65, 0.95), kind="palm")
        elif what == "person":
            things.add(objects.person, x, y, unit * rng.uniform(0.38, 0.52))
        elif what == "bird":
            things.add(objects.bird, x, y, unit * rng.uniform(0.18, 0.26), flying=False)
        else:
            things.add(objects.bicycle, x, y, unit * 0.33)
    things.paint()
    return c


def meadow(height: int, width: int, rng: np.random.Generator) -> Canvas:
    c, horizon, _, _ = _outdoors(height, width, rng, 0.3, 0.48)
    _hills(c, horizon, int(rng.integers(1, 3)))
    _grass(c, horizon - 3 * _line_noise(c, 30), horizon)
    unit = min(height, width)
    things = Objects(c)
    for x in _spread(rng, int(rng.integers(1, 3)), 0, width).tolist():
        y = horizon + 0.05 * height * rng.uniform(0.3, 1.5)
        things.add(objects.tree, x, y, unit * rng.uniform(0.3, 0.5), 0.15)
    count = int(rng.integers(3, 6))
    for x in _spread(rng, count, 0.03 * width, 0.97 * width).tolist():
        y = height * rng.uniform(0.8, 1.04)
        size = unit * rng.uniform(0.5, 0.78) * (y / height)
        things.add(objects.flower, x, y, size)
    things.paint()
    for x in _spread(rng, int(rng.integers(1, 3)), 0.1 * width, 0.9 * width).tolist():
        objects.butterfly(c, x, height * rng.uniform(0.2, 0.55), unit * rng.uniform(0.22, 0.34))
    return c


def room(height: int, width: int, rng: np.random.Generator) -> Canvas:
    side = rng.choice([-1, 1]) * rng.uniform(0.4, 0.85)
    warm = rng.uniform(-0.08, 0.1)
    tint = np.array([1 + warm, 0.98, 0.95 - warm], np.float32) * rng.uniform(0.85, 1.0)
    light = Light((float(side), -float(np.sqrt(1 - side**2))), tint, rng.uniform(0.4, 0.6), np.full(3, 0.5, np.float32))
    c = Canvas(height, width, rng, light)
    skirting = height * rng.uniform(0.56, 0.68)
    _wall(c, skirting)
    _floor(c, skirting)
    unit = min(height, width)
    pictures = int(rng.choice([1, 1, 2]))
    for x in _spread(rng, pictures, 0.1 * width, 0.9 * width).tolist():
        objects.painting(c, x, skirting * rng.uniform(0.46, 0.6), unit * rng.uniform(0.22, 0.32) / pictures**0.5)
    if rng.random() < 0.7:
        objects.rug(c, width * rng.uniform(0.35, 0.65), _on_floor(c, skirting, 0.5, 0.66), width * rng.uniform(0.3, 0.42))
    _furnish(c, skirting)
    return c


def _wall(c: Canvas, skirting: float) -> None:
    """A papered, boarded or brick wall with a skirting board. skirting: the row of its lower edge."""
    rng, (height, width), tint = c.rng, c.shape, c.light.tint
    everywhere = Patch(rng, c.rows, c.columns, c.rows / height, c.columns / width)
    colour = hsv(rng.uniform(), rng.uniform(0.08, 0.35), rng.uniform(0.62, 0.9))
    papers = [
        plain(colour, 0.05, 30),
        fabric(colour, colour * rng.uniform(0.85, 0.93), str(rng.choice(["stripes", "dots"])), rng.uniform(12, 24)),
        planks(colour, rng.uniform(14, 22), upright=True),
        brick(hsv(rng.uniform(0.01, 0.07), 0.4, 0.7), rng.uniform(7, 10)),
    ]
    wall = papers[rng.choice(4, p=[0.3, 0.35, 0.2, 0.15])](everywhere)
    spot = rng.uniform(0.2, 0.8)
    falloff = 1.05 - 0.35 * np.abs(c.columns / width - spot) - 0.15 * np.abs(c.rows / height - 0.3)
    c.backdrop("wall", np.ones(c.shape, np.float32), wall * falloff[..., None] * tint)
    board = (c.rows > skirting - 0.025 * height) & (c.columns > -1)
    c.rgb[board] = 0.86 * tint * (0.8 if rng.random() < 0.3 else 1.0)


def _floor(c: Canvas, skirting: float) -> None:
    """Boards, tiles or carpet in perspective: rows grow towards the viewer, columns spread from a vanishing point above."""
    rng, (height, width) = c.rng, c.shape
    near = np.clip((c.rows - skirting) / (height - skirting), 0, 1)
    depth = 1 / (0.35 + near)
    across = (c.columns - width * rng.uniform(0.3, 0.7)) * depth
    timber = objects.timber(rng)
    kind = rng.choice(["boards", "tiles", "carpet"], p=[0.5, 0.25, 0.25])
    if kind == "boards":
        board_no = np.floor(across / 26)
        seam = step(0.0, 0.08, across / 26 - board_no)
        tone = rng.uniform(-1, 1, 128)[board_no.astype(int) % 128]
        floor = timber * ((1 + 0.1 * tone + 0.1 * c.noise(14, 3, 0.25)) * (0.75 + 0.25 * seam))[..., None]
    elif kind == "tiles":
        dark = (np.floor(across / 34) + np.floor(depth * 5)) % 2
        floor = mix(objects.CREAM * 0.9, timber * 0.9, dark * rng.uniform(0.35, 0.9)) * (1 + 0.04 * c.noise(9, 3))[..., None]
    else:
        carpet = hsv(rng.uniform(), rng.uniform(0.1, 0.4), rng.uniform(0.4, 0.75))
        floor = carpet * (1 + 0.1 * c.noise(2, 1) + 0.07 * c.noise(18, 2))[..., None]
    c.backdrop("floor", _below(c, skirting), floor * c.light.tint * (0.82 + 0.2 * near)[..., None], ground=True)


def _on_floor(c: Canvas, skirting: float, low: float, high: float) -> float:
    """A row between two shares of the floor's depth."""
    return skirting + (c.shape[0] - skirting) * c.rng.uniform(low, high)


def _furnish(c: Canvas, skirting: float) -> None:
    """Sofa, or table with a plant and perhaps a chair; a lamp; and a few more things."""
    rng, (height, width) = c.rng, c.shape
    unit = min(height, width)
    things = Objects(c)
    places = sorted(_spread(rng, 3, 0.06 * width, 0.94 * width).tolist(), key=lambda x: abs(x - width / 2))
    if float(rng.uniform()) < 0.45:
        size, y = unit * rng.uniform(0.34, 0.42), _on_floor(c, skirting, 0.1, 0.25)
        things.add(objects.sofa, places[0], y, size)
    else:
        half, size, y = rng.uniform(0.8, 1.2), unit * rng.uniform(0.28, 0.36), _on_floor(c, skirting, 0.3, 0.5)
        things.add(_laid_table, places[0], y, size, half, unit)
        if rng.random() < 0.75:
            chair_y = y + rng.uniform(-0.03, 0.06) * height
            chair_x = places[0] + rng.choice([-1, 1]) * (half + 0.2) * size * rng.uniform(0.6, 1.0)
            things.add(objects.chair, chair_x, chair_y, unit * rng.uniform(0.42, 0.5))
    y = _on_floor(c, skirting, 0.06, 0.25)
    things.add(objects.floor_lamp, places[1], y, unit * rng.uniform(0.62, 0.75))
    y = _on_floor(c, skirting, 0.3, 0.7)
    last = rng.choice(["chair", "plant", "cat", "person"], p=[0.25, 0.25, 0.3, 0.2])
    if last == "chair":
        things.add(objects.chair, places[2], y, unit * rng.uniform(0.42, 0.52))
    elif last == "plant":
        things.add(objects.potted_plant, places[2], y, unit * rng.uniform(0.4, 0.55))
    elif last == "person":
        things.add(objects.person, places[2], y, unit * rng.uniform(0.6, 0.75))
    if last == "cat" or rng.random() < 0.4:
        y = _on_floor(c, skirting, 0.7, 0.95)
        things.add(objects.cat, width * rng.uniform(0.15, 0.85), y, unit * rng.uniform(0.28, 0.38))
    things.paint()


def _laid_table(c: Canvas, x: float, y: float, size: float, half: float, unit: float) -> None:
    top = objects.table(c, x, y, size, half)
    objects.potted_plant(c, x + c.rng.uniform(-0.4, 0.4) * half * size, top, unit * c.rng.uniform(0.2, 0.3))


def reef(height: int, width: int, rng: np.random.Generator) -> Canvas:
    side = rng.uniform(-0.5, 0.5)
    deep = hsv(rng.uniform(0.47, 0.6), rng.uniform(0.55, 0.8), rng.uniform(0.35, 0.55))
    top = mix(deep, np.array([0.75, 0.98, 0.95], np.float32), rng.uniform(0.5, 0.75))
    light = Light((float(side), -float(np.sqrt(1 - side**2))), np.array([0.88, 1.0, 1.0], np.float32), 0.5, mix(top, deep, 0.6))
    c = Canvas(height, width, rng, light)
    down = c.rows / height
    beams = c.noise(1e4, 1)[:1] * 0 + _line_noise(c, 1.0) * 0
    slant = c.columns + side * 120 * down
    for pitch in (23.0, 41.0, 67.0):
        beams = beams + np.sin(slant / pitch * 2 + rng.uniform(0, 6))
    colour = mix(top, deep, np.sqrt(down) + 0 * c.columns)
    colour = colour + (0.05 * np.clip(beams, 0, 3) * (1 - down))[..., None] + 0.03 * c.noise(40, 3)[..., None]
    c.backdrop("water", np.ones(c.shape, np.float32), colour)
    unit = min(height, width)
    horizon = height * rng.uniform(0.68, 0.78)
    things = Objects(c)

    def shoal(count: int, far: float, low: float, high: float) -> None:
        for x in _spread(rng, count, 0.05 * width, 0.95 * width).tolist():
            objects.fish(c, x, height * rng.uniform(0.1, 0.62), unit * rng.uniform(low, high), far)

    shoal(int(rng.integers(1, 4)), rng.uniform(0.3, 0.5), 0.18, 0.26)
    line = horizon + 0.03 * height * np.sin(c.columns / width * rng.uniform(3, 7) + rng.uniform(0, 6)) + 1.5 * _line_noise(c, 25)
    _sand(c, line, horizon)
    caustic = step(0.5, 0.95, 1 - np.abs(c.noise(14, 2, 1.8)) * 2.2) * (c.owner == len(c.leaves) - 1)
    c.rgb += (0.1 * caustic)[..., None]
    for x in _spread(rng, int(rng.integers(2, 4)), 0.04 * width, 0.96 * width).tolist():
        y = horizon + (height - horizon) * rng.uniform(0.15, 0.85)
        size = unit * rng.uniform(0.38, 0.58)
        things.add(objects.coral, x, y, size, 0.3 * (height - y) / (height - horizon))
    things.paint()
    shoal(int(rng.integers(1, 4)), 0.05, 0.34, 0.56)
    return c


VIEWS: tuple[Callable[[int, int, np.random.Generator], Canvas], ...] = (village, room, shore, reef, meadow)

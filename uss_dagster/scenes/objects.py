"""The objects of the drawn scenes: each function adds one, with its parts, to the canvas.

A part's class is named '<object> <part>'; the class tree is ``datasets/scenes.yaml``.

Coordinates are the object's own: the foot at (0, 0), y up, 1 the size in pixels. Colours are drawn anew for every
instance, so that no class can be known by its colour.
"""

from __future__ import annotations

import numpy as np

from uss_dagster.scenes.drawing import Canvas, Shape, Thing, blob, box, curve, ellipse, polygon, ring, rounded, stroke, without
from uss_dagster.scenes.textures import (
    Material,
    bark,
    brick,
    fabric,
    foliage,
    fur,
    glass,
    hsv,
    lacquer,
    landscape,
    plain,
    planks,
    rays,
    scales,
    tiles,
    wood,
)

GREENS = (0.22, 0.26, 0.3, 0.34)
DARK = np.array([0.08, 0.08, 0.09], np.float32)
CREAM = np.array([0.93, 0.9, 0.82], np.float32)


def any_colour(rng: np.random.Generator, low: float = 0.35, high: float = 0.75) -> np.ndarray:
    """A pleasant colour: any hue, medium saturation, less of it for greens and magentas, which look poisonous otherwise."""
    hue = rng.uniform()
    calm = 0.62 if 0.2 < hue < 0.5 or 0.72 < hue < 0.95 else 1.0
    return hsv(hue, calm * rng.uniform(low, high), rng.uniform(0.5, 0.92))


def timber(rng: np.random.Generator) -> np.ndarray:
    return hsv(rng.uniform(0.05, 0.1), rng.uniform(0.3, 0.65), rng.uniform(0.3, 0.72))


def cloth(rng: np.random.Generator, pitch: float) -> Material:
    kind = rng.choice(["plain", "stripes", "hoops", "check", "dots"], p=[0.4, 0.15, 0.15, 0.15, 0.15])
    colour = any_colour(rng)
    second = CREAM * rng.uniform(0.75, 1) if rng.random() < 0.5 else any_colour(rng)
    return fabric(colour, second, str(kind), max(3.0, pitch))


def _start(
    c: Canvas, name: str, x: float, y: float, size: float, far: float = 0.0, flips: bool = True
) -> tuple[np.random.Generator, Thing]:
    """The canvas's generator and a new object, mirrored half of the time where it ``flips``."""
    return c.rng, Thing(c, name, x, y, size, flip=flips and c.rng.random() < 0.5, far=far)


# -- buildings and streets --------------------------------------------------------------------------


def house(c: Canvas, x: float, y: float, size: float, far: float = 0.0) -> None:
    rng, t = _start(c, "house", x, y, size, far)
    half, eaves = rng.uniform(0.5, 0.78), rng.uniform(0.46, 0.56)
    colour = hsv(rng.choice([0.02, 0.08, 0.1, 0.13, 0.55, 0.6, 0.0]), rng.uniform(0.08, 0.5), rng.uniform(0.62, 0.92))
    unit = max(3.0, 0.05 * size)
    wall = [plain(colour, 0.06, size * 0.2), planks(colour, unit), brick(hsv(rng.uniform(0.0, 0.06), 0.5, 0.65), unit)][rng.integers(3)]
    roof_colour = hsv(rng.choice([0.01, 0.03, 0.06, 0.6, 0.35]), rng.uniform(0.2, 0.6), rng.uniform(0.35, 0.65))
    roof = tiles(roof_colour, max(3.2, 0.055 * size))
    gable = rng.random() < 0.45
    chimney_x = rng.uniform(0.15, 0.35)
    if rng.random() < 0.75:
        top = 1.06
        t.part("chimney", box(chimney_x - 0.06, 0.6, chimney_x + 0.06, top), brick(hsv(0.03, 0.45, 0.55), max(2.5, 0.03 * size)))
        t.part("chimney", box(chimney_x - 0.08, top - 0.04, chimney_x + 0.08, top), plain(CREAM * 0.6))
        if rng.random() < 0.6:  # an aerial, as thin as a pixel or two
            mast = chimney_x - 0.3 * half
            lines = stroke([(mast, 0.75), (mast, 1.2)], t.px(1.6))
            for height, reach in ((1.18, 0.09), (1.12, 0.12)):
                lines += stroke([(mast - reach, height), (mast + reach, height)], t.px(1.4))
            t.part("aerial", lines, plain(DARK * 2), flat=True)
    if gable:
        t.part("wall", polygon((-half, 0), (half, 0), (half, eaves), (0, 0.94), (-half, eaves)), wall, bevel=0.25)
        low, high, edge = eaves - 0.08, eaves + 0.03, half + 0.1
        outer = polygon((-edge, low), (0, 1.0), (edge, low), (edge, high), (0, 1.1), (-edge, high))
        t.part("roof", outer, plain(roof_colour, 0.1, 4), bevel=0.4)
        if rng.random() < 0.6:
            t.part("window", ellipse(0, 0.68, 0.08, 0.08), glass(hsv(0.57, 0.35, 0.5)), own=True, flat=True)
            t.detail(ring(0, 0.68, 0.1, 0.075), plain(CREAM * 0.9))
    else:
        t.part("wall", box(-half, 0, half, eaves + 0.04), wall, bevel=0.25)
        inset = rng.uniform(0.12, 0.3)
        t.part("roof", polygon((-half - 0.1, eaves), (half + 0.1, eaves), (half - inset, 0.98), (-half + inset, 0.98)), roof, bevel=0.3)
        t.detail(box(-half, eaves - 0.05, half, eaves), lambda p: np.zeros((*p.shape, 3), np.float32) + colour * 0.55)
    door_x = rng.choice([-0.55, 0.0, 0.45]) * half
    door_colour = any_colour(rng)
    t.detail(box(door_x - 0.12, 0, door_x + 0.12, 0.36), plain(CREAM * 0.85))
    t.part("door", box(door_x - 0.095, 0, door_x + 0.095, 0.335), wood(door_colour * 0.8, 0.1 * size), flat=True)
    t.detail(ellipse(door_x + 0.06, 0.16, 0.016, 0.016), plain(hsv(0.12, 0.5, 0.9)))
    lit = rng.random() < 0.25
    pane = glass(hsv(0.12, 0.55, 0.95) if lit else hsv(rng.uniform(0.54, 0.62), 0.35, 0.55))
    frame = plain(CREAM if rng.random() < 0.7 else any_colour(rng) * 0.8)
    for wx in (-0.72 * half, 0.72 * half, 0.0):
        if abs(wx - door_x) > 0.28 and abs(wx) + 0.12 < half:
            t.detail(box(wx - 0.125, 0.14, wx + 0.125, 0.4), frame)
            t.part("window", box(wx - 0.1, 0.165, wx + 0.1, 0.375), pane, own=True, flat=True)
            t.detail(box(wx - t.px(0.6), 0.165, wx + t.px(0.6), 0.375) + box(wx - 0.1, 0.28 - t.px(0.6), wx + 0.1, 0.28 + t.px(0.6)), frame)
    c.place(t, foot=half * 1.25)


def street_lamp(c: Canvas, x: float, y: float, size: float, far: float = 0.0) -> None:
    rng, t = _start(c, "street lamp", x, y, size, far)
    metal = plain(hsv(rng.choice([0.35, 0.6, 0.0]), rng.uniform(0.05, 0.35), rng.uniform(0.15, 0.4)), 0.1, 4)
    wide = t.px(2.0, 0.022)
    if rng.random() < 0.5:
        line = curve([(0, 0), (0, 0.6), (0.02, 0.88), (0.14, 0.98), (0.24, 0.94)], closed=False)
        t.part("post", stroke(line, wide * 1.3, wide) + polygon((-0.035, 0), (0.035, 0), (0.02, 0.12), (-0.02, 0.12)), metal)
        lamp = polygon((0.17, 0.95), (0.31, 0.95), (0.34, 0.86), (0.14, 0.86))
        where = 0.24, 0.88
    else:
        t.part("post", stroke([(0, 0), (0, 0.88)], wide * 1.2) + polygon((-0.035, 0), (0.035, 0), (0.018, 0.1), (-0.018, 0.1)), metal)
        lamp = polygon((-0.045, 0.86), (0.045, 0.86), (0.07, 1.0), (0, 1.05), (-0.07, 1.0))
        where = 0.0, 0.94
    t.part("lantern", lamp, plain(hsv(0.13, 0.35, 1.0)), bevel=0.3)
    t.detail(stroke([(where[0] - 0.08, where[1] + 0.07), (where[0] + 0.08, where[1] + 0.07)], t.px(1.6)), metal)
    c.place(t, foot=0.08)


# -- plants -----------------------------------------------------------------------------------------


def tree(c: Canvas, x: float, y: float, size: float, far: float = 0.0, kind: str | None = None) -> None:
    rng, t = _start(c, "tree", x, y, size, far)
    kind = kind or str(rng.choice(["broad", "conifer", "birch", "autumn"], p=[0.4, 0.25, 0.15, 0.2]))
    trunk_colour = (
        hsv(0.08, 0.08, 0.82) if kind == "birch" else hsv(rng.uniform(0.05, 0.1), rng.uniform(0.25, 0.5), rng.uniform(0.25, 0.45))
    )
    hue = rng.uniform(0.02, 0.12) if kind == "autumn" else rng.choice(GREENS) + rng.uniform(-0.03, 0.02)
    leaves = hsv(hue, rng.uniform(0.45, 0.75), rng.uniform(0.38, 0.66))
    stem = bark(trunk_colour, max(2.5, 0.03 * size))
    if kind == "palm":
        bend = rng.uniform(0.05, 0.22)
        line = curve([(0, 0), (bend * 0.3, 0.35), (bend, 0.8)], closed=False)
        t.part("trunk", stroke(line, t.px(3, 0.06), t.px(2, 0.035)), stem)
        fronds: Shape = []
        for angle in np.linspace(-0.35, np.pi + 0.35, 9) + rng.uniform(-0.12, 0.12, 9):
            reach = rng.uniform(0.3, 0.4)
            dx, dy = np.cos(angle) * reach, np.sin(angle) * reach * 0.6
            spine = curve([(bend, 0.8), (bend + dx * 0.55, 0.86 + dy * 0.7), (bend + dx, 0.74 + dy * 0.8)], closed=False, pieces=4)
            fronds += stroke(spine, 0.075, t.px(1.2))
        t.part("crown", fronds, foliage(hsv(rng.uniform(0.22, 0.32), 0.6, 0.5), max(4, 0.05 * size)), bevel=0.9)
        c.place(t, foot=0.12)
        return
    if kind == "conifer":
        t.part("trunk", polygon((-0.035, 0), (0.035, 0), (0.025, 0.3), (-0.025, 0.3)), stem)
        outline = [(0.0, 1.0)]
        tiers = int(rng.integers(4, 7))
        for side in (1, -1):
            heights = np.linspace(0.92, 0.16, tiers)
            points = []
            for i, height in enumerate(heights):
                wide = (0.05 + 0.27 * (i + 1) / tiers) * rng.uniform(0.88, 1.1)
                points += [(side * wide, height - 0.1), (side * wide * 0.55, height - 0.09)]
            points[-1] = (0.0, 0.1)
            outline = outline + points if side == 1 else outline + points[::-1]
        t.part("crown", [(np.array(outline), True)], foliage(leaves * 0.8, max(4, 0.06 * size)), bevel=0.7)
        c.place(t, foot=0.25)
        return
    fork = rng.uniform(0.32, 0.42)
    branches = stroke(curve([(0.02, 0), (0.0, 0.2), (0.01, fork)], closed=False), t.px(3, 0.085), t.px(2, 0.055))
    for side in (-1, 1):
        tip = (side * rng.uniform(0.12, 0.24), fork + rng.uniform(0.18, 0.3))
        branches += stroke(curve([(0, fork - 0.03), (side * 0.06, fork + 0.1), tip], closed=False), t.px(2, 0.045), t.px(1.4, 0.018))
    branches += stroke([(0, fork), (0.02, fork + 0.3)], t.px(2, 0.045), t.px(1.4, 0.02)) + polygon(
        (-0.075, 0), (0.085, 0), (0.03, 0.1), (-0.025, 0.1)
    )
    t.part("trunk", branches, stem)
    crown: Shape = []
    for _ in range(int(rng.integers(6, 10))):
        angle, out = rng.uniform(0, 2 * np.pi), rng.uniform(0.05, 0.22)
        r = rng.uniform(0.12, 0.2)
        crown += blob(rng, np.cos(angle) * out * 1.15, 0.66 + np.sin(angle) * out * 0.85, r, r * 0.9, 0.16)
    crown += blob(rng, 0, 0.68, 0.24, 0.22, 0.12)
    for _ in range(int(rng.integers(2, 5))):  # gaps in which the branches and what lies behind show
        crown += without(blob(rng, rng.uniform(-0.22, 0.22), rng.uniform(0.45, 0.66), 0.035, 0.03, 0.3))
    t.part("crown", crown, foliage(leaves, max(5, 0.085 * size)), bevel=0.8)
    c.place(t, foot=0.28)


def flower(c: Canvas, x: float, y: float, size: float, far: float = 0.0) -> None:
    rng, t = _start(c, "flower", x, y, size, far)
    green = hsv(
        rng.choice(GREENS) + rng.uniform(0.0, 0.08), rng.uniform(0.35, 0.7), rng.choice([rng.uniform(0.24, 0.36), rng.uniform(0.62, 0.8)])
    )
    sway = rng.uniform(-0.12, 0.12)
    head = np.array([sway, 0.82])
    stem = plain(green, 0.1, 8)
    t.part("stem", stroke(curve([(0, 0), (-0.4 * sway, 0.4), tuple(head)], closed=False), t.px(2.2, 0.028), t.px(1.8, 0.02)), stem)
    for side in (-1, 1):
        base = rng.uniform(0.1, 0.3)
        tip = (side * rng.uniform(0.16, 0.26), base + rng.uniform(0.12, 0.24))
        blade = rounded((0, base), (tip[0] * 0.55, base + 0.02), tip, (tip[0] * 0.4, base + 0.14))
        t.part("leaf", blade, rays(green * 1.05, green * 0.8, max(3.0, 0.04 * size)), own=True)
    colour = hsv(rng.choice([0.0, 0.93, 0.13, 0.77, 0.6, 0.06, 0.98]), rng.uniform(0.45, 0.8), rng.uniform(0.75, 0.98))
    petal = rays(colour, mix_white(colour), max(3.0, 0.05 * size))
    if rng.random() < 0.25:  # a tulip
        cup = rounded((0, -0.02), (0.1, 0.03), (0.12, 0.15), (0.07, 0.12), (0, 0.19), (-0.07, 0.12), (-0.12, 0.15), (-0.1, 0.03))
        t.part("petals", [(p + head, ink) for p, ink in cup], petal, bevel=0.9)
    else:
        count, r = int(rng.integers(5, 11)), rng.uniform(0.11, 0.15)
        start, squash = rng.uniform(0, 1), rng.uniform(0.7, 1.0)
        petals: Shape = []
        for k in range(count):
            a = 2 * np.pi * k / count + start
            petals += ellipse(head[0] + np.cos(a) * r * 0.75, head[1] + np.sin(a) * r * 0.75 * squash, r * 0.62, r * 2.2 / count + 0.012, a)
        t.part("petals", petals, petal, bevel=0.8)
        middle = hsv(rng.uniform(0.05, 0.14), rng.uniform(0.5, 0.8), rng.uniform(0.35, 0.9))
        t.part("centre", ellipse(head[0], head[1], r * 0.38, r * 0.38 * squash), plain(middle, 0.2, 2.5))
    c.place(t, shadow=0.6, foot=0.08)


def mix_white(colour: np.ndarray) -> np.ndarray:
    return colour + 0.55 * (1 - colour)


def potted_plant(c: Canvas, x: float, y: float, size: float) -> None:
    rng, t = _start(c, "potted plant", x, y, size, flips=False)
    green = hsv(rng.choice(GREENS) + 0.03, rng.uniform(0.4, 0.7), rng.uniform(0.32, 0.6))
    leaves: Shape = []
    slim = rng.random() < 0.5
    for angle in np.linspace(0.35, np.pi - 0.35, int(rng.integers(6, 10))):
        a, reach = angle + rng.uniform(-0.12, 0.12), rng.uniform(0.42, 0.62)
        end = np.array([np.cos(a) * reach * 0.75, 0.36 + np.sin(a) * reach])
        middle = np.array([end[0] * 0.35, 0.36 + (end[1] - 0.36) * 0.62])
        line = curve([(0, 0.34), tuple(middle), tuple(end)], closed=False, pieces=5)
        if slim:
            leaves += stroke(line, 0.06, t.px(1.4))
        else:
            leaves += stroke(line, t.px(1.6, 0.014)) + ellipse(end[0], end[1], 0.11, 0.06, float(np.arctan2(*(end - middle)[::-1])))
    t.part("leaves", leaves, foliage(green, max(4, 0.09 * size)), bevel=0.9)
    pot = any_colour(rng, 0.15, 0.6) if rng.random() < 0.5 else hsv(0.04, 0.55, 0.7)
    finish = fabric(pot, mix_white(pot), "hoops", 0.12 * size) if rng.random() < 0.35 else plain(pot, 0.06)
    t.part("pot", polygon((-0.13, 0), (0.13, 0), (0.18, 0.32), (-0.18, 0.32)), finish, bevel=1.0)
    t.part("pot", polygon((-0.2, 0.3), (0.2, 0.3), (0.2, 0.37), (-0.2, 0.37)), plain(pot), bevel=0.6)
    c.place(t, foot=0.26)


def coral(c: Canvas, x: float, y: float, size: float, far: float = 0.0) -> None:
    rng, t = _start(c, "coral", x, y, size, far, flips=False)
    colour = hsv(rng.choice([0.95, 0.02, 0.08, 0.8, 0.12]), rng.uniform(0.4, 0.75), rng.uniform(0.6, 0.92))
    lines: Shape = []

    def grow(px: float, py: float, angle: float, reach: float, wide: float, depth: int) -> None:
        qx, qy = px + np.cos(angle) * reach, py + np.sin(angle) * reach
        lines.extend(stroke([(px, py), (qx, qy)], wide, max(wide * 0.75, t.px(1.8))))
        if depth:
            for side in (-1, 1) if rng.random() < 0.75 else (-1, 0.2, 1):
                grow(qx, qy, angle + side * rng.uniform(0.25, 0.6), reach * rng.uniform(0.68, 0.85), wide * 0.72, depth - 1)

    for angle in (np.pi / 2 - 0.4, np.pi / 2 + 0.35):
        grow(rng.uniform(-0.05, 0.05), 0.1, angle + rng.uniform(-0.1, 0.1), 0.26, 0.085, 3)
    t.part("branches", lines, plain(colour, 0.2, 3), bevel=0.9)
    stone = hsv(rng.uniform(0.05, 0.6), rng.uniform(0.05, 0.25), rng.uniform(0.35, 0.6))
    t.part("base", blob(rng, 0, 0.06, 0.3, 0.13, 0.15), plain(stone, 0.3, 0.12 * size), bevel=1.0)
    c.place(t, foot=0.34)


# -- vehicles ---------------------------------------------------------------------------------------


def car(c: Canvas, x: float, y: float, size: float, far: float = 0.0) -> None:
    rng, t = _start(c, "car", x, y, size, far)
    colour = any_colour(rng, 0.3, 0.85) if rng.random() < 0.75 else hsv(0.6, 0.05, rng.uniform(0.3, 0.95))
    paint = lacquer(colour)
    pane = glass(hsv(rng.uniform(0.53, 0.62), rng.uniform(0.1, 0.35), rng.uniform(0.3, 0.6)))
    tall = rng.random() < 0.4
    back, roof = (-1.12, 1.05) if tall else (-0.75, 1.0)
    hull = rounded((-1.36, 0.24), (-1.4, 0.5), (-1.3, 0.64), (-0.6, 0.68), (0.8, 0.66), (1.25, 0.57), (1.4, 0.42), (1.36, 0.22), (0, 0.18))
    t.part("body", hull, paint)
    cabin = polygon((back - 0.2, 0.6), (back, roof - 0.04), (back + 0.12, roof), (0.36, roof), (0.5, roof - 0.04), (0.95, 0.6))
    t.part("body", cabin, paint, bevel=0.35)
    rear = polygon((back - 0.02, 0.66), (back + 0.12, roof - 0.08), (-0.14, roof - 0.08), (-0.14, 0.66))
    t.part("window", rear, pane, own=True, flat=True)
    t.part("window", polygon((-0.05, 0.66), (-0.05, roof - 0.08), (0.36, roof - 0.08), (0.74, 0.66)), pane, own=True, flat=True)
    t.detail(stroke([(-0.1, 0.62), (-0.1, 0.3), (0.55, 0.3), (0.6, 0.62)], t.px(0.9)), plain(colour * 0.6))
    t.detail(ellipse(1.29, 0.47, 0.09, 0.055), plain(hsv(0.13, 0.15, 1.0)))
    t.detail(box(-1.4, 0.44, -1.31, 0.56), plain(hsv(0.0, 0.8, 0.7)))
    t.detail(box(-1.4, 0.2, 1.4, 0.27), plain(DARK * 2.2))
    for wx in (-0.82, 0.84):
        t.part("wheel", ellipse(wx, 0.23, 0.235, 0.235), plain(DARK * 1.6, 0.2, 3), own=True, bevel=0.4)
        t.detail(ellipse(wx, 0.23, 0.13, 0.13), plain(hsv(0.6, 0.03, 0.72), 0.15, 3))
        t.detail(ring(wx, 0.23, 0.085, 0.045), plain(DARK * 4))
    c.place(t, foot=1.45, lean=-c.light.toward[0] * 0.5)


def bicycle(c: Canvas, x: float, y: float, size: float, far: float = 0.0) -> None:
    rng, t = _start(c, "bicycle", x, y, size, far)
    tyre, r = t.px(2.2, 0.055), 0.34
    for wx in (-0.56, 0.56):
        rim = ring(wx, r, r, r - tyre)
        for a in np.arange(7) * 2 * np.pi / 7 + rng.uniform(0, 1):
            rim += stroke([(wx, r), (wx + np.cos(a) * (r - 0.02), r + np.sin(a) * (r - 0.02))], t.px(1.0))
        t.part("wheel", rim, plain(DARK * 2), own=True, flat=True)
    tube, paint = t.px(2.4, 0.05), lacquer(any_colour(rng, 0.5, 0.9), 0.2)
    crank, seat, head, rear, front = (-0.06, 0.32), (-0.2, 0.8), (0.4, 0.82), (-0.56, r), (0.56, r)
    frame: Shape = []
    for line in ((crank, seat), (seat, rear), (rear, crank), (crank, (0.42, 0.72)), ((-0.19, 0.76), head)):
        frame += stroke(list(line), tube)
    frame += stroke([front, head, (0.36, 0.95)], tube) + stroke(curve([(0.36, 0.95), (0.45, 1.0), (0.55, 0.95)], closed=False), tube)
    t.part("frame", frame + ring(*crank, 0.1, 0.04), paint, bevel=0.3)
    t.part("saddle", rounded((-0.36, 0.86), (-0.2, 0.92), (-0.04, 0.87), (-0.2, 0.83)), plain(timber(rng) * 0.7))
    c.place(t, foot=0.85, shadow=0.8)


def boat(c: Canvas, x: float, y: float, size: float, far: float = 0.0) -> None:
    rng = c.rng
    t = Thing(c, "boat", x, y, size, flip=rng.random() < 0.5, far=far, turn=rng.uniform(-0.04, 0.04))
    colour = any_colour(rng) if rng.random() < 0.6 else timber(rng)
    hull = planks(colour, max(3.0, 0.035 * size)) if rng.random() < 0.6 else lacquer(colour, 0.15)
    mast = stroke([(0, 0.1), (0, 1.0)], t.px(2.2, 0.02), t.px(1.6)) + stroke([(0, 0.27), (0.44, 0.25)], t.px(1.8, 0.014))
    t.part("mast", mast, wood(timber(rng)))
    sail = CREAM if rng.random() < 0.5 else any_colour(rng, 0.3, 0.7)
    kind = str(rng.choice(["plain", "hoops", "stripes"]))
    canvas = fabric(sail, any_colour(rng) if kind != "plain" else sail, kind, max(6.0, 0.14 * size))
    main = curve([(0.03, 0.29), (0.03, 0.6), (0.04, 0.96), (0.26, 0.62), (0.43, 0.28), (0.2, 0.26)], pieces=6)
    t.part("sail", [(main, True)], canvas, own=True, bevel=0.8)
    if rng.random() < 0.75:
        jib = rounded((-0.03, 0.85), (-0.04, 0.5), (-0.05, 0.25), (-0.22, 0.25), (-0.36, 0.24), (-0.2, 0.5))
        t.part("sail", jib, fabric(CREAM * 0.95, sail, "plain", 9), own=True, bevel=0.8)
    t.part("hull", polygon((-0.52, 0.2), (0.5, 0.18), (0.46, 0.07), (0.38, 0), (-0.32, 0), (-0.44, 0.08)), hull, bevel=0.7)
    t.detail(stroke([(-0.52, 0.19), (0.5, 0.17)], 0.03), plain(mix_white(colour)))
    c.place(t, shadow=0.0, reflect=0.6)


# -- living beings ----------------------------------------------------------------------------------


def person(c: Canvas, x: float, y: float, size: float, far: float = 0.0) -> None:
    rng, t = _start(c, "person", x, y, size, far)
    skin = plain(hsv(rng.uniform(0.04, 0.08), rng.uniform(0.3, 0.55), rng.uniform(0.4, 0.95)), 0.04)
    top = cloth(rng, 0.07 * size)
    dress = rng.random() < 0.3
    stride = rng.uniform(0.02, 0.12)
    wide = t.px(2.6, 0.085)
    trousers = (
        skin if dress else fabric(hsv(rng.choice([0.6, 0.62, 0.08, 0.0]), rng.uniform(0.1, 0.5), rng.uniform(0.2, 0.6)), DARK, "plain", 6)
    )
    legs = stroke([(-0.045, 0.5), (-0.05 - stride * 0.4, 0.26), (-0.05 - stride, 0.03)], wide, wide * 0.75)
    legs += stroke([(0.045, 0.5), (0.06 + stride * 0.7, 0.27), (0.05 + stride, 0.03)], wide, wide * 0.75)
    t.part("legs", legs, trousers)
    shoes = box(-0.1 - stride, 0, 0.0 - stride, 0.035) + box(0.0 + stride, 0, 0.1 + stride, 0.035)
    t.part("legs", shoes, plain(DARK * 2))
    swing = rng.uniform(0.0, 0.12)
    far_arm = stroke([(0.1, 0.79), (0.15 + swing * 0.5, 0.64), (0.13 + swing, 0.5)], wide * 0.62)
    t.part("arms", far_arm, top)
    body = rounded((-0.12, 0.8), (0, 0.83), (0.12, 0.8), (0.1, 0.65), (0.1, 0.48), (0, 0.46), (-0.1, 0.48), (-0.1, 0.65))
    if dress:
        body = rounded((-0.1, 0.8), (0, 0.82), (0.1, 0.8), (0.07, 0.64), (0.17, 0.34), (0, 0.32), (-0.17, 0.34), (-0.07, 0.64))
    t.part("torso", body, top, bevel=0.8)
    t.part("arms", stroke([(-0.1, 0.79), (-0.15 - swing * 0.4, 0.64), (-0.13 - swing, 0.5)], wide * 0.62), top)
    for side, out in ((1, 0.13 + swing), (-1, 0.13 + swing)):
        t.part("arms", ellipse(side * out, 0.49, 0.026, 0.03), skin)
    t.part("head", box(-0.028, 0.8, 0.028, 0.88) + ellipse(0, 0.915, 0.062, 0.078), skin, bevel=0.7)
    hair = plain(hsv(rng.uniform(0.04, 0.11), rng.uniform(0.2, 0.7), rng.uniform(0.1, 0.7)), 0.2, 3)
    t.part("head", rounded((-0.068, 0.9), (-0.06, 0.975), (0, 1.0), (0.06, 0.975), (0.068, 0.93), (0.03, 0.95), (-0.04, 0.94)), hair)
    if rng.random() < 0.3:
        hat = stroke([(-0.12, 0.95), (0.12, 0.95)], 0.025) + rounded((-0.065, 0.95), (-0.05, 1.02), (0.05, 1.02), (0.065, 0.95))
        t.part("head", hat, cloth(rng, 9))
    c.place(t, foot=0.2)


def bird(c: Canvas, x: float, y: float, size: float, *, flying: bool, far: float = 0.0) -> None:
    rng = c.rng
    colour = any_colour(rng, 0.1, 0.7)
    second = mix_white(colour) if rng.random() < 0.6 else any_colour(rng) * 0.6
    beak = plain(hsv(0.1, 0.8, 0.9))
    plumage = fur(colour, second, max(3.0, 0.08 * size), 0.25)
    quills = rays(second, colour * 0.7, max(3.0, 0.08 * size))
    t = Thing(c, "bird", x, y, size, flip=rng.random() < 0.5, far=far, turn=rng.uniform(-0.15, 0.15) if flying else 0.0)
    if flying:
        up = rng.uniform(0.25, 0.5)
        wing = rounded((0.1, 0.0), (0.16, up * 0.6), (0.02, up + 0.3), (-0.12, up + 0.42), (-0.06, up * 0.9), (-0.12, 0.05))
        t.part("wing", wing, quills, own=True)
        t.part("tail", polygon((-0.22, 0.03), (-0.5, 0.1), (-0.46, 0.0), (-0.5, -0.08), (-0.2, -0.05)), quills)
        t.part("body", rounded((-0.28, 0.0), (-0.05, 0.1), (0.2, 0.09), (0.28, 0.02), (0.15, -0.08), (-0.05, -0.1)), plumage, bevel=0.9)
        wing = rounded((0.14, 0.02), (0.02, up * 0.55), (-0.2, up + 0.18), (-0.36, up + 0.26), (-0.26, up * 0.6), (-0.14, 0.0))
        t.part("wing", wing, quills, own=True)
        head = 0.3, 0.06
    else:
        for lx in (-0.04, 0.06):
            t.part("legs", stroke([(lx, 0.35), (lx + 0.02, 0), (lx + 0.1, 0)], t.px(1.7, 0.022)), beak, flat=True)
        t.part("tail", polygon((-0.2, 0.45), (-0.55, 0.32), (-0.52, 0.42), (-0.2, 0.56)), quills)
        body = rounded((-0.3, 0.45), (-0.1, 0.62), (0.15, 0.68), (0.26, 0.6), (0.2, 0.4), (0.0, 0.3), (-0.2, 0.34))
        t.part("body", body, plumage, bevel=0.9)
        t.part("wing", rounded((0.12, 0.56), (-0.1, 0.56), (-0.38, 0.4), (-0.15, 0.38), (0.08, 0.44)), quills, own=True)
        head = 0.22, 0.74
    t.part("head", ellipse(*head, 0.11, 0.1), plain(colour * 0.9, 0.15, 3), bevel=0.9)
    t.part("head", polygon((head[0] + 0.08, head[1] + 0.04), (head[0] + 0.25, head[1] - 0.02), (head[0] + 0.08, head[1] - 0.04)), beak)
    t.detail(ellipse(head[0] + 0.04, head[1] + 0.025, t.px(0.9, 0.02), t.px(0.9, 0.02)), plain(DARK))
    c.place(t, shadow=0.0 if flying else 0.8, foot=0.25)


def fish(c: Canvas, x: float, y: float, size: float, far: float = 0.0) -> None:
    """``size`` is the body's length."""
    rng = c.rng
    t = Thing(c, "fish", x, y, size, flip=rng.random() < 0.5, far=far, turn=rng.uniform(-0.25, 0.25))
    colour, second = any_colour(rng, 0.4, 0.9), any_colour(rng, 0.2, 0.9)
    if rng.random() < 0.35:
        second = CREAM
    tall = rng.uniform(0.16, 0.34)
    fins = rays(second if rng.random() < 0.5 else colour * 0.85, colour, max(3.0, 0.05 * size))
    t.part("tail", rounded((-0.36, 0.0), (-0.5, 0.1), (-0.68, 0.24), (-0.6, 0.0), (-0.68, -0.24), (-0.5, -0.1)), fins)
    t.part("fin", rounded((-0.25, tall * 0.7), (-0.3, tall * 1.35), (0.0, tall * 1.5), (0.18, tall * 0.8), (0, tall * 0.6)), fins, own=True)
    t.part("fin", rounded((-0.2, -tall * 0.6), (-0.25, -tall * 1.3), (-0.05, -tall * 1.1), (0.05, -tall * 0.7)), fins, own=True)
    bands = float(rng.choice([0, 0, 2.0, 3.0, 4.0]))
    back = ((-0.44, 0.04), (-0.2, tall * 0.8), (0.1, tall), (0.36, tall * 0.6), (0.5, 0))
    belly = ((0.36, -tall * 0.6), (0.1, -tall * 0.95), (-0.2, -tall * 0.75), (-0.44, -0.04))
    t.part("body", rounded(*back, *belly), scales(colour, second, bands, max(2.0, 0.055 * size)), bevel=1.0)
    t.part("fin", rounded((0.12, -0.02), (0.0, 0.05), (-0.12, -0.06), (-0.02, -0.13)), fins, own=True)
    t.detail(ellipse(0.34, tall * 0.22, 0.05, 0.05), plain(CREAM))
    t.detail(ellipse(0.35, tall * 0.22, 0.027, 0.027), plain(DARK))
    t.detail(stroke(curve([(0.22, tall * 0.6), (0.17, 0), (0.22, -tall * 0.55)], closed=False), t.px(1.0, 0.012)), plain(colour * 0.55))
    c.place(t, shadow=0.0)


def cat(c: Canvas, x: float, y: float, size: float) -> None:
    rng, t = _start(c, "cat", x, y, size)
    colour = hsv(rng.uniform(0.04, 0.1), rng.uniform(0.05, 0.7), rng.uniform(0.25, 0.9))
    coat = fur(colour, colour * 0.5, 0.13 * size, float(rng.choice([0.0, 0.7, 0.9])))
    tail = curve([(-0.2, 0.08), (-0.42, 0.06), (-0.52, 0.25), (-0.44, 0.42)], closed=False)
    t.part("tail", stroke(tail, t.px(3, 0.09), t.px(2, 0.06)), coat, bevel=0.8)
    body = rounded((-0.27, 0.0), (-0.3, 0.22), (-0.18, 0.48), (0.0, 0.62), (0.14, 0.55), (0.17, 0.3), (0.22, 0.0), (0, -0.01))
    t.part("body", body, coat, bevel=0.9)
    t.detail(stroke([(0.1, 0.0), (0.09, 0.24)], t.px(1.2)), plain(colour * 0.5))
    head = rounded((-0.17, 0.7), (-0.1, 0.85), (0.05, 0.88), (0.2, 0.85), (0.27, 0.7), (0.18, 0.57), (0.05, 0.54), (-0.08, 0.57))
    t.part(
        "head", head + polygon((-0.15, 0.76), (-0.14, 1.0), (0.01, 0.85)) + polygon((0.1, 0.85), (0.25, 1.0), (0.26, 0.75)), coat, bevel=0.8
    )
    eyes = plain(hsv(rng.uniform(0.15, 0.5), 0.6, 0.85))
    for ex in (-0.03, 0.13):
        t.detail(ellipse(ex, 0.72, 0.036, 0.03), eyes)
        t.detail(ellipse(ex, 0.72, 0.012, 0.028), plain(DARK))
    t.detail(polygon((0.02, 0.655), (0.08, 0.655), (0.05, 0.625)), plain(hsv(0.98, 0.4, 0.7)))
    c.place(t, foot=0.32)


def butterfly(c: Canvas, x: float, y: float, size: float) -> None:
    rng = c.rng
    t = Thing(c, "butterfly", x, y, size, turn=rng.uniform(-0.6, 0.6))
    colour, second = any_colour(rng, 0.5, 0.9), any_colour(rng, 0.3, 0.9) * 0.6
    wing = fabric(colour, second, str(rng.choice(["dots", "hoops", "check"])), max(4.0, 0.16 * size))
    for side in (-1, 1):
        upper = [(0, 0.05), (0.16, 0.36), (0.42, 0.44), (0.46, 0.22), (0.3, 0.02)]
        lower = [(0, 0.02), (0.28, 0.0), (0.34, -0.2), (0.2, -0.34), (0.06, -0.16)]
        t.part("wing", rounded(*[(side * u, v) for u, v in upper]) + rounded(*[(side * u, v) for u, v in lower]), wing, own=True, bevel=0.5)
    body = stroke([(0, -0.22), (0, 0.16)], t.px(2.4, 0.07))
    for side in (-1, 1):
        body += stroke(curve([(0, 0.14), (side * 0.06, 0.3), (side * 0.17, 0.42)], closed=False, pieces=4), t.px(1.3))
    t.part("body", body, plain(DARK * 2, 0.2, 2), bevel=0.4)
    c.place(t, shadow=0.0)


# -- furniture --------------------------------------------------------------------------------------


def chair(c: Canvas, x: float, y: float, size: float) -> None:
    rng, t = _start(c, "chair", x, y, size)
    colour = timber(rng) if rng.random() < 0.65 else any_colour(rng, 0.2, 0.6)
    frame = wood(colour, 0.06 * size)
    thick = t.px(2.6, 0.045)
    legs = stroke([(-0.14, 0.42), (-0.13, 0.1)], thick) + stroke([(0.28, 0.42), (0.28, 0.1)], thick)
    legs += stroke([(-0.22, 0.42), (-0.24, 0)], thick) + stroke([(0.2, 0.42), (0.21, 0)], thick)
    t.part("legs", legs, frame)
    back = stroke([(-0.14, 0.45), (-0.17, 1.0)], thick) + stroke([(0.27, 0.45), (0.27, 1.0)], thick)
    if rng.random() < 0.5:
        for height in (0.62, 0.78, 0.95):
            back += stroke([(-0.16, height), (0.27, height)], thick * 1.3)
    else:
        back += stroke([(-0.16, 0.95), (0.27, 0.95)], thick * 1.6)
        for bx in (-0.05, 0.05, 0.16):
            back += stroke([(bx, 0.46), (bx - 0.01, 0.95)], t.px(1.8, 0.025))
    t.part("back", back, frame, bevel=0.6)
    seat = frame if rng.random() < 0.4 else cloth(rng, 0.08 * size)
    t.part("seat", polygon((-0.26, 0.38), (0.24, 0.38), (0.31, 0.49), (-0.17, 0.49)), seat, bevel=0.6)
    t.part("seat", polygon((-0.26, 0.38), (0.24, 0.38), (0.24, 0.34), (-0.26, 0.34)), plain(colour * 0.7))
    c.place(t, foot=0.34, shadow=0.8)


def table(c: Canvas, x: float, y: float, size: float, half: float) -> float:
    """Returns the row of its top, so that something can stand on it."""
    rng, t = _start(c, "table", x, y, size, flips=False)
    colour = timber(rng)
    thick = t.px(3, 0.06)
    legs = stroke([(-half + 0.14, 0.85), (-half + 0.14, 0.18)], thick * 0.8) + stroke(
        [(half - 0.14, 0.85), (half - 0.14, 0.18)], thick * 0.8
    )
    legs += stroke([(-half + 0.05, 0.85), (-half + 0.04, 0)], thick) + stroke([(half - 0.05, 0.85), (half - 0.04, 0)], thick)
    t.part("legs", legs, wood(colour * 0.85, 0.05 * size))
    draped = rng.random() < 0.35
    cover = cloth(rng, 0.14 * size) if draped else wood(colour, 0.12 * size, upright=False)
    t.part("top", polygon((-half, 0.86), (half, 0.86), (half - 0.13, 1.1), (-half + 0.13, 1.1)), cover, bevel=0.3)
    t.part("top", box(-half, 0.6 if draped else 0.79, half, 0.865), cover, bevel=0.5)
    t.detail(box(-half, 0.6 if draped else 0.79, half, 0.855), darker(cover))
    c.place(t, foot=half * 1.05)
    return y - 0.98 * size


def darker(material: Material) -> Material:
    return lambda p: material(p) * 0.72


def sofa(c: Canvas, x: float, y: float, size: float) -> None:
    rng, t = _start(c, "sofa", x, y, size, flips=False)
    cover = cloth(rng, 0.11 * size) if rng.random() < 0.5 else fabric(any_colour(rng, 0.2, 0.65), CREAM, "plain", 8)
    half = rng.uniform(0.85, 1.15)
    t.part("legs", box(-half + 0.05, 0, -half + 0.13, 0.14) + box(half - 0.13, 0, half - 0.05, 0.14), wood(timber(rng) * 0.7))
    back = rounded((-half, 0.3), (-half, 0.9), (-half * 0.6, 1.0), (0, 1.0), (half * 0.6, 1.0), (half, 0.9), (half, 0.3), (0, 0.28))
    t.part("back", back, cover, bevel=0.8)
    t.part("seat", box(-half + 0.1, 0.1, half - 0.1, 0.3), darker(cover), bevel=0.4)
    for left, right in ((-half + 0.12, 0.0), (0.0, half - 0.12)):
        middle = (left + right) / 2
        seat = rounded((left, 0.3), (left, 0.44), (left + 0.1, 0.49), (right - 0.1, 0.49), (right, 0.44), (right, 0.3), (middle, 0.28))
        t.part("seat", seat, cover, bevel=0.7)
    for side in (-1, 1):
        edge, outer = side * half, side * (half + 0.08)
        arm = rounded((edge * 0.86, 0.1), (edge * 0.84, 0.55), (edge * 0.93, 0.66), (outer, 0.58), (outer, 0.1))
        t.part("arm", arm, cover, own=True, bevel=0.8)
    for cx in rng.permutation([-0.5, 0.5])[: int(rng.integers(0, 3))]:
        tilt = rng.uniform(-0.3, 0.3)
        pillow = [
            (p @ np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]]) + (cx * half, 0.62), ink)
            for p, ink in rounded((-0.17, -0.16), (0, -0.14), (0.17, -0.16), (0.15, 0), (0.17, 0.16), (0, 0.14), (-0.17, 0.16), (-0.15, 0))
        ]
        t.part("cushion", pillow, cloth(rng, 0.08 * size), own=True, bevel=1.0)
    c.place(t, foot=half * 1.1)


def rug(c: Canvas, x: float, y: float, size: float) -> None:
    """``size`` is the half width; lies on the floor."""
    rng, t = _start(c, "rug", x, y, size, flips=False)
    deep = rng.uniform(0.28, 0.4)
    edge, field = cloth(rng, 0.06 * size), cloth(rng, 0.16 * size)
    if rng.random() < 0.5:
        t.part("border", ellipse(0, 0, 1, deep), edge, bevel=0.15)
        t.part("field", ellipse(0, 0, 0.84, deep * 0.82), field, flat=True)
    else:
        t.part("border", polygon((-1, -deep), (1, -deep), (0.8, deep), (-0.8, deep)), edge, bevel=0.15)
        t.part("field", polygon((-0.84, -deep * 0.8), (0.84, -deep * 0.8), (0.68, deep * 0.8), (-0.68, deep * 0.8)), field, flat=True)
    c.place(t, shadow=0.0)
    c.ground |= c.owner >= len(c.leaves) - len(t.parts)


def painting(c: Canvas, x: float, y: float, size: float) -> None:
    """``size`` is the height; hangs on the wall from its lower edge."""
    rng, t = _start(c, "painting", x, y, size, flips=False)
    half, edge = rng.uniform(0.36, 0.75), rng.uniform(0.06, 0.11)
    t.part("frame", box(-half, 0, half, 1), wood(timber(rng) if rng.random() < 0.7 else DARK * 2, 0.06 * size), bevel=0.7)
    inner = landscape(any_colour(rng, 0.2, 0.6), any_colour(rng, 0.3, 0.7)) if rng.random() < 0.7 else cloth(rng, 0.2 * size)
    t.part("canvas", box(-half + edge, edge, half - edge, 1 - edge), inner, flat=True)
    c.place(t, shadow=0.5, foot=half)


def floor_lamp(c: Canvas, x: float, y: float, size: float) -> None:
    rng, t = _start(c, "floor lamp", x, y, size)
    metal = plain(hsv(rng.choice([0.1, 0.6]), rng.uniform(0.05, 0.5), rng.uniform(0.2, 0.7)), 0.08, 5)
    t.part("base", ellipse(0, 0.02, 0.13, 0.035), metal, bevel=1.0)
    t.part("pole", stroke([(0, 0.03), (0, 0.8)], t.px(2.2, 0.02)), metal, bevel=0.3)
    colour = hsv(rng.choice([0.1, 0.12, 0.03, 0.55, 0.3]), rng.uniform(0.15, 0.5), 0.95)
    screen = fabric(colour, colour * 0.85, "stripes", max(4.0, 0.05 * size))
    t.part("shade", polygon((-0.2, 0.72), (0.2, 0.72), (0.12, 0.99), (-0.12, 0.99)), screen, bevel=0.5)
    c.place(t, foot=0.2)
    c.glow(x, y - 0.85 * size, 0.55 * size, np.array([1.0, 0.85, 0.55], np.float32), rng.uniform(0.3, 0.6))

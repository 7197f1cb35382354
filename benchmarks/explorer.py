"""The hierarchy explorer beside one drawn picture for each step of the slider: size, time to write, time of a step in a browser.

    python benchmarks/explorer.py [--regions 1000] [--columns 4] [--size 480x640]

Each column is a synthetic tree of nested regions (cells of random points, merged at random). The baseline is a gallery: a JPEG for every
column and step, drawn by `drawing.overlay` and put into an `<img>`. Needs Chromium and the package websockets.
"""

from __future__ import annotations

import argparse
import base64
import io
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from uss_dagster import drawing
from uss_dagster.regions import Regions
from uss_dagster.report import explorer

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "report"))
from devtools import Page, browser, find_chromium

STEPS = """(async () => {
  const times = [], slider = document.getElementById('x-slider');
  const frame = () => new Promise(done => requestAnimationFrame(() => setTimeout(done)));
  for (let round = 0; round < 3; round++) for (let step = 0; step <= Number(slider.max); step++) {
    slider.value = round % 2 ? step : Number(slider.max) - step;
    const begin = performance.now();
    slider.dispatchEvent(new Event('input'));
    await frame();
    times.push(performance.now() - begin);
  }
  return times; })()"""
MARKS = """(async () => {
  const times = [], E = USS.explorer, family = E.columns()[1].family;
  for (let r = 0; r < family.k; r += Math.ceil(family.k / 60)) {
    const begin = performance.now();
    E.state.hover = { column: E.columns()[1].id, region: r };
    E.update();
    await new Promise(done => requestAnimationFrame(() => setTimeout(done)));
    times.push(performance.now() - begin);
  }
  return times; })()"""
SWAPS = """(async () => {
  const times = [];
  for (const step of window.STEPS) {
    const begin = performance.now();
    await Promise.all([...document.images].map((image, i) => { image.src = step[i]; return image.decode(); }));
    await new Promise(done => requestAnimationFrame(() => setTimeout(done)));
    times.push(performance.now() - begin);
  }
  return times; })()"""


def tree(rng: np.random.Generator, height: int, width: int, regions: int) -> Regions:
    """A binary tree of about so many regions."""
    from scipy.spatial import cKDTree

    leaves = (regions + 1) // 2
    cells = cKDTree(rng.random((leaves, 2)) * [height, width]).query(np.indices((height, width)).reshape(2, -1).T)[1]
    alive, parent, level = list(range(leaves)), np.full(2 * leaves - 1, -1), np.zeros(2 * leaves - 1)
    for step in range(leaves - 1):
        first, second = (alive.pop(rng.integers(len(alive))) for _ in range(2))
        parent[[first, second]], level[leaves + step] = leaves + step, step + 1
        alive.append(leaves + step)
    last = 2 * leaves - 2
    return Regions.from_tree((last - cells).reshape(height, width), np.where(parent < 0, -1, last - parent)[::-1], level=level[::-1])


def print_times(name: str, times: list[float]) -> float:
    middle, most = float(np.median(times)), float(np.max(times))
    print(f"  {name:<34} median {middle:7.1f} ms, 95 % {float(np.percentile(times, 95)):7.1f} ms, slowest {most:7.1f} ms")
    return middle


def busy(tab: Page) -> float:
    """Seconds that the page's own thread has computed so far."""
    return {m["name"]: m["value"] for m in tab.send("Performance.getMetrics")["metrics"]}["TaskDuration"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--regions", type=int, default=1000)
    parser.add_argument("--columns", type=int, default=4)
    parser.add_argument("--size", default="480x640")
    options = parser.parse_args()
    height, width = map(int, options.size.split("x"))
    executable = find_chromium()
    if executable is None:
        sys.exit("There is no Chromium here (Debian: apt-get install chromium).")
    rng = np.random.default_rng(0)
    families = {f"column{i}": tree(rng, height, width, options.regions) for i in range(options.columns)}
    photo = np.asarray(Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((width, height), Image.Resampling.BICUBIC))
    print(f"{options.columns} columns of {len(families['column0'])} regions, {height}x{width} pixels")
    with tempfile.TemporaryDirectory() as name, browser(executable) as tab:
        folder = Path(name)
        begin = time.perf_counter()
        written = explorer.write(folder, [explorer.SegmentedImage("d", "i", photo, [], families)], {})
        ours = time.perf_counter() - begin
        weight = sum(p.stat().st_size for p in written[1:])
        tab.open(written[0].as_uri() + f"#c=~photo,{','.join(families)}", width=1920, height=1080)
        tab.ask("new Promise(d => { const w = () => USS.explorer.columns().length ? d() : setTimeout(w, 10); w(); })")
        ladder = tab.ask("Number(document.getElementById('x-slider').max) + 1")

        begin = time.perf_counter()
        drawn = []
        for n in (2 ** (np.arange(ladder) / 4)).round():
            row = []
            for regions in families.values():
                out = io.BytesIO()
                Image.fromarray(drawing.overlay(photo, regions, int(n))).save(out, "JPEG", quality=86, subsampling=0, optimize=True)
                row.append(out.getvalue())
            drawn.append(row)
        theirs = time.perf_counter() - begin
        heavy = sum(len(data) for row in drawn for data in row)
        print(
            f"  written: explorer {weight / 1e3:.0f} kB in {ours:.2f} s; {ladder} steps as pictures {heavy / 1e3:.0f} kB in {theirs:.2f} s"
        )
        print(f"  the explorer weighs {heavy / weight:.1f} times less and is written {theirs / ours:.1f} times as fast")

        tab.send("Performance.enable", timeDomain="threadTicks")
        begin = busy(tab)
        fast = print_times("a step of the explorer", steps := tab.ask(STEPS))
        print(f"  {'':<34} the page's thread computes {1000 * (busy(tab) - begin) / len(steps):.1f} ms a step, whatever else runs here")
        begin = busy(tab)
        print_times("pointing at a region", marks := tab.ask(MARKS))
        print(f"  {'':<34} the page's thread computes {1000 * (busy(tab) - begin) / len(marks):.1f} ms a region")
        assert tab.complaints == []
        sources = ",".join("[" + ",".join(f"'data:image/jpeg;base64,{base64.b64encode(d).decode()}'" for d in row) + "]" for row in drawn)
        page = folder / "drawing.html"
        page.write_text(f"<script>window.STEPS = [{sources}]</script>" + f"<img width={1500 // options.columns}>" * options.columns)
        tab.open(page.as_uri(), width=1920, height=1080)
        slow = print_times("a step of the pictures", tab.ask(SWAPS))
        print(f"  a step of the explorer takes {fast / slow:.2f} times as long as one of pictures that are drawn already")


if __name__ == "__main__":
    main()

"""Screenshots of the first page at three widths, for ``docs/report.md``: ``python docs/pictures/pages.py reports/site/index.html``."""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "report"))

from devtools import browser, find_chromium  # noqa: E402

SIZES = ((390, 2000), (768, 1500), (1400, 1300))
"""Width and height of each window."""
READY = (
    "new Promise(done => { const wait = () => document.querySelector('#rows tr') ? setTimeout(done, 500) : setTimeout(wait, 50); wait(); })"
)


def main(page: Path) -> None:
    """Write ``docs/images/page-WIDTH.webp``."""
    executable = find_chromium()
    if executable is None:
        sys.exit("No Chromium is here; screenshots need one.")
    with browser(executable) as tab, tempfile.TemporaryDirectory() as folder:
        for width, height in SIZES:
            tab.open(page.resolve().as_uri(), width, height, touch=width < 500)
            tab.ask(READY)
            shot = Path(folder) / "shot.png"
            tab.screenshot(shot, whole=False)
            stream = io.BytesIO()
            Image.open(shot).convert("RGB").save(stream, "WEBP", quality=70, method=6)
            target = ROOT / "docs" / "images" / f"page-{width}.webp"
            target.write_bytes(stream.getvalue())
            print(f"{target.relative_to(ROOT)}: {target.stat().st_size // 1024} kB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

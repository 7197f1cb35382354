"""Pictures of the site as small JPEG files, the same bytes every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageFile


def save_jpeg(path: Path, pixels: np.ndarray, quality: int) -> None:
    """Write uint8 (H, W, 3) with full colour resolution and optimised codes.

    Pillow then writes the file in one piece, for which it sets a byte a pixel aside: too little where every pixel has an edge, as with a thousand
    outlines. Its ``MAXBLOCK`` is the least it sets aside; it is put back, since it also says in how many chunks a PNG is written.
    """
    before = ImageFile.MAXBLOCK
    ImageFile.MAXBLOCK = max(before, 2 * pixels.nbytes)
    try:
        Image.fromarray(pixels).save(path, quality=quality, subsampling=0, optimize=True)
    finally:
        ImageFile.MAXBLOCK = before

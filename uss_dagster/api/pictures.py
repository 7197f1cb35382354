"""A picture in any form that people have it → pixels, uint8 (H, W, 3)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import numpy as np
from PIL import Image

from uss_dagster.artifacts.image_files import read_picture, upright_rgb
from uss_dagster.errors import BadData

if TYPE_CHECKING:
    import torch

Picture = Union[str, os.PathLike[str], np.ndarray, Image.Image, "torch.Tensor"]
"""A file; an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), of uint8, uint16, bool, or of floats from 0 to 1; a picture of Pillow; or a
tensor (C, H, W) or (H, W) of the same numbers."""
WITHOUT_A_NAME = "image"


def file_name_of(picture: Picture) -> str:
    """The name of its file without folders; ``WITHOUT_A_NAME`` for what is no file."""
    return Path(picture).name if isinstance(picture, str | os.PathLike) else WITHOUT_A_NAME


def pixels_of(picture: Picture) -> np.ndarray:
    """Its pixels as files of pictures are read: RGB, upright, transparency laid on white.

    Raises
    ------
    BadData
        It is no picture; the sentence says what was expected.
    """
    if isinstance(picture, str | os.PathLike):
        return read_picture(Path(picture))
    if isinstance(picture, Image.Image):
        return upright_rgb(picture, WITHOUT_A_NAME)
    array = plain_array(picture)
    channels_first = hasattr(picture, "detach") and array.ndim == 3
    return upright_rgb(_picture_of(np.moveaxis(array, 0, -1) if channels_first else array), WITHOUT_A_NAME)


def plain_array(values: Any) -> np.ndarray:
    """An array, or the numbers of a tensor."""
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)


def _picture_of(array: np.ndarray) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)) or 0 in array.shape:
        channels_first = array.ndim == 3 and array.shape[0] in (1, 3, 4)
        hint = " Move its channels to the end: np.moveaxis(image, 0, -1)." if channels_first else ""
        raise BadData(f"A picture is an array (height, width), with 1, 3 or 4 channels behind them if any, got {array.shape}.{hint}")
    return Image.fromarray(_bytes_of(array))


def _bytes_of(array: np.ndarray) -> np.ndarray:
    """Its numbers as uint8."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype == np.uint16:
        return np.round(array / 257).astype(np.uint8)
    if array.dtype.kind != "f":
        raise BadData(f"A picture holds uint8, uint16, bool, or floats from 0 to 1, got {array.dtype}. Convert it: image.astype(np.uint8).")
    if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
        raise BadData(
            f"A picture of floats holds numbers from 0 to 1, this one {array.min():g} to {array.max():g}. Scale it, such as image / 255."
        )
    return np.round(array * 255).astype(np.uint8)

"""A trained student: loaded from its folder, it segments whole images and answers clicks.

The folder holds ``model.safetensors`` and ``config.json``, which names the file's digest: a file that was changed, or is of something else, is
refused. Nothing but safetensors is ever read, so no file can run code.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco
from torch import Tensor, nn

from uss_dagster.errors import BadData, UsageError
from uss_dagster.graphs.mask_nms import mask_nms
from uss_dagster.regions import rle
from uss_dagster.regions.coded import CodedRegions
from uss_dagster.runtime import torch_device
from uss_dagster.student.net import Encoded, Output, StudentNet
from uss_dagster.student.prediction import Found, Leaves, Window, cut_off, encode_masks, nested, pyramid, stability, suppressed
from uss_dagster.student.settings import StudentSettings

Auto = Literal["queries", "grid", "union"]
WEIGHTS, CONFIG = "model.safetensors", "config.json"
FORMAT = "uss_dagster student 1"
CLICKS_AT_ONCE = 64
CUT_OFF = 0.5
"""Share of its score that a mask keeps which may go on beyond its window: what is seen whole elsewhere is better."""
REPEAT = 0.8
"""IoU above which two answers to a click are the same."""


@dataclass(frozen=True)
class Answer:
    """A mask of a click: its COCO code over an image of ``shape`` (height, width), and its quality, the IoU that the student expects of it, in 0..1."""

    shape: tuple[int, int]
    code: bytes
    quality: float

    def mask(self) -> np.ndarray:
        """Bool (H, W)."""
        return rle.decode(self.code, *self.shape)


class Student:
    """The network with its settings. digest: sha256 of the weights file it came from, empty where it came from none."""

    def __init__(
        self, net: StudentNet, settings: StudentSettings, device: str = "cpu", digest: str = "", config: dict[str, Any] | None = None
    ) -> None:
        self.device = torch_device(device)
        self.net = net.to(self.device).eval()
        self.settings, self.digest, self.config = settings, digest, config or {}

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> Student:
        """From a folder that training wrote."""
        config, settings = read_config(folder)
        data = (folder / WEIGHTS).read_bytes() if (folder / WEIGHTS).is_file() else b""
        digest = hashlib.sha256(data).hexdigest()
        if digest != config.get("sha256"):
            what = "is not the file that its config.json was written for" if data else "is missing"
            raise BadData(f"'{folder / WEIGHTS}' {what}: copy the whole folder again, or train anew.")
        net = build(settings)
        fill(net, data, folder / WEIGHTS)
        return cls(net, settings, device, digest, config)

    # -- whole images -------------------------------------------------------------------------------

    def masks(
        self,
        image: np.ndarray,
        auto: Auto = "union",
        most: int = 1000,
        min_score: float = 0.0,
        *,
        grid: int = 12,
        split: int = 1,
        snap: bool = True,
        min_stability: float = 0.0,
        iou: float = 0.8,
    ) -> Found:
        """At most ``most`` masks of an image, uint8 (H, W, 3), best first.

        auto: 'queries' asks the learned queries, in one pass; 'grid' clicks on grid × grid points; 'union' does both. split: 1 looks at the whole
        image; s also at s × s overlapping windows, and at s / 2 × s / 2 and so on, for what is small. snap: masks end where colours change, see
        ``prediction.Leaves``. min_stability: IoU that a mask keeps when its threshold moves by a logit up or down.
        iou: of two masks that overlap more, the better stays.
        """
        looked = self.look(image, split, snap)
        parts = [looked.found(view, auto, grid, min_score, min_stability, iou) for view in range(len(looked.windows))]
        codes = [code for part in parts for code in part.codes]
        together = Found(
            looked.shape, codes, np.concatenate([part.score for part in parts]), [name for part in parts for name in part.source]
        )
        # masks of two views, or of other cells and the same pieces, may be alike though none is like another in its view
        bound = iou if snap or len(parts) > 1 else 1.0
        kept = mask_nms(codes, together.score, bound) if codes else np.zeros(0, np.int64)
        return together.select(kept[:most])

    def segment(self, image: np.ndarray, auto: Auto = "union", most: int = 300, min_score: float = 0.0, **options: Any) -> CodedRegions:
        """The whole image (region 0) and its masks as a tree, see ``prediction.nested``. options: of ``masks``."""
        return nested(self.masks(image, auto, most, min_score, **options))

    # -- clicks -------------------------------------------------------------------------------------

    def look(self, image: np.ndarray, split: int = 1, snap: bool = True) -> Looked:
        """An image, uint8 (H, W, 3), encoded once for any number of clicks. split, snap: see ``masks``."""
        return Looked(self, image, split, snap)


class Looked:
    """One image as a student sees it: the whole, and windows of it, each encoded when it is first needed."""

    def __init__(self, student: Student, image: np.ndarray, split: int = 1, snap: bool = True) -> None:
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise BadData(f"A student looks at images uint8 (height, width, 3), got {image.dtype} {image.shape}.")
        if not 1 <= split <= 8:
            raise UsageError(f"split is {split}, expected 1 (the whole image alone) to 8 windows along a side.")
        self.student, self.image = student, image
        self.shape = image.shape[0], image.shape[1]
        self._levels = pyramid(self.shape, split)
        self.windows: list[Window] = [window for level in self._levels for window in level]
        self._leaves = Leaves(image) if snap else None
        self._encoded: dict[int, Encoded] = {}

    def click(self, x: float, y: float) -> list[Answer]:
        """Masks of what lies at the pixel in column x and row y, best first, at most one a grain; what repeats a better one (``REPEAT``) is left out."""
        height, width = self.shape
        if not (0 <= x < width and 0 <= y < height):
            raise UsageError(f"The point {x:g},{y:g} is not in the image, whose columns are 0 to {width - 1} and rows 0 to {height - 1}.")
        return self.clicks(np.array([[x, y]]))[0]

    def clicks(self, points: np.ndarray) -> list[list[Answer]]:
        """The answers to many clicks (P, 2), columns and rows, each as ``click`` gives them."""
        net = self.student.net
        grains = net.shape.grains
        codes: list[list[bytes]] = [[] for _ in points]
        quality: list[list[float]] = [[] for _ in points]
        for view, asked in self._views_of(points):
            y, x, h, w = self.windows[view]
            inside = ((points[asked] + 0.5 - (x, y)) / (w, h)).astype(np.float32)
            logits, _, said = self._asked(view, inside, learned=False)
            coded = encode_masks(logits, self.windows[view], self.shape, self._leaves)
            for i, place in enumerate(asked.tolist()):
                codes[place] += coded[i * grains : (i + 1) * grains]
                quality[place] += said[i * grains : (i + 1) * grains].tolist()
        return [self._best(c, np.array(q), grains) for c, q in zip(codes, quality, strict=True)]

    def found(self, view: int, auto: Auto, grid: int, min_score: float, min_stability: float, iou: float) -> Found:
        """Masks of one view."""
        if auto not in ("queries", "grid", "union"):
            raise UsageError(f"auto is '{auto}', expected queries, grid or union.")
        parts: list[tuple[Tensor, Tensor, str]] = []
        if auto != "grid":
            logits, objectness, quality = self._asked(view, None, learned=True)
            parts.append((logits, objectness * quality, "query"))
        if auto != "queries":
            centres = (np.arange(grid) + 0.5) / grid
            points = np.stack([np.tile(centres, grid), np.repeat(centres, grid)], 1).astype(np.float32)
            for start in range(0, len(points), CLICKS_AT_ONCE):
                logits, _, quality = self._asked(view, points[start : start + CLICKS_AT_ONCE], learned=False)
                parts.append((logits, quality, "click"))
        logits, score = torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
        names = np.repeat([part[2] for part in parts], [len(part[0]) for part in parts])
        score = torch.where(cut_off(logits, self.windows[view], self.shape), CUT_OFF * score, score)
        good = score >= min_score
        if min_stability > 0:
            good &= stability(logits) >= min_stability
        among = torch.nonzero(good)[:, 0]
        kept = among[suppressed(logits[among], score[among], iou)]
        codes = encode_masks(logits[kept], self.windows[view], self.shape, self._leaves)
        return Found(self.shape, codes, score[kept].cpu().numpy().astype(np.float32), names[kept.cpu().numpy()].tolist())

    def _views_of(self, points: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """(view, indices of the points to ask there): each at every level in the window in whose middle it lies most."""
        views: list[tuple[int, np.ndarray]] = []
        first = 0
        for windows in self._levels:
            boxes = np.array(windows, np.float64)
            middle, half = boxes[:, 1::-1] + boxes[:, :1:-1] / 2, boxes[:, :1:-1] / 2
            nearest = np.abs((points[:, None] + 0.5 - middle) / half).max(axis=2).argmin(axis=1)
            views += [(first + int(place), np.flatnonzero(nearest == place)) for place in np.unique(nearest)]
            first += len(windows)
        return views

    def _best(self, codes: list[bytes], quality: np.ndarray, most: int) -> list[Answer]:
        """The best answers, each but once."""
        chosen: list[int] = []
        coded = [{"size": list(self.shape), "counts": code} for code in codes]
        overlap = np.asarray(coco.iou(coded, coded, [0] * len(coded)))
        area = rle.areas(codes, *self.shape)
        for i in np.argsort(-quality, kind="stable").tolist():
            if area[i] and len(chosen) < most and not any(overlap[i, j] > REPEAT for j in chosen):
                chosen.append(i)
        return [Answer(self.shape, codes[i], float(quality[i])) for i in chosen]

    @torch.inference_mode()
    def _asked(self, view: int, points: np.ndarray | None, learned: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Mask logits (N, h, w), objectness (N,) and quality (N,) in 0..1 of the learned queries, or of clicks (P, 2) in 0..1 of the view."""
        asked = None if points is None else torch.from_numpy(points)[None].to(self.student.device)
        output: Output = self.student.net.decode(self._encode(view), asked, learned, deep=False)[-1]
        return output.masks[0].float(), output.objectness[0].float().sigmoid(), output.quality[0].float().sigmoid()

    @torch.inference_mode()
    def _encode(self, view: int) -> Encoded:
        if view not in self._encoded:
            self._encoded[view] = self.student.net.encode(
                square(self.image, self.windows[view], self.student.settings.test_input).to(self.student.device)
            )
        return self._encoded[view]


def square(image: np.ndarray, window: Window, side: int) -> Tensor:
    """Float32 (1, 3, side, side) in 0..1 of a window of an image, uint8 (H, W, 3)."""
    y, x, height, width = window
    picture = Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR, (x, y, x + width, y + height))
    return torch.from_numpy(np.asarray(picture, np.float32).transpose(2, 0, 1)[None] / 255)


# -- files ----------------------------------------------------------------------------------------------


def build(settings: StudentSettings) -> StudentNet:
    """The network with random weights of the settings' seed (the encoder's own where a file of weights is named)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return StudentNet(settings.architecture, None if settings.encoder == "conv" else _timm_encoder(settings))


def _timm_encoder(settings: StudentSettings) -> nn.Module:
    from uss_dagster.student.encoders import TimmEncoder

    return TimmEncoder(settings.encoder, settings.architecture.stride)


def read_config(folder: Path) -> tuple[dict[str, Any], StudentSettings]:
    """The ``config.json`` of a student and its settings; of anything else, a refusal."""
    path = folder / CONFIG
    if not path.is_file():
        pickles = (
            [p.name for p in sorted(folder.glob("*")) if p.suffix in (".pt", ".pth", ".bin", ".pkl", ".ckpt")] if folder.is_dir() else []
        )
        hint = f" It has {pickles[0]}, a pickle, which is never loaded since it could run any code." if pickles else ""
        raise BadData(f"'{folder}' is not a student: it has no {CONFIG}.{hint} Pass a folder that `uss train student` wrote.")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if config["format"] != FORMAT:
            raise ValueError(f"its format is {config['format']!r}")
        known = StudentSettings(**config["settings"])
    except (ValueError, KeyError, TypeError, UsageError) as error:
        raise BadData(
            f"'{path}' is not the config of a student of this version ({error}). Pass a folder that `uss train student` wrote."
        ) from None
    return config, known


def fill(net: StudentNet, data: bytes, path: Path) -> None:
    """Fill a network from the bytes of a safetensors file; other names or shapes are refused."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        state = load(data)
    except SafetensorError as error:
        raise BadData(f"'{path}' is not a readable safetensors file ({error}). Copy or train it again; pickles are never loaded.") from None
    expected = net.state_dict()
    wrong = sorted(
        name
        for name in expected.keys() | state.keys()
        if name not in state or name not in expected or state[name].shape != expected[name].shape
    )
    if wrong:
        raise BadData(
            f"'{path}' is not of this network: {len(wrong)} of its tensors differ, such as '{wrong[0]}'. Choose the weights that belong to {CONFIG}."
        )
    net.load_state_dict(state)

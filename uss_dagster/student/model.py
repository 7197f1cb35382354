"""A trained student: it segments whole images and answers clicks. Also its files: ``model.safetensors`` and ``config.json``.

The config names the SHA-256 of the weights, and a file with another one is refused. Only safetensors files are read, so no file can run code.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pycocotools import mask as coco
from torch import Tensor

from uss_dagster.errors import BadData, UsageError
from uss_dagster.graphs.mask_nms import mask_nms
from uss_dagster.regions import rle
from uss_dagster.regions.coded import CodedRegions
from uss_dagster.regions.rle import coco_codes
from uss_dagster.runtime import torch_device
from uss_dagster.student import prediction
from uss_dagster.student.net import Encoded, Output, StudentNet
from uss_dagster.student.prompt_input import Box, Point, Prompt
from uss_dagster.student.prompts import Prompts
from uss_dagster.student.settings import StudentConfig, StudentSettings

Auto = Literal["queries", "grid", "union"]
WEIGHTS, CONFIG = "model.safetensors", "config.json"
FORMAT = "uss_dagster student 2"
CLICKS_AT_ONCE = 64
"""Clicks of a grid that are decoded at once."""
CUT_FACTOR = 0.5
"""Factor on the score of a mask that its window cuts: the same object seen whole in another window is better."""
REPEAT = 0.8
"""IoU above which two answers to a click are the same."""


@dataclass(frozen=True)
class Answer:
    """A mask at a click.

    Parameters
    ----------
    shape : tuple of int
        (height, width) of the image.
    code : bytes
        COCO run-length code.
    quality : float
        The IoU that the student expects of the mask, in 0..1.
    """

    shape: tuple[int, int]
    code: bytes
    quality: float

    def mask(self) -> np.ndarray:
        """Bool (H, W)."""
        return rle.decode(self.code, *self.shape)


class Student:
    """A network with its settings.

    Parameters
    ----------
    net : StudentNet
    settings : StudentSettings
    device : str, default 'cpu'
        cpu, cuda, cuda:1 or auto.
    digest : str, default ''
        SHA-256 of the weights file, if there is one.

    Examples
    --------
    >>> student = Student.load("student")  # doctest: +SKIP
    >>> regions = student.segment(image, auto="union", split=4)  # doctest: +SKIP
    >>> answers = student.encode(image).click(120, 80)  # doctest: +SKIP
    >>> answers = student.encode(image).prompt([(120, 80), (30, 40)], labels=[1, 0])  # doctest: +SKIP
    """

    def __init__(self, net: StudentNet, settings: StudentSettings, device: str = "cpu", digest: str = "") -> None:
        self.device = torch_device(device)
        self.net = net.to(self.device).eval()
        self.settings, self.digest = settings, digest

    @classmethod
    def load(cls, folder: str | os.PathLike[str], device: str = "cpu") -> Student:
        """Load a student from the folder that training wrote.

        Parameters
        ----------
        folder : path
            It holds ``model.safetensors`` and ``config.json``.
        device : str, default "cpu"
            cpu, cuda, cuda:1 or auto.

        Returns
        -------
        Student
            Ready to segment and to answer clicks.

        Raises
        ------
        BadData
            If the folder has no student, or the weights do not belong to the config.
        """
        folder = Path(folder)
        config, settings = read_config(folder)
        data = (folder / WEIGHTS).read_bytes() if (folder / WEIGHTS).is_file() else b""
        digest = hashlib.sha256(data).hexdigest()
        if digest != config.get("sha256"):
            problem = "is not the file that its config.json was written for" if data else "is missing"
            raise BadData(f"'{folder / WEIGHTS}' {problem}: copy the whole folder again, or train anew.")
        net = build(settings)
        load_weights(net, data, folder / WEIGHTS)
        return cls(net, settings, device, digest)

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
    ) -> prediction.ScoredMasks:
        """The masks of an image, best first.

        Parameters
        ----------
        image : uint8 array of shape (height, width, 3)
        auto : {'queries', 'grid', 'union'}, default 'union'
            'queries' decodes the learned queries, in one pass; 'grid' clicks on a grid of points; 'union' does both.
        most : int, default 1000
            Greatest number of masks.
        min_score : float, default 0.0
            Least score, 0..1.
        grid : int, default 12
            Points along a side of the grid.
        split : int, default 1
            1 segments the whole image; s also s × s overlapping windows, s / 2 × s / 2 windows and so on, which finds small objects. 1 to 8.
        snap : bool, default True
            Masks end where colours change, see ``prediction.Leaves``.
        min_stability : float, default 0.0
            Least IoU of a mask with itself when its threshold moves by one logit, 0..1.
        iou : float, default 0.8
            Of two masks with a greater IoU, the better one stays.
        """
        encoded = self.encode(image, split, snap)
        parts = [encoded.masks(view, auto, grid, min_score, min_stability, iou) for view in range(len(encoded.windows))]
        masks = prediction.ScoredMasks(
            encoded.shape,
            [code for part in parts for code in part.codes],
            np.concatenate([part.score for part in parts]),
            [name for part in parts for name in part.source],
        )
        # Masks of two windows, or snapped to the same leaves, may be alike even if the masks of each window are not.
        bound = iou if snap or len(parts) > 1 else 1.0
        keep = mask_nms(masks.codes, masks.score, bound) if masks.codes else np.zeros(0, np.int64)
        return masks.select(keep[:most])

    def segment(self, image: np.ndarray, auto: Auto = "union", most: int = 300, min_score: float = 0.0, **options: Any) -> CodedRegions:
        """The masks of an image as a tree, see ``prediction.nest``; parameters as in ``masks``."""
        return prediction.nest(self.masks(image, auto, most, min_score, **options))

    def encode(self, image: np.ndarray, split: int = 1, snap: bool = True) -> EncodedImage:
        """Encode an image once for any number of clicks; parameters as in ``masks``."""
        return EncodedImage(self, image, split, snap)


class EncodedImage:
    """An image for a student: the whole and windows of it, each encoded when it is first needed for any number of prompts.

    Parameters
    ----------
    student : Student
    image : uint8 array of shape (height, width, 3)
    split, snap
        See ``Student.masks``.

    Raises
    ------
    BadData
        If the image has another shape or type.
    UsageError
        If ``split`` is out of range.
    """

    def __init__(self, student: Student, image: np.ndarray, split: int = 1, snap: bool = True) -> None:
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise BadData(f"A student looks at images uint8 (height, width, 3), got {image.dtype} {image.shape}.")
        if not 1 <= split <= 8:
            raise UsageError(f"split is {split}, expected 1 (the whole image alone) to 8 windows along a side.")
        self.student, self.image = student, image
        self.shape = image.shape[0], image.shape[1]
        self._levels = prediction.pyramid(self.shape, split)
        self.windows: list[prediction.Window] = [window for level in self._levels for window in level]
        self._leaves = prediction.Leaves(image) if snap else None
        self._encoded: dict[int, Encoded] = {}

    def click(self, x: float, y: float, granularity: float | None = None) -> list[Answer]:
        """The masks at the pixel in column x and row y, best first, at most one a grain; see ``prompt``."""
        return self.prompt([(x, y)], granularity=granularity)

    def prompt(
        self,
        points: Sequence[Point] = (),
        labels: Sequence[int] | None = None,
        box: Sequence[float] | None = None,
        mask: np.ndarray | Answer | None = None,
        granularity: float | None = None,
    ) -> list[Answer]:
        """The masks of one object.

        Parameters
        ----------
        points : sequence of (x, y)
            Columns and rows of pixels.
        labels : sequence of int, optional
            1 for each positive point, 0 for each negative one. Default: all are positive.
        box : sequence of 4 float, optional
            Left, top, right and bottom: the pixels in two opposite corners.
        mask : Answer or array of shape (height, width), optional
            A previous answer to refine; pixels above 0 belong to it.
        granularity : float, optional
            0 for the smallest part to 1 for the whole: the one answer whose side (the root of its area) is nearest to that place between the smallest
            and the largest answer. Answers of less than half of the best quality are not considered.

        Returns
        -------
        list of Answer
            Best first, at most one a grain; repetitions of a better one (``REPEAT``) are left out. Of two or more points, answers that agree
            with more of them come first.

        Raises
        ------
        UsageError
            If nothing says where the object is, or something of it is not in the image.
        """
        previous = mask.mask() if isinstance(mask, Answer) else mask
        return self.ask(Prompt.of(points, labels, box, None if previous is None else np.asarray(previous)), granularity)

    def ask(self, prompt: Prompt, granularity: float | None = None) -> list[Answer]:
        """The masks of one object, see ``prompt``."""
        prompt.check(self.shape)
        if granularity is not None and not 0 <= granularity <= 1:
            raise UsageError(f"granularity is {granularity:g}, expected 0 (the smallest part) to 1 (the whole).")
        codes: list[bytes] = []
        quality: list[float] = []
        for view in self._views_of(prompt.extent(self.shape)):
            window = self.windows[view]
            encoded = self._encode(view)
            height, width = encoded.pixels.shape[-2:]
            logits, _, view_quality = self._decode(view, prompt.in_window(window, (height, width)), learned=False)
            codes += prediction.encode_masks(logits, window, self.shape, self._leaves)
            quality += view_quality.tolist()
        if granularity is not None:
            return self._of_granularity(self._best(codes, np.array(quality), len(codes)), granularity)
        answers = self._best(codes, np.array(quality), self.student.net.shape.grains)
        return sorted(answers, key=lambda answer: -prompt.agreement(answer.mask())) if len(prompt.points) > 1 else answers

    def clicks(self, points: np.ndarray) -> list[list[Answer]]:
        """The answers to P clicks. points: float array of shape (P, 2), columns and rows of pixels."""
        net = self.student.net
        grains = net.shape.grains
        codes: list[list[bytes]] = [[] for _ in points]
        quality: list[list[float]] = [[] for _ in points]
        for view, indices in self._best_views(points):
            y, x, h, w = self.windows[view]
            in_window = ((points[indices] + 0.5 - (x, y)) / (w, h)).astype(np.float32)
            logits, _, view_quality = self._decode(view, clicks_on(in_window), learned=False)
            view_codes = prediction.encode_masks(logits, self.windows[view], self.shape, self._leaves)
            for i, index in enumerate(indices.tolist()):
                codes[index] += view_codes[i * grains : (i + 1) * grains]
                quality[index] += view_quality[i * grains : (i + 1) * grains].tolist()
        return [self._best(c, np.array(q), grains) for c, q in zip(codes, quality, strict=True)]

    def masks(self, view: int, auto: Auto, grid: int, min_score: float, min_stability: float, iou: float) -> prediction.ScoredMasks:
        """The masks of one window; parameters as in ``Student.masks``. view: index of the window."""
        if auto not in ("queries", "grid", "union"):
            raise UsageError(f"auto is '{auto}', expected queries, grid or union.")
        parts: list[tuple[Tensor, Tensor, str]] = []
        if auto != "grid":
            logits, objectness, quality = self._decode(view, None, learned=True)
            parts.append((logits, objectness * quality, "query"))
        if auto != "queries":
            centres = (np.arange(grid) + 0.5) / grid
            points = np.stack([np.tile(centres, grid), np.repeat(centres, grid)], 1).astype(np.float32)
            for start in range(0, len(points), CLICKS_AT_ONCE):
                logits, _, quality = self._decode(view, clicks_on(points[start : start + CLICKS_AT_ONCE]), learned=False)
                parts.append((logits, quality, "click"))
        logits, score = torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
        names = np.repeat([part[2] for part in parts], [len(part[0]) for part in parts])
        score = torch.where(prediction.cut_by_window(logits, self.windows[view], self.shape), CUT_FACTOR * score, score)
        good = score >= min_score
        if min_stability > 0:
            good &= prediction.stability(logits) >= min_stability
        candidates = torch.nonzero(good)[:, 0]
        keep = candidates[prediction.suppress(logits[candidates], score[candidates], iou)]
        codes = prediction.encode_masks(logits[keep], self.windows[view], self.shape, self._leaves)
        return prediction.ScoredMasks(self.shape, codes, score[keep].cpu().numpy().astype(np.float32), names[keep.cpu().numpy()].tolist())

    def _best_views(self, points: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """(window, indices of points): at every level, each point goes to the window whose centre is nearest, relative to its size."""
        views: list[tuple[int, np.ndarray]] = []
        first = 0
        for windows in self._levels:
            boxes = np.array(windows, np.float64)
            middle, half = boxes[:, 1::-1] + boxes[:, :1:-1] / 2, boxes[:, :1:-1] / 2
            nearest = np.abs((points[:, None] + 0.5 - middle) / half).max(axis=2).argmin(axis=1)
            views += [(first + int(place), np.flatnonzero(nearest == place)) for place in np.unique(nearest)]
            first += len(windows)
        return views

    def _best(self, codes: Sequence[bytes], quality: np.ndarray, most: int) -> list[Answer]:
        """The best answers without repetitions."""
        best: list[int] = []
        coded = coco_codes(codes, self.shape)
        overlap = np.asarray(coco.iou(coded, coded, [0] * len(coded)))
        area = rle.areas(codes, *self.shape)
        for i in np.argsort(-quality, kind="stable").tolist():
            if area[i] and len(best) < most and not any(overlap[i, j] > REPEAT for j in best):
                best.append(i)
        return [Answer(self.shape, codes[i], float(quality[i])) for i in best]

    def _views_of(self, extent: Box) -> list[int]:
        """The windows for one prompt: at every level the one whose centre is nearest to that of the prompt, if it holds all of it."""
        left, top, right, bottom = extent
        middle = np.array([[(left + right) / 2, (top + bottom) / 2]])
        views = [view for view, _ in self._best_views(middle)]
        holds = [x <= left and y <= top and right < x + w and bottom < y + h for y, x, h, w in (self.windows[view] for view in views)]
        return [view for view, whole in zip(views, holds, strict=True) if whole]

    def _of_granularity(self, answers: list[Answer], granularity: float) -> list[Answer]:
        """The answer at a granularity, see ``prompt``."""
        good = [answer for answer in answers if answer.quality >= answers[0].quality / 2]
        if not good:
            return []
        side = np.sqrt(rle.areas([answer.code for answer in good], *self.shape))
        place = (side - side.min()) / max(float(np.ptp(side)), 1e-9)
        return [good[int(np.abs(place - granularity).argmin())]]

    @torch.inference_mode()
    def _decode(self, view: int, prompts: Prompts | None, learned: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Mask logits (N, h, w), objectness (N,) and quality (N,) in 0..1 of the learned queries, or of prompts on the window."""
        asked = None if prompts is None else prompts.to(self.student.device)
        output: Output = self.student.net.decode(self._encode(view), asked, learned, deep=False)[-1]
        return output.masks[0].float(), output.objectness[0].float().sigmoid(), output.quality[0].float().sigmoid()

    @torch.inference_mode()
    def _encode(self, view: int) -> Encoded:
        if view not in self._encoded:
            pixels = prediction.window_pixels(self.image, self.windows[view], self.student.settings.test_input)
            self._encoded[view] = self.student.net.encode(torch.from_numpy(pixels).to(self.student.device))
        return self._encoded[view]


def clicks_on(points: np.ndarray) -> Prompts:
    """Prompts of one positive point each on one image. points: float32 (P, 2) in 0..1."""
    return Prompts.clicks(torch.from_numpy(points)[None])


# -- files ----------------------------------------------------------------------------------------------


def build(settings: StudentSettings) -> StudentNet:
    """The network with random weights, drawn with the settings' seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        if settings.encoder == "conv":
            return StudentNet(settings.architecture)
        from uss_dagster.student.encoders import TimmEncoder

        shape = settings.architecture
        return StudentNet(shape, TimmEncoder(settings.encoder, shape.stride, shape.dim, settings.tune == "frozen"))


def read_config(folder: Path) -> tuple[StudentConfig, StudentSettings]:
    """The ``config.json`` of a student, and its settings.

    Raises
    ------
    BadData
        If the folder has no student of this version.
    """
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
            raise ValueError(f"its format is {config['format']!r}, expected '{FORMAT}'")
        return config, StudentSettings(**config["settings"])
    except (ValueError, KeyError, TypeError, UsageError) as error:
        raise BadData(
            f"'{path}' is not the config of a student of this version ({error}). Train it again, or pass another folder that `uss train student` wrote."
        ) from None


def load_weights(net: StudentNet, data: bytes, path: Path) -> None:
    """Load the bytes of a safetensors file into a network.

    Raises
    ------
    BadData
        If it is no safetensors file, or has other names or shapes. path: of the file, for the message.
    """
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

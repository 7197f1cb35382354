"""Make ``import timm``, ``transformers`` and ``diffusers`` work beside a torchvision whose compiled part does not fit torch.

The torchvision wheel on the common registry is built for CUDA. Beside a CPU-only torch its shared library does not
load, ``import torchvision`` then fails on an operator that was never registered, and everything that imports it fails too.
Nothing here needs those operators, only the Python side (transforms), so it is enough to declare their names.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

_NAMES_ONLY: list[Any] = []
"""Holds the operator library made below: torch forgets its declarations when it is collected."""


def ensure_torchvision() -> str:
    """Call before importing timm, transformers or diffusers. Returns what was found.

    'loaded': torchvision is imported already. 'absent': not installed. 'native': its compiled part loads, nothing to do.
    'names only': two operators were declared without an implementation (calling one raises, importing works).
    """
    if "torchvision" in sys.modules:
        return "loaded"
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return "absent"
    if _NAMES_ONLY:
        return "names only"

    import torch

    folder = Path(next(iter(spec.submodule_search_locations)))
    for compiled in sorted(p for pattern in ("_C*.so", "_C*.pyd", "_C*.dylib") for p in folder.glob(pattern)):
        try:
            torch.ops.load_library(str(compiled))
        except (OSError, ImportError):
            continue
        return "native"
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _NAMES_ONLY.append(library)
    return "names only"

"""Figures that papers report, for orientation beside the leaderboard; nothing here was measured by this project.

Belongs here: numbers with their source, under the name of the metric whose convention they follow. Does not belong here: anything
ranked against measured rows. Images, sizes and post-processing differ from paper to paper, so even equal conventions are not
equal experiments.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Values = Mapping[str, float]


@dataclass(frozen=True)
class Published:
    """One row of a paper's table. values: dataset adapter → metric → fraction (VOI: bits). source: where it can be looked up."""

    title: str
    setting: str
    source: str
    values: Mapping[str, Values]
    supervised: bool = False


def _percent(**values: float) -> Values:
    return {name: round(value / 100, 6) for name, value in values.items()}


def _bsds(covering: tuple[float, float, float], pri: tuple[float, float], voi: tuple[float, float]) -> Mapping[str, Values]:
    names = ("covering_ods", "covering_ois", "covering_best", "pri_ods", "pri_ois", "voi_ods", "voi_ois")
    return {"bsds500": {f"bsds_{name}": value for name, value in zip(names, (*covering, *pri, *voi), strict=True)}}


_HIERARCHY_AGNOSTIC = "Rossetti and Pirri, Hierarchy-Agnostic Unsupervised Segmentation, NeurIPS 2024, the authors' slides"
_PMI = "Isola et al., Crisp Boundary Detection Using Pointwise Mutual Information, ECCV 2014, the authors' listing"
_TEST = "BSDS500 test, all 200 images"


def _flat(miou: float, pacc: float, macc: float, fiou: float, covering: float) -> Values:
    return _percent(miou=miou, pacc=pacc, macc=macc, fiou=fiou, nm_covering_flat=covering)


def _tree(miou: float, pacc: float, nm: float, nh: float) -> Values:
    return _percent(miou_tree=miou, pacc_tree=pacc, nm_covering=nm, nh_covering=nh)


PUBLISHED: tuple[Published, ...] = (
    Published(
        "gPb-owt-ucm",
        _TEST,
        "Arbeláez et al., TPAMI 33(5), 2011; the result files distributed with the benchmark",
        _bsds((0.588372, 0.646755, 0.744147), (0.827263, 0.855517), (1.68955, 1.47504)),
        supervised=True,
    ),
    Published("PMI, crisp boundaries, accurate", _TEST, _PMI, _bsds((0.61, 0.66, 0.76), (0.83, 0.86), (1.58, 1.42))),
    Published("PMI, crisp boundaries, speedy", _TEST, _PMI, _bsds((0.59, 0.64, 0.74), (0.82, 0.85), (1.70, 1.51))),
    Published(
        "Hierarchy-agnostic, granularity-agnostic table",
        "DINOv2 ViT-B/14, patch grid",
        f"{_HIERARCHY_AGNOSTIC}, table 1",
        {
            "voc2012": _flat(78.1, 82.6, 91.2, 78.1, 75.4),
            "coco": _flat(55.7, 93.1, 85.0, 78.8, 49.6),
            "coco_stuff": _flat(58.7, 81.1, 80.3, 67.3, 42.1),
            "cityscapes": _flat(48.8, 82.8, 76.1, 68.8, 44.8),
            "kitti_step": _flat(51.2, 79.8, 76.5, 65.7, 48.4),
            "mapillary": _flat(47.6, 78.9, 72.1, 66.1, 42.7),
            "potsdam": _flat(58.9, 83.4, 83.2, 65.0, 56.3),
        },
    ),
    Published(
        "Hierarchy-agnostic, hierarchical table",
        "DINOv2 ViT-B/14, patch grid",
        f"{_HIERARCHY_AGNOSTIC}, table 2",
        {
            "coco_stuff": _tree(59.5, 75.1, 53.5, 42.9),
            "cityscapes": _tree(53.7, 78.8, 51.1, 43.8),
            "kitti_step": _tree(58.3, 79.6, 54.2, 46.5),
            "pascal_part": _tree(25.8, 80.0, 39.5, 38.8),
            "part_imagenet": _tree(55.4, 79.5, 65.8, 65.2),
            "part_imagenet158": _tree(59.5, 82.6, 67.8, 63.1),
        },
    ),
    Published(
        "SE-OWT-UCM",
        "patch grid",
        f"{_HIERARCHY_AGNOSTIC}, table 4",
        {
            "voc2012": _percent(miou=48.4, pacc=83.0, nm_covering_flat=59.0),
            "coco_stuff": _percent(miou_tree=30.7, nm_covering=43.0, nh_covering=32.9),
        },
        supervised=True,
    ),
    Published(
        "PMI-OWT-UCM",
        "patch grid",
        f"{_HIERARCHY_AGNOSTIC}, table 4",
        {
            "voc2012": _percent(miou=47.0, pacc=86.5, nm_covering_flat=61.3),
            "coco_stuff": _percent(miou_tree=27.5, nm_covering=43.2, nh_covering=23.1),
        },
    ),
    Published(
        "Hierarchy-agnostic, with CRF",
        "DINOv2 ViT-B/14",
        f"{_HIERARCHY_AGNOSTIC}, table 4",
        {
            "voc2012": _percent(miou=80.3, pacc=87.3, nm_covering_flat=76.8),
            "coco_stuff": _percent(miou_tree=59.9, nm_covering=55.6, nh_covering=43.9),
        },
    ),
)


def published_rows(kind: str, metrics: Collection[str]) -> Iterator[dict[str, Any]]:
    """Rows for a dataset of this adapter that have a value of these metrics: title, setting, source, supervised, values."""
    for row in PUBLISHED:
        values = {m: v for m, v in row.values.get(kind, {}).items() if m in metrics}
        if values:
            yield {"title": row.title, "setting": row.setting, "source": row.source, "supervised": row.supervised, "values": values}

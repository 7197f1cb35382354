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


_COMUS = "one matching for the dataset by IoU, background one of the classes"
_STEGO = "one matching for the dataset, Hungarian"
_CAUSE = "the repository of Kim et al., Causal Unsupervised Semantic Segmentation, 2023"
_TRANSFGU = "the repository of Yin et al., TransFGU, ECCV 2022"
_PRIMAPS = "the repository of Hahn et al., PriMaPs, 2024"
_ARCHIVE = "as archived by Papers with Code"


def _stego(miou: float, accuracy: float | None = None) -> Values:
    return _percent(stego_miou=miou) if accuracy is None else _percent(stego_miou=miou, stego_accuracy=accuracy)


def _cause(backbone: str, voc: float, stuff: Values, cityscapes: Values) -> Published:
    """COCO-Stuff in 27 classes, Cityscapes in 27. Far above others of the same backbone; the evaluation differs in detail from STEGO's."""
    values = {"voc2012": _stego(voc), "coco_stuff": stuff, "cityscapes": cityscapes}
    return Published("CAUSE-TR", f"{backbone}; COCO-Stuff and Cityscapes in 27 classes; {_STEGO}", _CAUSE, values)


PUBLISHED: tuple[Published, ...] = (
    Published(
        "MaskContrast, unsupervised saliency",
        f"ResNet-50, trained; {_COMUS}",
        "the repository of Van Gansbeke et al., ICCV 2021",
        {"voc2012": _percent(comus_miou=35.0)},
    ),
    Published(
        "MaskContrast, supervised saliency",
        f"ResNet-50, trained; {_COMUS}",
        "the repository of Van Gansbeke et al., ICCV 2021",
        {"voc2012": _percent(comus_miou=44.2)},
        supervised=True,
    ),
    Published(
        "MaskDistill",
        f"DINO and ResNet-50, trained; {_COMUS}",
        f"Van Gansbeke et al., 2022, {_ARCHIVE}",
        {"voc2012": _percent(comus_miou=45.8)},
    ),
    Published(
        "MaskDistill, with CRF",
        f"DINO and ResNet-50, trained; {_COMUS}",
        f"Van Gansbeke et al., 2022, {_ARCHIVE}",
        {"voc2012": _percent(comus_miou=48.9)},
    ),
    Published(
        "COMUS",
        f"DINO ViT-S/8 and ResNet-50, trained; COCO in 80 things and background; {_COMUS}",
        "Zadaianchuk et al., ICLR 2023, abstract",
        {"voc2012": _percent(comus_miou=50.0), "coco": _percent(comus_miou=19.6)},
    ),
    Published(
        "TransFGU",
        f"DINO ViT-S, trained; COCO-Stuff and Cityscapes in 27 classes; {_STEGO} (assumed)",
        _TRANSFGU,
        {"voc2012": _stego(37.15, 83.59), "coco_stuff": _stego(16.19, 44.52), "cityscapes": _stego(16.83, 77.92)},
    ),
    Published(
        "STEGO",
        f"DINO ViT-B/8, trained; COCO-Stuff and Cityscapes in 27 classes; 320-pixel crop, flip and CRF; {_STEGO}",
        f"Hamilton et al., ICLR 2022, {_ARCHIVE}",
        {"coco_stuff": _stego(28.2, 56.9), "cityscapes": _stego(21.0, 73.2)},
    ),
    Published(
        "PriMaPs-EM with an earlier method",
        f"DINO ViT-B/8, trained; COCO-Stuff and Cityscapes in 27 classes; {_STEGO}",
        _PRIMAPS,
        {"coco_stuff": _stego(29.7, 57.9), "cityscapes": _stego(21.6, 78.6)},
    ),
    Published(
        "PriMaPs-EM",
        f"DINOv2 ViT-B/14, trained; COCO-Stuff and Cityscapes in 27 classes; {_STEGO}",
        _PRIMAPS,
        {"coco_stuff": _stego(23.6), "cityscapes": _stego(21.3)},
    ),
    Published(
        "U2Seg",
        f"ResNet-50, trained; COCO-Stuff in 27 classes; {_STEGO}",
        f"Niu et al., CVPR 2024, {_ARCHIVE}",
        {"coco_stuff": _stego(30.2, 63.9)},
    ),
    _cause("DINO ViT-B/8, trained", 53.3, _stego(41.9, 74.9), _stego(28.0, 90.8)),
    _cause("DINOv2 ViT-B/14, trained", 53.2, _stego(45.3, 78.0), _stego(29.9, 89.8)),
    _cause("iBOT ViT-B/16, trained", 53.4, _stego(39.5), _stego(23.0)),
    Published(
        "CAUSE-TR",
        f"DINO ViT-S/8, trained; COCO in 80 things and background; {_STEGO}",
        _CAUSE,
        {"coco": _stego(21.2)},
    ),
    Published(
        "DiffCut",
        "SSD-1B, not trained; COCO-Stuff in 27 classes; every image is matched to its own ground truth, which is easier",
        "Couairon et al., NeurIPS 2024, as collected by SotaVerified",
        {"coco_stuff": _percent(oracle_diffcut_miou=49.1)},
    ),
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
            "mapillary_vistas": _flat(47.6, 78.9, 72.1, 66.1, 42.7),
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
            "partimagenet": _tree(55.4, 79.5, 65.8, 65.2),
            "partimagenet_158": _tree(59.5, 82.6, 67.8, 63.1),
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

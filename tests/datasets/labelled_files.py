"""Small files in official layouts, and what every test of a data set of label maps asks of it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from uss_dagster.artifacts.gate import valid_regions
from uss_dagster.artifacts.image_files import decode
from uss_dagster.artifacts.tables import regions_to_table
from uss_dagster.datasets.base import Example
from uss_dagster.datasets.formats.class_trees import Classes
from uss_dagster.datasets.formats.label_maps import regions_of_nodes
from uss_dagster.metrics.base import Truth
from uss_dagster.metrics.covering import Covering, tree_covering
from uss_dagster.regions import ClassTree, Regions


def sample(name: str) -> Path:
    """The folder of a real sample pack; skips where there is none."""
    root = os.environ.get("USS_MIRROR")
    if not root or not (Path(root) / name).is_dir():
        pytest.skip(f"NOT TESTED on real {name} data: set USS_MIRROR to a folder that holds {name}/.")
    return Path(root) / name


def checksums(pack: Path) -> set[str]:
    """The sha256 of every file of a pack, from its listing."""
    return {line.split()[0] for line in (pack / "SHA256SUMS").read_text().splitlines()}


def is_as_released(example: Example, released: set[str]) -> bool:
    return hashlib.sha256(example.image).hexdigest() in released


def write_picture(path: Path, height: int, width: int, seed: int = 0) -> bytes:
    """A picture of its own (no two are byte-equal), in the format that its suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng((seed, height, width, *path.stem.encode())).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path.read_bytes()


def write_labels(path: Path, labels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels).save(path)


def nodes_of(truth: Regions) -> np.ndarray:
    """Int32 (H, W): the class-tree node of each pixel, from the deepest region that holds it."""
    return truth.label[truth.deepest()]


def labels_of(truth: Regions, classes: Classes) -> np.ndarray:
    """The official label map again, where no class has two labels."""
    label = np.full(len(classes.tree), -1)
    for number, node in classes.node.items():
        label[node] = number
    return label[nodes_of(truth)]


def check_tree(example: Example, classes: ClassTree) -> None:
    """The truth is one valid tree of nested regions over the whole image, as its class tree nests."""
    truth = example.truth
    assert truth.shape == decode(example.image, example.image_id).shape[:2]
    assert list(valid_regions([regions_to_table(example.image_id, truth)], overlap=False)) == []
    assert truth.label[0] == 0
    assert truth.area[0] == truth.atoms.size
    assert (truth.parent[1:] >= 0).all()
    for region in range(1, len(truth)):
        assert truth.label[truth.parent[region]] == classes.parent[truth.label[region]], "regions nest as their classes do"


def check_perfect_scores(truth: Regions, classes: ClassTree) -> tuple[Covering, Covering]:
    """A prediction that is the tree of the classes themselves scores 1, but for the printed formula, in which a class that looks as the one
    above it counts once for both: 1/2 at depth 2, less below."""
    perfect = regions_of_nodes(nodes_of(truth), Classes(classes, {}))
    expected = Truth("classes", truth, classes)
    code, formula = tree_covering(expected, perfect), tree_covering(expected, perfect, mode="formula")
    assert code.nm == code.nh == formula.nm == 1
    kinds = np.asarray(classes.kind)
    valid = kinds[nodes_of(truth)] != 2
    shape_of = {node: (valid & classes.ancestors[node][nodes_of(truth)]).tobytes() for node in code.gt_nodes.tolist() if node >= 0}
    shares = []
    for node in code.gt_nodes.tolist():
        line = [above for above in shape_of if node >= 0 and classes.ancestors[above, node]]
        shares.append(len({shape_of[above] for above in line}) / len(line) if node >= 0 else 1.0)
    assert formula.nh == pytest.approx(np.mean(shares))
    return code, formula

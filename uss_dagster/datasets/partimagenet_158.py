"""PartImageNet with its 158 ImageNet classes; scene → kind of object → class → part.

Which of the 11 kinds a class belongs to is read from the release: it is the kind of most part annotations of its images. An image's class
is that of its file name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from uss_dagster.datasets import partimagenet
from uss_dagster.datasets.base import Example, dataset_spec
from uss_dagster.datasets.formats.class_trees import Classes, Nested
from uss_dagster.datasets.formats.label_maps import nodes_of_label_map, regions_of_nodes
from uss_dagster.errors import BadData
from uss_dagster.regions import ClassTree


@dataclass(frozen=True)
class Params(partimagenet.Params):
    """As those of ``partimagenet``."""


SPEC = dataset_spec(__file__, Params, None)


def classes(params: Params) -> Classes:
    """The class tree of the release that these parameters read."""
    return _tree(params)


def examples(params: Params) -> Iterator[Example]:
    """Images of the split by ascending id, as released; truth is the tree of regions. Parts that the image's class cannot have are void."""
    labelled = _tree(params)
    names = labelled.tree.names
    for one in partimagenet.labelled_images(params.split, params.limit):
        what = f"PartImageNet image {one.image_id}"
        coarse = nodes_of_label_map(one.labels, partimagenet.CLASSES, what)
        node = np.full(len(partimagenet.CLASSES.tree), names.index("void"), np.int32)
        node[partimagenet.CLASSES.node[partimagenet.BACKGROUND_ID]] = names.index("background")
        for part, official in partimagenet.CLASSES.node.items():
            node[official] = labelled.node.get((one.image_id.split("_")[0], part), node[official])
        yield Example(one.image_id, one.image, one.suffix, params.split, regions_of_nodes(node[coarse], labelled))


def _tree(params: Params) -> Classes:
    """Background and void are classes too; labels are pairs (ImageNet class, official part id)."""
    tree, node, kinds = partimagenet.CLASSES.tree, partimagenet.CLASSES.node, _kind_of_class(params)
    names = tree.names
    nested: Nested = {"background": "background", "void": "ignore"}
    part_name: dict[tuple[str, int], str] = {}
    for kind in sorted(set(kinds.values())):
        group = names[kind]
        parts = {part: names[leaf].removeprefix(group).strip() for part, leaf in node.items() if tree.parent[leaf] == kind}
        members = [name for name, own in kinds.items() if own == kind]
        part_name |= {(name, part): f"{name} {short}" for name in members for part, short in parts.items()}
        nested[group] = {name: {part_name[name, part]: "foreground" for part in parts} for name in members}
    finer = ClassTree.from_nested(nested)
    place = {name: number for number, name in enumerate(finer.names)}
    return Classes(finer, {key: place[name] for key, name in part_name.items()})


def _kind_of_class(params: Params) -> dict[str, int]:
    """ImageNet class → its kind of object, a node of partimagenet's class tree, over all annotation files of the release."""
    votes: dict[str, Counter[int]] = {}
    for file in partimagenet.coco_files(params.split):
        ids = partimagenet.official_ids(file)
        for picture in file.pictures:
            name = partimagenet.image_id_of(picture.file).split("_")[0]
            for annotation in file.annotations(picture.id):
                part = ids.get(annotation.get("category_id", -1))
                if part is not None:
                    votes.setdefault(name, Counter())[partimagenet.CLASSES.tree.parent[partimagenet.CLASSES.node[part]]] += 1
    if not votes:
        raise BadData(f"The annotation files of PartImageNet hold no parts, so no classes. {partimagenet.SPEC.get_it}")
    # of equal numbers the kind that comes first
    return {name: min(count, key=lambda kind: (-count[kind], kind)) for name, count in sorted(votes.items())}

"""LightCluster taken apart: each level alone and all three together, numbers of clusters, facets, rules; one table in Markdown.

    python benchmarks/lightcluster.py [--images 20] [--seeds 5] [--backbone patches] [--parameters JSON] [--only levels,clusters,...] [--voc N]

Drawn scenes with an embedded backbone, or with ``--voc`` the first N images of PASCAL VOC 2012 val in USS_MIRROR. Every row is fitted and
scored once for each seed of the clustering; the images and their features stay the same. Mean ± standard deviation over the seeds:

- foreground IoU: of all objects together against all background, over the dataset; its precision and recall.
- mIoU, one to one: clusters matched to classes once over the dataset by IoU, background one of them (COMUS). Classes are object classes.
- mIoU, oracle class: every region has the class that most of its pixels have; bounds what better labels could give.

Beside the table: how often each branch of the agreement was taken.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from uss_dagster.runtime import quiet_environment

quiet_environment()

import numpy as np  # noqa: E402

from uss_dagster import registry  # noqa: E402
from uss_dagster.backbones.base import Encoder, Features  # noqa: E402
from uss_dagster.datasets.base import Sample  # noqa: E402
from uss_dagster.methods import lightcluster  # noqa: E402
from uss_dagster.methods.lightcluster import Params  # noqa: E402
from uss_dagster.metrics import semantic  # noqa: E402
from uss_dagster.metrics.base import Truth, deepest_value  # noqa: E402
from uss_dagster.regions import ClassTree, Regions  # noqa: E402
from uss_dagster.regions.classes import BACKGROUND, FOREGROUND  # noqa: E402


@dataclass(frozen=True)
class Pictures:
    """Samples, their ground truth in object classes, and how many object classes there are."""

    samples: list[Sample]
    truths: list[Truth]
    classes: int


class Remembered:
    """An encoder that knows what it was asked before: seeds and settings meet the same crops again and again."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._known: dict[bytes, Features] = {}

    def __call__(self, images: list[np.ndarray]) -> list[Features]:
        keys = [image.tobytes() for image in images]
        new = {key: image for key, image in zip(keys, images, strict=True) if key not in self._known}
        for key, found in zip(new, self._encoder(list(new.values())) if new else [], strict=True):
            self._known[key] = Features({"cls": found["cls"]})
        return [self._known[key] for key in keys]


def object_classes(classes: ClassTree) -> tuple[ClassTree, np.ndarray]:
    """The tree with parts joined to their objects, and the new class of each node, int64 (n,), -1 for inner ones and what is ignored."""
    kind, parent = np.asarray(classes.kind), np.asarray(classes.parent)
    children = {int(p) for p, k in zip(parent, kind, strict=True) if k == FOREGROUND}
    # a class tree without parts hangs its leaves below the root or a group; one with parts names them after their object
    parts = {p for p in children if p and all(classes.names[c].startswith(classes.names[p]) for c in np.flatnonzero(parent == p))}
    owner = [int(parent[node]) if int(parent[node]) in parts else node for node in range(len(classes))]
    objects = sorted({owner[node] for node in np.flatnonzero(kind == FOREGROUND)})
    grounds = np.flatnonzero(kind == BACKGROUND).tolist()
    nested = {classes.names[o]: "foreground" for o in objects} | {classes.names[g]: "background" for g in grounds}
    number = {node: 1 + place for place, node in enumerate(objects + grounds)}
    return ClassTree.from_nested(nested), np.array([number.get(owner[node], -1) for node in range(len(classes))])


def load(backbone: str, parameters: dict[str, Any], images: int, voc: bool) -> Pictures:
    from PIL import Image

    module = registry.load("dataset", "voc2012" if voc else "scenes")
    params = module.Params(limit=images) if voc else module.Params(images=images)
    facets = ["tokens", "keys", "cls", "cls_attention"]
    whole = Encoder.of(backbone, {**parameters, "facets": facets})
    crops = Remembered(Encoder.of(backbone, {**parameters, "facets": ["cls"]}))
    tree, new = object_classes(module.SPEC.classes)
    samples, truths = [], []
    for example in module.examples(params):
        image = np.asarray(Image.open(io.BytesIO(example.image)).convert("RGB"))
        found = whole([image])[0]
        half = {facet: found[facet].astype(np.float16 if facet != "cls" else np.float32) for facet in facets}
        samples.append(Sample(example.image_id, image, Features(half, comparable=found.comparable), crops))
        deepest = example.truth.deepest()
        label = np.where(deepest >= 0, new[example.truth.label[deepest]], -1)
        truths.append(Truth("classes", Regions.from_label_map(label, ignore=-1, use_labels=True), tree))
    return Pictures(samples, truths, int(np.count_nonzero(np.asarray(tree.kind) == FOREGROUND)))


def changed(params: Params, **values: object) -> Params:
    """Other parameters, by dotted names with ``__`` in the place of the dot."""
    flat = registry.flat_params(params) | {name.replace("__", "."): value for name, value in values.items()}
    return registry.build_params(Params, registry.nested_params(flat), "lightcluster")


def settings(base: Params) -> Iterator[tuple[str, str, Params]]:
    """(part of the table, name of the row, parameters)."""
    levels = ("image", "category", "dataset", "consistency")
    for level in levels:
        name = f"{level} level alone" if level != "consistency" else "consistency of the three"
        yield "levels", name, changed(base, agreement__mask_from=level)
    yield "levels", "consistency, voted once more", changed(base, agreement__iterate=1)
    twenty = changed(base, categories__min_images=20)
    for level in levels:
        yield "categories", f"at least 20 images, {level}", changed(twenty, agreement__mask_from=level)
    yield "categories", "at least 20 images, consistency, voted once more", changed(twenty, agreement__iterate=1)
    for k in (2, 3, 4):
        clusters = changed(base, clusters__k_dataset=k, clusters__k_category=k)
        for level in levels[1:]:
            yield "clusters", f"K = {k}, {level}", changed(clusters, agreement__mask_from=level)
    for facet in ("keys", "tokens"):
        from_facet = changed(base, patches__facet=facet)
        yield "facets", f"masks from {facet}, classes from class tokens", from_facet
        yield "facets", f"masks and classes from {facet} of patches", changed(from_facet, classes__source="patch_tokens")
    for rule in ("border", "cls_attn", "both"):
        yield "rules", f"foreground by {rule}", changed(base, foreground__rule=rule)
    yield "rules", "vote image by image", changed(base, foreground__vote="per_image")
    yield "rules", "one object an image", changed(base, objects__regions="whole")
    yield "rules", "spectral classes", changed(base, classes__clustering="spectral")
    yield "rules", "mask in place of likeness", changed(base, mask__unary="mask")
    for refine in ("none", "pamr", "crf"):
        yield "refinement", refine, changed(base, mask__refine=refine)


def run(pictures: Pictures, params: Params) -> tuple[dict[str, float], Counter[str]]:
    """Scores of one setting with one seed, in percent, and the branches taken."""
    state = lightcluster.fit(pictures.samples, params)
    together, oracle = semantic.accumulator(), semantic.accumulator()
    branches: Counter[str] = Counter()
    pixels = np.zeros(3)  # marked and object, marked, object
    for sample, truth in zip(pictures.samples, pictures.truths, strict=True):
        regions = lightcluster.segment(sample, params, state)
        branches[regions.source[0]] += 1
        marked, objects = regions.label[regions.deepest()] >= 0, of_objects(truth)
        pixels += (marked & objects).sum(), (marked & (objects | of_grounds(truth))).sum(), objects.sum()
        together.update(sample.image_id, truth, regions)
        oracle.update(sample.image_id, truth, with_true_classes(truth, regions))
    found, bound = together.result(), oracle.result()
    # where fewer clusters than classes came about there is no one-to-one matching; majority is what COMUS then does
    one_to_one = found.get("comus_miou", found.get("comus_majority_miou", 0.0))
    return {
        "foreground IoU": 100 * found.get("foreground_iou", 0.0),
        "precision": 100 * pixels[0] / max(pixels[1], 1),
        "recall": 100 * pixels[0] / max(pixels[2], 1),
        "mIoU, one to one": 100 * one_to_one,
        "mIoU, oracle class": 100 * bound["many_to_one_miou"],
    }, branches


def of_objects(truth: Truth) -> np.ndarray:
    return _of_kind(truth, FOREGROUND)


def of_grounds(truth: Truth) -> np.ndarray:
    return _of_kind(truth, BACKGROUND)


def _of_kind(truth: Truth, kind: int) -> np.ndarray:
    assert truth.classes is not None
    leaf = truth.leaf_classes()
    return (leaf >= 0) & (np.asarray(truth.classes.kind)[leaf] == kind)


def with_true_classes(truth: Truth, regions: Regions) -> Regions:
    """Every labelled region, and the background, with the class that most of its pixels have."""
    assert truth.classes is not None
    column = semantic.class_columns(truth.classes)
    atom = deepest_value(regions, np.arange(len(regions)))
    table, _ = semantic.class_pixels(truth, regions, atom, len(regions))
    label = np.where(table.sum(axis=1) > 0, table.argmax(axis=1), -1)
    label = np.where(label == column.max(), -1, label)
    return regions.labelled(np.arange(len(regions)), label)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--backbone", default="patches")
    parser.add_argument("--parameters", type=json.loads, default={"stride": 8}, help="of the backbone, as JSON")
    parser.add_argument(
        "--crop", type=int, default=112, help="side of the pictures of objects; 224 is the method's own, and four times slower"
    )
    parser.add_argument(
        "--min-group", type=int, default=2, help="images of a category; the method's own 20 leaves fewer than 40 images one"
    )
    parser.add_argument("--only", default="levels,categories,clusters,facets,rules,refinement")
    parser.add_argument("--voc", type=int, default=0, help="so many images of PASCAL VOC 2012 val in place of scenes")
    asked = parser.parse_args()

    begun = time.perf_counter()
    pictures = load(asked.backbone, asked.parameters, asked.voc or asked.images, bool(asked.voc))
    base = changed(
        Params(), classes__count=pictures.classes, categories__min_images=asked.min_group, mask__refine="none", objects__crop=asked.crop
    )
    known: dict[tuple[Params, int], Any] = {}
    where = "VOC 2012 val" if asked.voc else "scenes"
    print(f"{len(pictures.samples)} images of {where}, backbone {asked.backbone}, {pictures.classes} object classes, {asked.seeds} seeds;")
    print(
        f"not refined unless said; groups of fewer than {base.categories.min_images} images are merged, crops of {base.objects.crop} pixels. In percent.\n"
    )
    for part in asked.only.split(","):
        rows = [(name, params) for group, name, params in settings(base) if group == part]
        print(
            f"| {part} | foreground IoU | precision | recall | mIoU, one to one | mIoU, oracle class | branches |\n| --- |{' ---: |' * 5} --- |"
        )
        for name, params in rows:
            for seed in range(asked.seeds):
                if (params, seed) not in known:  # some settings stand in several parts
                    known[params, seed] = run(pictures, replace(params, seed=seed))
            results = [known[params, seed] for seed in range(asked.seeds)]
            cells = []
            for metric in results[0][0]:
                values = [scores[metric] for scores, _ in results]
                cells.append(f"{np.mean(values):.1f} ± {np.std(values):.1f}")
            branches: Counter[str] = sum((taken for _, taken in results), Counter())
            total = sum(branches.values())
            shown = ", ".join(f"{branch} {100 * times / total:.0f} %" for branch, times in branches.most_common(4))
            print(f"| {name} | {' | '.join(cells)} | {shown} |", flush=True)
        print()
    print(f"{time.perf_counter() - begun:.0f} s in all.")


if __name__ == "__main__":
    main()

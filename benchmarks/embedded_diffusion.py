"""Does the embedded diffusion network's attention segment? Diffuse–Walk–Cut on it, on the same network untrained, and on `patches`.

    python benchmarks/embedded_diffusion.py [--scenes 48] [--photos 0] [--series 40001] [--param NAME=VALUE] [--backbone-param NAME=VALUE]

Scenes are of a series that the network was not trained on and that no default was chosen on. *trained*: the weights in the package, or of
``--checkpoint``. *untrained*: a network of the same shape with random weights. *patches*: the local attention of the embedded backbone
without a network. All run with the same parameters of the method. NMCovering and NHCovering are of the full tree; the per-image oracles (one
segment a class, DiffSeg's protocol and the strict one) of the one segmentation that the rule chooses. Differences are paired: the same
resampled images on both sides, 1000 replicates, 95 % intervals. With ``--photos`` (BSDS500 test, lowest numbers, from ``USS_MIRROR``): covering
of the annotators' regions by the best shared scale of the tree (ODS) and by the one segmentation. Prints Markdown.
"""

from __future__ import annotations

import argparse
import io
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from uss_dagster.runtime import quiet_environment

quiet_environment()

import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402

from uss_dagster import registry  # noqa: E402
from uss_dagster.backbones import diffusion, patches  # noqa: E402
from uss_dagster.backbones.base import Features  # noqa: E402
from uss_dagster.commands.parameters import parse_parameters  # noqa: E402
from uss_dagster.datasets import bsds500, scenes  # noqa: E402
from uss_dagster.datasets.base import Example, Sample, mirror_folder  # noqa: E402
from uss_dagster.methods.diffuse_walk_cut import Params, walk_cut  # noqa: E402
from uss_dagster.metrics import bsds, covering, oracle  # noqa: E402
from uss_dagster.metrics.base import Truth, accumulator  # noqa: E402
from uss_dagster.regions import Regions  # noqa: E402

REPLICATES = 1000
SHOWN = {
    "nm_covering": "NMCovering, tree",
    "nh_covering": "NHCovering, tree",
    "oracle_diffseg_miou": "oracle mIoU, DiffSeg",
    "oracle_strict_miou": "oracle mIoU, strict",
}
Extract = Callable[[list[np.ndarray]], list[dict[str, np.ndarray]]]


def untrained(folder: Path) -> str:
    """A folder with a network of the embedded one's shape and random weights."""
    from uss_dagster.backbones.unet.training import Settings, Source, Trainer

    Trainer(np.zeros((1, 8, 8, 3), np.uint8), Settings()).publish(folder, Source("Not trained.", "mit", "benchmarks/embedded_diffusion.py"))
    return str(folder)


def on_scenes(examples: list[Example], extract: Extract, params: Params) -> tuple[dict[str, float], dict[str, np.ndarray], str]:
    """(values, replicates, words on cost) of one source of attention."""
    sums = {family: accumulator(family, REPLICATES) for family in (covering, oracle)}
    seconds, segments = [0.0, 0.0], []
    for example in examples:
        image = np.asarray(Image.open(io.BytesIO(example.image)).convert("RGB"))
        begun = time.perf_counter()
        features = Features(extract([image])[0])
        seconds[0] += time.perf_counter() - begun
        begun = time.perf_counter()
        got = walk_cut(Sample(example.image_id, image, features), params)
        seconds[1] += time.perf_counter() - begun
        segments.append(got.segments)
        truth = Truth("classes", example.truth, scenes.SPEC.classes)
        sums[covering].update(example.image_id, truth, got.regions)
        sums[oracle].update(example.image_id, truth, Regions.from_label_map(got.labels))
    values = {name: value for one in sums.values() for name, value in one.result().items()}
    drawn = [one.replicate_results() for one in sums.values()]
    replicates = {name: np.array([(a | b)[name] for a, b in zip(*drawn, strict=True)]) for name in SHOWN}
    cost = f"{np.mean(segments):.0f} | {seconds[0] / len(examples):.2f} + {seconds[1] / len(examples):.2f}"
    return values, replicates, cost


def on_photos(examples: list[Example], extract: Extract, params: Params) -> tuple[float, float]:
    """(covering of the tree's best shared scale, covering of the one segmentation)."""
    trees, sums = [], np.zeros(2)
    for example in examples:
        image = np.asarray(Image.open(io.BytesIO(example.image)).convert("RGB"))
        got = walk_cut(Sample(example.image_id, image, Features(extract([image])[0])), params)
        trees.append(got.regions)
        scored = bsds.bsds_region(Regions.from_label_map(got.labels, ignore=-1), example.truth, bsds.Scales("depth", (1.0,)))
        sums += scored.cnt[0], scored.sum[0]
    scales = bsds.prepare(trees)
    scores = [bsds.bsds_region(tree, example.truth, scales) for tree, example in zip(trees, examples, strict=True)]
    return float(np.sum([s.cnt for s in scores], axis=0).max() / sum(s.sum[0] for s in scores)), float(sums[0] / sums[1])


def taken(examples: Iterator[Example], how_many: int) -> list[Example]:
    return list(itertools.islice(examples, how_many))


def main() -> None:
    parser = argparse.ArgumentParser(description="Attention of the embedded diffusion network, segmented.")
    parser.add_argument("--scenes", type=int, default=48)
    parser.add_argument("--series", type=int, default=40001)
    parser.add_argument("--photos", type=int, default=0)
    parser.add_argument("--checkpoint", help="another model than the one in the package")
    parser.add_argument("--param", action="append", default=[], help="of the method")
    parser.add_argument("--backbone-param", action="append", default=[], help="of the backbone diffusion")
    arguments = parser.parse_args()
    method = registry.build_params(Params, {"tree": "full", **parse_parameters(arguments.param, Params, "method")}, "method")
    given = {"facets": ("attention", "tokens"), **parse_parameters(arguments.backbone_param, diffusion.Params, "backbone")}

    def network(**place: Any) -> Extract:
        return diffusion.load(registry.build_params(diffusion.Params, given | place, "backbone 'diffusion'"), device="cpu")

    with tempfile.TemporaryDirectory() as folder:
        sources: dict[str, Extract] = {
            "trained": network(checkpoint=arguments.checkpoint) if arguments.checkpoint else network(model="embedded"),
            "untrained": network(checkpoint=untrained(Path(folder))),
            "patches": patches.load(patches.Params(facets=("cls_attention", "attention"))),
        }
        if arguments.scenes:
            examples = taken(scenes.examples(scenes.Params(images=arguments.scenes, seed=arguments.series)), arguments.scenes)
            found = {name: on_scenes(examples, extract, method) for name, extract in sources.items()}
            print(f"{len(examples)} scenes of series {arguments.series}\n")
            print("| attention | " + " | ".join(SHOWN.values()) + " | segments | seconds an image, attention + cut |")
            print("|---|" + "---|" * (len(SHOWN) + 2))
            for name, (values, _, cost) in found.items():
                print(f"| {name} | " + " | ".join(f"{values[key]:.3f}" for key in SHOWN) + f" | {cost} |")
            for other in ("untrained", "patches"):
                cells = []
                for key in SHOWN:
                    low, high = np.percentile(found["trained"][1][key] - found[other][1][key], [2.5, 97.5])
                    cells.append(f"{found['trained'][0][key] - found[other][0][key]:+.3f} ({low:+.3f} to {high:+.3f})")
                print(f"| trained − {other} | " + " | ".join(cells) + " | | |")
        if arguments.photos and mirror_folder("bsds500") is None:
            print("\nphotos: NOT HERE; set USS_MIRROR to a folder that holds bsds500.")
        elif arguments.photos:
            photos = taken(bsds500.examples(bsds500.Params(limit=arguments.photos)), arguments.photos)
            print(f"\n{len(photos)} photos\n\n| attention | covering ODS, tree | covering, one segmentation |\n|---|---|---|")
            for name, extract in sources.items():
                print(f"| {name} | " + " | ".join(f"{value:.3f}" for value in on_photos(photos, extract, method)) + " |")


if __name__ == "__main__":
    main()

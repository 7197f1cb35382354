"""How much the trees of hierarchy_agnostic depend on the seed of its k-means: agreement of leaves between seeds.

    USS_MIRROR=/datasets python benchmarks/seeds.py [--images 12] [--seeds 3] [--features FOLDER]

Each photograph of VOC 2012 val (evenly spaced) is segmented with each seed. Printed is the adjusted Rand index of the leaves over all pairs of
seeds: 1 where every seed gives the same leaves. Folder: where ``voc_deep.py --features`` stored what it extracted; it is filled and read.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import numpy as np
from sklearn.metrics import adjusted_rand_score
from voc_deep import Entry, features

from uss_dagster import registry
from uss_dagster.artifacts.image_files import decode
from uss_dagster.artifacts.images import evenly_spaced
from uss_dagster.datasets.base import Sample
from uss_dagster.datasets.voc2012 import SPEC
from uss_dagster.text import aligned

PRESETS: dict[str, dict[str, object]] = {
    "default: leaves of a contour map": {},
    "paper": {"preset": "paper"},
    "paper, 1 start of k-means": {"preset": "paper", "restarts": 1},
    "paper, 50 starts": {"preset": "paper", "restarts": 50},
    "paper, step 1 felzenszwalb": {"preset": "paper", "overclustering": "felzenszwalb"},
}
FIRST_SEED = 1234


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=12, help="Number of photographs.")
    parser.add_argument("--seeds", type=int, default=3, help="Number of seeds.")
    parser.add_argument("--weights", default="dinov2_vits14_saliency", help="Name of the backbone's weights.")
    parser.add_argument("--features", type=Path, help="Folder for extracted features.")
    options = parser.parse_args()
    method = registry.load("method", "hierarchy_agnostic")
    examples = sorted(registry.load("dataset", "voc2012").examples(SPEC.params(split="val")), key=lambda example: example.image_id)
    entry = Entry("tokens", "hierarchy_agnostic", {})
    agreement: dict[str, list[float]] = {title: [] for title in PRESETS}
    for example in evenly_spaced(examples, options.images):
        image = decode(example.image, example.image_id)
        sample = Sample(example.image_id, image, features(options.weights, example, image, entry, options.features))
        for title, params in PRESETS.items():
            leaves = []
            for seed in range(FIRST_SEED, FIRST_SEED + options.seeds):
                regions = method.segment(sample, method.SPEC.params(seed=seed, **params))
                leaves.append(regions.last_holder()[regions.atoms].ravel())
            agreement[title] += [adjusted_rand_score(*pair) for pair in itertools.combinations(leaves, 2)]
    rows = [[title, f"{np.mean(values):.3f}", f"{np.min(values):.3f}"] for title, values in agreement.items()]
    print(*aligned(["hierarchy_agnostic", "mean", "least"], rows, right=("mean", "least")), sep="\n")


if __name__ == "__main__":
    main()

"""Diffuse–Walk–Cut on a vision transformer's attention: what its walk is worth, and its thresholds, on photographs.

    USS_MIRROR=/datasets python benchmarks/walk_photographs.py [--half tuning|held-out] [--most 40] [--graphs cos:10,sym:1] [--steps 1,2,4]

A row is a graph and a number of steps. NMCovering of the full tree needs no threshold: it tells what the walk adds, with the paired difference
from one step. On PASCAL VOC 2012 val also the strict oracle mIoU of the single segmentation by each rule for the threshold, and by the constants in
``CONSTANTS`` (number of segments in brackets). 95 % bootstrap intervals over images.
"""

from __future__ import annotations

import argparse
from collections import defaultdict

import numpy as np
from deep_photographs import HALVES, REPLICATES, WEIGHTS, cells, difference, photographs

from uss_dagster.graphs.bipartition import choose_threshold
from uss_dagster.methods.diffuse_walk_cut import Params, walk_cut
from uss_dagster.metrics import covering, oracle
from uss_dagster.metrics.base import Accumulator, accumulator
from uss_dagster.regions import Regions

CONSTANTS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
RULES = ("gap", "mean", "modularity", *CONSTANTS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default=WEIGHTS)
    parser.add_argument("--half", choices=HALVES, default="held-out")
    parser.add_argument("--most", type=int)
    parser.add_argument("--datasets", default="voc2012,bsds500")
    parser.add_argument("--graphs", default="cos:10,sym:1", help="names and exponents")
    parser.add_argument("--steps", default="1,2,4")
    arguments = parser.parse_args()
    for dataset in arguments.datasets.split(","):
        images = photographs(dataset, arguments.half, ("attention",), arguments.weights, arguments.most)
        rules, tree = (RULES, "nm_covering") if dataset == "voc2012" else ((), "nm_covering_annotators")
        print(f"\n{len(images)} photographs of {dataset} ({arguments.half}), weights {arguments.weights}, in percent\n")
        print("| graph | k | NMCovering of the tree | less that of one step | " + " | ".join(map(str, rules)) + (" |" if rules else ""))
        print("| --- | ---: | ---: | ---: |" + " ---: |" * len(rules))
        for graph in arguments.graphs.split(","):
            name, _, alpha = graph.partition(":")
            one: Accumulator | None = None
            for k in map(int, arguments.steps.split(",")):
                covered = accumulator(covering, REPLICATES)
                single = {rule: accumulator(oracle, REPLICATES) for rule in rules}
                segments: dict[object, list[int]] = defaultdict(list)
                for sample, truth in images:
                    result = walk_cut(sample, Params(graph=name, k=k, alpha=float(alpha), tree="full"))  # type: ignore[arg-type]
                    covered.update(sample.image_id, truth, result.regions)
                    cell = result.tree.order[result.tree.start]
                    for rule in rules:
                        tau = rule if isinstance(rule, float) else choose_threshold(result.tree, rule)  # type: ignore[arg-type]
                        labels = result.tree.pruned(tau).labels[cell][result.regions.deepest()]
                        segments[rule].append(len(np.unique(labels)))
                        single[rule].update(sample.image_id, truth, Regions.from_label_map(labels))
                one = one or covered
                gain = difference(one, covered, tree) if covered is not one else "–"
                texts = [f"{cells(single[rule], ['oracle_strict_miou'])} ({np.mean(segments[rule]):.0f})" for rule in rules]
                print(f"| {graph} | {k} | " + " | ".join([cells(covered, [tree]), gain, *texts]) + " |", flush=True)


if __name__ == "__main__":
    main()

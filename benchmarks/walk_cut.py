"""Diffuse–Walk–Cut: the exact sweep beside a search over 100 thresholds, seconds of a full tree, and segments by rule, k and graph.

    USS_MIRROR=… python benchmarks/walk_cut.py [--scenes 12] [--photos 12] [--synthetic 10] [--rounds 3] [--attention patches|diffusion] [--alpha 10]
    python benchmarks/walk_cut.py --large 64

None of one kind (0) leaves it out.

- sweep: Ncut of the best of all n - 1 splits of the second eigenvector, against that of the best of 100 equally spaced thresholds (as DiffCut
  and others do), these one at a time, and all at once in one matrix product, the fastest NumPy way there is. Same vector, same graph,
  one thread.
- tree: seconds of ``cut_tree`` and of the whole method an image, on a 32×32 grid and on the embedded backbone's local attention.
- ``--large``: seconds of processor and peak memory of the process on one made-up image.
- table: mean score and number of segments for every threshold rule, k and graph; ``--attention``: of the local graph of ``patches``, or of the
  embedded diffusion network. Synthetic: adjusted Rand index, dense attention made of known regions. Scenes, of a series that no other
  program draws, and photos, the last ids of VOC 2012's validation list that are there: strict per-image oracle mIoU, and ``tree``, the
  NMCovering of the full tree, whatever the rule. No other table of this project uses these images.
"""

from __future__ import annotations

import argparse
import io
import itertools
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from uss_dagster.runtime import peak_memory_mb, quiet_environment

quiet_environment()

import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402
from threadpoolctl import threadpool_limits  # noqa: E402

from uss_dagster.backbones import diffusion, patches  # noqa: E402
from uss_dagster.backbones.base import Features  # noqa: E402
from uss_dagster.datasets import scenes, voc2012  # noqa: E402
from uss_dagster.datasets.base import Example, Sample, mirror_folder  # noqa: E402
from uss_dagster.graphs.bipartition import Rule, choose_threshold, cut_tree, second_eigenpair, sweep  # noqa: E402
from uss_dagster.graphs.walk import walk, walk_graph  # noqa: E402
from uss_dagster.methods.diffuse_walk_cut import Params, _walk_of, walk_cut  # noqa: E402
from uss_dagster.metrics import covering, oracle  # noqa: E402
from uss_dagster.metrics.base import Truth, accumulator  # noqa: E402
from uss_dagster.regions import ClassTree, Regions  # noqa: E402

RULES: tuple[Rule | float, ...] = ("gap", "mean", "modularity", 0.5, 0.7)
GRAPHS: tuple[Literal["cos", "dot", "sym", "rw"], ...] = ("cos", "dot", "sym", "rw")
STEPS = (1, 2, 4, 8)
SCENE_SEED = 4711


def synthetic(number: int, side: int = 32) -> tuple[Sample, np.ndarray]:
    """An image of 2 to 12 Voronoi regions and dense attention: softmax of feature likeness plus closeness."""
    rng = np.random.default_rng(number)
    y, x = np.indices((side, side))
    seeds = rng.uniform(0, side, (int(rng.integers(2, 13)), 2))
    labels = np.argmin((y[..., None] - seeds[:, 0]) ** 2 + (x[..., None] - seeds[:, 1]) ** 2, axis=-1)
    centres = rng.normal(size=(len(seeds), 16))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    features = centres[labels.ravel()] + 0.15 * rng.normal(size=(side * side, 16))
    place = np.stack([y.ravel(), x.ravel()], axis=1) / side
    logits = 4 * features @ features.T - 4 * ((place[:, None] - place) ** 2).sum(axis=2)
    matrix = np.exp(logits - logits.max(axis=1, keepdims=True))
    matrix = (matrix / matrix.sum(axis=1, keepdims=True)).astype(np.float32)
    return Sample(f"synthetic{number}", np.zeros((side, side, 3), np.uint8), Features({"attention": matrix})), labels


def searched(weights: np.ndarray, vector: np.ndarray) -> float:
    """The least Ncut of 100 thresholds, one at a time."""
    degree = weights.sum(axis=1)
    best = np.inf
    for threshold in np.linspace(0.99 * vector.min(), 0.99 * vector.max(), 100):
        side = (vector > threshold).astype(np.float64)
        low = degree @ side
        cut = low - side @ weights @ side
        if 0 < low < degree.sum():
            best = min(best, cut / low + cut / (degree.sum() - low))
    return float(best)


def searched_at_once(weights: np.ndarray, vector: np.ndarray) -> float:
    """The same by one matrix product."""
    degree = weights.sum(axis=1)
    sides = (vector[:, None] > np.linspace(0.99 * vector.min(), 0.99 * vector.max(), 100)).astype(np.float64)
    low = degree @ sides
    cut = low - np.einsum("ij,ij->j", sides, weights @ sides)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.nanmin(np.where((low > 0) & (low < degree.sum()), cut / low + cut / (degree.sum() - low), np.inf)))


def compare_searches(samples: dict[str, list[Sample]], rounds: int) -> None:
    print(
        "\nbest split of the second eigenvector of an image: milliseconds; and all nodes at which the Ncut of 100 thresholds is higher (lower)"
    )
    print(
        f"{'':12s}{'graph':>6s}{'n':>6s}{'sweep':>9s}{'one by one':>12s}{'at once':>9s}{'ratio':>7s}{'nodes':>8s}{'higher':>8s}{'lower':>7s}{'most':>9s}"
    )
    for name, every in samples.items():
        given = every[:4]
        for graph in GRAPHS[::3]:
            seconds, n, excess = np.full((3, len(given)), np.inf), 0, []
            for number, sample in enumerate(given):
                weights = walk_graph(walk(_walk_of(sample, 32)[0], 2), graph)
                n = len(weights)
                vector = second_eigenpair(weights)[1]
                for _ in range(rounds):
                    for way, run in enumerate((swept, searched, searched_at_once)):
                        begun = time.perf_counter()
                        run(weights, vector)
                        seconds[way, number] = min(seconds[way, number], time.perf_counter() - begun)
                tree = cut_tree(weights, min_size=6)
                for node in np.flatnonzero(tree.is_inner):
                    held = np.sort(tree.order[tree.start[node] : tree.stop[node]])
                    inner = weights[np.ix_(held, held)]
                    vector = second_eigenpair(inner)[1]
                    excess.append(searched_at_once(inner, vector) - swept(inner, vector))
            ms, more = 1000 * seconds.mean(axis=1), np.array(excess)
            print(f"{name:12s}{graph:>6s}{n:6d}{ms[0]:9.2f}{ms[1]:12.2f}{ms[2]:9.2f}{ms[2] / ms[0]:7.1f}", end="")
            print(f"{len(more):8d}{(more > 1e-9).sum():8d}{(more < -1e-9).sum():7d}{more.max():9.4f}", flush=True)


def swept(weights: np.ndarray, vector: np.ndarray) -> float:
    """The least Ncut of all splits."""
    return float(sweep(weights, vector)[1].min())


def time_trees(samples: dict[str, list[Sample]]) -> None:
    print("\nseconds an image, mean (most)")
    for name, given in samples.items():
        for graph in GRAPHS[::3]:
            trees, whole, nodes = [], [], 0
            for sample in given:
                weights = walk_graph(walk(_walk_of(sample, 32)[0], 2), graph)
                begun = time.perf_counter()
                nodes += len(cut_tree(weights, min_size=6))
                trees.append(time.perf_counter() - begun)
                begun = time.perf_counter()
                walk_cut(sample, Params(graph=graph))
                whole.append(time.perf_counter() - begun)
            print(f"{name:12s}{graph:>6s}  full tree {np.mean(trees):.2f} ({max(trees):.2f})", end="")
            print(f"   whole method {np.mean(whole):.2f} ({max(whole):.2f})   {nodes / len(given):.0f} nodes")


class Scores:
    """What one setting has gathered over the images of one dataset."""

    def __init__(self) -> None:
        self.values: list[float] = []
        self.sums: dict[str, np.ndarray] = {}
        self.segments: list[int] = []

    def add(self, labels: np.ndarray, truth: np.ndarray | Truth) -> None:
        self.segments.append(len(np.unique(labels)))
        if isinstance(truth, np.ndarray):
            from sklearn.metrics import adjusted_rand_score

            self.values.append(float(adjusted_rand_score(truth.ravel(), labels.ravel())))
        else:
            for key, value in (oracle.measure(truth, Regions.from_label_map(labels)) or {}).items():
                self.sums[key] = self.sums.get(key, 0) + value

    @property
    def mean(self) -> float:
        if self.values:
            return float(np.mean(self.values))
        return oracle.reduce(self.sums)["oracle_strict_miou"]


def table(name: str, measure: str, images: Sequence[tuple[Sample, np.ndarray | Truth]], alpha: float) -> None:
    print(f"\n{name}: {measure} (segments), {len(images)} images")
    with_tree = isinstance(images[0][1], Truth)
    print(f"{'graph':6s}{'k':>3s}" + "".join(f"{rule!s:>16s}" for rule in RULES) + (f"{'tree':>9s}" if with_tree else ""))
    for graph in GRAPHS:
        for k in STEPS:
            found: dict[object, Scores] = defaultdict(Scores)
            covered = accumulator(covering)
            for sample, truth in images:
                got = walk_cut(sample, Params(graph=graph, k=k, alpha=alpha, tree="full"))
                cell = got.tree.order[got.tree.start]
                for rule in RULES:
                    tau = rule if isinstance(rule, float) else choose_threshold(got.tree, rule)
                    labels = got.tree.pruned(tau).labels[cell][got.regions.deepest()]
                    found[rule].add(labels, truth)
                if isinstance(truth, Truth):
                    covered.update(sample.image_id, truth, got.regions)
            row = "".join(f"{found[rule].mean:9.3f} ({np.mean(found[rule].segments):4.0f})" for rule in RULES)
            if with_tree:
                row += f"{covered.result()['nm_covering']:9.3f}"
            print(f"{graph:6s}{k:3d}{row}", flush=True)


def attended(examples: Iterable[Example], attention: str, classes: ClassTree | None) -> list[tuple[Sample, Truth]]:
    extract: Callable[[list[np.ndarray]], list[dict[str, np.ndarray]]]
    if attention == "patches":
        extract = patches.load(patches.Params(facets=("cls_attention", "attention")))
    else:
        extract = diffusion.load(diffusion.Params(model="embedded"), device="cpu")
    found = []
    for example in examples:
        image = np.asarray(Image.open(io.BytesIO(example.image)).convert("RGB"))
        sample = Sample(example.image_id, image, Features(extract([image])[0]))
        found.append((sample, Truth("classes", example.truth, classes)))
    return found


def time_large(side: int) -> None:
    walk_cut(synthetic(0, 32)[0], Params())  # compiles
    sample, _ = synthetic(1, side)
    begun = time.process_time()
    walk_cut(sample, Params(grid=side))
    print(f"{side}×{side}, dense attention: {time.process_time() - begun:.1f} s of processor, peak {peak_memory_mb():.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description="Diffuse–Walk–Cut: sweep, tree, and rules × k × graph.")
    parser.add_argument("--scenes", type=int, default=12)
    parser.add_argument("--photos", type=int, default=12)
    parser.add_argument("--synthetic", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--attention", choices=("patches", "diffusion"), default="patches")
    parser.add_argument("--alpha", type=float, default=Params().alpha)
    parser.add_argument("--large", type=int, metavar="SIDE", help="one made-up image of so many cells a side, and nothing else")
    parser.add_argument("--tables-only", action="store_true", help="leave out sweep and tree")
    arguments = parser.parse_args()
    if arguments.large:
        with threadpool_limits(1):
            time_large(arguments.large)
        return

    made = [synthetic(number) for number in range(arguments.synthetic)]
    series = scenes.examples(scenes.Params(images=max(arguments.scenes, 1), seed=SCENE_SEED))
    drawn = attended(itertools.islice(series, arguments.scenes), arguments.attention, scenes.SPEC.classes)
    samples = {"synthetic": [sample for sample, _ in made], "scenes": [sample for sample, _ in drawn]}
    samples = {name: given for name, given in samples.items() if given}
    if not arguments.tables_only:
        with threadpool_limits(1):
            compare_searches(samples, arguments.rounds)
            time_trees(samples)
    if made:
        table("synthetic", "adjusted Rand index", made, arguments.alpha)
    if drawn:
        table(f"scenes, {arguments.attention}", "strict oracle mIoU", drawn, arguments.alpha)
    if not arguments.photos:
        return
    if mirror_folder("voc2012") is None:
        print("\nphotos: NOT HERE; set USS_MIRROR to a folder that holds voc2012.")
        return
    last = deque(voc2012.examples(voc2012.Params()), maxlen=arguments.photos)
    photos = attended(last, arguments.attention, voc2012.SPEC.classes)
    table(f"photos, {arguments.attention}", "strict oracle mIoU", photos, arguments.alpha)


if __name__ == "__main__":
    main()

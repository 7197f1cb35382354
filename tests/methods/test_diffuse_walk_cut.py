"""Diffuse–Walk–Cut on attention that is known, on drawn images through the embedded backbone, and on degenerate images."""

from __future__ import annotations

import json

import numpy as np
import pytest

from uss_dagster import registry
from uss_dagster.backbones import patches
from uss_dagster.backbones.base import Features
from uss_dagster.datasets.base import Sample
from uss_dagster.errors import BadData, UsageError
from uss_dagster.graphs.walk import feature_walk, walk_graph
from uss_dagster.methods.diffuse_walk_cut import SPEC, Params, attention_grid, segment, walk_cut
from uss_dagster.pixels import numbered_by_first
from uss_dagster.regions import Regions


def regions_of(h: int, w: int) -> np.ndarray:
    """Five parts of a grid: three columns, the last of them in two rows, and a square in the first."""
    y, x = np.indices((h, w))
    labels = 3 * x // w
    labels[(labels == 2) & (y >= h // 2)] = 3
    labels[h // 4 : h // 2, w // 12 : w // 4] = 4
    return labels


def attention_of(labels: np.ndarray, seed: int = 0, near: float = 1.0, far: float = 0.02) -> np.ndarray:
    """Softmax-like attention (n, n): much to cells of the same part, little to others, more to what is close, noise."""
    place = np.stack(np.indices(labels.shape), axis=-1).reshape(-1, 2)
    apart = np.linalg.norm((place[:, None] - place) / max(labels.shape), axis=-1)
    same = labels.ravel()[:, None] == labels.ravel()
    noise = np.random.default_rng(seed).uniform(0.8, 1.2, apart.shape)
    matrix = np.where(same, near, far) * np.exp(-apart) * noise
    return (matrix / matrix.sum(axis=1, keepdims=True)).astype(np.float32)


def sparse_form(matrix: np.ndarray) -> dict[str, np.ndarray]:
    """The same attention as index and weight, the columns of each row in a shuffled order."""
    n = len(matrix)
    turn = np.random.default_rng(0).permuted(np.tile(np.arange(n, dtype=np.int32), (n, 1)), axis=1)
    return {"attention.index": turn, "attention.weight": np.take_along_axis(matrix, turn, axis=1)}


def sample(labels: np.ndarray, cell: int = 8, far: float = 0.02) -> Sample:
    image = (50 * np.kron(labels, np.ones((cell, cell), int)) % 256).astype(np.uint8)
    return Sample("image", np.stack([image] * 3, axis=-1), Features({"attention": attention_of(labels, far=far)}))


def of_patches(image: np.ndarray, *facets: str) -> Sample:
    return Sample("image", image, Features(patches.load(patches.Params(facets=("attention", *facets)))([image])[0]))


def drawn() -> tuple[np.ndarray, np.ndarray]:
    """(image, labels): four flat fields and a disk, a little noise."""
    labels = np.zeros((160, 200), int)
    labels[80:, :] = 1
    labels[:, 120:] += 2
    y, x = np.indices(labels.shape)
    labels[(y - 45) ** 2 + (x - 50) ** 2 < 28**2] = 4
    colours = np.array([[200, 60, 60], [60, 170, 70], [70, 90, 210], [220, 200, 80], [240, 240, 240]])
    noise = np.random.default_rng(0).normal(0, 3, (*labels.shape, 3))
    return np.clip(colours[labels] + noise, 0, 255).astype(np.uint8), labels


def rand_index(first: np.ndarray, second: np.ndarray) -> float:
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(first.ravel(), second.ravel()))


def same(first: Regions, second: Regions) -> bool:
    fields = ("atoms", "members", "parent", "level", "score", "label")
    return all(getattr(first, f).tobytes() == getattr(second, f).tobytes() for f in fields) and first.source == second.source


def check_tree(regions: Regions) -> None:
    assert regions.is_root[0]
    for region in range(1, len(regions)):
        above = regions.parent[region]
        assert (regions.members[above] | ~regions.members[region]).all()
        assert regions.level[region] <= regions.level[above]
    leaves = np.setdiff1d(np.arange(len(regions)), regions.parent)
    assert regions.area[leaves].sum() == regions.atoms.size


def test_the_spec_says_what_it_is():
    assert SPEC.reimplementation
    assert "reimplementation" in SPEC.title
    assert SPEC.needs == ("attention",)
    params = registry.build_params(Params, {"tau": 0.4, "graph": "rw"}, "diffuse_walk_cut")
    assert params.tau == 0.4
    assert registry.build_params(Params, {"tau": "modularity"}, "diffuse_walk_cut").tau == "modularity"
    assert registry.build_params(Params, {"tau": 1}, "diffuse_walk_cut").tau == 1.0


@pytest.mark.parametrize("graph", ["cos", "dot", "sym", "rw"])
@pytest.mark.parametrize("k", [1, 2, 4])
def test_known_parts_are_found_from_dense_attention(graph, k):
    labels = regions_of(24, 24)
    # what is far leaks more with every step: with more of it, 'gap' rightly sees nothing at eight steps
    got = walk_cut(sample(labels, far=0.005), Params(graph=graph, k=k))
    assert got.segments == 5
    assert rand_index(got.labels[4::8, 4::8], labels) == 1
    check_tree(got.regions)


def test_dense_and_sparse_attention_are_one():
    labels = regions_of(16, 20)
    dense = sample(labels)
    thin = Sample("image", dense.image, Features(sparse_form(dense.features["attention"])))
    first, second = walk_cut(dense, Params()), walk_cut(thin, Params())
    assert np.array_equal(first.labels, second.labels)
    assert first.tau == pytest.approx(second.tau, abs=1e-4)


@pytest.mark.parametrize("facet", ["tokens", "keys", "queries", "values"])
def test_the_walk_may_go_by_the_likeness_of_features(facet):
    """Five parts with tokens of their own are the segments, on the grid of the features and on a coarser one."""
    labels = regions_of(24, 24)
    grid = np.eye(5)[labels] + np.random.default_rng(0).normal(0, 0.05, (24, 24, 5))
    image = np.stack([np.kron(labels, np.ones((8, 8))).astype(np.uint8)] * 3, axis=-1)
    one = Sample("image", image, Features({facet: grid.astype(np.float32)}))
    for graph, k in (("rw", 1), ("cos", 2)):
        params = Params(features=facet, graph=graph, k=k)
        assert SPEC.facets_read(params) == (facet,)
        got = walk_cut(one, params)
        assert got.segments == 5
        assert rand_index(got.labels[4::8, 4::8], labels) == 1
        check_tree(got.regions)
    assert walk_cut(one, Params(features=facet, graph="rw", k=1, grid=12)).grid == (12, 12)


def test_one_step_by_features_cut_as_a_flow_is_the_cut_of_their_cosines():
    """The walk D⁻¹W is reversible with shares proportional to the degrees, so its flow is W again."""
    features = np.random.default_rng(1).normal(size=(40, 6)).astype(np.float32)
    units = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosine = units @ units.T
    np.fill_diagonal(cosine, 1)
    weights = np.maximum(((cosine - cosine.min()) / (1 - cosine.min())) ** 3.0, 1e-8)
    flow = walk_graph(feature_walk(features, alpha=3.0), "rw")
    np.testing.assert_allclose(flow / flow.sum(), weights / weights.sum(), atol=2e-6)


def test_attention_on_a_finer_grid_is_lumped():
    labels = regions_of(48, 48)
    got = walk_cut(sample(labels, cell=4), Params(grid=24))
    assert got.grid == (24, 24)
    assert len(got.tree.order) == 576
    assert rand_index(got.labels[2::4, 2::4], labels) > 0.99
    wide = walk_cut(sample(regions_of(24, 60), cell=4), Params(grid=32))
    assert wide.grid[0] * wide.grid[1] <= 1024 < 24 * 60
    assert wide.grid == (20, 50)


@pytest.mark.parametrize("upsample", ["onehot", "attn", "assign"])
def test_every_way_to_pixels(upsample):
    labels = regions_of(24, 24)
    got = walk_cut(sample(labels), Params(upsample=upsample))
    assert got.labels.shape == (192, 192)
    # the mean map of a large segment is thinner than that of a small one, so 'attn' gives cells away
    assert rand_index(got.labels, np.kron(labels, np.ones((8, 8), int))) > (0.9 if upsample == "attn" else 0.97)
    check_tree(got.regions.pruned())


def test_one_hot_upsampling_is_the_argmax_of_bilinear_maps():
    from uss_dagster.methods.diffuse_walk_cut import _to_pixels
    from uss_dagster.pixels import bilinear

    labels = np.random.default_rng(0).integers(0, 5, (6, 9)).astype(np.int32)
    maps = bilinear((labels == np.arange(5)[:, None, None]).astype(np.float64), 41, 50)
    step = np.eye(54, dtype=np.float32)
    got = _to_pixels(labels, step, step, (41, 50), Params())
    clear = np.sort(maps, axis=0)[-1] - np.sort(maps, axis=0)[-2] > 1e-9
    assert clear.mean() > 0.9
    assert np.array_equal(got[clear], maps.argmax(axis=0)[clear])


def test_the_full_tree_cut_at_the_threshold_is_the_pruned_one():
    given = sample(regions_of(24, 24))
    for tau in ("gap", "modularity", "mean", 0.3):
        pruned, full = (walk_cut(given, Params(tau=tau, tree=tree)) for tree in ("pruned", "full"))
        assert len(full.regions) == len(full.tree) >= len(pruned.regions)
        assert pruned.tau == full.tau
        at = np.unique(full.regions.cut(-np.log10(full.tau)), return_inverse=True)[1]
        assert rand_index(at, pruned.regions.deepest()) > 0.97  # only pixels between cells may differ
        assert full.segments == pruned.segments
        check_tree(full.regions)


def test_what_it_tells_beside_the_regions():
    labels = regions_of(24, 24)
    got = walk_cut(sample(labels), Params(k=4, tau=0.3))
    assert (got.k, got.tau, got.rule, got.grid) == (4, 0.3, "constant", (24, 24))
    assert got.labels.dtype == np.int32
    assert np.unique(got.labels).tolist() == list(range(got.segments))
    assert got.vector.shape == (24, 24)
    assert np.abs(got.vector).max() > 0
    assert set(got.seconds) == {"walk", "graph", "cut", "threshold", "pixels"}
    assert got.peak_mb > 0
    assert len(json.loads(json.dumps(got.tree.to_json()))) == len(got.tree)
    assert set(got.regions.source) == {"constant"}


def test_small_parts_and_depth_are_limited():
    given = sample(regions_of(24, 24), far=0.5)
    tree = walk_cut(given, Params(min_share=0.1)).tree
    assert (tree.stop - tree.start).min() >= 58
    assert walk_cut(given, Params(max_depth=2)).tree.depth.max() <= 2
    assert len(walk_cut(given, Params(max_depth=0)).regions) == 1


def test_crumbs_go_to_their_neighbours():
    labels = regions_of(24, 24)
    labels[20, 2:4] = 3  # two cells far from the rest of their part
    got = walk_cut(sample(labels), Params(min_component=0.01))
    plain = walk_cut(sample(labels), Params())
    assert plain.labels[164, 24] == plain.labels[164, 188] != plain.labels[140, 24]
    assert got.labels[164, 24] == got.labels[140, 24]
    check_tree(got.regions)


@pytest.mark.parametrize("refine", ["crf", "pamr", "guided"])
def test_refinement_moves_borders_only(refine):
    image, _labels = drawn()
    given = of_patches(image)
    before, after = (walk_cut(given, Params(tau="modularity", k=8, refine=how)) for how in ("none", refine))
    assert np.array_equal(before.tree.labels, after.tree.labels)
    assert np.array_equal(before.regions.parent, after.regions.parent)
    assert rand_index(before.labels, after.labels) > 0.7
    check_tree(after.regions.pruned())


@pytest.mark.parametrize("graph", ["cos", "dot", "sym", "rw"])
def test_local_attention_of_the_embedded_backbone(graph):
    image, labels = drawn()
    got = walk_cut(of_patches(image), Params(graph=graph, k=8, tau="modularity", tree="full"))
    assert got.grid == (28, 35)
    check_tree(got.regions)
    # the drawn fields are unions of what was cut: no region straddles their borders much
    cells = got.regions.deepest()
    held = np.array([np.bincount(labels[cells == leaf]).max() for leaf in np.unique(cells)]).sum()
    assert held / labels.size > 0.93


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (1, 40), (40, 1), (3, 7), (50, 20)])
@pytest.mark.parametrize("kind", ["flat", "noise", "halves"])
def test_degenerate_images(shape, kind):
    image = np.full((*shape, 3), 120, np.uint8)
    if kind == "noise":
        image = np.random.default_rng(0).integers(0, 256, image.shape).astype(np.uint8)
    if kind == "halves":
        image[shape[0] // 2 :] = 250
    given = of_patches(image)
    for graph in ("cos", "dot", "sym", "rw"):
        regions = segment(given, Params(graph=graph, tree="full"))
        check_tree(regions.pruned())
        if kind == "flat":
            assert len(regions) == 1


def test_uniform_attention_is_not_cut():
    labels = np.zeros((12, 12), int)
    flat = Sample("image", sample(labels).image, Features({"attention": np.full((144, 144), 1 / 144, np.float32)}))
    for graph in ("cos", "dot", "sym", "rw"):
        assert len(segment(flat, Params(graph=graph))) == 1
    image = np.full((480, 640, 3), 90, np.uint8)  # large enough to be lumped: a local walk with nothing to prefer
    assert len(segment(of_patches(image), Params(graph="rw"))) == 1


def test_the_grid_comes_from_another_facet_or_from_the_image():
    image = np.zeros((90, 160, 3), np.uint8)
    for h, w in ((9, 16), (18, 32), (23, 40), (1, 1), (45, 80)):
        n = h * w
        assert attention_grid(Sample("image", image, Features({})), n) == (h, w)
        turned = Features({"cls_attention": np.zeros((w, h), np.float32), "tokens": np.zeros((h, w, 3), np.float32)})
        assert attention_grid(Sample("image", image, turned), n) == (w, h)
    # a facet on another grid says nothing
    assert attention_grid(Sample("image", image, Features({"tokens": np.zeros((5, 5, 3), np.float32)})), 144) == (9, 16)
    with_tokens, without = of_patches(drawn()[0], "tokens"), of_patches(drawn()[0])
    assert same(segment(with_tokens, Params()), segment(without, Params()))


def test_same_bytes_every_time_and_on_any_number_of_threads():
    from threadpoolctl import threadpool_limits

    given = of_patches(drawn()[0])
    for params in (Params(), Params(graph="rw", k=3, tau="modularity", tree="full")):
        first = segment(given, params)
        with threadpool_limits(2):
            assert same(segment(given, params), first)


def test_half_precision_attention():
    labels = regions_of(24, 24)
    full = sample(labels)
    half = Sample("image", full.image, Features({"attention": full.features["attention"].astype(np.float16)}))
    assert np.array_equal(walk_cut(half, Params()).labels, walk_cut(full, Params()).labels)


def test_bad_input_is_refused_in_one_sentence():
    image = np.zeros((8, 8, 3), np.uint8)
    for tensors in (
        {"attention": np.full((4, 4), np.nan, np.float32)},
        {"attention": np.ones((4, 4), np.float32)},
        {"attention": np.ones((4, 3), np.float32) / 3},
        {"attention": np.zeros((4, 4), np.float32)},
        {"attention.index": np.zeros((4, 2), np.int32), "attention.weight": np.full((4, 2), np.nan, np.float32)},
    ):
        with pytest.raises(BadData, match="extract it again"):
            segment(Sample("image", image, Features(tensors)), Params())
    with pytest.raises(UsageError, match="no facet 'attention'"):
        segment(Sample("image", image, Features({"tokens": np.zeros((2, 2, 3))}, "vit")), Params())


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"k": 0}, "k is 0"),
        ({"grid": 100}, "grid is 100"),
        ({"alpha": 0.0}, "alpha is 0"),
        ({"tau": 1.5}, "tau is 1.5"),
        ({"tau": 0.9, "most": 0.8}, "0 to 0.8"),
        ({"tau": "gapp"}, "tau"),
        ({"graph": "cosine"}, "graph"),
        ({"min_share": 1.0}, "min_share is 1"),
        ({"most": 1.2}, "most is 1.2"),
    ],
)
def test_parameters_are_checked(values, words):
    with pytest.raises(UsageError, match=words):
        registry.build_params(Params, values, "diffuse_walk_cut")


def test_the_protocol_of_training_free_methods_is_never_ranked_beside_dataset_wide_matching():
    """Order of names does not matter; of a class split in two, the part left over is only missed; and the numbers are in groups of their own."""
    from uss_dagster.metrics import oracle, semantic
    from uss_dagster.metrics.base import Truth, accumulator
    from uss_dagster.regions import ClassTree

    classes = ClassTree.from_arrays([-1, 0, 0, 0], [-1, 0, 0, 0])
    truth = np.repeat(np.array([[1, 2, 3]]), [12, 6, 6], axis=1).repeat(4, axis=0)
    nodes = Regions.from_tree(truth, [-1, 0, 0, 0], label=[0, 1, 2, 3])

    def scored(labels: np.ndarray) -> dict[str, float]:
        total = accumulator(oracle)
        total.update("image", Truth("classes", nodes, classes), Regions.from_label_map(labels))
        return total.result()

    for names in ([0, 1, 2], [2, 0, 1]):
        assert scored(np.array(names)[truth - 1])["oracle_diffseg_miou"] == 1
    split = truth.copy()
    split[:, 8:12] = 4
    assert scored(split)["oracle_diffseg_miou"] == pytest.approx((8 / 12 + 1 + 1) / 3)
    assert {metric.scope for metric in oracle.SPEC.metrics.values()} == {"image"}
    assert all(metric.oracle for metric in oracle.SPEC.metrics.values())
    wide = {(name, metric.protocol) for name, metric in semantic.SPEC.metrics.items() if metric.scope == "dataset"}
    assert wide
    assert not wide & {(name, metric.protocol) for name, metric in oracle.SPEC.metrics.items()}


@pytest.mark.parametrize("graph", ["cos", "dot", "sym", "rw"])
@pytest.mark.parametrize("blocks", [2, 3, 4])
def test_separate_blocks_of_uniform_attention_are_the_segments(blocks, graph):
    labels = np.arange(256).reshape(16, 16) * blocks // 256
    same_block = (labels.ravel()[:, None] == labels.ravel()).astype(np.float32)
    attention = Features({"attention": same_block / same_block.sum(axis=1, keepdims=True)})
    result = walk_cut(Sample("x", np.zeros((16, 16, 3), np.uint8), attention), Params(graph=graph))
    np.testing.assert_array_equal(numbered_by_first(result.labels)[0], labels)

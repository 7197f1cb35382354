"""The hierarchy-agnostic method as a whole: known hierarchies, both routes, both graphs, heights, parameters that must reach the mathematics."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from trees import check_tree

from uss_dagster.backbones.base import Features
from uss_dagster.datasets.base import Sample, mirror_folder
from uss_dagster.errors import BadData, UsageError
from uss_dagster.graphs.partition import recursive_partition
from uss_dagster.methods import _spectral
from uss_dagster.methods.hierarchy_agnostic import Params, Preset, fit, segment
from uss_dagster.regions import Regions

SIDE = 24


def nested_tokens(noise: float = 0.05) -> tuple[Sample, np.ndarray, np.ndarray]:
    """(sample of deep tokens, object of each pixel, part of each pixel): three objects side by side, each of three parts."""
    y, x = np.indices((SIDE, SIDE)) * 3 // SIDE
    tokens = 1.2 * np.eye(12)[x] + np.eye(12)[3 + 3 * x + y]
    tokens += noise * np.random.default_rng(0).normal(size=tokens.shape)
    four = np.ones((4, 4), int)
    image = np.full((4 * SIDE, 4 * SIDE, 3), 128, np.uint8)
    return Sample("nested", image, Features({"tokens": tokens}, comparable=True)), np.kron(x, four), np.kron(3 * x + y, four)


def depths(regions: Regions) -> dict[bytes, int]:
    """Depth of each region by its mask."""
    return {regions.mask(i).tobytes(): int(regions.depth[i]) for i in range(len(regions))}


def drawing(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(image, labels): sky over ground, a sun in the sky, two houses of one colour on the ground. seed: of the noise."""
    labels = np.ones((160, 240), int)
    labels[80:] = 2
    y, x = np.indices(labels.shape)
    labels[(y - 36) ** 2 + (x - 180) ** 2 < 400] = 3
    labels[96:144, 24:72] = 4
    labels[96:144, 120:168] = 5
    colours = np.array([[0, 0, 0], [110, 160, 230], [70, 120, 60], [240, 210, 60], [170, 60, 50], [170, 60, 50]])
    noise = np.random.default_rng(seed).normal(0, 4, (*labels.shape, 3))
    return np.clip(colours[labels] + noise, 0, 255).astype(np.uint8), labels


def drawn_sample(comparable: bool = False, seed: int = 0) -> tuple[Sample, np.ndarray]:
    image, labels = drawing(seed)
    tokens = image.reshape(20, 8, 30, 8, 3).mean(axis=(1, 3)) / 50
    return Sample("drawing", image, Features({"tokens": tokens}, comparable=comparable)), labels


def check_hierarchy(regions: Regions, shape: tuple[int, int]) -> None:
    """A tree with its leaves at level 0."""
    check_tree(regions, shape)
    assert (np.delete(regions.level, np.unique(regions.parent[1:])) == 0).all()


# -- deep tokens, dense graph -----------------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.1])
def test_direct_route_finds_objects_and_then_their_parts(noise: float) -> None:
    given, objects, parts = nested_tokens(noise)
    regions = segment(given, Params(graph="dense", overclustering="none"))
    check_hierarchy(regions, objects.shape)
    found = depths(regions)
    assert [found.get((objects == i).tobytes()) for i in range(3)] == [1, 1, 1]
    assert [found.get((parts == i).tobytes()) for i in range(9)] == [2] * 9
    assert set(regions.source) == {"dense graph"}
    only = segment(given, Params(graph="dense", overclustering="none", levels=2))
    assert len(only) == 13
    assert sorted(depths(only).items()) == sorted((mask, depth) for mask, depth in found.items() if depth <= 2)


def test_route_over_parts_finds_objects_and_leaves_are_parts() -> None:
    given, objects, parts = nested_tokens()
    regions = segment(given, Params(preset="paper", kover=9))
    check_hierarchy(regions, objects.shape)
    found = depths(regions)
    # three parts are never divided: the objects are the leaves
    assert sorted(found) == sorted([np.ones_like(objects, bool).tobytes(), *((objects == i).tobytes() for i in range(3))])
    held = [np.unique(parts[regions.mask(i)], return_counts=True)[1] for i in range(len(regions))]
    assert all((counts == 32 * 32).all() for counts in held)


def test_both_values_of_max_perturb_reach_both_routes() -> None:
    given, _, _ = nested_tokens()
    for route in ("simultaneous", "none"):
        assert len(segment(given, Params(graph="dense", overclustering=route, kover=9, max_perturb=0.0))) == 1
        assert len(segment(given, Params(graph="dense", overclustering=route, kover=9, max_perturb=80.0))) >= 4


def test_every_parameter_reaches_the_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, object] = {}

    def spy(affinity: np.ndarray, *values: float, **named: object):  # type: ignore[no-untyped-def]
        seen.update(zip(("levels", "max_kways", "min_points", "mncut_th", "max_perturb"), values, strict=True), **named)
        return recursive_partition(affinity)

    monkeypatch.setattr("uss_dagster.methods.hierarchy_agnostic.recursive_partition", spy)
    given, _, _ = nested_tokens()
    values = {"levels": 3, "max_kways": 4, "min_points": 2, "mncut_th": 0.5, "max_perturb": 80.0, "eig_stab_th": 0.1, "seed": 5}
    segment(given, Params(graph="dense", **values, heuristic="fiedler", normalization="randomwalk", scaling="minmax"))
    assert seen == {**values, "heuristic": "fiedler", "laplacian": "randomwalk", "scaling": "minmax", "perturb_two": False}
    segment(given, Params(graph="dense", perturb_two=True))
    assert seen["perturb_two"] is True
    segment(given, Params(preset="paper"))
    assert seen["heuristic"] == "maxgap"
    assert (seen["levels"], seen["max_kways"], seen["min_points"], seen["mncut_th"], seen["max_perturb"]) == (9, 10, 1, 0.8, 50.0)


def test_parts_may_be_merged_from_the_bottom_up() -> None:
    """The same parts; objects and their parts are among the merged regions, and scores are those of each division."""
    given, objects, parts = nested_tokens()
    regions = segment(given, Params(graph="dense", kover=9, merging="bottomup"))
    check_hierarchy(regions, given.image.shape[:2])
    assert set(np.bincount(regions.parent[1:]).tolist()) == {0, 2}
    masks = depths(regions)
    for labels, count in ((objects, 3), (parts, 9)):
        assert all((labels == number).tobytes() in masks for number in range(count))
    assert ((regions.score >= 0) & (regions.score <= 1)).all()
    assert regions.score[0] == 1
    tokens = np.random.default_rng(0).normal(size=(46, 46, 3))
    large = Sample("large", given.image, Features({"tokens": tokens}, comparable=True))
    with pytest.raises(UsageError, match="takes 2000 parts at most, got 2116"):
        segment(large, Params(graph="dense", overclustering="none", merging="bottomup"))


@pytest.mark.parametrize("graph", ["local", "leaves"])
def test_divisions_in_two_may_have_to_keep_the_bound(graph: str) -> None:
    """With no bound to keep it is the tree without the test; under one that nothing keeps, the image alone; untested, the bound says nothing."""
    given, _ = drawn_sample(comparable=graph == "leaves")
    plain = segment(given, Params(graph=graph))
    assert len(plain) > 5
    assert depths(segment(given, Params(graph=graph, max_perturb=0.0))) == depths(plain)
    assert depths(segment(given, Params(graph=graph, max_perturb=np.inf, perturb_two=True))) == depths(plain)
    assert len(segment(given, Params(graph=graph, max_perturb=0.0, perturb_two=True))) == 1


def test_the_scale_of_tokens_does_not_matter_and_their_order_does_not() -> None:
    given, _, _ = nested_tokens()
    params = Params(graph="dense", overclustering="none", levels=2)
    tokens = given.features["tokens"]
    louder = dataclasses.replace(given, features=Features({"tokens": 64 * tokens}, comparable=True))
    assert depths(segment(louder, params)) == depths(segment(given, params))
    mirrored = dataclasses.replace(given, features=Features({"tokens": tokens[::-1, ::-1]}, comparable=True))
    there = segment(mirrored, params)
    back = {there.mask(i)[::-1, ::-1].tobytes(): int(there.depth[i]) for i in range(len(there))}
    assert back == depths(segment(given, params))


def test_levels_without_contours_are_products_down_the_tree() -> None:
    parent, ncut = np.array([-1, 0, 1, 1, 0]), np.array([0.0, 0.1, 0.4, 0.6, 0.3])
    assert _spectral.trust_levels(parent, ncut) == pytest.approx([0.8, 0.8 * 0.5, 0.0, 0.0, 0.0])
    assert _spectral.trust_levels(np.array([-1]), np.array([0.0])).tolist() == [0.0]


def test_mahalanobis_looks_at_the_dataset_first() -> None:
    given, objects, _ = nested_tokens()
    params = Params(graph="dense", distance="mahalanobis", overclustering="none", levels=2)
    state = fit([given, given], params)
    assert state is not None
    check_hierarchy(segment(given, params, state), objects.shape)
    stretch = np.geomspace(1, 100, 12)
    stretched = dataclasses.replace(given, features=Features({"tokens": given.features["tokens"] * stretch}, comparable=True))
    assert depths(segment(stretched, params, fit([stretched, stretched], params))) == depths(segment(given, params, state))
    assert fit(iter([]), Params()) is None
    with pytest.raises(UsageError, match="needs the state that fit"):
        segment(given, params)
    with pytest.raises(UsageError, match="compare between images"):
        fit([drawn_sample()[0]], params)


def test_a_large_grid_is_averaged_onto_a_smaller_one() -> None:
    for h, w in ((250, 188), (1, 40_000), (40_000, 1), (3, 20_000), (60, 120), (2, 2)):
        place = _spectral._cells(h, w)
        n = int(place.max()) + 1
        assert place.shape == (h, w)
        assert min(h * w, _spectral.MOST_CELLS) // 2 <= n <= _spectral.MOST_CELLS
        assert np.unique(place).tolist() == list(range(n))
    assert _spectral._cells(60, 120).ravel().tolist() == list(range(7200))


@pytest.mark.parametrize("graph", ["dense", "local"])
def test_a_large_photo(graph: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_spectral, "MOST_CELLS", 500)
    image = np.zeros((3000, 4000, 3), np.uint8)
    image[:, 2000:] = 180
    image[1500:, :2000] = 90
    tokens = image[6::12, 8::16, :1].astype(np.float32) / 90
    tokens = np.eye(3)[tokens[:, :, 0].astype(int)] + 0.01 * np.random.default_rng(0).normal(size=(*tokens.shape[:2], 3))
    regions = segment(Sample("large", image, Features({"tokens": tokens})), Params(graph=graph, overclustering="none", levels=2))
    check_hierarchy(regions, (3000, 4000))
    for value in (0, 90, 180):
        iou = max(
            (regions.mask(i) & (image[:, :, 0] == value)).sum() / (regions.mask(i) | (image[:, :, 0] == value)).sum()
            for i in range(len(regions))
        )
        assert iou > 0.95, value


def test_random_vision_transformer() -> None:
    from uss_dagster.backbones import vit

    image, _ = drawing()
    extract = vit.load(vit.Params(model="dino_vits16", checkpoint="random", facets=("tokens",)), "cpu")
    given = Sample("image", image, Features(extract([image])[0], "vit", vit.SPEC.comparable))
    for params, graph in ((Params(), "graph of leaves"), (Params(preset="paper"), "dense graph")):
        regions = segment(given, params)
        check_hierarchy(regions, image.shape[:2])
        assert set(regions.source) <= {graph, ""}


@pytest.mark.parametrize("method", ["crf", "guided"])
def test_refinement_changes_leaves_and_not_the_tree(method: str) -> None:
    sample, labels = drawn_sample(comparable=True)
    plain, refined = (segment(sample, Params(graph="dense", overclustering="none", levels=2, refine=how)) for how in ("none", method))
    assert refined.shape == plain.shape == labels.shape
    assert refined.parent.tolist() == plain.parent.tolist()
    assert refined.level.tolist() == plain.level.tolist()
    assert refined.atoms.tobytes() != plain.atoms.tobytes()


# -- hand-made features, local graph ----------------------------------------------------------------


def test_the_graph_follows_the_backbone() -> None:
    handmade, _ = drawn_sample()
    deep, _ = drawn_sample(comparable=True)
    assert set(segment(handmade, Params()).source) == {"local graph"}
    assert set(segment(deep, Params()).source) == {"graph of leaves"}
    for given, graph in ((handmade, "local"), (deep, "leaves")):
        asked, auto = segment(given, Params(graph=graph)), segment(given, Params())
        assert asked.atoms.tobytes() == auto.atoms.tobytes()
        assert asked.parent.tolist() == auto.parent.tolist()
    assert set(segment(deep, Params(graph="local")).source) == {"local graph"}
    assert set(segment(handmade, Params(preset="paper")).source) == {"dense graph"}


def test_leaves_with_deep_tokens_keep_the_borders_of_the_image() -> None:
    y, x = np.indices((96, 128))
    discs = [(y - 45) ** 2 + (x - across) ** 2 < 700 for across in (35, 93)]
    disc = discs[0] | discs[1]
    noise = np.random.default_rng(0).normal(0, 4, (*disc.shape, 3))
    image = np.clip(np.where(disc[:, :, None], [200, 70, 40], [60, 110, 170]) + noise, 0, 255).astype(np.uint8)
    share = disc.reshape(12, 8, 16, 8).mean(axis=(1, 3))
    sample = Sample("discs", image, Features({"tokens": np.stack([share, 1 - share], axis=2)}, comparable=True))
    sharp, blocky = (segment(sample, params) for params in (Params(), Params(preset="paper", overclustering="none")))
    check_hierarchy(sharp, disc.shape)
    # both discs are one region although they do not touch
    assert best_iou(sharp, disc) > 0.93
    assert best_iou(sharp, disc) > best_iou(blocky, disc) + 0.02


def best_iou(regions: Regions, thing: np.ndarray) -> float:
    return max(float((regions.mask(i) & thing).sum() / (regions.mask(i) | thing).sum()) for i in range(len(regions)))


@pytest.mark.parametrize("how", ["kmeans", "pixelkmeans", "felzenszwalb", "slic", "quickshift", "watershed"])
def test_other_first_steps_make_parts(how: str) -> None:
    sample, labels = drawn_sample(comparable=True)
    regions = segment(sample, Params(preset="paper", overclustering=how, kover=40, restarts=1, iterations=20))  # type: ignore[arg-type]
    check_hierarchy(regions, labels.shape)
    assert len(regions) >= 3
    if how in ("kmeans", "pixelkmeans"):
        return
    with pytest.raises(UsageError, match="goes with the dense graph"):
        segment(sample, Params(overclustering=how))  # type: ignore[arg-type]


def test_presets_are_the_papers_and_give_way_to_what_is_given() -> None:
    assert Params(preset="paper").settings == Preset("dense", 200, 50.0)
    assert Params(preset="paper_config").settings.max_perturb == 80.0
    assert Params(preset="paper_cityscapes").settings.kover == 300
    assert Params(preset="paper", graph="local", kover=7).settings == Preset("local", 7, 50.0)


def test_local_graph_tells_remote_things_of_one_colour_apart() -> None:
    overlaps = []
    for seed in range(11):  # where a tree divides one drawing depends on rounding, which differs between processors
        given, labels = drawn_sample(seed=seed)
        regions = segment(given, Params())
        check_hierarchy(regions, labels.shape)
        overlaps.append([best_iou(regions, labels == thing) for thing in range(1, 6)])
    assert (np.median(overlaps, axis=0) > 0.85).all()
    assert (np.array(overlaps) > 0.5).all()


def test_bad_tokens_are_refused() -> None:
    given, _ = drawn_sample()
    tokens = given.features["tokens"].copy()
    tokens[3, 4, 0] = np.nan
    for bad in (tokens, tokens[:, :, 0], tokens[:0]):
        for graph in ("dense", "local"):
            with pytest.raises(BadData, match="extract it again"):
                segment(dataclasses.replace(given, features=Features({"tokens": bad})), Params(graph=graph))


def test_parameters_are_checked() -> None:
    for bad in ({"kover": 0}, {"max_kways": 1}, {"levels": -1}, {"min_points": 0}, {"sigma": 0.0}, {"temperature": -1.0}):
        ((name, value),) = bad.items()
        with pytest.raises(UsageError, match=f"^{name} is {value}, expected "):
            Params(**bad)


@pytest.mark.slow
def test_beats_felzenszwalb_on_photographs() -> None:
    from uss_dagster.artifacts.image_files import decode
    from uss_dagster.backbones import patches
    from uss_dagster.datasets import bsds500
    from uss_dagster.methods import felzenszwalb
    from uss_dagster.metrics import bsds
    from uss_dagster.metrics.base import Truth, accumulator

    if mirror_folder("bsds500") is None:
        pytest.skip("BSDS500 IS NOT HERE: set USS_MIRROR to a folder that holds bsds500/ to run this test.")
    extract = patches.load(patches.Params(facets=("tokens",)))
    truths, found = [], {"ours": [], "theirs": []}
    for example in bsds500.examples(bsds500.Params(limit=10)):
        image = decode(example.image, example.image_id)
        truths.append(Truth("annotators", example.truth))
        given = Sample(example.image_id, image, Features(extract([image])[0]))
        found["ours"].append(segment(given, Params()))
        found["theirs"].append(felzenszwalb.segment(given, felzenszwalb.Params()))
    scores = {}
    for name, predictions in found.items():
        total = accumulator(bsds, state=bsds.prepare(predictions))
        for number, (truth, prediction) in enumerate(zip(truths, predictions, strict=True)):
            total.update(str(number), truth, prediction)
        scores[name] = total.result()
    for key in ("bsds_covering_ods", "bsds_covering_ois"):
        assert scores["ours"][key] > scores["theirs"][key], scores


@pytest.mark.parametrize("blocks", [2, 3, 4, 5])
@pytest.mark.parametrize("overclustering", ["simultaneous", "none"])
def test_blocks_without_structure_inside_are_the_leaves(blocks, overclustering):
    """One-hot tokens: rounding must not divide a block further."""
    labels = np.arange(256).reshape(16, 16) * blocks // 256
    features = Features({"tokens": np.eye(blocks, dtype=np.float32)[labels]}, comparable=True)
    regions = segment(Sample("x", np.zeros((64, 64, 3), np.uint8), features), Params(preset="paper", overclustering=overclustering))
    leaves = np.flatnonzero(~np.isin(np.arange(len(regions)), regions.parent))
    expected = np.kron(labels, np.ones((4, 4), int))
    assert {regions.mask(leaf).tobytes() for leaf in leaves} == {(expected == block).tobytes() for block in range(blocks)}

"""Dataset-wide labels for trees: one cut for all images, a sample that depends on ids alone, and clusters that find classes."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from uss_dagster.datasets import scenes
from uss_dagster.errors import BadData, UsageError
from uss_dagster.graphs import semantic_labels
from uss_dagster.graphs.appearance import region_appearance
from uss_dagster.graphs.semantic_labels import LabelModel, choose_level, flat_map, flat_regions, mean_tokens
from uss_dagster.metrics import semantic
from uss_dagster.metrics.base import Truth, accumulator, deepest_value
from uss_dagster.regions import Regions


def labelled(regions: Regions, chosen: np.ndarray, labels: np.ndarray) -> Regions:
    """The regions, the chosen ones with these labels, the others with none."""
    every = np.full(len(regions), -1, np.int32)
    every[chosen] = labels
    return Regions(regions.atoms, regions.members, regions.parent, label=every)


def tree(seed: int, leaves: int = 12, whole_numbers: bool = True) -> Regions:
    """Leaves merged in random order and arity, levels growing upwards; some inner nodes and the root hold pixels of their own."""
    rng = np.random.default_rng(seed)
    children: dict[int, list[int]] = {}
    level = dict.fromkeys(range(leaves), 0.0)
    tops, node, height = list(range(leaves)), leaves, 0.0
    while len(tops) > 1:
        taken = [tops.pop(int(rng.integers(len(tops)))) for _ in range(min(len(tops), int(rng.integers(2, 4))))]
        height += float(rng.integers(0, 4)) if whole_numbers else float(rng.random())
        children[node], level[node] = taken, height
        tops.append(node)
        node += 1
    order, parent = [], {tops[0]: -1}
    stack = [tops[0]]
    while stack:
        top = stack.pop()
        order.append(top)
        for child in children.get(top, []):
            parent[child] = top
            stack.append(child)
    place = {old: new for new, old in enumerate(order)}
    atoms = rng.integers(0, node if seed % 3 == 0 else leaves, (9, 11))
    return Regions.from_tree(
        np.array([place[n] for n in range(node)])[atoms], [place.get(parent[n], -1) for n in order], level=[level[n] for n in order]
    ).pruned()


# -- cuts ---------------------------------------------------------------------------------------------


@given(st.integers(0, 10**6), st.sampled_from([-1.0, 0.0, 1.0, 4.0, 9.0, 1e9, None]))
@settings(max_examples=60, deadline=None)
def test_the_flat_map_is_the_cut(seed: int, level: float | None) -> None:
    regions = tree(seed)
    chosen = flat_regions(regions, level)
    assert chosen.dtype == np.int64
    assert (np.diff(chosen) > 0).all()
    cut = regions.deepest() if level is None else regions.cut(level)
    flat = flat_map(regions, chosen)
    assert np.where(flat >= 0, chosen[flat], -1).tolist() == cut.tolist()
    assert sorted(set(flat.ravel().tolist()) - {-1}) == list(range(len(chosen)))
    # what the metrics see: the deepest region with a label
    shown = labelled(regions, chosen, np.arange(len(chosen)))
    atom = deepest_value(shown, shown.label, shown.label >= 0)
    assert atom[regions.atoms].tolist() == flat.tolist()


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=4), st.floats(0.5, 14).map(lambda value: round(value, 3)))
@settings(max_examples=60, deadline=None)
def test_the_chosen_level_is_the_best_of_all(chosen: list[int], wanted: float) -> None:
    trees = [tree(seed) for seed in chosen]

    def off(level: float) -> float:
        return abs(float(np.mean([len(flat_regions(t, level)) for t in trees])) - wanted)

    levels = sorted({-1.0, *np.concatenate([t.level for t in trees]).tolist()})
    got = choose_level(trees, wanted)
    assert got is not None
    best = min(off(level) for level in levels)
    assert off(got) == pytest.approx(best)
    first = next(level for level in levels if off(level) == pytest.approx(best))
    assert all(flat_regions(t, got).tolist() == flat_regions(t, first).tolist() for t in trees), "the finer of two as near"
    assert choose_level(reversed(trees), wanted) == got


def test_levels_of_any_size_are_met_closely() -> None:
    trees = [tree(seed, leaves=60, whole_numbers=False) for seed in range(30)]
    for scale in (1e-4, 1.0, 1e5):
        scaled = [Regions(t.atoms, t.members, t.parent, level=t.level * scale) for t in trees]
        level = choose_level(scaled, 7)
        assert np.mean([len(flat_regions(t, level)) for t in scaled]) == pytest.approx(7, abs=0.2)


def test_more_regions_than_there_are_gives_the_finest() -> None:
    regions = Regions.from_tree(np.array([[1, 2, 3]]), [0, 0, 0, 0], level=[5, 0, 0, 2])
    level = choose_level([regions], 100)
    assert level is not None
    assert level < 0
    assert flat_regions(regions, level).tolist() == [1, 2, 3]
    assert flat_regions(regions, choose_level([regions], 1)).tolist() == [0]


def test_without_levels_or_a_tree_the_deepest_regions_serve() -> None:
    plain = Regions.from_tree(np.array([[1, 2, 2]]), [0, 0, 0])
    overlapping = Regions.from_masks([np.array([[1, 1, 1, 0]], bool), np.array([[0, 0, 1, 1]], bool)], level=[0, 1])
    levelled = Regions.from_tree(np.array([[1, 2, 2]]), [0, 0, 0], level=[1, 0, 0])
    assert choose_level([], 3) is None
    assert choose_level([levelled, plain], 3) is None
    assert choose_level([levelled, overlapping], 3) is None
    assert choose_level([levelled], 3) is not None
    assert flat_regions(overlapping, None).tolist() == [0, 1]
    assert flat_map(overlapping, np.array([0, 1])).tolist() == [[0, 0, 1, 1]]
    hidden = Regions.from_masks([np.array([[0, 1]], bool), np.array([[1, 1]], bool)])
    assert flat_regions(hidden, None).tolist() == [1], "a region that others cover has no pixel to be labelled by"
    assert flat_regions(Regions.from_masks([], shape=(2, 2)), None).tolist() == []
    assert flat_map(Regions.from_masks([], shape=(1, 2)), np.zeros(0, int)).tolist() == [[-1, -1]]


# -- vectors and clusters -----------------------------------------------------------------------------


def test_mean_tokens_are_mean_directions() -> None:
    rng = np.random.default_rng(0)
    tokens, flat = rng.normal(size=(4, 5, 3)).astype(np.float32), rng.integers(-1, 3, (4, 5))
    got = mean_tokens(tokens, flat, 3)
    directions = tokens / np.linalg.norm(tokens, axis=2, keepdims=True)
    expected = np.stack([directions[flat == r].mean(axis=0) for r in range(3)])
    np.testing.assert_allclose(got, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-6)
    np.testing.assert_allclose(mean_tokens(np.ones((2, 2, 4)), np.repeat([[0, 1]], 6, axis=0), 2), 0.5)


def described(images: int = 40) -> list[tuple[str, np.ndarray]]:
    rng = np.random.default_rng(3)
    centres = 4 * rng.normal(size=(5, 6))
    return [(f"image{i}", centres[rng.integers(0, 5, n)] + 0.1 * rng.normal(size=(n, 6))) for i, n in enumerate(rng.integers(0, 9, images))]


@pytest.mark.parametrize("sample", [20, 10_000])
def test_neither_order_nor_form_of_the_input_matters(sample: int) -> None:
    items = described()
    first = LabelModel.fit(items, 5, sample=sample)
    again = LabelModel.fit((item for item in items[::-1]), 5, sample=sample)
    assert first.centres.tobytes() == again.centres.tobytes()
    assert LabelModel.fit(items, 5, sample=sample, seed=1).centres.tobytes() != first.centres.tobytes()
    assert len(set(np.concatenate([first.assign(v) for _, v in items]).tolist())) == 5


def test_labels_are_the_nearest_centres() -> None:
    items = described()
    model = LabelModel.fit(items, 4)
    for _, vectors in items:
        distance = np.linalg.norm(vectors[:, None] - model.centres, axis=2)
        assert model.assign(vectors).tolist() == distance.argmin(axis=1).tolist()
    assert model.assign(np.zeros((0, 6))).shape == (0,)
    assert model.assign(vectors).dtype == np.int32


def test_what_is_kept_does_not_grow_with_the_number_of_images() -> None:
    kept = semantic_labels._Sample(100, seed=0)
    rng, seen = np.random.default_rng(0), []
    for i in range(300):
        vectors = rng.normal(size=(30, 4))
        kept.add(f"image{i}", vectors)
        seen.append(sum(len(rows) for rows in kept._rows))
    assert max(seen) <= 230
    assert kept.vectors().shape == (100, 4)


def test_the_sample_is_uniform() -> None:
    kept = semantic_labels._Sample(2000, seed=4)
    for i in range(400):
        kept.add(str(i), np.full((25, 1), i))
    halves = np.bincount((kept.vectors()[:, 0] >= 200).astype(int))
    assert abs(int(halves[0]) - 1000) < 100  # 5 deviations of a fair draw are 112, less without replacement


def test_impossible_inputs_are_refused() -> None:
    with pytest.raises(UsageError, match="k = 0"):
        LabelModel.fit(described(), 0)
    with pytest.raises(BadData, match="No image has a region"):
        LabelModel.fit([("a", np.zeros((0, 3)))], 2)
    with pytest.raises(BadData, match="Image 'b' has a region with a vector that is not finite"):
        LabelModel.fit([("b", np.full((1, 3), np.nan))], 2)
    with pytest.raises(BadData, match=r"\(2, 5\), but the labels were fitted on 3"):
        LabelModel.fit([("a", np.eye(3))], 2).assign(np.zeros((2, 5)))


# -- all together -------------------------------------------------------------------------------------


def test_labels_of_true_regions_find_classes_far_better_than_chance() -> None:
    classes, k = scenes.SPEC.classes, 66
    examples = list(scenes.examples(scenes.Params(images=12)))
    predictions = {e.image_id: Regions(e.truth.atoms, e.truth.members, e.truth.parent) for e in examples}
    level = choose_level(predictions.values())
    assert level is None
    chosen = {i: flat_regions(p, level) for i, p in predictions.items()}
    vectors = {}
    for e in examples:
        image = np.asarray(Image.open(io.BytesIO(e.image)).convert("RGB"))
        vectors[e.image_id] = region_appearance(image, flat_map(predictions[e.image_id], chosen[e.image_id]), len(chosen[e.image_id]))
    model = LabelModel.fit(vectors.items(), k)
    assert LabelModel.fit(list(vectors.items())[::-1], k).centres.tobytes() == model.centres.tobytes()
    rng = np.random.default_rng(0)
    found, random = accumulator(semantic), accumulator(semantic)
    for e in examples:
        p, tiles = predictions[e.image_id], chosen[e.image_id]
        for total, labels in ((found, model.assign(vectors[e.image_id])), (random, rng.integers(0, k, len(tiles)))):
            given_labels = labelled(p, tiles, labels)
            total.update(e.image_id, Truth("classes", e.truth, classes), given_labels)
    one, other = found.result(), random.result()
    assert one["hungarian_miou"] > 1.5 * other["hungarian_miou"]
    assert one["hungarian_miou"] > other["hungarian_miou"] + 0.07
    assert one["many_to_one_accuracy"] > other["many_to_one_accuracy"] + 0.07

"""Candidates, the order of images, the ranking and its advice, simulated clicks."""

from __future__ import annotations

import numpy as np
import pytest
from annotation_cases import HEIGHT, WIDTH, code_of, fields, good_tree, make_bench, make_photos, make_run, poor_tree

from uss_dagster.annotation.entries import Entries, segment_entries
from uss_dagster.annotation.order import Order, differences
from uss_dagster.annotation.pool import ALIKE, pool_of
from uss_dagster.annotation.progress import rank
from uss_dagster.annotation.simulation import label
from uss_dagster.errors import BadData, UsageError
from uss_dagster.regions import Regions
from uss_dagster.segmenter import Segmenter

SIZE = (HEIGHT, WIDTH)


# -- candidates ---------------------------------------------------------------------------------------------------


def test_candidates_of_two_trees():
    labels = fields()
    pool = pool_of([good_tree(labels), poor_tree(labels)], SIZE)
    area = pool.regions.area
    assert (np.diff(area) >= 0).all()
    assert not pool.regions.is_root.any()
    chain, _ = pool.at(47, 80)
    held = {pool.regions.mask(region).tobytes() for region in chain}
    assert {(labels == 3).tobytes(), np.isin(labels, (2, 3)).tobytes()} <= held, "the door and the house"
    iou = [
        [(a & b).sum() / (a | b).sum() for j, b in enumerate(pool.regions.masks()) if j != i] for i, a in enumerate(pool.regions.masks())
    ]
    assert np.max(iou) <= ALIKE
    for atom in range(pool.regions.members.shape[1]):
        assert 0 <= pool.start[atom] < max(1, pool.regions.members[:, atom].sum())


def test_candidates_at_a_smaller_size_and_of_one_entry_and_of_none():
    tree = good_tree(fields())
    pool = pool_of([tree], (60, 80))
    assert pool.regions.shape == (60, 80)
    assert len(pool.regions) == 6
    chain, start = pool.at(23, 40)
    assert pool.regions.area[chain].tolist() == pytest.approx([tree.area[5] / 4, tree.area[3] / 4], rel=0.1), "the door, the house"
    assert start == 0, "of two that last equally long, the smaller"
    empty = pool_of([Regions.from_tree(np.zeros(SIZE, int), [0])], SIZE)
    assert len(empty.regions) == 0
    assert empty.at(3, 3)[0].tolist() == []


@pytest.mark.parametrize("seed", range(3))
def test_every_click_begins_in_its_chain(seed):
    rng = np.random.default_rng(seed)
    trees = []
    for _ in range(3):
        leaves = np.kron(np.arange(24).reshape(4, 6), np.ones((10, 10), int))
        parent = [0, *(int(rng.integers(0, max(1, node))) for node in range(1, 40))]
        trees.append(Regions.from_tree(leaves + 16, parent))
    pool = pool_of(trees, (40, 60))
    for x, y in rng.integers(0, 40, (20, 2)):
        chain, start = pool.at(int(x), int(y))
        assert (np.diff(pool.regions.area[chain]) >= 0).all()
        if len(chain):
            assert 0 <= start < len(chain)


def test_simulated_clicks_reach_what_regions_are_there():
    labels = fields()
    pool = pool_of([good_tree(labels), poor_tree(labels)], SIZE)
    one = label(pool, labels == 4)
    assert (one.clicks, one.iou, one.reached) == (1, 1.0, True)
    two = label(pool, np.isin(labels, (3, 4)))
    assert (two.clicks, two.reached) == (2, True)
    assert two.actions >= 2
    np.testing.assert_array_equal(two.mask, np.isin(labels, (3, 4)))
    walls = label(pool_of([poor_tree(labels)], SIZE), labels == 2)
    assert not walls.reached
    assert walls.clicks <= 20


# -- entries ------------------------------------------------------------------------------------------------------


def test_entries_are_read_best_first(tmp_path):
    entries = Entries.open(make_run(tmp_path / "run", ["a", "b"]))
    assert entries.names == ("good", "poor")
    assert entries.ids == {"a", "b"}
    assert len(entries.regions("good", "a", SIZE)) == 7
    assert len(entries.regions("good", "z", SIZE)) == 0
    with pytest.raises(BadData, match="is of other pictures"):
        entries.regions("good", "a", (HEIGHT, 10))
    with pytest.raises(UsageError, match="has no entries/NAME"):
        Entries.open(tmp_path)


def test_segmenting_goes_on_where_it_stopped(tmp_path, monkeypatch):
    photos = make_photos(tmp_path / "photos", ["a", "b"])
    named = [(path.stem, path) for path in sorted(photos.iterdir())]
    segmenters = {"fh": Segmenter.of("felzenszwalb", {"scales": 2})}
    first = segment_entries(named, segmenters, tmp_path / "work", print, print)
    table = (tmp_path / "work" / "entries" / "fh" / "regions.parquet").read_bytes()
    monkeypatch.setattr(Segmenter, "segment_image", lambda *_: pytest.fail("computed again"))
    again = segment_entries(named, segmenters, tmp_path / "work", print, print)
    assert again == first
    assert (tmp_path / "work" / "entries" / "fh" / "regions.parquet").read_bytes() == table


# -- order --------------------------------------------------------------------------------------------------------


def test_images_on_which_entries_differ_come_earlier_and_weigh_less(tmp_path):
    ids = [f"image{number:03d}" for number in range(300)]
    rng = np.random.default_rng(0)
    difference = dict(zip(ids, rng.uniform(0.05, 0.6, len(ids)).tolist(), strict=True))
    order = Order(difference)
    assert sorted(order.ids) == ids
    assert Order(dict(reversed(difference.items()))).ids == order.ids
    first, last = (np.mean([difference[i] for i in some]) for some in (order.ids[:100], order.ids[-100:]))
    assert first > last + 0.1
    weights = order.weights(order.ids[:30])
    assert min(weights.values()) >= 1
    large, small = sorted(order.ids[:30], key=lambda i: -difference[i])[::29]
    assert weights[large] < weights[small]
    assert sum(weights.values()) == pytest.approx(len(ids), rel=0.35)
    assert set(order.weights(ids).values()) == {1.0}, "all images: each stands for itself"
    assert order.weights([order.ids[-1]]) == {order.ids[-1]: 1.0}, "out of turn"


def test_the_weighted_mean_is_that_of_all_images():
    """Values that grow with the difference: the plain mean of the first images is biased, the weighted one is not."""
    rng = np.random.default_rng(1)
    plain, weighted, truth = [], [], []
    for repetition in range(200):
        values = rng.uniform(0.05, 0.5, 60)
        difference = {f"{repetition}-{number}": value for number, value in enumerate(values.tolist())}
        order = Order(difference)
        weights = order.weights(order.ids[:15])
        some = [difference[i] for i in weights]
        plain.append(np.mean(some))
        weighted.append(np.average(some, weights=list(weights.values())))
        truth.append(values.mean())
    assert np.mean(plain) - np.mean(truth) > 0.04
    assert abs(np.mean(weighted) - np.mean(truth)) < 0.008


def test_differences_from_regions(tmp_path):
    run = make_run(tmp_path / "run", ["a", "b"])
    computed = differences(Entries.open(run))
    assert all(0.3 < value < 0.9 for value in computed.values())
    one = make_run(tmp_path / "one", ["b", "a"])
    (one / "entries" / "poor" / "regions.parquet").unlink()
    assert Order(differences(Entries.open(one))).ids == ["a", "b"]


# -- ranking ------------------------------------------------------------------------------------------------------


def scores(difference: float, spread: float, images: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    base = rng.uniform(0.4, 0.8, images)
    return np.stack([base, base - difference + rng.normal(0, spread, images)], axis=1)


def ranked(table: np.ndarray, waiting: int = 50, margin: float = 0.01):
    ids = [f"i{number}" for number in range(len(table))]
    return rank(table, np.ones(len(table)), ids, ["a", "b"][: table.shape[1]], waiting, margin)


def test_when_to_stop_and_why():
    assert ranked(np.zeros((0, 2))).sentence == "No image is done yet."
    few = ranked(scores(0.1, 0.02, 3))
    assert (few.stop, few.sentence) == (False, "a leads, but 3 images say little. Label at least 5.")
    clear = ranked(scores(0.1, 0.05, 15))
    assert (clear.stop, clear.sentence) == (True, "You can stop: a is best.")
    assert [standing.state for standing in clear.standings] == ["leads", "behind"]
    close = ranked(scores(0.0, 0.005, 15))
    assert close.stop
    assert "is best, or at most 0.00" in close.sentence
    assert "can't be told apart from " in close.sentence
    unsure = ranked(scores(0.02, 0.1, 10, seed=4))
    assert not unsure.stop
    assert unsure.sentence.startswith("Go on: ")
    assert ranked(scores(0.02, 0.1, 10, seed=4), waiting=0).sentence.startswith("All images are done.")
    assert "one entry" in ranked(scores(0.1, 0.05, 15)[:, :1]).sentence


def test_intervals_shrink_and_hold_the_true_difference():
    widths = [np.diff([(s := ranked(scores(0.05, 0.08, images)).standings[1]).low, s.high])[0] for images in (6, 12, 48)]
    assert widths[0] > widths[1] > widths[2]
    inside = 0
    for seed in range(100):
        result = ranked(scores(0.05, 0.08, 15, seed=seed))
        by_name = {standing.entry: standing for standing in result.standings}
        standing = by_name["b"] if result.standings[0].entry == "a" else by_name["a"]
        truth = -0.05 if standing.entry == "b" else 0.05
        inside += standing.low <= truth <= standing.high
    assert inside >= 90


def test_the_ranking_is_that_of_uss_score(tmp_path):
    from uss_dagster.artifacts.mask_readers import open_masks
    from uss_dagster.scoring.ground_truth import read_truth
    from uss_dagster.scoring.masks import score_masks

    bench = make_bench(tmp_path, ["a", "b", "c"])
    labels = fields()
    for number, image_id in enumerate("abc"):
        masks = [np.roll(np.isin(labels, values), 3 * number, axis=1) for values in ((2, 3), (3,), (4,))]
        bench.document.change(image_id, 0, [(None, "thing", code_of(mask)) for mask in masks], done=True)
    now = bench.ranking()["now"]
    assert [standing["entry"] for standing in now["standings"]] == ["good", "poor"]
    truth = read_truth(tmp_path / "annotations.json", "annotators")
    for standing in now["standings"]:
        prediction = open_masks(tmp_path / "run" / "entries" / standing["entry"] / "regions.parquet")
        result = score_masks(prediction, truth, ["covering"], ["full"], 0, print)
        assert standing["value"] == pytest.approx(next(row["value"] for row in result.rows), abs=1e-12)


def test_an_image_without_instances_has_no_score(tmp_path):
    bench = make_bench(tmp_path, ["a", "b"])
    bench.document.change("a", 0, [], done=True)
    assert bench.ranking()["now"]["images"] == 0
    bench.document.change("b", 0, [(None, "x", code_of(fields() == 4))], done=True)
    assert bench.ranking()["now"]["images"] == 1

"""Scores that are estimated without labels: descriptions of regions, candidates, the model and its file."""

from __future__ import annotations

import numpy as np
import pytest

from uss_dagster.metrics.unlabelled.describe import NAMES, describe
from uss_dagster.metrics.unlabelled.picture import LONG_SIDE, PictureGrid, grid_shape
from uss_dagster.metrics.unlabelled.rank_model import ANNOTATED, FEATURES, RankModel, expected, expected_scores, load_model
from uss_dagster.metrics.unlabelled.votes import LEAST, MEASURES, MOST, THRESHOLDS, WHOLE, Candidates, largest, measures
from uss_dagster.own_images.entries import read_entries
from uss_dagster.regions import Regions

SQUARE = (slice(20, 60), slice(30, 90))


def scene(noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """A red field of 40 × 60 on blue, 96 × 192, and tokens that tell the two apart, 24 × 48."""
    image = np.full((96, 192, 3), (30, 60, 200), np.uint8)
    image[SQUARE] = (200, 40, 30)
    tokens = np.zeros((24, 48, 4))
    tokens[..., 0] = 1
    tokens[5:15, 8:23] = (0, 1, 0, 0)
    return image, tokens + noise * np.random.default_rng(0).normal(size=tokens.shape)


def mask(rows: slice, columns: slice, shape: tuple[int, int] = (96, 192)) -> np.ndarray:
    region = np.zeros(shape, bool)
    region[rows, columns] = True
    return region


def described(*masks: np.ndarray) -> list[dict[str, float]]:
    image, tokens = scene()
    return [dict(zip(NAMES, row, strict=True)) for row in describe(PictureGrid.of(image, tokens), np.array(masks)).tolist()]


def test_a_field_that_stands_out():
    (field,) = described(mask(*SQUARE))
    assert field["log_share"] == pytest.approx(np.log(40 * 60 / (96 * 192)))
    assert field["colour_spread"] < 0.01
    assert field["feature_contrast_near"] > 4, "its tokens are others than those around it"
    assert field["colour_contrast_near"] > 4
    assert field["border_share"] == 0
    assert field["edge_strength"] > 4
    assert field["edge_share"] == 1
    assert field["edges_inside"] < 0.5
    assert field["roughness"] == pytest.approx((2 * 40 + 2 * 60 - 4) / np.sqrt(40 * 60))


def test_a_region_across_the_border_of_the_field_is_told_apart():
    field, across = described(mask(*SQUARE), mask(slice(0, 96), slice(60, 192)))
    assert across["feature_spread"] > field["feature_spread"] + 0.1
    assert across["colour_spread"] > field["colour_spread"] + 0.1
    assert across["edge_strength"] < field["edge_strength"]
    assert across["border_share"] == pytest.approx((132 / 192 + 132 / 192 + 0 + 1) / 4)


def test_spread_and_contrast_by_brute_force():
    image, tokens = scene(0.3)
    picture = PictureGrid.of(image, tokens)
    region = mask(slice(10, 50), slice(20, 100))
    (row,) = describe(picture, region[None])
    mean = picture.features[region].mean(axis=0)
    assert row[NAMES.index("feature_spread")] == pytest.approx(((picture.features[region] - mean) ** 2).sum(axis=1).mean(), abs=1e-4)
    far = ((picture.features[~region].mean(axis=0) - mean) ** 2).sum()
    assert row[NAMES.index("feature_contrast_far")] == pytest.approx(far, abs=1e-4)
    assert row[NAMES.index("edges_inside")] == pytest.approx(picture.edges[12:48, 22:98].mean(), rel=1e-4)


def test_the_grid_is_centred_and_of_one_size():
    picture = PictureGrid.of(*scene(0.2))
    assert picture.shape == (96, 192)
    for cells in (picture.features, picture.colours):
        assert np.abs(cells.mean(axis=(0, 1))).max() < 1e-9
        assert (cells**2).sum(axis=2).mean() == pytest.approx(1)
    assert picture.edges.mean() == pytest.approx(1)
    assert grid_shape((3000, 1000)) == (LONG_SIDE, 64)
    assert grid_shape((10, 5000)) == (1, LONG_SIDE)


def test_a_picture_without_any_difference_has_finite_descriptions():
    picture = PictureGrid.of(np.full((40, 60, 3), 99, np.uint8), np.ones((4, 6, 8)))
    assert np.isfinite(describe(picture, mask(slice(10, 50), slice(20, 90), picture.shape)[None])).all()


# -- candidates ---------------------------------------------------------------------------------------


def tree() -> Regions:
    leaves = np.zeros((96, 192), int)
    leaves[:, 96:] = 1
    leaves[SQUARE] = 2
    return Regions.from_tree(np.array([1, 2, 3])[leaves], [-1, 0, 0, 1], level=[3, 2, 2, 0])


def test_candidates_are_the_largest_regions_without_the_whole_picture():
    sizes = np.array([mask(slice(0, 96), slice(0, 192)), mask(slice(0, 96), slice(0, 100)), mask(slice(0, 1), slice(0, 2)), mask(*SQUARE)])
    assert largest(Regions.from_masks(sizes)).tolist() == [1, 3]
    assert WHOLE > 100 / 192 > LEAST > 2 / 96 / 192
    many = Regions.from_masks([mask(slice(0, 40), slice(start, start + 30)) for start in range(40)])
    assert len(largest(many)) == MOST


def test_best_iou_of_every_entry_with_every_candidate_by_brute_force():
    families = [tree(), Regions.from_masks([mask(*SQUARE), mask(slice(0, 50), slice(0, 192))]), Regions.from_masks([], shape=(96, 192))]
    candidates = Candidates.of(families, (96, 192))
    assert candidates.entry.tolist() == [0, 0, 0, 1, 1]
    for entry, family in enumerate(families):
        for number, candidate in enumerate(candidates.masks):
            ious = [(m & candidate).sum() / (m | candidate).sum() for m in family.masks() if m.mean() < WHOLE]
            assert candidates.nested[entry, number] == pytest.approx(max(ious, default=0))
    assert (candidates.flat <= candidates.nested + 1e-12)[0].all()
    assert not candidates.nested[2].any()


def test_measures_of_one_best_iou():
    values = measures(np.array([0.49, 0.5, 0.77]), np.array([0.1, 0.2, 0.3]))
    assert tuple(values) == MEASURES
    assert values["objects"].tolist() == [0, 1, 1]
    assert values["scenes"].tolist() == [0.1, 0.2, 0.3]
    assert values["masks"].tolist() == pytest.approx([0, 0.1, np.mean(THRESHOLDS <= 0.77)])


# -- the model ----------------------------------------------------------------------------------------


def test_entries_of_one_method_share_one_vote():
    covered = {"parts": np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])}
    alone = expected(covered, np.ones(3), np.array([0, 1, 2]), ["a", "b", "c"])["parts"]
    assert alone.tolist() == pytest.approx([2 / 3, 2 / 3, 1 / 3])
    shared = expected(covered, np.ones(3), np.array([0, 1, 2]), ["a", "a", "c"])["parts"]
    assert shared.tolist() == pytest.approx([1 / 2, 1 / 2, 1 / 2])


def test_without_a_candidate_nothing_is_expected():
    image, tokens = scene()
    nothing = [Regions.from_masks([], shape=(96, 192)), Regions.from_masks([mask(slice(0, 96), slice(0, 192))])]
    assert all(np.isnan(values).all() for values in expected_scores(image, tokens, nothing, ["a", "b"], "patches").values())


@pytest.mark.parametrize("features", FEATURES)
def test_the_field_is_likelier_to_be_annotated_than_a_region_across_it(features):
    image, tokens = scene(0.02)
    masks = np.array([mask(*SQUARE), mask(slice(40, 70), slice(70, 110)), mask(slice(0, 30), slice(0, 60))])
    field, *others = load_model(features).chance(describe(PictureGrid.of(image, tokens), masks))
    assert field > 2 * max(others)


@pytest.mark.parametrize("features", FEATURES)
def test_the_entry_that_has_the_field_is_expected_to_be_better(features):
    image, tokens = scene(0.02)
    good = Regions.from_masks([mask(*SQUARE), ~mask(*SQUARE)])
    bad = Regions.from_masks([mask(slice(0, 48), slice(0, 192)), mask(slice(48, 96), slice(0, 192))])
    for values in expected_scores(image, tokens, [bad, good, tree()], ["a", "b", "c"], features).values():
        assert values[1] > values[0]


def test_a_fit_finds_what_decides():
    rng = np.random.default_rng(0)
    columns = rng.normal(size=(4000, len(NAMES)))
    iou = np.where(columns[:, 1] + 0.1 * rng.normal(size=4000) < 0, ANNOTATED, 0.1)
    model = RankModel.fit(columns, iou, np.ones(4000))
    assert np.argmax(np.abs(model.weights)) == 1
    assert model.weights[1] < 0
    assert ((model.chance(columns) > 0.5) == (iou >= ANNOTATED)).mean() > 0.95


@pytest.mark.parametrize("features", FEATURES)
def test_the_file_says_what_it_was_tested_on(features):
    model = load_model(features)
    entries = read_entries(deep=features == "deep")
    assert {(row["dataset"], row["measure"]) for row in model.left_out} == {
        (dataset, measure) for dataset in ("bsds500", "voc2012", "coco", "camvid", "pascal_part", "scenes") for measure in MEASURES
    }
    for measure in MEASURES:
        assert set(model.experience[measure]) == {entry.kind for entry in entries}
        assert model.experience_of(measure, [entry.kind for entry in entries]).sum() == pytest.approx(0, abs=0.01)
        assert 0 < model.error[measure] < 0.15
    assert {row["chosen"] for row in model.left_out} <= {entry.name for entry in entries}


def test_leaving_a_dataset_out_the_ranking_holds():
    """The table of docs/recommend.md, from the file: tau and regret over six datasets, seventeen entries."""
    rows = load_model("deep").left_out
    tau = {measure: np.mean([row["tau"] for row in rows if row["measure"] == measure]) for measure in MEASURES}
    assert tau["masks"] >= 0.6
    assert np.mean([row["regret"] for row in rows if row["measure"] == "parts"]) <= 0.015
    assert all(row["entries"] == 17 for row in rows)

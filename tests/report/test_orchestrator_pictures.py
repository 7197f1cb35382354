"""Pictures for the orchestrator's page: features by their principal components, the leaderboard's intervals."""

import numpy as np
from small_benchmark import DATASETS, ENTRIES, METRICS

from uss_dagster.report import leaderboard
from uss_dagster.report.feature_maps import principal_colours
from uss_dagster.report.leaderboard_plot import leaderboard_picture


def test_principal_colours_agree_with_a_singular_value_decomposition():
    random = np.random.default_rng(0)
    axes = np.linalg.qr(random.normal(size=(6, 6)))[0]
    maps = [(random.normal(size=(h, w, 6)) * [9, 5, 3, 0.1, 0.1, 0.1]) @ axes + 4 for h, w in ((12, 15), (9, 20))]
    first, second = principal_colours(maps)
    assert (first.shape, second.shape, first.dtype) == ((12, 15, 3), (9, 20, 3), np.uint8)
    rows = np.concatenate([one.reshape(-1, 6) for one in maps])
    rows = rows - rows.mean(axis=0)
    expected = rows @ np.linalg.svd(rows, full_matrices=False)[2][:3].T
    colours = np.concatenate([first.reshape(-1, 3), second.reshape(-1, 3)]).astype(float)
    for component in range(3):
        assert abs(np.corrcoef(colours[:, component], expected[:, component])[0, 1]) > 0.99


def test_flat_and_thin_features_have_colours_too():
    (flat,) = principal_colours([np.ones((2, 3, 4))])
    assert flat.shape == (2, 3, 3)
    (thin,) = principal_colours([np.arange(6.0).reshape(2, 3, 1)])
    assert (thin[..., 1:] == 128).all()
    assert thin[0, 0, 0] == 0
    assert thin[1, 2, 0] == 255


def test_the_leaderboard_as_a_picture_is_the_same_each_time(cells):
    frame = leaderboard.build(cells, ENTRIES, DATASETS, METRICS)
    drawn = leaderboard_picture(frame)
    assert drawn is not None
    assert drawn[1:4] == b"PNG"
    assert leaderboard_picture(frame) == drawn
    assert leaderboard_picture(frame.iloc[:0]) is None

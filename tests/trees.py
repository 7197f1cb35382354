"""What holds of every tree of regions, whichever method grew it."""

from __future__ import annotations

import numpy as np

from uss_dagster.regions import Regions


def check_tree(regions: Regions, shape: tuple[int, ...]) -> None:
    """One root that is the image; two or more children tile their parent; levels and scores are finite, and levels never rise on the way down."""
    assert regions.shape == shape
    assert regions.is_root.tolist() == [True] + [False] * (len(regions) - 1)
    assert (regions.area > 0).all()
    assert np.isfinite(regions.level).all()
    assert np.isfinite(regions.score).all()
    assert (regions.level[1:] <= regions.level[regions.parent[1:]]).all()
    for region in np.unique(regions.parent[1:]):
        children = np.flatnonzero(regions.parent == region)
        assert len(children) > 1
        assert regions.members[children].sum(axis=0).tolist() == regions.members[region].astype(int).tolist()

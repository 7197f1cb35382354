"""On real photographs merging must beat plain clustering of the same tokens. Needs the mirror of BSDS500 (USS_MIRROR)."""

from __future__ import annotations

import io

import numpy as np
import pytest

from uss_dagster import registry
from uss_dagster.backbones.base import Features
from uss_dagster.datasets.base import Sample, mirror_folder
from uss_dagster.metrics import covering
from uss_dagster.metrics.base import Accumulator, Truth
from uss_dagster.regions import Regions


@pytest.mark.slow
def test_merging_beats_clustering_of_the_same_tokens() -> None:
    from PIL import Image
    from scipy.io import loadmat
    from skimage.color import rgb2lab

    folder = mirror_folder("bsds500")
    if folder is None:
        pytest.skip("BSDS500 IS NOT HERE: set USS_MIRROR to a folder that holds bsds500/ to run this test.")
    scores = {name: Accumulator(covering.measure, covering.reduce) for name in ("kmeans", "slic_merge")}
    for path in sorted((folder / "data" / "groundTruth" / "test").glob("*.mat"))[:6]:
        picture = folder / "data" / "images" / "test" / f"{path.stem}.jpg"
        image = np.asarray(Image.open(io.BytesIO(picture.read_bytes())).convert("RGB"))
        tokens = rgb2lab(image[2::4, 2::4]).astype(np.float32)
        cells = loadmat(path)["groundTruth"][0]
        maps = [cell["Segmentation"][0, 0] for cell in cells]
        masks = [m == value for m in maps for value in np.unique(m)]
        source = [f"annotator{i}" for i, m in enumerate(maps) for _ in np.unique(m)]
        truth = Truth("annotators", Regions.from_masks(masks, source=source))
        given = Sample(path.stem, image, Features({"tokens": tokens}))
        for name, accumulator in scores.items():
            method = registry.load("method", name)
            accumulator.update(path.stem, truth, method.segment(given, method.SPEC.params()))
    nm = {name: accumulator.result()["nm_covering_annotators"] for name, accumulator in scores.items()}
    assert nm["slic_merge"] > nm["kmeans"] + 0.05, nm

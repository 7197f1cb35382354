"""Codes and boxes made from runs of atoms are those that pycocotools makes from masks."""

import numpy as np
import pytest
from pycocotools import mask as coco

from uss_dagster.regions import Regions, rle


def test_codes_and_boxes_equal_those_of_the_masks():
    rng = np.random.default_rng(0)
    for _ in range(400):
        height, width = rng.integers(1, 30, 2)
        masks = rng.random((rng.integers(1, 5), height, width)) < rng.choice([0.0, 0.02, 0.5, 0.98, 1.0])
        masks = np.kron(masks, np.ones((1, rng.integers(1, 20), rng.integers(1, 20)))) > 0
        regions = Regions.from_masks(masks)
        codes = rle.encode(masks)
        assert regions.rles() == codes
        size = list(masks.shape[1:])
        assert np.array_equal(regions.boxes, coco.toBbox([{"size": size, "counts": code} for code in codes]))


@pytest.mark.parametrize("run", [0, 1, 15, 16, 17, 511, 512, 16383, 16384, 2**19 - 1, 2**19, 2**24])
def test_runs_of_every_length_come_back(run):
    lengths = np.array([run, 3, 1, run + 2, 2 * run, 1])
    assert np.array_equal(rle.runs(rle.encode_runs(lengths)), lengths)


def test_areas_of_more_codes_than_a_byte_counts():
    masks = np.arange(300)[:, None, None] > np.arange(300).reshape(1, 15, 20)
    codes = rle.encode(masks)
    assert rle.areas(codes, 15, 20).tolist() == list(range(300))
    assert rle.areas([], 15, 20).shape == (0,)

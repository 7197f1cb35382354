"""The segmenter: one driver of fit and segment for stages and commands."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from uss_dagster import registry
from uss_dagster.artifacts.image_files import encode_png
from uss_dagster.artifacts.images import ImageShards
from uss_dagster.artifacts.schemas import IMAGES
from uss_dagster.artifacts.tables import write_table
from uss_dagster.backbones.base import Encoder
from uss_dagster.datasets.base import Sample
from uss_dagster.errors import BadData, UsageError
from uss_dagster.methods import felzenszwalb
from uss_dagster.regions import Regions
from uss_dagster.segmenter import Samples, Segmenter, few_regions_warning

PATCHES = Encoder.of("patches", {"dictionary": False, "facets": ["tokens"]})


def image(seed: int, height: int = 40, width: int = 60) -> np.ndarray:
    """Uint8 (height, width, 3): a bright box on a dark ground, with noise."""
    rng = np.random.default_rng(seed)
    pixels = np.full((height, width, 3), 40)
    pixels[height // 4 : height // 2, width // 4 : width // 2] = rng.integers(120, 240, 3)
    return (pixels + rng.integers(0, 9, pixels.shape)).astype(np.uint8)


def assert_equal(first: Regions, second: Regions) -> None:
    np.testing.assert_array_equal(first.masks(), second.masks())
    np.testing.assert_array_equal(first.parent, second.parent)


def write_images(folder: Path, count: int) -> list[str]:
    """The ``images`` folder of a dataset artefact; returns its ids."""
    shards = ImageShards(folder)
    ids = [f"i{number}" for number in range(count)]
    for number, image_id in enumerate(ids):
        shards.add(image_id, encode_png(image(number)), ".png", 40, 60, "train")
    shards.close()
    write_table(folder / "images.parquet", shards.table(), IMAGES)
    return ids


def test_a_sample_is_segmented_as_the_method_does() -> None:
    segmenter = Segmenter.of("felzenszwalb", {"scales": 2})
    sample = segmenter.sample("a", image(0))
    assert sample.features is None
    assert_equal(segmenter.segment(sample), felzenszwalb.segment(sample, segmenter.params).pruned())


def test_a_large_image_is_reduced_and_its_regions_brought_back() -> None:
    segmenter = Segmenter.of("felzenszwalb", {"scales": 2}, long_side=30)
    sample = segmenter.sample("a", image(0))
    assert sample.image.shape == (20, 30, 3)
    assert_equal(segmenter.segment_image("a", image(0)), segmenter.segment(sample).resized(40, 60).pruned())
    assert segmenter.sample("a", image(0, 20, 30)).image.shape == (20, 30, 3)


def test_features_are_computed_for_methods_that_read_them() -> None:
    segmenter = Segmenter.of("kmeans", {"k": 3}, PATCHES)
    sample = segmenter.sample("a", image(0))
    np.testing.assert_array_equal(sample.features["tokens"], PATCHES([image(0)])[0]["tokens"])
    assert segmenter.segment(sample).shape == (40, 60)
    assert not segmenter.on_device


def test_a_fitted_segmenter_pickles_and_gives_the_same_regions() -> None:
    segmenter = Segmenter.of("token_kmeans", {}, PATCHES)
    assert segmenter.state_digest == ""
    samples = [segmenter.sample(str(number), image(number)) for number in range(4)]
    fitted = segmenter.fit(samples)
    assert segmenter.state is None, "the segmenter itself is not changed"
    copy = pickle.loads(pickle.dumps(fitted))
    assert copy.state_digest == fitted.state_digest != ""
    assert_equal(
        copy.segment(samples[1]), registry.load("method", "token_kmeans").segment(samples[1], fitted.params, fitted.state).pruned()
    )


def test_a_method_without_fit_stays_as_it_is() -> None:
    segmenter = Segmenter.of("felzenszwalb", {})
    assert segmenter.fit([]) is segmenter


def test_regions_of_another_size_and_missing_regions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter = Segmenter.of("felzenszwalb", {})
    sample = segmenter.sample("a", image(0))
    monkeypatch.setattr(felzenszwalb, "segment", lambda *_: Regions.from_masks(np.ones((1, 5, 5), bool)))
    with pytest.raises(BadData, match=r"gave regions of \(5, 5\) for image 'a' of \(40, 60\)"):
        segmenter.segment(sample)
    monkeypatch.setattr(felzenszwalb, "segment", lambda *_: Regions.from_masks([], shape=(40, 60)))
    with pytest.raises(BadData, match="gave no region for image 'a'"):
        segmenter.segment(sample)
    assert len(segmenter.segment(sample, allow_empty=True)) == 0
    assert len(segmenter.segment_image("a", image(0))) == 0


def test_wrong_parameters_are_refused() -> None:
    with pytest.raises(UsageError, match="has no parameter 'scale'"):
        Segmenter.of("felzenszwalb", {"scale": 2})


def test_modules_are_those_whose_code_decides() -> None:
    assert Segmenter.of("kmeans", {}, PATCHES).modules() == [
        "uss_dagster.segmenter",
        "uss_dagster.methods.kmeans",
        "uss_dagster.backbones.patches",
    ]


def test_samples_of_a_dataset_can_be_iterated_again(tmp_path: Path) -> None:
    ids = write_images(tmp_path, 3)
    samples = Samples(ids[::-1], tmp_path, encoder=PATCHES)
    assert len(samples) == 3
    for _ in range(2):
        read: list[Sample] = list(samples)
        assert [sample.image_id for sample in read] == ["i2", "i1", "i0"]
        np.testing.assert_array_equal(read[0].image, image(2))
        assert read[0].features is None
        assert read[0].encode is PATCHES


def test_a_method_that_finds_nothing_on_most_images_says_so():
    assert few_regions_warning("unsam", [5, 1, 9]) == ""
    assert few_regions_warning("unsam", []) == ""
    assert few_regions_warning("unsam", [1, 1, 9]).startswith("Method 'unsam' found nothing but the whole image in 2 of 3 images.")

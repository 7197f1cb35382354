"""BSDS500: every annotator's segmentation, exactly, from either folder layout; clear sentences where something is missing."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat, savemat

from uss_dagster import registry
from uss_dagster.artifacts.image_files import decode
from uss_dagster.datasets import bsds500
from uss_dagster.errors import BadData, Unavailable, UsageError


@pytest.fixture
def mirror() -> Path:
    root = os.environ.get("USS_MIRROR")
    if not root or not (Path(root) / "bsds500").is_dir():
        pytest.skip("NOT TESTED on real BSDS500 data: set USS_MIRROR to a folder that holds bsds500/.")
    return Path(root) / "bsds500"


def write_image(data: Path, image_id: str, labels: list[np.ndarray], size: tuple[int, int] | None = None, split: str = "test") -> None:
    """One picture and its ground truth in the official layout."""
    for kind in ("images", "groundTruth"):
        (data / kind / split).mkdir(parents=True, exist_ok=True)
    height, width = size or labels[0].shape
    Image.new("RGB", (width, height), (90, 120, 30)).save(data / "images" / split / f"{image_id}.jpg")
    cells = np.empty((1, len(labels)), object)
    for k, one in enumerate(labels):
        cells[0, k] = {"Segmentation": one.astype(np.uint16), "Boundaries": np.zeros(one.shape, np.uint8)}
    savemat(data / "groundTruth" / split / f"{image_id}.mat", {"groundTruth": cells})


def label_map(truth, number: int) -> np.ndarray:
    """The label map of one annotator, rebuilt: 1, 2, … in the order of its regions, 0 for none."""
    rebuilt = np.zeros(truth.shape, int)
    own = [i for i, s in enumerate(truth.source) if s == f"annotator{number:02d}"]
    for value, region in enumerate(own, start=1):
        mask = truth.mask(region)
        assert not rebuilt[mask].any(), "regions of one annotator are disjoint"
        rebuilt[mask] = value
    return rebuilt


def ranked(labels: np.ndarray) -> np.ndarray:
    """Labels renumbered 1, 2, … in ascending order; 0 stays 0."""
    values = np.unique(labels[labels > 0])
    return np.where(labels > 0, np.searchsorted(values, labels) + 1, 0)


def test_the_real_sample_is_read_whole(mirror):
    count, previous = 0, ""
    for e in bsds500.examples(bsds500.Params()):
        count += 1
        assert e.image_id > previous
        previous = e.image_id
        annotators = sorted(set(e.truth.source))
        assert annotators == [f"annotator{k:02d}" for k in range(len(annotators))]
        assert 4 <= len(annotators) <= 8
        assert (e.truth.parent == -1).all()
        assert (e.truth.area > 0).all()
        assert e.truth.shape in ((321, 481), (481, 321))
    assert count == len((mirror / "ids.txt").read_text().split()) == 100


def test_label_maps_come_back_exactly(mirror):
    for e in bsds500.examples(bsds500.Params(limit=4)):
        assert e.image == (mirror / "data/images/test" / f"{e.image_id}.jpg").read_bytes()
        assert decode(e.image, e.image_id).shape[:2] == e.truth.shape
        cells = loadmat(mirror / "data/groundTruth/test" / f"{e.image_id}.mat")["groundTruth"][0]
        for number, cell in enumerate(cells):
            assert np.array_equal(label_map(e.truth, number), ranked(cell["Segmentation"][0, 0].astype(int)))
        # Atoms are as few as they can be: one a distinct column of the stacked maps.
        stacked = np.stack([c["Segmentation"][0, 0].ravel() for c in cells])
        assert e.truth.members.shape[1] == np.unique(stacked, axis=1).shape[1]


def test_regions_are_made_quickly(mirror):
    path = sorted((mirror / "data/groundTruth/test").glob("*.mat"))[0]
    labels = [c["Segmentation"][0, 0].astype(np.int64) for c in loadmat(path)["groundTruth"][0]]
    start = time.process_time()
    bsds500.regions_of_annotators(labels)
    assert time.process_time() - start < 0.2  # about 0.01 s on an idle core


def test_atoms_agree_with_brute_force_on_random_maps():
    rng = np.random.default_rng(0)
    for _ in range(20):
        labels = [rng.integers(0, rng.integers(1, 6) + 1, (7, 9)) * int(rng.integers(1, 40)) for _ in range(int(rng.integers(1, 5)))]
        truth = bsds500.regions_of_annotators(labels)
        expected = [(k, one == v) for k, one in enumerate(labels) for v in np.unique(one) if v > 0]
        assert list(truth.source) == [f"annotator{k:02d}" for k, _ in expected]
        assert all(np.array_equal(truth.mask(i), mask) for i, (_, mask) in enumerate(expected))
        assert truth.members.shape[1] == np.unique(np.stack([m.ravel() for m in labels]), axis=1).shape[1]


@pytest.mark.parametrize("layout", ["data", "BSR/BSDS500/data", "BSDS500/data"])
def test_either_layout_is_found_and_a_limit_takes_the_lowest_numbers(tmp_path, monkeypatch, layout):
    monkeypatch.setenv("USS_MIRROR", str(tmp_path))
    for image_id in ("1001", "99", "100"):
        write_image(tmp_path / "bsds500" / layout, image_id, [np.ones((6, 8), int), np.arange(48).reshape(6, 8) // 16], split="val")
    found = list(bsds500.examples(bsds500.Params(split="val", limit=2)))
    assert [e.image_id for e in found] == ["100", "99"], "the two lowest numbers, in the order of text that all artefacts keep"
    assert found[0].split == "val"
    assert found[0].truth.source == ("annotator00", "annotator01", "annotator01")  # label 0 of the second map is no region
    assert found[0].truth.area.tolist() == [48, 16, 16]


def test_without_a_mirror_one_sentence_says_what_to_fetch(monkeypatch, tmp_path):
    monkeypatch.delenv("USS_MIRROR", raising=False)
    with pytest.raises(Unavailable, match=r"USS_MIRROR is not set.*BSR_bsds500\.tgz.*BSDS500 page of the Berkeley Computer Vision Group"):
        next(bsds500.examples(bsds500.Params()))
    monkeypatch.setenv("USS_MIRROR", str(tmp_path))
    with pytest.raises(Unavailable, match="has no folder 'bsds500'"):
        next(bsds500.examples(bsds500.Params()))
    (tmp_path / "bsds500").mkdir()
    with pytest.raises(BadData, match="has neither data/images"):
        next(bsds500.examples(bsds500.Params()))


def test_a_mask_of_another_size_is_refused_by_image(tmp_path, monkeypatch):
    monkeypatch.setenv("USS_MIRROR", str(tmp_path))
    write_image(tmp_path / "bsds500/data", "42", [np.ones((6, 8), int), np.ones((8, 6), int)], size=(6, 8))
    with pytest.raises(BadData, match="image 42 is 8×6 pixels, but its annotator 1 drew on 6×8"):
        next(bsds500.examples(bsds500.Params()))


def test_missing_and_damaged_ground_truth_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("USS_MIRROR", str(tmp_path))
    data = tmp_path / "bsds500/data"
    write_image(data, "42", [np.ones((6, 8), int)])
    mat = data / "groundTruth/test/42.mat"
    whole = mat.read_bytes()
    mat.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadData, match=r"42\.mat is not a BSDS500 ground truth file"):
        next(bsds500.examples(bsds500.Params()))
    mat.unlink()
    with pytest.raises(BadData, match="image 42 has no ground truth"):
        next(bsds500.examples(bsds500.Params()))
    with pytest.raises(BadData, match=r"holds no <number>\.jpg"):
        next(bsds500.examples(bsds500.Params(split="train")))


def test_spec_and_parameters():
    assert bsds500.SPEC.counts == {"train": 200, "val": 100, "test": 200}
    assert "33(5), 2011" in bsds500.SPEC.citation
    for values, text in (({"split": "tests"}, "Did you mean 'test'"), ({"limit": 0}, "limit is 0")):
        with pytest.raises(UsageError, match=text):
            registry.build_params(bsds500.Params, values, "dataset 'bsds500'")
    assert registry.build_params(bsds500.Params, {"limit": None}, "x") == bsds500.Params()

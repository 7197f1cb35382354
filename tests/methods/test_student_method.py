"""The method `student`, and UnSAM with a student in the place of its divide stage."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from students import drawn, small_student

from uss_dagster import registry
from uss_dagster.backbones.base import Encoder
from uss_dagster.datasets.base import Sample
from uss_dagster.errors import BadData, UsageError
from uss_dagster.methods import _unsam_leaves, _unsam_patches, student, unsam
from uss_dagster.methods._unsam_params import Pool
from uss_dagster.regions import Regions


def test_a_tree_of_masks_below_the_whole_image():
    image, _ = drawn(5)
    params = student.Params(model=str(small_student()), auto="union", grid=3, most=7)
    state = student.fit([], params)
    assert len(state.digest) == 64
    regions = student.segment(Sample("i", image), params, state)
    assert 2 <= len(regions) <= 8
    assert regions.shape == image.shape[:2]
    assert (regions.parent[0], int(regions.area[0])) == (-1, image.shape[0] * image.shape[1])
    assert all(0 <= parent < region for region, parent in enumerate(regions.parent.tolist()) if region)
    again = student.segment(Sample("i", image), params, state)
    assert regions.rles() == again.rles()
    few = student.segment(Sample("i", image), student.Params(model=str(small_student()), most=3))
    assert len(few) <= 4


def test_weights_that_were_replaced_meanwhile_are_refused(tmp_path):
    folder = shutil.copytree(small_student(), tmp_path / "model")
    params = student.Params(model=str(folder))
    with pytest.raises(BadData, match="was replaced while it was in use"):
        student.segment(Sample("i", drawn(0)[0]), params, student.Weights("0" * 64))


def test_what_is_no_student_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(UsageError, match="no model is named"):
        student.fit([], student.Params())
    with pytest.raises(BadData, match=r"is not a student: it has no config\.json"):
        student.fit([], student.Params(model=str(tmp_path)))
    folder = shutil.copytree(small_student(), tmp_path / "model")
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(BadData, match=r"model\.safetensors' is not the file that its config\.json was written for"):
        student.fit([], student.Params(model=str(folder)))


def test_masks_take_the_leaves_that_lie_in_them_by_half():
    labels = np.repeat(np.repeat(np.arange(12).reshape(3, 4), 5, 0), 4, 1)  # 12 leaves of 5 × 4
    leaves = _unsam_leaves.Leaves(labels, [], np.bincount(labels.ravel()), {}, None)  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    masks = rng.random((6, 15, 16)) < np.linspace(0.02, 0.9, 6)[:, None, None]
    masks[0] = False
    masks[0, 0, 0] = True
    found = _unsam_leaves.on_most(leaves, Regions.from_masks(masks, score=np.linspace(0.1, 0.6, 6)))
    expected = [[masks[k][labels == leaf].mean() >= 0.5 for leaf in range(12)] for k in range(6)]
    kept = [k for k in range(6) if any(expected[k])]
    assert 0 not in kept
    assert found.members.tolist() == [expected[k] for k in kept]
    assert np.allclose(found.score, np.linspace(0.1, 0.6, 6)[kept])
    assert found.source == ["divide"] * len(kept)
    doubled = Regions.from_masks(np.kron(masks, np.ones((1, 2, 2), bool)), score=np.linspace(0.1, 0.6, 6))
    assert _unsam_leaves.on_most(leaves, doubled).members.tolist() == found.members.tolist()


def test_masks_as_pieces_without_repeats():
    masks = np.zeros((3, 20, 30), bool)
    masks[0, 2:12, 3:23] = masks[1, 2:12, 3:22] = masks[2, 15:18, 1:4] = True
    pieces = _unsam_patches.as_pieces(Regions.from_masks(masks, score=[0.5, 0.9, 0.7]), 0.8, level=4)
    assert [(piece.score, piece.source, piece.level) for piece in pieces] == [
        (pytest.approx(0.9), "divide", 4),
        (pytest.approx(0.7), "divide", 4),
    ]
    assert np.array_equal(pieces[0].drawn((20, 30)), masks[1])
    assert np.array_equal(pieces[1].drawn((20, 30)), masks[2])


@pytest.mark.parametrize("graph", ["local", "dense"])
def test_unsam_divided_by_a_student(graph, monkeypatch):
    image, truth = drawn(3, 72, 96)
    encoder = Encoder.of("patches", {"facets": ["keys"], "dictionary": False, "stride": 8})
    sample = Sample("i", image, encoder([image])[0], encoder)
    values = {
        "graph": graph,
        "divide": "student",
        "model": str(small_student()),
        "leaves": {"trees": 0},
        "pool": {"confidence": 0.3},
        "merge": {"crop": 64, "min_patches": 1},
    }
    params = registry.build_params(unsam.Params, values, "unsam")
    state = unsam.fit([sample], params)
    assert state is not None
    assert state.digest == student.fit([], student.Params(model=str(small_student()))).digest
    assert (state.thetas is None) == (graph == "local")
    whole = np.ones((1, 72, 96), bool)
    masks = np.concatenate([whole, truth.masks(), ~truth.masks()[1:]])
    known = Regions.from_masks(masks, [-1, 0, 1, 0], score=[1.0, 0.9, 0.8, 0.2])
    asked = []

    def found(sample, params, state=None):
        asked.append((sample.image.shape, params.model, params.auto))
        return known

    monkeypatch.setattr(student, "segment", found)
    regions = unsam.segment(sample, params, state)
    assert asked == [(image.shape, str(small_student()), "queries")]
    # on leaves a mask is one of the regions that merging finds too, and of two that are equal the surer one stays
    divided = regions.select(np.flatnonzero(np.array(regions.source) == "divide")) if graph == "dense" else regions
    best = [max((mask & other).sum() / (mask | other).sum() for other in divided.masks()) for mask in truth.masks()]
    assert min(best) > (0.99 if graph == "dense" else 0.6)  # leaves follow the picture's edges, not the masks
    if graph == "dense":
        assert {round(score, 3) for score in divided.score.tolist()} == {0.9, 0.8}, "what is less certain than 0.3 is left out"


def test_a_student_that_was_never_told_is_asked_for_real():
    image, _ = drawn(3, 72, 96)
    params = unsam.Params(divide="student", model=str(small_student()), pool=Pool(confidence=0.0))
    found = unsam.student_masks(image, params)
    assert found.shape == (72, 96)
    assert not found.is_root.any()
    assert (found.score > 0).all()

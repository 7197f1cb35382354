"""Trains a small diffusion UNet in pixels, for the backbone ``diffusion``: no VAE, no text, its weights a few megabytes.

Belongs here: the network's shape, the loss, crops, checkpoints, and the folder that is written. Does not belong here: where pictures come
from (``pictures``), reading attention (``diffusion``). Imports torch: import it lazily.

Pixels in [-1, 1] are folded p×p into 3·p² channels, so that the network's finest self-attention joins patches of p×p pixels. It predicts
velocity on a cosine schedule (Salimans and Ho, Progressive Distillation, ICLR 2022; Nichol and Dhariwal, Improved Denoising Diffusion
Probabilistic Models, ICML 2021), weighted by min-SNR with gamma 5 (Hang et al., Efficient Diffusion Training via Min-SNR Weighting Strategy,
ICCV 2023). Most steps see crops of half the side, which cost a quarter or less; the last ones see whole sides.

Every step draws from a generator of its own (seed, step), so a run that was stopped goes on as if it had not been. On a CPU the same
command gives the same bytes for one number of threads.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import pixel_unshuffle

from uss_dagster.artifacts.training_runs import (
    adam_tensors,
    few_lines,
    part_of,
    read_run,
    refuse_other_settings,
    restore_adam,
    save_run,
)
from uss_dagster.artifacts.training_runs import repeatable as repeatable
from uss_dagster.bounds import SHARE, at_least, check_bounds
from uss_dagster.errors import BadData, UsageError
from uss_dagster.files import write_whole
from uss_dagster.runtime import signals_noted
from uss_dagster.templates import render
from uss_dagster.torchvision_import import ensure_torchvision

READS = ("templates",)
TIMESTEPS = 1000
GAMMA = 5.0
"""Signal-to-noise ratio above which a step weighs no more (min-SNR)."""
WARM_UP = 100
DECAY = 0.2
"""Share of the steps, the last, in which the learning rate falls to 0 in a straight line."""
CHECKPOINT_EVERY = 200
LOSS_EVERY = 20
CHECKPOINT = "checkpoint.safetensors"
LOSSES = "losses.csv"
WEIGHTS = "diffusion_pytorch_model.safetensors"


@dataclass(frozen=True)
class Settings:
    """Settings of one training run.

    Parameters
    ----------
    steps : int, default 2400
        Steps of the optimiser; the learning rate falls during the last fifth.
    seed : int, default 0
    size : int, default 128
        Side of the square images that the network is for, in pixels.
    fold : int, default 4
        Side p of the patches that are folded into channels, in pixels.
    channels : tuple of int, default (64, 96, 128)
        Channels of each resolution, from ``size / fold`` downwards by halves. Self-attention is at all of them.
    head : int, default 32
        Width of an attention head.
    batch : int, default 8
        Crops of the full side in a step; steps at half the side have twice as many.
    full_share : float, default 0.08
        Share of the steps, the last ones, at the full side.
    rate : float, default 1e-3
        Highest learning rate.
    average : float, default 0.998
        Decay of the running mean of the weights.
    """

    steps: int = 2400
    seed: int = 0
    size: int = 128
    fold: int = 4
    channels: tuple[int, ...] = (64, 96, 128)
    head: int = 32
    batch: int = 8
    full_share: float = 0.08
    rate: float = 1e-3
    average: float = 0.998

    def __post_init__(self) -> None:
        one = at_least(1)
        check_bounds(self, steps=one, size=one, fold=one, batch=one, head=one, full_share=SHARE)
        unit = self.fold * 2 ** len(self.channels)
        if not self.channels or self.size % unit:
            raise UsageError(
                f"size is {self.size}, expected a multiple of {unit}: half of it is folded {self.fold}×{self.fold} and halved between "
                f"{len(self.channels)} resolutions."
            )
        if any(width < 1 or width % self.head for width in self.channels):
            raise UsageError(f"channels are {self.channels}, expected multiples of {self.head}, the width of an attention head.")

    @property
    def steady(self) -> int:
        """The step after which the learning rate falls: until then a run is the same for any number of steps."""
        return self.steps - max(1, round(DECAY * self.steps))

    @property
    def halves(self) -> int:
        """How many steps, the first, see half the side."""
        return self.steps - round(self.full_share * self.steps)


@dataclass(frozen=True)
class Source:
    """What the model card says about where the weights come from.

    Parameters
    ----------
    told : str
        A sentence about the pictures.
    licence : str
        Of the weights.
    command : str
        Command that trained them.
    """

    told: str
    licence: str
    command: str


def network(settings: Settings) -> Any:
    """The UNet with random weights of the settings' seed, in the form that diffusers reads: see ``whole``."""
    ensure_torchvision()
    from diffusers import UNet2DModel

    depth = len(settings.channels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return UNet2DModel(
            sample_size=settings.size // settings.fold,
            in_channels=3 * settings.fold**2,
            out_channels=3 * settings.fold**2,
            layers_per_block=1,
            block_out_channels=settings.channels,
            down_block_types=("AttnDownBlock2D",) * depth,
            up_block_types=("AttnUpBlock2D",) * depth,
            attention_head_dim=settings.head,
            norm_num_groups=16,
        )


def pointwise(settings: Settings) -> Any:
    """The same UNet with convolutions that look at one cell, or at four where they make one of them: the one that is trained.

    Only self-attention then carries anything from cell to cell, and nothing tells the border. With 3×3 kernels and so short a training,
    convolutions did the work, and attention went to the border, which they know from their padding, whatever the picture (seen).
    """
    unet = network(settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        for module in list(unet.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, torch.nn.Conv2d) and child.kernel_size == (3, 3):
                    side = child.stride[0]
                    setattr(module, name, torch.nn.Conv2d(child.in_channels, child.out_channels, side, side))
    return unet


def whole(weights: Mapping[str, Tensor], shapes: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of ``pointwise`` as those of ``network``: 3×3 kernels that are zero outside the middle, or outside the four cells to be joined."""
    padded = {}
    for name, value in weights.items():
        kernel = value
        if value.shape != shapes[name].shape:
            side = value.shape[-1]
            kernel = value.new_zeros(shapes[name].shape)
            kernel[:, :, 1 : 1 + side, 1 : 1 + side] = value
        padded[name] = kernel
    return padded


def scheduler() -> Any:
    """Noise levels of training, in diffusers' terms."""
    ensure_torchvision()
    from diffusers import DDPMScheduler

    return DDPMScheduler(num_train_timesteps=TIMESTEPS, beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")


def crops(pool: np.ndarray, count: int, side: int, share: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """Random crops float32 (count, 3, side, side) in [-1, 1] of pictures uint8 (N, S, S, 3): place, size (a share of S), proportions,
    mirror image, exposure and tint are drawn.
    """
    whole = pool.shape[1]
    batch = np.empty((count, side, side, 3), np.float32)
    for one in batch:
        image = pool[rng.integers(len(pool))]
        stretch = math.exp(rng.uniform(-0.3, 0.3))
        extent = whole * rng.uniform(*share)
        width, height = min(whole, extent * stretch), min(whole, extent / stretch)
        left, top = rng.uniform(0, whole - width), rng.uniform(0, whole - height)
        crop = Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR, (left, top, left + width, top + height))
        one[:] = np.asarray(crop, np.float32) / 127.5 - 1
        if rng.random() < 0.5:
            one[:] = one[:, ::-1].copy()
        one *= rng.uniform(0.75, 1.15) * rng.uniform(0.92, 1.08, 3).astype(np.float32)
        one += rng.uniform(-0.12, 0.12)
    return np.clip(batch, -1, 1).transpose(0, 3, 1, 2)


def loss_of(unet: Any, pixels: Tensor, noise: Tensor, timesteps: Tensor, alphas: Tensor, fold: int) -> Tensor:
    """Mean over the batch of the squared error in velocity, weighted by min(snr, 5) / (snr + 1)."""
    clean = pixel_unshuffle(pixels, fold)
    alpha = alphas[timesteps].view(-1, 1, 1, 1)
    target = alpha.sqrt() * noise - (1 - alpha).sqrt() * clean
    predicted = unet(alpha.sqrt() * clean + (1 - alpha).sqrt() * noise, timesteps).sample
    ratio = (alpha / (1 - alpha)).flatten()
    weight = ratio.clamp(max=GAMMA) / (ratio + 1)
    return (weight * (predicted - target).square().mean((1, 2, 3))).mean()


class Trainer:
    """One run: ``step`` until ``done``, ``save`` now and then, ``publish`` at the end.

    pool: pictures uint8 (N, S, S, 3), squeezed into squares; their proportions come back by the crops' own.
    """

    def __init__(self, pool: np.ndarray, settings: Settings, device: str = "cpu") -> None:
        if pool.dtype != np.uint8 or pool.ndim != 4 or pool.shape[1] != pool.shape[2] or pool.shape[3] != 3 or not len(pool):
            raise BadData(f"Pictures to train on have type {pool.dtype} and shape {pool.shape}, expected uint8 (N, S, S, 3).")
        self.pool = pool
        self.settings = settings
        self.device = torch.device(device)
        self.unet = pointwise(settings).to(self.device, memory_format=torch.channels_last).train()
        self.average = {name: value.detach().clone() for name, value in self.unet.state_dict().items()}
        self.optimizer = torch.optim.AdamW(self.unet.parameters(), lr=settings.rate, weight_decay=0.01)
        self.alphas = scheduler().alphas_cumprod.to(self.device)
        self.done = 0
        self.seconds = 0.0
        """That all steps took, those before a stop included."""
        self.losses: list[tuple[int, int, float]] = []
        """(step, side of the crops, mean loss since the line before)"""
        self._sum, self._count = 0.0, 0

    def step(self) -> float:
        """One step of the optimiser; returns its loss."""
        settings, number, started = self.settings, self.done, time.perf_counter()
        rng = np.random.default_rng([settings.seed, number])
        half = number < settings.halves
        side, count = (settings.size // 2, 2 * settings.batch) if half else (settings.size, settings.batch)
        share = (0.27, 0.7) if half else (0.55, 1.0)
        pixels = torch.from_numpy(crops(self.pool, count, side, share, rng))
        width = side // settings.fold
        noise = torch.from_numpy(rng.standard_normal((count, 3 * settings.fold**2, width, width), np.float32))
        # one timestep from each of ``count`` equal stretches: the same law, less variance
        timesteps = torch.from_numpy(((np.arange(count) + rng.random(count)) * TIMESTEPS / count).astype(np.int64))
        for group in self.optimizer.param_groups:
            group["lr"] = settings.rate * min(1.0, (number + 1) / WARM_UP, (settings.steps - number) / (settings.steps - settings.steady))
        self.optimizer.zero_grad(set_to_none=True)
        loss = loss_of(self.unet, pixels.to(self.device), noise.to(self.device), timesteps.to(self.device), self.alphas, settings.fold)
        loss.backward()  # type: ignore[no-untyped-call]
        value = float(loss.detach())
        torch.nn.utils.clip_grad_norm_(self.unet.parameters(), 1.0)
        self.optimizer.step()
        decay = min(settings.average, (number + 1) / (number + 10))
        with torch.no_grad():
            for name, weights in self.unet.state_dict().items():
                self.average[name].lerp_(weights, 1 - decay)
        self.done += 1
        self.seconds += time.perf_counter() - started
        self._sum, self._count = self._sum + value, self._count + 1
        if self.done % LOSS_EVERY == 0 or self.done in (settings.halves, settings.steps):
            self.losses.append((self.done, side, self._sum / self._count))
            self._sum, self._count = 0.0, 0
        return value

    def run(self, out: Path, seen: Callable[[int], None] = lambda done: None) -> None:
        """All steps that are left, with a checkpoint every few; ``seen`` after each. A network that no longer learns numbers is refused.

        After SIGTERM or Ctrl-C a checkpoint is written, and the process ends.
        """
        with signals_noted() as signal_noted:
            while self.done < self.settings.steps:
                if not math.isfinite(self.step()):
                    raise BadData(f"The loss is no longer a number after {self.done} steps. Start again with a lower rate.")
                if self.done % CHECKPOINT_EVERY == 0 or self.done == self.settings.steps or signal_noted():
                    self.save(out)
                seen(self.done)
                if number := signal_noted():
                    print(f"stopped after step {self.done}; the same command goes on from there", file=sys.stderr)
                    raise SystemExit(128 + number)

    def save(self, out: Path) -> None:
        """Everything that going on needs, as safetensors, and the losses so far."""
        tensors = {f"model.{name}": value for name, value in self.unet.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.items()}
        tensors |= adam_tensors(self.optimizer, dict(self.unet.named_parameters()))
        facts = {"step": self.done, "settings": asdict(self.settings), "losses": self.losses, "sum": self._sum, "count": self._count}
        facts |= {"seconds": self.seconds, "end": min(self.settings.steady, self.settings.halves)}
        save_run(out / CHECKPOINT, tensors, facts)
        write_whole(out / LOSSES, "step,side,loss\n" + "".join(f"{step},{side},{loss:.6f}\n" for step, side, loss in self.losses))

    def resume(self, out: Path) -> None:
        """Goes on from a checkpoint of the same settings, where the folder has one."""
        path = out / CHECKPOINT
        if not path.exists():
            return
        tensors, facts = read_run(path)
        self.done = int(facts["step"])
        before, mine = facts["settings"], json.loads(json.dumps(asdict(self.settings)))
        # As long as neither has begun to end, a shorter or longer run is the same run.
        open_ended = self.done <= min(self.settings.steady, self.settings.halves, facts["end"]) and before.keys() == mine.keys()
        refuse_other_settings(path, before | ({"steps": mine["steps"]} if open_ended else {}), mine)
        self.unet.load_state_dict(part_of(tensors, "model"))
        self.average = {name: value.to(self.device) for name, value in part_of(tensors, "average").items()}
        restore_adam(self.optimizer, dict(self.unet.named_parameters()), tensors, self.done)
        self.losses = [(int(step), int(side), float(loss)) for step, side, loss in facts["losses"]]
        self._sum, self._count, self.seconds = float(facts["sum"]), int(facts["count"]), float(facts["seconds"])

    def publish(self, out: Path, source: Source) -> None:
        """The averaged weights in float16 as a folder that diffusers reads, and its model card."""
        from safetensors.torch import save

        unet = network(self.settings)
        halves = {name: value.to("cpu", torch.float16).contiguous() for name, value in whole(self.average, unet.state_dict()).items()}
        unet.load_state_dict(halves)
        config = {name: value for name, value in unet.config.items() if not name.startswith("_")}
        write_whole(out / "config.json", json.dumps({"_class_name": "UNet2DModel"} | config, indent=1, sort_keys=True) + "\n")
        levels = {name: value for name, value in scheduler().config.items() if not name.startswith("_")}
        write_whole(out / "scheduler_config.json", json.dumps({"_class_name": "DDPMScheduler"} | levels, indent=1, sort_keys=True) + "\n")
        write_whole(out / WEIGHTS, save(halves, {"format": "pt"}))
        write_whole(out / "README.md", self._card(source))

    def _card(self, source: Source) -> str:
        return render(
            "uss_dagster.backbones.unet",
            "card.md.j2",
            source=source,
            settings=self.settings,
            parameters=sum(value.numel() for value in network(self.settings).state_dict().values()),
            trained=sum(value.numel() for value in self.average.values()),
            warm_up=WARM_UP,
            decay=DECAY,
            gamma=GAMMA,
            seconds=self.seconds,
            machine=self._machine(),
            losses=few_lines(self.losses),
        )

    def _machine(self) -> str:
        if self.device.type == "cpu":
            return f"{torch.get_num_threads()} CPU threads"
        return f"one {torch.cuda.get_device_name(self.device)}"

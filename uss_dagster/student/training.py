"""Training: steps, the running mean of the weights, validation, checkpoints, and the folder that is published.

Every batch and every random place is drawn from (seed, step), and the checkpoint holds all else, so on a CPU a run that was stopped ends with the same
bytes as one that was not. There a batch is learnt from in two halves side by side, one thread each, whose gradients are added in order: with small
networks that is worth more than two threads in each operation, and one thread ends with the same bytes. Under ``torchrun`` each process learns from its
part of a batch and gradients are averaged; the first process writes.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from uss_dagster.artifacts.training_runs import adam_tensors, part_of, read_run, refuse_other_settings, repeatable, restore_adam, save_run
from uss_dagster.errors import BadData, UsageError
from uss_dagster.files import write_whole
from uss_dagster.runtime import torch_device
from uss_dagster.student.card import WATCHED, Facts, card, draw_losses
from uss_dagster.student.data import Source
from uss_dagster.student.evaluate import match, mean_of, values
from uss_dagster.student.losses import NAMES, Criterion
from uss_dagster.student.model import CONFIG, FORMAT, WEIGHTS, Student, build, fill, read_config
from uss_dagster.student.net import StudentNet
from uss_dagster.student.self_training import self_train_labels as self_train_labels
from uss_dagster.student.settings import StudentSettings
from uss_dagster.student.views import Batch, Views

CHECKPOINT = Path("checkpoint") / "run.safetensors"
LOSSES, PICTURE, CARD = "losses.csv", "losses.png", "README.md"
WARM_UP = 0.1
"""Share of the steps in which the learning rate rises."""
LAST_RATE = 0.01
"""Of the highest rate, what is left at the end of the cycle."""
GIVEN_ENCODER = 0.1
"""Of the learning rate, what an encoder with weights of its own gets."""
LINES = 100
"""About so many lines of ``losses.csv``."""
HALVES = 2
"""Parts of a batch that one process learns from at once, on a CPU."""
WATCHED_CLICKS = 8
"""Clicks on each image of the validation set that is looked at during training."""


@dataclass(frozen=True)
class TrainResult:
    """step: of the last one. finished: all steps were done, or validation said enough; else there is a checkpoint. seconds: of all steps, those of earlier
    runs included. losses: (step, mean loss since the line before). scores: of the kept weights on the images that validation watched.
    """

    folder: Path
    step: int
    finished: bool
    seconds: float
    losses: list[tuple[int, float]] = field(default_factory=list)
    scores: dict[str, float] = field(default_factory=dict)


def train(
    source: Source,
    val: Source | None,
    settings: StudentSettings,
    out: Path,
    *,
    device: str = "cpu",
    threads: int = 1,
    facts: Facts | None = None,
    stop: Callable[[], bool] = lambda: False,
    advance: Callable[[int, float], None] = lambda step, loss: None,
    start: Path | None = None,
) -> TrainResult:
    """Train a student into a folder, going on from its checkpoint where it has one.

    stop: asked after each step; true ends the run with a checkpoint. advance: told (step, loss) after each step, from the first one of this run.
    start: folder of a student of the same architecture whose weights to begin with.
    """
    with processes(device) as (rank, world, place):
        alone = world == 1 and place.type == "cpu"
        with repeatable(max(1, threads // HALVES) if alone else threads):
            trainer = Trainer(source, val, settings, out, place, facts or Facts(), start, rank, world)
            trainer.resume()
            with ThreadPoolExecutor(min(threads, HALVES)) as crew:
                return trainer.run(stop, advance, crew)


@contextmanager
def processes(device: str) -> Iterator[tuple[int, int, torch.device]]:
    """(rank, number of processes, device), joined with the others that ``torchrun`` started; alone without it."""
    if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield 0, 1, torch_device(device)
        return
    place = torch_device(device)
    if place.type == "cuda":
        place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(place)
    torch.distributed.init_process_group("nccl" if place.type == "cuda" else "gloo")
    try:
        yield torch.distributed.get_rank(), torch.distributed.get_world_size(), place
    finally:
        torch.distributed.destroy_process_group()


class Trainer:
    """One run, whole or from its checkpoint on."""

    def __init__(
        self,
        source: Source,
        val: Source | None,
        settings: StudentSettings,
        out: Path,
        device: torch.device,
        facts: Facts,
        start: Path | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if not len(source):
            raise BadData("There is nothing to train on: the source has no image. Choose another split, or curate with a lower preset.")
        if settings.batch % world:
            raise UsageError(f"batch is {settings.batch}, expected a multiple of the {world} processes among which it is divided.")
        self.settings, self.out, self.device, self.facts = settings, out, device, facts
        self.rank, self.world = rank, world
        self.views = Views(source, settings)
        self.val = [val[i] for i in watched(len(val))] if val is not None and rank == 0 else []
        self.images, self.watching = len(source), val is not None and len(val) > 0
        self.net = build(settings).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if start is not None:
            _begin_with(self.net, start, settings)
        elif settings.weights:
            from uss_dagster.student.encoders import load_encoder

            load_encoder(self.net.encoder, Path(settings.weights))
        self.parameters = dict(self.net.named_parameters())
        self.optimizer = torch.optim.AdamW(_groups(self.parameters, settings, start is None), lr=settings.rate)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.average = {name: value.detach().clone() for name, value in self.net.state_dict().items()}
        self.best: dict[str, Tensor] = {}
        self.best_score, self.best_step, self.waited = -1.0, 0, 0
        self.scores: dict[str, float] = {}
        self.criterion = Criterion(settings.architecture.queries, settings.architecture.grains, settings.points, settings.partial)
        self.module: nn.Module = self.net
        if world > 1:
            ids = [device.index] if device.type == "cuda" else None
            self.module = nn.parallel.DistributedDataParallel(self.net, device_ids=ids)
        self.done, self.seconds, self.enough = 0, 0.0, False
        self.lines: list[dict[str, float]] = []
        self._sums, self._count = np.zeros(len(NAMES)), 0
        first = [str(image_id) for image_id in source.ids]
        self._data = hashlib.sha256(json.dumps([first, facts.version]).encode()).hexdigest()

    # -- steps ----------------------------------------------------------------------------------------

    def run(self, stop: Callable[[], bool], advance: Callable[[int, float], None], crew: Executor) -> TrainResult:
        """All steps that are left, validation and checkpoints on the way, and at the end the folder. crew: learns from parts of batches."""
        settings = self.settings
        with ThreadPoolExecutor(1) as ahead:
            coming = ahead.submit(self._batch, self.done) if self.done < settings.steps else None
            while self.done < settings.steps and not self.enough:
                assert coming is not None
                batch = coming.result()
                if self.done + 1 < settings.steps:
                    coming = ahead.submit(self._batch, self.done + 1)
                loss = self.step(batch, crew)
                if not math.isfinite(loss):
                    raise BadData(
                        f"The loss is no longer a number after {self.done} steps. Start again with a lower rate than {settings.rate:g}."
                    )
                if self.watching and (self.done % settings.every == 0 or self.done == settings.steps):
                    self.validate()
                advance(self.done, loss)
                stopped = self._agree(stop())
                if stopped and self.done < settings.steps and not self.enough:
                    self.save()
                    return self._result(finished=False)
                if self.done % settings.every == 0:
                    self.save()
        self.publish()
        return self._result(finished=True)

    def step(self, batch: Batch, crew: Executor) -> float:
        """One step of the optimiser; returns its loss."""
        started, settings = time.perf_counter(), self.settings
        factor = rate_at(self.done, settings.steps)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        batch = batch.to(self.device)
        parts = batch.parts(HALVES) if self.world == 1 and self.device.type == "cpu" else [batch]
        counts = self.criterion.counts(batch) / len(parts)
        each_in = crew.map if len(parts) > 1 else map
        learnt = list(each_in(self._learn, parts, range(len(parts)), [counts] * len(parts)))
        for parameter, *gradients in zip(self.parameters.values(), *(found for _, found in learnt), strict=True):
            parameter.grad = torch.stack(gradients).mean(0)
        losses = {name: torch.stack([told[name] for told, _ in learnt]).mean() for name in NAMES}
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), settings.clip)
        self.optimizer.step()
        decay = min(settings.average, (self.done + 1) / (self.done + 10))
        with torch.no_grad():
            for name, value in self.net.state_dict().items():
                if value.is_floating_point():
                    self.average[name].lerp_(value, 1 - decay)
        self.done += 1
        each = torch.stack([losses[name] for name in NAMES]).double().cpu().numpy()
        self._sums, self._count = self._sums + each, self._count + 1
        if self.done % max(1, settings.steps // LINES) == 0 or self.done == settings.steps:
            mean = self._sums / self._count
            line = {
                "step": self.done,
                "loss": float(mean.sum()),
                **dict(zip(NAMES, mean.tolist(), strict=True)),
                "rate": settings.rate * factor,
            }
            self.lines.append(line)
            self._sums, self._count = np.zeros(len(NAMES)), 0
        self.seconds += time.perf_counter() - started
        return float(each.sum())

    def _learn(self, part: Batch, number: int, counts: Tensor) -> tuple[dict[str, Tensor], list[Tensor]]:
        """The losses of a part of a batch, and the gradients of the parameters in order. counts: see ``Criterion.counts``, for a part."""
        places = torch.Generator().manual_seed((self.settings.seed * 1_000_003 + self.done) * HALVES + number)
        images = part.images.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cuda", torch.bfloat16) if self.device.type == "cuda" else nullcontext():
            outputs = self.module(images, part.points)
        losses = self.criterion(outputs, part, places, counts)
        loss = torch.stack(list(losses.values())).sum()
        parameters = list(self.parameters.values())
        if self.world > 1:  # gradients are averaged over processes on the way back
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            found = [parameter.grad for parameter in parameters]
        else:
            found = list(torch.autograd.grad(loss, parameters, allow_unused=True))
        told = {name: value.detach() for name, value in losses.items()}
        return told, [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]

    def validate(self) -> None:
        """Score the averaged weights; keep them where they are the best so far."""
        if self.rank == 0:
            net = build(self.settings)
            net.load_state_dict(self.average)
            student = Student(net, self.settings, str(self.device))
            found = {example.image_id: match(student, example, "queries", WATCHED_CLICKS) for example in self.val}
            scores = values(found)
            score = mean_of(scores)
            if self.lines:
                self.lines[-1] |= {"val_ar1000": scores.get("ar1000", math.nan), "val_click_oracle": scores.get("click_oracle", math.nan)}
            if score > self.best_score:
                self.best_score, self.best_step, self.waited, self.scores = score, self.done, 0, scores
                self.best = {name: value.clone() for name, value in self.average.items()}
            else:
                self.waited += 1
        self.enough = self._agree(bool(self.settings.patience) and self.waited >= self.settings.patience)

    def _batch(self, step: int) -> Batch:
        return self.views.batch(step, slice(self.rank, None, self.world))

    def _agree(self, said: bool) -> bool:
        """What the first process says, in all of them."""
        if self.world == 1:
            return said
        word = torch.tensor([int(said)], device=self.device)
        torch.distributed.broadcast(word, 0)
        return bool(word.item())

    def _result(self, finished: bool) -> TrainResult:
        losses = [(int(line["step"]), line["loss"]) for line in self.lines]
        return TrainResult(self.out, self.done, finished, self.seconds, losses, self.scores)

    # -- files ------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Everything that going on needs, and the losses so far."""
        if self.rank:
            return
        tensors = {f"model.{name}": value for name, value in self.net.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        told = {
            "step": self.done,
            "settings": self.settings.to_dict(),
            "data": self._data,
            "lines": self.lines,
            "sums": self._sums.tolist(),
            "count": self._count,
            "seconds": self.seconds,
            "best": [self.best_score, self.best_step, self.waited],
            "scores": self.scores,
        }
        save_run(self.out / CHECKPOINT, tensors | adam_tensors(self.optimizer, self.parameters), told)
        self._write_losses()

    def resume(self) -> None:
        """Go on from the checkpoint of the same settings and data, where the folder has one."""
        path = self.out / CHECKPOINT
        if not path.exists():
            return
        tensors, told = read_run(path)
        refuse_other_settings(path, told["settings"], self.settings.to_dict())
        if told["data"] != self._data:
            raise UsageError(
                f"'{path}' is of a run on other images or another version of their masks. Use those, another folder, or remove that file."
            )
        self.net.load_state_dict(part_of(tensors, "model"))
        self.average = {name: value.to(self.device) for name, value in part_of(tensors, "average").items()}
        self.best = {name: value.to(self.device) for name, value in part_of(tensors, "best").items()}
        self.done, self.seconds = int(told["step"]), float(told["seconds"])
        restore_adam(self.optimizer, self.parameters, tensors, self.done)
        self.lines, self._sums, self._count = told["lines"], np.array(told["sums"]), int(told["count"])
        self.best_score, self.best_step, self.waited = float(told["best"][0]), int(told["best"][1]), int(told["best"][2])
        self.scores = told["scores"]

    def publish(self) -> None:
        """The weights, their config, the losses and the model card; the checkpoint goes."""
        if self.rank:
            return
        from safetensors.torch import save

        kept = self.best or self.average
        data = save({name: value.cpu().contiguous() for name, value in kept.items()}, {"format": "pt"})
        config = {
            "format": FORMAT,
            "settings": self.settings.to_dict(),
            "sha256": hashlib.sha256(data).hexdigest(),
            "step": self.best_step if self.best else self.done,
            "images": self.images,
            "scores": {name: round(value, 6) for name, value in sorted(self.scores.items())},
            "data": {"told": self.facts.data, "version": self.facts.version},
        }
        self._write_losses()
        if self.lines:
            write_whole(self.out / PICTURE, draw_losses(self.lines))
        parameters = sum(value.numel() for value in kept.values())
        write_whole(self.out / CARD, card(self.facts, self.settings, config, self.lines, parameters))
        write_whole(self.out / WEIGHTS, data)
        write_whole(self.out / CONFIG, json.dumps(config, indent=1) + "\n")
        (self.out / CHECKPOINT).unlink(missing_ok=True)
        if (self.out / CHECKPOINT).parent.is_dir():
            (self.out / CHECKPOINT).parent.rmdir()

    def _write_losses(self) -> None:
        names = ["step", "loss", *NAMES, "rate", "val_ar1000", "val_click_oracle"]
        rows = [",".join(f"{line[name]:.6g}" if name in line else "" for name in names) for line in self.lines]
        write_whole(self.out / LOSSES, "\n".join([",".join(names), *rows]) + "\n")


def rate_at(step: int, steps: int) -> float:
    """Share of the highest learning rate: one cycle of cosines, up in the first tenth and down in the rest."""
    up = max(1, round(WARM_UP * steps))
    if step < up:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * step / up)) / 2
    place = (step - up) / max(1, steps - up)
    return LAST_RATE + (1 - LAST_RATE) * (1 + math.cos(math.pi * place)) / 2


def watched(count: int) -> list[int]:
    """Indices of the validation images that training looks at, evenly spread."""
    return sorted({(2 * i + 1) * count // (2 * WATCHED) for i in range(WATCHED)}) if count else []


def _groups(parameters: dict[str, nn.Parameter], settings: StudentSettings, fresh: bool) -> list[dict[str, Any]]:
    """Parameters by weight decay (none on norms, biases and embeddings) and by rate (less for an encoder that came with weights)."""
    given = bool(settings.weights) and fresh
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        plain = parameter.ndim < 2 or name in ("content", "position", "grain")
        groups.setdefault((plain, given and name.startswith("encoder.")), []).append(parameter)
    return [
        {"params": some, "weight_decay": 0.0 if plain else settings.decay, "lr": settings.rate * (GIVEN_ENCODER if slow else 1.0)}
        for (plain, slow), some in groups.items()
    ]


def _begin_with(net: StudentNet, folder: Path, settings: StudentSettings) -> None:
    _, before = read_config(folder)
    if (before.size, before.encoder) != (settings.size, settings.encoder):
        raise UsageError(
            f"'{folder}' is a student of size {before.size} with encoder {before.encoder}, this one is {settings.size} with {settings.encoder}: "
            "begin with one of the same kind."
        )
    fill(net, (folder / WEIGHTS).read_bytes(), folder / WEIGHTS)

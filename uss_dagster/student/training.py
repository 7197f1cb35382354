"""Training: optimiser steps, running mean of the weights, validation, checkpoints, and the folder of the finished model.

Every batch and every random place follows from (seed, step), and the checkpoint has the rest. So on a CPU, a run that was stopped ends with the same bytes
as one that was not. There each batch is divided into two halves, which learn in parallel with one thread each, and their gradients are added in order.
For small networks that is faster than two threads in each operation, and one thread ends with the same bytes. Under ``torchrun``, each process learns
from its part of a batch and gradients are averaged; the first process writes.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from uss_dagster.artifacts.training_runs import adam_tensors, part_of, read_run, refuse_other_settings, repeatable, restore_adam, save_run
from uss_dagster.errors import BadData, UsageError
from uss_dagster.files import write_whole
from uss_dagster.hashing import sha256_of_json
from uss_dagster.student.card import VALIDATION_IMAGES, ModelCard, plot_losses
from uss_dagster.student.data import Source
from uss_dagster.student.evaluate import match, mean_of, values
from uss_dagster.student.example_shards import ExampleShards
from uss_dagster.student.loader import ends_of_loaders
from uss_dagster.student.losses import NAMES, Criterion
from uss_dagster.student.model import CONFIG, FORMAT, WEIGHTS, Student, build
from uss_dagster.student.net import StudentNet
from uss_dagster.student.process_group import processes
from uss_dagster.student.settings import StudentConfig, StudentSettings
from uss_dagster.student.stored_features import FOLDER as FEATURES
from uss_dagster.student.stored_features import StoredFeatures
from uss_dagster.student.training_prompts import Slots, corrections_of
from uss_dagster.student.tuning import content_of, is_frozen, parameter_groups, rate_at, starting_weights
from uss_dagster.student.views import CACHE_BYTES, Batch, Views

CHECKPOINT = Path("checkpoint") / "run.safetensors"
LOSSES, PICTURE, CARD = "losses.csv", "losses.png", "README.md"
LINES = 100
"""Approximate number of lines of ``losses.csv``."""
HALVES = 2
"""Parts of a batch that one process learns from in parallel, on a CPU."""
VALIDATION_CLICKS = 8
"""Clicks on each validation image during training."""


@dataclass(frozen=True)
class TrainResult:
    """The end of a run.

    Parameters
    ----------
    folder : Path
    step : int
        The last one.
    finished : bool
        All steps are done, or validation ended training early; otherwise there is a checkpoint.
    seconds : float
        Of all steps, also those of earlier runs.
    losses : list of tuple
        (step, mean loss since the line before).
    scores : dict of str to float
        Of the published weights on the validation images.
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
    card: ModelCard | None = None,
    stop: Callable[[], bool] = lambda: False,
    advance: Callable[[int, float], None] = lambda step, loss: None,
    start: Path | None = None,
    record: Callable[[Sequence[Mapping[str, float]]], None] = lambda lines: None,
    shards: ExampleShards | None = None,
    loaders: int = 0,
) -> TrainResult:
    """Train a student into a folder; continues from the checkpoint in it.

    Parameters
    ----------
    source : Source
        The examples to learn from.
    val : Source or None
        Examples for validation.
    settings : StudentSettings
    out : Path
        The folder for the model.
    device : str, default 'cpu'
        cpu, cuda, cuda:1 or auto.
    threads : int, default 1
        Of torch on a CPU; the weights are the same for any number.
    card : ModelCard, optional
    stop : callable, optional
        Called after each step; training stops with a checkpoint if it returns True.
    advance : callable, optional
        Called with (step, loss) after each step.
    start : Path, optional
        A student of the same network whose weights are the start.
    record : callable, optional
        Called in the first process with all lines of ``losses.csv`` so far, whenever there is a new one.
    shards : ExampleShards, optional
        The examples of ``source``, where they are stored.
    loaders : int, default 0
        Processes that compute batches; the batches are the same for any number.

    Raises
    ------
    BadData
        If there is no image to learn from, the checkpoint is damaged, or the loss is no longer a number.
    UsageError
        If the checkpoint is of other settings or data, or ``start`` is of another network.
    TryAgain
        If a loader process ends by itself.
    """
    with processes(device) as (rank, world, place), ends_of_loaders():
        alone = world == 1 and place.type == "cpu"
        with repeatable(max(1, threads // HALVES) if alone else threads):
            trainer = Trainer(source, val, settings, out, place, card or ModelCard(), start, rank, world, shards, loaders)
            trainer.resume()
            with ThreadPoolExecutor(min(threads, HALVES)) as crew:
                return trainer.run(stop, advance, crew, record)


class Trainer:
    """One run, from the start or from its checkpoint; parameters as in ``train``.

    Parameters
    ----------
    rank, world : int
        Number of this process, and number of processes.
    """

    def __init__(
        self,
        source: Source,
        val: Source | None,
        settings: StudentSettings,
        out: Path,
        device: torch.device,
        card: ModelCard,
        start: Path | None = None,
        rank: int = 0,
        world: int = 1,
        shards: ExampleShards | None = None,
        loaders: int = 0,
    ) -> None:
        if not len(source):
            raise BadData("There is nothing to train on: the source has no image. Choose another split, or curate with a lower preset.")
        if settings.batch % world:
            raise UsageError(f"batch is {settings.batch}, expected a multiple of the {world} processes among which it is divided.")
        self.settings, self.out, self.device, self.card = settings, out, device, card
        self.rank, self.world = rank, world
        self.loaders = loaders
        self.views = Views(source, settings, shards, CACHE_BYTES // max(1, loaders))
        self.val = [val[i] for i in validation_indices(len(val))] if val is not None and rank == 0 else []
        self.images, self.has_validation = len(source), val is not None and len(val) > 0
        self.net = build(settings).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.encoder = starting_weights(self.net, start, settings)
        self.frozen = {name: value for name, value in self.net.state_dict().items() if is_frozen(name, settings)}
        self.parameters = {name: value for name, value in self.net.named_parameters() if name not in self.frozen}
        pretrained = start is None and self.encoder is not None and bool(self.encoder["identity"])
        self.optimizer = torch.optim.AdamW(parameter_groups(self.net, self.parameters, settings, pretrained), lr=settings.rate)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.average = {name: value.detach().clone() for name, value in self._trained().items()}
        self.best: dict[str, Tensor] = {}
        self.best_score, self.best_step, self.not_better = -1.0, 0, 0
        self.scores: dict[str, float] = {}
        shape, slots = settings.architecture, Slots.of(settings).corrected
        self.criterion = Criterion(shape.queries, shape.grains, settings.points, settings.partial, slots)
        self.module: nn.Module = self.net
        if world > 1:
            devices = [device.index] if device.type == "cuda" else None
            self.module = nn.parallel.DistributedDataParallel(self.net, device_ids=devices)
        self.done, self.seconds, self.enough = 0, 0.0, False
        self.lines: list[dict[str, float]] = []
        self._sums, self._count = np.zeros(len(NAMES)), 0
        ids = [str(image_id) for image_id in source.ids]
        self._data = hashlib.sha256(json.dumps([ids, card.version]).encode()).hexdigest()
        self._frozen_content = content_of(self.frozen)
        self._stored: StoredFeatures | None = None
        if settings.views:
            crops = [settings.smallest_crop, settings.largest_crop, settings.paste]
            windows = [self._data, self._frozen_content, settings.seed, settings.input, settings.views, *crops]
            self._stored = StoredFeatures(self._features, out / FEATURES / sha256_of_json(windows, 16))

    # -- steps ----------------------------------------------------------------------------------------

    def run(
        self,
        stop: Callable[[], bool],
        advance: Callable[[int, float], None],
        crew: Executor,
        record: Callable[[Sequence[Mapping[str, float]]], None] = lambda lines: None,
    ) -> TrainResult:
        """Run the remaining steps with validation and checkpoints, and publish the model. crew: runs parts of batches in parallel."""
        settings, saved = self.settings, time.monotonic()
        with closing(self._batches()) as batches:
            while self.done < settings.steps and not self.enough:
                batch, features = next(batches)
                loss = self.step(batch, crew, features)
                if self._any(not math.isfinite(loss)):
                    raise BadData(
                        f"The loss is no longer a number after {self.done} steps. Start again with a lower rate than {settings.rate:g}."
                    )
                if self.has_validation and (self.done % settings.every == 0 or self.done == settings.steps):
                    self.validate()
                advance(self.done, loss)
                if self.rank == 0 and self.lines and self.lines[-1]["step"] == self.done:
                    record(self.lines)
                stopped = self._any(stop())
                if stopped and self.done < settings.steps and not self.enough:
                    self.save()
                    return self._result(finished=False)
                if self.done % settings.every == 0 or 0 < settings.minutes * 60 <= time.monotonic() - saved:
                    self.save()
                    saved = time.monotonic()
        self.publish()
        return self._result(finished=True)

    def step(self, batch: Batch, crew: Executor, features: Sequence[Tensor] = ()) -> float:
        """One step of the optimiser; returns its loss. features: the maps of a frozen encoder."""
        started, settings = time.perf_counter(), self.settings
        factor = rate_at(self.done, settings.steps)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        batch = batch.to(self.device)
        parts = batch.parts(HALVES) if self.world == 1 and self.device.type == "cpu" else [batch]
        counts = self.criterion.counts(batch) / len(parts)
        maps = list(zip(*(value.to(self.device).chunk(len(parts)) for value in features), strict=True)) or [()] * len(parts)
        each_in = crew.map if len(parts) > 1 else map
        losses, gradients = zip(*each_in(self._gradients, parts, maps, range(len(parts)), [counts] * len(parts)), strict=True)
        for parameter, *of_parts in zip(self.parameters.values(), *gradients, strict=True):
            parameter.grad = torch.stack(of_parts).mean(0)
        mean_losses = [torch.stack([part[name] for part in losses]).mean() for name in NAMES]
        torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), settings.clip)
        self.optimizer.step()
        decay = min(settings.average, (self.done + 1) / (self.done + 10))
        with torch.no_grad():
            for name, value in self._trained().items():
                if value.is_floating_point():
                    self.average[name].lerp_(value, 1 - decay)
        self.done += 1
        each = torch.stack(mean_losses).double().cpu().numpy()
        self._sums, self._count = self._sums + each, self._count + 1
        if self.done % max(1, settings.steps // LINES) == 0 or self.done == settings.steps:
            mean = self._sums / self._count
            by_name = dict(zip(NAMES, mean.tolist(), strict=True))
            self.lines.append({"step": self.done, "loss": float(mean.sum()), **by_name, "rate": settings.rate * factor})
            self._sums, self._count = np.zeros(len(NAMES)), 0
        self.seconds += time.perf_counter() - started
        return float(each.sum())

    def _gradients(self, part: Batch, features: Sequence[Tensor], number: int, counts: Tensor) -> tuple[dict[str, Tensor], list[Tensor]]:
        """The losses of a part of a batch by name, and the gradients of all parameters. counts: see ``Criterion``."""
        places = torch.Generator().manual_seed((self.settings.seed * 1_000_003 + self.done) * HALVES + number)
        images = part.images.contiguous(memory_format=torch.channels_last)
        with self._precision():
            corrections = corrections_of(part, self.settings, places)
            outputs, *corrected = self.module(images, part.prompts(), [value.float() for value in features], corrections)
        losses = self.criterion(outputs, part, places, counts)
        losses = self.criterion.corrected(losses, corrected, part, places, counts)
        loss = torch.stack(list(losses.values())).sum()
        parameters = list(self.parameters.values())
        if self.world > 1:  # gradients are averaged over processes on the way back
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            gradients = [parameter.grad for parameter in parameters]
        else:
            gradients = list(torch.autograd.grad(loss, parameters, allow_unused=True))
        detached = {name: value.detach() for name, value in losses.items()}
        return detached, [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients, strict=True)]

    def validate(self) -> None:
        """Score the averaged weights, and store them if they are the best so far."""
        if self.rank == 0:
            self._averaged.load_state_dict(self.average | self.frozen)
            student = Student(self._averaged, self.settings, str(self.device))
            scores = values({example.image_id: match(student, example, "queries", VALIDATION_CLICKS) for example in self.val})
            score = mean_of(scores)
            if self.lines:
                self.lines[-1] |= {"val_ar1000": scores.get("ar1000", math.nan), "val_click_oracle": scores.get("click_oracle", math.nan)}
            if score > self.best_score:
                self.best_score, self.best_step, self.not_better, self.scores = score, self.done, 0, scores
                self.best = {name: value.clone() for name, value in self.average.items()}
            else:
                self.not_better += 1
        self.enough = self._agree(bool(self.settings.patience) and self.not_better >= self.settings.patience)

    @cached_property
    def _averaged(self) -> StudentNet:
        """A network for the averaged weights."""
        return build(self.settings)

    def _batches(self) -> Generator[tuple[Batch, tuple[Tensor, ...]]]:
        """The part of this process in the batches of the remaining steps, and the maps of a frozen encoder."""
        steps, part = range(self.done, self.settings.steps), slice(self.rank, None, self.world)
        batches = self.views.batches(steps, part, self.loaders, self.device.type == "cuda")
        for step, batch in zip(steps, batches, strict=True):
            yield batch, self._maps(batch, step, part)

    def _maps(self, batch: Batch, step: int, part: slice) -> tuple[Tensor, ...]:
        """The maps of a frozen encoder for a batch; none where it learns."""
        if self._stored is not None:
            return self._stored(batch.images, self.views.numbers(step, part))
        return tuple(self._features(batch.images)) if self.frozen else ()

    def _features(self, images: Tensor) -> list[Tensor]:
        with torch.no_grad(), self._precision():
            return self.net.features(images.to(self.device))

    def _precision(self) -> AbstractContextManager[object]:
        precision = self.settings.precision
        low = self.device.type == "cuda" if precision == "auto" else precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16) if low else nullcontext()

    def _trained(self) -> dict[str, Tensor]:
        """The state of the network, without what is frozen."""
        return {name: value for name, value in self.net.state_dict().items() if name not in self.frozen}

    def _any(self, value: bool) -> bool:
        """Whether the value holds in any process, in all of them: one that ends alone leaves the others waiting."""
        if self.world == 1:
            return value
        tensor = torch.tensor([int(value)], device=self.device)
        torch.distributed.all_reduce(tensor, torch.distributed.ReduceOp.MAX)
        return bool(tensor.item())

    def _agree(self, value: bool) -> bool:
        """The value of the first process, in all of them."""
        if self.world == 1:
            return value
        tensor = torch.tensor([int(value)], device=self.device)
        torch.distributed.broadcast(tensor, 0)
        return bool(tensor.item())

    def _result(self, finished: bool) -> TrainResult:
        losses = [(int(line["step"]), line["loss"]) for line in self.lines]
        return TrainResult(self.out, self.done, finished, self.seconds, losses, self.scores)

    # -- files ------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write the checkpoint, and the losses so far."""
        if self.rank:
            return
        kinds = {"model": self._trained(), "average": self.average, "best": self.best}
        tensors = {f"{kind}.{name}": value for kind, part in kinds.items() for name, value in part.items()}
        values = {
            "step": self.done,
            "settings": self.settings.to_dict(),
            "data": self._data,
            "frozen": self._frozen_content,
            "lines": self.lines,
            "sums": self._sums.tolist(),
            "count": self._count,
            "seconds": self.seconds,
            "best": (self.best_score, self.best_step, self.not_better),
            "scores": self.scores,
        }
        save_run(self.out / CHECKPOINT, tensors | adam_tensors(self.optimizer, self.parameters), values)
        self._write_losses()

    def resume(self) -> None:
        """Continue from the checkpoint, if there is one; one of other settings or data is refused."""
        path = self.out / CHECKPOINT
        if not path.exists():
            return
        tensors, values = read_run(path)
        refuse_other_settings(path, values["settings"], self.settings.to_dict())
        if values["data"] != self._data:
            raise UsageError(
                f"'{path}' is of a run on other images or another version of their masks. Use those, another folder, or remove that file."
            )
        if values.get("frozen", "") != self._frozen_content:
            raise UsageError(f"'{path}' is of a run with another content of the frozen encoder's weights. Use that, or remove the file.")
        self.net.load_state_dict(part_of(tensors, "model") | self.frozen)
        self.average = {name: value.to(self.device) for name, value in part_of(tensors, "average").items()}
        self.best = {name: value.to(self.device) for name, value in part_of(tensors, "best").items()}
        self.done, self.seconds = values["step"], values["seconds"]
        restore_adam(self.optimizer, self.parameters, tensors, self.done)
        self.lines, self._sums, self._count = values["lines"], np.array(values["sums"]), values["count"]
        self.best_score, self.best_step, self.not_better = values["best"]
        self.scores = values["scores"]

    def publish(self) -> None:
        """Write the best weights, their config, the losses and the model card, and remove the checkpoint."""
        if self.rank:
            return
        from safetensors.torch import save

        weights = (self.best or self.average) | self.frozen
        data = save({name: value.cpu().contiguous() for name, value in weights.items()}, {"format": "pt"})
        config: StudentConfig = {
            "format": FORMAT,
            "settings": self.settings.to_dict(),
            "sha256": hashlib.sha256(data).hexdigest(),
            "step": self.best_step if self.best else self.done,
            "images": self.images,
            "scores": {name: round(value, 6) for name, value in sorted(self.scores.items())},
            "data": {"told": self.card.data, "version": self.card.version},
        }
        if self.encoder is not None:
            config["encoder"] = self.encoder
        self._write_losses()
        if self.lines:
            write_whole(self.out / PICTURE, plot_losses(self.lines))
        parameters = sum(value.numel() for value in weights.values())
        write_whole(self.out / CARD, self.card.text(self.settings, config, self.lines, parameters))
        write_whole(self.out / WEIGHTS, data)
        write_whole(self.out / CONFIG, json.dumps(config, indent=1) + "\n")
        (self.out / CHECKPOINT).unlink(missing_ok=True)
        if (self.out / CHECKPOINT).parent.is_dir():
            (self.out / CHECKPOINT).parent.rmdir()
        if self._stored is not None:
            self._stored.remove()

    def _write_losses(self) -> None:
        names = ["step", "loss", *NAMES, "rate", "val_ar1000", "val_click_oracle"]
        rows = [",".join(f"{line[name]:.6g}" if name in line else "" for name in names) for line in self.lines]
        write_whole(self.out / LOSSES, "\n".join([",".join(names), *rows]) + "\n")


def validation_indices(count: int) -> list[int]:
    """Indices of the images, of ``count``, that are scored during training: evenly spaced, ``VALIDATION_IMAGES`` at most."""
    return sorted({(2 * i + 1) * count // (2 * VALIDATION_IMAGES) for i in range(VALIDATION_IMAGES)}) if count else []

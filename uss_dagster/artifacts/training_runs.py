"""A training on its way: the one file from which it goes on, and torch set up so that the same command gives the same bytes.

Belongs here: what every training of this package does between its steps. Does not belong here: what is learned.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from uss_dagster.errors import BadData, UsageError
from uss_dagster.files import write_whole

T = TypeVar("T")


def save_run(path: Path, tensors: Mapping[str, Any], told: Mapping[str, Any]) -> None:
    """Write tensors and plain values as one safetensors file, which exists only when whole."""
    from safetensors.torch import save

    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    write_whole(path, save(plain, {"run": json.dumps(told)}))


def read_run(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(tensors on the CPU, plain values) of a file that ``save_run`` wrote; any other is refused."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "pt") as file:
            told = json.loads(file.metadata()["run"])
            return {name: file.get_tensor(name) for name in file.keys()}, told  # noqa: SIM118 (no mapping)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise BadData(f"'{path}' is not a checkpoint of this program ({error}). Remove it to start from the beginning.") from None


def refuse_other_settings(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Stop where a checkpoint is of a run with other settings (plain values)."""
    changed = [f"{name} {before.get(name)} → {now[name]}" for name in now if before.get(name) != now[name]]
    if changed:
        raise UsageError(
            f"'{path}' is of a run with other settings ({', '.join(changed)}). Use those, another folder, or remove that file."
        )


def part_of(tensors: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Tensors whose names begin with ``kind`` and a dot, without it."""
    return {name.removeprefix(f"{kind}."): value for name, value in tensors.items() if name.startswith(f"{kind}.")}


def few_lines(lines: Sequence[T]) -> list[T]:
    """About eight of the lines of losses, the first and the last among them, for a model card."""
    return [lines[i] for i in sorted({round(i * (len(lines) - 1) / 7) for i in range(8)})] if lines else []


def adam_tensors(optimizer: Any, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The running moments of AdamW, by name of parameter; none before its first step."""
    return {
        f"{kind}.{name}": optimizer.state[parameter][kind]
        for name, parameter in parameters.items()
        for kind in ("exp_avg", "exp_avg_sq")
        if parameter in optimizer.state
    }


def restore_adam(optimizer: Any, parameters: Mapping[str, Any], tensors: Mapping[str, Any], step: int) -> None:
    """Put back what ``adam_tensors`` took after ``step`` steps."""
    import torch

    first, second = part_of(tensors, "exp_avg"), part_of(tensors, "exp_avg_sq")
    for name in first:
        parameter = parameters[name]
        optimizer.state[parameter] = {
            "step": torch.tensor(float(step)),
            **{
                kind: torch.empty_like(parameter, memory_format=torch.preserve_format).copy_(values[name])
                for kind, values in (("exp_avg", first), ("exp_avg_sq", second))
            },
        }


@contextlib.contextmanager
def repeatable(threads: int) -> Iterator[None]:
    """torch with so many threads and deterministic kernels; afterwards as before."""
    import torch

    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])

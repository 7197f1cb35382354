"""The course of a training for other programs: in the layout of DVCLive, which `dvc plots` and VS Code show, or as events of TensorBoard."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

from uss_dagster.errors import Unavailable, UsageError
from uss_dagster.files import remove, write_whole

Kind = Literal["", "dvclive", "tensorboard"]
Lines = Sequence[Mapping[str, float]]


@contextmanager
def curves(kind: str, folder: Path) -> Iterator[Callable[[Lines], None]]:
    """A function that writes all lines of ``losses.csv`` so far.

    Parameters
    ----------
    kind : {'', 'dvclive', 'tensorboard'}
        '' writes nothing.
    folder : Path
        Of the model; files are written below it, to a folder of the name of the kind.

    Raises
    ------
    UsageError
        If there is no such kind.
    Unavailable
        If the package tensorboard is not installed.
    """
    if kind not in get_args(Kind):
        raise UsageError(f"curves is '{kind}', expected dvclive or tensorboard.")
    if not kind:
        yield lambda lines: None
    elif kind == "dvclive":
        yield lambda lines: write_dvclive(lines, folder / kind)
    else:
        if importlib.util.find_spec("tensorboard") is None:
            raise Unavailable("Curves for TensorBoard need the package 'tensorboard'. Run `pip install tensorboard`, or choose dvclive.")
        remove(folder / kind)  # a run that goes on writes its first lines again
        from torch.utils.tensorboard import SummaryWriter

        with SummaryWriter(str(folder / kind)) as writer:  # type: ignore[no-untyped-call]
            last = 0.0

            def write(lines: Lines) -> None:
                nonlocal last
                for line in lines:
                    if line["step"] > last:
                        for name, value in values(line).items():
                            writer.add_scalar(name, value, int(line["step"]))  # type: ignore[no-untyped-call]
                last = lines[-1]["step"]
                writer.flush()  # type: ignore[no-untyped-call]

            yield write


def values(line: Mapping[str, float]) -> dict[str, float]:
    """The numbers of a line, without its step and without what was not computed."""
    return {name: float(value) for name, value in line.items() if name != "step" and math.isfinite(value)}


def write_dvclive(lines: Lines, folder: Path) -> None:
    """Write each number over the steps as a table in ``plots/metrics``, and the last ones to ``metrics.json``, as DVCLive does."""
    rows: dict[str, list[str]] = {}
    latest: dict[str, float] = {}
    for line in lines:
        for name, value in values(line).items():
            rows.setdefault(name, [f"step\t{name}"]).append(f"{line['step']:.0f}\t{value}")
            latest[name] = value
    for name, table in rows.items():
        write_whole(folder / "plots" / "metrics" / f"{name}.tsv", "\n".join(table) + "\n")
    write_whole(folder / "metrics.json", json.dumps({**latest, "step": int(lines[-1]["step"])}, indent=4) + "\n")

"""The model card of a student, and the plot of its losses."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

from uss_dagster.artifacts.training_runs import few_lines
from uss_dagster.student.settings import StudentConfig, StudentSettings
from uss_dagster.templates import render

READS = ("templates",)
VALIDATION_IMAGES = 24
"""Greatest number of validation images that are scored during training."""


@dataclass(frozen=True)
class ModelCard:
    """What the model card says beside settings and scores.

    Parameters
    ----------
    title : str
    data : str, default ""
        The masks that the student learned from, in words.
    version : str, default ""
        Of these masks, such as DVC's hash of the curated set.
    licence : str, default "other"
        Of the weights.
    command : str, default ""
        The command that trained the student.
    """

    title: str = "A student of masks"
    data: str = ""
    version: str = ""
    licence: str = "other"
    command: str = ""

    def text(self, settings: StudentSettings, config: StudentConfig, lines: Sequence[dict[str, float]], parameters: int) -> str:
        """The card as Markdown, with the header that model hubs read.

        Parameters
        ----------
        settings : StudentSettings
        config : StudentConfig
            As written to ``config.json``.
        lines : sequence of dict of str to float
            The rows of ``losses.csv``.
        parameters : int
            Number of the network's parameters.
        """
        names = [name for name in ("ar1000", "ar100", "click_max", "click_oracle") if name in config["scores"]]
        return render(
            "uss_dagster.student",
            "card.md.j2",
            card=self,
            settings=settings,
            config=config,
            losses=few_lines(lines),
            scores=[f"{name} {config['scores'][name]:.3f}" for name in names],
            parameters=parameters,
            validation_images=VALIDATION_IMAGES,
        )


def plot_losses(lines: Sequence[dict[str, float]]) -> bytes:
    """The loss over steps, and the validation scores if there are any, as PNG; equal numbers give equal bytes.

    Parameters
    ----------
    lines : sequence of dict of str to float
        The rows of ``losses.csv``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    left = figure.add_subplot()
    left.plot([line["step"] for line in lines], [line["loss"] for line in lines], color="#1f5fa8", label="loss, all depths")
    left.set(xlabel="step", ylabel="training loss", ylim=(0, None))
    left.spines[["top", "right"]].set_visible(False)
    validated = [line for line in lines if "val_ar1000" in line]
    if validated:
        right = left.twinx()
        steps = [line["step"] for line in validated]
        for name, title, colour in (
            ("val_ar1000", "AR@1000, validation", "#b4481e"),
            ("val_click_oracle", "one click, best answer, validation", "#3a7d44"),
        ):
            right.plot(steps, [line[name] for line in validated], "o-", color=colour, label=title, markersize=4)
        right.set(ylabel="validation", ylim=(0, 1))
        right.spines[["top"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=8)
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()

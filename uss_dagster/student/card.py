"""What is told about a student: its model card and the picture of its losses."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from uss_dagster.student.settings import StudentSettings

WATCHED = 24
"""Images of the validation set, at most, that are looked at during training."""


@dataclass(frozen=True)
class Facts:
    """What the model card says of the training. title: of the student. data: which masks. version: of them, such as the DVC hash of the curated set.
    licence: of the weights. command: that made them."""

    title: str = "A student of masks"
    data: str = ""
    version: str = ""
    licence: str = "other"
    command: str = ""


def card(facts: Facts, settings: StudentSettings, config: dict[str, Any], lines: Sequence[dict[str, float]], parameters: int) -> str:
    """The model card, Markdown with the head that model hubs read."""
    shape = settings.architecture
    marks = [lines[round(i * (len(lines) - 1) / 7)] for i in range(8)] if len(lines) > 7 else list(lines)
    losses = "\n".join(f"| {line['step']:.0f} | {line['loss']:.3f} |" for line in marks)
    scores = config["scores"]
    told = ", ".join(f"{name} {scores[name]:.3f}" for name in ("ar1000", "ar100", "click_max", "click_oracle") if name in scores)
    side, seen = settings.input, settings.test_input
    return (
        f"---\nlicense: {facts.licence}\nlibrary_name: uss_dagster\npipeline_tag: mask-generation\n---\n"
        f"# {facts.title}\n\n"
        f"Segments a whole image without classes, and answers a click with up to {shape.grains} masks from part to whole. "
        f"Size `{settings.size}`: {parameters / 1e6:.2f} M parameters, encoder {settings.encoder}, {shape.queries} queries, images stretched to "
        f"{seen}×{seen}.\n\n"
        f"**Training data.** {facts.data or 'Not told.'} Version: {facts.version or 'not told'}. {config['images']} images.\n\n"
        + (f"**Scores** on up to {WATCHED} validation images, whose labels may themselves be found masks: {told}.\n\n" if told else "")
        + (f"Made by\n\n    {facts.command}\n\n" if facts.command else "")
        + f"{settings.steps} steps of {settings.batch} windows of {side}×{side}, {settings.clicks} clicks on each; AdamW, one cycle up to a "
        f"rate of {settings.rate:g}, weight decay {settings.decay:g}, gradients clipped at {settings.clip:g}, seed {settings.seed}; the "
        f"weights are their running mean (decay {settings.average:g}) after step {config['step']}.\n\n"
        f"| step | mean loss of the steps before |\n|---|---|\n{losses}\n\n"
        f"**Limits.** It finds what looks like the masks it was shown: thin things, crowds of small things and kinds of picture it never saw "
        f"are missed, and a click on them gets its best guess. It names nothing. The sha256 of its weights is `{config['sha256']}`.\n\n"
        f"Licence: {facts.licence}.\n"
    )


def draw_losses(lines: Sequence[dict[str, float]]) -> bytes:
    """PNG of the loss over steps, and of validation where there was one; the same numbers give the same bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    left = figure.add_subplot()
    steps = [line["step"] for line in lines]
    left.plot(steps, [line["loss"] for line in lines], color="#1f5fa8", label="loss, all depths")
    left.set(xlabel="step", ylabel="training loss", ylim=(0, None))
    left.spines[["top", "right"]].set_visible(False)
    seen = [line for line in lines if "val_ar1000" in line]
    if seen:
        right = left.twinx()
        for name, title, colour in (
            ("val_ar1000", "AR@1000, validation", "#b4481e"),
            ("val_click_oracle", "one click, best answer, validation", "#3a7d44"),
        ):
            right.plot([line["step"] for line in seen], [line[name] for line in seen], "o-", color=colour, label=title, markersize=4)
        right.set(ylabel="validation", ylim=(0, 1))
        right.spines[["top"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=8)
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()

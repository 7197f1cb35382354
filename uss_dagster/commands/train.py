"""``uss train``: puts its commands together."""

from __future__ import annotations

import typer

from uss_dagster.commands import train_diffusion, train_student

train = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Train the small networks of this package.")
train.command("diffusion")(train_diffusion.train_diffusion)
train.command("student")(train_student.train_student)

"""Every command in README, docs and workflows names what exists, and the documented blocks run as they stand.

A block that needs what a test cannot have stands below a line ``<!-- needs: network -->`` (or GPU, datasets, root, hours).
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from projects import SOURCE, Project

from uss_dagster.cli import app

PAGES = [SOURCE / "README.md", SOURCE / "CONTRIBUTING.md", *sorted(SOURCE.glob("docs/*.md"))]
BLOCK = re.compile(r"(?:^<!-- needs: (?P<needs>[^>]+) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
SPAN = re.compile(r"(?<!`)`((?:uss|python|USS_\w+=\S+) [^`]+)`(?!`)")
NEEDS = {"network", "GPU", "datasets", "root", "hours", "weights", "a server"}
QUICK = {"uss train student": "--steps 2 --param batch=2 --device cpu"}
"""What is added to a documented command, so that it ends soon."""


def blocks(page: Path) -> Iterator[tuple[str, list[str]]]:
    """What each block of commands needs, and its lines without comments."""
    for block in BLOCK.finditer(page.read_text(encoding="utf-8")):
        if not block["language"]:
            text = block["text"].replace("\\\n", " ")
            yield (
                block["needs"] or "",
                [line.strip() for line in re.sub(r"(?<=\s)# .*|^# .*", "", text, flags=re.M).splitlines() if line.strip()],
            )


def documented(page: Path) -> set[str]:
    """Commands in blocks and in running text."""
    lines = {line for _, lines in blocks(page) for line in lines}
    return lines | set(SPAN.findall(page.read_text(encoding="utf-8")))


def check_options(words: list[str]) -> None:
    """A command and its options exist, without running it."""
    command = typer.main.get_command(app)
    names = [word for word in words if not word.startswith("-")]
    while names and hasattr(command, "commands"):
        name = names.pop(0)
        assert name in command.commands, f"there is no `uss {name}`"
        command = command.commands[name]
    options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}
    for word in words:
        if word.startswith("--") and words[0] != "--install-completion":
            assert word.partition("=")[0] in options, f"{command.name} has no {word}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_exist(page: Path) -> None:
    for line in sorted(documented(page)):
        for part in re.split(r"&&|\||;", line):
            words = [word for word in shlex.split(part) if word != "…" and not re.match(r"[A-Z_]+=", word)]
            if words and Path(words[0]).name == "uss":
                check_options(words[1:])
            elif words and words[0].endswith("python") and words[1].endswith(".py"):
                program = (SOURCE / words[1]).read_text(encoding="utf-8")
                assert [word for word in words[2:] if word.startswith("--") and f'"{word}"' not in program] == [], line
            elif words and words[0] == "make":
                assert re.search(rf"^{words[1]}:", (SOURCE / "Makefile").read_text(), re.M), line


def test_what_is_not_run_says_why() -> None:
    for page in PAGES:
        for needs, _ in blocks(page):
            assert {word.strip() for word in needs.split(",")} <= NEEDS | {""}, page.name


RUN = {page.name: lines for page in PAGES if (lines := [line for needs, block in blocks(page) if not needs for line in block])}


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN)
def test_the_blocks_run_as_they_stand(built: Project, page: str) -> None:
    root = built.root
    for folder in ("photos", "data/curated"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    write_photographs(root / "photos")
    shutil.copyfile(root / "photos" / "coffee.jpg", root / "photo.jpg")
    for place in (root / "masks", root / "data/curated/scenes_masks"):
        built.run("uss", "curate", "photos", "--out", str(place), "--copy", "--format", "coco")
    shutil.copyfile(root / "masks" / "labels.json", root / "labels.json")
    shutil.copytree(SOURCE / ".dvc" / "plots", root / ".dvc" / "plots")
    built.run("bash", "-c", "git add -A && git -c user.name=a -c user.email=a@example.org commit -qm first")
    built.run("bash", "-c", "git -c user.name=a -c user.email=a@example.org commit -q --allow-empty -m second")
    for line in RUN[page]:
        extra = next((words for start, words in QUICK.items() if line.startswith(start)), "")
        built.run("bash", "-euc", f"{line} {extra}", timeout=600)


def write_photographs(folder: Path) -> None:
    from PIL import Image
    from skimage import data

    for name in ("astronaut", "chelsea", "coffee"):
        image = Image.fromarray(getattr(data, name)())
        image.thumbnail((160, 160))
        image.save(folder / f"{name}.jpg")

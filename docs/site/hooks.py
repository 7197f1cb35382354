"""Pages of the documentation's site that stand in no file of docs/: the README and its like, the notebook, and the reference of all plug-ins and commands.

MkDocs calls the functions ``on_…``. Everything is read from the package, so a new method or command is on the site without an edit here.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from uss_dagster import cli, registry
from uss_dagster.methods.base import features_read
from uss_dagster.report.parameters import descriptions_of, parameters_of_class, value_text

ROOT = Path(__file__).resolve().parents[2]
COPIED = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "dagster_dvc/README.md": "dagster_dvc.md",
}
"""File of the repository → its page."""
FILE_OF = {page: name for name, page in COPIED.items()}
NOTEBOOK = "notebooks/first_photograph"
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")
"""'!' of a picture, the text, a path, an anchor."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages; MkDocs finds those of docs/ itself."""
    pages = {page: (ROOT / name).read_text(encoding="utf-8") for name, page in COPIED.items()}
    pages |= {f"{NOTEBOOK}.md": "\n\n".join(_cells(ROOT / "docs" / f"{NOTEBOOK}.ipynb"))}
    pages |= {f"reference/{name}.md": "\n".join(lines) for name, lines in _reference().items()}
    for address, text in pages.items():
        files.append(File.generated(config, address, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links that are right in the repository lead to the pages of what they name; to files that the site does not have, they become plain text."""
    address = page.file.src_uri
    folder = (ROOT / FILE_OF.get(address, f"docs/{address}")).parent
    up = "../" * address.count("/")

    def target(match: re.Match[str]) -> str:
        mark, text, path, anchor = match.groups(default="")
        file = (folder / path).resolve()
        if not file.is_relative_to(ROOT):
            return match.group(0)
        name = file.relative_to(ROOT).as_posix()
        if name not in COPIED and not name.startswith("docs/"):
            return text if file.exists() else match.group(0)
        shown = COPIED.get(name, name.removeprefix("docs/").replace(".ipynb", ".md"))
        return f"{mark}[{text}]({up}{shown}{anchor})"

    return LINK.sub(target, markdown)


def _cells(notebook: Path) -> Iterator[str]:
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        yield text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```"


def _reference() -> dict[str, list[str]]:
    return {
        "commands": [*_commands()],
        "methods": ["# Methods", "", *_plugins("method")],
        "backbones": ["# Backbones", "", *_plugins("backbone")],
        "metrics": ["# Metrics", "", "Formulas and conventions are in [metrics](../metrics.md).", "", *_metrics()],
        "python": [*_python()],
    }


def _plugins(family: str) -> Iterator[str]:
    """Each plug-in: what it does, from which paper, its parameters."""
    for name in registry.names(family):
        spec = registry.load(family, name).SPEC
        yield from (f"## {spec.title} (`{name}`)", "", getattr(spec, "summary", ""), "")
        if family == "method":
            yield f"Features of a backbone: {features_read(spec)}. Paper: {spec.paper}."
            yield ""
        texts = descriptions_of(spec.params)
        rows = parameters_of_class(spec.params, {})
        if rows:
            yield from ("| parameter | default | values | meaning |", "| --- | --- | --- | --- |")
        for p in rows:
            cells = (f"`{p.name}`", value_text(p.default), ", ".join(map(value_text, p.choices)) or p.kind, texts.get(p.name, ""))
            yield "| " + " | ".join(_cell(cell) for cell in cells) + " |"
        yield ""


def _metrics() -> Iterator[str]:
    for name in registry.names("metric"):
        spec = registry.load("metric", name).SPEC
        yield from (f"## {spec.title} (`{name}`)", "", getattr(spec, "summary", ""), "", "| number | protocol |", "| --- | --- |")
        yield from (f"| `{metric}` | {_cell(number.protocol)} |" for metric, number in spec.metrics.items())
        yield ""


def _commands() -> Iterator[str]:
    """The help of each command, as ``uss COMMAND --help`` prints it."""
    yield from ("# Commands", "")
    group: Any = typer.main.get_command(cli.app)
    for heading, names in cli.COMMANDS.items():
        if heading:
            yield from (f"## {heading}", "")
            for name in names:
                yield from _help(group.commands[name], f"uss {name}")


def _help(command: Any, name: str) -> Iterator[str]:
    for part, inner in getattr(command, "commands", {}).items():
        yield from _help(inner, f"{name} {part}")
    if not getattr(command, "commands", {}):
        with command.make_context(name, [], resilient_parsing=True) as context:
            yield from (f"### {name}", "", "```text", command.get_help(context), "```", "")


def _python() -> Iterator[str]:
    """All public names, from their docstrings. The stub says where they stand; some are also names of packages."""
    yield from ("# Python", "")
    for line in ast.parse((ROOT / "uss_dagster" / "__init__.pyi").read_text(encoding="utf-8")).body:
        if isinstance(line, ast.ImportFrom):
            yield from (f"::: uss_dagster.{line.module}.{name.name}\n" for name in line.names)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")

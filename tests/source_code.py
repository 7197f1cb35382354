"""Measures of the package's source: modules with their syntax trees, lines of code, sizes of functions, imports."""

from __future__ import annotations

import ast
import functools
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster_dvc
import uss_dagster

PACKAGE = "uss_dagster"
BRIDGE = "dagster_dvc"
ROOT, BRIDGE_ROOT = Path(uss_dagster.__file__).parent, Path(dagster_dvc.__file__).parent
_NO_CODE = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """One file. path: from the package's folder, with forward slashes. top: the package."""

    path: str
    text: str
    top: str = PACKAGE

    @functools.cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def name(self) -> str:
        """``uss_dagster.artifacts.gate``; a package's own name for its ``__init__``."""
        return ".".join((self.top, *self.path.removesuffix(".py").split("/"))).removesuffix(".__init__")

    @property
    def package(self) -> str:
        """The package that holds it: ``uss_dagster.artifacts``."""
        return self.name if self.path.endswith("__init__.py") else self.name.rpartition(".")[0]

    @property
    def part(self) -> str:
        """The folder or module at the top of the package that it belongs to: ``artifacts``."""
        return self.path.partition("/")[0].removesuffix(".py")

    @property
    def is_kernel(self) -> bool:
        """Compiled loops, which are long because they must not call."""
        return "kernel" in self.path.rpartition("/")[2]


@functools.cache
def modules() -> tuple[Module, ...]:
    """Every module of the package, by path."""
    return tuple(_modules(ROOT, PACKAGE))


@functools.cache
def bridge_modules() -> tuple[Module, ...]:
    """Every module of ``dagster_dvc`` but its tests, by path."""
    return tuple(module for module in _modules(BRIDGE_ROOT, BRIDGE) if module.part not in ("tests", "build"))


def _modules(root: Path, top: str) -> Iterator[Module]:
    return (Module(path.relative_to(root).as_posix(), path.read_text(encoding="utf-8"), top) for path in sorted(root.rglob("*.py")))


def imported_names(module: Module) -> Iterator[str]:
    """Full names that its import statements give, imports in functions included: modules, and what is taken from them."""
    for origin, name in imports(module):
        yield origin
        if name:
            yield f"{origin}.{name}"


def imports(module: Module) -> Iterator[tuple[str, str]]:
    """(module, name taken from it) of its import statements; the name is '' for ``import module``."""
    base = module.package.split(".")
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(base[: len(base) - node.level + 1]) if node.level else ""
            origin = ".".join(filter(None, (above, node.module)))
            yield from ((origin, alias.name) for alias in node.names)


def private_imports(module: Module) -> Iterator[str]:
    """Imports of a private module or name of another package. A package may use what is private in itself and in those above it."""
    for origin, name in imports(module):
        if not origin.startswith((f"{PACKAGE}.", f"{BRIDGE}.")):
            continue
        parts = [*origin.split("."), name]
        for place, part in enumerate(parts):
            owner = ".".join(parts[:place])
            inside = f"{module.package}.".startswith(f"{owner}.")
            taken_from_module = place == len(parts) - 1 and origin.rpartition(".")[0] == module.package
            if part.startswith("_") and part != "__version__" and not inside and not taken_from_module:
                yield f"{origin}.{name}" if name else origin


def code_lines(text: str) -> int:
    """Number of lines of code: those with at least one token that is no comment, without the lines of docstrings. A string that stands
    alone after an assignment counts; a string over several lines counts with all of them."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for docstring in _docstrings(ast.parse(text)):
        lines.difference_update(range(docstring.lineno, _end(docstring) + 1))
    return len(lines)


def _docstrings(tree: ast.Module) -> Iterator[ast.Expr]:
    """Every string that stands alone as a statement of a module, class or function."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from (
                s for s in node.body if isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant) and isinstance(s.value.value, str)
            )


def function_lengths(module: Module) -> Iterator[tuple[str, int]]:
    """(name, lines without the docstring) of every function and method."""
    for node in ast.walk(module.tree):
        if isinstance(node, Function):
            first = node.body[0]
            docstring = _end(first) - first.lineno + 1 if ast.get_docstring(node, clean=False) is not None else 0
            yield node.name, _end(node) - node.lineno + 1 - docstring


def string_constants(module: Module) -> set[str]:
    """Every string of its code, docstrings left out."""
    docstrings = {id(expression.value) for expression in _docstrings(module.tree)}
    constants = (node for node in ast.walk(module.tree) if isinstance(node, ast.Constant) and id(node) not in docstrings)
    return {node.value for node in constants if isinstance(node.value, str)}


def untyped_mappings(module: Module) -> int:
    """Number of annotations such as ``dict[str, Any]``."""
    return len(re.findall(r"\b(?:dict|Dict|Mapping|MutableMapping)\[str, Any\]", module.text))


def splits_of_keys(module: Module) -> int:
    """Number of places that take a key apart at two underscores."""
    return len(re.findall(r"""\br?(?:split|partition)\(["']__["']""", module.text))


def _end(node: ast.stmt) -> int:
    assert node.end_lineno is not None
    return node.end_lineno

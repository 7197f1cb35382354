"""Code fingerprints: what a stage's result depends on in this package, and nothing else.

Belongs here: the static import closure of a module inside the package and a hash over its syntax trees. Comments,
blank lines, line breaks and docstrings do not count; a changed statement in any module of the closure does. So does what the YAML
files of a module say: those beside it called ``<module>.yaml`` or ``<module>_<more>.yaml``.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

PACKAGE = "uss_dagster"
_ROOT = Path(__file__).resolve().parent


def fingerprint(modules: Iterable[str], root: Path = _ROOT) -> str:
    """16 hex digits over every module of the package that these modules import, directly or not."""
    digest = hashlib.sha256()
    for module in sorted(closure(modules, root)):
        path = _file(module, root)
        digest.update(f"{module} {_tree_hash(path)}\n".encode())
        for table in tables(path):
            stat = table.stat()
            digest.update(f"{module} {table.name} {_yaml_hash_of(table, stat.st_mtime_ns, stat.st_size)}\n".encode())
    return digest.hexdigest()[:16]


def tables(path: Path) -> list[Path]:
    """The YAML files of a module, sorted: beside it, called like it, or like it with ``_`` and more. Where two modules would do
    (``coco`` and ``coco_stuff``), the longer name has the file."""
    if path.name == "__init__.py":
        return []
    modules = {other.stem for other in path.parent.glob("*.py")}
    found = []
    for table in sorted(path.parent.glob(f"{path.stem}*.yaml")):
        owners = [name for name in modules if table.stem == name or table.stem.startswith(f"{name}_")]
        if owners and max(owners, key=len) == path.stem:
            found.append(table)
    return found


def closure(modules: Iterable[str], root: Path = _ROOT) -> set[str]:
    """The modules themselves and all that they import inside the package, imports in functions included."""
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting.extend(_imports(module, root))
    return found


def _file(module: str, root: Path) -> Path:
    parts = module.split(".")[1:]
    package = root.joinpath(*parts, "__init__.py")
    return package if package.exists() else root.joinpath(*parts).with_suffix(".py")


def _exists(module: str, root: Path) -> bool:
    return _file(module, root).exists()


def _imports(module: str, root: Path) -> Iterator[str]:
    """Modules of the package named by import statements anywhere in a module, and their parent packages."""
    parent = module.rpartition(".")[0]
    if parent:
        yield parent
    path = _file(module, root)
    stat = path.stat()
    for name in _named_in(path, module, stat.st_mtime_ns, stat.st_size):
        if name.startswith(PACKAGE) and _exists(name, root):
            yield name


@cache
def _named_in(path: Path, module: str, _mtime: int, _size: int) -> tuple[str, ...]:
    base = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(base[: len(base) - node.level + 1]) if node.level else ""
            origin = ".".join(filter(None, (above, node.module)))
            names.append(origin)
            names.extend(f"{origin}.{alias.name}" for alias in node.names)
    return tuple(names)


def _tree_hash(path: Path) -> str:
    stat = path.stat()
    return _tree_hash_of(path, stat.st_mtime_ns, stat.st_size)


@cache
def _tree_hash_of(path: Path, _mtime: int, _size: int) -> str:
    digest = hashlib.sha256()
    for piece in _canonical(ast.parse(path.read_bytes())):
        digest.update(piece.encode())
    return digest.hexdigest()


@cache
def _yaml_hash_of(path: Path, _mtime: int, _size: int) -> str:
    """A hash over what a YAML file says, in its order; comments, blank lines and quotes do not count."""
    import yaml

    return hashlib.sha256(repr(yaml.load(path.read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))).encode()).hexdigest()


def _canonical(node: object) -> Iterator[str]:
    """A syntax tree as text that does not depend on the Python version: empty fields, contexts and docstrings left out."""
    if isinstance(node, ast.AST):
        yield f"({type(node).__name__}"
        for name, value in ast.iter_fields(node):
            if name == "body" and isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                value = _without_docstring(value)
            if value is None or value == [] or name in ("ctx", "type_comment", "kind"):
                continue
            yield f" {name}="
            yield from _canonical(value)
        yield ")"
    elif isinstance(node, list):
        for item in node:
            yield " "
            yield from _canonical(item)
    else:
        yield repr(node)


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    """Statements without the strings that stand alone: docstrings, and attribute docstrings after an assignment."""
    return [s for s in body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant) and isinstance(s.value.value, str))]

"""Code fingerprints: a hash over all code that a stage's result depends on, and nothing else.

A fingerprint covers the modules that a module imports, directly or not, inside the package, as syntax trees: a changed statement counts;
comments, blank lines, line breaks and docstrings do not. The content of YAML files counts that lie beside a module and are called
``<module>.yaml`` or ``<module>_<more>.yaml``; and, byte for byte, the files of folders beside it that it names in
``READS = ("folder", …)``, such as templates.

A plug-in from another package brings the modules of that package that it imports, and the modules of this one.

Imports are not followed into ``planning`` and, from a stage, into other stages: what these decide stands in the cell's parameter file,
which is an input of its own. Nor does the package's own ``__init__`` count: another version number or public name changes no result.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

from uss_dagster.files import parse_yaml
from uss_dagster.hashing import sha256_of, sha256_of_file

PACKAGE = "uss_dagster"
PLANNING, STAGES = f"{PACKAGE}.planning", f"{PACKAGE}.stages"
_ROOT = Path(__file__).resolve().parent.parent


def fingerprint(modules: Iterable[str], root: Path = _ROOT) -> str:
    """16 hex digits over every module that these modules import, directly or not, in this package and in their own."""
    digest = hashlib.sha256()
    for module in sorted(closure(modules, root)):
        path = _file(module, root)
        assert path is not None
        digest.update(f"{module} {_parsed(path, module)[0]}\n".encode())
        for table in tables(Path(path)):
            stat = table.stat()
            digest.update(f"{module} {table.name} {_yaml_hash_of(table, stat.st_mtime_ns, stat.st_size)}\n".encode())
        for folder in _parsed(path, module)[2]:
            for file in sorted(p for p in Path(path).with_name(folder).rglob("*") if p.is_file()):
                digest.update(f"{module} {file.relative_to(Path(path).parent).as_posix()} {sha256_of_file(file)}\n".encode())
    return digest.hexdigest()[:16]


def tables(path: Path) -> list[Path]:
    """The YAML files of a module, sorted: beside it, called like it, or like it with ``_`` and more. Where two modules would do
    (``coco`` and ``coco_stuff``), the longer name has the file."""
    if path.name == "__init__.py":
        return []
    modules, yamls = _listing(str(path.parent), os.stat(path.parent).st_mtime_ns)
    found = []
    for table in yamls:
        if not table.startswith(path.stem):
            continue
        owners = [name for name in modules if table == name or table.startswith(f"{name}_")]
        if owners and max(owners, key=len) == path.stem:
            found.append(path.parent / f"{table}.yaml")
    return found


@cache
def _listing(folder: str, _mtime: int) -> tuple[list[str], list[str]]:
    """Names without ending of the modules and of the YAML files in a folder, sorted."""
    names = sorted(os.listdir(folder))
    modules, yamls = ([name[: -len(end)] for name in names if name.endswith(end)] for end in (".py", ".yaml"))
    return modules, sorted(yamls, key=lambda name: f"{name}.yaml")


def closure(modules: Iterable[str], root: Path = _ROOT) -> set[str]:
    """The modules themselves and all that they import in this package and in their own, imports in functions included."""
    closed: set[str] = set()
    missing: set[str] = set()
    first = list(modules)
    queue = [*first]
    while queue:
        module = queue.pop()
        if module in closed or module in missing or (_is_left_out(module) and module not in first):
            continue
        path = _file(module, root)
        if path is None:  # a name that a module defines, not a module
            if module in first:
                where = f"below {root}" if module.partition(".")[0] == PACKAGE else "in the installed packages"
                raise ModuleNotFoundError(f"There is no module '{module}' {where}.")
            missing.add(module)
            continue
        closed.add(module)
        if parent := module.rpartition(".")[0]:
            queue.append(parent)
        queue.extend(_parsed(path, module)[1])
    return closed


def _is_left_out(module: str) -> bool:
    """Its decisions stand in the parameter files of cells; or it only holds the version and the public names."""
    return module in (PACKAGE, PLANNING) or module.startswith((f"{PLANNING}.", f"{STAGES}."))


def _file(module: str, root: Path) -> str | None:
    top, *below = module.split(".")
    folder = str(root) if top == PACKAGE else _installed(top)
    if folder is None:
        return None
    base = os.path.join(folder, *below)
    return next((path for path in (os.path.join(base, "__init__.py"), f"{base}.py") if os.path.exists(path)), None)


@cache
def _installed(package: str) -> str | None:
    """The folder of an installed package, or the path without ``.py`` of a single module; the package is not imported."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        return None
    folders = list(spec.submodule_search_locations or ())
    return folders[0] if folders else os.path.splitext(spec.origin or "")[0]


def _parsed(path: str, module: str) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """A hash over a module's syntax tree, the names in the package that its import statements give, and the folders that it reads."""
    stat = os.stat(path)
    return _parsed_as(path, module, stat.st_mtime_ns, stat.st_size)


@cache
def _parsed_as(path: str, module: str, _mtime: int, _size: int) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    with open(path, "rb") as file:
        tree = ast.parse(file.read())
    pieces: list[str] = []
    _write_canonical(tree, pieces.append)
    packages = (PACKAGE, module.partition(".")[0])
    named = tuple(name for name in _named_in(tree, module, path) if name.partition(".")[0] in packages)
    return sha256_of("".join(pieces).encode()), named, _folders_in(tree)


def _folders_in(tree: ast.Module) -> tuple[str, ...]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(target, ast.Name) and target.id == "READS" for target in node.targets):
            return tuple(ast.literal_eval(node.value))
    return ()


def _named_in(tree: ast.Module, module: str, path: str) -> Iterator[str]:
    base = module.split(".") if os.path.basename(path) == "__init__.py" else module.split(".")[:-1]
    for node in _statements(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(base[: len(base) - node.level + 1]) if node.level else ""
            origin = ".".join(filter(None, (above, node.module)))
            yield origin
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def _statements(tree: ast.AST) -> Iterator[ast.AST]:
    """Every statement of a module, nested ones included. Expressions are left out: they hold no imports, and most nodes are theirs."""
    for field in ("body", "orelse", "finalbody", "handlers", "cases"):
        nodes = getattr(tree, field, None)
        for node in nodes if isinstance(nodes, list) else ():
            yield node
            yield from _statements(node)


@cache
def _yaml_hash_of(path: Path, _mtime: int, _size: int) -> str:
    """A hash over what a YAML file says, in its order; comments, blank lines and quotes do not count."""
    return sha256_of(repr(parse_yaml(path.read_bytes())).encode())


def _write_canonical(node: object, write: Callable[[str], None]) -> None:
    """A syntax tree as text that does not depend on the Python version: empty fields, contexts and docstrings left out."""
    if isinstance(node, ast.AST):
        write(f"({type(node).__name__}")
        for name, value in ast.iter_fields(node):
            if name == "body" and isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                value = _without_docstring(value)
            if value is None or value == [] or name in ("ctx", "type_comment", "kind"):
                continue
            write(f" {name}=")
            _write_canonical(value, write)
        write(")")
    elif isinstance(node, list):
        for item in node:
            write(" ")
            _write_canonical(item, write)
    else:
        write(repr(node))


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    """Statements without the strings that stand alone: docstrings, and attribute docstrings after an assignment."""
    return [s for s in body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant) and isinstance(s.value.value, str))]

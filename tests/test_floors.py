"""The import rule: each floor of the house imports only what is below it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import uss_dagster

ROOT = Path(uss_dagster.__file__).parent

# Lowest first; folders on one line are on one floor and may not import each other.
FLOORS = [
    ("errors", "__init__"),
    ("registry", "runtime", "fingerprint", "yamlfile"),
    ("regions",),
    ("artifacts", "graphs", "refine"),
    ("datasets", "backbones", "metrics"),
    ("curation",),
    ("student",),
    ("methods",),
    ("report",),
    ("stages",),
    ("profile",),
    ("cells",),
    ("training_cells",),
    ("plan",),
    ("run", "commands"),
    ("cli", "orchestration"),
    ("definitions",),
]
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
# A method reads a sample (datasets) with features (backbones); artefacts of both are read through their base modules. A student learns from
# curated masks, and the method of its name runs it.
SAME_FLOOR = {("run", "commands")}
APART = "dagster_dvc"


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


FILES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_imports_go_downwards(path):
    mine = room(".".join(("uss_dagster", *path.relative_to(ROOT).with_suffix("").parts)))
    for name in imports(path):
        top = name.split(".")[0]
        if top in ("dagster", "dagster_graphql"):
            assert mine in (APART, "orchestration", "definitions"), f"{path.name} imports dagster; only {APART} and orchestration may"
        if top != "uss_dagster" or name == "uss_dagster":
            continue
        theirs = room(name)
        if theirs not in LEVEL and theirs != APART:
            continue  # a name defined in the package's __init__, such as __version__
        if mine == APART:
            assert theirs in (APART, "errors"), f"{path.name} imports {name}; {APART} stands apart and knows only errors"
        elif theirs == APART:
            assert mine == "orchestration", f"{path.name} imports {name}; only orchestration may"
        elif theirs != mine:
            assert LEVEL[theirs] < LEVEL[mine] or (theirs, mine) in SAME_FLOOR, f"{path.name} ({mine}) imports {name}: upwards"


def test_every_room_has_a_floor():
    rooms = {room(".".join(("uss_dagster", *p.relative_to(ROOT).with_suffix("").parts))) for p in FILES}
    assert rooms - {APART} <= set(LEVEL)


def test_every_folder_says_what_belongs_there():
    for init in ROOT.glob("*/__init__.py"):
        if (init.parent / "__init__.py").exists() and init.parent.name != "assets":
            text = " ".join((ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))) or "").split())
            assert "Belongs here" in text, init
            assert "not belong here" in text, init


@pytest.mark.parametrize(
    ("statement", "banned"),
    [
        ("import uss_dagster.cli", ("torch", "dagster", "great_expectations", "pandas", "pyarrow", "skimage", "sklearn", "numpy")),
        # `uss plan` reads every plug-in's SPEC, so no plug-in may import what is heavy at its top.
        (
            "from uss_dagster import registry; [registry.load(f, n) for f in registry.FAMILIES for n in registry.names(f)]",
            ("torch", "dagster", "great_expectations", "pandas", "skimage", "sklearn", "timm", "matplotlib"),
        ),
        ("import uss_dagster.orchestration.build", ("torch", "great_expectations", "skimage", "sklearn", "timm")),
    ],
    ids=["cli", "plug-ins", "orchestration"],
)
def test_light_modules_import_nothing_heavy(statement, banned):
    code = f"{statement}; import sys; print([m for m in {banned!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"

"""The order of imports: each layer imports only what is below it."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest
from source_code import BRIDGE, BRIDGE_ROOT, PACKAGE, ROOT, Module, bridge_modules, imported_names, modules

LAYERS = [
    ("errors",),
    ("bounds", "files", "hashing", "loopback", "notes", "pixels", "runtime", "templates", "text", "torchvision_import"),
    ("registry",),
    ("regions", "weights"),
    ("planning",),
    ("artifacts", "graphs", "refine"),
    ("drawing", "scenes"),
    ("datasets", "backbones", "metrics"),
    ("curation", "downloads", "scoring"),
    ("student",),
    ("feature_shards", "methods"),
    ("segmenter",),
    ("report",),
    ("own_images", "stages"),
    ("formats",),
    ("annotation", "api"),
    ("__init__",),
    ("run", "stage_server"),
    ("commands",),
    ("cli", "orchestration"),
    ("definitions",),
]
"""Lowest first. Packages and modules of one layer do not import each other."""
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}
USES_DAGSTER = {"orchestration", "definitions"}
USES_DVC = {"commands"}
NEVER_IN_PLANNING = ("stages", "artifacts", "student", "curation")
"""A stage's class is found by folder: adding one changes nothing in planning."""


def upward_imports(module: Module) -> list[str]:
    """What it imports and must not."""
    mine, refused = module.part, []
    for name in imported_names(module):
        top, _, rest = name.partition(".")
        theirs = rest.partition(".")[0]
        if top == BRIDGE:
            allowed = LEVEL[mine] >= LEVEL["commands"]
        elif top.startswith("dagster"):
            allowed = mine in USES_DAGSTER
        elif top == "dvc":
            allowed = mine in USES_DVC
        else:  # theirs may also be a name of the package's __init__, such as __version__
            allowed = top != PACKAGE or theirs == mine or theirs not in LEVEL or LEVEL[theirs] < LEVEL[mine]
        if not allowed:
            refused.append(name)
    return refused


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.path)
def test_imports_go_downwards(module):
    assert upward_imports(module) == [], f"'{module.part}' imports what is not below it"


@pytest.mark.parametrize(
    ("path", "statement", "refused"),
    [
        ("regions/a.py", "from uss_dagster.errors import BadData", []),
        ("regions/a.py", "def f():\n    from uss_dagster.stages import site", ["uss_dagster.stages", "uss_dagster.stages.site"]),
        ("regions/a.py", "from ..artifacts import gate", ["uss_dagster.artifacts", "uss_dagster.artifacts.gate"]),
        ("graphs/a.py", "import uss_dagster.refine.crf", ["uss_dagster.refine.crf"]),
        ("methods/a.py", "import dagster", ["dagster"]),
        ("methods/a.py", "from dagster_dask import x", ["dagster_dask", "dagster_dask.x"]),
        ("orchestration/a.py", "import dagster, dvc.repo", ["dvc.repo"]),
        ("stages/a.py", "import dagster_dvc", ["dagster_dvc"]),
        ("commands/a.py", "import dagster_dvc", []),
        ("cli.py", "from uss_dagster import __version__", []),
    ],
)
def test_what_counts_as_upwards(path, statement, refused):
    assert upward_imports(Module(path, statement)) == refused


def test_the_bridge_imports_nothing_of_this_package():
    """Its tests neither: both go to whoever uses DVC and Dagster for something else."""
    tests = [Module(path.name, path.read_text(encoding="utf-8"), BRIDGE) for path in (BRIDGE_ROOT / "tests").rglob("*.py")]
    assert tests
    for module in (*bridge_modules(), *tests):
        assert [name for name in imported_names(module) if name.partition(".")[0] == PACKAGE] == [], module.path


def test_every_part_has_a_layer():
    parts = {module.part for module in modules()}
    assert parts == set(LEVEL), "a new package or module of the package gets its place in LAYERS"
    assert sum(len(parts) for parts in LAYERS) == len(LEVEL), "no part stands in two layers"


def test_planning_knows_no_stage():
    """Neither by import nor, with the exception of their folder, by name."""
    for module in modules():
        if module.part == "planning":
            parts = {name.split(".")[1] for name in imported_names(module) if name.startswith(f"{PACKAGE}.")}
            assert not parts & set(NEVER_IN_PLANNING), module.path
            assert parts <= {"planning", "errors", "files", "hashing", "registry", "weights"}, module.path


def test_every_package_says_what_belongs_there():
    for module in modules():
        if module.path.count("/") == 1 and module.path.endswith("/__init__.py"):
            text = " ".join((ast.get_docstring(module.tree) or "").split())
            assert "Belongs here" in text, module.path
            assert "not belong here" in text, module.path


PLUG_INS = "from uss_dagster import registry; [registry.load(f, n) for f in registry.FAMILIES for n in registry.names(f)]"
HEAVY = (
    "torch",
    "torchvision",
    "dagster",
    "great_expectations",
    "pandas",
    "skimage",
    "sklearn",
    "timm",
    "matplotlib",
    "transformers",
    "diffusers",
)


@pytest.mark.parametrize(
    ("statement", "banned"),
    [
        ("import uss_dagster, uss_dagster.cli", (*HEAVY, "pyarrow", "numpy", "scipy", "pydantic")),
        # `uss plan` reads every plug-in's SPEC and every stage's class, so none may import what is heavy at its top.
        (PLUG_INS, HEAVY),
        ("from uss_dagster.planning.cells import stage_classes; stage_classes()", HEAVY),
        ("import uss_dagster.orchestration.build", ("torch", "great_expectations", "skimage", "sklearn", "timm")),
    ],
    ids=["cli", "plug-ins", "stages", "orchestration"],
)
def test_light_modules_import_nothing_heavy(statement, banned):
    code = f"{statement}; import sys; print([m for m in {banned!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent).stdout
    assert out.strip() == "[]"

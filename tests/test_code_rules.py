"""Rules of the source: what a reader may count on, and how much there is to read."""

from __future__ import annotations

import pytest
from source_code import (
    Module,
    bridge_modules,
    code_lines,
    function_lengths,
    modules,
    private_imports,
    splits_of_keys,
    string_constants,
    untyped_mappings,
)

from uss_dagster.planning.cells import stage_classes

EVERY_MODULE = (*modules(), *bridge_modules())
MOST_UNTYPED_MAPPINGS = 60
MOST_LINES_OF_A_FUNCTION = 60
MOST_LINES_OF_A_MODULE = 450
MOST_STAGES_NAMED = 2
NAMES_STAGES = ("stages/", "planning/layout.py", "planning/migration.py")
"""Where stages have their names, their paths, and the names of an earlier version."""
DRAWS = ("scenes/", "drawing.py")
"""Long because they draw many things, one after the other."""


def test_no_private_name_of_another_package_is_imported():
    violations = [f"{module.path} imports {name}" for module in EVERY_MODULE for name in private_imports(module)]
    assert violations == []


def test_mappings_have_types():
    counts = {module.name: count for module in EVERY_MODULE if (count := untyped_mappings(module))}
    total = sum(counts.values())
    assert total <= MOST_UNTYPED_MAPPINGS, f"{total} annotations such as dict[str, Any]: {_most(counts)}"


def test_keys_are_not_taken_apart():
    counts = {module.path: count for module in modules() if (count := splits_of_keys(module))}
    assert counts.keys() <= {"planning/migration.py"}, counts


def test_functions_are_short():
    long = {
        f"{module.name}:{name}": lines
        for module in EVERY_MODULE
        if not module.is_kernel
        for name, lines in function_lengths(module)
        if lines > MOST_LINES_OF_A_FUNCTION
    }
    assert long == {}, f"{len(long)} functions over {MOST_LINES_OF_A_FUNCTION} lines, docstrings not counted"


def test_modules_are_short():
    lengths = {module.path: len(module.text.splitlines()) for module in EVERY_MODULE if not module.is_kernel}
    long = {path: lines for path, lines in lengths.items() if lines > MOST_LINES_OF_A_MODULE and not path.startswith(DRAWS)}
    assert long == {}, f"{len(long)} modules over {MOST_LINES_OF_A_MODULE} lines"


def test_a_stage_is_named_in_one_place():
    """A list of stages beside ``uss_dagster/stages`` would have to be kept in step with it."""
    stages = set(stage_classes())
    named = {module.path: sorted(stages & string_constants(module)) for module in modules() if not module.path.startswith(NAMES_STAGES)}
    lists = {path: names for path, names in named.items() if len(names) > MOST_STAGES_NAMED}
    assert lists == {}, f"{len(lists)} modules name more than {MOST_STAGES_NAMED} stages"


def _most(counts: dict[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: -item[1])[:12])


# -- the measures themselves --------------------------------------------------------------------------------


def test_lines_of_code_leave_out_comments_blank_lines_and_docstrings():
    text = '''"""Module."""

# A comment.
X = 1  # counts
"""What X is."""


def f(
    a,
):
    """Two
    lines."""
    return """one

    string"""
'''
    assert code_lines(text) == 1 + 3 + 3
    assert code_lines("") == 0


@pytest.mark.parametrize(
    ("path", "statement", "refused"),
    [
        ("a/b.py", "from uss_dagster.a._c import d", []),
        ("a/b.py", "from uss_dagster.a.c import _d", []),
        ("a/b.py", "from . import _c", []),
        ("a/x/b.py", "from uss_dagster.a._c import d", []),
        ("a/b.py", "from uss_dagster import __version__", []),
        ("a/b.py", "from numpy._core import x", []),
        ("a/b.py", "from uss_dagster.c._d import e", ["uss_dagster.c._d.e"]),
        ("a/b.py", "from uss_dagster.c import _d", ["uss_dagster.c._d"]),
        ("a/b.py", "from uss_dagster.c.d import _e", ["uss_dagster.c.d._e"]),
        ("a/b.py", "from ..c import _d", ["uss_dagster.c._d"]),
        ("a/b.py", "import uss_dagster.c._d", ["uss_dagster.c._d"]),
        ("a/b.py", "def f():\n    from uss_dagster.a.x._d import e", ["uss_dagster.a.x._d.e"]),
    ],
)
def test_what_counts_as_a_private_import(path, statement, refused):
    assert list(private_imports(Module(path, statement))) == refused


def test_what_else_is_counted():
    text = '"""datasets"""\nA = {"sites": f"segments"}\n\ndef f(a):\n    """Two\n    lines."""\n    return a.split("__"), dict[str, Any]\n'
    module = Module("a/b.py", text)
    assert string_constants(module) == {"sites", "segments", "__"}
    assert list(function_lengths(module)) == [("f", 2)]
    assert (splits_of_keys(module), untyped_mappings(module)) == (1, 1)
    assert (module.name, module.package, module.part) == ("uss_dagster.a.b", "uss_dagster.a", "a")
    assert Module("a/__init__.py", "").package == "uss_dagster.a"

"""What counts as a change of code."""

import ast
import re
import shutil
from pathlib import Path

import pytest

import uss_dagster
from uss_dagster import registry
from uss_dagster.planning.cells import stage_classes
from uss_dagster.planning.fingerprints import closure, fingerprint, tables


@pytest.fixture
def package(tmp_path: Path) -> Path:
    target = tmp_path / "uss_dagster"
    shutil.copytree(Path(uss_dagster.__file__).parent, target, ignore=shutil.ignore_patterns("__pycache__", "assets"))
    return target


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


METHOD = ["uss_dagster.methods.slic_merge"]


def test_only_code_counts(package):
    before = fingerprint(METHOD, package)
    path = package / "methods" / "slic_merge.py"
    text = path.read_text(encoding="utf-8")
    path.write_text("# a comment\n" + text.replace('"""', '"""Other words. ', 1) + "\n\n# the end\n", encoding="utf-8")
    assert fingerprint(METHOD, package) == before
    path.write_text(text + "\nMORE = 1\n", encoding="utf-8")
    assert fingerprint(METHOD, package) != before


def test_layout_does_not_count_but_a_number_does(package):
    module = package / "graphs" / "zz_example.py"
    module.write_text("def f(a, b):\n    return a + b * 2.5\n")
    before = fingerprint(["uss_dagster.graphs.zz_example"], package)
    module.write_text("def f(\n    a,\n    b,\n):  # sum\n    'Docstring.'\n    return (a + b * 2.50)\n")
    assert fingerprint(["uss_dagster.graphs.zz_example"], package) == before
    module.write_text("def f(a, b):\n    return a + b * 2.6\n")
    assert fingerprint(["uss_dagster.graphs.zz_example"], package) != before


def test_a_shared_module_counts_where_it_is_imported_and_nowhere_else(package):
    slic, felz = fingerprint(METHOD, package), fingerprint(["uss_dagster.methods.felzenszwalb"], package)
    shared = package / "graphs" / "merging.py"
    shared.write_text(shared.read_text(encoding="utf-8") + "\nMORE = 1\n", encoding="utf-8")
    assert fingerprint(METHOD, package) != slic
    assert fingerprint(["uss_dagster.methods.felzenszwalb"], package) == felz


STAGES = sorted(stage_classes())


@pytest.mark.parametrize("stage", STAGES)
def test_imports_are_not_followed_into_planning_and_other_stages(stage):
    """What these decide stands in the cell's parameter file, which is an input of its own."""
    modules = closure([f"uss_dagster.stages.{stage}"])
    assert {m for m in modules if m.startswith("uss_dagster.stages.")} == {f"uss_dagster.stages.{stage}"}
    assert not {m for m in modules if m == "uss_dagster.planning" or m.startswith("uss_dagster.planning.")}
    assert "uss_dagster.artifacts.staging" in modules, "the library is followed"


@pytest.mark.parametrize("stage", STAGES)
def test_of_another_stage_only_the_class_is_imported(stage):
    """Its functions would run without counting."""
    tree = ast.parse((Path(uss_dagster.__file__).parent / "stages" / f"{stage}.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("uss_dagster.stages"):
            other = stage_classes()[node.module.rpartition(".")[2]]
            assert [alias.name for alias in node.names] == [other.__name__]


def test_an_edit_reaches_the_stages_that_run_it(package):
    def prints() -> dict[str, str]:
        return {stage: fingerprint([f"uss_dagster.stages.{stage}"], package) for stage in STAGES}

    before = prints()
    for path in (package / "planning").glob("*.py"):
        path.write_text(path.read_text(encoding="utf-8") + "\nMORE = 1\n")
    assert prints() == before
    for path, changed in (
        ("stages/datasets.py", {"datasets"}),
        ("stages/segments.py", {"segments"}),
        ("artifacts/shard_runner.py", {"features", "segments", "mask_pool", "labels"}),
        ("artifacts/staging.py", set(STAGES)),
    ):
        edited = package / path
        edited.write_text(edited.read_text(encoding="utf-8") + "\nMORE = 1\n")
        after = prints()
        assert {stage for stage in STAGES if after[stage] != before[stage]} == changed, path
        before = after


def test_a_plug_in_never_imports_planning_or_a_stage():
    """Such an import would not be followed."""
    for family in ("method", "backbone", "dataset", "metric"):
        for name in registry.names(family):
            module = registry.module_name(family, name)
            closed = closure([module])
            assert not {m for m in closed if m.startswith(("uss_dagster.planning", "uss_dagster.stages"))}
            for part in closed:
                path = Path(uss_dagster.__file__).parent.joinpath(*part.split(".")[1:])
                path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
                text = path.read_text(encoding="utf-8")
                assert not re.search(r"^\s*(from|import) uss_dagster\.(planning|stages)", text, re.M), part


def test_imports_inside_functions_and_relative_ones_are_followed(package):
    (package / "graphs" / "zz_far.py").write_text("X = 1\n")
    (package / "graphs" / "zz_near.py").write_text("def f():\n    from . import zz_far\n    return zz_far.X\n")
    found = closure(["uss_dagster.graphs.zz_near"], package)
    assert "uss_dagster.graphs.zz_far" in found
    assert "uss_dagster.graphs" in found, "the package of a module"


def test_another_version_of_the_package_changes_no_result(package):
    """Nor does another public name; what they import is imported by nothing that computes."""
    stages = [f"uss_dagster.stages.{stage}" for stage in STAGES]
    before = fingerprint(stages, package)
    edit(package / "__init__.py", '__version__ = "', '__version__ = "9.')
    assert fingerprint(stages, package) == before
    assert not [module for module in closure(stages) if module.startswith("uss_dagster.api")]


def test_plug_ins_do_not_know_each_other():
    for name in ("kmeans", "felzenszwalb", "slic_merge"):
        others = {m for m in closure([f"uss_dagster.methods.{name}"]) if m.startswith("uss_dagster.methods.")} - {
            f"uss_dagster.methods.{name}",
            "uss_dagster.methods.base",
        }
        assert not others


def test_yaml_files_of_a_module_count_by_what_they_say(package):
    (package / "datasets" / "zz_zoo.py").write_text("X = 1\n")
    (package / "datasets" / "zz_zoo_park.py").write_text("X = 1\n")
    zoo, park = ["uss_dagster.datasets.zz_zoo"], ["uss_dagster.datasets.zz_zoo_park"]
    bare = fingerprint(zoo, package)
    table = package / "datasets" / "zz_zoo_19.yaml"
    table.write_text("animal:\n  cat: foreground 3\nsky: background 0\n")
    before = fingerprint(zoo, package)
    assert before != bare, "a new file counts"
    table.write_text("# Class tree.\n\nanimal: {cat: 'foreground 3'}  # the only one\nsky: background 0\n")
    assert fingerprint(zoo, package) == before, "comments, blank lines, quotes and style do not"
    table.write_text("sky: background 0\nanimal:\n  cat: foreground 3\n")
    assert fingerprint(zoo, package) != before, "the order does: it numbers the classes"
    beside = fingerprint(zoo, package)
    (package / "datasets" / "zz_zoo_park_2.yaml").write_text("a: foreground\n")
    assert fingerprint(zoo, package) == beside, "the file of a module with a longer name"
    assert [t.name for t in tables(package / "datasets" / "zz_zoo_park.py")] == ["zz_zoo_park_2.yaml"]
    assert fingerprint(park, package) != fingerprint(zoo, package)


def test_every_yaml_file_beside_a_plug_in_belongs_to_a_module():
    folder = Path(uss_dagster.__file__).parent / "datasets"
    owned = {table for path in folder.glob("*.py") for table in tables(path)}
    assert owned == set(folder.glob("*.yaml"))


def test_files_of_folders_that_a_module_names_count_byte_for_byte(package):
    (package / "datasets" / "zz_page.py").write_text('READS = ("zz_templates",)\n')
    (package / "datasets" / "zz_user.py").write_text("from uss_dagster.datasets import zz_page\n")
    user = ["uss_dagster.datasets.zz_user"]
    bare = fingerprint(user, package)
    (package / "datasets" / "zz_templates" / "more").mkdir(parents=True)
    (package / "datasets" / "zz_templates" / "more" / "page.css").write_text("a {}\n")
    before = fingerprint(user, package)
    assert before != bare
    (package / "datasets" / "zz_templates" / "more" / "page.css").write_text("a { }\n")
    assert fingerprint(user, package) != before

"""What counts as a change of code."""

import shutil
from pathlib import Path

import pytest

import uss_dagster
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


def test_imports_inside_functions_and_relative_ones_are_followed(package):
    (package / "graphs" / "zz_far.py").write_text("X = 1\n")
    (package / "graphs" / "zz_near.py").write_text("def f():\n    from . import zz_far\n    return zz_far.X\n")
    found = closure(["uss_dagster.graphs.zz_near"], package)
    assert "uss_dagster.graphs.zz_far" in found
    assert "uss_dagster" in found


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

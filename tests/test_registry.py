"""Plug-ins are found by file name, read lazily, and their parameters are checked by name and type."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

import uss_dagster
from uss_dagster import registry
from uss_dagster.bounds import SHARE, check_bounds
from uss_dagster.commands.parameters import parse_parameters
from uss_dagster.errors import ParameterError, UsageError
from uss_dagster.planning.profiles import complete_params, read_profile


@dataclass(frozen=True)
class Params:
    count: int = 3
    share: float = 0.5
    kind: Literal["soft", "hard"] = "soft"
    limit: int | None = None
    names: tuple[str, ...] = ("a",)
    flag: bool = False

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"count is {self.count}, expected 1 or more.")


def build(**values):
    return registry.build_params(Params, values, "method 'x'")


@pytest.mark.parametrize("family", registry.FAMILIES)
def test_every_plugin_is_whole(family):
    assert registry.names(family), "a family without plug-ins is a mistake in finding them"
    for name in registry.names(family):
        spec = registry.load(family, name).SPEC
        assert spec.name == name
        assert spec.title
        if family != "metric":
            assert spec.licence
            defaults = spec.params()
            given = registry.params_to_dict(defaults)
            assert registry.build_params(spec.params, given, name) == defaults, "parameters survive a parameter file"


def test_listing_imports_no_plugin(monkeypatch):
    for module in [m for m in sys.modules if m.startswith("uss_dagster.methods.")]:
        monkeypatch.delitem(sys.modules, module)
    registry.names.cache_clear()
    assert "slic_merge" in registry.names("method")
    assert "uss_dagster.methods.slic_merge" not in sys.modules


def test_private_modules_and_bases_are_no_plugins():
    for family in registry.FAMILIES:
        assert not [n for n in registry.names(family) if n.startswith("_") or n == "base"]


def test_values_are_taken_by_type():
    assert build() == Params()
    made = build(count=4, share=1, kind="hard", limit=7, names=["b", "c"], flag=True)
    assert made == Params(4, 1.0, "hard", 7, ("b", "c"), True)
    assert isinstance(made.share, float)
    assert build(limit=None).limit is None
    assert [build(share=text).share for text in ("1e-3", "-2.5E2", "+1e+1")] == [0.001, -250.0, 10.0], "YAML reads these as text"
    assert registry.params_to_dict(made)["names"] == ["b", "c"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"cuont": 3}, "method 'x' has no parameter 'cuont'. Did you mean 'count'?"),
        ({"zzz": 3}, "method 'x' has no parameter 'zzz'. Known: count, flag, kind, limit, names, share."),
        ({"count": 2.5}, "method 'x': parameter 'count' is 2.5, expected int."),
        ({"count": True}, "method 'x': parameter 'count' is True, expected int."),
        ({"count": None}, "method 'x': parameter 'count' is None, expected int."),
        ({"share": "half"}, "method 'x': parameter 'share' is 'half', expected float."),
        ({"share": False}, "method 'x': parameter 'share' is False, expected float."),
        ({"kind": "sofd"}, "method 'x': parameter 'kind' is 'sofd'. Did you mean 'soft'?"),
        ({"limit": "all"}, "method 'x': parameter 'limit' is 'all', expected int | None."),
        ({"names": "a"}, "method 'x': parameter 'names' is 'a', expected a list."),
        ({"names": [1]}, "method 'x': parameter 'names' is 1, expected str."),
        ({"flag": 1}, "method 'x': parameter 'flag' is 1, expected bool."),
        ({"count": 0}, "method 'x': count is 0, expected 1 or more."),
    ],
    ids=str,
)
def test_a_wrong_value_is_named(values, said):
    with pytest.raises(UsageError) as caught:
        build(**values)
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("family", "name", "near"), [("method", "kmean", "kmeans"), ("backbone", "patch", "patches"), ("dataset", "scene", "scenes")]
)
def test_did_you_mean(family, name, near):
    with pytest.raises(UsageError, match=f"Unknown {family} '{name}'. Did you mean '{near}'\\?"):
        registry.load(family, name)


def test_a_module_without_spec_is_refused(monkeypatch):
    import types

    registry.names("method")
    monkeypatch.setattr(registry, "names", lambda family: ("hollow",))
    hollow = types.ModuleType("uss_dagster.methods.hollow")
    hollow.__file__ = "hollow.py"
    monkeypatch.setitem(sys.modules, "uss_dagster.methods.hollow", hollow)
    with pytest.raises(UsageError, match=r"method 'hollow' \(hollow.py\) defines no SPEC"):
        registry.load("method", "hollow")


def test_a_plug_in_that_cannot_be_imported_is_refused_in_a_sentence(monkeypatch):
    monkeypatch.setattr(registry, "module_name", lambda family, name: "no_such_package.method")
    with pytest.raises(
        UsageError, match=r"method 'x' of another package cannot be imported from 'no_such_package.method' \(No module named"
    ):
        registry.load("method", "x")


def test_params_are_frozen_dataclasses():
    for family in registry.FAMILIES:
        for name in registry.names(family):
            params = getattr(registry.load(family, name).SPEC, "params", None)
            if params is not None:
                assert dataclasses.is_dataclass(params)
                assert params.__dataclass_params__.frozen


# -- sections of parameters ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Refine:
    kind: Literal["none", "guided"] = "none"
    iou: float = 0.5

    def __post_init__(self) -> None:
        check_bounds(self, iou=SHARE)


@dataclass(frozen=True)
class Pool:
    most: int | None = None
    refine: Refine = Refine()


@dataclass(frozen=True)
class Sections:
    seed: int = 0
    names: tuple[str, ...] = ("a",)
    pool: Pool = Pool(most=7)
    refine: Refine = field(default_factory=lambda: Refine(iou=0.25))


def sections(**values):
    return registry.build_params(Sections, values, "method 'x'")


def test_sections_are_built_over_what_the_plug_in_has_by_default():
    assert sections() == Sections()
    made = sections(refine={"kind": "guided"}, pool={"refine": {"iou": 1}})
    assert made == Sections(pool=Pool(most=7, refine=Refine(iou=1.0)), refine=Refine("guided", 0.25))
    assert isinstance(made.pool.refine.iou, float)
    assert sections(**registry.params_to_dict(made)) == made


def test_sections_as_dotted_names_and_back():
    flat = registry.flat_params(sections(refine={"kind": "guided"}))
    names = ["seed", "names", "pool.most", "pool.refine.kind", "pool.refine.iou", "refine.kind", "refine.iou"]
    assert list(flat) == list(registry.flat_types(Sections)) == names
    assert list(flat.values()) == [0, ["a"], 7, "none", 0.5, "guided", 0.25]
    nested = registry.nested_params(flat)
    assert nested == registry.params_to_dict(sections(refine={"kind": "guided"}))
    assert registry.flat_params(nested) == flat
    assert registry.flat_types(Sections)["pool.most"] == int | None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"refine": {"kund": "none"}}, "method 'x' has no parameter 'refine.kund'. Did you mean 'refine.kind'?"),
        ({"pool": {"zzz": 1}}, "method 'x' has no parameter 'pool.zzz'. Known: pool.most, pool.refine."),
        ({"most": 1}, "method 'x' has no parameter 'most'. Did you mean 'pool.most'?"),
        ({"refin": {}}, "method 'x' has no parameter 'refin'. Did you mean 'refine'?"),
        ({"refine": {"kind": "gided"}}, "method 'x': parameter 'refine.kind' is 'gided'. Did you mean 'guided'?"),
        ({"pool": {"refine": {"iou": "a"}}}, "method 'x': parameter 'pool.refine.iou' is 'a', expected float."),
        ({"pool": {"refine": {"iou": 2}}}, "method 'x': pool.refine.iou is 2.0, expected 0 to 1."),
        ({"refine": "guided"}, "method 'x': 'refine' is 'guided', expected a mapping of parameters."),
        ({"seed": {"a": 1}}, "method 'x': parameter 'seed' is {'a': 1}, expected int."),
    ],
    ids=str,
)
def test_a_wrong_value_in_a_section_is_named(values, message):
    with pytest.raises(ParameterError) as caught:
        sections(**values)
    assert str(caught.value) == message
    assert caught.value.path
    assert ".".join(caught.value.path) in message


def test_words_of_the_command_line_name_parameters_of_sections():
    words = ["seed=3", "refine.kind=guided", "pool.refine.iou=1", "names=[b]"]
    assert parse_parameters(words, Sections, "x") == {
        "seed": 3,
        "refine": {"kind": "guided"},
        "pool": {"refine": {"iou": 1}},
        "names": ["b"],
    }
    assert parse_parameters(["refine={kind: guided}"], Sections, "x") == {"refine": {"kind": "guided"}}
    for words in (["refine={kind: none}", "refine.iou=1"], ["refine.iou=1", "refine={kind: none}"]):
        with pytest.raises(UsageError, match="give the section as a whole, or its parameters one by one"):
            parse_parameters(words, Sections, "x")


def test_lines_of_a_profile_are_named_down_to_the_parameter(tmp_path):
    (tmp_path / "profiles").mkdir()
    profile = tmp_path / "profiles" / "small.yaml"
    text = "entries:\n  unsam:\n    params:\n      seed: 1\n      pool:\n        most: 5\n        {}\n"
    (tmp_path / "params.yaml").write_text("profile: small\n")
    for wrong, message in (
        ("iou: much", "profiles/small.yaml:7: method 'unsam': parameter 'pool.iou' is 'much', expected float | None."),
        ("iuo: 1", "profiles/small.yaml:7: method 'unsam' has no parameter 'pool.iuo'. Did you mean 'pool.iou'?"),
    ):
        profile.write_text(text.replace("{}", wrong))
        read = read_profile(tmp_path)
        params = registry.load("method", "unsam").SPEC.params
        with pytest.raises(UsageError) as caught:
            complete_params(read, params, read.entries["unsam"].params, "method 'unsam'", "entries", "unsam", "params")
        assert str(caught.value) == message


# -- plug-ins of other packages -----------------------------------------------------------------------

METHOD = '''\
"""The image, and its two halves."""

from dataclasses import dataclass

import numpy as np

from uss_dagster.methods.base import MethodSpec
from uss_dagster.regions import Regions

from {package}.cutting import half


@dataclass(frozen=True)
class Params:
    vertical: bool = True


SPEC = MethodSpec("halves", "Halves", Params, paper="none", licence="MIT")


def segment(sample, params, state=None):
    return Regions.from_tree(half(sample.image.shape[:2], params.vertical), [-1, 0, 0], level=[1.0, 0.0, 0.0])
'''
CUTTING = """\
import numpy as np


def half(shape, vertical):
    labels = np.ones(shape, int)
    labels[(slice(None), slice(shape[1] // 2, None)) if vertical else slice(shape[0] // 2, None)] = 2
    return labels
"""


def install(folder: Path, target: Path, package: str, name: str = "halves") -> Path:
    """Build a package with one method and install it into a folder; the folder of its modules."""
    source = folder / package
    (source / package).mkdir(parents=True)
    (source / package / "__init__.py").write_text("")
    (source / package / "method.py").write_text(METHOD.format(package=package).replace('"halves"', f'"{name}"'))
    (source / package / "cutting.py").write_text(CUTTING)
    (source / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        f'[project]\nname = "{package}"\nversion = "1.0"\n[tool.setuptools]\npackages = ["{package}"]\n'
        f'[project.entry-points."uss_dagster.methods"]\n{name} = "{package}.method"\n'
    )
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
        "--no-build-isolation",
        "--disable-pip-version-check",
    ]
    subprocess.run([*pip, "--target", str(target), str(source)], check=True, capture_output=True, timeout=120)
    return target / package


def python(code: str, *folders: Path) -> subprocess.CompletedProcess[str]:
    """A program with these folders on its path, beside those of this process."""
    path = os.pathsep.join([str(Path(uss_dagster.__file__).parents[1]), *map(str, folders)])
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}, timeout=120)


IN_A_PLAN = """
import sys
from pathlib import Path
import numpy as np
from uss_dagster import registry
from uss_dagster.datasets.base import Sample
from uss_dagster.planning.fingerprints import closure, fingerprint
from uss_dagster.planning.plan import make_plan
from uss_dagster.planning.profiles import read_profile
from uss_dagster.stages.segments import Segments

module = registry.load("method", "halves")
assert registry.module_name("method", "halves") == "uss_halves.method"
assert len(module.segment(Sample("a", np.zeros((4, 6, 3), np.uint8)), module.Params())) == 3
assert {"uss_halves", "uss_halves.cutting", "uss_dagster.regions"} <= closure(["uss_halves.method"])
(cell,) = make_plan(read_profile(root := Path(sys.argv[1])), root).of(Segments)
print(cell.method.params, fingerprint(["uss_halves.method"]), cell.code)
"""


def test_a_method_of_another_package(tmp_path):
    target = tmp_path / "site"
    modules = install(tmp_path, target, "uss_halves")
    listed = python("from uss_dagster.cli import app; app(['list'])", target)
    assert "  halves           Halves\n" in listed.stdout, listed.stderr
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "small.yaml").write_text("datasets: {scenes: {images: 2}}\nentries: {halves: {params: {vertical: false}}}\n")
    (tmp_path / "params.yaml").write_text("profile: small\n")
    program = IN_A_PLAN.replace("sys.argv[1]", repr(str(tmp_path)))
    first = python(program, target)
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("{'vertical': False}")
    path = modules / "cutting.py"
    path.write_text(path.read_text() + "\n# a comment\n")
    assert python(program, target).stdout == first.stdout
    path.write_text(path.read_text().replace("// 2", "// 3"))
    changed = python(program, target)
    assert all(old != new for old, new in zip(first.stdout.split()[-2:], changed.stdout.split()[-2:], strict=True)), changed.stderr


def test_a_name_of_two_packages_is_refused(tmp_path):
    target = tmp_path / "site"
    install(tmp_path, target, "uss_halves")
    install(tmp_path, target, "uss_other")
    install(tmp_path, target, "uss_means", "kmeans")
    code = "from uss_dagster import registry\nfrom uss_dagster.errors import UsageError\n"
    for name, packages in (("halves", ("uss_halves", "uss_other")), ("kmeans", ("uss_dagster", "uss_means"))):
        refused = python(f"{code}try:\n    registry.load('method', '{name}')\nexcept UsageError as error:\n    print(error)\n", target)
        assert refused.stdout.startswith(f"Two packages define the method '{name}': "), refused.stderr
        assert all(package in refused.stdout for package in packages)
        assert refused.stdout.count("\n") == 1
    other = python(f"{code}print(registry.load('method', 'slic_merge').SPEC.name)", target)
    assert other.stdout == "slic_merge\n", "other names are not affected"

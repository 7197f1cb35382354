"""Plug-ins are found by file name, read lazily, and their parameters are checked by name and type."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from typing import Literal

import pytest

from uss_dagster import registry
from uss_dagster.errors import UsageError


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


def test_params_are_frozen_dataclasses():
    for family in registry.FAMILIES:
        for name in registry.names(family):
            params = getattr(registry.load(family, name).SPEC, "params", None)
            if params is not None:
                assert dataclasses.is_dataclass(params)
                assert params.__dataclass_params__.frozen

"""No plug-in takes a number that means nothing: each numeric parameter has bounds, or is known to take any value."""

from __future__ import annotations

import math
import typing

import pytest

from uss_dagster import registry
from uss_dagster.curation.mask_pool import MaskPoolParams
from uss_dagster.curation.params import CurateParams
from uss_dagster.errors import ParameterError
from uss_dagster.student.settings import StudentSettings

BELOW_ZERO = {
    ("contour_merge", "bias"),  # of a log-odds
    ("tokencut", "tau"),  # a cosine
    ("unsam", "cuts.tau"),
    ("cnn", "stage"),  # counted from the end
    ("vit", "layer"),
    ("diffusion", "layer"),
    ("folder", "ignore"),  # a label
}
CLASSES = [
    (name, registry.load(family, name).SPEC.params) for family in ("method", "backbone", "dataset") for name in registry.names(family)
]
CLASSES += [(cls.__name__, cls) for cls in (MaskPoolParams, CurateParams, StudentSettings)]


@pytest.mark.parametrize(("owner", "cls"), CLASSES, ids=[owner for owner, _ in CLASSES])
def test_numbers_have_bounds(owner: str, cls: type) -> None:
    for name, hint in registry.flat_types(cls).items():
        kinds = {hint, *typing.get_args(hint)}
        wrong = [math.nan, math.inf, -1.0] if float in kinds else [-1] if int in kinds else []
        for value in wrong:
            if value == -1 and (owner, name) in BELOW_ZERO:
                continue
            with pytest.raises(ParameterError, match=rf"{name.rpartition('.')[2]}"):
                registry.build_params(cls, registry.nested_params({name: value}), owner)


@pytest.mark.parametrize(
    ("method", "values", "sentence"),
    [
        ("hierarchy_agnostic", {"max_perturb": -1}, "max_perturb is -1.0, expected 0 or more."),
        ("hierarchy_agnostic", {"max_perturb": math.nan}, "parameter 'max_perturb' is nan, expected"),
        ("hierarchy_agnostic", {"restarts": 0}, "restarts is 0, expected 1 or more."),
        ("hierarchy_agnostic", {"thresh": 2}, "thresh is 2.0, expected 0 to 1."),
        ("kmeans", {"restarts": 0}, "restarts is 0, expected 1 or more."),
    ],
)
def test_nonsense_is_refused_in_one_sentence(method: str, values: dict[str, float], sentence: str) -> None:
    with pytest.raises(ParameterError) as refused:
        registry.build_params(registry.load("method", method).SPEC.params, values, f"method '{method}'")
    assert sentence in str(refused.value)


def test_a_timestep_that_ddim_ignores_is_refused() -> None:
    params = registry.load("backbone", "diffusion").SPEC.params
    with pytest.raises(ParameterError, match="timestep is 300, expected none: extraction 'ddim'"):
        registry.build_params(params, {"extraction": "ddim", "timestep": 300}, "backbone 'diffusion'")

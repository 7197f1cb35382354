"""The features stage run in process on drawn scenes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from uss_dagster.artifacts.features import FeatureShards
from uss_dagster.artifacts.images import Images
from uss_dagster.errors import UsageError
from uss_dagster.planning.layout import Layout
from uss_dagster.planning.plan import Plan, make_plan
from uss_dagster.planning.profiles import read_profile
from uss_dagster.stages.features import Features, validate

PROFILE = """\
settings: {shard_images: 2}
datasets: {scenes: {images: 3}}
backbones: {patches: {dictionary: false, facets: [tokens]STORE}}
metrics: [covering]
entries: {kmeans: {backbone: patches}}
"""


def planned(root: Path, store: str) -> Plan:
    (root / "profiles").mkdir(exist_ok=True)
    (root / "profiles" / "small.yaml").write_text(PROFILE.replace("STORE", store))
    (root / "params.yaml").write_text("profile: small\n")
    return make_plan(read_profile(root), root)


def test_features_are_stored_as_float16_or_float32(tmp_path: Path) -> None:
    layout, tensors = Layout(tmp_path), {}
    for store, text in (("float16", ""), ("float32", ", store: float32")):
        plan = planned(tmp_path, text)
        if store == "float16":
            plan.cell("datasets/scenes").run(layout)
        (cell,) = plan.of(Features)
        assert cell.store == store
        assert "store" not in cell.encoder.params
        cell.run(layout)
        shards = FeatureShards(cell.artefact(layout))
        tensors[store] = shards.tensors(Images(layout.images("scenes")).ids[0])["tokens"]
        assert tensors[store].dtype == store
    assert np.array_equal(tensors["float32"].astype(np.float16), tensors["float16"])
    assert not np.array_equal(tensors["float32"], tensors["float16"].astype(np.float32))


def test_an_unknown_type_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"profiles/small.yaml:3: 'store' of backbone 'patches': .*'float16' or 'float32', got 'float64'"):
        planned(tmp_path, ", store: float64")


def test_a_type_that_was_not_asked_for_fails_the_checks(tmp_path: Path) -> None:
    layout, plan = Layout(tmp_path), planned(tmp_path, "")
    for name in ("datasets/scenes", "features/patches/scenes"):
        plan.cell(name).run(layout)
    folder = plan.cell("features/patches/scenes").artefact(layout)
    report = validate("features", folder, ["tokens"], Images(layout.images("scenes")), "float32")
    assert "type is float16, expected float32" in " ".join(report.reasons())

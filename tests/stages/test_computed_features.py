"""A backbone with ``keep: false``: the stages that read its features compute them, and give the same bytes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from projects import run_cells, tree_hash

from uss_dagster import feature_shards
from uss_dagster.artifacts.images import Images
from uss_dagster.artifacts.run_facts import read_facts
from uss_dagster.commands.spot_check import compare_again
from uss_dagster.errors import BadData, UsageError
from uss_dagster.feature_shards import ComputedFeatures
from uss_dagster.planning.cells import COMPUTES_FEATURES
from uss_dagster.planning.fingerprints import closure
from uss_dagster.planning.layout import Layout
from uss_dagster.planning.plan import Plan, make_plan, write_plan
from uss_dagster.planning.profiles import read_profile
from uss_dagster.report.costs import read_costs
from uss_dagster.run import compute
from uss_dagster.stages.datasets import Datasets
from uss_dagster.stages.estimates import Estimates
from uss_dagster.stages.features import Features
from uss_dagster.stages.labels import Labels
from uss_dagster.stages.mask_pool import MaskPool
from uss_dagster.stages.segments import Segments

PROFILE = """\
settings: {shard_images: 2, bootstrap: 20, samples: 2}
datasets:
  scenes: {images: 3}
  more: {kind: scenes, images: 2, seed: 9}
backbones:
  patches: {dictionary: false, facets: [tokens]KEEP}
metrics: [covering, semantic]
entries:
  kmeans: {backbone: patches, datasets: [scenes], params: {k: 4}}
  tokencut: {backbone: patches, datasets: [more]}
  token_kmeans: {backbone: patches, datasets: [scenes]}
  token_kmeans_elsewhere: {method: token_kmeans, backbone: patches, datasets: [scenes], fit_on: more}
"""
STORED = PROFILE.replace("KEEP", "")
COMPUTED = PROFILE.replace("KEEP", ", keep: false")
TOKENS, FITTED, FITTED_ELSEWHERE = (f"segments/{entry}/scenes" for entry in ("kmeans", "token_kmeans", "token_kmeans_elsewhere"))
KEYS = "segments/tokencut/more"
SLOW = """\
  diffuse_walk_cut: {backbone: patches, datasets: [more]}
  lightcluster: {backbone: patches, datasets: [more], params: {mask: {refine: none}, objects: {crop: 112}}}
  unsam: {backbone: patches, datasets: [more], params: {leaves: {trees: 2, most: 60}, pool: {most: 60}}}
"""


def planned(root: Path, text: str) -> Plan:
    (root / "profiles").mkdir(parents=True, exist_ok=True)
    (root / "profiles" / "small.yaml").write_text(text)
    (root / "params.yaml").write_text("profile: small\n")
    return make_plan(read_profile(root), root)


@pytest.fixture(scope="module", autouse=True)
def _one_process() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("USS_WORKERS", "1")
        yield


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose features are stored, with all regions."""
    root = tmp_path_factory.mktemp("stored")
    planned(root, STORED)
    run_cells(root, Datasets, Features, Segments)
    return root


@pytest.fixture(scope="module")
def computed(stored: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without stored features."""
    root = tmp_path_factory.mktemp("computed")
    plan = planned(root, COMPUTED)
    shutil.copytree(stored / "data" / "datasets", root / "data" / "datasets")
    for cell in plan.of(Segments):
        compute(cell, Layout(root))
    return root


def test_no_features_are_planned_and_the_cell_says_how_they_are_computed(computed: Path) -> None:
    plan, before = planned(computed, COMPUTED), planned(computed, STORED)
    assert plan.of(Features) == []
    assert len(before.of(Features)) == 2
    for cell, kept in zip(plan.of(Segments), before.of(Segments), strict=True):
        assert cell.features is not None
        assert "features" not in kept.to_plain(), "a cell that reads stored features is what it was"
        assert cell.features.encoder == before.of(Features)[0].encoder
        assert [path.parts[-3:] for path in cell.inputs(Layout(computed))] == [("datasets", name, "images") for name in cell.datasets]
        assert "uss_dagster.backbones.patches" in cell.modules()
        assert COMPUTES_FEATURES in closure(cell.all_modules())
        assert COMPUTES_FEATURES not in closure(kept.all_modules()), "of code that it does not run it does not depend"
    assert before.of(Labels)[0].to_plain().keys() == plan.of(Labels)[0].to_plain().keys() - {"features"}


@pytest.mark.parametrize("cell", [TOKENS, KEYS, FITTED, FITTED_ELSEWHERE])
def test_regions_are_the_same_bytes(stored: Path, computed: Path, cell: str) -> None:
    assert tree_hash(computed / "data" / cell) == tree_hash(stored / "data" / cell)


@pytest.mark.slow
def test_regions_of_methods_that_take_longer_are_the_same_bytes(stored: Path, tmp_path: Path) -> None:
    """Attention; a method that is fitted in several passes and encodes pieces of images; one that is fitted only if asked."""
    hashes = []
    for name, text in (("stored", STORED), ("computed", COMPUTED)):
        plan, layout = planned(tmp_path / name, text + SLOW), Layout(tmp_path / name)
        shutil.copytree(stored / "data" / "datasets", tmp_path / name / "data" / "datasets")
        cells = [cell for cell in plan.of(Segments) if cell.entry in ("diffuse_walk_cut", "lightcluster", "unsam")]
        for cell in (*(cell for cell in plan.of(Features) if cell.dataset == "more"), *cells):
            cell.run(layout)
        hashes.append([tree_hash(cell.artefact(layout)) for cell in cells])
    assert hashes[0] == hashes[1]
    assert all("shard-00000.parquet" in files for files in hashes[0])


def test_nothing_is_stored_and_the_seconds_count(computed: Path) -> None:
    assert not (computed / "data" / "features").exists()
    assert not list((computed / ".uss" / "work").rglob("*.safetensors"))
    costs = {cost.entry: cost for cost in read_costs(Layout(computed), [("kmeans", "scenes"), ("token_kmeans", "scenes")])}
    for entry, cost in costs.items():
        facts = read_facts(Layout(computed).run_facts(f"segments/{entry}/scenes"))
        assert facts is not None
        assert facts["backbone"] == ""
        assert cost.seconds_per_image == round(facts["seconds_per_image"], 3) > facts["seconds_computing"] / 5


def test_labels_are_the_same_bytes(stored: Path, computed: Path) -> None:
    for root, text in ((stored, STORED), (computed, COMPUTED)):
        (cell,) = (cell for cell in planned(root, text).of(Labels) if cell.entry == "kmeans")
        cell.run(Layout(root))
    assert tree_hash(computed / "data/labels/kmeans/scenes") == tree_hash(stored / "data/labels/kmeans/scenes")


def test_a_spot_check_computes_them_too(computed: Path) -> None:
    planned(computed, COMPUTED)
    (computed / "dvc.yaml").write_text("stages: {}\n")
    write_plan(computed)
    for cell in (TOKENS, FITTED):
        assert compare_again(computed, cell, 2) == ["scene00000", "scene00002"]
    assert not list((computed / ".uss" / "work").rglob("*.*"))


def test_shards_that_are_there_need_no_features(computed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = planned(computed, COMPUTED).cell(TOKENS)
    assert cell is not None
    asked: list[int] = []
    real = ComputedFeatures._compute
    monkeypatch.setattr(ComputedFeatures, "_compute", lambda self, shards, silent: asked.append(len(shards)) or real(self, shards, silent))
    before = tree_hash(cell.artefact(Layout(computed)))
    assert cell.run(Layout(computed))["reused"] == 3
    assert asked == []
    store = Layout(computed).stored_shards(TOKENS)
    shutil.rmtree(sorted(store.iterdir())[0])
    assert cell.run(Layout(computed))["images"] in (1, 2)
    assert asked == [1]
    assert tree_hash(cell.artefact(Layout(computed))) == before


def test_a_stage_that_was_killed_goes_on_with_what_is_there(computed: Path) -> None:
    cell, images = planned(computed, COMPUTED).of(Segments)[0], Images(Layout(computed).images("more"))
    assert cell.features is not None
    sources = [ComputedFeatures(computed / ".uss", "segments/try/more", "patches", cell.features, images, images.shards(2)) for _ in "ab"]
    before = tree_hash(sources[0].folder)
    assert tree_hash(sources[1].folder) == before
    assert sources[0].seconds > 0
    assert sources[1].seconds == 0
    sources[1].remove()
    assert not sources[0].folder.exists()


def test_values_that_do_not_fit_the_type_are_refused(computed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = planned(computed, COMPUTED).of(Segments)[0]
    assert cell.features is not None
    images = Images(Layout(computed).images("scenes"))
    source = ComputedFeatures(computed / ".uss", "segments/try/scenes", "patches", cell.features, images, images.shards(2))
    huge = {"tokens": np.full((2, 2, 3), 1e6, np.float32)}
    monkeypatch.setattr(feature_shards, "loaded", lambda *_: lambda pictures: [huge for _ in pictures])
    with (
        np.errstate(over="ignore"),
        pytest.raises(BadData, match=r"Image 'scene00000', facet 'tokens': 12 values are NaN or infinite as float16"),
    ):
        _ = source.folder


def test_estimates_and_mask_pools_take_what_is_not_stored(tmp_path: Path) -> None:
    text = COMPUTED.replace("more: {kind: scenes, images: 2, seed: 9}", "photographs: {limit: 2}").replace(", fit_on: more", "")
    text = text.replace("datasets: [scenes]", "datasets: [scenes, photographs]").replace("[more]", "[photographs]")
    text += "curated: {masks: {dataset: scenes, entries: [kmeans, token_kmeans], mask_pool: {views: [flip]}}}\n"
    plan = planned(tmp_path, text)
    (estimates,), (pool,) = plan.of(Estimates), plan.of(MaskPool)
    layout = Layout(tmp_path)
    assert estimates.features == plan.of(Segments)[0].features
    assert pool.computed == {"patches": estimates.features}
    for cell in (estimates, pool):
        assert not [path for path in cell.inputs(layout) if "features" in path.parts]
        assert "uss_dagster.backbones.patches" in cell.modules()
    assert estimates.without(set()) == estimates
    kept = planned(tmp_path, text.replace(", keep: false", ""))
    assert [path.parts[-2:] for path in kept.of(MaskPool)[0].inputs(layout)][-1] == ("patches", "scenes")
    assert "computed" not in kept.of(Estimates)[0].to_plain()


def test_a_network_makes_the_stage_one_of_the_pool_gpu(tmp_path: Path) -> None:
    text = COMPUTED.replace(
        "patches: {dictionary: false, facets: [tokens], keep: false}", "patches: {kind: vit, model: dino_vits8, keep: false}"
    )
    plan = planned(tmp_path, text)
    for cell in (*plan.of(Segments), *plan.of(Labels)):
        assert (cell.pool, [p.name for p in cell.loaded_backbones()]) == ("gpu", ["vit"] if cell.features else [])


def test_keep_is_true_or_false(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"small.yaml:6: 'keep' of backbone 'patches' is true or false, got 'never'"):
        planned(tmp_path, PROFILE.replace("KEEP", ", keep: never"))

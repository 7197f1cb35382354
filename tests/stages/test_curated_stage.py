"""The stages `mask_pool` and `curated`: what is computed again when images change, what the plan makes of them, DVC and Dagster."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import yaml
from PIL import Image
from projects import Project

from uss_dagster.artifacts.images import ImageShards
from uss_dagster.artifacts.schemas import IMAGES
from uss_dagster.artifacts.staging import Rejected
from uss_dagster.artifacts.tables import write_table
from uss_dagster.curation.curated_set import previous_summary
from uss_dagster.errors import UsageError
from uss_dagster.planning.cells import Cell
from uss_dagster.planning.layout import Layout
from uss_dagster.planning.plan import Plan, make_plan
from uss_dagster.planning.profiles import read_profile
from uss_dagster.stages import mask_pool, segments
from uss_dagster.stages.curated import CuratedSet
from uss_dagster.stages.mask_pool import MaskPool

N, SHARD = 12, 2
CURATED = """\
curated:
  drawn: {dataset: scenes, entries: [slic_merge, felzenszwalb], labels: truth, preset: clean, params: {min_quality: 0.3}}
"""


def write_images(root: Path, count: int, changed: tuple[int, ...] = (), first: int = 0) -> None:
    import numpy as np

    folder = root / "data/datasets/d/images"
    folder.mkdir(parents=True, exist_ok=True)
    shards = ImageShards(folder)
    for number in range(count):
        rng = np.random.default_rng(number + 1000 * (number in changed) + first)
        picture = np.kron(rng.integers(0, 255, (3, 4, 3)), np.ones((12, 12, 1))).astype(np.uint8)
        out = io.BytesIO()
        Image.fromarray(picture).save(out, "PNG")
        shards.add(f"i{number:03d}", out.getvalue(), ".png", 36, 48, "all")
    shards.close()
    write_table(folder / "images.parquet", shards.table(), IMAGES)


def cells(root: Path, **limits: object) -> dict[str, Cell]:
    """Stage → its one cell, for a set of the images that ``write_images`` wrote."""
    (root / "profiles").mkdir(exist_ok=True)
    (root / "params.yaml").write_text("profile: one\n")
    profile = {
        "settings": {"shard_images": SHARD},
        "datasets": {"d": {"kind": "scenes"}},
        "entries": {"felzenszwalb": {"params": {"scales": 2}}},
        "curated": {"set": {"dataset": "d", "entry": "felzenszwalb", "params": limits}},
    }
    (root / "profiles" / "one.yaml").write_text(yaml.safe_dump(profile))
    plan = make_plan(read_profile(root))
    return {cell.stage: cell for cell in plan.cells if cell.stage in ("segments", "mask_pool", "curated")}


def run(root: Path) -> dict[str, dict]:
    """Stage → facts of its run."""
    return {stage: cell.run(Layout(root)) for stage, cell in cells(root).items()}


def tree(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted((root / "data").rglob("*")) if p.is_file()}


@pytest.fixture(autouse=True)
def _one_worker(monkeypatch):
    monkeypatch.setenv("USS_WORKERS", "1")


@pytest.fixture
def _other_gates(monkeypatch):
    """The suites of segments and pools have their own tests, and take most of the time here."""
    for stage in (segments, mask_pool):
        monkeypatch.setattr(stage, "check_expectations", lambda *_: None)


@pytest.mark.usefixtures("_other_gates")
def test_only_the_shards_of_replaced_images_are_computed_again_and_the_bytes_are_those_of_a_fresh_run(tmp_path, monkeypatch):
    again, fresh = tmp_path / "again", tmp_path / "fresh"
    write_images(again, N)
    first = run(again)
    assert (first["segments"]["images"], first["segments"]["reused"], first["mask_pool"]["images"]) == (N, 0, N)
    assert first["curated"]["images"] == N
    assert "no previous version" in first["curated"]["drift"]
    write_images(again, N, changed=(4, 5, 9))  # two shards of six
    second = run(again)
    for stage in ("segments", "mask_pool"):
        assert (second[stage]["images"], second[stage]["reused"]) == (4, 8)
    assert second["curated"]["drift"] != first["curated"]["drift"]
    assert second["curated"]["drift_rows"]
    write_images(fresh, N, changed=(4, 5, 9))
    monkeypatch.setenv("USS_REUSE", "0")
    run(fresh)
    assert tree(again) == tree(fresh), "neither reuse nor the version before shows in the bytes"
    for stage in ("segments/felzenszwalb/d", "mask_pool/set"):
        stored = list((again / ".uss/shards" / stage).iterdir())
        assert len(stored) == N // SHARD, "shards of the version before are gone"


@pytest.mark.usefixtures("_other_gates")
def test_drift_is_said_and_refused_only_where_that_is_asked_for(tmp_path):
    write_images(tmp_path, 4)
    run(tmp_path)
    summary = json.loads((tmp_path / "reports/curated/set.json").read_text())
    changed = {**summary, "masks_per_image": summary["masks_per_image"] * 2}
    (tmp_path / "reports/curated/set.json").write_text(json.dumps(changed))
    with pytest.raises(Rejected, match=r"close to the previous version: masks an image moved by 0\.5, limit 0\.25\. If this is meant"):
        cells(tmp_path, refuse_drift=True)["curated"].run(Layout(tmp_path))
    facts = cells(tmp_path)["curated"].run(Layout(tmp_path))
    assert not facts["drift_within_limits"]
    assert "masks an image by 0.5" in facts["drift"]
    page = (tmp_path / ".uss/runs/curated/set.html").read_text()
    assert "Against the previous version" in page
    assert "Against" not in (tmp_path / "data/curated/set/report.html").read_text()


@pytest.mark.parametrize("name", ["dvc.lock", "pipelines/scenes/dvc.lock"])
def test_the_previous_version_is_found_in_the_cache_of_dvc(tmp_path, name):
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[cache]\n    dir = elsewhere\n")
    outs = [{"path": "data/curated/set", "md5": "aa.dir"}, {"path": "reports/curated/set.json", "md5": "abcdef"}]
    lock = tmp_path / name
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.write_text(yaml.safe_dump({"stages": {"curated/set": {"outs": outs}}}))
    assert previous_summary(tmp_path, lock, tmp_path / "reports/curated/set.json") is None
    cached = tmp_path / ".dvc/elsewhere/files/md5/ab/cdef"
    cached.parent.mkdir(parents=True)
    cached.write_text('{"masks": 7}')
    assert previous_summary(tmp_path, lock, tmp_path / "reports/curated/set.json") == {"masks": 7}
    assert previous_summary(tmp_path, lock, tmp_path / "reports/curated/other.json") is None


SMALL = """\
datasets: {scenes: {images: 4}, photos: {kind: bsds500}}
backbones: {patches: {}}
entries:
  felzenszwalb: {}
  slic_merge: {backbone: patches}
"""


@pytest.fixture
def root(tmp_path):
    (tmp_path / "profiles").mkdir()
    (tmp_path / "params.yaml").write_text("profile: small\n")
    return tmp_path


def planned(root: Path, text: str) -> Plan:
    (root / "profiles" / "small.yaml").write_text(SMALL + text)
    return make_plan(read_profile(root))


def inputs(cell: Cell) -> list[str]:
    return [path.as_posix() for path in cell.inputs(Layout(Path()))]


def test_a_project_without_a_section_has_no_such_cells(root):
    plan = planned(root, "")
    assert plan.of(MaskPool) == plan.of(CuratedSet) == []


def test_cells_of_a_set(root):
    plan = planned(root, CURATED)
    pool, curated = plan.cell("mask_pool/drawn"), plan.cell("curated/drawn")
    images = "data/datasets/scenes/images"
    assert inputs(pool) == [images, "data/segments/slic_merge/scenes", "data/segments/felzenszwalb/scenes"], "in the order of the entries"
    assert (pool.methods, pool.encoders, pool.backbones) == ({}, {}, {})
    assert pool.params["refine"] is True
    assert inputs(curated) == ["data/mask_pool/drawn", images, "data/datasets/scenes/truth"]
    assert curated.params["min_quality"] == 0.3
    titles = [plan.cell(f"segments/{entry}/scenes").title for entry in ("slic_merge", "felzenszwalb")]
    assert curated.methods == ", ".join(titles)
    assert (pool.address, pool.file) == ("pipelines/scenes/dvc.yaml:mask_pool-drawn", "pipelines/scenes/mask_pool-drawn.yaml")
    outputs = [(path.path.as_posix(), path.push, path.metric) for path in curated.outputs(Layout(Path()))]
    assert outputs == [("data/curated/drawn", False, False), ("reports/curated/drawn.json", True, True)]
    assert all(cell.code == cell.expected_code() for cell in plan.cells)


def test_a_measure_of_stability_runs_the_methods_again(root):
    plain = planned(root, CURATED).cell("mask_pool/drawn")
    plan = planned(root, "curated: {s: {dataset: scenes, entry: slic_merge, mask_pool: {views: [flip]}, labels: human.json}}\n")
    pool = plan.cell("mask_pool/s")
    assert pool.methods["slic_merge"].name == "slic_merge"
    assert pool.encoders["slic_merge"].name == "patches"
    assert {"uss_dagster.methods.slic_merge", "uss_dagster.backbones.patches"} <= set(pool.modules())
    assert pool.code != plain.code, "the method is run again, so its code counts"
    assert inputs(plan.cell("curated/s")) == ["data/mask_pool/s", "data/datasets/scenes/images", "human.json"]


@pytest.mark.usefixtures("_other_gates")
def test_a_pool_depends_on_the_features_that_its_methods_are_fitted_to(root, monkeypatch):
    write_images(root, 2)
    (root / "profiles").mkdir(exist_ok=True)
    (root / "params.yaml").write_text("profile: one\n")
    (root / "profiles" / "one.yaml").write_text(
        "settings: {shard_images: 1}\n"
        "datasets: {d: {kind: scenes}}\n"
        "entries: {token_kmeans: {backbone: patches}}\n"
        "curated: {set: {dataset: d, entry: token_kmeans, mask_pool: {views: [flip]}}}\n"
    )
    layout, plan = Layout(root), make_plan(read_profile(root))
    for name in ("features/patches/d", "segments/token_kmeans/d"):
        plan.cell(name).run(layout)
    folders = []

    class Recorded(mask_pool.Staging):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            folders.append(self.folder.name)

    monkeypatch.setattr(mask_pool, "Staging", Recorded)
    pool = plan.cell("mask_pool/set")
    assert layout.features("patches", "d") in pool.inputs(layout)
    assert pool.run(layout)["images"] == 2
    again = pool.run(layout)
    assert folders[0] == folders[1]
    assert (again["images"], again["reused"]) == (0, 2), "what was fitted is part of the key of a shard"
    manifest = layout.features("patches", "d") / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "note": "of another version"}))
    pool.run(layout)
    assert folders[2] != folders[0], "files of an unfinished run with other features are not taken up"


def test_a_pool_takes_any_number_of_entries(root):
    more = "".join(f"  more{number}: {{method: felzenszwalb, params: {{scales: {number + 2}}}}}\n" for number in range(6))
    entries = [f"more{number}" for number in range(6)]
    plan = planned(root, more + f"curated: {{s: {{dataset: scenes, entries: [{', '.join(entries)}]}}}}\n")
    assert inputs(plan.cell("mask_pool/s"))[1:] == [f"data/segments/{entry}/scenes" for entry in entries]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("{dataset: scene, entry: felzenszwalb}", "Unknown dataset 'scene'. Did you mean 'scenes'"),
        ("{dataset: scenes, entry: felzenswalb}", "No entry 'felzenswalb' runs on 'scenes'. Did you mean 'felzenszwalb'"),
        ("{dataset: scenes, entries: [felzenszwalb, felzenszwalb]}", "curated 's' names an entry twice: felzenszwalb, felzenszwalb."),
        ("{dataset: scenes, entry: felzenszwalb, label: truth}", "has no setting 'label'. Did you mean 'labels'"),
        ("{dataset: photos, entry: felzenszwalb, labels: truth}", "ground truth of kind 'annotators' holds no masks of objects"),
        ("{dataset: scenes, entry: felzenszwalb, labels: people}", "labels are none, truth, or a COCO .json file"),
        ("{dataset: scenes, entry: felzenszwalb, params: {min_aera: 3}}", "has no parameter 'min_aera'"),
        ("{dataset: scenes, entry: felzenszwalb, mask_pool: {views: [up]}}", "A view is 'flip'"),
        ("{dataset: scenes, entry: felzenszwalb, preset: best}", "'preset' is 'best'"),
    ],
)
def test_what_people_write_is_checked_with_the_line(root, item, message):
    with pytest.raises(UsageError) as refused:
        planned(root, f"curated:\n  s: {item}\n")
    assert message in str(refused.value)
    assert "profiles/small.yaml:7" in str(refused.value)


@pytest.mark.slow
def test_dvc_and_dagster(built: Project):
    """`uss repro` computes the set; Dagster has its asset, its checks, and what drifted."""
    import dagster as dg

    from uss_dagster.orchestration.build import build_defs

    built.append("profiles/small.yaml", CURATED)
    assert built.repro("curated/drawn") == ["mask_pool/drawn", "curated/drawn"]
    assert built.repro("curated/drawn") == []
    first = {p.name: p.read_bytes() for p in (built.root / "data/curated/drawn").iterdir() if p.is_file()}
    built.edit("profiles/small.yaml", "min_quality: 0.3", "min_quality: 0.8")
    assert built.repro("curated/drawn") == ["curated/drawn"]
    facts = json.loads((built.root / ".uss/runs/curated/drawn.json").read_text())
    assert not facts["drift_within_limits"], "the version before came from the cache: DVC had removed the file"
    built.edit("profiles/small.yaml", "min_quality: 0.8", "min_quality: 0.3")
    built.repro("curated/drawn")
    assert {p.name: p.read_bytes() for p in (built.root / "data/curated/drawn").iterdir() if p.is_file()} == first

    defs = build_defs(built.root)
    graph = defs.resolve_asset_graph()
    key = dg.AssetKey(["curated", "drawn"])
    assert {k.to_user_string() for k in graph.get(key).parent_keys} == {"datasets", "mask_pool/drawn"}
    assert {check.name for check in graph.asset_check_keys if check.asset_key == key} == {"validation", "in_sync_with_dvc", "drift"}
    check = next(c for c in defs.asset_checks or () if {k.name for k in c.check_keys} == {"drift"})
    result = check()
    assert result.passed is json.loads((built.root / ".uss/runs/curated/drawn.json").read_text())["drift_within_limits"]
    assert (built.root / ".uss/runs/curated/drawn.png").stat().st_size < 500_000

"""The promise: changing one thing recomputes only what depends on it, and every number can be reproduced.

Real `dvc repro` runs on four small pictures; the stages that DVC executed are counted.
"""

import json
import os
import signal
import subprocess
import time

import pyarrow.parquet as pq
import pytest
from projects import BIN, Project, tree_hash

from uss_dagster.planning.layout import Layout
from uss_dagster.planning.plan import read_plan

SLIC = ["segments/slic_merge/scenes", "scores/slic_merge/scenes", "leaderboard", "site"]


def test_everything_is_there_and_in_sync(finished: Project):
    root = finished.root
    assert all(entry in (root / "reports/site/data/board-scenes.js").read_text() for entry in ("kmeans", "felzenszwalb", "slic_merge"))
    assert "scores/slic_merge/scenes" in (root / "reports/site/methods/slic_merge.html").read_text()
    assert (root / "reports/history.js").exists()
    assert json.loads((root / "reports/metrics/slic_merge/scenes.json").read_text())["nm_covering"] > 0.1
    assert "costs" in (root / "reports/costs.js").read_text().lower()
    assert json.loads(finished.dvc("status", "--json").stdout) == {}
    assert finished.repro() == []


def test_comment_and_docstring_change_nothing(built: Project):
    path = "uss_dagster/methods/slic_merge.py"
    built.append(path, "\n# a remark at the end\n")
    built.edit(path, '"""', '"""Said differently. ')
    assert "up to date" in built.uss("plan", "--check").stdout
    assert built.repro() == []


def test_a_statement_in_one_method_reaches_only_its_cells(built: Project):
    # Another result, so that the change goes all the way down.
    built.edit("uss_dagster/methods/slic_merge.py", "superpixels: int = 400", "superpixels: int = 401")
    built.append("uss_dagster/methods/slic_merge.py", "\n_UNUSED = 1\n")
    built.edit(
        "profiles/small.yaml",
        "slic_merge: {backbone: patches, params: {superpixels: 60}}",
        "slic_merge: {backbone: patches, params: {superpixels: 50}}",
    )
    assert built.repro() == SLIC


@pytest.mark.slow
def test_identical_bytes_stop_the_cascade(built: Project):
    built.append("uss_dagster/methods/slic_merge.py", "\n_UNUSED = 1\n")
    assert built.uss("plan", "--check", code=64).stderr.startswith("error: The plan is out of date (1 differences). Run `uss plan`")
    assert built.repro(cold=True) == ["segments/slic_merge/scenes"]


@pytest.mark.slow
def test_a_shared_module_reaches_exactly_the_methods_that_import_it(built: Project):
    built.append("uss_dagster/graphs/superpixels.py", "\n_UNUSED = 1\n")
    stages = built.repro()
    planned = ("felzenszwalb", "kmeans", "slic_merge")
    importers = {m for m in planned if "superpixels" in (built.root / f"uss_dagster/methods/{m}.py").read_text(encoding="utf-8")}
    assert importers
    assert set(stages) == {f"segments/{name}/scenes" for name in importers}


@pytest.mark.slow
def test_one_parameter_of_one_entry(built: Project):
    built.append("params.yaml", "entries:\n  slic_merge: {params: {superpixels: 40}}\n")
    assert built.repro() == SLIC


@pytest.mark.slow
def test_a_new_dataset_computes_only_its_cells(built: Project):
    built.append("params.yaml", "datasets:\n  more_scenes: {kind: scenes, images: 2, seed: 7}\n")
    stages = built.repro()
    assert sorted(stages[:-2]) == sorted(
        ["datasets/more_scenes", "features/patches/more_scenes"]
        + [f"{stage}/{entry}/more_scenes" for stage in ("segments", "scores") for entry in ("kmeans", "felzenszwalb", "slic_merge")]
    )
    assert stages[-2:] == ["leaderboard", "site"]


def test_ground_truth_is_no_input_of_features_and_segments(built: Project):
    """Only what reads the truth depends on it: no dependency of features or segments lies in the truth folder."""
    checked = 0
    for name, stage in built.locked().items():
        if name.startswith(("features/", "segments/")):
            checked += 1
            assert not [d["path"] for d in stage["deps"] if "truth" in d["path"] or d["path"] == "data/datasets/scenes"]
    assert checked == 4


def test_a_lock_records_exactly_what_the_cell_says(finished: Project):
    """Its parameter file, its inputs and its outputs; no parameter values, which would make locks long."""
    layout = Layout(finished.root)
    recorded = finished.locked()
    for cell in read_plan(finished.root).cells:
        stage = recorded.pop(cell.name)
        assert sorted(d["path"] for d in stage["deps"]) == sorted([cell.file, *map(layout.relative, cell.inputs(layout))]), cell.name
        assert [o["path"] for o in stage["outs"]] == sorted(layout.relative(output.path) for output in cell.outputs(layout))
        assert "params" not in stage
    assert recorded == {}


@pytest.mark.slow
def test_a_removed_entry_leaves_the_leaderboard_and_comes_back_from_the_cache(built: Project):
    board = built.lock()["leaderboard"]
    built.append("params.yaml", "entries:\n  kmeans: false\n")
    assert built.repro() == ["leaderboard", "site"]
    assert "kmeans" not in (built.root / "reports/leaderboard/leaderboard.csv").read_text()
    assert built.lock()["leaderboard"] != board
    (built.root / "params.yaml").write_text("profile: small\n")
    done = built.uss("repro")
    assert "uss stage" not in done.stdout, "everything is restored from the cache, nothing runs"
    assert built.lock()["leaderboard"] == board


def test_stale_plan_is_refused_by_the_stage(built: Project):
    built.append("uss_dagster/methods/slic_merge.py", "\n_UNUSED = 1\n")
    refused = built.uss("stage", "pipelines/scenes/slic_merge/segments.yaml", code=64)
    message = "The code of segments/slic_merge/scenes is not the code that pipelines/scenes/slic_merge/segments.yaml was planned with."
    assert f"{message} Run `uss plan`" in refused.stderr


def test_killed_feature_extraction_resumes_with_the_same_bytes(built: Project):
    """kill -9 in the middle; the next run starts at the first missing shard and ends with the same bytes."""
    target = built.root / "data/features/patches/scenes"
    before = tree_hash(target)
    assert len([n for n in before if n.endswith(".safetensors")]) == 2
    # Slow the second shard down (not its result), so that the kill falls between the two.
    built.edit(
        "uss_dagster/feature_shards.py",
        "        facets = extract(inputs)\n",
        "        facets = extract(inputs)\n"
        "        if item[0] == 'shard-00001' and __import__('os').environ.get('SLOW'):\n            time.sleep(60)\n",
    )
    built.uss("plan")
    env = {**built.env, "SLOW": "1", "USS_WORKERS": "1"}
    run = subprocess.Popen(
        [str(BIN / "uss"), "stage", "pipelines/scenes/features-patches.yaml"], cwd=built.root, env=env, stdout=subprocess.DEVNULL
    )
    work = built.root / ".uss/work/features/patches/scenes"
    deadline = time.monotonic() + 60
    while not list(work.glob("*/parts/shard-00000.parquet")):
        assert time.monotonic() < deadline, "the first shard was never finished"
        time.sleep(0.05)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    shard = next(work.glob("*/shard-00000.safetensors"))
    first_written = shard.stat().st_mtime_ns
    assert tree_hash(target) == before, "what was published is untouched"
    built.uss("stage", "pipelines/scenes/features-patches.yaml", USS_WORKERS="1")
    assert tree_hash(target) == before
    assert (target / "shard-00000.safetensors").stat().st_mtime_ns == first_written, "the finished shard was not computed again"
    facts = json.loads((built.root / ".uss/runs/features/patches/scenes.json").read_text())
    assert (facts["resumed"], facts["images"]) == (2, 2)


@pytest.mark.slow
def test_workers_do_not_change_bytes(built: Project):
    for name in ("features/patches/scenes", "segments/kmeans/scenes", "segments/slic_merge/scenes", "scores/slic_merge/scenes"):
        before = tree_hash(built.root / "data" / name)
        for workers in ("1", "4"):
            built.uss("stage", file_of(built, name), USS_WORKERS=workers, USS_REUSE="0")
            assert tree_hash(built.root / "data" / name) == before, (name, workers)


def file_of(project: Project, name: str) -> str:
    """Parameter file of the cell with this name."""
    cell = read_plan(project.root).cell(name)
    assert cell is not None
    return cell.file


CORRUPTIONS = {
    "wrong dtype": (
        "segments/slic_merge/scenes",
        "write_table(path, pa.concat_tables(tables), REGIONS)",
        "__import__('pyarrow.parquet').parquet.write_table(_retype(pa.concat_tables(tables)), path)",
        "column 'label' is double, expected int32",
    ),
    "child outside its parent": (
        "segments/slic_merge/scenes",
        "write_table(path, pa.concat_tables(tables), REGIONS)",
        "write_table(path, _break(pa.concat_tables(tables)), REGIONS)",
        "pixels lie outside its parent",
    ),
    "NaN score": (
        "scores/slic_merge/scenes",
        "            ids, values = image_scores.scores(key)\n",
        '            ids, values = image_scores.scores(key)\n            values[0] = float("nan")\n',
        "is nan for image",
    ),
}

BREAK = '''

def _retype(table):
    return table.set_column(table.column_names.index("label"), "label", table["label"].cast(pa.float64()))

def _break(table):
    """The last region of the first image gets another parent of the same depth, where its pixels are not."""
    rows = table.to_pylist()
    image = [r for r in rows if r["image_id"] == rows[0]["image_id"]]
    child = image[-1]
    child["parent"] = next(r["region"] for r in image[1:] if r["depth"] == child["depth"] - 1 and r["region"] != child["parent"])
    return pa.Table.from_pylist(rows, schema=REGIONS)
'''


@pytest.mark.parametrize("what", CORRUPTIONS)
def test_the_gate_refuses_a_corrupted_output(built: Project, what):
    name, old, new, message = CORRUPTIONS[what]
    stage = name.partition("/")[0]
    path = f"uss_dagster/stages/{stage}.py"
    built.edit(path, old, new)
    if stage == "segments":
        built.append(path, BREAK)
    before = built.locks()
    built.uss("plan")
    refused = built.dvc("repro", "--single-item", f"pipelines/scenes/slic_merge/dvc.yaml:{stage}", code=None)
    assert refused.returncode != 0
    assert "exited with 65" in refused.stderr + refused.stdout
    lines = [line for line in refused.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert message in lines[0]
    assert lines[0].startswith(f"error: {name} was refused")
    assert f"lie in .uss/quarantine/{name}; the last good one stays." in lines[0]
    assert built.locks() == before
    quarantine = built.root / ".uss/quarantine" / name
    assert json.loads((quarantine / "validation.json").read_text())["success"] is False
    assert pq.read_table(next(quarantine.glob("*.parquet"))).num_rows > 0

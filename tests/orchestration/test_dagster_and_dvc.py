"""Dagster and `dvc repro` run the same stages, give the same bytes, and agree on what is out of date."""

import concurrent.futures
import re

import pytest
from projects import Project, executed

ALL = ("asset", "materialize", "-m", "uss_dagster.definitions", "--partition", "scenes", "--select")
SLIC = ["segments/slic_merge/scenes", "scores/slic_merge/scenes", "leaderboard", "site"]


def materialize(project: Project, selection: str, code: int | None = 0, **env: str) -> list[str]:
    """Materialise through Dagster's own command line; returns the stages that DVC executed for it."""
    done = project.dagster(*ALL, selection, code=code, **env)
    return executed(done.stdout + done.stderr)


@pytest.mark.slow
def test_everything_from_dagster_gives_the_hashes_of_dvc_repro(project: Project, finished: Project):
    assert len(materialize(project, "*")) == 10
    assert project.lock() == finished.lock()
    assert project.repro() == [], "`uss repro` finds nothing left to do"


def test_only_downstream_through_dagster(built: Project):
    """The plan is refreshed by the run itself."""
    built.append("params.yaml", "entries:\n  slic_merge: {params: {superpixels: 30}}\n")
    assert materialize(built, 'key:"features/patches"+') == SLIC, "neither the features nor the other entry that reads them"


ANOTHER_RESULT = """

_plain = segment


def segment(sample, params, state=None):
    import dataclasses

    return _plain(sample, dataclasses.replace(params, feature_weight=0.9), state)
"""


@pytest.mark.slow
def test_comment_statement_shared_module_and_new_dataset_through_dagster(built: Project):
    """One session of edits, each followed by materialising what it could reach."""
    built.append("uss_dagster/methods/slic_merge.py", "\n# a remark\n")
    assert materialize(built, 'key:"segments/slic_merge"+') == []
    built.append("uss_dagster/methods/slic_merge.py", "\n_UNUSED = 1\n")
    assert materialize(built, 'key:"segments/slic_merge"+') == SLIC[:1], "identical bytes stop the cascade"
    built.append("uss_dagster/methods/slic_merge.py", ANOTHER_RESULT)
    assert materialize(built, "*") == SLIC
    built.append("uss_dagster/graphs/superpixels.py", "\n_UNUSED = 1\n")
    planned = ("felzenszwalb", "kmeans", "slic_merge")
    importers = {m for m in planned if "superpixels" in (built.root / f"uss_dagster/methods/{m}.py").read_text(encoding="utf-8")}
    assert set(materialize(built, "*")) == {f"segments/{name}/scenes" for name in importers}
    built.append("params.yaml", "datasets:\n  more_scenes: {kind: scenes, images: 2, seed: 7}\n")
    built.uss("plan")  # a new partition must be planned before Dagster can be asked for it
    done = built.dagster(*(w if w != "scenes" else "more_scenes" for w in ALL), "*")
    stages = executed(done.stdout + done.stderr)
    assert sorted(s for s in stages if "/" in s) == sorted(
        ["datasets/more_scenes", "features/patches/more_scenes"]
        + [f"{stage}/{entry}/more_scenes" for stage in ("segments", "scores") for entry in ("kmeans", "felzenszwalb", "slic_merge")]
    )
    assert stages[-2:] == ["leaderboard", "site"]


def test_a_refused_output_reads_well_in_dagster(built: Project):
    built.edit(
        "uss_dagster/stages/scores.py",
        "            ids, values = image_scores.scores(key)\n",
        '            ids, values = image_scores.scores(key)\n            if key[0] == "nm_covering":\n                values[0] = float("nan")\n',
    )
    before = built.locks()
    done = built.dagster(*ALL, 'key:"scores/kmeans"', code=None)
    text = done.stdout + done.stderr
    assert done.returncode != 0
    assert "scores/kmeans/scenes was refused: scores are numbers: nm_covering" in text
    assert "is nan for image 'scene00000'" in text
    assert re.search(r"ASSET_CHECK_EVALUATION - Asset check 'validation' on 'scores/kmeans' did not pass", text)
    assert "Traceback" not in text.split("STEP_FAILURE")[0]
    assert built.locks() == before


@pytest.mark.slow
def test_eight_at_once_in_one_workspace(project: Project):
    """Eight materialisations started together: two of each stage of the three entries, and more of the shared ones."""
    materialize(project, 'key:"datasets"')
    selections = ['key:"features/patches"'] * 2 + ['key:"segments/felzenszwalb"'] * 2 + ['key:"features/patches"', 'key:"datasets"'] * 2
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(lambda s: project.dagster(*ALL, s, code=None), selections))
    assert [r.returncode for r in runs] == [0] * 8, "\n".join((r.stdout + r.stderr)[-3000:] for r in runs if r.returncode)
    assert {"datasets/scenes", "features/patches/scenes", "segments/felzenszwalb/scenes"} <= set(project.lock())
    entries = ['key:"segments/kmeans"', 'key:"segments/slic_merge"', 'key:"scores/felzenszwalb"', 'key:"segments/felzenszwalb"'] * 2
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(lambda s: project.dagster(*ALL, s, code=None), entries))
    assert [r.returncode for r in runs] == [0] * 8, "\n".join((r.stdout + r.stderr)[-3000:] for r in runs if r.returncode)

"""`explain: true`: what a method knows is stored beside its regions and shown on its page; without it not a byte changes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from projects import run_cells

from uss_dagster.artifacts.image_files import decode
from uss_dagster.backbones.base import Encoder
from uss_dagster.datasets.scenes import SPEC as SCENES
from uss_dagster.datasets.scenes import examples
from uss_dagster.graphs.partition import recursive_partition
from uss_dagster.methods import diffuse_walk_cut
from uss_dagster.notes import collecting, note, to_json
from uss_dagster.planning.layout import Layout
from uss_dagster.report.evidence import read_evidence
from uss_dagster.report.method_pages import fact_lines
from uss_dagster.segmenter import Segmenter
from uss_dagster.stages.datasets import Datasets
from uss_dagster.stages.features import Features
from uss_dagster.stages.scores import Scores
from uss_dagster.stages.segments import Segments

PROFILE = """\
settings: {bootstrap: 5, samples: 2}
datasets:
  scenes: {images: 2}
backbones:
  patches: {dictionary: false}
metrics: [covering]
entries:
  plain: {method: ncut_recursive, backbone: patches}
  explained: {method: ncut_recursive, backbone: patches, explain: true}
"""


def test_a_closed_channel_takes_nothing_and_an_open_one_the_last_word():
    note(threshold=1)
    with collecting() as outer:
        note(threshold=1, rule="gap")
        with collecting() as inner:
            note(vector=np.array([0.123456789, np.nan]), flag=np.bool_(True))
        note(threshold=2)
    assert outer == {"threshold": 2, "rule": "gap"}
    assert to_json({"a": inner}) == '{"a": {"flag": true, "vector": [0.123457, null]}}\n'
    with collecting() as again:
        pass
    assert again == {}


def test_the_tree_of_a_partition_with_reasons_and_gaps():
    """Two cliques of four, weakly joined: the root has one wide gap, each clique none."""
    weights = np.full((8, 8), 0.01)
    weights[:4, :4] = weights[4:, 4:] = 1
    with collecting() as facts:
        tree = recursive_partition(weights)
    assert facts["nodes"]["parent"] == tree.parent.tolist() == [-1, 0, 0]
    assert facts["nodes"]["items"] == [8, 4, 4]
    assert facts["nodes"]["stop"] == list(tree.stop) == ["", "no gap", "no gap"]
    assert facts["nodes"]["ncut"] == pytest.approx(tree.ncut.tolist())
    values = facts["eigenvalues"][0]
    assert facts["eigengap"][0] == pytest.approx(values[2] - values[1])
    assert facts["eigengap"][0] > 0.9
    with collecting() as facts:
        recursive_partition(weights, levels=0)
    assert facts["nodes"]["stop"] == ["levels"]
    assert facts["eigengap"] == [None]


def test_short_facts_come_first_and_very_long_ones_are_counted():
    lines = fact_lines({"nodes": {"parent": list(range(100))}, "eigenvector": [[0.123456] * 64] * 64, "threshold": 0.25, "rule": "gap"})
    assert lines[:2] == ['rule: "gap"', "threshold: 0.25"]
    assert lines[2] == f"eigenvector: {len(json.dumps([[0.123456] * 64] * 64)):,} characters of JSON"
    assert lines[3].startswith('nodes: {"parent": [0, 1, 2')


def facts_of(method: str, **params: object) -> dict:
    image = next(examples(SCENES.params(images=1)))
    segmenter = Segmenter.of(method, params, Encoder.of("patches", {"dictionary": False, "facets": ["tokens", "keys", "attention"]}))
    sample = segmenter.sample(image.image_id, decode(image.image, image.image_id))
    segmenter = segmenter.fit([sample])
    with collecting() as facts:
        segmenter.segment(sample)
    return json.loads(to_json({"x": facts}))["x"] | {"sample": sample}


def test_walk_cut_hands_out_its_threshold_and_its_tree():
    facts = facts_of("diffuse_walk_cut")
    result = diffuse_walk_cut.walk_cut(facts["sample"], diffuse_walk_cut.Params())
    assert facts["rule"] == "gap"
    assert facts["threshold"] == pytest.approx(result.tau, rel=1e-5)
    assert facts["nodes"]["parent"] == result.tree.parent.tolist()
    assert np.shape(facts["eigenvector"]) == result.grid


@pytest.mark.parametrize(
    ("method", "params", "names"),
    [
        ("hierarchy_agnostic", {}, {"nodes", "eigenvalues", "eigengap"}),
        ("ncut_recursive", {}, {"nodes"}),
        pytest.param("unsam", {}, {"route"}, marks=pytest.mark.slow),
        pytest.param("unsam", {"graph": "dense", "merge": {"thetas": [0.6, 0.4]}}, {"route", "thetas"}, marks=pytest.mark.slow),
        pytest.param("deep_spectral", {}, {"segments", "eigenvalues"}, marks=pytest.mark.slow),
    ],
)
def test_methods_hand_out(method: str, params: dict, names: set[str]):
    facts = facts_of(method, **params)
    assert names <= facts.keys()
    if "thetas" in names:
        assert facts["thetas"] == [0.6, 0.4]
    if "nodes" in names:
        assert len(facts["nodes"]["parent"]) == len(facts["nodes"]["stop"]) > 1
        assert all((stop == "") == (node in facts["nodes"]["parent"]) for node, stop in enumerate(facts["nodes"]["stop"]))


@pytest.mark.slow
def test_regions_are_the_same_bytes_and_facts_lie_beside_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("USS_WORKERS", "1")
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "small.yaml").write_text(PROFILE)
    (tmp_path / "params.yaml").write_text("profile: small\n")
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    run_cells(tmp_path, Datasets, Features, Segments, Scores)
    layout = Layout(tmp_path)
    plain, explained = (layout.segments(entry, "scenes") for entry in ("plain", "explained"))
    assert {p.name for p in explained.iterdir()} - {p.name for p in plain.iterdir()} == {"notes-00000.json"}
    table = "shard-00000.parquet"
    assert (plain / table).read_bytes() == (explained / table).read_bytes()
    facts = json.loads((explained / "notes-00000.json").read_text())
    assert len(facts) == 2
    assert all({"nodes"} <= set(image) for image in facts.values())
    shown = json.loads((layout.scores("explained", "scenes") / "notes.json").read_text())
    assert shown
    assert shown.items() <= facts.items()
    evidence = read_evidence([layout.scores(entry, "scenes") for entry in ("plain", "explained")])
    assert evidence.notes == {"explained": shown}
    assert not (layout.scores("plain", "scenes") / "notes.json").exists()

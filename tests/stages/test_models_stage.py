"""The stage `models`: what it publishes, that a killed run goes on, a second round, and what its gate refuses."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from students import FEW, write_curated

from uss_dagster import registry
from uss_dagster.artifacts.staging import Rejected
from uss_dagster.errors import BadData
from uss_dagster.hashing import dvc_hash
from uss_dagster.planning.layout import Layout
from uss_dagster.stages.models import Models
from uss_dagster.student import rounds
from uss_dagster.student.settings import StudentSettings

KNOWN = "e5a47635a497bd928e34d1c3a2e85afb.dir"
"""What `dvc add` calls a folder of two files, see the last test."""


def run(root: Path, name: str = "first", self_train: str | None = None, **settings: object) -> dict:
    """Train a student; returns the facts of the run."""
    params = registry.params_to_dict(registry.build_params(StudentSettings, {**FEW, **settings}, "test"))
    cell = Models(
        dataset="d",
        student=name,
        curated="masks",
        self_train=self_train,
        push=True,
        params=params,
        title=f"Student {name}",
        source="masks of e",
        licence="MIT (drawn)",
    )
    return cell.run(Layout(root))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_curated(tmp_path)
    return tmp_path


def weights(root: Path, name: str = "first") -> bytes:
    return (root / "data/models" / name / "model.safetensors").read_bytes()


def test_what_is_published(root):
    facts = run(root)
    folder = root / "data/models/first"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert {"model.safetensors", "config.json", "losses.csv", "losses.png", "README.md", "validation.json"} == set(manifest["files"])
    assert manifest["counts"] == {"train_images": 5, "val_images": 1, "steps": 2}
    assert manifest["training_data"] == dvc_hash(root / "data/curated/masks")
    card = (folder / "README.md").read_text()
    assert manifest["training_data"] in card
    assert "uss repro models/first" in card
    assert str(root) not in card + (folder / "config.json").read_text() + (folder / "manifest.json").read_text()
    scores = json.loads((root / "reports/models/first.json").read_text())
    assert scores == manifest["scores"]
    assert {"ar1000", "click_max", "click_oracle", "loss_fall"} <= set(scores)
    assert facts["device"] in ("cpu", "cuda")
    assert json.loads((folder / "validation.json").read_text())["success"]
    assert not (root / ".uss/work").exists() or not list((root / ".uss/work").rglob("*.safetensors"))


def test_a_killed_run_goes_on_and_ends_the_same(root, monkeypatch):
    settings = {"steps": 4, "every": 2}
    run(root, "whole", **settings)
    steps = []

    class Killed(Exception):
        pass

    class Dying(rounds.Progress):
        def advance(self, units: int = 1) -> None:
            super().advance(units)
            if self.unit == "steps":
                steps.append(self.done)
                if len(steps) == 3:
                    raise Killed

    monkeypatch.setattr(rounds, "Progress", Dying)
    with pytest.raises(Killed):
        run(root, **settings)
    assert not (root / "data/models/first").exists()
    run(root, **settings)
    assert steps[:3] == [1, 2, 3]
    assert steps[3] == 3, "from the checkpoint of step 2 on"
    assert weights(root) == weights(root, "whole")


def test_killed_while_it_measures_it_does_not_train_again(root, monkeypatch):
    calls = []

    def broken(*_):
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return {"ar1000": 0.5}

    monkeypatch.setattr(rounds, "_validation_scores", broken)
    with pytest.raises(KeyboardInterrupt):
        run(root)
    monkeypatch.setattr("uss_dagster.student.training.train", lambda *_, **__: pytest.fail("trained again"))
    facts = run(root)
    assert (facts["steps"], facts["ar1000"]) == (2, 0.5)
    with (root / "data/models/first/losses.csv").open() as stream:
        assert len(list(csv.DictReader(stream))) == 2


@pytest.mark.slow
def test_a_second_round_learns_from_what_the_first_found(root):
    run(root)
    run(root, "second", "first")
    config = json.loads((root / "data/models/second/config.json").read_text())
    digest = json.loads((root / "data/models/first/config.json").read_text())["sha256"]
    assert config["data"]["version"] == f"{dvc_hash(root / 'data/curated/masks')}, with masks of student {digest[:12]}"
    assert json.loads((root / "data/models/second/manifest.json").read_text())["self_train"] == "first"


def test_a_model_that_would_not_load_is_refused(root, monkeypatch):
    from uss_dagster.student.model import Student

    def damaged(folder: Path, device: str = "cpu") -> None:
        raise BadData(f"'{folder.name}' is damaged.")

    monkeypatch.setattr(rounds, "_validation_scores", lambda val, job: {"ar1000": 1.5})
    monkeypatch.setattr(Student, "load", damaged)
    with pytest.raises(Rejected, match="the weights load again"):
        run(root)
    reasons = json.loads((root / ".uss/quarantine/models/first/validation.json").read_text())["checks"]
    assert [check["check"] for check in reasons if not check["success"]] == ["the weights load again", "scores lie in 0..1"]
    assert not (root / "data/models/first").exists()


def test_without_pictures_to_train_on(root):
    import pyarrow.parquet as pq

    path = root / "data/curated/masks/images.parquet"
    table = pq.read_table(path)
    table = table.set_column(table.schema.get_field_index("split"), table.schema.field("split"), [["test"] * len(table)])
    manifest = json.loads((path.parent / "manifest.json").read_text())
    pq.write_table(table, path)
    manifest["files"]["images.parquet"]["size"] = path.stat().st_size
    (path.parent / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BadData, match="there is no picture with masks to train on"):
        run(root)


def test_hash_of_a_folder_is_that_of_dvc(tmp_path):
    """The values of a folder that `dvc add` was asked for."""
    folder = tmp_path / "b"
    (folder / "sub").mkdir(parents=True)
    (folder / "one.txt").write_text("one\n")
    (folder / "sub/two.txt").write_text("two\n")
    assert dvc_hash(folder) == KNOWN
    shutil.copytree(folder, tmp_path / "c")
    assert dvc_hash(tmp_path / "c") == KNOWN

"""`uss compare`: the paired difference of two entries, and what may be concluded from it."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from projects import SOURCE, Project
from scipy import stats
from small_benchmark import image_values, write_cell

from uss_dagster import cli
from uss_dagster.artifacts.schemas import SCHEMA_VERSION
from uss_dagster.report.compare import Comparison, compare
from uss_dagster.scoring.intervals import interval

Run = Callable[..., tuple[list[str], str]]


def add_cell(
    root: Path, entry: str, dataset: str, values: dict[tuple[str, str], np.ndarray], truth: str = "v1", skipped: dict | None = None
) -> Path:
    folder = write_cell(root / "data" / "scores", entry, dataset, values)
    facts = {"schema": SCHEMA_VERSION, "truth": truth, "skipped": skipped or {}, "files": {}}
    (folder / "manifest.json").write_text(json.dumps(facts))
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with four entries on cats, two of them on dogs; nothing else."""
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).touch()
    for entry in ("alpha", "beta", "gamma"):
        values = {("overlap", "strict"): image_values(entry, "overlap"), ("bsds_voi_ods", "bits"): image_values(entry, "error")}
        add_cell(tmp_path, entry, "cats", values)
    add_cell(tmp_path, "lonely", "dogs", {("overlap", "strict"): image_values("alpha", "overlap")})
    add_cell(tmp_path, "alpha", "dogs", {("overlap", "strict"): image_values("alpha", "overlap")})
    return tmp_path


@pytest.fixture
def uss_compare(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """The command in this process: words → (lines on standard output, standard error)."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.chdir(root)

    def run(*words: str, exit_code: int = 0) -> tuple[list[str], str]:
        monkeypatch.setattr(sys, "argv", ["uss", "compare", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        assert (ended.value.code or 0) == exit_code, said.err
        return said.out.splitlines(), said.err

    yield run
    signal.signal(signal.SIGTERM, before)


def replicates(root: Path, entry: str, metric: str) -> np.ndarray:
    table = pd.read_parquet(root / "data/scores" / entry / "cats/replicates.parquet")
    return table[table["metric"] == metric].sort_values("replicate")["value"].to_numpy()


def test_the_interval_is_that_of_the_paired_difference(root: Path):
    found = {c.group[1]: c for c in compare(root / "data/scores/alpha/cats", root / "data/scores/beta/cats", {})}
    overlap = found["overlap"]
    gaps = image_values("alpha", "overlap") - image_values("beta", "overlap")
    assert overlap.difference == pytest.approx(gaps.mean())
    # What a t-test of the images' own differences gives, but for the chance of 300 replicates.
    half = -stats.t.ppf(0.025, 39) * gaps.std(ddof=1) / np.sqrt(40)
    assert overlap.high - overlap.difference == pytest.approx(half, rel=0.1)
    assert overlap.difference - overlap.low == pytest.approx(overlap.high - overlap.difference)
    assert overlap.low < overlap.difference < overlap.high
    assert overlap.group == ("cats", "overlap", "strict", "image", "full")
    assert (overlap.images, overlap.alike) == (40, True)
    # Each entry's own interval is far wider than that of the difference: hard images are hard for both.
    low, high = interval(overlap.first, replicates(root, "alpha", "overlap"), 40)
    assert overlap.high - overlap.low < (high - low) / 3


def test_verdicts(uss_compare: Run):
    lines, _ = uss_compare("alpha", "beta")
    assert lines[0].split()[5:8] == ["alpha", "beta", "difference"]
    assert [line.split()[1] for line in lines[1:3]] == ["bsds_voi_ods", "overlap"]
    assert lines[1].endswith("40        3  beta higher (lower is better)")
    assert lines[2].endswith("40        3  alpha higher")
    assert lines[3:] == ["All pairs of so many entries are judged together: the chance that any is told apart by mistake is 5 %."]
    assert "  +0.1" in lines[2]
    backwards, _ = uss_compare("beta", "alpha", "--metric", "overlap")
    assert len(backwards) == 3
    assert backwards[1].endswith("alpha higher")
    assert "  -0.1" in backwards[1]
    same, _ = uss_compare("alpha", "gamma", "-m", "overlap", "-d", "cats")
    assert same[1].endswith("40        3  cannot be told apart")


def test_it_agrees_with_the_ties_of_the_leaderboard(root: Path):
    from small_benchmark import DATASETS, ENTRIES, METRICS

    from uss_dagster.report import leaderboard

    folders = [root / "data/scores" / e / "cats" for e in ("alpha", "beta", "gamma")]
    known = {**METRICS, "bsds_voi_ods": METRICS["error"]}
    board = leaderboard.build(folders, ENTRIES, DATASETS, known)
    for (_, metric, *_), group in board.groupby(leaderboard.GROUP):
        best = group[group["rank"] == 1]["entry"].iloc[0]
        for _, row in group[group["entry"] != best].iterrows():
            one, other = (root / "data/scores" / entry / "cats" for entry in (row["entry"], best))
            pair = compare(one, other, {}, [folder for folder in folders if folder not in (one, other)])
            verdict = next(c for c in pair if c.group[1] == metric).verdict(row["entry"], best)
            assert (verdict == "cannot be told apart") == row["tied_with_best"]


def test_images_that_only_one_has(root: Path, uss_compare: Run):
    folder = root / "data/scores/gamma/cats"
    table = pd.read_parquet(folder / "scores.parquet")
    table = table[~((table["metric"] == "overlap") & table["image_id"].isin(["i3", "i4"]))]
    table = table[(table["metric"] == "overlap") | table["image_id"].isna()]
    table.to_parquet(folder / "scores.parquet")
    facts = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**facts, "skipped": {"bsds": ["i1", "i2", "i3"]}}))
    found = {c.group[1]: c for c in compare(root / "data/scores/alpha/cats", folder, {"bsds_voi_ods": "bsds"})}
    assert (found["overlap"].images, found["overlap"].alike) == (38, False)
    assert (found["bsds_voi_ods"].images, found["bsds_voi_ods"].alike) == (37, False)
    assert uss_compare("alpha", "gamma")[0][-1].startswith("Some numbers are over images that only one of the two has a score for")


def test_without_replicates_and_without_values():
    group = ("cats", "overlap", "strict", "image", "full")
    assert Comparison(group, 0.5, 0.4, np.nan, np.nan, 9, True).verdict("a", "b") == "unknown, there are no replicates"
    assert Comparison(group, 0.5, 0.5, np.nan, np.nan, 9, True).verdict("a", "b") == "equal"
    assert Comparison(group, np.nan, 0.5, np.nan, np.nan, 9, True).verdict("a", "b") == "undefined"
    assert Comparison(group, 0.5, 0.4, 0.0, 0.2, 9, True).verdict("a", "b") == "cannot be told apart"
    assert Comparison(group, 0.4, 0.5, -0.2, -0.1, 9, True).verdict("a", "b") == "b higher"
    assert Comparison(group, 0.5, 0.4, np.nan, np.nan, 1, True).verdict("a", "b") == "unknown, there is one image"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["alpha", "bet"], 64, "No entry 'bet' has scores here. Did you mean 'beta'?"),
        (["alpha", "alpha"], 64, "Both entries are 'alpha'; name two that differ."),
        (["alpha", "beta", "-d", "cat"], 64, "'alpha' and 'beta' have no scores in common on dataset 'cat'. Did you mean 'cats'?"),
        (["alpha", "beta", "-d", "dogs"], 64, "no scores in common on dataset 'dogs'. Only 'alpha' has scores on it."),
        (["alpha", "beta", "-m", "overlaps"], 64, "'alpha' and 'beta' share no metric 'overlaps'. Did you mean 'overlap'?"),
        (["beta", "lonely"], 64, "'beta' (cats) and 'lonely' (dogs) have scores on no common dataset."),
        (["alpha"], 64, "Missing argument 'ENTRY_B'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_words(uss_compare: Run, words: list[str], code: int, said: str):
    assert said in uss_compare(*words, exit_code=code)[1]


def test_other_versions_of_a_dataset_are_not_compared(root: Path, uss_compare: Run):
    add_cell(root, "labelled", "cats", {("overlap", "strict"): image_values("labelled", "overlap")}, truth="v2")
    said = uss_compare("alpha", "labelled", exit_code=65)[1]
    assert "scored on different versions of dataset 'cats'. Run `uss repro`" in said


def test_outside_a_project_and_before_the_first_run(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    here = Project(tmp_path / "empty", {"PYTHONPATH": str(SOURCE)})
    assert here.uss("compare", "a", "b", code=64).stderr.count("\n") == 1
    for name in ("params.yaml", "dvc.yaml"):
        (here.root / name).touch()
    assert "holds no scores yet. Run `uss repro` first." in here.uss("compare", "a", "b", code=64).stderr


@pytest.mark.slow
def test_entries_of_a_real_project(finished: Project):
    done = finished.uss("compare", "kmeans", "felzenszwalb", "--metric", "nm_covering")
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    values = {}
    for entry in ("kmeans", "felzenszwalb"):
        table = pd.read_parquet(finished.root / "data/scores" / entry / "scenes/scores.parquet")
        values[entry] = table[(table["metric"] == "nm_covering") & table["image_id"].isna()]["value"].iloc[0]
    numbers = (f"{values['kmeans']:.4f}", f"{values['felzenszwalb']:.4f}", f"{values['kmeans'] - values['felzenszwalb']:+.4f}")
    assert " ".join(numbers) in " ".join(lines[1].split())

"""`uss recommend` on a person's own pictures: a ranking without labels, its files and its page, and what happens when it is stopped."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from uss_dagster.artifacts.schemas import REGIONS
from uss_dagster.artifacts.tables import check_schema
from uss_dagster.cli import app
from uss_dagster.commands.recommend import parse_seconds
from uss_dagster.errors import BadData, UsageError
from uss_dagster.metrics.unlabelled.votes import MEASURES
from uss_dagster.own_images import recommend
from uss_dagster.own_images.entries import FACETS, read_entries
from uss_dagster.report.recommendation import GOALS

CHEAP = ("contour_merge", "slic_merge", "kmeans", "has")


def photo(seed: int) -> np.ndarray:
    """Fields of four colours with noise, uint8 (60, 80, 3)."""
    rng = np.random.default_rng(seed)
    picture = np.full((60, 80, 3), (40, 90, 160))
    picture[30:] = (200, 170, 60)
    y, x = rng.integers(5, 30), rng.integers(5, 40)
    picture[y : y + 25, x : x + 30] = (180, 40, 50)
    return (picture + rng.integers(-9, 10, picture.shape)).clip(0, 255).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with three photographs and a broken one, where only four entries that need no weights are compared."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for seed in range(3):
        Image.fromarray(photo(seed)).save(photos / f"{seed}.png")
    (photos / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing more")
    monkeypatch.setenv("USS_WORKERS", "1")
    monkeypatch.setenv("USS_WEIGHTS", str(tmp_path / "no_weights"))
    monkeypatch.setattr(recommend, "read_entries", lambda deep: [e for e in read_entries(deep) if e.name in CHEAP])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["recommend", "photos", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def results() -> dict[str, bytes]:
    """Name and content of the files of the result."""
    return {path.name: path.read_bytes() for path in Path("recommended").iterdir() if path.is_file()}


def test_a_ranking_with_its_files_and_its_page(folder):
    said = run("--goal", "objects")
    assert "left out: all entries on the pretrained encoder; `uss weights get dinov2_vits14_saliency`" in said
    assert "broken.png" in said
    assert "Without labels, on 3 pictures, goal objects:" in said
    ranking = pq.read_table("recommended/ranking.parquet").to_pylist()
    assert [row["rank"] for row in ranking] == [1, 2, 3, 4]
    assert {row["entry"] for row in ranking} == set(CHEAP)
    assert ranking[0]["behind"] == 0
    assert [row["behind"] for row in ranking] == sorted(row["behind"] for row in ranking)
    quality = pq.read_table("recommended/quality.parquet").to_pylist()
    assert len(quality) == 3 * 4
    assert all(0 <= row[goal] <= 1 for row in quality for goal in MEASURES)
    for entry in CHEAP:
        table = pq.read_table(f"recommended/entries/{entry}/regions.parquet")
        check_schema(table.schema, REGIONS, entry)
        assert set(table["image_id"].to_pylist()) == {"0", "1", "2"}
        assert set(table["height"].to_pylist()) == {60}
    summary = json.loads(Path("recommended/recommendation.json").read_text())
    assert summary["goal"] == "objects"
    assert summary["features"] == "patches"
    assert summary["leaders"][0] == ranking[0]["entry"]
    page = Path("recommended/index.html").read_text()
    assert GOALS["objects"] in page
    assert "http" not in page.replace("http-equiv", ""), "it loads nothing"
    assert sorted(path.name for path in Path("recommended/pictures").iterdir())[:2] == ["0-0.jpg", "0-1.jpg"]

    # Another goal computes no region again, and neither does the same command.
    stored = {path: path.stat().st_mtime_ns for path in Path("recommended/.recommend").rglob("*.parquet")}
    assert len(stored) == 3 * 4
    run("--goal", "scenes")
    assert {path: path.stat().st_mtime_ns for path in Path("recommended/.recommend").rglob("*.parquet")} == stored
    before = results()
    run("--goal", "scenes")
    assert results() == before

    # What a stopped run left is used, and the rest is computed.
    (lost,) = [path.parent for path in stored if path.name == "has.parquet"][:1]
    (lost / "scores.json").unlink()
    run("--goal", "scenes")
    assert results() == before


def test_what_is_refused(folder):
    with pytest.raises(UsageError, match=r"0 entries fit a budget of 0\.0001 s an image; at least 3 are compared"):
        run("--budget", "0.0001s")
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("keep")
    with pytest.raises(UsageError, match="mine holds files, and `uss recommend` did not make them"):
        run("--out", "mine")
    for path in Path("photos").glob("[0-9].png"):
        path.write_bytes(b"no picture")
    with pytest.raises(BadData, match=r"none of the pictures could be used"):
        run("--out", "other")


def test_a_sample_is_evenly_spaced(folder):
    assert "2 of 4 pictures are used, evenly spaced in their names" in run("--sample", "2")


@pytest.mark.parametrize(("text", "seconds"), [(None, None), ("2", 2.0), ("2s", 2.0), (" 0.5s", 0.5)])
def test_a_budget(text, seconds):
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "two", "-1", "0", "inf", "nan"])
def test_a_budget_that_is_none(text):
    with pytest.raises(UsageError, match="expected seconds an image, such as 2s"):
        parse_seconds(text)


def test_the_entries_read_what_their_backbones_give():
    for entry in read_entries(deep=True):
        read = entry.segmenter.spec.facets_read(entry.segmenter.params) if entry.backbone else ()
        assert set(read) <= set(FACETS), entry.name
    for entry in read_entries(deep=True):
        assert ("[weights have seen labels of saliency]" in entry.full_title) == (entry.backbone == "deep")
    assert {entry.backbone for entry in read_entries(deep=False)} == {"", "patches"}
    assert set(GOALS) == set(MEASURES)

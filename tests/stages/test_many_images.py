"""What stages hold and read does not grow with the number of shards, beyond a few bytes an image."""

from __future__ import annotations

import collections
import itertools
import json
import runpy
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from projects import SOURCE

from uss_dagster.artifacts import gate, images, tables
from uss_dagster.artifacts.gate import Report, RowOrder, between, check_expectations, not_null, same_images, sorted_unique
from uss_dagster.artifacts.image_files import encode_png
from uss_dagster.artifacts.images import Images, ImageShards
from uss_dagster.artifacts.schemas import IMAGES, REGIONS, REPLICATES, SCORES
from uss_dagster.artifacts.tables import batches, iterate_regions, regions_to_table, write_batches, write_table
from uss_dagster.errors import UsageError
from uss_dagster.regions import ClassTree, Regions
from uss_dagster.report.dataset_facts import read_classes
from uss_dagster.report.evidence import MOST_IMAGES, single_scores
from uss_dagster.report.leaderboard import Ranking, read_cells
from uss_dagster.scoring.image_scores import ImageScores, mean_scores
from uss_dagster.stages import scores, segments

A_SHARD = 20
HALVES = Regions.from_tree(np.repeat([1, 2], 8).reshape(4, 4), [0, 0, 0], label=[0, 1, 2])


@pytest.fixture
def rows_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small row groups and frames; in place of Great Expectations, what looks at each frame and lets it go."""
    monkeypatch.setattr(tables, "GROUP_ROWS", 500)
    monkeypatch.setattr(gate, "FRAME_ROWS", 500)
    for stage in (segments, scores):
        monkeypatch.setattr(stage, "check_expectations", lambda report, rows, expectations: collections.deque(rows, maxlen=0))


POOLS: list[pa.MemoryPool] = []


def names(count: int) -> list[str]:
    return [f"image{number:06d}" for number in range(count)]


def write_segments(folder: Path, shards: int) -> None:
    """Shards of images with three regions each: one table under other names."""
    folder.mkdir()
    table = pa.concat_tables([regions_to_table("", HALVES)] * A_SHARD)
    for shard in range(shards):
        ids = np.repeat(names(shards * A_SHARD)[shard * A_SHARD : (shard + 1) * A_SHARD], len(HALVES))
        write_table(folder / f"shard-{shard:05d}.parquet", table.set_column(0, "image_id", pa.array(ids, pa.string())), REGIONS)


def write_index(folder: Path, count: int, group_rows: int = 500) -> Images:
    """The images.parquet of a dataset, without its images."""
    folder.mkdir()
    row = {
        "shard": "shard-00000.tar",
        "member": "a.png",
        "offset": 0,
        "size": 1,
        "height": 4,
        "width": 4,
        "split": "all",
        "sha256": "0" * 64,
    }
    write_table(folder / "images.parquet", pa.Table.from_pylist([{"image_id": i, **row} for i in names(count)], IMAGES), IMAGES, group_rows)
    return Images(folder)


def peak(work: Any) -> int:
    """Greatest number of bytes that Python and Arrow hold at once."""
    before, pool = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
    POOLS.append(pool)  # what outlives the work is freed through it
    pa.set_memory_pool(pool)
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1] + pool.max_memory()
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(before)


def test_the_gate_of_segments_holds_one_shard(tmp_path: Path, rows_only: None) -> None:
    peaks = []
    for shards in (5, 10, 50):  # the first imports
        write_segments(tmp_path / str(shards), shards)
        index = write_index(tmp_path / f"images{shards}", shards * A_SHARD)
        peaks.append(peak(lambda: segments.validate("x", tmp_path / str(shards), index, False)))  # noqa: B023
        assert segments.validate("x", tmp_path / str(shards), index, False).success
    more_images = 40 * A_SHARD
    assert peaks[2] - peaks[1] <= 300 * more_images, "bytes an image: its id twice, not its rows"


def test_the_gate_of_segments_looks_at_every_shard(tmp_path: Path, rows_only: None) -> None:
    write_segments(tmp_path / "segments", 30)
    index, last = write_index(tmp_path / "images", 30 * A_SHARD), tmp_path / "segments/shard-00029.parquet"

    def refused(**columns: Any) -> list[str]:
        good = pq.read_table(last)
        bad = good
        for name, values in columns.items():
            bad = bad.set_column(bad.schema.get_field_index(name), name, pa.array(values, good.schema.field(name).type))
        write_table(last, bad, REGIONS)
        reasons = segments.validate("x", tmp_path / "segments", index, False).reasons()
        write_table(last, good, REGIONS)
        return reasons

    good = pq.read_table(last)
    ids = good["image_id"].to_pylist()
    (unsorted, missing) = refused(image_id=["image000000" if i == ids[0] else i for i in ids])
    assert "Row {'image_id': 'image000000', 'region': 0} follows {'image_id': 'image000579', 'region': 2}." in unsorted
    assert "Differing images: ['image000580']" in missing
    (nan,) = refused(score=[np.nan] + [1.0] * (len(ids) - 1))
    assert "score is nan at {'image_id': 'image000580'" in nan
    (code,) = refused(area=[17, *good["area"].to_pylist()[1:]])
    assert "area is 17, its code holds 16 pixels" in code
    assert refused() == []


def test_images_are_found_in_few_reads_of_the_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker opens the index for every shard, and so must not read all of it each time."""
    index = write_index(tmp_path / "images", 2000, group_rows=500)
    reads: list[Any] = []
    read_group = tables.read_group
    monkeypatch.setattr(images, "read_group", lambda *words: reads.append(words) or read_group(*words))
    for ids in index.shards(A_SHARD):
        opened = Images(tmp_path / "images")
        assert [image_id for image_id, _ in opened.contents(ids)] == ids
        assert opened.shape(ids[0]) == (4, 4)
    assert len(reads) == 2000 // 500
    with pytest.raises(KeyError):
        opened.shape("image")


def test_more_shards_than_their_names_can_count_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MOST_SHARDS", 10)
    index = write_index(tmp_path / "images", 101)
    with pytest.raises(UsageError, match=r"101 images in shards of 10 are more than 10 shards\. Set shard_images .* to 11 or more\."):
        index.shards(10)
    assert [len(ids) for ids in index.shards(11)] == [11] * 9 + [2]


def test_another_file_of_the_same_name_is_read_anew(tmp_path: Path) -> None:
    for count in (3, 5):
        (tmp_path / "images").mkdir(exist_ok=True)
        shards = ImageShards(tmp_path / "images")
        for image_id in names(count):
            shards.add(image_id, encode_png(np.full((count, 2, 3), 9, np.uint8)), ".png", count, 2, "all")
        shards.close()
        write_table(tmp_path / "images/images.parquet", shards.table(), IMAGES)
        assert Images(tmp_path / "images").shape("image000002") == (count, 2)


def test_of_a_large_file_only_groups_with_the_images_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_segments(tmp_path / "shards", 50)
    write_batches_of(tmp_path / "regions.parquet", sorted((tmp_path / "shards").glob("*")), 300, monkeypatch)
    rows: list[int] = []
    read_group = tables.read_group

    def counted(*words: Any) -> pa.Table:
        table = read_group(*words)
        rows.append(table.num_rows)
        return table

    monkeypatch.setattr(tables, "read_group", counted)
    wanted = names(1000)[490:510]
    assert [image_id for image_id, _ in iterate_regions([tmp_path / "regions.parquet"], set(wanted))] == wanted
    assert 60 <= sum(rows) <= 600, f"{rows} of {3000}"
    assert not list(iterate_regions([tmp_path / "regions.parquet"], {"nobody"}))


def write_batches_of(path: Path, parts: list[Path], group_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "GROUP_ROWS", group_rows)
    write_batches(path, map(pq.read_table, parts), REGIONS)


@pytest.mark.parametrize("cut", [[], [0], [3], [1, 1, 4], [7]])
def test_batches_are_the_rows_in_order(cut: list[int], tmp_path: Path) -> None:
    table = pa.table({"a": list(range(7))})
    parts = [table.slice(start, stop - start) for start, stop in zip([0, *cut], [*cut, 7], strict=True)]
    for size in (1, 3, 7, 100):
        got = list(batches(parts, size))
        assert pa.concat_tables(got).equals(table)
        assert [t.num_rows for t in got] == [min(size, 7 - start) for start in range(0, 7, size)]
    assert [t.num_rows for t in batches([table.slice(0, 0)], 3)] == [0]
    assert list(batches([], 3)) == []
    write_batches(tmp_path / "parts.parquet", parts, table.schema)
    write_table(tmp_path / "whole.parquet", table, table.schema)
    assert (tmp_path / "parts.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_row_order_is_that_of_tuples() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        rows = [(f"i{a}", int(b)) for a, b in rng.integers(0, 3, (rng.integers(0, 8), 2))]
        rows = sorted(set(rows)) if rng.random() < 0.3 else rows
        expected = [
            f"Row {dict(zip('ab', after, strict=True))} follows" for before, after in itertools.pairwise(rows) if not before < after
        ]
        table = pa.table({"a": pa.array([a for a, _ in rows], pa.string()), "b": pa.array([b for _, b in rows], pa.int32())})
        whole = list(sorted_unique(table, ["a", "b"]))
        order, middle = RowOrder(["a", "b"]), len(rows) // 2
        parts = [problem for part in (table.slice(0, middle), table.slice(0, 0), table.slice(middle)) for problem in order.problems(part)]
        assert [problem.split(" {")[0] + " {" + problem.split("{")[1].split("} follows")[0] + "} follows" for problem in whole] == expected
        assert parts == whole


def test_images_that_differ_are_named() -> None:
    assert list(same_images(["a", "b"], pa.chunked_array([["b"], ["c", "c"]], pa.string()))) == ["Differing images: ['a', 'c']."]
    assert list(same_images([], [])) == list(same_images(["a"], ["a", "a"])) == []


def test_a_suite_over_frames_says_what_it_says_over_all_rows() -> None:
    table = pd.DataFrame({"region": [1, 0, 3, 0, -4], "source": ["a", None, "b", "c", None]})
    verdicts = []
    for rows in (table, [table.iloc[:2], table.iloc[2:4], table.iloc[4:]]):
        report = Report("x")
        check_expectations(report, rows, [between("region", 1), not_null("source"), between("region", -9)])
        verdicts.append(report.checks)
    assert verdicts[0] == verdicts[1]
    assert verdicts[0][0]["message"] == "3 of 5 values break it, such as [0, 0, -4]."


# -- scores ---------------------------------------------------------------------------------------------------

WAYS = [{"metric": metric, "protocol": "p", "scope": "image", "grid": "full"} for metric in ("m", "k")]


def score_rows(count: int, seed: int = 0) -> list[Any]:
    values = np.random.default_rng(seed).random((len(WAYS), count))
    rows = [
        {"image_id": i, **way, "value": float(v), "n": 1}
        for way, of_way in zip(WAYS, values, strict=True)
        for i, v in zip(names(count), of_way, strict=True)
    ]
    return [row for row in rows if row["metric"] == "m" or row["image_id"] != "image000001"]


def write_scores(folder: Path, entry: str, count: int, seed: int = 0) -> Path:
    target = folder / entry / "d"
    target.mkdir(parents=True)
    of_dataset: list[Any] = [{"image_id": None, **way, "value": 0.5, "n": count} for way in WAYS]
    cell = {"entry": entry, "dataset": "d"}
    write_batches(target / "scores.parquet", scores.score_tables(cell, of_dataset, ImageScores.of(score_rows(count, seed))), SCORES)
    replicates = [{**cell, **way, "replicate": r, "value": 0.5} for way in WAYS for r in range(3)]
    write_table(target / "replicates.parquet", pa.Table.from_pylist(replicates, REPLICATES), REPLICATES)
    return target


def test_rows_of_scores_are_those_of_a_sorted_list(tmp_path: Path) -> None:
    rows = score_rows(50)
    of_dataset: list[Any] = [{"image_id": None, **way, "value": 0.5, "n": 50} for way in WAYS]
    expected = sorted([*rows, *of_dataset], key=lambda row: (row["metric"], row["image_id"] is not None, row["image_id"] or ""))
    collected = ImageScores()
    for start in range(0, 50, 7):  # shard by shard
        collected.add(row for row in rows if names(50).index(row["image_id"]) in range(start, start + 7))
    got = pa.concat_tables(scores.score_tables({"entry": "e", "dataset": "d"}, of_dataset, collected)).to_pylist()
    assert got == [{"entry": "e", "dataset": "d", **{k: row[k] for k in SCORES.names[2:]}} for row in expected]
    assert collected.ids().to_pylist() == names(50)
    assert collected.without({"m"}).ids().to_pylist() == [i for i in names(50) if i != "image000001"]


def test_scores_of_runs_are_averaged_over_those_that_have_them() -> None:
    runs = [ImageScores.of(score_rows(5, seed)) for seed in range(3)] + [ImageScores.of(score_rows(6, 3))]
    ids, values = mean_scores(runs).scores(("m", "p", "image", "full"))
    assert ids.to_pylist() == names(6)
    of_runs = [dict(zip(i.to_pylist(), v, strict=True)) for i, v in (run.scores(("m", "p", "image", "full")) for run in runs)]
    assert values == pytest.approx([np.mean([run[i] for run in of_runs if i in run]) for i in names(6)], abs=1e-15)


def test_scores_of_images_take_few_bytes() -> None:
    collected = ImageScores()
    rows = score_rows(20_000)
    held = peak(lambda: [collected.add(rows[start : start + 100]) for start in range(0, 20_000, 100)])
    assert held <= 100 * 20_000


def test_the_gate_of_scores_holds_one_group(tmp_path: Path, rows_only: None) -> None:
    folders = [write_scores(tmp_path / str(count), "e", count) for count in (100, 1000, 10_000)]
    peaks = [peak(lambda: scores.validate("x", folder, 10_000)) for folder in folders]  # noqa: B023
    assert peaks[2] <= 1.5 * peaks[1]
    assert scores.validate("x", folders[2], 10_000).success


def test_scores_that_do_not_ascend_are_refused(tmp_path: Path, rows_only: None) -> None:
    """Else two equal ones could lie in different frames, each of which Great Expectations finds in order."""
    folder = write_scores(tmp_path, "e", 1000)
    table = pq.read_table(folder / "scores.parquet")
    write_table(folder / "scores.parquet", pa.concat_tables([table, table.slice(700, 1)]), SCORES)
    (reason,) = scores.validate("x", folder, 1000).reasons()
    assert reason.startswith("scores ascend by convention and image: Row {'metric': 'k'") or "follows" in reason


def test_pages_read_what_they_show(tmp_path: Path) -> None:
    folders = [write_scores(tmp_path, entry, count, seed) for seed, (entry, count) in enumerate({"a": 2500, "b": 2400}.items())]
    ranking = Ranking("d", "k", "p", "image", "full")
    got = single_scores(folders, ranking, {"image000003", "elsewhere"})
    assert got is not None
    frames = {
        f.parent.name: pd.read_parquet(f / "scores.parquet").query("metric == 'k'").dropna().set_index("image_id")["value"] for f in folders
    }
    whole = pd.DataFrame(frames)
    assert got.of == len(whole) == 2499
    assert len(got.sample) == MOST_IMAGES
    assert sorted(got.table.index) == sorted({*got.sample, "image000003"})
    pd.testing.assert_frame_equal(got.table, whole.loc[got.table.index], check_names=False)
    for entry, short in got.entries.items():
        worst = whole[entry].dropna().sort_values(kind="stable")
        assert (short.count, list(short.lowest)) == (len(worst), list(worst.head(10).items()))
        assert list(short.highest) == list(worst[::-1].head(10).items())
    dataset_scores, replicates = read_cells(folders)
    assert len(dataset_scores) == 4
    assert replicates[ranking].shape == (3, 2)


def test_images_of_a_class_are_counted_group_by_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_segments(tmp_path / "shards", 3)
    (tmp_path / "truth").mkdir()
    write_batches_of(tmp_path / "truth/regions.parquet", sorted((tmp_path / "shards").glob("*")), 30, monkeypatch)
    tree = ClassTree.from_nested({"one": "foreground", "two": "foreground"})
    (tmp_path / "truth/classes.json").write_text(tree.to_json())
    assert [(c.name, c.images) for c in read_classes(tmp_path / "truth", 60 * 16)] == [("scene", 60), ("one", 60), ("two", 60)]


def test_the_page_has_the_tables_of_the_model() -> None:
    model = runpy.run_path(str(SOURCE / "benchmarks/scale_model.py"))
    assert "\n".join(model["tables"]()) in (SOURCE / "docs/scale.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_ten_times_as_many_images_cost_ten_times_as_much(tmp_path: Path) -> None:
    command = [sys.executable, SOURCE / "benchmarks/scale.py", "--images", "10000,100000", "--json", tmp_path / "uses.json"]
    subprocess.run(command, check=True, timeout=7200)
    few, many = json.loads((tmp_path / "uses.json").read_text()).values()
    for step, use in many.items():
        assert use["memory"] <= 1.5e9, step
        assert use["processor"] <= 1.2 * 10 * few[step]["processor"], step

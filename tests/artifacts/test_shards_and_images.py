"""Work by shards, images in tar files, and how progress is told."""

import json
import os
import tarfile

import numpy as np
import pytest

from uss_dagster.artifacts.image_files import encode_png
from uss_dagster.artifacts.images import Images, ImageShards, evenly_spaced
from uss_dagster.artifacts.progress import Progress
from uss_dagster.artifacts.schemas import IMAGES
from uss_dagster.artifacts.shards import map_shards, worker_count
from uss_dagster.artifacts.tables import write_table
from uss_dagster.errors import BadData, UsageError


def matrix_sum(seed: int) -> tuple[bytes, int]:
    a = np.random.default_rng(seed).random((300, 300), np.float32)
    return (a @ a.T).tobytes(), os.getpid()


def test_same_bytes_inline_and_in_processes():
    inline, spread = list(map_shards(matrix_sum, range(4), 1)), list(map_shards(matrix_sum, range(4), 2))
    assert [b for b, _ in inline] == [b for b, _ in spread]
    assert {p for _, p in inline} == {os.getpid()}
    assert os.getpid() not in {p for _, p in spread}


def fails(number: int) -> int:
    if number == 1:
        raise BadData("shard 1 is bad")
    return number


def test_an_error_in_a_worker_reaches_the_caller():
    with pytest.raises(BadData, match="shard 1 is bad"):
        list(map_shards(fails, range(3), 2))


def test_worker_count(monkeypatch):
    monkeypatch.setenv("USS_WORKERS", "3")
    assert worker_count(8) == 3
    assert worker_count(2) == 2
    monkeypatch.setenv("USS_WORKERS", "many")
    with pytest.raises(UsageError, match="USS_WORKERS is 'many'"):
        worker_count(2)


def images(folder, limit):
    shards = ImageShards(folder, limit)
    for n in range(5):
        picture = np.full((4 + n, 6, 3), n * 40, np.uint8)
        shards.add(f"img{n}", encode_png(picture), ".png", 4 + n, 6, "test")
    shards.close()
    write_table(folder / "images.parquet", shards.table(), IMAGES)
    return Images(folder)


@pytest.mark.parametrize("limit", [1, 10**9])
def test_images_come_back_from_any_shard(tmp_path, limit):
    found = images(tmp_path, limit)
    assert found.ids == [f"img{n}" for n in range(5)]
    assert len(list(tmp_path.glob("*.tar"))) == (5 if limit == 1 else 1)
    for n in (3, 0, 4):
        assert found.pixels(f"img{n}").shape == (4 + n, 6, 3) == (*found.shape(f"img{n}"), 3)
        assert (found.pixels(f"img{n}") == n * 40).all()
    with tarfile.open(tmp_path / "shard-00000.tar") as tar:
        assert tar.getmembers()[0].mtime == 0
        assert tar.getmembers()[0].uname == ""


def test_a_damaged_image_is_named(tmp_path):
    found = images(tmp_path, 10**9)
    with open(tmp_path / "shard-00000.tar", "r+b") as shard:
        shard.seek(found.table["offset"][2].as_py() + 20)
        shard.write(b"XXXX")
    with pytest.raises(BadData, match=r"Image 'img2' in .* is not what was written"):
        found.encoded("img2")


def test_samples_are_evenly_spaced():
    assert evenly_spaced(list("abcdefgh"), 2) == ["c", "g"]
    assert evenly_spaced(list("ab"), 4) == ["a", "b"]


def test_progress_is_json_lines_without_a_terminal(capsys):
    with Progress("features x", 3, "images") as progress:
        for _ in range(3):
            progress.advance()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[-1] == {"event": "progress", "what": "features x", "done": 3, "total": 3, "unit": "images"}
    assert len(lines) == 2, "one at the start, one at the end, the rest within the same second"

"""Examples at reduced size: on disk, and read by processes that change no byte."""

from __future__ import annotations

import io
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from student_cases import example, settings, source

from uss_dagster.artifacts.image_files import decode
from uss_dagster.artifacts.reduced_pictures import decode_reduced, reduce_picture
from uss_dagster.errors import BadData, TryAgain
from uss_dagster.hashing import sha256_of
from uss_dagster.regions import rle
from uss_dagster.student import example_shards
from uss_dagster.student.data import Example, Pictures, Source
from uss_dagster.student.example_shards import stored_examples
from uss_dagster.student.loader import in_order
from uss_dagster.student.loading import Loading
from uss_dagster.student.reduced import ReducedExample, from_row, read_reduced, reduce_example, to_row
from uss_dagster.student.training import WEIGHTS, train
from uss_dagster.student.views import Views, longest_side


def jpeg(image: np.ndarray, orientation: int = 1) -> bytes:
    stream, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(image).save(stream, "JPEG", quality=95, exif=exif)
    return stream.getvalue()


def shaded(height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 255 / height, columns * 255 / width, (rows + columns) % 256], -1).astype(np.uint8)


def equal(one: ReducedExample, other: ReducedExample) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("image", "atoms", "members", "human"))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_large_jpeg_is_decoded_at_a_part_of_its_size(orientation: int) -> None:
    data = jpeg(shaded(1200, 900)[..., [0, 1, 1]], orientation)
    full = decode(data, "x")
    small, shape = decode_reduced(data, "x", 100)
    assert shape == full.shape[:2]
    expected = reduce_picture(full, 100)
    assert small.shape == expected.shape
    assert np.abs(small.astype(int) - expected).max() <= 4
    assert np.array_equal(decode_reduced(data, "x", 1200)[0], full)
    with Image.open(io.BytesIO(data)) as picture:
        picture.draft(None, (150, 200))
        assert picture.size == (225, 300), "a quarter, of which twice the result can be made"


def test_a_broken_picture_is_one_sentence() -> None:
    with pytest.raises(BadData, match=r"a\.jpg is truncated or damaged"):
        decode_reduced(jpeg(shaded(64, 64))[:900], "a.jpg", 32)
    with pytest.raises(BadData, match="is empty"):
        decode_reduced(b"", "a.jpg", 32)


def test_masks_are_reduced_without_their_full_size() -> None:
    """A hundred masks of 8 megapixels: 800 MB if each were drawn."""
    import tracemalloc

    height, width = 2000, 4000
    runs = lambda first: np.array([first, *[500, height - 500] * (width - 1), 500, height - 500 - first])  # noqa: E731
    codes = tuple(rle.encode_runs(runs(first)) for first in range(0, 1500, 15))
    picture = Example("x", np.zeros((height, width, 3), np.uint8), codes)
    tracemalloc.start()
    reduced = reduce_example(picture, 400)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60 * 2**20
    expected = [(np.arange(200) * 10 + 5 >= first) & (np.arange(200) * 10 + 5 < first + 500) for first in range(0, 1500, 15)]
    assert np.array_equal(reduced.members[:, reduced.atoms[:, 0]], expected)


@pytest.mark.parametrize("masks", [0, 1, 3, 9, 300])
def test_an_example_comes_back_from_its_row(masks: int) -> None:
    rng = np.random.default_rng(masks)
    drawn = rng.random((masks, 20, 30)) < 0.5
    picture = Example("x", rng.integers(0, 256, (20, 30, 3), np.uint8), tuple(rle.encode(drawn)), rng.random(masks) < 0.5)
    reduced = reduce_example(picture, 30)
    assert equal(from_row(to_row(reduced)), reduced)
    assert np.array_equal(reduced.members[:, reduced.atoms], drawn)


def test_examples_are_computed_once_and_again_only_where_something_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(example_shards, "EXAMPLES", 4)
    read: list[str] = []
    files = {f"p{i}": jpeg(example(i).image) for i in range(6)}
    masks = {f"p{i}": (example(i).codes, np.zeros(len(example(i).codes), bool)) for i in range(6)}

    def of() -> Source:
        def encoded(image_id: str) -> bytes:
            read.append(image_id)
            return files[image_id]

        pictures = Pictures(encoded, lambda image_id: sha256_of(files[image_id]))
        return Source(list(files), pictures.pixels, lambda image_id: masks[image_id], pictures)

    expected = [read_reduced(of(), i, 32) for i in range(6)]
    read.clear()
    finished: list[int] = []
    for _ in range(2):
        stored = stored_examples(of(), 32, tmp_path, Loading(), finished.append)
        assert all(equal(stored[i], expected[i]) for i in range(6))
    assert read == list(files), "each once, and none in the second run"
    assert finished == [4, 2, 4, 2]
    masks["p5"] = (masks["p5"][0][:1], masks["p5"][1][:1])
    changed = stored_examples(of(), 32, tmp_path, Loading())
    assert read[6:] == ["p4", "p5"]
    assert len(changed[5].human) == 1
    files["p0"] = files["p1"]
    stored_examples(of(), 32, tmp_path, Loading())
    assert read[8:] == ["p0", "p1", "p2", "p3"]
    stored_examples(of(), 24, tmp_path, Loading())
    assert len(list(tmp_path.glob("*.parquet"))) == 6
    assert not list(tmp_path.glob(".*"))


def test_the_folder_has_a_greatest_size_and_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(example_shards, "EXAMPLES", 1)
    stored_examples(source(3), 48, tmp_path, Loading())
    files = sorted(tmp_path.iterdir())
    size = max(path.stat().st_size for path in files)
    for path in files:
        os.utime(path, (1, 1))  # of a run long ago
    few = stored_examples(source(6), 40, tmp_path, Loading(most=2 * size + 1))
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 2 * size + 1
    assert not set(files) & set(tmp_path.iterdir()), "those of the other run went first"
    assert all(equal(few[i], read_reduced(source(6), i, 40)) for i in range(6)), "without room they are computed"
    none = stored_examples(source(2), 40, tmp_path / "none", Loading(most=0))
    assert not list((tmp_path / "none").iterdir())
    assert equal(none[1], read_reduced(source(2), 1, 40))


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    stored = stored_examples(source(3), 48, tmp_path, Loading())
    (path,) = tmp_path.iterdir()
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadData, match=r"\.parquet is damaged .*Remove it; the next run writes it again"):
        [stored[index] for index in range(3)]


def test_abandoned_files_go(tmp_path: Path) -> None:
    (tmp_path / ".x.parquet.1.partial").write_text("")
    (tmp_path / ".y.parquet.2.partial").write_text("")
    os.utime(tmp_path / ".x.parquet.1.partial", (1, 1))
    stored_examples(source(1), 48, tmp_path, Loading())
    assert [path.name for path in tmp_path.glob(".*")] == [".y.parquet.2.partial"]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_batches_are_the_same_from_any_number_of_processes(tmp_path: Path) -> None:
    chosen = settings(paste=0.5, largest_crop=2)
    shards = stored_examples(source(), longest_side(chosen), tmp_path, Loading(2))
    expected = [Views(source(), chosen).batch(step) for step in range(3, 8)]
    before = torch.random.get_rng_state()
    for loaders in (0, 1, 4):
        for views in (Views(source(), chosen), Views(source(), chosen, shards)):
            batches = [batch.to(torch.device("cpu")) for batch in views.batches(range(3, 8), loaders=loaders)]
            assert len(batches) == 5
            for one, other in zip(batches, expected, strict=True):
                for name in one.__dataclass_fields__:
                    assert torch.equal(getattr(one, name), getattr(other, name)), (loaders, name)
    assert torch.equal(torch.random.get_rng_state(), before), "no random number of training is drawn"


def test_an_error_in_a_process_is_that_error(tmp_path: Path) -> None:
    def fails(number: int) -> int:
        if number == 2:
            raise BadData("picture p2 is damaged.")
        return number

    results = in_order(fails, range(4), 2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(BadData, match=r"^picture p2 is damaged\.$"):
        next(results)


def test_a_process_that_ends_by_itself_ends_training_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.2)

    def masks(image_id: str) -> tuple[tuple[bytes, ...], np.ndarray]:
        if image_id == "picture3":
            os.kill(os.getpid(), signal.SIGKILL)
        return example(int(image_id[-1])).codes, np.zeros(3, bool)

    deadly = Source(source().ids, lambda image_id: example(int(image_id[-1])).image, masks)
    with pytest.raises(TryAgain, match=r"reads examples ended by itself \(DataLoader worker \(pid.*fewer --loaders") as refused:
        train(deadly, None, settings(steps=50), tmp_path, loaders=2)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / WEIGHTS).exists()

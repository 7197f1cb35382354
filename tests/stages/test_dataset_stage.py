"""Preparing a dataset, and the verdict on it: what is wrong blocks, what is only worth knowing is told."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import numpy as np
import pyarrow as pa
import pytest
from projects import BIN, SOURCE

from uss_dagster import registry
from uss_dagster.artifacts.gate import Report
from uss_dagster.artifacts.image_files import decode, encode_png, measure
from uss_dagster.artifacts.images import Images
from uss_dagster.artifacts.schemas import IMAGES, REGIONS
from uss_dagster.artifacts.staging import Rejected
from uss_dagster.artifacts.tables import read_table, write_table
from uss_dagster.datasets.base import DatasetSpec, Example
from uss_dagster.datasets.preparation import checks
from uss_dagster.datasets.preparation.prepare import prepare
from uss_dagster.errors import BadData
from uss_dagster.planning.cells import Plugin
from uss_dagster.planning.layout import Layout
from uss_dagster.regions import ClassTree, Regions
from uss_dagster.stages.datasets import Datasets

CLASSES = ClassTree.from_nested({"animal": {"cat": "foreground", "dog": "foreground"}, "sky": "background"})


@dataclass(frozen=True)
class Params:
    split: Literal["val"] = "val"


SPEC = DatasetSpec("zoo", "The zoo", Params, "instances", "MIT", "A. Keeper, 2020.", classes=CLASSES, counts={"val": 6})


def example(number: int, *, label: int = 2, image: bytes | None = None, image_id: str = "", size: tuple[int, int] = (20, 30)) -> Example:
    picture = np.random.default_rng(number).integers(0, 256, (20, 30, 3), np.uint8)
    masks = np.zeros((2, *size), bool)
    masks[0, :9], masks[1, 5:15] = True, True
    truth = Regions.from_masks(masks, label=[label, 4])
    return Example(image_id or f"{number:03d}", image or encode_png(picture), ".png", "val", truth)


def module(*items: Example, **changes) -> SimpleNamespace:
    return SimpleNamespace(SPEC=replace(SPEC, **changes), examples=lambda params: iter(items))


def prepared(folder: Path, adapter: SimpleNamespace) -> Path:
    prepare(adapter, Params(), folder, "datasets zoo")
    return folder


def verdict(folder: Path, adapter: SimpleNamespace, **how: bool) -> Report:
    return checks.validate("zoo", folder, adapter.SPEC, **how)


def said(report: Report, rule: str) -> tuple[bool, str]:
    return next((row["success"], row["message"]) for row in report.checks if row["check"].startswith(rule))


@pytest.fixture
def without_suite(monkeypatch) -> None:
    """Leave Great Expectations out where a test is about the other rules: a suite takes half a second."""
    monkeypatch.setattr(checks, "check_expectations", lambda report, frame, expectations: None)


def test_a_sample_is_called_a_sample_and_more_than_official_is_refused(tmp_path, without_suite):
    for number, success, message in (
        (4, True, "a sample: 4 of 6 images."),
        (6, True, "all 6 images."),
        (7, False, "7 images, but the official split has 6. Another release, or extracted twice into one folder."),
    ):
        adapter = module(*map(example, range(number)))
        (tmp_path / str(number)).mkdir()
        report = verdict(prepared(tmp_path / str(number), adapter), adapter)
        assert said(report, "images of split 'val'") == (success, message)
        assert report.success == success
    assert said(report, "classes that occur") == (True, "2 of 3; absent: dog.")
    assert said(report, "regions in an image") == (True, "2 to 2, 2.0 on average; none in 0 images.")


def test_objects_may_overlap_and_classes_may_not(tmp_path, without_suite):
    adapter = module(example(0))
    prepared(tmp_path, adapter)
    assert verdict(tmp_path, adapter).success
    report = verdict(tmp_path, module(truth="classes"))
    assert "siblings must be disjoint" in said(report, "regions decode")[1]


def test_labels_out_of_range(tmp_path):
    strange = (5, -2, 2**31 - 1)
    adapter = module(*(example(number, label=label) for number, label in enumerate((2, *strange))))
    report = verdict(prepared(tmp_path, adapter), adapter)
    sentences = [f"Image 00{n}, region 0: label {label} is no class (known: -1 for none, 0..4)." for n, label in enumerate(strange, 1)]
    assert said(report, "labels are classes") == (False, " ".join(sentences))
    assert not said(report, "expect_column_values_to_be_between(column='lowest_label'")[0]
    assert not said(report, "expect_column_values_to_be_between(column='highest_label'")[0]


def test_a_mask_of_another_size(tmp_path):
    with pytest.raises(BadData, match=r"Image '001' is 20×30, its ground truth is 30×20 \(height×width\)"):
        prepared(tmp_path, module(example(0), example(1, size=(30, 20))))
    adapter = module(example(0), example(1))
    prepared(tmp_path, adapter)
    index = read_table(tmp_path / "images/images.parquet", IMAGES)
    place = index.column_names.index("height")
    write_table(tmp_path / "images/images.parquet", index.set_column(place, IMAGES.field("height"), pa.array([20, 21], pa.int32())), IMAGES)
    report = verdict(tmp_path, adapter)
    assert "1 of 2 values break it" in said(report, "expect_column_pair_values_to_be_equal(column_A='height'")[1]
    assert said(verdict(tmp_path, adapter, reread=True), "every image")[1] == "Image '001' decodes to (20, 30), its row says (21, 30)."


def test_copies_block_unless_they_are_few_among_many(tmp_path, without_suite):
    twice = [example(0), example(1, image=example(0).image), *map(example, range(2, 4))]
    adapter = module(*twice)
    assert said(verdict(prepared(tmp_path, adapter), adapter), "no two images")[1] == "Images '000' and '001' are byte-equal."
    index = read_table(tmp_path / "images/images.parquet", IMAGES)
    many = index.slice(0, 1).to_pylist() * 1001
    rows = [{**row, "image_id": f"{n:04d}", "sha256": f"{max(n, 1):064x}"} for n, row in enumerate(many)]
    few, equal = checks._same_files(index.from_pylist(rows, schema=IMAGES))
    assert (few, len(equal)) == (True, 1)
    few, equal = checks._same_files(index.from_pylist(rows[:999], schema=IMAGES))
    assert (few, len(equal)) == (False, 1)


def test_damage_on_the_disk_is_found(tmp_path, without_suite):
    adapter = module(*map(example, range(3)))
    prepared(tmp_path, adapter)
    with open(tmp_path / "images/shard-00000.tar", "r+b") as shard:
        shard.seek(600)
        shard.write(b"????")
    assert said(verdict(tmp_path, adapter), "every image")[1].startswith("Image '000' in ")
    rows = read_table(tmp_path / "truth/regions.parquet", REGIONS)
    write_table(tmp_path / "truth/regions.parquet", rows.slice(2).take([2, 3, 0, 1]), REGIONS)
    report = verdict(tmp_path, adapter)
    assert "follows" in said(report, "regions are sorted")[1]
    names = rows["image_id"].to_pylist()
    strange = rows.set_column(0, REGIONS.field("image_id"), [["zzz" if n == "002" else n for n in names]])
    write_table(tmp_path / "truth/regions.parquet", strange, REGIONS)
    assert said(verdict(tmp_path, adapter), "ground truth belongs")[1] == "Ground truth of unknown images: ['zzz']."
    (tmp_path / "truth/regions.parquet").write_bytes(b"PAR1")
    assert "cannot be read as Parquet" in said(verdict(tmp_path, adapter), "regions decode")[1]


def png(width: int, height: int) -> bytes:
    """A few bytes that declare any size: an image bomb."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(10_000))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (png(60_000, 60_000), "declares .*pixels"),
        (png(4_000, 4_000), "truncated or damaged"),
        (example(0).image[:300], "truncated or damaged"),
        (b"<html>log in</html>", "is not a picture"),
    ],
    ids=["bomb", "less than declared", "cut", "web page"],
)
def test_bad_pictures_are_refused_when_they_are_read(tmp_path, image, message):
    with pytest.raises(BadData, match=f"001.*{message}"):
        prepared(tmp_path, module(example(0), example(1, image=image)))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF"])
@pytest.mark.parametrize("turned", [1, 6])
def test_measuring_is_decoding(kind, turned):
    """The size that a reduced reading tells is that of the decoded picture, and what does not decode is refused."""
    import io

    from PIL import Image

    out = io.BytesIO()
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (130, 170, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = turned
    picture.save(out, kind, **({} if kind == "GIF" else {"exif": exif}))
    assert measure(out.getvalue(), "x") == decode(out.getvalue(), "x").shape[:2]
    for cut in (0.5, 0.9):
        broken = out.getvalue()[: int(cut * len(out.getvalue()))]
        outcome = []
        for read in (measure, decode):
            try:
                read(broken, "x")
                outcome.append("")
            except BadData as error:
                outcome.append(str(error).partition("(")[0])
        assert outcome[0] == outcome[1]


def test_the_same_bytes_on_any_number_of_threads(tmp_path, monkeypatch):
    adapter = module(*map(example, range(5)))
    for workers in ("1", "4"):
        monkeypatch.setenv("USS_WORKERS", workers)
        (tmp_path / workers).mkdir()
        prepared(tmp_path / workers, adapter)
    for name in ("images/images.parquet", "images/shard-00000.tar", "truth/regions.parquet"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "4" / name).read_bytes()
    assert Images(tmp_path / "1/images").ids == [f"{n:03d}" for n in range(5)]


def test_examples_are_asked_for_as_they_are_used(tmp_path, monkeypatch):
    """However long the dataset, only a few examples are alive at once."""
    alive = peak = 0

    class Counted(Example):
        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def endless() -> Iterator[Example]:
        nonlocal alive, peak
        for number in range(60):
            made = example(number)
            alive += 1
            peak = max(peak, alive)
            yield Counted(made.image_id, made.image, made.suffix, made.split, made.truth)

    monkeypatch.setenv("USS_WORKERS", "2")
    adapter = SimpleNamespace(SPEC=SPEC, examples=lambda params: endless())
    assert prepare(adapter, Params(), tmp_path, "datasets zoo") == {"images": 60, "regions": 120}
    assert peak <= 12


def test_the_source_is_checked_without_being_written(tmp_path, monkeypatch):
    adapter = module(*map(example, range(3)))
    monkeypatch.setattr(registry, "load", lambda family, name: adapter)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    report = checks.check("zoo", None, lambda params, owner: {})
    assert report.success
    assert said(report, "images of split 'val'")[1] == "a sample: 3 of 6 images."
    assert not list(tmp_path.iterdir())


def test_a_refused_dataset_is_not_published(tmp_path, monkeypatch):
    adapter = module(*map(example, range(7)))
    monkeypatch.setattr(registry, "load", lambda family, name: adapter)
    with pytest.raises(Rejected, match=r"^datasets/zoo was refused: images of split 'val': 7 images, but the official split has 6"):
        Datasets(
            dataset="zoo",
            adapter=Plugin(family="dataset", name="zoo", params={}),
            shard_images=2,
            title="The zoo",
            truth="instances",
            licence="MIT",
            citation="",
        ).run(Layout(tmp_path))
    assert not (tmp_path / "data").exists()
    report = json.loads((tmp_path / ".uss/quarantine/datasets/zoo/validation.json").read_text())
    assert [row["check"] for row in report["checks"] if not row["success"]] == ["images of split 'val'"]


@pytest.mark.slow
def test_uss_data_check(built):
    done = built.uss("data", "check", "scenes")
    assert "ok    every image is what was written\n" in done.stdout
    shard = built.root / "data/datasets/scenes/images/shard-00000.tar"
    content = bytearray(shard.read_bytes())
    content[5000] ^= 255
    shard.unlink()
    shard.write_bytes(content)
    refused = built.uss("data", "check", "scenes", code=65)
    assert "FAIL  every image is what was written: Image 'scene00000' in" in refused.stdout
    assert refused.stderr.startswith("error: 'scenes' breaks 1 of ")
    assert built.uss("data", "check", "scene", code=64).stderr.startswith("error: Unknown dataset 'scene'. Did you mean 'scenes'?")


@pytest.mark.slow
def test_ten_thousand_images_in_little_memory_and_linear_time():
    """Also see benchmarks/dataset_preparation.py, which runs this and compares."""
    done = subprocess.run(
        [sys.executable, SOURCE / "benchmarks/dataset_preparation.py", "--images", "2500", "10000", "--sides", "ours", "--json"],
        capture_output=True,
        text=True,
        env={"PATH": str(BIN), "OMP_WAIT_POLICY": "PASSIVE"},
        check=True,
    )
    small, large = json.loads(done.stdout.splitlines()[-1])["runs"]
    assert large["images"] == 10_000
    assert large["peak_mb"] < 1024
    assert large["peak_mb"] < small["peak_mb"] + 150, "memory does not grow with images"
    assert large["processor"] < 4 * small["processor"] * 1.25

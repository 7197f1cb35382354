"""A person's own pictures in the explorer: what `uss segment` and `uss curate` write beside their results."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from explorer_cases import cases
from PIL import Image

from uss_dagster.artifacts.schemas import REGIONS
from uss_dagster.artifacts.tables import regions_from_table, regions_to_table
from uss_dagster.errors import UsageError
from uss_dagster.own_images.files import pictures
from uss_dagster.regions import Regions
from uss_dagster.report import own_images_explorer as _explored
from uss_dagster.report.explorer import FOLDER, PAGE
from uss_dagster.report.own_images_explorer import check_place, explore


@pytest.mark.parametrize("name", ["tiling", "forest", "pool", "nested_pool", "labels"])
@pytest.mark.parametrize("shape", [(24, 32), (9, 12)])
def test_reduced_regions_are_those_of_the_large_picture(name: str, shape: tuple[int, int]) -> None:
    regions = cases()[name]
    found, expected = regions_from_table(regions_to_table("a", regions)).resized(*shape), regions.resized(*shape)
    np.testing.assert_array_equal(found.masks(), expected.masks())
    for column in ("parent", "level", "score", "label"):
        np.testing.assert_array_equal(getattr(found, column), getattr(expected, column))
    assert found.source == expected.source


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A folder with the explorer of two pictures, as a run leaves it."""
    found = {"one": cases(0)["tiling"], "two <b>": cases(1)["pool"]}
    pq.write_table(pa.concat_tables(regions_to_table(i, r) for i, r in found.items()), tmp_path / "regions.parquet")
    image = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    assert explore(tmp_path, tmp_path / "regions.parquet", found, lambda image_id: image, "kmeans", "k-means") == ""
    return tmp_path


def index(folder: Path) -> dict:
    text = (folder / PAGE).read_text(encoding="utf-8")
    return json.loads(text.split('id="explorer-index">')[1].split("</script>")[0])


def test_pictures_are_explored_and_a_new_run_replaces_the_old(written: Path) -> None:
    assert [image["id"] for image in index(written)["images"]] == ["one", "two <b>"]
    assert index(written)["titles"]["kmeans"] == "k-means"
    assert sorted(p.name for p in written.iterdir()) == [FOLDER, PAGE, "regions.parquet"]
    before = {p.name: p.read_bytes() for p in (written / FOLDER).iterdir()}
    explore(written, written / "regions.parquet", ["one"], lambda image_id: np.zeros((24, 32, 3), np.uint8), "kmeans", "k-means")
    assert sorted(p.name for p in (written / FOLDER).iterdir()) == ["0000.jpg", "0000.js"], "the second picture is gone"
    assert (written / FOLDER / "0000.js").read_bytes() == before["0000.js"]


def test_of_many_pictures_some_are_shown(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_explored, "MOST", 1)
    image = np.zeros((24, 32, 3), np.uint8)
    said = explore(written, written / "regions.parquet", ["one", "two <b>"], lambda image_id: image, "kmeans", "k-means")
    assert said == " of 1 of the 2 pictures"
    assert len(index(written)["images"]) == 1


def test_a_run_that_fails_leaves_the_explorer_as_it_was(written: Path) -> None:
    before = {p: p.read_bytes() for p in written.rglob("*") if p.is_file()}

    def broken(image_id: str) -> np.ndarray:
        if image_id == "one":
            return np.zeros((24, 32, 3), np.uint8)
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        explore(written, written / "regions.parquet", ["one", "two <b>"], broken, "kmeans", "k-means")
    assert {p: p.read_bytes() for p in written.rglob("*") if p.is_file()} == before


def test_a_large_picture_is_explored_in_a_smaller_copy(tmp_path: Path) -> None:
    masks = np.zeros((1, 300, 1280), bool)
    masks[0, :150] = True
    pq.write_table(regions_to_table("a", Regions.from_masks(masks)).cast(REGIONS), tmp_path / "t.parquet")
    explore(tmp_path, tmp_path / "t.parquet", ["a"], lambda image_id: np.zeros((300, 1280, 3), np.uint8), "m", "M")
    image = index(tmp_path)["images"][0]
    assert (image["size"], image["full"]) == ([150, 640], [300, 1280])
    assert Image.open(tmp_path / FOLDER / "0000.jpg").size == (640, 150)
    coded = json.loads((tmp_path / FOLDER / "0000.js").read_text().split("] = ", 1)[1].removesuffix(";\n"))[0]
    assert coded["grid"] == [150, 640]


def test_the_explorer_of_an_earlier_run_is_not_segmented_and_nobody_elses_is_replaced(written: Path) -> None:
    Image.new("RGB", (9, 9)).save(written / "mine.png")
    assert pictures([written]) == [written / "mine.png"]
    assert pictures([written, written / FOLDER / "0000.jpg"]) == [written / FOLDER / "0000.jpg", written / "mine.png"], "but if it is named"
    check_place(written)
    (written / PAGE).write_text("<p>my travels</p>")
    with pytest.raises(UsageError, match=r"explorer\.html is there already"):
        check_place(written)
    assert len(pictures([written])) == 3, "a folder of that name alone is a person's"
    (written / PAGE).unlink()
    with pytest.raises(UsageError, match="explorer is there already"):
        check_place(written)

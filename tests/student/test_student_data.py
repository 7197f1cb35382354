"""What a student learns from: curated sets, COCO json, and merged labels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from student_cases import example, source
from students import regions_source

from uss_dagster.artifacts.tables import RowsWriter, regions_to_table, write_table
from uss_dagster.curation.tables import HUMAN, IMAGES, MASKS, MEASURES
from uss_dagster.errors import BadData, UsageError
from uss_dagster.regions import Regions, rle
from uss_dagster.student.data import Example, coco_source, curated_source
from uss_dagster.student.self_training import merge_labels


def masks_of(number: int) -> np.ndarray:
    return np.array([rle.decode(code, 40, 48) for code in example(number).codes])


def curated(folder: Path, count: int, group_rows: int = 8192) -> Path:
    """A set of ``count`` images, every third in val and the fifth without masks; the last mask of each image was drawn by a person."""
    writer = RowsWriter(folder / "masks.parquet", MASKS, group_rows)
    for number in range(count):
        if number == 5:
            continue
        masks = masks_of(number)
        sources = ["divide"] * (len(masks) - 1) + ["gt"]
        rows = regions_to_table(f"picture{number}", Regions.from_masks(masks, source=sources))
        entries = pa.array(["unsam"] * (len(masks) - 1) + [HUMAN], pa.string())
        measures = [pa.array(np.full(len(masks), np.nan, np.float32), from_pandas=False) for _ in MEASURES]
        writer.add(pa.table([*rows.columns, entries, *measures], schema=MASKS))
    writer.close()
    rows = [
        {name: "" if IMAGES.field(name).type == pa.string() else 0 for name in IMAGES.names}
        | {"image_id": f"picture{number}", "split": "val" if number % 3 == 2 else "train"}
        for number in range(count)
    ]
    write_table(folder / "images.parquet", pa.Table.from_pylist(rows, schema=IMAGES), IMAGES)
    return folder


@pytest.mark.parametrize("group_rows", [1, 8192])
def test_a_curated_set_is_read_by_split_in_any_order(tmp_path: Path, group_rows: int) -> None:
    read: list[str] = []

    def pixels(image_id: str) -> np.ndarray:
        read.append(image_id)
        return example(int(image_id[-1])).image

    train = curated_source(curated(tmp_path, 7, group_rows), pixels)
    assert list(train.ids) == ["picture0", "picture1", "picture3", "picture4", "picture6"]
    assert not read  # nothing before it is asked for
    for index in (3, 0, 4, 3):
        number = int(train.ids[index][-1])
        found = train[index]
        assert found.codes == tuple(rle.encode(masks_of(number)))
        assert found.human.tolist() == [False, False, True]
        assert np.array_equal(found.image, example(number).image)
    val = curated_source(tmp_path, pixels, "val")
    assert list(val.ids) == ["picture2", "picture5"]
    assert val[1].codes == ()
    with pytest.raises(UsageError, match="Did you mean 'val'"):
        curated_source(tmp_path, pixels, "vall")


def coco(folder: Path, splits: bool) -> Path:
    images, annotations = [], []
    for number in range(4):
        Image.fromarray(example(number).image).save(folder / f"picture{number}.png")
        images.append({"id": number + 1, "file_name": f"data/picture{number}.png", "height": 40, "width": 48})
        if splits:
            images[-1]["split"] = "val" if number == 3 else "train"
        for place, code in enumerate(example(number).codes):
            segmentation = {"size": [40, 48], "counts": code.decode()}
            entry = {"id": 10 * number + place + 1, "image_id": number + 1, "category_id": 1, "segmentation": segmentation}
            annotations.append(entry | {"iscrowd": int(place == 2)})
    path = folder / "labels.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "fg"}]}))
    return path


def test_coco_json_is_read_with_its_splits_or_divided_by_name(tmp_path: Path) -> None:
    path = coco(tmp_path, splits=True)
    train, val = (coco_source(path, tmp_path, split) for split in ("train", "val"))
    assert (list(train.ids), list(val.ids)) == (["picture0", "picture1", "picture2"], ["picture3"])
    assert np.array_equal(val[0].image, example(3).image)
    assert sorted(val[0].codes) == sorted(example(3).codes[:2])  # a crowd is no target
    path = coco(tmp_path, splits=False)
    parts = [set(coco_source(path, tmp_path, split).ids) for split in ("train", "val")]
    assert parts[0] | parts[1] == {f"picture{i}" for i in range(4)}
    assert not parts[0] & parts[1]
    (tmp_path / "picture1.png").unlink()
    with pytest.raises(BadData, match=r"has no picture 'data/picture1.png'"):
        coco_source(path, tmp_path)


def test_regions_in_memory_are_targets_but_for_roots() -> None:
    regions = Regions.from_tree(np.array([[1, 1, 2], [0, 0, 2]]), [-1, 0, 0])
    found = regions_source([("a", np.zeros((2, 3, 3), np.uint8), regions)])[0]
    assert [rle.decode(code, 2, 3).sum() for code in found.codes] == [2, 2]


def test_merged_labels_keep_what_people_drew_and_what_is_not_repeated() -> None:
    masks = np.zeros((5, 10, 10), bool)
    masks[0, :4, :4] = True  # drawn by a person
    masks[1, 5:9, 5:9] = True  # old
    masks[2, 5:9, 5:8] = True  # prediction that repeats the old one
    masks[3, :4, :3] = True  # prediction that repeats the person's
    masks[4, 0:4, 6:9] = True  # old, repeated by none
    human, old, again, weak, other = rle.encode(masks)
    picture = Example("a", np.zeros((10, 10, 3), np.uint8), (old, human, other), np.array([False, True, False]))
    assert merge_labels(picture, [again, weak]) == (human, again, other)
    assert merge_labels(picture, []) == (human, old, other)
    merged = source(2).relabelled([(b"x",), ()])
    assert merged[0].codes == (b"x",)
    assert list(merged.ids) == ["picture0", "picture1"]
    with pytest.raises(BadData, match="1 lists of masks were given for 2"):
        source(2).relabelled([()])

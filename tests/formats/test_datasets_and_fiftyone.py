"""Hugging Face `datasets` and FiftyOne open our folders, and we read what they write."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from format_cases import HEIGHT, NAMES, TOOLS, WIDTH, class_names, example_images, folders_of, masks_seen, run_program, same_masks

from uss_dagster.errors import BadData
from uss_dagster.formats.kinds import huggingface


@pytest.mark.slow
def test_datasets_opens_features_splits_and_masks(tmp_path):
    folder, out = folders_of("huggingface", tmp_path)
    answer = run_program("with_datasets", ["datasets"], folder, out)
    assert answer["splits"] == {"train": 3, "val": 2, "test": 1}
    seen = masks_seen(out)
    again = {image.image_id: image for image in huggingface.read(out / "again").images()}
    for image in example_images():
        assert np.array_equal(seen[image.image_id], image.regions.masks())
        told = answer["images"][image.image_id]
        assert told["size"] == [WIDTH, HEIGHT]
        assert told["labels"] == class_names(image, NAMES)
        assert told["parents"] == [parent + 1 if parent >= 0 else None for parent in image.regions.parent.tolist()]
        assert same_masks(image, again[image.image_id])
        assert again[image.image_id].split == image.split


def test_a_parquet_file_of_something_else_is_refused(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    with pytest.raises(BadData, match="features of `datasets`"):
        huggingface.read(tmp_path / "a.parquet")


@pytest.mark.slow
def test_fiftyone_opens_masks_and_attributes(tmp_path, monkeypatch):
    folder, out = folders_of("fiftyone", tmp_path)
    monkeypatch.setenv("FIFTYONE_DO_NOT_TRACK", "true")
    if other := os.environ.get("USS_FIFTYONE_PYTHON"):
        monkeypatch.setenv(TOOLS, str(Path(other)))
    answer = run_program("with_fiftyone", ["fiftyone"], folder, out)
    seen = masks_seen(out)
    for image in example_images():
        assert np.array_equal(seen[image.image_id], image.regions.masks())
        assert [one["label"] for one in answer[image.image_id]] == class_names(image, NAMES)
    assert [one.get("parent") for one in answer["tree"]] == [None, *(answer_parent(answer, i) for i in (1, 2, 3, 4))]
    assert [one["level"] for one in answer["tree"]] == [4, 3, 2, 1, 0]
    assert [one.get("quality") for one in answer["plain"]] == pytest.approx([0.7, None, 0.25])


def answer_parent(answer: dict, region: int) -> int:
    """The id of a parent of 'tree': ids count over the whole file."""
    return answer["tree"][1]["parent"] + [0, 0, 0, 2, 3][region]

"""ADE20K whole: objects, parts and parts of parts from synthetic files in the official layout and colour code."""

import json
from pathlib import Path

import numpy as np
import pytest
from labelled_files import check_perfect_scores, check_tree, nodes_of, write_labels, write_picture

from uss_dagster.datasets import ade20k_full
from uss_dagster.errors import BadData

CAR, DOOR, HANDLE, ROAD, WINDOW = 401, 774, 1150, 2131, 3050
NAMES = {CAR: "car, auto", DOOR: "door", HANDLE: "handle", ROAD: "road, route", WINDOW: "window"}


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("USS_MIRROR", str(tmp_path))
    return tmp_path


def coloured(numbers: np.ndarray) -> np.ndarray:
    """Class numbers as the release colours them: tens of red count 256, green counts 1, blue is the instance."""
    return np.stack([numbers // 256 * 10, numbers % 256, numbers * 7 % 256], axis=-1).astype(np.uint8)


def write_image(
    root: Path, image_id: str, levels: list[np.ndarray], objects: list[tuple[int, int | None]], encoding: str = "utf-8"
) -> None:
    """levels: class numbers of objects, parts, …; objects: (class number, place of the whole it is part of)."""
    folder = root / "ADE20K_2021_17_01/images/ADE/validation/urban/street"
    write_picture(folder / f"{image_id}.jpg", *levels[0].shape)
    write_labels(folder / f"{image_id}_seg.png", coloured(levels[0]))
    for level, numbers in enumerate(levels[1:], start=1):
        write_labels(folder / f"{image_id}_parts_{level}.png", coloured(numbers))
    records = [
        {"id": place, "name": NAMES[number], "name_ndx": number, "parts": {"hasparts": [], "ispartof": [] if whole is None else whole}}
        for place, (number, whole) in enumerate(objects)
    ]
    text = json.dumps(
        {"annotation": {"filename": f"{image_id}.jpg", "source": {"origin": "© café"}, "object": records}}, ensure_ascii=False
    )
    (folder / f"{image_id}.json").write_bytes(text.encode(encoding))


def street() -> tuple[list[np.ndarray], list[tuple[int, int | None]]]:
    whole, part, deeper = (np.zeros((8, 10), int) for _ in range(3))
    whole[4:] = ROAD
    whole[2:6, 1:8] = CAR
    part[3:6, 2:5] = DOOR
    part[0, 9] = WINDOW  # on no object, though it is a class of objects too
    deeper[4, 2] = HANDLE
    deeper[3, 7] = HANDLE  # on the car itself, which no annotation says to have one
    return [whole, part, deeper], [(HANDLE, 1), (DOOR, 2), (CAR, None), (ROAD, None), (WINDOW, None)]


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_parts_of_parts_nest(mirror, encoding):
    levels, objects = street()
    write_image(mirror / "ade20k_full", "ADE_val_00000002", levels, objects, encoding)
    write_image(mirror / "ade20k_full", "ADE_val_00000001", [np.full((8, 10), CAR)], [(CAR, None)])
    params = ade20k_full.Params()
    tree = ade20k_full.classes(params).tree
    assert tree.names == ("scene", "void", "car, auto", "car, auto / door", "car, auto / door / handle", "road, route", "window")
    assert tree.depth.tolist() == [0, 1, 1, 2, 3, 1, 1]
    first, second = ade20k_full.examples(params)
    assert [first.image_id, second.image_id] == ["ADE_val_00000001", "ADE_val_00000002"]
    expected = np.full((8, 10), "void", "<U40")
    expected[4:] = "road, route"
    expected[2:6, 1:8] = "car, auto"
    expected[3:6, 2:5] = "car, auto / door"
    expected[4, 2] = "car, auto / door / handle"
    assert np.array_equal(np.array(tree.names)[nodes_of(second.truth)], expected)
    assert set(np.array(tree.names)[nodes_of(first.truth)].ravel()) == {"car, auto"}
    for e in (first, second):
        check_tree(e, tree)
        check_perfect_scores(e.truth, tree)
    assert ade20k_full.classes(ade20k_full.Params(limit=1)).tree.names == ("scene", "void", "car, auto")


def test_wrong_files_are_refused_by_name(mirror):
    levels, objects = street()
    root = mirror / "ade20k_full"
    folder = root / "ADE20K_2021_17_01/images/ADE/validation/urban/street"

    def refused(text: str) -> None:
        with pytest.raises(BadData, match=text):
            next(ade20k_full.examples(ade20k_full.Params()))

    write_image(root, "ADE_val_1", levels, objects[:3])
    (e,) = ade20k_full.examples(ade20k_full.Params())
    names = np.array(ade20k_full.classes(ade20k_full.Params()).tree.names)[nodes_of(e.truth)]
    assert set(names[6:].ravel()) == {"void"}, "a class of which the annotation knows nothing, where it is the lesser part"
    write_image(root, "ADE_val_1", [np.full((8, 10), ROAD)], objects[:3])
    refused(f"image ADE_val_1 shows class {ROAD}, of which its annotation knows nothing")
    write_image(root, "ADE_val_1", [levels[0], levels[1][:4]], objects)
    refused(r"ADE_val_1_parts_1\.png is 4×10, its image 8×10")
    write_image(root, "ADE_val_1", levels, [(HANDLE, 7)])
    refused(r"ADE_val_1\.json is no annotation of ADE20K \(KeyError: 7\)")
    write_image(root, "ADE_val_1", levels, [(CAR, 1), (DOOR, 0), (ROAD, None)])  # parts of each other: read, not followed for ever
    assert ade20k_full.classes(ade20k_full.Params()).tree.depth.max() == 2
    (folder / "ADE_val_1.json").write_text("{")
    refused(r"ADE_val_1\.json is no annotation of ADE20K")
    (folder / "ADE_val_1.json").unlink()
    refused(r"ADE_val_1\.json is missing")

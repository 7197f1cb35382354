"""`uss train student`, `uss prompt` and `uss export`, by their words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco
from students import FEW, drawn, small_student, write_curated
from typer.testing import CliRunner

from uss_dagster.cli import app
from uss_dagster.errors import BadData, UsageError

SETTINGS = [word for name, value in FEW.items() if name != "steps" for word in ("--param", f"{name}={value}")]


def uss(*words: object) -> str:
    """What the command says; its error, where there is one, is raised here."""
    done = CliRunner().invoke(app, [str(word) for word in words])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "a picture.png"
    Image.fromarray(drawn(7)[0]).save(path)
    return path


# -- prompt ---------------------------------------------------------------------------------------------


def test_masks_under_points_as_lines_and_json(picture, tmp_path):
    out = tmp_path / "masks.json"
    said = uss("prompt", picture, "--model", small_student(), "--point", "12,14", "--object", "--point", "40, 3", "--out", out)
    assert "point 12,14: " in said
    found = json.loads(out.read_text())
    assert found["image"] == {"file_name": "a picture.png", "height": 40, "width": 48}
    assert [answer["point"] for answer in found["answers"]] == [[12, 14], [40, 3]]
    masks = [mask for answer in found["answers"] for mask in answer["masks"]]
    assert [mask["id"] for mask in masks] == list(range(1, len(masks) + 1))
    for answer in found["answers"]:
        scores = [mask["score"] for mask in answer["masks"]]
        assert 1 <= len(scores) <= 3
        assert scores == sorted(scores, reverse=True)
    for mask in masks:
        assert coco.decode(mask["segmentation"]).sum() == mask["area"] > 0
    assert f"{len(found['answers'][0]['masks'])} mask" in said


def test_masks_under_a_point_as_a_picture(picture, tmp_path):
    out = tmp_path / "masks.png"
    for _ in range(2):  # what it drew itself, it may draw again
        uss("prompt", picture, "--model", small_student(), "--point", "12,14", "--out", out)
    with Image.open(out) as shown:
        assert shown.info["Software"] == "uss prompt"
        assert shown.width > 48


def test_points_boxes_and_masks_of_several_objects(picture, tmp_path):
    """Options belong to the object that the last --object before them began; the best mask is written, and refined."""
    out, first = tmp_path / "masks.json", tmp_path / "first.png"
    model = ("--model", small_student())
    words = ("--negative", "30,4", "--point", "12,14", "--point", "14,16", "--object", "--box", "30,30,10,8", "--object", "--point", "5,5")
    said = uss("prompt", picture, *model, *words, "--out", out, "--save-mask", first)
    assert "point 12,14, point 14,16, negative 30,4: " in said
    assert "box 10,8,30,30: " in said
    asked = [{name: part for name, part in answer.items() if name != "masks"} for answer in json.loads(out.read_text())["answers"]]
    assert asked == [
        {"points": [[12, 14], [14, 16], [30, 4]], "labels": [1, 1, 0]},
        {"points": [], "labels": [], "box": [10, 8, 30, 30]},
        {"point": [5, 5], "points": [[5, 5]], "labels": [1]},
    ]
    best = coco.decode(json.loads(out.read_text())["answers"][0]["masks"][0]["segmentation"])
    np.testing.assert_array_equal(np.asarray(Image.open(first)), 255 * best)

    said = uss("prompt", picture, *model, "--mask", first, "--point", "12,14", "--out", out, "--save-mask", first)
    assert "point 12,14, a previous mask: " in said
    assert json.loads(out.read_text())["answers"][0]["refined"]
    drawing = tmp_path / "masks.png"
    uss("prompt", picture, *model, *words, "--out", drawing)
    assert Image.open(drawing).height > 3 * 40


def test_a_granularity_chooses_one_mask(picture, tmp_path):
    areas = []
    for granularity in ("0", "1"):
        out = tmp_path / "masks.json"
        uss("prompt", picture, "--model", small_student(), "--point", "12,14", "--granularity", granularity, "--out", out)
        (answer,) = json.loads(out.read_text())["answers"]
        areas.append([mask["area"] for mask in answer["masks"]])
    assert [len(masks) for masks in areas] == [1, 1]
    assert areas[0] <= areas[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{picture}"], "give --point X,Y, --box or --mask, or --serve"),
        (["{picture}", "--negative", "1,1"], "Nothing says where the object is"),
        (["{picture}", "--box", "1,1,5"], "--box is '1,1,5', expected X,Y,X,Y"),
        (["{picture}", "--box", "1,1,5,5", "--box", "1,1,5,5"], "An object has one --box; put --object before the next one"),
        (["{picture}", "--mask", "{other}"], "or a previous mask that is not empty"),
        (["{picture}", "--mask", "missing.png"], "missing.png cannot be read"),
        (["{picture}", "--point", "1,1", "--object"], "Nothing follows the last --object"),
        (["{picture}", "--point", "1,1", "--granularity", "2"], "granularity is 2, expected 0"),
        (["{picture}", "--point", "1,1", "--save-mask", "{other}"], "is there already, and `uss prompt` did not draw it"),
        (["{picture}", "--point", "1,1", "--save-mask", "mask.json"], "--save-mask is 'mask.json', expected a file that ends in .png"),
        (["{picture}", "--point", "1;2"], "--point is '1;2', expected X,Y in whole pixels"),
        (["{picture}", "--point", "48,0"], "--point 48,0 lies outside"),
        (["{picture}", "--point", "1,1", "--out", "masks.gif"], "expected a file that ends in .png or .json"),
        (["{picture}", "--point", "1,1", "--out", "{picture}"], "is the picture itself"),
        (["{picture}", "--point", "1,1", "--out", "{other}"], "is there already, and `uss prompt` did not draw it"),
        (["missing.png", "--point", "1,1"], "missing.png cannot be read"),
        (["--point", "1,1"], "Name one picture to ask"),
        (["{picture}", "--serve", "--point", "1,1"], "--serve shows masks on its page"),
        (["{picture}", "--point", "1,1", "--model", "{folder}"], "is not a student"),
        (["{picture}", "--point", "1,1", "--device", "cuda:99"], "torch sees"),
    ],
)
def test_what_cannot_be_asked(picture, tmp_path, words, said):
    other = tmp_path / "other.png"
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(other)
    before = {path: path.read_bytes() for path in tmp_path.glob("*.png")}
    given = [word.format(picture=picture, other=other, folder=tmp_path) for word in words]
    with pytest.raises((UsageError, BadData)) as refused:
        uss("prompt", "--model", small_student(), *given)
    assert said in str(refused.value)
    assert {path: path.read_bytes() for path in tmp_path.glob("*.png")} == before


def test_a_picture_that_is_none(tmp_path):
    (tmp_path / "text.png").write_text("text")
    with pytest.raises(BadData, match="is not a picture"):
        uss("prompt", tmp_path / "text.png", "--model", small_student(), "--point", "1,1")


# -- train ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_from_a_curated_set_of_a_project_and_a_second_round(tmp_path):
    masks = write_curated(tmp_path)
    said = uss("train", "student", "--masks", masks, "--steps", 2, *SETTINGS, "--out", tmp_path / "m", "--device", "cpu")
    assert "2 steps on 5 pictures, the loss fell by" in said
    assert "Validation on 1 pictures: AR " in said
    card = (tmp_path / "m/README.md").read_text()
    assert "MIT (drawn)" in card
    assert "uss train student --masks" in card
    weights = (tmp_path / "m/model.safetensors").read_bytes()
    again = uss("train", "student", "--masks", masks, "--steps", 2, *SETTINGS, "--out", tmp_path / "m", "--device", "cpu")
    assert again.count("2 steps on 5 pictures") == 1
    assert (tmp_path / "m/model.safetensors").read_bytes() == weights
    words = ["--masks", masks, "--steps", 2, *SETTINGS, "--self-train", tmp_path / "m", "--out", tmp_path / "n", "--device", "cpu"]
    uss("train", "student", *words)
    assert "with masks of student" in json.loads((tmp_path / "n/config.json").read_text())["data"]["version"]


def write_coco(folder: Path) -> tuple[Path, Path]:
    pictures = folder / "pictures"
    pictures.mkdir()
    images, annotations = [], []
    for number in range(12):
        image, regions = drawn(number)
        Image.fromarray(image).save(pictures / f"p{number}.png")
        images.append({"id": number, "file_name": f"p{number}.png", "height": 40, "width": 48})
        annotations += regions.to_coco(number, 1 + 2 * number)
    path = folder / "labels.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}))
    return path, pictures


def test_from_coco_and_a_folder_of_pictures(tmp_path):
    labels, pictures = write_coco(tmp_path)
    said = uss(
        "train", "student", "--coco", labels, "--images", pictures, "--steps", 2, *SETTINGS, "--out", tmp_path / "m", "--licence", "CC0"
    )
    trained, measured = (int(said.split(word)[0].split()[-1]) for word in (" pictures, the loss", " pictures: AR"))
    assert trained + measured == 12
    config = json.loads((tmp_path / "m/config.json").read_text())
    assert config["data"]["version"].startswith("sha256 ")
    assert "license: CC0" in (tmp_path / "m/README.md").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "either --masks FOLDER"),
        (["--masks", "{set}", "--coco", "{set}"], "either --masks FOLDER"),
        (["--coco", "labels.json"], "--coco needs --images"),
        (["--coco", "labels.json", "--images", "."], "labels.json is no file"),
        (["--masks", "."], "has no masks.parquet, so it is no curated set"),
        (["--masks", "{set}", "--size", "M"], "parameter 'size' is 'M'"),
        (["--masks", "{set}", "--param", "stpes=3"], "no parameter 'stpes'"),
        (["--masks", "{set}", "--images", "nowhere"], "Name the folder they lie in with --images"),
        (["--masks", "{set}", "--out", "{file}"], "is a file, expected a folder"),
        (["--masks", "{set}", "--self-train", "."], "is not a student"),
    ],
)
def test_what_cannot_be_trained(tmp_path, monkeypatch, words, said):
    curated = write_curated(tmp_path / "project")
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    with pytest.raises((UsageError, BadData)) as refused:
        uss("train", "student", *(word.format(set=curated, file=tmp_path / "file") for word in words))
    assert said in str(refused.value)


def test_pictures_of_a_curated_set_are_looked_for_by_name_and_checked(tmp_path):
    from uss_dagster.student.inputs import curated_pictures

    curated = write_curated(tmp_path / "project")
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(6):
        Image.fromarray(drawn(number)[0]).save(folder / f"i{number}.png")
    pictures = curated_pictures(curated, folder)
    image = drawn(2)[0]
    np.testing.assert_array_equal(pictures.pixels("i2"), image)
    Image.fromarray(image[::-1]).save(folder / "i2.png")
    with pytest.raises(BadData, match=r"i2\.png is not the picture that the set was made from"):
        pictures.pixels("i2")
    (folder / "i3.png").unlink()
    with pytest.raises(BadData, match=r"i3\.png cannot be read"):
        pictures.pixels("i3")
    with pytest.raises(UsageError, match=r"1 of 6 pictures of .* are not in .*: i3\.png\. Name the folder they lie in with --images"):
        curated_pictures(curated, folder)


@pytest.mark.parametrize("named", ["files", "folder"])
def test_a_set_of_own_pictures_knows_where_they_lie(tmp_path, named):
    """Also after set and pictures moved together; the note is in no manifest, and the set has the same bytes elsewhere."""
    from uss_dagster.student.inputs import curated_data

    photos, out = tmp_path / "home/photos", tmp_path / "home/sets/set"
    photos.mkdir(parents=True)
    for number in range(3):
        Image.fromarray(drawn(number, 48, 64)[0]).save(photos / f"p{number}.png")
    pictures = sorted(photos.iterdir()) if named == "files" else [photos]
    words = ["--method", "felzenszwalb", "--param", "scales=2", "--set", "splits=[1, 0, 0]", "--set", "min_quality=0"]
    uss("curate", *pictures, "--out", out, *words)
    train = curated_data(out, None).train
    assert len(train) == 3
    for number in range(3):
        np.testing.assert_array_equal(train[number].image, drawn(number, 48, 64)[0])
    assert str(tmp_path) not in "".join(path.read_text("utf-8", "replace") for path in out.glob("**/*.json"))
    files = json.loads((out / "manifest.json").read_text())["files"]
    assert not [name for name in files if "pictures" in name]

    moved = tmp_path / "elsewhere"
    (tmp_path / "home").rename(moved)
    assert len(curated_data(moved / "sets/set", None).train) == 3
    (moved / "photos/p1.png").rename(moved / "p1.png")
    with pytest.raises(
        UsageError, match=r"1 of 3 pictures of .*set are not in .*photos: p1\.png\. Name the folder they lie in with --images\."
    ):
        curated_data(moved / "sets/set", None)


# -- export ---------------------------------------------------------------------------------------------


def test_export_goes_to_a_file_in_a_folder_that_is_there(tmp_path):
    with pytest.raises(UsageError, match="name a file in a folder that is there"):
        uss("export", small_student(), "--onnx", tmp_path / "no/model.onnx")
    with pytest.raises(BadData, match="is not a student"):
        uss("export", tmp_path, "--onnx", tmp_path / "model.onnx")
    with pytest.raises(UsageError, match="Say what to write"):
        uss("export", small_student())


def test_export_of_a_plain_folder(tmp_path):
    uss("export", small_student(), "--folder", tmp_path / "shared")
    assert {p.name for p in (tmp_path / "shared").iterdir()} >= {"model.safetensors", "config.json", "preprocessor_config.json"}
    with pytest.raises(UsageError, match="is not empty"):
        uss("export", small_student(), "--folder", tmp_path / "shared")


# -- segment --------------------------------------------------------------------------------------------


def test_segment_with_a_student(picture, tmp_path):
    said = uss(
        "segment",
        picture,
        "--method",
        "student",
        "--param",
        f"model={small_student()}",
        "--param",
        "auto=queries",
        "--out",
        tmp_path / "out",
    )
    assert "a picture.png" in said
    coco_json = json.loads((tmp_path / "out/regions.json").read_text())
    assert coco_json["annotations"][0]["area"] == 40 * 48
    with pytest.raises(UsageError, match="no model is named"):
        uss("segment", picture, "--method", "student", "--out", tmp_path / "other")

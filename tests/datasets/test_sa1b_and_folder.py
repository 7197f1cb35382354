"""SA-1B shards, extracted or not, and any folder of images with every form of masks."""

import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as api

from uss_dagster import registry
from uss_dagster.artifacts.image_files import encode_png
from uss_dagster.artifacts.images import Images
from uss_dagster.datasets import folder, sa1b
from uss_dagster.datasets.formats.class_trees import spec_of
from uss_dagster.datasets.preparation.prepare import prepare
from uss_dagster.errors import BadData, Unavailable, UsageError
from uss_dagster.planning.contents import content_of
from uss_dagster.regions.classes import FOREGROUND, IGNORE


def jpeg(height: int = 6, width: int = 8, value: int = 90) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height), (value, 20, 30)).save(out, "JPEG")
    return out.getvalue()


def masks(height: int = 6, width: int = 8) -> np.ndarray:
    """A disc-like blob, a part inside it, and one that overlaps both."""
    found = np.zeros((3, height, width), bool)
    found[0, 1:5, 1:6], found[1, 2:4, 2:4], found[2, 3:, 4:] = True, True, True
    return found


def record(number: int, height: int = 6, width: int = 8) -> bytes:
    codes = [api.encode(np.asfortranarray(m.astype(np.uint8))) for m in masks(height, width)]
    annotations = [
        {"id": 10 + k, "segmentation": {"size": [height, width], "counts": c["counts"].decode()}, "predicted_iou": 0.9}
        for k, c in enumerate(codes)
    ]
    image = {"image_id": number, "width": width, "height": height, "file_name": f"sa_{number}.jpg"}
    return json.dumps({"image": image, "annotations": annotations}).encode()


def tar(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as shard:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            shard.addfile(member, io.BytesIO(data))


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("USS_MIRROR", str(tmp_path))
    (tmp_path / "sa1b").mkdir()
    return tmp_path / "sa1b"


def files_of(numbers) -> dict[str, bytes]:
    return {f"./sa_{n}.{end}": data for n in numbers for end, data in (("jpg", jpeg(value=n)), ("json", record(n)))}


def extract(home: Path, shard: str, files: dict[str, bytes]) -> None:
    (home / shard).mkdir(exist_ok=True)
    for name, data in files.items():
        (home / shard / name).write_bytes(data)


def test_shards_read_alike_extracted_and_as_tar_files(home):
    extract(home, "sa_000020", files_of([223750, 9]))
    extracted = list(sa1b.examples(sa1b.Params()))
    for path in (home / "sa_000020").iterdir():
        path.unlink()
    tar(home / "sa_000020.tar", files_of([223750, 9]))
    packed = list(sa1b.examples(sa1b.Params()))
    assert [e.image_id for e in packed] == ["sa_223750", "sa_9"], "ascending as text"
    for one, other in zip(extracted, packed, strict=True):
        assert (one.image_id, one.image) == (other.image_id, other.image)
        assert np.array_equal(one.truth.masks(), masks())
        assert one.truth.rles() == other.truth.rles()
        assert set(one.truth.label.tolist()) == {-1}


def test_several_shards_limits_and_samples(home):
    tar(home / "sa_000000.tar", files_of([1, 3, 5]))
    tar(home / "sa_000001.tar", files_of([2, 4, 10]))
    assert [e.image_id for e in sa1b.examples(sa1b.Params(limit=4))] == ["sa_1", "sa_2", "sa_3", "sa_4"]
    drawn = [e.image_id for e in sa1b.examples(sa1b.Params(sample=3, seed=1))]
    assert drawn == [e.image_id for e in sa1b.examples(sa1b.Params(sample=3, seed=1))]
    assert len(set(drawn)) == 3
    assert len({tuple(e.image_id for e in sa1b.examples(sa1b.Params(sample=3, seed=s))) for s in range(8)}) > 1
    with pytest.raises(BadData, match="sample is 7, but there are 6 images"):
        list(sa1b.examples(sa1b.Params(sample=7)))
    with pytest.raises(ValueError, match="sample is 0"):
        sa1b.Params(sample=0)


def test_broken_shards_are_refused(home, monkeypatch):
    with pytest.raises(BadData, match=r"holds neither sa_<number>\.json"):
        list(sa1b.examples(sa1b.Params()))
    (home / "sa_000000.tar").write_bytes(b"<html>login</html>" * 100)
    with pytest.raises(BadData, match="truncated or no tar file"):
        list(sa1b.examples(sa1b.Params()))
    tar(home / "sa_000000.tar", files_of([1]) | {"./sa_2.jpg": jpeg()})
    with pytest.raises(BadData, match="image sa_2 has a picture alone"):
        list(sa1b.examples(sa1b.Params()))
    for data in (
        b'{"image": {"height": 6',
        b'{"image": {}, "annotations": []}',
        b"[]",
        b'{"image": {"height": 6, "width": 8}, "annotations": 3}',
    ):
        tar(home / "sa_000000.tar", {"sa_1.jpg": jpeg(), "sa_1.json": data})
        with pytest.raises(BadData, match="image sa_1: its JSON file is truncated, or has no 'image' with a size"):
            list(sa1b.examples(sa1b.Params()))
    monkeypatch.setenv("USS_MIRROR", str(home / "none"))
    with pytest.raises(Unavailable, match="Accept the terms on the SA-1B page"):
        list(sa1b.examples(sa1b.Params()))


# -- folder --------------------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path) -> Path:
    for name in ("b.jpg", "trip/a b.JPG", "trip/ü.jpg"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(jpeg())
    return tmp_path / "photos"


def read(**given):
    params = registry.build_params(folder.Params, given, "dataset 'mine'")
    return list(folder.examples(params)), spec_of(folder, params)


def test_a_folder_without_masks(photos):
    found, spec = read(path=str(photos))
    assert [(e.image_id, e.suffix, len(e.truth), e.truth.shape) for e in found] == [
        ("b", ".jpg", 0, (6, 8)),
        ("trip-_", ".jpg", 0, (6, 8)),
        ("trip-a_b", ".jpg", 0, (6, 8)),
    ]
    assert (spec.truth, spec.classes) == ("none", None)
    assert len(read(path=str(photos), limit=2)[0]) == 2


def test_names_that_are_long_or_no_text(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    names = [b"a" * 96, b"a" * 102, b"b" * 251, b"caf\xe9", b"esc\x1b[31m", b"x\ny"]
    for number, name in enumerate(names):
        (photos / os.fsdecode(name + b".png")).write_bytes(encode_png(np.full((6, 8, 3), number, np.uint8)))
    params = registry.build_params(folder.SPEC.params, {"path": str(photos)}, "folder")
    out = tmp_path / "out"
    out.mkdir()
    assert prepare(folder, params, out, "test") == {"images": 6, "regions": 0}
    images = Images(out / "images")
    assert {len(image_id) for image_id in images.ids} == {3, 4, 8, 96, 102, 251}
    assert sorted(int(images.pixels(image_id)[0, 0, 0]) for image_id in images.ids) == list(range(6))
    with tarfile.open(out / "images" / "shard-00000.tar") as tar:
        assert [member.name for member in tar] == [f"{image_id}.png" for image_id in images.ids]
    first = content_of(tmp_path, [photos])
    (photos / os.fsdecode(b"caf\xe9.png")).rename(photos / os.fsdecode(b"caf\xe8.png"))
    assert content_of(tmp_path, [photos]) != first


def test_a_folder_with_label_maps_inside_it(photos, tmp_path):
    labels = np.zeros((6, 8), np.uint8)
    labels[2:, 3:], labels[0, 0] = 7, 255
    for name in ("b", "trip/a b", "trip/ü"):
        path = photos / "masks" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(labels).save(path)
    found, spec = read(path=str(photos), masks=str(photos / "masks"))
    assert (len(found), spec.truth) == (3, "classes")
    assert spec.classes is not None
    assert spec.classes.names == ("scene", "label 0", "label 7", "label 255")
    assert spec.classes.kind[1:] == (FOREGROUND, FOREGROUND, IGNORE)
    assert np.array_equal(found[1].truth.mask(2), labels == 7)
    (tmp_path / "mine.yaml").write_text("ground: background 0\nanimal:\n  cat: foreground 7\nvoid: ignore 255\n")
    found, spec = read(path=str(photos), masks=str(photos / "masks"), classes=str(tmp_path / "mine.yaml"))
    assert spec.classes is not None
    assert [spec.classes.names[label] for label in found[0].truth.label] == ["scene", "ground", "animal", "cat", "void"]
    (photos / "masks/b.png").unlink()
    with pytest.raises(BadData, match=r"b\.png is missing: an image has no label map"):
        read(path=str(photos), masks=str(photos / "masks"), classes=str(tmp_path / "mine.yaml"))


def test_a_folder_with_a_coco_file(photos, tmp_path):
    (code,) = [api.encode(np.asfortranarray(masks()[1].astype(np.uint8)))]
    annotation = {"id": 1, "image_id": 4, "category_id": 30, "segmentation": {"size": [6, 8], "counts": code["counts"].decode()}}
    images = [{"id": 4, "file_name": "trip/ü.jpg", "height": 6, "width": 8}, {"id": 2, "file_name": "b.jpg", "height": 6, "width": 8}]
    data = {"images": images, "annotations": [annotation], "categories": [{"id": 30, "name": "cat"}]}
    (tmp_path / "mine.json").write_text(json.dumps(data))
    found, spec = read(path=str(photos), masks=str(tmp_path / "mine.json"))
    assert [(e.image_id, len(e.truth)) for e in found] == [("b", 0), ("trip-_", 1)]
    assert spec.truth == "instances"
    assert spec.classes is not None
    assert spec.classes.names == ("scene", "cat")
    assert np.array_equal(found[1].truth.mask(0), masks()[1])
    del data["categories"]
    (tmp_path / "mine.json").write_text(json.dumps(data))
    found, spec = read(path=str(photos), masks=str(tmp_path / "mine.json"))
    assert (spec.classes, found[1].truth.label.tolist()) == (None, [-1])


def test_a_folder_with_one_json_an_image(photos, tmp_path):
    for name in ("b", "trip/a b", "trip/ü"):
        path = tmp_path / "json" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(record(1))
    found, spec = read(path=str(photos), masks=str(tmp_path / "json"), form="json")
    assert spec.truth == "instances"
    assert all(np.array_equal(e.truth.masks(), masks()) for e in found)
    (tmp_path / "json/b.json").unlink()
    with pytest.raises(BadData, match=r"b\.json is missing: an image has no JSON file"):
        read(path=str(photos), masks=str(tmp_path / "json"), form="json")


def test_what_is_missing_or_wrong_is_said(photos, tmp_path):
    with pytest.raises(UsageError, match="needs its parameter 'path'"):
        read()
    with pytest.raises(UsageError, match="does not exist"):
        read(path=str(tmp_path / "none"))
    with pytest.raises(UsageError, match="classes is given without masks"):
        read(path=str(photos), classes="x.yaml")
    with pytest.raises(BadData, match=r"nothing\.json is missing"):
        read(path=str(photos), masks=str(tmp_path / "nothing.json"))
    (photos / "trip-a_b.jpg").write_bytes(jpeg())
    with pytest.raises(BadData, match="would both be called 'trip-a_b'"):
        read(path=str(photos))

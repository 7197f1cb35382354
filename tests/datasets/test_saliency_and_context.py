"""DUTS, DUT-OMRON, ECSSD and PASCAL Context: small archives laid out as the releases are, got as people get them, and refusals."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from labelled_files import check_perfect_scores, check_tree, nodes_of, write_picture
from PIL import Image
from scipy.io import savemat

from uss_dagster import registry
from uss_dagster.datasets import duts, pascal_context
from uss_dagster.datasets.formats.figures import FIGURES
from uss_dagster.downloads.get import Request, get_dataset
from uss_dagster.errors import BadData, Unavailable
from uss_dagster.regions.classes import BACKGROUND, FOREGROUND, IGNORE

H, W = 10, 14
OBJECT = FIGURES.node[1]


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("USS_MIRROR", str(tmp_path / "mirror"))
    return tmp_path / "mirror"


def mask(seed: int, smooth: bool = False) -> np.ndarray:
    """A block of 255 on 0; smooth: with borders of the values between."""
    values = np.zeros((H, W), np.uint8)
    top, left = np.random.default_rng(seed).integers(1, 4, 2)
    values[top : top + 5, left : left + 6] = 255
    if smooth:
        values[top - 1, left : left + 6], values[top + 5, left : left + 6] = 90, 160
    return values


def save(path: Path, values: np.ndarray, **options: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, **options)


def zipped(folder: Path, name: str) -> None:
    """An archive of everything in a folder, in the folder 'from' beside it, with what macOS puts into one."""
    (folder.parent / "from").mkdir(exist_ok=True)
    with zipfile.ZipFile(folder.parent / "from" / name, "w") as archive:
        for path in sorted(folder.rglob("*.*")):
            inside = path.relative_to(folder)
            archive.write(path, inside)
            archive.writestr(f"__MACOSX/{inside.parent}/._{path.name}", b"\0")


def get(name: str, archives: Path) -> Path:
    return get_dataset(Request(name, archives / "from", accept=lambda: "in a test"), lambda line: None)


def test_duts_with_the_masks_that_its_authors_corrected(tmp_path: Path, mirror: Path):
    for split, ids in (("TE", ["b_1", "a_2"]), ("TR", ["n01", "n02"])):
        root = tmp_path / split / f"DUTS-{split}"
        for number, image_id in enumerate(ids):
            write_picture(root / f"DUTS-{split}-Image" / f"{image_id}.jpg", H, W)
            save(root / f"DUTS-{split}-Mask" / f"{image_id}.png", mask(number, smooth=True))
        save(root / f"DUTS-{split}-Mask" / f"{ids[1]}.jpg", mask(7), quality=100, subsampling=0)
        zipped(tmp_path / split, f"DUTS-{split}.zip")
    folder = get("duts", tmp_path)
    assert (folder / "DUTS-TR" / "DUTS-TR-Image" / "n01.jpg").is_file()
    test = list(duts.examples(duts.Params()))
    assert [e.image_id for e in test] == ["a_2", "b_1"]
    for example, seed in zip(test, (1, 0), strict=True):
        np.testing.assert_array_equal(nodes_of(example.truth) == OBJECT, mask(seed, smooth=True) > 127)
        check_tree(example, FIGURES.tree)
        check_perfect_scores(example.truth, FIGURES.tree)
    first, second = duts.examples(duts.Params("train"))
    np.testing.assert_array_equal(nodes_of(first.truth) == OBJECT, mask(0, smooth=True) > 127)
    np.testing.assert_array_equal(nodes_of(second.truth) == OBJECT, mask(7) > 127)
    assert len(list(duts.examples(duts.Params(limit=1)))) == 1


@pytest.mark.parametrize(
    ("name", "archives"),
    [
        ("dut_omron", {"DUT-OMRON-image.zip": "DUT-OMRON-image/{}.jpg", "DUT-OMRON-gt-pixelwise.zip.zip": "pixelwiseGT-new-PNG/{}.png"}),
        ("ecssd", {"images.zip": "images/{}.jpg", "ground_truth_mask.zip": "ground_truth_mask/{}.png"}),
    ],
)
def test_one_mask_an_image(tmp_path: Path, mirror: Path, name: str, archives: dict[str, str]):
    for number, (archive, place) in enumerate(archives.items()):
        for image_id in ("0002", "0001"):
            path = tmp_path / str(number) / place.format(image_id)
            if path.suffix == ".jpg":
                write_picture(path, H, W)
            else:
                save(path, mask(int(image_id)))
        zipped(tmp_path / str(number), archive)
    get(name, tmp_path)
    module = registry.load("dataset", name)
    found = list(module.examples(module.SPEC.params()))
    assert [e.image_id for e in found] == ["0001", "0002"]
    for example in found:
        np.testing.assert_array_equal(nodes_of(example.truth) == OBJECT, mask(int(example.image_id)) > 127)
        check_tree(example, FIGURES.tree)
    assert sum(archive.size or bool(archive.md5 or archive.sha256) for archive in module.SPEC.archives) == 0, "none was seen"


def test_a_mask_of_another_size_or_none_is_named(mirror: Path):
    folder = mirror / "ecssd"
    write_picture(folder / "images" / "1.jpg", H, W)
    save(folder / "ground_truth_mask" / "1.png", mask(0)[:, 1:])
    ecssd = registry.load("dataset", "ecssd")
    with pytest.raises(BadData, match=r"1\.png is 10×13, its image 10×14"):
        list(ecssd.examples(ecssd.SPEC.params()))
    (folder / "ground_truth_mask" / "1.png").unlink()
    with pytest.raises(BadData, match=r"1\.png is missing"):
        list(ecssd.examples(ecssd.SPEC.params()))
    with pytest.raises(Unavailable, match="Fetch DUTS-TE"):
        list(duts.examples(duts.Params()))


# -- PASCAL Context ---------------------------------------------------------------------------------------

NAMES = {2: "aeroplane", 5: "bed clothes", 18: "bag", 355: "sky", 400: "unknown", 431: "table"}
"""Some of 459 official labels; the others of the 59 follow."""


def labels_txt() -> str:
    names = dict(NAMES)
    every = pascal_context.load_classes("pascal_context").tree.names[2:]
    rest = [name for name in every if name not in {n.replace(" ", "") for n in names.values()}]
    names |= dict(zip(range(100, 100 + len(rest)), rest, strict=True))
    return "\n".join(f"{number}: {names.get(number, f'other {number}')}" for number in range(1, 460)) + "\n"


def context_archives(folder: Path, maps: dict[str, np.ndarray]) -> None:
    folder.mkdir()
    (folder / "labels.txt").write_text(labels_txt())
    with tarfile.open(folder / "trainval.tar.gz", "w:gz") as archive:
        for image_id, labels in maps.items():
            stream = io.BytesIO()
            savemat(stream, {"LabelMap": labels})
            member = tarfile.TarInfo(f"trainval/{image_id}.mat")
            member.size = stream.tell()
            stream.seek(0)
            archive.addfile(member, stream)
    data = folder / "voc" / "VOCdevkit" / "VOC2010"
    for image_id, labels in maps.items():
        write_picture(data / "JPEGImages" / f"{image_id}.jpg", *labels.shape)
    lists = data / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    first, *others = sorted(maps)
    (lists / "train.txt").write_text(f"{first}\n")
    (lists / "val.txt").write_text("\n".join(others) + "\n")


def test_pascal_context_by_59_and_60_classes(tmp_path: Path, mirror: Path):
    rng = np.random.default_rng(0)
    maps = {image_id: rng.choice([0, *NAMES], (H, W)).astype(np.uint16) for image_id in ("2008_000002", "2008_000003", "2008_000007")}
    context_archives(tmp_path / "from", maps)
    root = mirror / "pascal_context"
    root.mkdir(parents=True)
    with tarfile.open(tmp_path / "from" / "trainval.tar.gz") as archive:
        archive.extractall(root, filter="data")
    (tmp_path / "from" / "voc" / "VOCdevkit").rename(root / "VOCdevkit")
    (tmp_path / "from" / "labels.txt").rename(root / "labels.txt")
    for count, kind in ((60, BACKGROUND), (59, IGNORE)):
        params = pascal_context.Params("val", count)
        classes = pascal_context.classes(params)
        kinds = np.asarray(classes.tree.kind)
        assert ((kinds == FOREGROUND).sum(), (kinds == kind).sum()) == (59, 1)
        found = list(pascal_context.examples(params))
        assert [e.image_id for e in found] == ["2008_000003", "2008_000007"]
        for example in found:
            check_tree(example, classes.tree)
            check_perfect_scores(example.truth, classes.tree)
            expected = np.array([["background", *NAMES.values()][[0, *NAMES].index(v)] for v in maps[example.image_id].ravel().tolist()])
            expected = np.array(["background" if name == "unknown" else name.replace(" ", "") for name in expected]).reshape(H, W)
            np.testing.assert_array_equal(np.array(classes.tree.names)[nodes_of(example.truth)], expected)
    (train,) = pascal_context.examples(pascal_context.Params("train"))
    assert train.image_id == "2008_000002"

    (root / "labels.txt").write_text("1: aeroplane\n2: bicycle\n")
    pascal_context.frequent_labels.cache_clear()
    with pytest.raises(BadData, match="lists no class bag, bed, bedclothes"):
        list(pascal_context.examples(pascal_context.Params()))
    savemat(root / "trainval" / "2008_000003.mat", {"LabelMap": np.full((H, W), 0.5)})
    with pytest.raises(BadData, match=r"2008_000003\.mat: its LabelMap is no map of labels"):
        list(pascal_context.examples(pascal_context.Params()))
    (root / "trainval" / "2008_000003.mat").write_bytes(b"no")
    with pytest.raises(BadData, match=r"2008_000003\.mat is not an annotation of PASCAL Context"):
        list(pascal_context.examples(pascal_context.Params()))

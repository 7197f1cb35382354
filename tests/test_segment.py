"""`uss segment` on a person's own pictures: whatever they are, wherever they lie, whichever is broken."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from disks import fill, mounted
from PIL import Image
from projects import BIN, SOURCE, Project, tree_hash
from pycocotools.coco import COCO

from uss_dagster import registry
from uss_dagster.artifacts.image_files import PNG
from uss_dagster.artifacts.schemas import REGIONS
from uss_dagster.artifacts.tables import check_schema
from uss_dagster.commands.parameters import parse_parameters
from uss_dagster.own_images.files import ids_of

SPECS = [registry.load("method", name).SPEC for name in registry.names("method")]
METHODS = [spec.name for spec in SPECS if not spec.imported and not spec.supervised and spec.model != "needed"]
ONE_OBJECT_OR_A_DATASET = ("comus_lite", "lightcluster", "token_kmeans", "tokencut")
"""Of one picture of three fields these may find another field, or, looking at a dataset of one, nothing that is one."""


def photo(height: int = 60, width: int = 90, seed: int = 0) -> np.ndarray:
    """Three coloured fields with a little noise, uint8 (H, W, 3)."""
    picture = np.full((height, width, 3), (40, 90, 160))
    picture[height // 2 :] = (200, 170, 60)
    picture[: height // 2, : width // 3] = (180, 40, 50)
    noise = np.random.default_rng(seed).integers(-9, 10, picture.shape)
    return (picture + noise).clip(0, 255).astype(np.uint8)


def save(path: Path, picture: np.ndarray | Image.Image, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(path, **options)
    return path


@pytest.fixture
def here(tmp_path: Path) -> Project:
    """A folder that is no project: `uss segment` needs none."""
    return Project(tmp_path, {"PYTHONPATH": str(SOURCE)})


@pytest.fixture
def small_disk(tmp_path: Path):
    with mounted(tmp_path / "disk", "size=300k") as folder:
        yield folder


@pytest.fixture
def read_only(tmp_path: Path):
    with mounted(tmp_path / "disk", "ro") as folder:
        yield folder


def results(out: Path) -> tuple[dict, COCO]:
    """The rows of the table by image, and the annotations; that the two say the same is checked here."""
    table = pq.read_table(out / "regions.parquet")
    check_schema(table.schema, REGIONS, "regions.parquet")
    rows = table.to_pylist()
    assert [(r["image_id"], r["region"]) for r in rows] == sorted((r["image_id"], r["region"]) for r in rows)
    coco = COCO(str(out / "regions.json"))
    assert [a["segmentation"]["counts"].encode() for a in coco.dataset["annotations"]] == [r["rle"] for r in rows]
    assert [a["id"] for a in coco.dataset["annotations"]] == list(range(1, len(rows) + 1))
    for annotation, row in zip(coco.dataset["annotations"], rows, strict=True):
        assert coco.imgs[annotation["image_id"]]["image_id"] == row["image_id"]
        assert annotation["category_id"] in coco.cats
        if row["parent"] >= 0:
            assert annotation["id"] - annotation["parent"] == row["region"] - row["parent"]
    by_image: dict = {}
    for row in rows:
        by_image.setdefault(row["image_id"], []).append(row)
    return by_image, coco


@pytest.mark.parametrize("method", METHODS)
def test_every_method_with_its_defaults(here: Project, method):
    save(here.root / "a.png", photo())
    run = here.uss if method == "contour_merge" else here.uss_here
    done = run("segment", "a.png", "--method", method, "--out", "out")
    assert done.stderr == ""
    rows, coco = results(here.root / "out")
    assert done.stdout == f"1/1  out/a.png  {len(rows['a'])} regions\nto explore the regions, open out/explorer.html\n"
    for annotation in coco.dataset["annotations"]:
        mask = coco.annToMask(annotation)
        assert mask.shape == (60, 90)
        assert mask.sum() == annotation["area"] > 0
        x, y, w, h = annotation["bbox"]
        assert mask[y : y + h, x : x + w].sum() == mask.sum()
    # The red field is found, whatever else is (k-means draws its border within a patch or two).
    red = np.zeros((60, 90), bool)
    red[:30, :30] = True
    ious = [(m & red).sum() / (m | red).sum() for m in map(coco.annToMask, coco.dataset["annotations"])]
    assert max(ious) > 0.6 or method in ONE_OBJECT_OR_A_DATASET
    assert np.asarray(Image.open(here.root / "out/a.png")).shape == (60, 90, 3)


def test_pictures_of_every_kind(here: Project):
    rgb = Image.fromarray(photo())
    turned = Image.fromarray(photo()).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    folder = here.root / "my pictures"
    save(folder / "grey.png", rgb.convert("L"))
    save(folder / "alpha.png", rgb.convert("RGBA"))
    save(folder / "print.jpg", rgb.convert("CMYK"))
    save(folder / "deep.png", Image.fromarray(photo()[..., 0].astype(np.uint16) * 257))
    save(folder / "palette.gif.png", rgb.quantize(16))
    save(folder / "turned.jpg", turned, exif=exif)
    save(folder / "Über Köln – 猫.jpeg", rgb)
    save(folder / "one.bmp", rgb.resize((1, 1)))
    save(folder / "line.tif", rgb.resize((50, 1)))
    save(folder / "sub" / "grey.webp", rgb)
    done = here.uss("segment", "my pictures", "-m", "felzenszwalb", "--param", "scales=2")
    rows, coco = results(here.root / "segments")
    assert sorted(rows) == sorted(
        ["alpha", "deep", "grey.png", "grey.webp", "line", "one", "palette.gif", "print", "turned", "Über Köln – 猫"]
    )
    sizes = {i["image_id"]: (i["height"], i["width"]) for i in coco.dataset["images"]}
    assert (sizes["turned"], sizes["one"], sizes["line"], sizes["deep"]) == ((60, 90), (1, 1), (1, 50), (60, 90))
    for image in coco.dataset["images"]:
        assert (folder / image["file_name"]).is_file(), "file_name counts from the folder of the pictures"
    assert {i["file_name"] for i in coco.dataset["images"] if i["image_id"].startswith("grey")} == {"grey.png", "sub/grey.webp"}
    assert len(done.stdout.splitlines()) == 11
    for line in done.stdout.splitlines()[:-1]:
        assert (here.root / line.split("  ")[1]).is_file()


@pytest.mark.parametrize("method", METHODS)
def test_the_smallest_picture(here: Project, method):
    save(here.root / "one.png", photo()[:1, :1])
    save(here.root / "strip.png", photo()[:2, :70])
    here.uss_here("segment", "one.png", "strip.png", "-m", method)
    rows, _ = results(here.root / "segments")
    assert {r["area"] for r in rows["one"]} == {1}
    assert max(r["area"] for r in rows["strip"]) <= 140


def test_a_broken_picture_does_not_stop_the_others(here: Project):
    save(here.root / "p" / "a.png", photo())
    save(here.root / "p" / "c.jpg", photo())
    (here.root / "p" / "b.jpg").write_bytes((here.root / "p" / "c.jpg").read_bytes()[:500])
    (here.root / "p" / "d.png").write_text("not a picture")
    (here.root / "p" / "e.png").write_bytes(b"")
    refused = here.uss("segment", "p", code=65)
    lines = refused.stderr.splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("2/5  left out: p/b.jpg is truncated or damaged")
    assert lines[1].startswith("4/5  left out: p/d.png is not a picture")
    assert lines[2].startswith("5/5  left out: p/e.png is empty (0 bytes)")
    assert lines[3] == "error: 3 of 5 pictures could not be used (see above); the others are in segments."
    assert sorted(results(here.root / "segments")[0]) == ["a", "c"]
    names = sorted(p.name for p in (here.root / "segments").iterdir())
    assert names == ["a.png", "c.png", "explorer", "explorer.html", "regions.json", "regions.parquet"]


def test_nothing_usable_changes_nothing(here: Project):
    save(here.root / "a.png", photo())
    here.uss("segment", "a.png")
    before = tree_hash(here.root / "segments")
    (here.root / "bad.png").write_text("no")
    assert "error: The picture could not be used." in here.uss("segment", "bad.png", code=65).stderr
    assert tree_hash(here.root / "segments") == before


def test_the_same_bytes_again_and_with_any_number_of_workers(here: Project):
    for i in range(6):
        save(here.root / "p" / f"{i}.png", photo(seed=i))
    here.uss("segment", "p", "-m", "slic_merge", "--backbone-param", "dictionary=false", USS_WORKERS="1")
    before = tree_hash(here.root / "segments")
    here.uss("segment", "p", "-m", "slic_merge", "--backbone-param", "dictionary=false", USS_WORKERS="2")
    assert tree_hash(here.root / "segments") == before
    assert len(before) == 8 + 1 + 2 * 6, "overlays and tables; the explorer's page, and two files a picture"


def test_overlays_are_not_segmented_and_photographs_not_overwritten(here: Project):
    save(here.root / "a.png", photo())
    here.uss("segment", ".")
    again = here.uss("segment", ".", "-o", "other")
    assert again.stdout.startswith("1/1  other/a.png"), "the overlay in ./segments is no picture of the person's"
    original = (here.root / "a.png").read_bytes()
    refused = here.uss("segment", "a.png", "-o", ".", code=64)
    assert (
        refused.stderr
        == "error: a.png is there already, and `uss segment` did not draw it. Choose another folder with --out; nothing was changed.\n"
    )
    assert (here.root / "a.png").read_bytes() == original
    assert "overlays that `uss segment` drew" in here.uss("segment", "segments", code=64).stderr


WRONG = {
    "no pictures": (["empty"], "Folder empty holds no images."),
    "missing path": (["nowhere.jpg"], "nowhere.jpg does not exist."),
    "method": (["a.png", "-m", "slick_merge"], "Unknown method 'slick_merge'. Did you mean 'slic_merge'?"),
    "backbone": (["a.png", "-m", "slic_merge", "-b", "patchs"], "Unknown backbone 'patchs'. Did you mean 'patches'?"),
    "parameter": (
        ["a.png", "-m", "slic_merge", "--param", "superpixel=9"],
        "method 'slic_merge' has no parameter 'superpixel'. Did you mean 'superpixels'?",
    ),
    "value": (
        ["a.png", "-m", "slic_merge", "--param", "superpixels=many"],
        "method 'slic_merge': parameter 'superpixels' is 'many', expected int.",
    ),
    "impossible value": (
        ["a.png", "-m", "slic_merge", "--param", "superpixels=0"],
        "method 'slic_merge': superpixels is 0, expected 1 or more.",
    ),
    "no equals sign": (["a.png", "--param", "superpixels"], "a parameter is written name=value, got 'superpixels'."),
    "backbone parameter": (
        ["a.png", "-m", "slic_merge", "--backbone-param", "strid=2"],
        "backbone 'patches' has no parameter 'strid'. Did you mean 'stride'?",
    ),
    "needless backbone": (["a.png", "-m", "felzenszwalb", "-b", "patches"], "Method 'felzenszwalb' looks at pixels only"),
    "pickle": (["a.png", "-m", "slic_merge", "-b", "vit", "--backbone-param", "checkpoint=w.pth"], "is not a .safetensors file"),
    "out is a file": (["a.png", "-o", "a.png"], "--out a.png: a.png is a file."),
    "out where none can be": (["a.png", "-o", "/proc/x"], "The folder /proc/x cannot be made (No such file or directory)."),
    "out below a file": (["a.png", "-o", "a.png/x"], "a.png is a file."),
    "option": (["a.png", "--methd", "kmeans"], "No such option: --methd"),
    "regions": (["a.png", "--regions", "0"], "Invalid value for '--regions'"),
    "nothing": ([], "Missing argument"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_words(here: Project, what):
    save(here.root / "a.png", photo())
    (here.root / "empty").mkdir()
    words, said = WRONG[what]
    refused = here.uss_here("segment", *words, code=64)
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr
    assert sorted(p.name for p in here.root.iterdir()) == ["a.png", "empty"], "nothing was made"


def test_out_that_cannot_be_written(here: Project, read_only: Path):
    save(here.root / "a.png", photo())
    refused = here.uss("segment", "a.png", "-o", str(read_only / "out"), code=64)
    assert refused.stderr.startswith("error: No permission to ")
    assert len(refused.stderr.splitlines()) == 1


def test_the_disk_fills_up(here: Project, small_disk: Path):
    save(here.root / "a.png", photo())
    save(here.root / "b.png", np.random.default_rng(0).integers(0, 256, (900, 900, 3), np.uint8))
    out = small_disk / "out"
    here.uss("segment", "a.png", "-o", str(out))
    before = tree_hash(out)
    filling = fill(small_disk)
    refused = here.uss("segment", "b.png", "-o", str(out), "-m", "felzenszwalb", "--param", "scales=1", code=75)
    assert refused.stderr.startswith("error: The disk is full")
    assert len(refused.stderr.splitlines()) == 1, refused.stderr
    assert tree_hash(out) == before
    filling.unlink()
    (here.root / "b.png").unlink()
    here.uss("segment", "a.png", "-o", str(out))
    assert tree_hash(out) == before


def test_vit_without_network(here: Project):
    save(here.root / "a.png", photo())
    refused = here.uss("segment", "a.png", "-m", "slic_merge", "-b", "vit", code=69, HF_HUB_OFFLINE="1", HF_HOME=str(here.root / "hf"))
    assert refused.stderr.startswith("error: The weights of ")
    assert len(refused.stderr.splitlines()) == 1
    assert not (here.root / "segments").exists()


@pytest.mark.slow
def test_vit_with_parameters(here: Project):
    save(here.root / "a.png", photo())
    words = ["-b", "vit", "--backbone-param", "checkpoint=random", "--backbone-param", "model=timm:vit_tiny_patch16_224"]
    here.uss("segment", "a.png", "-m", "kmeans", *words, HF_HUB_OFFLINE="1")
    assert len(results(here.root / "segments")[0]["a"]) > 1


def test_long_side_reduces_and_brings_back(here: Project):
    picture = photo(300, 450)
    save(here.root / "a.png", picture)
    here.uss("segment", "a.png", "-o", "full", "--long-side", "0")
    here.uss("segment", "a.png", "-o", "small", "--long-side", "90")
    assert Image.open(here.root / "small/a.png").size == (90, 60)
    red = np.zeros((300, 450), bool)
    red[:150, :150] = True
    for out in ("full", "small"):
        _, coco = results(here.root / out)
        masks = [coco.annToMask(a) for a in coco.dataset["annotations"]]
        assert masks[0].shape == (300, 450)
        assert max((m & red).sum() / (m | red).sum() for m in masks) > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_large_photograph_takes_neither_minutes_nor_gigabytes(here: Project, method):
    blocks = np.kron(np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8), np.ones((100, 100, 1), np.uint8))
    save(here.root / "a.jpg", blocks)
    started = time.perf_counter()
    # In between stands a small process: what a process holds when it starts another counts as memory of that one.
    program = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=2)"
    program += "; print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    done = here.run(sys.executable, "-c", program, str(BIN / "uss"), "segment", "a.jpg", "-m", method)
    assert time.perf_counter() - started < 60
    assert int(done.stdout) < 2 * 1024**2
    _, coco = results(here.root / "segments")
    assert coco.annToMask(coco.dataset["annotations"][0]).shape == (3000, 4000)


def test_interrupted_leaves_no_half_result(here: Project):
    import signal

    for i in range(40):
        save(here.root / "p" / f"{i}.png", photo(400, 400, seed=i))
    out = here.root / "segments"
    env = {**here.env, "USS_WORKERS": "2"}
    run = subprocess.Popen([str(BIN / "uss"), "segment", "p"], cwd=here.root, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while not list(out.glob("*.png")):
        time.sleep(0.05)
        assert run.poll() is None
    run.send_signal(signal.SIGTERM)
    _, errors = run.communicate(timeout=20)
    assert run.returncode == 143
    assert errors == b""
    assert {p.name for p in out.iterdir() if p.suffix != ".png"} <= {".segment"}


def test_after_ctrl_c_the_same_command_goes_on(here: Project):
    import signal

    for i in range(6):
        save(here.root / "p" / f"{i}.png", photo(200, 300, seed=i))
    words = ("segment", "p", "-m", "felzenszwalb", "--param", "scales=3")
    run = subprocess.Popen(
        [str(BIN / "uss"), *words], cwd=here.root, env=here.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert run.stdout is not None
    assert run.stdout.readline().startswith("1/6  ")
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate(timeout=20)
    assert (run.returncode, errors) == (130, "stopped; run the same command again to go on\n")
    out = here.root / "segments"
    assert len(list(out.glob("*.png"))) < 6
    drawn = (out / "0.png").stat().st_mtime_ns
    here.uss(*words)
    assert (out / "0.png").stat().st_mtime_ns == drawn, "what was done is not computed again"
    here.uss(*words, "-o", "whole")
    assert tree_hash(out) == tree_hash(here.root / "whole")


def test_every_picture_of_a_folder_is_named(here: Project):
    folder = here.root / "p"
    for name in ("x.bmp", "x.tiff", "x.webp"):
        save(folder / name, photo())
    save(folder / "moving.gif", Image.fromarray(photo()), save_all=True, append_images=[Image.fromarray(photo(seed=1))])
    (folder / "gone.jpg").symlink_to("nowhere.jpg")
    save(folder / "y\x1b[31m\n.png", photo())
    header = b"IHDR" + struct.pack(">IIBBBBB", 15_000, 12_000, 8, 2, 0, 0, 0)
    (folder / "z.png").write_bytes(
        PNG
        + struct.pack(">I", 13)
        + header
        + struct.pack(">IIII", zlib.crc32(header), 0, *struct.unpack(">I", b"IDAT"), zlib.crc32(b"IDAT"))
    )
    done = here.uss("segment", "p", "-m", "felzenszwalb", "--param", "scales=1", code=65)
    assert done.stderr.splitlines() == [
        "not read: p/moving.gif; of folders, only .bmp, .jpeg, .jpg, .png, .tif, .tiff, .webp are read. Convert them to PNG or JPEG.",
        "1/6  left out: p/gone.jpg cannot be read (No such file or directory).",
        "6/6  left out: p/z.png declares more than 178,956,970 pixels. Scale it down first.",
        "error: 2 of 6 pictures could not be used (see above); the others are in segments.",
    ]
    assert "5/6  segments/y\\x1b[31m\\x0a.png" in done.stdout, "what steers a terminal is escaped"
    assert sorted(results(here.root / "segments")[0]) == ["x.bmp", "x.tiff", "x.webp", "y\x1b[31m\n"]
    refused = here.uss("curate", "p", "--out", "set", "-m", "felzenszwalb", "--param", "scales=1", code=65)
    assert "not read: p/moving.gif" in refused.stderr
    assert "set aside: p/gone.jpg: it cannot be read" in refused.stderr
    assert "set aside: p/z.png: it declares more than 178,956,970 pixels" in refused.stderr
    assert "\x1b" not in refused.stdout + refused.stderr


def test_ids_are_distinct_whatever_the_names():
    files = [Path(p) for p in ("x/a.png", "y/a.jpg", "z/a-2.png", "w/A.png", "b.png", "v/a-2.jpg", "x/c.png", "y/c.png", "z/c-2.png")]
    assert ids_of(files) == ["a.png", "a.jpg", "a-2.png", "A-3.png", "b", "a-2.jpg", "c", "c-2", "c-2-2"]


def test_parameters_are_read_by_their_type():
    vit = registry.load("backbone", "vit").SPEC.params
    read = parse_parameters(["revision=1234567", "image_size=224", "checkpoint=null", "facets=[keys]", "model=a: b"], vit, "vit")
    assert read == {"revision": "1234567", "image_size": 224, "checkpoint": None, "facets": ["keys"], "model": "a: b"}


def test_coco_file_is_plain_json(here: Project):
    save(here.root / "a.png", photo())
    here.uss("segment", "a.png")
    read = json.loads((here.root / "segments/regions.json").read_text())
    assert sorted(read) == ["annotations", "categories", "images"]


def test_without_an_explorer(here: Project):
    save(here.root / "a.png", photo())
    said = here.uss_here("segment", "a.png", "--no-explorer", "-m", "felzenszwalb").stdout
    assert "explorer" not in said
    assert sorted(path.name for path in (here.root / "segments").iterdir()) == ["a.png", "regions.json", "regions.parquet"]

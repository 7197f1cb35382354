"""Decoding: every common kind of picture becomes upright RGB, every broken one a sentence that names it."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from uss_dagster.artifacts import image_files as pictures
from uss_dagster.artifacts.image_files import decode, encode_png, find_images
from uss_dagster.errors import BadData, UsageError

RAMP = np.arange(6 * 8, dtype=np.uint8).reshape(6, 8) * 5


def encoded(picture: Image.Image, kind: str = "PNG", **options) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def test_rgb_comes_back_exactly_and_contiguous():
    rgb = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    image = decode(encoded(Image.fromarray(rgb)), "a.png")
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert np.array_equal(image, rgb)


def test_grey_is_repeated_over_the_channels():
    assert np.array_equal(decode(encoded(Image.fromarray(RAMP)), "a.png"), np.repeat(RAMP[..., None], 3, axis=2))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_on_white(mode):
    picture = Image.new(mode, (3, 1), (0, 0, 0, 0) if mode == "RGBA" else (0, 0))
    picture.putpixel((1, 0), (200, 100, 0, 255) if mode == "RGBA" else (100, 255))
    picture.putpixel((2, 0), (0, 0, 0, 128) if mode == "RGBA" else (0, 128))
    image = decode(encoded(picture), "a.png")[0]
    assert image[0].tolist() == [255, 255, 255]
    assert image[1].tolist() == ([200, 100, 0] if mode == "RGBA" else [100, 100, 100])
    assert np.abs(image[2].astype(int) - 127).max() <= 1


def test_palette_with_and_without_a_transparent_entry():
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.putpixel((1, 0), 1)
    assert decode(encoded(picture), "a.png")[0].tolist() == [[10, 20, 30], [200, 100, 50]]
    assert decode(encoded(picture, transparency=0), "a.png")[0].tolist() == [[255, 255, 255], [200, 100, 50]]


def test_one_bit_pictures_are_black_and_white():
    picture = Image.fromarray(np.array([[True, False]]))
    assert decode(encoded(picture), "a.png")[0].tolist() == [[255] * 3, [0] * 3]


def test_cmyk_jpeg_becomes_rgb():
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    image = decode(encoded(red, "JPEG", quality=95), "a.jpg").reshape(-1, 3).mean(axis=0)
    assert image[0] > 200
    assert image[1:].max() < 60


def test_sixteen_bit_grey_is_scaled_not_clipped():
    values = np.array([[0, 257, 128 * 257, 65535]], np.uint16)
    assert decode(encoded(Image.fromarray(values)), "a.png")[0, :, 0].tolist() == [0, 1, 128, 255]


def test_wide_integers_of_eight_bit_range_are_kept():
    values = np.array([[0, 1, 255]], np.int32)
    assert decode(encoded(Image.fromarray(values), "TIFF"), "a.tif")[0, :, 0].tolist() == [0, 1, 255]


@pytest.mark.parametrize(("orientation", "upright"), [(1, lambda a: a), (3, lambda a: a[::-1, ::-1]), (6, lambda a: np.rot90(a, -1))])
def test_exif_orientation_is_applied(orientation, upright):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode(encoded(Image.fromarray(RAMP), exif=exif), "a.png")[..., 0]
    assert np.array_equal(image, upright(RAMP))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_truncated_file_is_refused_by_name(kind):
    data = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)), kind)
    with pytest.raises(BadData, match=r"cut\.img is truncated or damaged"):
        decode(data[: len(data) // 2], "cut.img")


def test_every_prefix_of_a_png_is_bad_data_or_the_whole_picture():
    data = encoded(Image.fromarray(RAMP))
    complete = []
    for length in range(len(data)):
        try:
            complete.append(length)
            assert np.array_equal(decode(data[:length], "a.png")[..., 0], RAMP)
        except BadData:
            complete.pop()
    assert all(length >= len(data) - 20 for length in complete)  # only a checksum and the empty end chunk may be missing


def test_an_empty_file_and_a_text_file_are_told_apart():
    with pytest.raises(BadData, match=r"nothing\.png is empty \(0 bytes\)"):
        decode(b"", "nothing.png")
    with pytest.raises(BadData, match=r"notes\.jpg is not a picture"):
        decode(b"these are my notes\n" * 20, "notes.jpg")


def png_that_declares(width: int, height: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [15_000, 60_000])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(side):
    with pytest.raises(BadData, match=r"bomb\.png declares .*Scale it down"):
        decode(png_that_declares(side, side), "bomb.png")


@pytest.mark.filterwarnings("error")
def test_a_large_declaration_below_the_limit_gives_no_warning():
    with pytest.raises(BadData, match="truncated"):
        decode(png_that_declares(10_000, 10_000), "large.png")


def test_png_bytes_are_stable_and_lossless():
    rgb = np.random.default_rng(1).integers(0, 256, (9, 4, 3), dtype=np.uint8)
    assert encode_png(rgb) == encode_png(rgb.copy())
    assert np.array_equal(decode(encode_png(rgb), "a.png"), rgb)
    with pytest.raises(BadData, match=r"uint8 \(H, W, 3\), got float64"):
        encode_png(rgb / 255)


def test_images_are_found_recursively_in_natural_order(tmp_path):
    for name in ("b/img10.png", "b/img2.JPG", "b/img1.tiff", "a.webp", "notes.txt", ".cache/thumb.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = [p.relative_to(tmp_path).as_posix() for p in find_images([tmp_path])]
    assert found == ["a.webp", "b/img1.tiff", "b/img2.JPG", "b/img10.png"]
    assert find_images([tmp_path / "b/img2.JPG", tmp_path / "b"]) == find_images([tmp_path / "b"])


def test_a_folder_without_images_and_a_missing_path_are_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UsageError, match=r"holds no images.*\.jpeg.*\.png"):
        find_images([tmp_path])
    with pytest.raises(UsageError, match="gone does not exist"):
        find_images([tmp_path / "gone"])
    with pytest.raises(UsageError, match="No images were given"):
        find_images([])


def test_the_limit_is_far_above_ordinary_photographs():
    assert pictures.MAX_PIXELS > 100_000_000

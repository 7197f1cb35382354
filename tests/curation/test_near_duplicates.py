"""Near-duplicates: exact search against all pairs, and pictures that people would call the same."""

import io

import numpy as np
import pytest
from curation_cases import picture
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from uss_dagster.curation.duplicates import groups_of, image_signature, near_duplicates, near_pairs


def all_pairs(hashes, others, radius):
    apart = np.bitwise_count(hashes[:, None] ^ others[None, :])
    return np.argwhere(apart <= radius)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 9), st.integers(0, 60), st.booleans())
def test_the_search_finds_what_comparing_all_finds(seed, radius, count, crowded):
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**64, count, dtype=np.uint64)
    near = hashes[rng.integers(0, max(count, 1), count)] if count else hashes
    for _ in range(int(rng.integers(0, 8))):
        near = near ^ (np.uint64(1) << rng.integers(0, 64, count, dtype=np.uint64))
    if crowded:
        hashes = np.concatenate([hashes, near, near[:5], near[:5]])
        near = hashes
    found = near_pairs(hashes, near, radius)
    assert np.array_equal(found, all_pairs(hashes, near, radius).reshape(-1, 2))


def same(a, b, radius=6, colours=24.0):
    looks = [image_signature(a), image_signature(b)]
    hashes, mirrored = (np.array([getattr(look, name) for look in looks], np.uint64) for name in ("hash", "mirrored"))
    return len(near_duplicates(hashes, mirrored, np.stack([look.colours for look in looks]), radius, colours)) == 1


def test_the_hash_of_the_mirror_image_follows_from_the_picture():
    for seed in range(20):
        image = picture(seed)
        ours, theirs = image_signature(image), image_signature(image[:, ::-1])
        assert (ours.mirrored, ours.hash) == (theirs.hash, theirs.mirrored)


def changed(image, how):
    if how == "jpeg":
        out = io.BytesIO()
        image.save(out, "JPEG", quality=60)
        return Image.open(out)
    if how == "brighter":
        return ImageEnhance.Brightness(image).enhance(1.08)
    if how == "mirrored":
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    size = {"half": (80, 60), "mirrored": (150, 110), "stretched": (200, 110)}[how]
    return image.resize(size, Image.Resampling.BICUBIC)


@pytest.mark.parametrize("how", ["jpeg", "half", "mirrored", "brighter", "stretched"])
def test_changed_copies_are_found(how):
    found = 0
    for seed in range(20):
        image = Image.fromarray(picture(seed, 120, 160))
        found += same(np.asarray(image), np.asarray(changed(image, how).convert("RGB")))
    assert found >= 19


def test_different_pictures_are_not_the_same():
    looks = [image_signature(picture(seed, 96, 128)) for seed in range(60)]
    hashes, mirrored = (np.array([getattr(look, name) for look in looks], np.uint64) for name in ("hash", "mirrored"))
    assert len(near_duplicates(hashes, mirrored, np.stack([look.colours for look in looks]), 6, 24.0)) == 0


def test_colours_tell_apart_what_the_hash_does_not():
    image = picture(3, 96, 128).astype(int)
    other = image.copy()
    other[..., 0], other[..., 2] = image[..., 0] * 0.3, np.clip(image[..., 2] * 0.3, 0, 255)
    other[..., 1] = np.clip((image @ (0.299, 0.587, 0.114) - 0.299 * other[..., 0] - 0.114 * other[..., 2]) / 0.587, 0, 255)
    other = other.astype(np.uint8)
    assert same(image.astype(np.uint8), other, colours=255.0), "as grey pictures they are the same"
    assert not same(image.astype(np.uint8), other)


def test_a_thousand_copies_of_one_picture_make_one_group_and_few_pairs():
    look = image_signature(picture(1))
    n = 1000
    hashes, mirrored = np.full(n, look.hash, np.uint64), np.full(n, look.mirrored, np.uint64)
    pairs = near_duplicates(hashes, mirrored, np.repeat(look.colours[None], n, axis=0), 6, 24.0)
    assert len(pairs) < 4 * n
    assert (groups_of(pairs, n) == 0).all()


def test_groups_follow_chains_and_stand_under_their_first():
    assert groups_of(np.array([[3, 4], [1, 3], [5, 6]]), 7).tolist() == [0, 1, 2, 1, 1, 5, 5]


def test_a_plain_picture_is_known():
    assert image_signature(np.full((20, 30, 3), 77, np.uint8)).one_colour
    assert not image_signature(picture(0)).one_colour

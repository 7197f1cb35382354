"""Square examples: the centre of the image and of its ground truth, at one size."""

import numpy as np

from uss_dagster.artifacts.image_files import decode, encode_png
from uss_dagster.datasets.base import Example
from uss_dagster.datasets.preparation.cropping import centre_crop
from uss_dagster.regions import Regions


def example(height: int, width: int) -> tuple[Example, np.ndarray]:
    labels = (np.indices((height, width))[1] * 4 // width).astype(np.int64) + 1  # four upright stripes
    pixels = np.repeat((labels * 60).astype(np.uint8)[..., None], 3, axis=2)
    truth = Regions.from_tree(labels, [-1, 0, 0, 0, 0], label=[0, 5, 6, 7, 8])
    return Example("a", encode_png(pixels), ".jpg", "val", truth), labels


def test_image_and_truth_are_cut_alike():
    whole, labels = example(40, 80)
    square = centre_crop(whole, 20)
    assert (square.image_id, square.split, square.suffix) == ("a", "val", ".png")
    pixels = decode(square.image, "a")
    assert pixels.shape == (20, 20, 3)
    assert square.truth.shape == (20, 20)
    assert square.truth.label.tolist() == [0, 6, 7], "outer stripes are cut away"
    assert np.array_equal(square.truth.mask(1), (labels[:, 20:60] == 2)[1::2, 1::2])
    inside = [2, 17]  # away from the border between the stripes, where the image is interpolated
    assert (pixels[:, inside, 0] == [120, 180]).all()


def test_a_square_of_the_right_size_stays_as_it_is():
    whole, _ = example(32, 32)
    square = centre_crop(whole, 32)
    assert np.array_equal(decode(square.image, "a"), decode(whole.image, "a"))
    assert np.array_equal(square.truth.atoms, whole.truth.atoms)


def test_truth_of_another_size_is_left_to_the_check_that_refuses_it():
    whole, _ = example(40, 80)
    other = Example("a", encode_png(np.zeros((30, 80, 3), np.uint8)), ".png", "val", whole.truth)
    assert centre_crop(other, 20) is other

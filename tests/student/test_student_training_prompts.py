"""Where masks are clicked in training, and what the answers are."""

from __future__ import annotations

import numpy as np

from uss_dagster.student.training_prompts import click_answers, sample_clicks


def test_clicks_are_near_the_middle_of_masks_and_know_what_lies_there() -> None:
    masks = np.zeros((3, 24, 24), np.float32)
    masks[0, 4:20, 4:20] = 1
    masks[1, 10:14, 10:14] = 1
    masks[2, 2:5, 20:23] = 1
    points = sample_clicks(masks, 40, np.random.default_rng(1))
    places = (points * 24).astype(int)
    assert masks[:, places[:, 1], places[:, 0]].any(axis=0).all()
    big = places[(places[:, 0] < 20) & (places[:, 1] > 5)]
    assert (np.abs(big - 12) <= 3).all()  # a disc of a tenth of 16 pixels around the middle
    indices = click_answers(masks, np.array([[0.5, 0.5], [0.25, 0.25], [0.99, 0.99]], np.float32), 3)
    assert indices.tolist() == [[1, 0, -1], [0, -1, -1], [-1, -1, -1]]


def test_of_many_masks_at_a_click_those_of_evenly_spaced_size_are_wanted() -> None:
    masks = np.array([np.pad(np.ones((2 * r, 2 * r), np.float32), 12 - r) for r in range(1, 8)])[::-1]
    assert click_answers(masks, np.array([[0.5, 0.5]], np.float32), 3).tolist() == [[6, 3, 0]]

"""Checks of what several graph algorithms read: grids of features and matrices of weights."""

from __future__ import annotations

import numpy as np

from uss_dagster.errors import BadData

_ROWS = 512


def check_grid(features: np.ndarray) -> np.ndarray:
    """Features (h, w, C), refused if they are empty or not finite."""
    if features.ndim != 3 or 0 in features.shape[:2] or not np.isfinite(features).all():
        raise BadData(f"Features of shape {features.shape} are no grid of finite features (h, w, C); extract them again.")
    return features


def check_weights(weights: np.ndarray) -> np.ndarray:
    """Weights of a graph (n, n), n ≥ 1, refused if they are negative, not finite or not symmetric."""
    if weights.ndim != 2 or weights.shape[0] != weights.shape[1] or not len(weights):
        raise BadData(f"The affinity has shape {weights.shape}, expected one or more rows and as many columns.")
    if not np.isfinite(weights).all() or weights.min() < 0:
        raise BadData("The affinity holds values that are negative or not finite, expected weights of 0 or more.")
    greatest = weights.max()
    for start in range(0, len(weights), _ROWS):  # by blocks: a transposed copy would double the memory
        rows, columns = weights[start : start + _ROWS], weights[:, start : start + _ROWS].T
        if np.abs(rows - columns).max() > 1e-6 * greatest:
            raise BadData("The affinity is not symmetric. Use (A + Aᵀ) / 2 if that is what is meant.")
    return weights

"""Lengths of feature vectors."""

from __future__ import annotations

import numpy as np


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (…, C) at length 1; a zero vector stays zero."""
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12))


def scaled_tokens(tokens: np.ndarray, power: float) -> np.ndarray:
    """Tokens (h, w, C), centred, of mean squared norm ``power``; constant tokens become zeros."""
    centred = tokens - tokens.mean(axis=(0, 1), dtype=np.float64)
    mean_square = (centred**2).sum(axis=2).mean()
    return centred * np.sqrt(power / mean_square) if mean_square > 1e-12 else np.zeros_like(centred)

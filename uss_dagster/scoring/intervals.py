"""Intervals over images from bootstrap replicates, and which of many entries differ.

Replicates weigh images by Poisson(1) draws from the image's id (``metrics.base.poisson_weights``). The standard deviation of a mean over
them is that of s / √n but for a known factor, since a replicate has N ~ Poisson(n) images: its variance is s² (n − 1)/n · E[1/N]. A
normal quantile would take s for known, which is wrong for few images (coverage .88 at n = 5 and 95 %). So every width is the width over
replicates, corrected by that factor, with Student's t of n − 1 degrees in place of the normal distribution. For a mean of normal scores
this is exact; for other numbers and distributions ``benchmarks/ties.py`` measures it. One image has no interval.

Among K entries there are K(K−1)/2 pairs, and some pair seems to differ by chance in most tables if each is judged alone. ``half_widths``
judges all pairs by Holm's procedure: the chance that any pair is wrongly told apart is 5 %, whatever the correlation.

References: Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 1979; Al Mohamad, Goeman
and van Zwet, "Simultaneous confidence intervals for ranks with application to ranking institutions", Biometrics 2022.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

CONFIDENCE = 0.95
_ERROR = 1 - CONFIDENCE
_ROUNDING = 1e-12
"""Deviations below this share of the values are rounding."""


def interval(value: float, samples: np.ndarray, images: int) -> tuple[float, float]:
    """The 95 % interval of a number over images.

    Parameters
    ----------
    value : float
        The number.
    samples : ndarray
        (R,), the number of each bootstrap replicate; undefined ones are left out.
    images : int
        How many images it is of.

    Returns
    -------
    low, high : float
        The value plus what the replicates' percentiles are from their median, widened for few images. So the value lies inside, also where
        replicates are biased, as those of an optimal matching are. NaN for one image, or fewer than two defined replicates.
    """
    defined = np.asarray(samples, float)
    defined = defined[np.isfinite(defined)]
    if images < 2 or len(defined) < 2:
        return math.nan, math.nan
    low, middle, high = np.quantile(defined, [_ERROR / 2, 0.5, 1 - _ERROR / 2], method="weibull")
    wider = float(_t(images - 1, _ERROR) / -special.ndtri(_ERROR / 2)) * _correction(images)
    return value - wider * float(middle - low), value + wider * float(high - middle)


@dataclass(frozen=True)
class Pairs:
    """Differences of all pairs of K entries on the same images.

    Parameters
    ----------
    difference : ndarray
        (K, K), row less column.
    error : ndarray
        (K, K), its standard error; NaN where nothing is known of it.
    images : ndarray
        (K, K), images of that of both which has fewer.
    freedom : ndarray
        (K, K), degrees of freedom of the error: those of the images, or of the replicates where they are fewer.
    """

    difference: np.ndarray
    error: np.ndarray
    images: np.ndarray
    freedom: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, samples: np.ndarray, images: np.ndarray) -> Pairs:
        """Pairs of entries.

        Parameters
        ----------
        values : ndarray
            (K,), the numbers.
        samples : ndarray
            (R, K), those of each bootstrap replicate; replicates weigh images alike for all entries.
        images : ndarray
            int (K,), how many images each number is of.
        """
        k = len(values)
        error, freedom = np.full((k, k), np.nan), np.zeros((k, k))
        fewer = np.minimum.outer(images, images)
        corrections = {int(n): _correction(int(n)) for n in np.unique(fewer) if n > 1}
        rounding = _ROUNDING * np.abs(samples[np.isfinite(samples)]).max(initial=0)
        for i in range(k):
            gaps = samples[:, i, None] - samples
            defined = np.isfinite(gaps)
            count = defined.sum(axis=0)
            gaps = np.where(defined, gaps, 0)
            mean = gaps.sum(axis=0) / np.maximum(count, 1)
            spread = np.sqrt((np.where(defined, gaps - mean, 0) ** 2).sum(axis=0) / np.maximum(count - 1, 1))
            spread = np.where(spread > rounding, spread, 0) * [corrections.get(int(n), np.nan) for n in fewer[i]]
            freedom[i] = np.minimum(count, fewer[i]) - 1
            error[i] = np.where(freedom[i] > 0, spread, np.nan)
        return cls(np.subtract.outer(values, values), error, fewer, freedom)

    def chance(self) -> np.ndarray:
        """(K, K), two-sided p-value of each difference; NaN where it is not tested.

        Where all images show the same difference, that of the sign test: few images may agree by chance.
        """
        size = np.abs(self.difference)
        with np.errstate(divide="ignore", invalid="ignore"):
            p = 2 * special.stdtr(self.freedom, -size / self.error)
        alike = np.where(size > 0, 2.0 ** (1 - self.images.astype(float)), 1.0)
        return np.where(np.isnan(self.error), np.nan, np.where(self.error > 0, p, alike))


def half_widths(families: Sequence[Pairs]) -> list[np.ndarray]:
    """Half the width of the interval of each difference, which does not hold 0 exactly where Holm's procedure tells the pair apart.

    Its level is that at which the procedure stops, 5 % over the pairs not told apart: a single interval misses with at most 5 %.

    Parameters
    ----------
    families : sequence of Pairs
        All their pairs are judged together, for example those of several datasets.

    Returns
    -------
    list of ndarray
        (K, K) for each of them; NaN where a pair is not tested.
    """
    chances = [pairs.chance() for pairs in families]
    above = np.concatenate([chance[np.triu_indices(len(chance), 1)] for chance in chances] or [np.zeros(0)])
    ascending = np.sort(above[np.isfinite(above)])
    steps = len(ascending) - np.arange(len(ascending))
    apart = int(np.logical_and.accumulate(ascending <= _ERROR / steps).sum())
    level = _ERROR / max(len(ascending) - apart, 1)
    halves = []
    for pairs, chance in zip(families, chances, strict=True):
        alike = np.where(chance <= level, 0, np.abs(pairs.difference))
        half = np.where(pairs.error > 0, pairs.error * _t(pairs.freedom, level), alike)
        halves.append(np.where(np.isnan(chance), np.nan, half))
    return halves


def rank_bounds(pairs: Pairs, half: np.ndarray, higher_is_better: bool) -> tuple[np.ndarray, np.ndarray]:
    """The least and the greatest rank of each entry that its differences from all others allow, int (K,) each.

    Where no pair is wrongly told apart, every true rank lies between them.
    """
    better = pairs.difference > half if higher_is_better else pairs.difference < -half
    return 1 + better.sum(axis=0), len(half) - better.sum(axis=1)


def _t(freedom: np.ndarray | int, error: float) -> np.ndarray:
    """The quantile of |t| that is exceeded with this probability."""
    return -special.stdtrit(freedom, error / 2)


@functools.cache
def _correction(images: int) -> float:
    """Standard error of a mean over two images or more, by the deviation of its replicates, which have N ~ Poisson(images) images."""
    count = np.arange(1, int(images + 12 * math.sqrt(images) + 40))
    chance = np.exp(count * math.log(images) - images - special.gammaln(count + 1))
    return 1 / math.sqrt((images - 1) * float((chance / count).sum() / chance.sum()))

"""What samples say: a median with a 95 % bootstrap interval, a ratio of two, and whether a gain is sure.

The intervals are percentile intervals of `scipy.stats.bootstrap` (the jackknife that BCa needs is degenerate for a median),
from a fixed seed: the same samples always give the same digits.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.cli import BadInput

LEVEL = 0.95
RESAMPLES = 2000
MANY = 2000
"""Samples beyond which the interval of a quantile is not resampled but computed, as it would be of endless resamples."""
_BATCH = 4_000_000  # values drawn at a time: bounds the memory of large sample sets to some 30 MB


@dataclass(frozen=True)
class Summary:
    """A median (or what the function that made it says) with its 95 % interval from `n` samples.

    `low` and `high` are NaN where there is no interval: one sample says nothing of its spread.
    """

    median: float
    low: float
    high: float
    n: int


def summary(samples: Sequence[float], quantile: float = 0.5) -> Summary:
    """The median of `samples`, or another quantile of theirs, with its interval.

    Infinite samples are allowed (a request never answered); a quantile that falls on one is infinite. Raises BadInput
    where there are no samples, or one is NaN.
    """
    values = _checked(samples)
    if quantile != 0.5 or len(values) > MANY or not np.isfinite(values).all():
        return _order_statistic(np.sort(values), quantile)
    low, high = _interval((values,), np.median)
    return Summary(float(np.median(values)), low, high, len(values))


def ratio(above: Sequence[float], below: Sequence[float]) -> Summary:
    """The ratio of the two medians, `above` over `below`, with its interval; the sets are independent; n is the smaller one's."""
    a, b = _checked(above), _checked(below)
    if min(b) <= 0:
        raise BadInput(f"samples below the ratio: {min(b)} is not positive; a ratio of times needs positive times")

    def statistic(resampled_a: np.ndarray, resampled_b: np.ndarray, axis: int) -> np.ndarray:
        return np.median(resampled_a, axis=axis) / np.median(resampled_b, axis=axis)

    low, high = _interval((a, b), statistic)
    return Summary(float(np.median(a) / np.median(b)), low, high, min(len(a), len(b)))


def mean(clusters: Sequence[Sequence[float]]) -> Summary:
    """The mean of all samples, with an interval over their `clusters`, such as the answers to one question; n counts the clusters."""
    sums, counts = (_checked([function(cluster) for cluster in clusters]) for function in (sum, len))

    def statistic(resampled: np.ndarray, axis: int) -> np.ndarray:
        return np.sum(sums[resampled], axis=axis) / np.sum(counts[resampled], axis=axis)

    low, high = _interval((np.arange(len(sums)),), statistic)
    return Summary(float(sums.sum() / counts.sum()), low, high, len(sums))


def order_interval(samples: Sequence[float]) -> tuple[float, float]:
    """Two of the samples between which the median lies with 95 % confidence, of any distribution; of fewer than six, the outer two."""
    ordered = sorted(samples)
    rank = _rank(len(ordered))
    return ordered[rank - 1], ordered[-rank]


@functools.cache
def _rank(n: int) -> int:
    """The samples of that rank from below and from above enclose the median of `n`: each falls below it as a coin falls.

    The quantile of a binomial distribution, without SciPy, whose import would take seconds of a GPU's time in the midst of a race.
    """
    below = itertools.accumulate(math.comb(n, heads) / 2**n for heads in range(n + 1))
    return max(1, next(heads for heads, share in enumerate(below) if share >= (1 - LEVEL) / 2))


def beats(gain: Summary, noise: float) -> bool:
    """Whether a `gain` (the ratio of the slower's times to the faster's) is sure: its interval above 1, itself above the noise.

    `noise` is the job's noise floor, a relative difference; NaN where no A/A pair was measured, which counts as 0.
    """
    floor = 0.0 if math.isnan(noise) else noise
    return gain.low > 1 and gain.median > 1 + floor  # false where there is no interval


def _checked(samples: Sequence[float]) -> np.ndarray:
    values = np.asarray(samples, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise BadInput(f"samples: shape {values.shape}; one or more numbers in a row are needed")
    if np.isnan(values).any():
        raise BadInput("samples: NaN among them; a measurement that failed has no samples")
    return values


def _order_statistic(ordered: np.ndarray, quantile: float) -> Summary:
    """The `quantile` of sorted values as one of them, never between two; resamples their ranks, which are finite where they are not.

    A resample's quantile is at most the value of rank r where enough of its draws are, and those are as many as a binomial says.
    """
    if len(ordered) > MANY:
        return _of_many(ordered, quantile)

    def statistic(ranks: np.ndarray, axis: int) -> np.ndarray:
        return np.quantile(ranks, quantile, axis=axis, method="inverted_cdf")

    ranks = np.arange(len(ordered), dtype=np.float64)
    middle = float(ordered[rank(len(ordered), quantile)])
    low, high = _interval((ranks,), statistic)
    if math.isnan(low):
        return Summary(middle, low, high, len(ordered))
    return Summary(middle, float(ordered[math.floor(low)]), float(ordered[math.ceil(high)]), len(ordered))


def rank(n: int, quantile: float) -> int:
    """Where a quantile of `n` sorted values stands among them, from 0: always at one of them, never between two."""
    return int(np.quantile(np.arange(n), quantile, method="inverted_cdf"))


def _of_many(ordered: np.ndarray, quantile: float) -> Summary:
    from scipy.stats import binom

    n, needed = len(ordered), 1 + rank(len(ordered), quantile)
    at_most = binom.sf(needed - 1, n, np.arange(1, n + 1) / n)  # by rank, that a resample's quantile is no higher
    low, high = (int(np.searchsorted(at_most, share)) for share in ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Summary(float(ordered[needed - 1]), float(ordered[low]), float(ordered[min(high, n - 1)]), n)


def _interval(data: tuple[np.ndarray, ...], statistic: Callable[..., np.ndarray]) -> tuple[float, float]:
    if min(map(len, data)) < 2:
        return math.nan, math.nan
    from scipy.stats import bootstrap

    largest = max(map(len, data))
    found = bootstrap(
        data,
        statistic,
        vectorized=True,
        paired=False,
        confidence_level=LEVEL,
        n_resamples=RESAMPLES,
        batch=max(1, min(RESAMPLES, _BATCH // largest)),
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    value = float(statistic(*data, axis=0))  # which a quantile between equal resamples may miss by its rounding
    return min(float(found.low), value), max(float(found.high), value)

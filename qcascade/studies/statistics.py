"""Means over seeds with their spread and intervals, and pairs of them compared (scipy)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from qcascade.errors import ExecutionError


@dataclass(frozen=True, slots=True)
class Summary:
    """Mean, standard deviation (n − 1) and Student's interval; one value has neither of the latter."""

    count: int
    mean: float
    deviation: float | None
    low: float | None
    high: float | None

    def __str__(self) -> str:
        return f"{self.mean:.2f}" if self.deviation is None else f"{self.mean:.2f} ± {self.deviation:.2f}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Differences of pairs: their mean with its interval, and how likely such ones are by chance.

    None: not defined, since there is one pair or all differ alike; the signed-rank test not for pairs that overlap either.
    """

    count: int
    difference: float
    low: float | None
    high: float | None
    t_test: float | None  # p of the paired t-test
    wilcoxon: float | None  # p of the signed-rank test; with n pairs never below 2^(1 − n)


def summarise(values: Sequence[float], confidence: float = 0.95) -> Summary:
    """Of one figure over seeds.

    Raises:
        ExecutionError: There are no values.

    Example:
        >>> str(summarise([1.0, 2.0, 3.0]))
        '2.00 ± 1.00'
    """
    if not values:
        raise ExecutionError("there are no values to summarise; run at least one seed.")
    mean = fmean(values)
    if len(values) == 1:
        return Summary(1, mean, None, None, None)
    deviation = stdev(values)
    half = _quantile(len(values) - 1, confidence) * deviation / math.sqrt(len(values))
    return Summary(len(values), mean, deviation, mean - half, mean + half)


def compare(
    first: Sequence[float], second: Sequence[float], confidence: float = 0.95, overlap: float = 0.0
) -> Comparison:
    """Second less first, pair by pair (the same seed).

    Args:
        first: A figure of every pair.
        second: The other's.
        confidence: Of the interval.
        overlap: Of cross-validation, test texts over training texts of a pair. What pairs were trained on overlaps, so that their
            differences vary together: their mean's variance is taken as (1/n + overlap) of theirs, instead of 1/n.

    Raises:
        ExecutionError: They are not pairs.

    Source:
        Nadeau and Bengio (2003), "Inference for the generalization error", Machine Learning 52, section 4: the corrected resampled
        t-test.

    Example:
        >>> compare([1.0, 2.0, 4.0], [2.0, 3.5, 4.5]).difference
        1.0
    """
    from scipy.stats import t, wilcoxon

    if len(first) != len(second):
        raise ExecutionError(f"{len(first)} and {len(second)} values are no pairs; run the same seeds for both.")
    exact = [b - a for a, b in zip(first, second, strict=True)]
    largest = max(map(abs, (*first, *second)), default=0.0)
    digits = 12 - math.ceil(math.log10(largest or 1.0))  # what subtraction leaves beyond them is rounding
    differences = [round(difference, digits) for difference in exact]
    found = summarise(differences)
    if not found.deviation:  # one pair, or all differences alike, which would make an interval of no width
        return Comparison(found.count, found.mean, None, None, None, None)
    error = found.deviation * math.sqrt(1 / found.count + overlap)
    half = _quantile(found.count - 1, confidence) * error
    return Comparison(
        found.count,
        found.mean,
        found.mean - half,
        found.mean + half,
        float(2 * t.sf(abs(found.mean) / error, found.count - 1)),
        None if overlap else float(wilcoxon(differences).pvalue),
    )


def _quantile(freedom: int, confidence: float) -> float:
    from scipy.stats import t

    return float(t.ppf((1 + confidence) / 2, freedom))

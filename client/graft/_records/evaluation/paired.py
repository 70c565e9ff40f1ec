"""Intervals of the difference of two figures that were measured on the same examples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from graft._records.evaluation.comparisons import Difference

Z_95: Final = 1.959963984540054
PROPORTIONS: Final = "Newcombe's hybrid score interval for paired proportions (1998, method 10)"
JACKKNIFE: Final = "jackknife over examples (Efron and Stein 1981)"


def of_proportions(both: int, first_only: int, second_only: int, neither: int) -> Difference:
    """The difference of two shares of the same examples, with its 95% interval.

    Newcombe, "Improved confidence intervals for the difference between binomial proportions based on paired data",
    Statistics in Medicine 17 (1998), method 10: the score intervals of both shares, put together by their
    correlation, which is corrected for continuity.

    Args:
        both: How many examples both are right on.
        first_only: How many the first alone.
        second_only: How many the second alone.
        neither: How many neither.
    """
    n = both + first_only + second_only + neither
    first, second = (both + first_only) / n, (both + second_only) / n
    first_low, first_high = wilson(first, n)
    second_low, second_high = wilson(second, n)
    phi = _correlation(both, first_only, second_only, neither)

    def distance(one: float, other: float) -> float:
        return math.sqrt(max(0.0, one * one - 2 * phi * one * other + other * other))

    value = second - first
    low = value - distance(second - second_low, first_high - first)
    high = value + distance(second_high - second, first - first_low)
    return Difference(value, low, high, PROPORTIONS)


def wilson(share: float, n: int) -> tuple[float, float]:
    """The 95% score interval of a share of n examples (Wilson 1927)."""
    square = Z_95 * Z_95
    middle = share + square / (2 * n)
    half = Z_95 * math.sqrt(share * (1 - share) / n + square / (4 * n * n))
    scale = 1 + square / n
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def _correlation(both: int, first_only: int, second_only: int, neither: int) -> float:
    n = both + first_only + second_only + neither
    margins = (both + first_only) * (second_only + neither) * (both + second_only) * (first_only + neither)
    if not margins:
        return 0.0
    product = both * neither - first_only * second_only
    corrected = max(product - n / 2, 0.0) if product > 0 else float(product)
    return corrected / math.sqrt(margins)


def of_sums(rows: Sequence[tuple[float, ...]], figure: Callable[[Sequence[float]], float]) -> Difference:
    """A figure of sums over examples, such as a difference of two ratios, with its 95% interval by the jackknife.

    Args:
        rows: What each example adds to the sums, n tuples of equal length, n of 2 or more.
        figure: The figure, from the sums.
    """
    n = len(rows)
    totals = [math.fsum(column) for column in zip(*rows, strict=True)]
    value = figure(totals)
    known: dict[tuple[float, ...], float] = {}
    without = []
    for row in rows:
        if row not in known:
            known[row] = figure([total - part for total, part in zip(totals, row, strict=True)])
        without.append(known[row])
    mean = math.fsum(without) / n
    error = math.sqrt((n - 1) / n * math.fsum((it - mean) ** 2 for it in without))
    return Difference(value, value - Z_95 * error, value + Z_95 * error, JACKKNIFE)

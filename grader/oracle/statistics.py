"""Bounds that a sample of standard normal noise crosses with a stated probability, and no more.

`rate` is the false-failure rate: the probability that noise which is right crosses the bound. The bounds hold
at every sample size, but for `normal_quantile`, which is used on statistics that are exactly normal.
"""

from __future__ import annotations

import math
from functools import cache
from statistics import NormalDist


def normal_quantile(rate: float) -> float:
    """z with P(|N(0, 1)| > z) = rate."""
    return -NormalDist().inv_cdf(rate / 2)


def mean_bound(count: int, rate: float) -> float:
    """Bound on |mean| of `count` standard normal numbers; exact."""
    return normal_quantile(rate) / math.sqrt(count)


@cache
def variance_bounds(count: int, rate: float) -> tuple[float, float]:
    """Bounds on the mean of squares of `count` standard normal numbers; the lower one is positive.

    Chernoff's bound: P(mean <= a) and P(mean >= a) are at most exp(-count / 2 (a - 1 - log a)) on their side of 1.
    """
    x = 2 * math.log(2 / rate) / count
    return _crossing(x, math.exp(-1 - x)), _crossing(x, 2 * (1 + x) + 2 * math.sqrt(x))


def _crossing(x: float, outside: float) -> float:
    """The a between 1 and `outside` with a - 1 - log a = x, by bisection."""
    inside = 1.0
    for _ in range(200):
        middle = (inside + outside) / 2
        if middle - 1 - math.log(middle) < x:
            inside = middle
        else:
            outside = middle
    return outside


def distribution_bound(count: int, rate: float) -> float:
    """Bound on the greatest distance between the empirical and the true distribution function.

    Massart, "The tight constant in the Dvoretzky-Kiefer-Wolfowitz inequality" (1990).
    """
    return math.sqrt(math.log(2 / rate) / (2 * count))


def rare_event_bounds(count: int, probability: float, rate: float) -> tuple[int, int]:
    """Least and greatest number of `count` numbers that may fall where each does with `probability`.

    Chernoff's bound in its Poisson form: P(X <= k) and P(X >= k) are at most exp(-(m - k + k log(k / m))) on their
    side of the mean m.
    """
    mean, x = count * probability, math.log(2 / rate)

    def exponent(k: int) -> float:
        return mean - k + (k * math.log(k / mean) if k else 0.0)

    low, high = math.floor(mean), math.ceil(mean)
    while low > 0 and exponent(low - 1) < x:
        low -= 1
    while exponent(high + 1) < x:
        high += 1
    return (0 if exponent(0) < x else low), high

"""Bounds that a sample of standard normal noise crosses with a stated probability, and no more.

`rate` is the false-failure rate: the probability that noise which is right crosses the bound. The bounds hold
at every sample size, but for `normal_quantile`, which is used on statistics that are exactly normal.
"""

from __future__ import annotations

import math
from statistics import NormalDist


def normal_quantile(rate: float) -> float:
    """z with P(|N(0, 1)| > z) = rate."""
    return -NormalDist().inv_cdf(rate / 2)


def mean_bound(count: int, rate: float) -> float:
    """Bound on |mean| of `count` standard normal numbers; exact."""
    return normal_quantile(rate) / math.sqrt(count)


def variance_bounds(count: int, rate: float) -> tuple[float, float]:
    """Bounds on the mean of squares of `count` standard normal numbers.

    Laurent and Massart, "Adaptive estimation of a quadratic functional by model selection" (2000), lemma 1.
    """
    x = math.log(2 / rate) / count
    return 1 - 2 * math.sqrt(x), 1 + 2 * math.sqrt(x) + 2 * x


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

"""Judges whether noise is standard normal and independent, at a stated false-failure rate.

Six statistics share the rate of `RATE` equally. Mean, and the inner product of two slices divided by the length
of one, are exactly normal; the others have bounds that hold at every sample size (`grader.oracle.statistics`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from grader.oracle.statistics import (
    distribution_bound,
    mean_bound,
    normal_quantile,
    rare_event_bounds,
    variance_bounds,
)

from .expect import wrong
from .margins import within

RATE = 1e-10  # at most, for one call; a check that makes ten calls keeps the 1e-9 it may spend
SHARE = RATE / 6
GRID, GRID_ENDS = 512, (-4.0, 4.0)
TAIL = 3.5  # 1 in 2,149 numbers lies outside
SAME, FEWEST = 0.999, 128
SAME_ENDS, MANY_ENDS = 1e-4, 8
FEW_VALUES = 10
REACH = 3.2  # standard deviations that the largest of 10,000 normal numbers is within with a probability below 1e-5


def expect_standard_normal(noise: Tensor, axes: dict[str, tuple[int, ...]], what: str) -> None:
    """Expect independent standard normal numbers.

    Args:
        noise: the numbers, a finite tensor in float64.
        axes: by name ("image", "channel"), the axes along which slices of `noise` must be independent.
        what: what the numbers are, to begin a sentence with.

    Raises:
        Failure: with probability at most RATE if the noise is right.
    """
    count, slices = noise.numel(), _slices(noise, axes)
    _expect_distinct(noise, slices, what)
    _expect_mean(noise, count, what)
    _expect_variance(noise, count, what)
    _expect_distribution(noise, count, what)
    _expect_not_cut_off(noise, what)
    for name, some in slices.items():
        _expect_uncorrelated(some, name, what, SHARE / len(slices))


def expect_distinct(noise: Tensor, axes: dict[str, tuple[int, ...]], what: str) -> None:
    """Expect numbers that differ, in slices none of which is another up to sign; as for `expect_standard_normal`."""
    _expect_distinct(noise, _slices(noise, axes), what)


def expect_not_reordered(noise: Tensor, axis: int, name: str, what: str) -> None:
    """Expect that no slice of normal numbers along an axis has those of another in another order, or their negatives.

    The largest of a slice's FEWEST or more numbers are those of another to SAME_ENDS at a rate below 1e-40.

    Args:
        noise: the numbers, in float64.
        axis: along which `noise` is sliced.
        name: of a slice.
        what: what the numbers are, to begin a sentence with.
    """
    sizes = noise.movedim(axis, 0).flatten(1).abs().sort(dim=1, descending=True).values[:, :FEWEST]
    apart = (sizes[:, None] - sizes[None]).abs().amax(dim=2).fill_diagonal_(1.0)
    if float(apart.min()) < SAME_ENDS:
        raise wrong(f"{what} is used again: one {name} has that of another in another order.", _own_noise(name))


@dataclass(frozen=True)
class Slices:
    """Slices of numbers along an axis.

    Attributes:
        rows: (n, m), one slice each.
        products: (n, n), inner products of all pairs of rows, with a zero diagonal.
        lengths: (n,), Euclidean lengths of the rows.
    """

    rows: Tensor
    products: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, rows: Tensor) -> Slices:
        """Slices that are the rows of (n, m)."""
        products = rows @ rows.T
        return cls(rows, products.clone().fill_diagonal_(0), products.diagonal().sqrt())


def _expect_distinct(noise: Tensor, slices: Mapping[str, Slices], what: str) -> None:
    """`expect_distinct`, of slices by name."""
    if float(noise.abs().max()) == 0:
        raise wrong(f"{what} is zero: nothing random was added.")
    if float(noise.max() - noise.min()) < 1e-3:
        raise wrong(f"{what} is the same number everywhere, {float(noise.mean()):.4g}: nothing random was added.")
    alike = {name: _alike(some, name) for name, some in slices.items()}
    name = max(alike, key=lambda name: float(alike[name].abs().mean()))  # sharing along one axis shows in others too
    if bool(alike[name].any()):
        flipped = "" if bool((alike[name] > 0).any()) else ", with the sign flipped"
        raise wrong(f"{what} is shared: one {name} has the same noise as another{flipped}.", _own_noise(name))


def _slices(noise: Tensor, axes: dict[str, tuple[int, ...]]) -> dict[str, Slices]:
    """By name, the slices of `noise` along some axes."""
    first = {name: noise.movedim(along, tuple(range(len(along)))) for name, along in axes.items()}
    rows = {name: x.flatten(len(axes[name])).flatten(0, len(axes[name]) - 1) for name, x in first.items()}
    return {name: Slices.of(x) for name, x in rows.items()}


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation of every number, broadcast to them."""

    mean: Tensor
    std: Tensor

    def fit(self, drawn: Tensor, by: Sequence[Tensor]) -> bool:
        """Whether numbers have these moments where each of `by` is small, and where it is large."""
        noise = (drawn - self.mean) / self.std
        return all(_standard_by(noise, x) for x in by)


def expect_moments(drawn: Tensor, right: Moments, mistaken: Callable[[], Mapping[str, Moments]], what: str) -> None:
    """Explain numbers of a wrong mean or standard deviation, if a known mistake does; the check proper comes after.

    Args:
        drawn: the numbers, in float64.
        right: their right moments.
        mistaken: gives wrong moments, by the sentence that says what was done.
        what: what the numbers are, to begin a sentence with.
    """
    by = right.mean, right.std
    if right.fit(drawn, by):
        return
    for sentence, moments in mistaken().items():
        if moments.fit(drawn, by):
            raise wrong(f"{what} does not have the right mean and standard deviation.", sentence)


def _standard_by(noise: Tensor, x: Tensor) -> bool:
    """Whether numbers have mean 0 and variance 1 where `x`, which is broadcast to them, is large, and where small."""
    large, squares, times = (x > x.mean()).double(), noise.square(), noise.numel() // x.numel()
    return all(
        _standard(float((part * noise).sum()), float((part * squares).sum()), int(part.sum()) * times)
        for part in (large, 1 - large)
    )


def _standard(total: float, squares: float, count: int) -> bool:
    """Whether numbers, by their sum and that of their squares, have mean 0 and variance 1; none of them have."""
    if not count:
        return True
    low, high = variance_bounds(count, SHARE)
    return abs(total / count) < mean_bound(count, SHARE) and low < squares / count < high


def used_between(low: float, value: float, high: float, middle: float = 1.0) -> float:
    """How much of the way from `middle` to a bound a value has gone; 1 is at the bound."""
    return (value - middle) / ((high if value > middle else low) - middle)


def rated(statistic: str, count: int, rate: float) -> str:
    """A statistic, with what its tolerance was bought at."""
    return f"{statistic} of {count:,} numbers, at a rate of {rate:.1e}"


def _own_noise(name: str) -> str:
    """What to do about noise that is shared along an axis."""
    if name in ("call", "step"):
        return f"Draw noise anew in every {name}: no fixed seed, and no noise that is kept."
    return f"Draw noise of the full shape, so that every {name} gets its own."


def _alike(slices: Slices, name: str) -> Tensor:
    """Which pairs of rows are the same: 1, up to their sign: -1, or neither: 0, as (n, n) with a zero diagonal.

    Rows of right noise are neither, but with a probability below 1e-100: the correlation of two slices of FEWEST
    numbers exceeds SAME with a probability below (1 - SAME^2)^(FEWEST / 2 - 1).
    """
    if slices.rows.shape[1] < FEWEST:
        count = slices.rows.shape[1]
        raise ValueError(f"slices along {name} have {count} numbers; {FEWEST} are needed to tell them apart")
    lengths = slices.lengths
    shares = (slices.products / (SAME * lengths[:, None] * lengths[None, :])).nan_to_num()
    within(f"correlations by {name}, at a rate below 1e-100", float(shares.abs().max()))
    return shares.sign() * (shares.abs() >= 1)


def _expect_not_cut_off(noise: Tensor, what: str) -> None:
    """Expect the largest numbers not to be the same one, which a clamp makes of them.

    The MANY_ENDS largest of right numbers, 10^3 or more, are within SAME_ENDS at a rate below 1e-20.
    """
    ends = noise.abs().flatten().topk(min(MANY_ENDS, noise.numel())).values
    if float(ends[0] - ends[-1]) < SAME_ENDS and len(noise.flatten().unique()) > FEW_VALUES:
        bound = float(ends[0])
        raise wrong(
            f"{what} has {MANY_ENDS} or more numbers that are {bound:.4g} up to the sign, and none beyond them.",
            f"It never leaves [{-bound:.2f}, {bound:.2f}]; normal noise does: it is not to be cut off or clamped.",
        )


def _expect_mean(noise: Tensor, count: int, what: str) -> None:
    mean = float(noise.mean())
    if not within(rated("mean", count, SHARE), abs(mean) / mean_bound(count, SHARE)):
        raise wrong(f"{what} has the mean {mean:.4f} over {count:,} numbers; it must be 0.", _explain_range(noise))


def _expect_variance(noise: Tensor, count: int, what: str) -> None:
    variance = float(noise.square().mean())
    low, high = variance_bounds(count, SHARE)
    if not within(rated("variance", count, SHARE), used_between(low, variance, high)):
        raise wrong(
            f"{what} has the standard deviation {math.sqrt(variance):.4f} over {count:,} numbers; it must be 1.",
            _explain_range(noise),
        )


def _expect_distribution(noise: Tensor, count: int, what: str) -> None:
    """The distribution function on a grid, where it is no further from the truth than anywhere, and the tails."""
    low, high = GRID_ENDS
    binned = torch.histc(noise, GRID, low, high).cumsum(0)
    edges = torch.linspace(low, high, GRID + 1, dtype=torch.float64)[1:]
    empirical = ((noise < low).sum() + binned) / count
    distance = float((empirical - torch.special.ndtr(edges)).abs().max())
    if not within(rated("distribution", count, SHARE), distance / distribution_bound(count, SHARE)):
        hint = "The noise must be Gaussian: torch.randn, not torch.rand or another distribution."
        raise wrong(
            f"{what} has mean 0 and variance 1, but is not normally distributed.",
            f"{hint} {_explain_range(noise)}".strip(),
        )
    outside = int((noise.abs() > TAIL).sum())
    probability = math.erfc(TAIL / math.sqrt(2))
    low, high = rare_event_bounds(count, probability, SHARE)
    too_few, too_many = low - 1 if low else -math.inf, high + 1
    used = used_between(too_few, outside, too_many, count * probability)
    if not within(rated(f"share beyond {TAIL:g}", count, SHARE), used):
        few = "too rarely: it is cut off" if outside < low else "too often"
        raise wrong(
            f"{what} leaves [-{TAIL:g}, {TAIL:g}] {few}; it is not normally distributed.", _explain_range(noise)
        )


def _explain_range(noise: Tensor) -> str:
    """What is conspicuous about the range of numbers that should be normal, as a sentence; "" where nothing is."""
    low, high = float(noise.min()), float(noise.max())
    distinct = (noise * 1e3).round().unique().numel()
    if distinct <= FEW_VALUES:
        return f"It takes only {distinct} values."
    if low > -1e-3:
        uniform = "in [0, 1], as the numbers of torch.rand do; those of torch.randn are normal"
        return f"It lies {uniform}." if high < 1.001 else "It is never negative: nothing may cut or flip what is drawn."
    reach = float((noise - noise.mean()).abs().max() / noise.std())
    if reach < REACH and noise.numel() > 10_000 and abs(float(noise.mean())) < float(noise.std()) < 2:
        return f"It never leaves [{low:.2f}, {high:.2f}]; normal noise does: it is not to be cut off or clamped."
    return ""


def _expect_uncorrelated(slices: Slices, name: str, what: str, rate: float) -> None:
    """Every inner product of two slices over the length of the one is standard normal."""
    pairs = len(slices.rows) * (len(slices.rows) - 1)
    if pairs == 0:
        return
    scores = slices.products / slices.lengths[:, None]
    used = float(scores.abs().max()) / normal_quantile(rate / pairs)
    if not within(rated(f"inner products by {name}", slices.rows.numel(), rate), used):
        raise wrong(
            f"{what} is not independent: one {name} can be told from another.",
            _own_noise(name),
        )

"""Judges whether noise is standard normal and independent, at a stated false-failure rate.

Six statistics share the rate of `RATE` equally. Mean, and the inner product of two slices divided by the length
of one, are exactly normal; the others have bounds that hold at every sample size (`grader.oracle.statistics`).
"""

from __future__ import annotations

import math

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

RATE = 1e-10  # at most, for one call; a check that makes ten calls keeps the 1e-9 it may spend
SHARE = RATE / 6
GRID, GRID_ENDS = 512, (-4.0, 4.0)
TAIL = 3.5  # 1 in 2,149 numbers lies outside
SAME, FEWEST = 0.999, 128


def expect_standard_normal(noise: Tensor, axes: dict[str, tuple[int, ...]], what: str) -> None:
    """Expect independent standard normal numbers.

    Args:
        noise: the numbers, a finite tensor in float64.
        axes: by name ("image", "channel"), the axes along which slices of `noise` must be independent.
        what: what the numbers are, to begin a sentence with.

    Raises:
        Failure: with probability at most RATE if the noise is right.
    """
    count = noise.numel()
    if float(noise.abs().max()) == 0:
        raise wrong(f"{what} is zero: nothing random was added.")
    if float(noise.max() - noise.min()) < 1e-3:
        raise wrong(f"{what} is the same number everywhere, {float(noise.mean()):.4g}: nothing random was added.")
    slices = {name: noise.movedim(along, tuple(range(len(along)))) for name, along in axes.items()}
    rows = {name: x.flatten(len(axes[name])).flatten(0, len(axes[name]) - 1) for name, x in slices.items()}
    for name, slice_rows in rows.items():
        _expect_distinct(slice_rows, name, what)
    _expect_mean(noise, count, what)
    _expect_variance(noise, count, what)
    _expect_distribution(noise, count, what)
    for name, slice_rows in rows.items():
        _expect_uncorrelated(slice_rows, name, what, SHARE / len(rows))


def expect_scale(added: Tensor, std: Tensor, mistaken: dict[str, Tensor], what: str) -> None:
    """Explain noise of a wrong standard deviation, if a known mistake explains it; the check proper comes after.

    Args:
        added: scaled noise, in float64.
        std: its right standard deviation, broadcast to `added`.
        mistaken: wrong standard deviations, by the sentence that says what was done.
        what: what `added` is, to begin a sentence with.
    """
    if _unit_variance(added / std, std):
        return
    for sentence, wrong_std in mistaken.items():
        if _unit_variance(added / wrong_std, std):
            raise wrong(f"{what} has the wrong standard deviation.", sentence)


def _unit_variance(noise: Tensor, std: Tensor) -> bool:
    """Whether `noise` has variance 1 both where `std` is small and where it is large."""
    large = (std > std.median()).expand_as(noise)
    for part in (noise[large], noise[~large]):
        low, high = variance_bounds(part.numel(), SHARE)
        if not low <= float(part.square().mean()) <= high:
            return False
    return True


def _inner_products(rows: Tensor) -> Tensor:
    """Inner products of all pairs of rows (n, m), diagonal zero."""
    return (rows @ rows.T).fill_diagonal_(0)


def _own_noise(name: str) -> str:
    """What to do about noise that is shared along an axis."""
    if name in ("call", "step"):
        return f"Draw noise anew in every {name}: no fixed seed, and no noise that is kept."
    return f"Draw noise of the full shape, so that every {name} gets its own."


def _expect_distinct(rows: Tensor, name: str, what: str) -> None:
    """No two slices are the same up to sign; right noise fails this with a probability below 1e-100.

    The correlation of two slices of FEWEST numbers exceeds SAME with a probability below (1 - SAME^2)^(FEWEST / 2 - 1).
    """
    if rows.shape[1] < FEWEST:
        raise ValueError(f"slices along {name} have {rows.shape[1]} numbers; {FEWEST} are needed to tell them apart")
    lengths = rows.norm(dim=1)
    alike = _inner_products(rows).abs() > SAME * lengths[:, None] * lengths[None, :]
    if bool((alike & (lengths[:, None] > 0)).any()):
        raise wrong(
            f"{what} is shared: one {name} has the same noise as another.",
            _own_noise(name),
        )


def _expect_mean(noise: Tensor, count: int, what: str) -> None:
    mean = float(noise.mean())
    if abs(mean) > mean_bound(count, SHARE):
        raise wrong(f"{what} has the mean {mean:.4f} over {count:,} numbers; it must be 0.")


def _expect_variance(noise: Tensor, count: int, what: str) -> None:
    variance = float(noise.square().mean())
    low, high = variance_bounds(count, SHARE)
    if not low <= variance <= high:
        raise wrong(
            f"{what} has the standard deviation {math.sqrt(variance):.4f} over {count:,} numbers; it must be 1."
        )


def _expect_distribution(noise: Tensor, count: int, what: str) -> None:
    """The distribution function on a grid, where it is no further from the truth than anywhere, and the tails."""
    low, high = GRID_ENDS
    within = torch.histc(noise, GRID, low, high).cumsum(0)
    edges = torch.linspace(low, high, GRID + 1, dtype=torch.float64)[1:]
    empirical = ((noise < low).sum() + within) / count
    distance = float((empirical - torch.special.ndtr(edges)).abs().max())
    if distance > distribution_bound(count, SHARE):
        raise wrong(
            f"{what} has mean 0 and variance 1, but is not normally distributed.",
            "The noise must be Gaussian: torch.randn, not torch.rand or another distribution.",
        )
    outside = int((noise.abs() > TAIL).sum())
    low, high = rare_event_bounds(count, math.erfc(TAIL / math.sqrt(2)), SHARE)
    if not low <= outside <= high:
        few = "too rarely: it is cut off" if outside < low else "too often"
        raise wrong(f"{what} leaves [-{TAIL:g}, {TAIL:g}] {few}; it is not normally distributed.")


def _expect_uncorrelated(rows: Tensor, name: str, what: str, rate: float) -> None:
    """Every inner product of two slices over the length of the one is standard normal."""
    pairs = len(rows) * (len(rows) - 1)
    if pairs == 0:
        return
    scores = _inner_products(rows) / rows.norm(dim=1)[:, None]
    if float(scores.abs().max()) > normal_quantile(rate / pairs):
        raise wrong(
            f"{what} is not independent: one {name} can be told from another.",
            _own_noise(name),
        )

"""Schedules of betas: linear, Ho et al. (2020), section 4, and cosine, Nichol and Dhariwal (2021), equation (17)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .closed_form import ClosedForm, Formula

LARGEST_BETA = 0.999
FIRST, LAST, USUAL_STEPS = 1e-4, 2e-2, 1000
USUAL_OFFSET = 0.008
HALF_PI = math.pi / 2
Positions = Callable[[int], Tensor]


# ---------------------------------------------------------------- linear


def evenly(num_timesteps: int) -> Tensor:
    """Positions from 0 to 1, both included: (T,)."""
    return torch.arange(num_timesteps, dtype=torch.float64) / (num_timesteps - 1)


def fewer(num_timesteps: int) -> float:
    """How many times fewer than the usual steps there are."""
    return USUAL_STEPS / num_timesteps


def linear(
    low: Callable[[int], float] = fewer,
    high: Callable[[int], float] = fewer,
    positions: Positions = evenly,
    largest: float = LARGEST_BETA,
) -> Formula:
    """Betas between the ends of the paper, by the factors of the ends, the positions in between, and the clip."""

    def betas(num_timesteps: Tensor) -> Tensor:
        steps = int(num_timesteps)
        at = positions(steps)
        return (low(steps) * FIRST * (1 - at) + high(steps) * LAST * at).clamp(max=largest)

    return betas


def linear_between_clipped_ends(num_timesteps: Tensor) -> Tensor:
    """Evenly spaced from one end to the other, of which the other is clipped."""
    steps = int(num_timesteps)
    return linear(high=lambda n: min(fewer(n) * LAST, LARGEST_BETA) / LAST)(torch.tensor(steps))


def spaced_by(there: Callable[[Tensor], Tensor], back: Callable[[Tensor], Tensor]) -> Formula:
    """Betas whose images by `there` are evenly spaced, which `back` takes back."""

    def betas(num_timesteps: Tensor) -> Tensor:
        steps = int(num_timesteps)
        ends = there(torch.tensor([FIRST, LAST], dtype=torch.float64) * fewer(steps))
        return back(torch.lerp(ends[0], ends[1], evenly(steps))).clamp(max=LARGEST_BETA)

    return betas


def shrunk(num_timesteps: Tensor) -> Tensor:
    """All betas made smaller until none is above the largest."""
    betas = linear(largest=math.inf)(num_timesteps)
    return betas * (LARGEST_BETA / betas.max()).clamp(max=1)


LINEAR_BETAS = ClosedForm(
    accepted=(linear(),),
    misconceptions={
        "The betas run from 1e-4 to 2e-2 for any number of steps; with fewer steps each is larger.": linear(
            lambda n: 1.0, lambda n: 1.0
        ),
        "Only the last beta grows when there are fewer steps; the first does too.": linear(low=lambda n: 1.0),
        "Only the first beta grows when there are fewer steps; the last does too.": linear(high=lambda n: 1.0),
        "The factor is upside down: fewer steps have larger betas.": linear(lambda n: n / 1000, lambda n: n / 1000),
        "The factor is rounded to an integer, as // does.": linear(
            lambda n: float(1000 // n), lambda n: float(1000 // n)
        ),
        "The factor is squared, or put in twice.": linear(lambda n: fewer(n) ** 2, lambda n: fewer(n) ** 2),
        "The factor counts the gaps between betas, 999 and num_timesteps - 1; it is to count the betas.": linear(
            lambda n: 999 / (n - 1), lambda n: 999 / (n - 1)
        ),
        "Some betas are above 0.999: the clip is missing, or comes before the betas are made larger.": linear(
            largest=math.inf
        ),
        "The clip is at 0.99; LARGEST_BETA is 0.999.": linear(largest=0.99),
        "The clip is too high, at 0.9999; LARGEST_BETA is 0.999.": linear(largest=0.9999),
        "The clip is too high, at 1; LARGEST_BETA is 0.999.": linear(largest=1.0),
        "The clip is at 2e-2, where the betas of 1000 steps end; LARGEST_BETA is 0.999.": linear(largest=LAST),
        "The end of the range is clipped before the betas are spaced; each beta is to be clipped.": (
            linear_between_clipped_ends
        ),
        "All betas are shrunk until the largest is 0.999; only those above are to be clipped.": shrunk,
        "The first beta is ten times too large: of 1000 steps it is 1e-4.": linear(low=lambda n: 10 * fewer(n)),
        "The first beta is ten times too small: of 1000 steps it is 1e-4.": linear(low=lambda n: fewer(n) / 10),
        "The last beta is ten times too large: of 1000 steps it is 2e-2.": linear(high=lambda n: 10 * fewer(n)),
        "The last beta is ten times too small: of 1000 steps it is 2e-2.": linear(high=lambda n: fewer(n) / 10),
        "The square roots of the betas are evenly spaced; the betas are to be.": spaced_by(torch.sqrt, torch.square),
        "The logarithms of the betas are evenly spaced; the betas are to be.": spaced_by(torch.log, torch.exp),
        "The end of the range is left out: the last of the betas of 1000 steps is 2e-2.": linear(
            positions=lambda n: torch.arange(n, dtype=torch.float64) / n
        ),
        "The start of the range is left out: the first of the betas of 1000 steps is 1e-4.": linear(
            positions=lambda n: torch.arange(1, n + 1, dtype=torch.float64) / n
        ),
        "The betas run backwards: the first is the smallest.": linear(positions=lambda n: 1 - evenly(n)),
        "These are the alphas, 1 - beta; the betas are to be returned.": lambda num_timesteps: (
            1 - linear()(num_timesteps)
        ),
        "This is alphas_cumprod; the betas are to be returned.": lambda num_timesteps: (
            1 - linear()(num_timesteps)
        ).cumprod(0),
    },
)


# ---------------------------------------------------------------- cosine


def cosine_betas(num_timesteps: Tensor, offset: Tensor) -> Tensor:
    """1 - cos^2 b / cos^2 a for neighbouring angles a < b, as sin(b - a) sin(b + a) / cos^2 a: nothing cancels."""
    step = HALF_PI / ((1 + offset) * num_timesteps)
    before = step * (torch.arange(int(num_timesteps), dtype=torch.float64) + offset * num_timesteps)
    return (step.sin() * (2 * before + step).sin() / before.cos() ** 2).clamp(max=LARGEST_BETA)


Curve = Callable[[Tensor, Tensor], Tensor]  # of times and the offset
Turn = Callable[[Tensor], Tensor]  # of a schedule with the value at time 0 (T + 1,) into betas (T,)


def curve(time: Tensor, offset: Tensor) -> Tensor:
    """f of equation (17), at times from 0 to 1."""
    return ((time + offset) / (1 + offset) * HALF_PI).cos() ** 2


def normalised(f: Curve) -> Curve:
    """A curve divided by its value at time 0: alphas_cumprod."""
    return lambda time, offset: f(time, offset) / f(torch.zeros_like(time), offset)


def ratios(f: Tensor) -> Tensor:
    """Betas (T,) by the ratios of neighbours, without a clip."""
    return 1 - f[1:] / f[:-1]


def by_curve(f: Curve, turn: Turn = ratios, times: Positions = lambda n: evenly(n + 1)) -> Formula:
    """Betas by a function of time, how betas are made of its values, and the times."""
    return lambda num_timesteps, offset: turn(f(times(int(num_timesteps)), offset)).clamp(max=LARGEST_BETA)


def by_angle(angle: Curve) -> Formula:
    """Betas by the angle whose squared cosine is taken."""
    return by_curve(lambda time, offset: angle(time, offset).cos() ** 2)


def clipped(low: float, high: float) -> Formula:
    """Betas clipped elsewhere."""
    return lambda num_timesteps, offset: ratios(curve(evenly(int(num_timesteps) + 1), offset)).clamp(low, high)


def from_one(f: Tensor) -> Tensor:
    """Betas if 1 comes before the values of a curve (T,)."""
    return ratios(torch.cat([torch.ones(1, dtype=torch.float64), f]))


COSINE_BETAS = ClosedForm(
    accepted=(cosine_betas,),
    misconceptions={
        "The offset is missing: s belongs in the sum with the time and in 1 + s.": by_angle(
            lambda time, offset: time * HALF_PI
        ),
        "The sum of time and offset is not divided by 1 + offset.": by_angle(
            lambda time, offset: (time + offset) * HALF_PI
        ),
        "The offset is missing in the numerator, where it is added to the time.": by_angle(
            lambda time, offset: time / (1 + offset) * HALF_PI
        ),
        "The parentheses around 1 + offset are missing.": by_angle(lambda time, offset: (time + 2 * offset) * HALF_PI),
        "The offset is added to the angle; it is added to the time.": by_angle(
            lambda time, offset: time * HALF_PI + offset
        ),
        "The offset is subtracted from the time; it is added.": by_angle(
            lambda time, offset: (time - offset) / (1 + offset) * HALF_PI
        ),
        "The offset is 0.008, whatever `offset` is.": lambda num_timesteps, offset: cosine_betas(
            num_timesteps, torch.full_like(offset, USUAL_OFFSET)
        ),
        "The square is missing: alphas_cumprod is a squared cosine.": by_curve(
            lambda time, offset: curve(time, offset) ** 0.5
        ),
        "The angle goes up to pi; it is to end at pi / 2, where the cosine is 0.": by_angle(
            lambda time, offset: (time + offset) / (1 + offset) * math.pi
        ),
        "The angle goes up to 1/2: pi is missing in it.": by_angle(
            lambda time, offset: (time + offset) / (1 + offset) / 2
        ),
        "The angle goes up to 1: pi / 2 is missing in it.": by_angle(
            lambda time, offset: (time + offset) / (1 + offset)
        ),
        "The angle is in degrees, which the cosine takes for radians.": by_angle(
            lambda time, offset: (time + offset) / (1 + offset) * 90
        ),
        "The sine is taken; alphas_cumprod is a squared cosine, which falls.": by_curve(
            lambda time, offset: ((time + offset) / (1 + offset) * HALF_PI).sin() ** 2
        ),
        "The times run up to num_timesteps; they are to be divided by it.": by_curve(
            curve, times=lambda n: torch.arange(n + 1, dtype=torch.float64)
        ),
        "The times end at (T - 1) / T, so that each beta is one step late and the first is 0.": by_curve(
            normalised(curve),
            from_one,
            lambda n: torch.arange(n, dtype=torch.float64) / n,
        ),
        "There are T times from 0 to 1, and so one step too few: the first beta is 0.": by_curve(
            normalised(curve),
            from_one,
            lambda n: torch.linspace(0, 1, n, dtype=torch.float64),
        ),
        "alphas_cumprod is not divided by its value at time 0, so that the first beta is too large.": by_curve(
            curve, lambda f: from_one(f[1:])
        ),
        "This is alphas_cumprod; the betas are to be returned.": lambda num_timesteps, offset: normalised(curve)(
            evenly(int(num_timesteps) + 1), offset
        )[1:],
        "This is alphas_cumprod before it is divided by its value at time 0; the betas are to be returned.": (
            lambda num_timesteps, offset: curve(evenly(int(num_timesteps) + 1), offset)[1:]
        ),
        "The betas are 1 - alphas_cumprod; that is the noise of all steps so far, and beta that of one.": by_curve(
            curve, lambda f: 1 - f[1:] / f[0]
        ),
        "The betas are 1 - alphas_cumprod before it is divided by its value at time 0, and not those of a step.": (
            by_curve(curve, lambda f: 1 - f[1:])
        ),
        "These are the alphas, alphas_cumprod over that of the step before; beta is 1 minus that.": by_curve(
            curve, lambda f: f[1:] / f[:-1]
        ),
        "The ratio is upside down: alphas_cumprod is to be divided by that of the step before.": by_curve(
            curve, lambda f: 1 - f[:-1] / f[1:]
        ),
        "The betas are differences of alphas_cumprod; a ratio belongs there.": by_curve(
            curve, lambda f: (f[:-1] - f[1:]) / f[0]
        ),
        "The betas are differences of alphas_cumprod, divided by the smaller one; the one before belongs there.": (
            by_curve(curve, lambda f: f[:-1] / f[1:] - 1)
        ),
        "The last beta is 0.9999, clipped too high; LARGEST_BETA is 0.999.": clipped(0, 0.9999),
        "The last beta is 1, clipped too high or not at all; LARGEST_BETA is 0.999.": clipped(0, 1.0),
        "The clip is at 0.99; LARGEST_BETA is 0.999.": clipped(0, 0.99),
        "The clip is at 2e-2, which is of the linear schedule; LARGEST_BETA is 0.999.": clipped(0, LAST),
        "Betas below 1e-4 are raised to it; only those above LARGEST_BETA are clipped.": clipped(1e-4, LARGEST_BETA),
        "alphas_cumprod is clipped from below at 1 - LARGEST_BETA; the betas are to be clipped.": by_curve(
            curve, lambda f: ratios((f / f[0]).clamp(min=1 - LARGEST_BETA))
        ),
        "The betas run backwards: the first is the smallest.": lambda num_timesteps, offset: cosine_betas(
            num_timesteps, offset
        ).flip(0),
    },
)

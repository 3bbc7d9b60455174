"""Straight paths from data to noise (Liu, Gong and Liu, 2023, section 2) and samplers that follow their velocity.

Time is 0 at data and 1 at noise. A sampler is told by its parts, each of which is right unless it is given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from .closed_form import ClosedForm, Formula
from .gaussian_flow import GaussianFlow

# ---------------------------------------------------------------- paths

Weight = Callable[[Tensor], Tensor]  # of times (B, 1, 1, 1)


def column(time: Tensor) -> Tensor:
    """Times (B,) as (B, 1, 1, 1)."""
    return time.reshape(-1, 1, 1, 1)


def mix(signal: Weight, noise_scale: Weight) -> Formula:
    """x_start and noise, each times its weight, which depends on time."""

    def mixed(x_start: Tensor, time: Tensor, noise: Tensor) -> Tensor:
        s = column(time)
        return signal(s) * x_start + noise_scale(s) * noise

    return mixed


def retimed(change: Callable[[Tensor], Tensor], formula: Formula) -> Formula:
    """A formula at other times (B,)."""
    return lambda x_start, time, noise: formula(x_start, change(time), noise)


def lined_up(axis: int) -> Formula:
    """Points whose time is that of another axis than the batch; nan where that axis has another length."""

    def points(x_start: Tensor, time: Tensor, noise: Tensor) -> Tensor:
        if len(time) != x_start.shape[axis]:
            return torch.full_like(x_start, math.nan)
        s = time.reshape([-1 if n == axis else 1 for n in range(4)])
        return x_start + s * (noise - x_start)

    return points


def one(s: Tensor) -> Tensor:
    """The weight 1."""
    return torch.ones_like(s)


def none(s: Tensor) -> Tensor:
    """The weight 0."""
    return torch.zeros_like(s)


POINTS = mix(lambda s: 1 - s, lambda s: s)
FLOW_POINTS = ClosedForm(
    accepted=(POINTS,),
    misconceptions={
        "Time runs the wrong way round, or the data and the noise are swapped: time 0 is data, time 1 is noise.": mix(
            lambda s: s, lambda s: 1 - s
        ),
        "The weights are square roots, as those of a diffusion are: these paths curve; straight ones are linear.": mix(
            lambda s: (1 - s).sqrt(), lambda s: s.sqrt()
        ),
        "The weight of x_start is a square root, as in a diffusion: the path curves; a straight one is linear.": mix(
            lambda s: (1 - s**2).sqrt(), lambda s: s
        ),
        "The weight of the noise is a square root, as in a diffusion: the path curves; a straight one is linear.": mix(
            lambda s: 1 - s, lambda s: (1 - (1 - s) ** 2).sqrt()
        ),
        "The weight of the noise is the square root of time; a straight path is linear in time.": mix(
            lambda s: 1 - s, lambda s: s.sqrt()
        ),
        "The weights are cosine and sine: these paths are arcs; straight ones are linear in time.": mix(
            lambda s: torch.cos(s * math.pi / 2), lambda s: torch.sin(s * math.pi / 2)
        ),
        "The weights are squared; straight paths are linear in time.": mix(lambda s: (1 - s) ** 2, lambda s: s**2),
        "The noise is subtracted; it is added.": mix(lambda s: 1 - s, lambda s: -s),
        "x_start keeps its full size; nothing of it is left at time 1.": mix(one, lambda s: s),
        "The noise keeps its full size; there is none of it at time 0.": mix(lambda s: 1 - s, one),
        "The noise is missing.": mix(lambda s: 1 - s, none),
        "x_start is missing: only the noise is there.": mix(none, lambda s: s),
        "The path leaves x_start in the direction away from the noise.": mix(lambda s: 1 + s, lambda s: -s),
        "The path starts at the noise and leads away from x_start.": mix(lambda s: -s, lambda s: 1 + s),
        "The path starts at the noise; at time 0 it is at x_start.": mix(lambda s: -s, one),
        "What is in x is the velocity: x is a point of the path.": mix(lambda s: -one(s), one),
        "The time of the first image is used for the whole batch; every image has its own.": retimed(
            lambda time: time[:1].expand_as(time), POINTS
        ),
        "The time of the last image is used for the whole batch; every image has its own.": retimed(
            lambda time: time[-1:].expand_as(time), POINTS
        ),
        "The times are averaged over the batch; every image has its own.": retimed(
            lambda time: time.mean().expand_as(time), POINTS
        ),
        "time is lined up with the columns of pixels, the last axis; it has one number for each image.": lined_up(3),
        "time is lined up with the rows of pixels; it has one number for each image.": lined_up(2),
        "time is lined up with the channels; it has one number for each image.": lined_up(1),
        "time is cut to an integer; it is any number from 0 to 1.": retimed(torch.floor, POINTS),
        "time is divided by 1000; it is a number from 0 to 1 already.": retimed(lambda time: time / 1000, POINTS),
        "The noise is standardised first; it is standard normal as it is.": (
            lambda x_start, time, noise: POINTS(x_start, time, (noise - noise.mean()) / noise.std())
        ),
        **{
            f"The result is clamped to [-{bound}, {bound}]; x leaves it.": (
                lambda x_start, time, noise, bound=bound: POINTS(x_start, time, noise).clamp(-bound, bound)
            )
            for bound in (1, 3, 5, 10)
        },
    },
)
FLOW_VELOCITY = ClosedForm(
    accepted=(mix(lambda s: -one(s), one),),
    misconceptions={
        "The sign is wrong: as time grows x moves from x_start to the noise.": mix(one, lambda s: -one(s)),
        "It shrinks with time, as x - x_start does, the way from time 0; a derivative is that way per time.": mix(
            lambda s: -s, lambda s: s
        ),
        "It is x_start - x, or shrinks with time otherwise, and the sign is wrong.": mix(lambda s: s, lambda s: -s),
        "It is noise - x, the way that is left; the derivative by time is asked for.": mix(
            lambda s: s - 1, lambda s: 1 - s
        ),
        "It is x - noise, the way that is left, backwards; the derivative by time is asked for.": mix(
            lambda s: 1 - s, lambda s: s - 1
        ),
        "It is divided by time; the derivative of a straight path is the same at every time.": mix(
            lambda s: -1 / s, lambda s: 1 / s
        ),
        "It is divided by 1 - time; the derivative of a straight path is the same at every time.": mix(
            lambda s: -1 / (1 - s), lambda s: 1 / (1 - s)
        ),
        "What is in velocity is x, the point of the path.": POINTS,
        "It is the noise, as a denoiser predicts it; x_start has a part in the velocity too.": mix(none, one),
        "It is x_start, with nothing of the noise in it.": mix(one, none),
        "It is -x_start, with nothing of the noise in it.": mix(lambda s: -one(s), none),
        "x_start and noise are added; the derivative by time has their difference.": mix(one, one),
        "It is the velocity of a diffusion, weighted by square roots; here paths are straight.": mix(
            lambda s: -s.sqrt(), lambda s: (1 - s).sqrt()
        ),
        "It is the velocity along an arc, weighted by sine and cosine; here paths are straight.": mix(
            lambda s: -torch.sin(s * math.pi / 2) * math.pi / 2, lambda s: torch.cos(s * math.pi / 2) * math.pi / 2
        ),
        **{
            f"It is clamped to [-{bound}, {bound}]; a velocity leaves it.": (
                lambda x_start, time, noise, bound=bound: (noise - x_start).clamp(-bound, bound)
            )
            for bound in (1, 3, 5, 10)
        },
    },
)

# ---------------------------------------------------------------- samplers

Field = Callable[[Tensor, float], Tensor]  # the velocity at x and a time


@dataclass(frozen=True)
class Sampler:
    """Steps from noise to data, those of Heun with a correction (Karras et al., 2022, algorithm 1).

    Attributes:
        ends: of num_steps, the times where steps end and begin, in order.
        told: of both ends of a step, the time that its first velocity is asked at.
        told_ahead: the same of the second velocity.
        corrects: of heun and whether a step is the last, whether it has a second velocity.
        length: of both ends of a step and num_steps, how long it is taken to be.
        ahead: of x, the first velocity and the length, where the second velocity is asked at.
        combined: of both velocities, the one to go with.
        move: of x, a velocity and the length, the next x.
        finish: of the last x, the samples.
    """

    ends: Callable[[int], list[float]] = lambda n: [k / n for k in range(n, -1, -1)]
    told: Callable[[float, float], float] = lambda now, then: now
    told_ahead: Callable[[float, float], float] = lambda now, then: then
    corrects: Callable[[bool, bool], bool] = lambda heun, last: heun and not last
    length: Callable[[float, float, int], float] = lambda now, then, n: now - then
    ahead: Callable[[Tensor, Tensor, float], Tensor] = lambda x, velocity, length: x - length * velocity
    combined: Callable[[Tensor, Tensor], Tensor] = lambda first, second: (first + second) / 2
    move: Callable[[Tensor, Tensor, float], Tensor] = lambda x, velocity, length: x - length * velocity
    finish: Callable[[Tensor], Tensor] = lambda x: x

    def run(self, field: Field, x: Tensor, num_steps: int, heun: bool) -> Tensor:
        """The samples, shaped like x, of num_steps steps."""
        ends = self.ends(num_steps)
        for n, (now, then) in enumerate(pairwise(ends), start=2):
            length = self.length(now, then, num_steps)
            velocity = field(x, self.told(now, then))
            if self.corrects(heun, n == len(ends)):
                second = field(self.ahead(x, velocity, length), self.told_ahead(now, then))
                velocity = self.combined(velocity, second)
            x = self.move(x, velocity, length)
        return self.finish(x)

    def seen(self, flow: GaussianFlow, x: Tensor, num_steps: int, heun: bool) -> tuple[Tensor, Tensor]:
        """The times (calls,) that velocities are asked at, and where, followed by the samples: (B, calls + 1, ...)."""
        times: list[float] = []
        points: list[Tensor] = []

        def field(x: Tensor, time: float) -> Tensor:
            times.append(time)
            points.append(x)
            return flow.velocity(x, time)

        samples = self.run(field, x, num_steps, heun)
        return torch.tensor(times, dtype=torch.float64), torch.stack([*points, samples], dim=1)


def spaced(first: float, last: float, count: int) -> list[float]:
    """`count` evenly spaced numbers; one is `first`."""
    return [first + (last - first) * k / max(count - 1, 1) for k in range(count)]


RIGHT = Sampler()


def with_at_most(most: int) -> Sampler:
    """A sampler that takes no more than so many steps."""
    return Sampler(ends=lambda n: RIGHT.ends(min(n, most)))


def clamped(bound: int) -> dict[str, Sampler]:
    """Samplers that cut off x at a bound, by sentence."""
    return {
        f"x is clamped to [-{bound}, {bound}] at every step; latents are not.": Sampler(
            move=lambda x, velocity, length: (x - length * velocity).clamp(-bound, bound)
        ),
        f"The result is clamped to [-{bound}, {bound}]; latents are not.": Sampler(
            finish=lambda x: x.clamp(-bound, bound)
        ),
    }


OFF_TIME: Mapping[str, Sampler] = {
    "The times run upwards; sampling starts at time 1, where x is noise, and comes to time 0, where data are.": Sampler(
        ends=lambda n: spaced(0, 1, n + 1)
    ),
    "The times run upwards, and are those at the ends of steps; they start at 1, where x is noise, and fall.": Sampler(
        ends=lambda n: spaced(0, 1, n + 1), told=lambda now, then: then, told_ahead=lambda now, then: 2 * then - now
    ),
    "The times are num_steps numbers from 1 to 0, between which there is one step too few.": Sampler(
        ends=lambda n: spaced(1, 0, n)
    ),
    "The times are num_steps numbers from 1 to 0; no step starts at 0, so that their steps are too long.": Sampler(
        ends=lambda n: [*spaced(1, 0, n), 0.0]
    ),
    "The time of every step is the one at its end; a step starts from the velocity at its start.": Sampler(
        told=lambda now, then: then
    ),
    "Both velocities of Heun's step are asked for a step late; the first is the one at its start.": Sampler(
        told=lambda now, then: then, told_ahead=lambda now, then: 2 * then - now
    ),
    "The time of every step is the one in its middle; a step starts from the velocity at its start.": Sampler(
        told=lambda now, then: (now + then) / 2
    ),
    "The last step, to time 0, is missing.": Sampler(ends=lambda n: RIGHT.ends(n)[:-1]),
    "The first step, from time 1, is missing.": Sampler(ends=lambda n: RIGHT.ends(n)[1:]),
    "There is a step too many, which starts at time 0: sampling ends there.": Sampler(
        ends=lambda n: [*RIGHT.ends(n), 0.0]
    ),
    "There is one step, whatever num_steps is.": Sampler(ends=lambda n: RIGHT.ends(1)),
    **{
        f"No more than {most} steps are taken; num_steps says how many there are.": with_at_most(most)
        for most in (10, 20, 50, 100)
    },
    "There are num_steps + 1 steps.": Sampler(ends=lambda n: RIGHT.ends(n + 1)),
    "The time stays 1 at every step; it falls.": Sampler(told=lambda now, then: 1.0, told_ahead=lambda now, then: 1.0),
    "With heun velocity_fn is called at time 0 too; the last step, which leads there, is Euler's in any case.": Sampler(
        corrects=lambda heun, last: heun
    ),
    "With heun the steps are Euler's; then there is a second velocity in every step but the last.": Sampler(
        corrects=lambda heun, last: False
    ),
    "Heun's steps are taken without heun; then all are Euler's.": Sampler(corrects=lambda heun, last: not last),
    "Heun's steps are taken without heun, and even the last has a second velocity.": Sampler(
        corrects=lambda heun, last: True
    ),
    "heun is the wrong way round: Heun's steps are taken without it, and Euler's with it.": Sampler(
        corrects=lambda heun, last: not heun and not last
    ),
    "With heun only the last step has a second velocity; that is the one step which has none.": Sampler(
        corrects=lambda heun, last: heun and last
    ),
    "The second velocity of Heun's step is asked for at the middle of the step; it is that at the end.": Sampler(
        told_ahead=lambda now, then: (now + then) / 2
    ),
    "The second velocity of Heun's step is asked for at the time of the first; it is that at the end.": Sampler(
        told_ahead=lambda now, then: now
    ),
}
OFF_COURSE: Mapping[str, Sampler] = {
    "The step is added; the velocity points to the noise, and the way to data is against it.": Sampler(
        ahead=lambda x, velocity, length: x + length * velocity, move=lambda x, velocity, length: x + length * velocity
    ),
    "Heun's step is added, which its look ahead is not; the way to data is against the velocity.": Sampler(
        move=lambda x, velocity, length: x + length * velocity
    ),
    "A step is 1 / (num_steps - 1) long; num_steps steps of equal length come to 1.": Sampler(
        length=lambda now, then, n: 1 / max(n - 1, 1)
    ),
    "A step is 1 / (num_steps + 1) long; num_steps steps of equal length come to 1.": Sampler(
        length=lambda now, then, n: 1 / (n + 1)
    ),
    "The velocity is not multiplied by the length of a step.": Sampler(length=lambda now, then, n: 1.0),
    "The velocity is multiplied by the time, so that every step goes all the way to time 0, and not its own length.": (
        Sampler(length=lambda now, then, n: now)
    ),
    "The velocity is multiplied by the time at the end of the step, not by the length of the step.": Sampler(
        length=lambda now, then, n: then
    ),
    "The same x is passed at every step, and returned: go on from where the last step came to.": Sampler(
        move=lambda x, velocity, length: x
    ),
    **clamped(1),
    **clamped(3),
    **clamped(5),
    **clamped(10),
    "The result goes through a tanh; latents are not bounded.": Sampler(finish=torch.tanh),
    "The two velocities of Heun's step are added; their mean is taken.": Sampler(
        combined=lambda first, second: first + second
    ),
    "Heun's step goes with the second velocity alone; the mean of both is taken.": Sampler(
        combined=lambda first, second: second
    ),
    "Heun's step goes with the first velocity alone; the mean of both is taken.": Sampler(
        combined=lambda first, second: first
    ),
    "Heun's step has half the difference of the two velocities; their mean is taken.": Sampler(
        combined=lambda first, second: (first - second) / 2
    ),
    "Heun's step starts where Euler's has come to, so that it goes twice; it starts from the same x.": Sampler(
        combined=lambda first, second: first + (first + second) / 2
    ),
    "Heun's step goes half its way from where Euler's has come to; it starts from the same x.": Sampler(
        combined=lambda first, second: first + second / 2
    ),
    "The second velocity of Heun's step is that at the old x; it is that where Euler's step comes to.": Sampler(
        ahead=lambda x, velocity, length: x
    ),
    "The second velocity of Heun's step is that half a step ahead; Euler's step goes all of it.": Sampler(
        ahead=lambda x, velocity, length: x - length / 2 * velocity
    ),
    "The second velocity of Heun's step is that a step ahead in the wrong direction, towards the noise.": Sampler(
        ahead=lambda x, velocity, length: x + length * velocity
    ),
    "The second velocity of Heun's step is asked for a whole velocity ahead, not times the length of the step.": (
        Sampler(ahead=lambda x, velocity, length: x - velocity)
    ),
}


def flow_times(num_steps: int, heun: bool) -> ClosedForm:
    """The times (calls,) that a sampler from x (B, ...) asks for velocities at."""
    still = GaussianFlow(0.0, 1.0)

    def times(sampler: Sampler) -> Formula:
        return lambda x: sampler.seen(still, x, num_steps, heun)[0]

    return ClosedForm((times(RIGHT),), {sentence: times(sampler) for sentence, sampler in OFF_TIME.items()})


def flow_points(num_steps: int, heun: bool, mean: float, std: float) -> ClosedForm:
    """Where a sampler from x (B, ...) asks for the velocity of N(mean, std^2), and the samples: (B, calls + 1, ...)."""
    flow = GaussianFlow(mean, std)

    def points(sampler: Sampler) -> Formula:
        return lambda x: sampler.seen(flow, x, num_steps, heun)[1]

    return ClosedForm((points(RIGHT),), {sentence: points(sampler) for sentence, sampler in OFF_COURSE.items()})


def exact_samples(flow: GaussianFlow, x: Tensor) -> Tensor:
    """Where the velocity takes x, in infinitely many steps: to the same number of standard deviations from the mean.

    On the way x - (1 - s) mean grows with the standard deviation at time s: its derivative is the covariance of
    position and velocity by the variance, which is that of the logarithm of the standard deviation.
    """
    return flow.mean + flow.std * x.double()

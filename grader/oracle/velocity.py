"""Velocity in the place of noise (Salimans and Ho, 2022, section 4), and Min-SNR weights (Hang et al., 2023).

The angle of a step has the cosine sqrt(abar) and the sine sqrt(1 - abar): x_t is x_0 times the one plus noise times the
other, and the velocity is the derivative of x_t by the angle. So (x_t, v_t) is (x_0, noise) turned by the angle.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from .closed_form import ClosedForm, Formula
from .diffusion import Schedule

Reading = Callable[[Tensor], Tensor]  # of t (B,), what stands for abar (B,)
Weight = Callable[[Tensor], Tensor]  # of abar
Rule = Callable[[Tensor, Tensor], Tensor]  # of SNR (B,) and gamma (), weights (B,)


def misreadings(schedule: Schedule) -> dict[str, Reading]:
    """Wrong ways to read abar at the steps t, by the sentence that tells whoever did it."""
    abar, last = schedule.alphas_cumprod, schedule.num_timesteps - 1
    usual = Schedule()
    return {
        "alpha of one step is used; the product of all steps so far, alphas_cumprod, belongs here.": (
            lambda t: 1 - schedule.betas[t]
        ),
        "The step of the first image is used for the whole batch; every image has its own t.": (
            lambda t: abar[t[:1].expand_as(t)]
        ),
        "The step of the last image is used for the whole batch; every image has its own t.": (
            lambda t: abar[t[-1:].expand_as(t)]
        ),
        "t is one too low: the schedule is read at the step before.": lambda t: abar[(t - 1).clamp(min=0)],
        "t is one too low, and at t = 0 the schedule is read at its end.": lambda t: abar[t - 1],
        "t is one too high.": lambda t: abar[(t + 1).clamp(max=last)],
        "t runs backwards.": lambda t: abar[last - t],
        "alphas_cumprod_prev is used, which is the schedule of the step before.": (
            lambda t: schedule.alphas_cumprod_prev[t]
        ),
        "The schedule of 1000 steps from 1e-4 to 2e-2 is used, whatever schedule was asked for.": (
            lambda t: usual.alphas_cumprod[t.clamp(max=usual.num_timesteps - 1)]
        ),
        "The betas run from 1e-4 to 2e-2, whatever schedule was asked for.": (
            lambda t: Schedule(num_timesteps=schedule.num_timesteps).alphas_cumprod[t]
        ),
    }


# ---------------------------------------------------------------- 3.5a and 3.5b


def cos(abar: Tensor) -> Tensor:
    """The cosine of the angle."""
    return abar.sqrt()


def sin(abar: Tensor) -> Tensor:
    """The sine of the angle."""
    return (1 - abar).sqrt()


def constant(value: float) -> Weight:
    """The same weight at every step."""
    return lambda abar: torch.full_like(abar, value)


def mix(first: Weight, second: Weight, read: Reading) -> Formula:
    """A weighted sum of two images (B, C, H, W), which are the inputs beside t in their order."""

    def formula(t: Tensor, **images: Tensor) -> Tensor:
        one, other = images.values()
        abar = read(t).reshape(-1, 1, 1, 1)
        return first(abar) * one + second(abar) * other

    return formula


def mixture(
    schedule: Schedule, first: Weight, second: Weight, wrong: Mapping[str, tuple[Weight, Weight]]
) -> ClosedForm:
    """The form of a right pair of weights, wrong pairs by sentence, and the right pair with abar misread."""
    right = schedule.alphas_cumprod.__getitem__
    averaged = (lambda abar: first(abar).mean(), lambda abar: second(abar).mean())
    pairs = {"The weights are averaged over the batch; every image has those of its own t.": averaged, **wrong}
    reads = misreadings(schedule) | {
        "The angle grows evenly with t here; its cosine is to be sqrt_alphas_cumprod.": (
            lambda t: (math.pi / 2 * t.double() / schedule.num_timesteps).cos() ** 2
        )
    }
    misread = {text: mix(first, second, read) for text, read in reads.items()}
    return ClosedForm((mix(first, second, right),), {text: mix(*pair, right) for text, pair in pairs.items()} | misread)


def velocity(schedule: Schedule) -> ClosedForm:
    """v_t as a function of x_start (B, C, H, W), t (B,) and noise."""
    right = mixture(
        schedule,
        lambda abar: -sin(abar),
        cos,
        {
            "x_start is added; it is subtracted.": (sin, cos),
            "The noise is subtracted and x_start is added; it is the other way round.": (sin, lambda a: -cos(a)),
            "This is x_t itself; the velocity is its derivative by the angle.": (cos, sin),
            "x_start and noise are swapped.": (cos, lambda a: -sin(a)),
            "The two weights are swapped: that of the noise is sqrt(alphas_cumprod).": (lambda a: -cos(a), sin),
            "This is noise - x_start, the velocity of a straight path; here it is an arc, and both have weights.": (
                constant(-1),
                constant(1),
            ),
            "The square roots are missing: alphas_cumprod and 1 - alphas_cumprod enter as square roots.": (
                lambda a: a - 1,
                lambda a: a,
            ),
            "The square root of alphas_cumprod is missing in the weight of the noise.": (
                lambda a: -sin(a),
                lambda a: a,
            ),
            "The square root of 1 - alphas_cumprod is missing in the weight of x_start.": (lambda a: a - 1, cos),
            "The weight of x_start is 1 - sqrt(alphas_cumprod); the root is to be taken of the difference.": (
                lambda a: cos(a) - 1,
                cos,
            ),
            "This is the derivative by the cosine, sqrt_alphas_cumprod; it is to be by the angle itself.": (
                constant(1),
                lambda a: -cos(a) / sin(a),
            ),
            "This is the derivative by the sine, sqrt_one_minus_alphas_cumprod; it is to be by the angle itself.": (
                lambda a: -sin(a) / cos(a),
                constant(1),
            ),
            "This is the derivative by alphas_cumprod; it is to be by the angle.": (
                lambda a: 0.5 / cos(a),
                lambda a: -0.5 / sin(a),
            ),
            "x_t stands where x_start belongs.": (lambda a: -sin(a) * cos(a), lambda a: cos(a) - (1 - a)),
            "x_start is missing: only the noise is there.": (constant(0), cos),
            "The noise is missing.": (lambda a: -sin(a), constant(0)),
            "x_start keeps its full size; its weight is sqrt(1 - alphas_cumprod).": (constant(-1), cos),
            "The noise keeps its full size; its weight is sqrt(alphas_cumprod).": (lambda a: -sin(a), constant(1)),
            "The noise is divided by its weight; it is to be multiplied by it.": (
                lambda a: -sin(a),
                lambda a: 1 / cos(a),
            ),
            "x_start is divided by its weight; it is to be multiplied by it.": (lambda a: -1 / sin(a), cos),
            "Both weights are sqrt(1 - alphas_cumprod); that of the noise is sqrt(alphas_cumprod).": (
                lambda a: -sin(a),
                sin,
            ),
            "Both weights are sqrt(alphas_cumprod); that of x_start is sqrt(1 - alphas_cumprod).": (
                lambda a: -cos(a),
                cos,
            ),
        },
    )
    value = mix(lambda abar: -sin(abar), cos, schedule.alphas_cumprod.__getitem__)
    clamps = {
        f"The velocity is clamped to [-{bound}, {bound}], which it leaves.": (
            lambda x_start, t, noise, bound=bound: value(x_start=x_start, t=t, noise=noise).clamp(-bound, bound)
        )
        for bound in (1, 3, 5, 10)
    }
    return replace(right, misconceptions={**right.misconceptions, **clamps})


def noise_from_velocity(schedule: Schedule) -> ClosedForm:
    """The noise as a function of x (B, C, H, W), t (B,) and velocity."""
    right = mixture(
        schedule,
        sin,
        cos,
        {
            "The velocity is subtracted; it is added.": (sin, lambda a: -cos(a)),
            "x is subtracted; it is added.": (lambda a: -sin(a), cos),
            "The sign is flipped: both x and the velocity are added.": (lambda a: -sin(a), lambda a: -cos(a)),
            "The two weights are swapped: that of the velocity is sqrt(alphas_cumprod).": (cos, sin),
            "This is x_start; the noise is asked for.": (cos, lambda a: -sin(a)),
            "The square roots are missing: alphas_cumprod and 1 - alphas_cumprod enter as square roots.": (
                lambda a: 1 - a,
                lambda a: a,
            ),
            "The square root of alphas_cumprod is missing in the weight of the velocity.": (sin, lambda a: a),
            "The square root of 1 - alphas_cumprod is missing in the weight of x.": (lambda a: 1 - a, cos),
            "The weight of x is 1 - sqrt(alphas_cumprod); the root is to be taken of the difference.": (
                lambda a: 1 - cos(a),
                cos,
            ),
            "v_t is solved for the noise with x_t in the place of x_start, which is another.": (
                lambda a: sin(a) / cos(a),
                lambda a: 1 / cos(a),
            ),
            "x_t is solved for the noise with the velocity in the place of x_start.": (
                lambda a: 1 / sin(a),
                lambda a: -cos(a) / sin(a),
            ),
            "x_t is solved for x_start with the velocity in the place of the noise.": (
                lambda a: 1 / cos(a),
                lambda a: -sin(a) / cos(a),
            ),
            "This is x - x_start; in x both x_start and the noise have weights.": (lambda a: 1 - cos(a), sin),
            "x_start is subtracted from x without its weight sqrt(alphas_cumprod).": (
                lambda a: (1 - cos(a)) / sin(a),
                constant(1),
            ),
            "The noise still has its weight in x_t: divide by sqrt(1 - alphas_cumprod).": (
                lambda a: 1 - a,
                lambda a: cos(a) * sin(a),
            ),
            "x is missing: only the velocity is there.": (constant(0), cos),
            "This is the velocity as it came.": (constant(0), constant(1)),
            "The velocity is missing.": (sin, constant(0)),
            "x keeps its full size; its weight is sqrt(1 - alphas_cumprod).": (constant(1), cos),
            "The velocity keeps its full size; its weight is sqrt(alphas_cumprod).": (sin, constant(1)),
            "The velocity is divided by its weight; it is to be multiplied by it.": (sin, lambda a: 1 / cos(a)),
            "x is divided by its weight; it is to be multiplied by it.": (lambda a: 1 / sin(a), cos),
            "Both weights are sqrt(1 - alphas_cumprod); that of the velocity is sqrt(alphas_cumprod).": (sin, sin),
            "Both weights are sqrt(alphas_cumprod); that of x is sqrt(1 - alphas_cumprod).": (cos, cos),
        },
    )
    return replace(right, misconceptions={**right.misconceptions, **clamped(schedule)})


def clamped(schedule: Schedule) -> dict[str, Formula]:
    """What is clamped on the way to the noise or at its end, by sentence."""
    read = schedule.alphas_cumprod.__getitem__
    noise, x_start = mix(sin, cos, read), mix(cos, lambda a: -sin(a), read)

    def from_clamped_x_start(x: Tensor, t: Tensor, velocity: Tensor, bound: int) -> Tensor:
        abar = read(t).reshape(-1, 1, 1, 1)
        return (x - cos(abar) * x_start(x=x, t=t, velocity=velocity).clamp(-bound, bound)) / sin(abar)

    found: dict[str, Formula] = {}
    for bound in (1, 3, 5, 10):
        found |= {
            f"The noise is clamped to [-{bound}, {bound}], which it leaves.": (
                lambda x, t, velocity, bound=bound: noise(x=x, t=t, velocity=velocity).clamp(-bound, bound)
            ),
            f"x_start is clamped to [-{bound}, {bound}] on the way, which latents leave.": partial(
                from_clamped_x_start, bound=bound
            ),
        }
    return found


# ---------------------------------------------------------------- 3.5c


def snr_of(abar: Tensor) -> Tensor:
    """The signal-to-noise ratio."""
    return abar / (1 - abar)


def misread_snr(schedule: Schedule) -> dict[str, Reading]:
    """Wrong values of SNR (B,) at steps t (B,), by sentence."""
    abar = schedule.alphas_cumprod
    wrong = {
        "SNR is upside down; it is alphas_cumprod / (1 - alphas_cumprod).": lambda t: 1 / snr_of(abar[t]),
        "alphas_cumprod stands for SNR, which is alphas_cumprod / (1 - alphas_cumprod).": lambda t: abar[t],
        "The root of SNR stands for SNR; leave out the square roots.": lambda t: snr_of(abar[t]).sqrt(),
        "The logarithm of SNR stands for SNR.": lambda t: snr_of(abar[t]).log(),
        "SNR is divided by betas; it is alphas_cumprod / (1 - alphas_cumprod).": lambda t: abar[t] / schedule.betas[t],
        "SNR has a square root in its denominator; it is alphas_cumprod / (1 - alphas_cumprod).": (
            lambda t: abar[t] / (1 - abar[t]).sqrt()
        ),
        "SNR has a square root in its numerator; it is alphas_cumprod / (1 - alphas_cumprod).": (
            lambda t: abar[t].sqrt() / (1 - abar[t])
        ),
    }
    return wrong | {text: (lambda t, read=read: snr_of(read(t))) for text, read in misreadings(schedule).items()}


def wrong_rules(divisor: Weight) -> dict[str, Rule]:
    """Wrong weights, of SNR and gamma, where an error of x_0 is the other error divided by `divisor` of SNR."""

    def right(snr: Tensor, gamma: Tensor) -> Tensor:
        return snr.minimum(gamma) / divisor(snr)

    return {
        "gamma has no effect: where SNR is larger, gamma takes its place.": lambda snr, gamma: snr / divisor(snr),
        "SNR is kept above gamma; it is kept below: min(SNR, gamma).": (
            lambda snr, gamma: snr.maximum(gamma) / divisor(snr)
        ),
        "gamma stands where min(SNR, gamma) belongs: where SNR is smaller, it stays.": (
            lambda snr, gamma: gamma / divisor(snr)
        ),
        "gamma is 5 here, whatever it is said to be.": lambda snr, gamma: snr.clamp(max=5) / divisor(snr),
        "1 stands where min(SNR, gamma) belongs.": lambda snr, gamma: 1 / divisor(snr),
        "gamma limits the quotient; it is to limit SNR, before the division.": (
            lambda snr, gamma: (snr / divisor(snr)).minimum(gamma)
        ),
        "This is min(SNR, gamma), the weight of an error of x_0; the weight of the other error is asked for.": (
            lambda snr, gamma: snr.minimum(gamma)
        ),
        "The weight of an error of x_0 is multiplied where it is to be divided.": (
            lambda snr, gamma: snr.minimum(gamma) * divisor(snr)
        ),
        "This is SNR itself.": lambda snr, gamma: snr,
        "This is a smooth minimum of SNR and gamma; the minimum itself is asked for.": (
            lambda snr, gamma: snr * gamma / (snr + gamma) / divisor(snr)
        ),
        "The fraction is upside down: this is 1 over the weight.": lambda snr, gamma: divisor(snr) / snr.minimum(gamma),
        "This is the root of the weight; the error is squared before it is weighted, so that the weight stays.": (
            lambda snr, gamma: right(snr, gamma).sqrt()
        ),
        "The weights are divided by their mean over the batch; leave them as they are.": (
            lambda snr, gamma: right(snr, gamma) / right(snr, gamma).mean()
        ),
        "The weights are divided by their sum over the batch; leave them as they are.": (
            lambda snr, gamma: right(snr, gamma) / right(snr, gamma).sum()
        ),
    }


WRONG_OF_NOISE: dict[str, Rule] = {
    "This is the weight of an error of the velocity; the weight of an error of the noise is asked for.": (
        lambda snr, gamma: snr.minimum(gamma) / (snr + 1)
    ),
}
WRONG_OF_VELOCITY: dict[str, Rule] = {
    "This is the weight of an error of the noise; the weight of an error of the velocity is asked for.": (
        lambda snr, gamma: snr.minimum(gamma) / snr
    ),
    "1 is added to the quotient; it is to be added to SNR, before the division.": (
        lambda snr, gamma: snr.minimum(gamma) / snr + 1
    ),
    "1 is added to SNR inside the minimum too, where SNR stays as it is.": (
        lambda snr, gamma: (snr + 1).minimum(gamma) / (snr + 1)
    ),
    "gamma limits SNR in the denominator too, where SNR stays as it is.": (
        lambda snr, gamma: snr.minimum(gamma) / (snr.minimum(gamma) + 1)
    ),
    "1 - alphas_cumprod is 1 / (SNR + 1); alphas_cumprod stands in its place.": (
        lambda snr, gamma: snr.minimum(gamma) * snr / (snr + 1)
    ),
}


def min_snr_weight(schedule: Schedule, prediction: str) -> ClosedForm:
    """The weights (B,) of the squared error of a prediction, "noise" or "velocity", as a function of t (B,) and gamma.

    With x_t known, an error e of x_0 is one of sqrt(SNR) e in the noise, and of sqrt(SNR + 1) e in the velocity.
    """
    extra = 0.0 if prediction == "noise" else 1.0
    rules = wrong_rules(lambda snr: snr + extra) | (WRONG_OF_NOISE if prediction == "noise" else WRONG_OF_VELOCITY)

    def weights(read: Reading, rule: Rule) -> Formula:
        return lambda t, gamma: rule(read(t), gamma)

    def right(snr: Tensor, gamma: Tensor) -> Tensor:
        return snr.minimum(gamma) / (snr + extra)

    def read(t: Tensor) -> Tensor:
        return snr_of(schedule.alphas_cumprod[t])

    wrong = {text: weights(read, rule) for text, rule in rules.items()}
    misread = {text: weights(snr, right) for text, snr in misread_snr(schedule).items()}
    return ClosedForm((weights(read, right),), wrong | misread)

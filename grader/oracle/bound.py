"""The variational bound of diffusion, for a denoiser whose errors are known.

If the predicted noise is off by e, the predicted x_0 is off by sqrt(1 / SNR) e, whatever x_t was drawn, and every term
of the bound follows from x_0 and e alone: Kingma et al., "Variational Diffusion Models" (2021), section 4, and
Ho et al., "Denoising Diffusion Probabilistic Models" (2020), section 2. Steps are numbered from 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from .closed_form import ClosedForm, Formula
from .diffusion import Schedule

LOG_2PI = math.log(2 * math.pi)


@dataclass(frozen=True)
class Bound:
    """The terms of the bound in nats, of each image; a part that is given stands in the place of the right one.

    Attributes:
        schedule: of the diffusion.
        x_start: (B, C, H, W), x_0.
        noise_error: (T, B, C, H, W), predicted minus true noise in x_t, at every step.
        prior: (B,), KL(q(x_T | x_0) || N(0, I)).
        steps: (T - 1, B), KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)) for t > 0.
        first: (B,), -log N(x_0; mean of p at t = 0, betas[0]).
    """

    schedule: Schedule
    x_start: Tensor
    noise_error: Tensor
    prior: Tensor
    steps: Tensor
    first: Tensor

    @classmethod
    def of(cls, schedule: Schedule, x_start: Tensor, noise_error: Tensor) -> Bound:
        """The right terms."""
        nothing = torch.zeros(())
        bound = cls(schedule, x_start, noise_error, nothing, nothing, nothing)
        snr = bound.snr
        return bound.with_terms(
            prior=bound.divergence_from_prior(schedule.alphas_cumprod[-1]),
            steps=0.5 * (snr[:-1] - snr[1:])[:, None] * bound.start_errors[1:],
            first=bound.surprise(schedule.betas[0]),
        )

    def with_terms(self, prior: Tensor, steps: Tensor, first: Tensor) -> Bound:
        """The bound with other terms."""
        return replace(self, prior=prior, steps=steps, first=first)

    @property
    def total(self) -> Tensor:
        """Their sum, (B,)."""
        return self.prior + self.steps.sum(0) + self.first

    @property
    def bits_per_dim(self) -> Tensor:
        """Their sum in bits by the number of elements, (B,)."""
        return self.total / (math.log(2) * self.size)

    @property
    def size(self) -> int:
        """The number of elements of an image."""
        return self.x_start[0].numel()

    @cached_property
    def snr(self) -> Tensor:
        """Signal-to-noise ratios, (T,)."""
        return self.schedule.alphas_cumprod / (1 - self.schedule.alphas_cumprod)

    @cached_property
    def noise_errors(self) -> Tensor:
        """Squared errors of the noise, summed over an image: (T, B)."""
        return self.noise_error.square().flatten(2).sum(2)

    @cached_property
    def start_errors(self) -> Tensor:
        """Squared errors of the predicted x_0, summed over an image: (T, B)."""
        return self.noise_errors / self.snr[:, None]

    @cached_property
    def mean_errors(self) -> Tensor:
        """Squared errors of the means of p, summed over an image: (T, B)."""
        return self.schedule.posterior_mean_coef1.square()[:, None] * self.start_errors

    @cached_property
    def clamped(self) -> Bound:
        """The bound with every predicted x_0 clamped to [-1, 1]."""
        start = self.x_start - self.noise_error / self.snr.sqrt().reshape(-1, 1, 1, 1, 1)
        errors = (self.x_start - start.clamp(-1, 1)) * self.snr.sqrt().reshape(-1, 1, 1, 1, 1)
        return Bound.of(self.schedule, self.x_start, errors)

    def divergence_from_prior(self, abar: Tensor, variance: Tensor | None = None) -> Tensor:
        """KL(N(sqrt(abar) x_0, variance) || N(0, I)), with the variance 1 - abar by default: (B,)."""
        variance = 1 - abar if variance is None else variance
        return self.summed(abar * self.x_start.square() + variance - 1 - torch.log(variance)) / 2

    def divergence_of_prior(self) -> Tensor:
        """KL(N(0, I) || q(x_T | x_0)), the wrong way round: (B,)."""
        abar = self.schedule.alphas_cumprod[-1]
        return self.summed((1 + abar * self.x_start.square()) / (1 - abar) - 1 + torch.log(1 - abar)) / 2

    def surprise(self, variance: Tensor) -> Tensor:
        """-log N(x_0; mean of p at t = 0, variance), (B,)."""
        return self.start_errors[0] / (2 * variance) + self.size / 2 * (LOG_2PI + torch.log(variance))

    def summed(self, x: Tensor) -> Tensor:
        """Sums over each image, (B,)."""
        return x.flatten(1).sum(1)


def bits_per_dim(schedule: Schedule) -> ClosedForm:
    """The bound (B,) as a function of x_start (B, C, H, W) and noise_error (T, B, C, H, W), in bits a dimension."""

    def formula(of: Callable[[Bound], Tensor]) -> Formula:
        return lambda x_start, noise_error: of(Bound.of(schedule, x_start, noise_error))

    wrong = {**_wrong_parts(), **_wrong_priors(schedule), **_wrong_steps(schedule), **_wrong_firsts(schedule)}
    return ClosedForm(
        accepted=(formula(lambda bound: bound.bits_per_dim),),
        misconceptions={sentence: formula(of) for sentence, of in wrong.items()},
    )


Wrong = Mapping[str, Callable[[Bound], Tensor]]


def _with(**parts: Callable[[Bound], Tensor]) -> Callable[[Bound], Tensor]:
    """The bound with some of its terms computed otherwise."""

    def of(bound: Bound) -> Tensor:
        right = {"prior": bound.prior, "steps": bound.steps, "first": bound.first}
        return bound.with_terms(**right | {name: part(bound) for name, part in parts.items()}).bits_per_dim

    return of


def _wrong_parts() -> Wrong:
    """What goes wrong with the terms as wholes."""
    zero = torch.zeros_like
    return {
        "The term at T is missing: the divergence of q(x_T | x_0) from N(0, I).": _with(prior=lambda b: zero(b.prior)),
        "The term at t = 0 is missing: -log N(x_0; mean, betas[0]).": _with(first=lambda b: zero(b.first)),
        "The terms of t > 0 are missing.": _with(steps=lambda b: zero(b.steps)),
        "The terms of t > 0 are subtracted; they are added.": _with(steps=lambda b: -b.steps),
        "The term at t = 0 is log N; -log N belongs in an upper bound.": _with(first=lambda b: -b.first),
        "The term at T is subtracted; it is added.": _with(prior=lambda b: -b.prior),
        "The terms of t > 0 are averaged over t; the bound is their sum.": _with(
            steps=lambda b: b.steps / len(b.steps)
        ),
        "The terms of all t are averaged over t; the bound is their sum.": _with(
            steps=lambda b: b.steps / len(b.noise_error), first=lambda b: b.first / len(b.noise_error)
        ),
        "The bound is divided by the number of steps; it is the sum of all terms.": (
            lambda b: b.bits_per_dim / len(b.noise_error)
        ),
        "It is divided by the number of elements twice: `nats` is a sum, and the return divides it.": (
            lambda b: b.bits_per_dim / b.size
        ),
        "It is divided by log 2 twice: `nats` is in nats, and the return makes bits of it.": (
            lambda b: b.bits_per_dim / math.log(2)
        ),
        "The whole bound has the wrong sign: it bounds -log p(x_0), not log p(x_0).": lambda b: -b.bits_per_dim,
        "The bound is averaged over the batch; every image has its own.": (
            lambda b: b.bits_per_dim.mean().expand(len(b.x_start))
        ),
        "The bound is summed over the batch; every image has its own.": (
            lambda b: b.bits_per_dim.sum().expand(len(b.x_start))
        ),
        "The predicted x_0 is clamped to [-1, 1]; latents are not.": lambda b: b.clamped.bits_per_dim,
    }


def _wrong_priors(schedule: Schedule) -> Wrong:
    """What goes wrong with the term at T."""
    abar = schedule.alphas_cumprod
    last = abar[-1]
    wrong: Wrong = {
        "The divergence at T is the wrong way round: it is that of q(x_T | x_0) from N(0, I).": (
            lambda b: b.divergence_of_prior()
        ),
        "The term at T is computed with alphas_cumprod[0]; at T it is the last of alphas_cumprod.": (
            lambda b: b.divergence_from_prior(abar[0])
        ),
        "The term at T is computed with the schedule of the step before it; the last of alphas_cumprod belongs here.": (
            lambda b: b.divergence_from_prior(abar[-2])
        ),
        "The factor 1/2 is missing in the term at T.": lambda b: 2 * b.prior,
        "The mean of q(x_T | x_0) is left out of the term at T: it is sqrt(alphas_cumprod) x_0, and not 0.": (
            lambda b: b.prior - last / 2 * b.summed(b.x_start.square())
        ),
        "The variance of q(x_T | x_0) is left out of the term at T: its divergence has more than the squared mean.": (
            lambda b: last / 2 * b.summed(b.x_start.square())
        ),
        "At T the variance of q(x_T | x_0) is taken for betas[-1]; it is 1 - alphas_cumprod[-1].": (
            lambda b: b.divergence_from_prior(last, schedule.betas[-1])
        ),
        "At T the variance of q(x_T | x_0) is given where its standard deviation belongs: that is the square root.": (
            lambda b: b.divergence_from_prior(last, (1 - last).square())
        ),
        "At T the standard deviation of q(x_T | x_0) is given where its variance belongs, 1 - alphas_cumprod.": (
            lambda b: b.divergence_from_prior(last, (1 - last).sqrt())
        ),
        "At T the mean of q(x_T | x_0) is taken for alphas_cumprod x_0; it is sqrt(alphas_cumprod) x_0.": (
            lambda b: b.divergence_from_prior(last.square(), 1 - last)
        ),
        "At T the mean of q(x_T | x_0) is taken for x_0; it is sqrt(alphas_cumprod) x_0.": (
            lambda b: b.divergence_from_prior(torch.ones(()), 1 - last)
        ),
        "At T the logarithm of the variance has the wrong sign: a divergence has minus log of it.": (
            lambda b: b.prior + b.size * torch.log(1 - last)
        ),
        "At T the logarithm of the variance is missing.": lambda b: b.prior + b.size / 2 * torch.log(1 - last),
        "The 1 that a divergence of two Gaussians subtracts is missing at T.": lambda b: b.prior + b.size / 2,
        "The term at T is -log N(x_T; 0, I) in the mean; a divergence has the entropy of q(x_T | x_0) taken off.": (
            lambda b: b.prior + b.size / 2 * (LOG_2PI + 1 + torch.log(1 - last))
        ),
    }
    return {sentence: _with(prior=prior) for sentence, prior in wrong.items()}


def _wrong_steps(schedule: Schedule) -> Wrong:
    """What goes wrong with the terms of t > 0."""
    betas, variance = schedule.betas[1:, None], schedule.posterior_variance[1:, None]
    abar = schedule.alphas_cumprod
    wrong: Wrong = {
        "The factor 1/2 is missing for t > 0: a divergence has the squared distance by twice the variance.": (
            lambda b: 2 * b.steps
        ),
        "For t > 0 the distance of the means is divided by beta; the variance of both is the posterior variance.": (
            lambda b: b.mean_errors[1:] / (2 * betas)
        ),
        "For t > 0 the distance of the means is not divided by the variance, which belongs into a divergence.": (
            lambda b: b.mean_errors[1:] / 2
        ),
        "For t > 0 the squared distance of the means is taken as it is; a divergence has it by twice the variance.": (
            lambda b: b.mean_errors[1:]
        ),
        "For t > 0 the variance is given where the standard deviation belongs: that is the square root.": (
            lambda b: b.mean_errors[1:] / (2 * variance.square())
        ),
        "For t > 0 the distance is divided by the standard deviation, where the variance belongs.": (
            lambda b: b.mean_errors[1:] / (2 * variance.sqrt())
        ),
        "For t > 0 the squared distance is multiplied by the variance; it is divided by it.": (
            lambda b: b.mean_errors[1:] * variance / 2
        ),
        "For t > 0 it is -log N of one mean under the other, which has a normalisation; a divergence has none here.": (
            lambda b: b.steps + b.size / 2 * (LOG_2PI + torch.log(variance))
        ),
        "For t > 0 the distance of the x_0 is taken without a weight; it is that of the means, by the variance.": (
            lambda b: b.start_errors[1:] / 2
        ),
        "For t > 0 the distance of the x_0 is divided by the variance; it is the means whose distance belongs here.": (
            lambda b: b.start_errors[1:] / (2 * variance)
        ),
        "For t > 0 the index is one too high: t - 1 is what comes after t on the way back.": (
            lambda b: 0.5 * (b.snr[1:] - torch.cat([b.snr[2:], b.snr[-1:] * 0]))[:, None] * b.start_errors[1:]
        ),
        "For t > 0 the variance is 1 - alphas_cumprod; the variance of both is the posterior variance.": (
            lambda b: b.mean_errors[1:] / (2 * (1 - abar[1:, None]))
        ),
    }
    simple = {
        "The squared error of the noise is summed, without the weights of the bound.": _with(
            steps=lambda b: b.noise_errors[1:], first=lambda b: b.noise_errors[0]
        ),
        "The squared error of the noise is averaged as in training, where the divergences belong.": _with(
            steps=lambda b: b.noise_errors[1:] / b.size, first=lambda b: b.noise_errors[0] / b.size
        ),
        "For t > 0 the squared error of the noise is summed, without the weights of the bound.": _with(
            steps=lambda b: b.noise_errors[1:]
        ),
        "For t > 0 the squared error of the noise is averaged as in training, where the divergences belong.": _with(
            steps=lambda b: b.noise_errors[1:] / b.size
        ),
    }
    return {sentence: _with(steps=steps) for sentence, steps in wrong.items()} | simple


def _wrong_firsts(schedule: Schedule) -> Wrong:
    """What goes wrong with the term at t = 0."""
    beta, next_variance = schedule.betas[0], schedule.posterior_variance[1]
    log_beta = torch.log(beta)
    wrong: Wrong = {
        "The normalisation of the normal density is missing at t = 0.": lambda b: b.start_errors[0] / (2 * beta),
        "At t = 0 the distance of x_0 from the mean is missing: only the normalisation of the density is there.": (
            lambda b: b.size / 2 * (LOG_2PI + log_beta)
        ),
        "In the normalisation at t = 0 the log of 2 pi is missing.": lambda b: b.first - b.size / 2 * LOG_2PI,
        "In the normalisation at t = 0 the log of the variance is missing.": lambda b: b.first - b.size / 2 * log_beta,
        "The factor 1/2 is missing in the normalisation at t = 0.": (
            lambda b: b.first + b.size / 2 * (LOG_2PI + log_beta)
        ),
        "The normalisation at t = 0 has the wrong sign: -log N has plus half the log of 2 pi times the variance.": (
            lambda b: b.first - b.size * (LOG_2PI + log_beta)
        ),
        "The normalisation at t = 0 is added once for an image; every element has it.": (
            lambda b: b.first - (b.size - 1) / 2 * (LOG_2PI + log_beta)
        ),
        "The factor 1/2 is missing in the squared distance at t = 0.": lambda b: (
            b.first + b.start_errors[0] / (2 * beta)
        ),
        "The squared distance at t = 0 is not divided by the variance.": (
            lambda b: b.first + b.start_errors[0] / 2 * (1 - 1 / beta)
        ),
        "At t = 0 betas[0] is taken for the standard deviation; it is the variance.": lambda b: b.surprise(
            beta.square()
        ),
        "At t = 0 the variance is 1; it is betas[0].": lambda b: b.surprise(torch.ones(())),
        "At t = 0 the square root of betas[0] is taken for the variance; that is betas[0].": (
            lambda b: b.surprise(beta.sqrt())
        ),
        "At t = 0 the posterior variance of t = 1 is used; it is betas[0] there.": lambda b: b.surprise(next_variance),
        "At t = 0 the posterior variance of t = 1 is used, and no normalisation; there it is -log N with betas[0].": (
            lambda b: b.start_errors[0] / (2 * next_variance)
        ),
        "At t = 0 the variance is betas[1]; it is betas[0].": lambda b: b.surprise(schedule.betas[1]),
        "At t = 0 the variance is the last of betas; it is betas[0].": lambda b: b.surprise(schedule.betas[-1]),
    }
    return {sentence: _with(first=first) for sentence, first in wrong.items()}

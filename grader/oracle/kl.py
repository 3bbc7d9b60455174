"""KL divergence of a diagonal Gaussian from the standard normal (Kingma and Welling, 2014, appendix B)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .closed_form import ClosedForm, Formula

FREE_NATS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0)


def per_variable(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mu, exp(logvar)) || N(0, 1)) in nats, elementwise."""
    return (mu.square() + logvar.expm1() - logvar) / 2


def batch_mean(elementwise: Formula) -> Formula:
    """Sum over all axes but the first, mean over the first."""
    return lambda mu, logvar: elementwise(mu, logvar).flatten(1).sum(1).mean()


def kl_standard_normal(mu: Tensor, logvar: Tensor) -> Tensor:
    """The KL divergence in nats, summed over the variables of an image, averaged over the batch: a scalar."""
    return batch_mean(per_variable)(mu, logvar)


def at_least(nats: float) -> Formula:
    """Every variable counts with at least some nats."""
    return batch_mean(lambda mu, logvar: per_variable(mu, logvar).clamp_min(nats))


def at_least_by_image(nats: float) -> Formula:
    """Every image counts with at least some nats."""
    return lambda mu, logvar: per_variable(mu, logvar).flatten(1).sum(1).clamp_min(nats).mean()


def last_two_axes(mu: Tensor, logvar: Tensor) -> Tensor:
    """Sum over the last two axes but the first, mean over the others."""
    values = per_variable(mu, logvar)
    return values.sum((-2, -1) if values.ndim > 2 else -1).mean()


REDUCTIONS: dict[str, Formula] = {
    "The mean is taken over the latent variables; they are to be summed, since the KL of independent "
    "variables adds up.": lambda mu, logvar: per_variable(mu, logvar).mean(),
    "The sum runs over the whole batch; the loss is the mean over the batch.": (
        lambda mu, logvar: per_variable(mu, logvar).sum()
    ),
    "The sum runs over the batch, and the mean over the latent variables; it is the other way round.": (
        lambda mu, logvar: per_variable(mu, logvar).sum(0).mean()
    ),
    "The sum does not reach all the axes of an image: every axis but the first is to be summed.": (
        lambda mu, logvar: per_variable(mu, logvar).sum(1).mean()
    ),
    "Only the last axis is summed: every axis but the first is to be summed.": (
        lambda mu, logvar: per_variable(mu, logvar).sum(-1).mean()
    ),
    "Only the last two axes are summed: every axis but the first is to be summed.": last_two_axes,
    "The term -1 counts once for each image; every latent variable has one.": (
        lambda mu, logvar: kl_standard_normal(mu, logvar) + (mu[0].numel() - 1) / 2
    ),
    "The term -1 counts once for the batch; every latent variable of every image has one.": (
        lambda mu, logvar: kl_standard_normal(mu, logvar) + (mu[0].numel() - 1 / len(mu)) / 2
    ),
}
TERMS: dict[str, Formula] = {
    "The term -1 of every latent variable is missing.": lambda mu, logvar: per_variable(mu, logvar) + 0.5,
    "The sign of the term -1 of every latent variable is flipped.": lambda mu, logvar: per_variable(mu, logvar) + 1,
    "The term of the mean, mu squared, is missing.": lambda mu, logvar: per_variable(torch.zeros_like(mu), logvar),
    "mu enters without its square.": lambda mu, logvar: per_variable(mu, logvar) + (mu - mu**2) / 2,
    "The absolute value of mu stands where its square belongs.": (
        lambda mu, logvar: per_variable(torch.zeros_like(mu), logvar) + mu.abs() / 2
    ),
    "The sign of the term of the mean, mu squared, is flipped.": lambda mu, logvar: per_variable(mu, logvar) - mu**2,
    "The term -logvar is missing.": lambda mu, logvar: per_variable(mu, logvar) + logvar / 2,
    "The sign of the term logvar is flipped.": lambda mu, logvar: per_variable(mu, logvar) + logvar,
    "The factor 1/2 does not reach the term logvar: the logarithm of the standard deviation is half of it.": (
        lambda mu, logvar: per_variable(mu, logvar) - logvar / 2
    ),
    "The factor 1/2 reaches the term of the mean only; it belongs to every term.": (
        lambda mu, logvar: per_variable(mu, logvar) + per_variable(torch.zeros_like(mu), logvar)
    ),
    "The factor 1/2 reaches the first two terms only, not -1 and logvar; it belongs to every term.": (
        lambda mu, logvar: per_variable(mu, logvar) - (1 + logvar) / 2
    ),
    "The factor 1/2 does not reach the term -1; it belongs to every term.": (
        lambda mu, logvar: per_variable(mu, logvar) - 0.5
    ),
    "The factor 1/2 does not reach the term exp(logvar); it belongs to every term.": (
        lambda mu, logvar: per_variable(mu, logvar) + logvar.exp() / 2
    ),
    "The factor 1/2 does not reach the term of the mean, mu squared; it belongs to every term.": (
        lambda mu, logvar: per_variable(mu, logvar) + mu**2 / 2
    ),
    "The factor 1/2 reaches the term -1 only; it belongs to every term.": (
        lambda mu, logvar: 2 * per_variable(mu, logvar) + 0.5
    ),
    "The factor 1/2 reaches the terms -1 and logvar only; it belongs to every term.": (
        lambda mu, logvar: per_variable(mu, logvar) + (mu**2 + logvar.exp()) / 2
    ),
    "The sign of the term exp(logvar) is flipped.": lambda mu, logvar: per_variable(mu, logvar) - logvar.exp(),
    "exp(2 logvar) stands where the variance exp(logvar) belongs.": (
        lambda mu, logvar: (mu**2 + torch.expm1(2 * logvar) - logvar) / 2
    ),
    "The term exp(logvar) is missing.": lambda mu, logvar: per_variable(mu, logvar) - logvar.exp() / 2,
    "The sign in the exponential is flipped: exp(-logvar) stands where the variance belongs.": (
        lambda mu, logvar: (mu**2 + torch.expm1(-logvar) - logvar) / 2
    ),
    "The standard deviation stands where the variance exp(logvar) belongs.": (
        lambda mu, logvar: (mu**2 + torch.exp(logvar / 2) - 1 - logvar) / 2
    ),
    "logvar is taken for the standard deviation; the variance is exp(logvar).": (
        lambda mu, logvar: (mu**2 + logvar**2 - 1 - torch.log(logvar**2)) / 2
    ),
    "logvar is taken for the variance; the variance is exp(logvar).": (
        lambda mu, logvar: (mu**2 + logvar - 1 - torch.log(logvar.abs())) / 2
    ),
    "The absolute value of logvar is taken for the variance; the variance is exp(logvar).": (
        lambda mu, logvar: (mu**2 + logvar.abs() - 1 - torch.log(logvar.abs())) / 2
    ),
    "logvar is taken for the logarithm of the standard deviation; it is that of the variance.": (
        lambda mu, logvar: per_variable(mu, 2 * logvar)
    ),
    "This is the reverse divergence, KL(p || q); the loss is KL(q || p).": (
        lambda mu, logvar: ((1 + mu**2) / logvar.exp() - 1 + logvar) / 2
    ),
    "mu and logvar are swapped.": lambda mu, logvar: per_variable(logvar, mu),
}

KL = ClosedForm(
    accepted=(kl_standard_normal,),
    misconceptions={
        "The factor 1/2 of the KL divergence is missing.": lambda mu, logvar: 2 * kl_standard_normal(mu, logvar),
        "The sign is flipped: a KL divergence is never negative.": (lambda mu, logvar: -kl_standard_normal(mu, logvar)),
        **REDUCTIONS,
        **{sentence: batch_mean(elementwise) for sentence, elementwise in TERMS.items()},
        "The divergence is in bits; it is to be in nats, with natural logarithms.": (
            lambda mu, logvar: kl_standard_normal(mu, logvar) / math.log(2)
        ),
        "The loss is zero.": lambda mu, logvar: torch.zeros((), dtype=mu.dtype),
        # of one variable the two are the same, so that the first must be true of both
        **{
            f"Less than {nats:g} nats count as {nats:g} (free bits); a divergence is to count as it is.": at_least(nats)
            for nats in FREE_NATS
        },
        **{
            f"Every image counts with at least {nats:g} nats (free bits); it is to count as it is.": (
                at_least_by_image(nats)
            )
            for nats in FREE_NATS
        },
    },
)

"""KL divergence of a diagonal Gaussian from the standard normal (Kingma and Welling, 2014, appendix B)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .closed_form import ClosedForm, Formula


def per_variable(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mu, exp(logvar)) || N(0, 1)) in nats, elementwise."""
    return (mu.square() + logvar.expm1() - logvar) / 2


def batch_mean(elementwise: Formula) -> Formula:
    """Sum over all axes but the first, mean over the first."""
    return lambda mu, logvar: elementwise(mu, logvar).flatten(1).sum(1).mean()


def kl_standard_normal(mu: Tensor, logvar: Tensor) -> Tensor:
    """The KL divergence in nats, summed over the variables of an image, averaged over the batch: a scalar."""
    return batch_mean(per_variable)(mu, logvar)


KL = ClosedForm(
    accepted=(kl_standard_normal,),
    misconceptions={
        "The factor 1/2 of the KL divergence is missing.": lambda mu, logvar: 2 * kl_standard_normal(mu, logvar),
        "The sign is flipped: a KL divergence is never negative.": (lambda mu, logvar: -kl_standard_normal(mu, logvar)),
        "The term -1 of every latent variable is missing.": batch_mean(
            lambda mu, logvar: per_variable(mu, logvar) + 0.5
        ),
        "The mean is taken over the latent variables; they are to be summed, since the KL of independent "
        "variables adds up.": lambda mu, logvar: per_variable(mu, logvar).mean(),
        "The sum runs over the whole batch; the loss is the mean over the batch.": (
            lambda mu, logvar: per_variable(mu, logvar).sum()
        ),
        "The sum does not reach all the axes of an image: every axis but the first is to be summed.": (
            lambda mu, logvar: per_variable(mu, logvar).sum(1).mean()
        ),
        "Only the last axis is summed: every axis but the first is to be summed.": (
            lambda mu, logvar: per_variable(mu, logvar).sum(-1).mean()
        ),
        "The standard deviation stands where the variance exp(logvar) belongs.": batch_mean(
            lambda mu, logvar: (mu**2 + torch.exp(logvar / 2) - 1 - logvar) / 2
        ),
        "The absolute value of mu stands where its square belongs.": batch_mean(
            lambda mu, logvar: per_variable(torch.zeros_like(mu), logvar) + mu.abs() / 2
        ),
        "The divergence is in bits; it is to be in nats, with natural logarithms.": (
            lambda mu, logvar: kl_standard_normal(mu, logvar) / math.log(2)
        ),
        "The loss is zero.": lambda mu, logvar: torch.zeros((), dtype=mu.dtype),
        "logvar is taken for the standard deviation; the variance is exp(logvar).": batch_mean(
            lambda mu, logvar: (mu**2 + logvar**2 - 1 - torch.log(logvar**2)) / 2
        ),
        "logvar is taken for the variance; the variance is exp(logvar).": batch_mean(
            lambda mu, logvar: (mu**2 + logvar - 1 - torch.log(logvar.abs())) / 2
        ),
        "logvar is taken for the logarithm of the standard deviation; it is that of the variance.": batch_mean(
            lambda mu, logvar: per_variable(mu, 2 * logvar)
        ),
        "This is the reverse divergence, KL(p || q); the loss is KL(q || p).": batch_mean(
            lambda mu, logvar: ((1 + mu**2) / logvar.exp() - 1 + logvar) / 2
        ),
        "mu enters without its square.": batch_mean(lambda mu, logvar: per_variable(mu, logvar) + (mu - mu**2) / 2),
        "The term of the mean, mu squared, is missing.": batch_mean(
            lambda mu, logvar: per_variable(torch.zeros_like(mu), logvar)
        ),
        "The term -logvar is missing.": batch_mean(lambda mu, logvar: per_variable(mu, logvar) + logvar / 2),
        "The sign of the term logvar is flipped.": batch_mean(lambda mu, logvar: per_variable(mu, logvar) + logvar),
        "The term exp(logvar) is missing.": batch_mean(lambda mu, logvar: per_variable(mu, logvar) - logvar.exp() / 2),
    },
)

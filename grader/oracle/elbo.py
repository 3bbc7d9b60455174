"""Evidence lower bound of a VAE with Bernoulli pixels and Gaussian latents (Kingma and Welling, 2014, equation (3)).

Pixels x and x_reconst are (B, ...); the posterior is (B, z_dim), and the prior broadcasts to it.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .closed_form import ClosedForm, Formula


def log_bernoulli(x: Tensor, x_reconst: Tensor) -> Tensor:
    """x log x' + (1 - x) log(1 - x') in nats, elementwise, with 0 log 0 = 0 (appendix C.1)."""
    return torch.xlogy(x, x_reconst) + torch.special.xlog1py(1 - x, -x_reconst)


def kl_normals(mean: Tensor, stddev: Tensor, prior_mean: Tensor, prior_stddev: Tensor) -> Tensor:
    """KL(N(mean, stddev^2) || N(prior_mean, prior_stddev^2)) in nats, elementwise."""
    ratio = stddev / prior_stddev
    return (ratio.square() + ((mean - prior_mean) / prior_stddev).square() - 1) / 2 - ratio.log()


def image_sum(values: Tensor) -> Tensor:
    """Sum over all axes but the first, mean over the first: a scalar."""
    return values.flatten(1).sum(1).mean()


def bound(
    likelihood: Formula = log_bernoulli,
    divergence: Formula = kl_normals,
    over_pixels: Formula = image_sum,
    over_latents: Formula = image_sum,
) -> Formula:
    """The bound from its parts: elementwise terms, and how they are reduced to a scalar."""

    def formula(
        x: Tensor,
        x_reconst: Tensor,
        posterior_mean: Tensor,
        posterior_stddev: Tensor,
        prior_mean: Tensor,
        prior_stddev: Tensor,
    ) -> Tensor:
        pixels = likelihood(x, x_reconst)
        latents = divergence(posterior_mean, posterior_stddev, prior_mean, prior_stddev)
        return over_pixels(pixels) - over_latents(latents)

    return formula


def scaled(factor: float, reduce: Formula = image_sum) -> Formula:
    """A reduction times a factor."""
    return lambda values: factor * reduce(values)


def batch_sum(values: Tensor) -> Tensor:
    """Sum over everything, the batch included."""
    return values.sum()


def mean_of_all(values: Tensor) -> Tensor:
    """Mean over everything."""
    return values.mean()


def per_pixel(**inputs: Tensor) -> Tensor:
    """The bound over the number of pixels."""
    return elbo(**inputs) / inputs["x"][0].numel()


def crossed(x: Tensor, x_reconst: Tensor) -> Tensor:
    """The likelihood with its arguments exchanged, and logarithms bounded as `F.binary_cross_entropy` bounds them."""
    return -F.binary_cross_entropy(x, x_reconst, reduction="none")


elbo = bound()

FORMULA = "the bound of an image is sum(x log x' + (1 - x) log(1 - x')) - KL(q || p)"
REDUCTIONS = {
    "The mean over the pixels is taken; the log-likelihood of an image is the sum over its pixels.": bound(
        over_pixels=mean_of_all
    ),
    "The sum runs over the batch; the bound is the mean over the batch.": bound(
        over_pixels=batch_sum, over_latents=batch_sum
    ),
    "The log-likelihood is summed over the batch, unlike the KL divergence; each is to be a sum per image.": bound(
        over_pixels=batch_sum
    ),
    "The KL divergence is summed over the batch, unlike the log-likelihood; each is to be a sum per image.": bound(
        over_latents=batch_sum
    ),
    "The KL divergence is averaged over the latent variables; it is to be summed, as that of independent variables "
    "adds up.": bound(over_latents=mean_of_all),
    "Means are taken over the pixels and over the latent variables; both are to be summed.": bound(
        over_pixels=mean_of_all, over_latents=mean_of_all
    ),
    "The bound is divided by the number of pixels; it is to be in nats per image.": per_pixel,
    "Only the second axis of the images is summed: every axis but the first is to be summed.": bound(
        over_pixels=lambda values: values.sum(1).mean()
    ),
    "Only the last axis of the images is summed: every axis but the first is to be summed.": bound(
        over_pixels=lambda values: values.sum(-1).mean()
    ),
    "Only the last two axes of the images are summed: every axis but the first is to be summed.": bound(
        over_pixels=lambda values: values.flatten(-2).sum(-1).mean() if values.ndim > 3 else image_sum(values)
    ),
}
SIGNS = {
    "The sign is flipped: this is the loss, minus the bound; return the bound.": bound(
        over_pixels=scaled(-1), over_latents=scaled(-1)
    ),
    f"The KL divergence is added; it is to be subtracted: {FORMULA}.": bound(over_latents=scaled(-1)),
    "The sign of the log-likelihood is flipped: a cross-entropy is minus a log-likelihood.": bound(
        over_pixels=scaled(-1)
    ),
    "The KL divergence is missing.": bound(over_latents=scaled(0)),
    "The log-likelihood is missing.": bound(over_pixels=scaled(0)),
    "The result is zero.": bound(over_pixels=scaled(0), over_latents=scaled(0)),
}
LIKELIHOODS = {
    "x and x_reconst are swapped: the logarithms belong to x_reconst, the weights are x and 1 - x.": bound(crossed),
    "The second term is (1 - x') log(1 - x), with x and x' swapped; it is (1 - x) log(1 - x').": bound(
        lambda x, x_reconst: torch.xlogy(x, x_reconst) + torch.xlogy(1 - x_reconst, 1 - x)
    ),
    "The second term of the log-likelihood, (1 - x) log(1 - x'), is missing.": bound(torch.xlogy),
    "The first term of the log-likelihood, x log x', is missing.": bound(
        lambda x, x_reconst: torch.special.xlog1py(1 - x, -x_reconst)
    ),
    "The weights are exchanged: log x' goes with x, and log(1 - x') with 1 - x.": bound(
        lambda x, x_reconst: log_bernoulli(1 - x, x_reconst)
    ),
    "The weight of log(1 - x') is x; it is 1 - x.": bound(
        lambda x, x_reconst: x * (x_reconst.log() + torch.log1p(-x_reconst))
    ),
    "The two terms of the log-likelihood are subtracted; they are to be added.": bound(
        lambda x, x_reconst: torch.xlogy(x, x_reconst) - torch.special.xlog1py(1 - x, -x_reconst)
    ),
    "x_reconst is taken for logits; it holds probabilities already.": bound(
        lambda x, x_reconst: x * x_reconst - F.softplus(x_reconst)
    ),
    "x_reconst goes through another sigmoid on only one side of the cross-entropy; it holds probabilities "
    "already.": bound(lambda x, x_reconst: x * F.logsigmoid(x_reconst) + (1 - x) * torch.log1p(-x_reconst)),
    "The log-likelihood is in bits; logarithms are to be natural.": bound(over_pixels=scaled(1 / math.log(2))),
    "The bound is in bits; it is to be in nats.": bound(
        over_pixels=scaled(1 / math.log(2)), over_latents=scaled(1 / math.log(2))
    ),
    "The squared error stands where the log-likelihood of Bernoulli pixels belongs.": bound(
        lambda x, x_reconst: -(x - x_reconst).square()
    ),
    "Half the squared error stands where the log-likelihood of Bernoulli pixels belongs.": bound(
        lambda x, x_reconst: -(x - x_reconst).square() / 2
    ),
    "The mean squared error stands where the log-likelihood of Bernoulli pixels, summed over them, belongs.": bound(
        lambda x, x_reconst: -(x - x_reconst).square(), over_pixels=mean_of_all
    ),
    "The log-density of a Gaussian stands where that of Bernoulli pixels belongs.": bound(
        lambda x, x_reconst: -((x - x_reconst).square() + math.log(2 * math.pi)) / 2
    ),
    "The absolute error stands where the log-likelihood of Bernoulli pixels belongs.": bound(
        lambda x, x_reconst: -(x - x_reconst).abs()
    ),
    "There are no logarithms: the likelihood of a pixel is taken, not its log-likelihood.": bound(
        lambda x, x_reconst: x * x_reconst + (1 - x) * (1 - x_reconst)
    ),
}
DIVERGENCES = {
    "The factor 1/2 of the KL divergence is missing.": bound(over_latents=scaled(2)),
    "The KL divergence is halved once too often.": bound(over_latents=scaled(0.5)),
    "This is with the reverse divergence, KL(p || q); the bound has KL(q || p).": bound(
        divergence=lambda mean, stddev, prior_mean, prior_stddev: kl_normals(prior_mean, prior_stddev, mean, stddev)
    ),
    "The prior is taken to be N(0, I) whatever z_prior is; use the mean and standard deviation of z_prior.": bound(
        divergence=lambda mean, stddev, prior_mean, prior_stddev: kl_normals(
            mean, stddev, torch.zeros_like(mean), torch.ones_like(mean)
        )
    ),
    "The mean of the prior is taken to be 0; use that of z_prior.": bound(
        divergence=lambda mean, stddev, prior_mean, prior_stddev: kl_normals(
            mean, stddev, torch.zeros_like(mean), prior_stddev
        )
    ),
    "The standard deviation of the prior is taken to be 1; use that of z_prior.": bound(
        divergence=lambda mean, stddev, prior_mean, prior_stddev: kl_normals(
            mean, stddev, prior_mean, torch.ones_like(mean)
        )
    ),
    "The standard deviations are taken for variances.": bound(
        divergence=lambda mean, stddev, prior_mean, prior_stddev: kl_normals(
            mean, stddev.sqrt(), prior_mean, prior_stddev.sqrt()
        )
    ),
    "The variances are taken for standard deviations: z_prior.variance, where z_prior.stddev belongs.": bound(
        divergence=lambda mean, stddev, prior_mean, prior_stddev: kl_normals(
            mean, stddev.square(), prior_mean, prior_stddev.square()
        )
    ),
    "The standard deviation of the posterior is taken for its variance, and the prior for N(0, I).": bound(
        divergence=lambda mean, stddev, prior_mean, prior_stddev: kl_normals(
            mean, stddev.sqrt(), torch.zeros_like(mean), torch.ones_like(mean)
        )
    ),
    "The logarithm in the KL divergence is that of the ratio of standard deviations, halved; that of the ratio of "
    "variances is to be halved.": bound(
        divergence=lambda mean, stddev, prior_mean, prior_stddev: (
            kl_normals(mean, stddev, prior_mean, prior_stddev) + (stddev / prior_stddev).log() / 2
        )
    ),
    "The logarithm in the KL divergence is that of the ratio of variances; it is to be halved.": bound(
        divergence=lambda mean, stddev, prior_mean, prior_stddev: (
            kl_normals(mean, stddev, prior_mean, prior_stddev) - (stddev / prior_stddev).log()
        )
    ),
    "The sign of the logarithm in the KL divergence is flipped.": bound(
        divergence=lambda mean, stddev, prior_mean, prior_stddev: (
            kl_normals(mean, stddev, prior_mean, prior_stddev) + 2 * (stddev / prior_stddev).log()
        )
    ),
    "The logarithm in the KL divergence is missing.": bound(
        divergence=lambda mean, stddev, prior_mean, prior_stddev: (
            kl_normals(mean, stddev, prior_mean, prior_stddev) + (stddev / prior_stddev).log()
        )
    ),
    "The term -1/2 of every latent variable is missing from the KL divergence.": bound(
        divergence=lambda mean, stddev, prior_mean, prior_stddev: (
            kl_normals(mean, stddev, prior_mean, prior_stddev) + 0.5
        )
    ),
    "The term of the means is missing from the KL divergence.": bound(
        divergence=lambda mean, stddev, prior_mean, prior_stddev: kl_normals(
            torch.zeros_like(mean), stddev, torch.zeros_like(mean), prior_stddev
        )
    ),
    "The standard deviation stands where the variance of the posterior belongs in the KL divergence.": bound(
        divergence=lambda mean, stddev, prior_mean, prior_stddev: (
            kl_normals(mean, stddev, prior_mean, prior_stddev)
            + (stddev - stddev.square()) / (2 * prior_stddev.square())
        )
    ),
    "The KL divergence is divided by the standard deviation of the prior where its variance belongs.": bound(
        divergence=lambda mean, stddev, prior_mean, prior_stddev: (
            (stddev.square() + (mean - prior_mean).square()) / (2 * prior_stddev) - 0.5 - (stddev / prior_stddev).log()
        )
    ),
}

ELBO = ClosedForm(accepted=(elbo,), misconceptions=SIGNS | REDUCTIONS | LIKELIHOODS | DIVERGENCES)

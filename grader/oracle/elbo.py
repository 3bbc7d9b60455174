"""Evidence lower bound of a VAE with Bernoulli pixels and Gaussian latents (Kingma and Welling, 2014, equation (3)).

Pixels x and x_reconst are (B, C, H, W); the posterior is (B, z_dim), and the prior broadcasts to it.
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


def scaled(factor: float) -> Formula:
    """`image_sum` times a factor."""
    return lambda values: factor * image_sum(values)


def mean_of_all(values: Tensor) -> Tensor:
    """Mean over all axes: a scalar."""
    return values.mean()


elbo = bound()

REDUCTIONS = {
    "The mean over the pixels is taken; the log-likelihood of an image is the sum over its pixels.": bound(
        over_pixels=mean_of_all
    ),
    "The mean squared error stands where the log-likelihood of Bernoulli pixels, summed over them, belongs.": bound(
        lambda x, x_reconst: -(x - x_reconst).square(), over_pixels=mean_of_all
    ),
    "The sum runs over the batch; the bound is the mean over the batch.": bound(
        over_pixels=torch.sum, over_latents=torch.sum
    ),
    "The log-likelihood is summed over the batch, and the KL divergence is not; the bound is the mean of both over the "
    "batch.": bound(over_pixels=torch.sum),
    "The KL divergence is summed over the batch, and the log-likelihood is not; the bound is the mean of both over the "
    "batch.": bound(over_latents=torch.sum),
    "The log-likelihood is averaged over the pixels, and the KL divergence summed over the batch: both are to be sums "
    "per image, averaged over the batch.": bound(over_pixels=mean_of_all, over_latents=torch.sum),
    "The log-likelihood is summed over the batch, and the KL divergence averaged over the latent variables: both are "
    "to be sums per image, averaged over the batch.": bound(over_pixels=torch.sum, over_latents=mean_of_all),
    "The KL divergence is averaged over the latent variables; it is to be summed over them.": bound(
        over_latents=mean_of_all
    ),
    "The KL divergence is averaged over the latent variables and added to the log-likelihood; it is to be summed over "
    "them, and subtracted.": bound(over_latents=lambda values: -mean_of_all(values)),
    "Pixels and latent variables are averaged; both are to be summed.": bound(
        over_pixels=mean_of_all, over_latents=mean_of_all
    ),
    "The sign is flipped, and the mean over the pixels is taken: return the bound, with the sum over the pixels.": (
        lambda **inputs: -bound(over_pixels=mean_of_all)(**inputs)
    ),
    "The bound is divided by the number of pixels; it is to be in nats per image.": (
        lambda **inputs: elbo(**inputs) / inputs["x"][0].numel()
    ),
    "The sum does not reach all the axes of an image: every axis but the first is to be summed.": bound(
        over_pixels=lambda values: values.sum(1).mean()
    ),
    "Only the first channel of the images is summed: every axis but the first is to be summed.": bound(
        over_pixels=lambda values: image_sum(values[:, :1])
    ),
    "Only the last axis of the images is summed: every axis but the first is to be summed.": bound(
        over_pixels=lambda values: values.sum(-1).mean()
    ),
    "Only the last two axes of the images are summed: every axis but the first is to be summed.": bound(
        over_pixels=lambda values: values.sum((-2, -1)).mean()
    ),
}
SIGNS = {
    "The sign is flipped: this is the loss; the bound is minus the loss.": bound(
        over_pixels=scaled(-1), over_latents=scaled(-1)
    ),
    "The KL divergence is added to the log-likelihood; it is to be subtracted.": bound(over_latents=scaled(-1)),
    "The sign of the log-likelihood is flipped: a cross-entropy is minus a log-likelihood.": bound(
        over_pixels=scaled(-1)
    ),
    "The KL divergence is missing.": bound(over_latents=scaled(0)),
    "The log-likelihood is missing.": bound(over_pixels=scaled(0)),
    "The result is zero.": bound(over_pixels=scaled(0), over_latents=scaled(0)),
    "The factor 1/2 of the KL divergence is missing.": bound(over_latents=scaled(2)),
    "The KL divergence is halved once too often.": bound(over_latents=scaled(0.5)),
    "The bound is in bits; it is to be in nats.": bound(
        over_pixels=scaled(1 / math.log(2)), over_latents=scaled(1 / math.log(2))
    ),
}


def _added(epsilon: float) -> Formula:
    """The log-likelihood with a number added inside its logarithms."""
    return lambda x, x_reconst: x * (x_reconst + epsilon).log() + (1 - x) * (1 - x_reconst + epsilon).log()


LIKELIHOODS: dict[str, Formula] = {
    "x and x_reconst are swapped: the logarithms belong to x_reconst, the weights are x and 1 - x.": (
        # with the logarithms bounded as in F.binary_cross_entropy, which is how this is written
        lambda x, x_reconst: -F.binary_cross_entropy(x, x_reconst, reduction="none")
    ),
    "The second term is (1 - x') log(1 - x), with x and x' swapped; it is (1 - x) log(1 - x').": (
        lambda x, x_reconst: torch.xlogy(x, x_reconst) + torch.xlogy(1 - x_reconst, 1 - x)
    ),
    "The second term of the log-likelihood, (1 - x) log(1 - x'), is missing.": torch.xlogy,
    "The first term of the log-likelihood, x log x', is missing.": (
        lambda x, x_reconst: torch.special.xlog1py(1 - x, -x_reconst)
    ),
    "The weights are exchanged: log x' goes with x, and log(1 - x') with 1 - x.": (
        lambda x, x_reconst: log_bernoulli(1 - x, x_reconst)
    ),
    "The weight of log(1 - x') is x; it is 1 - x.": (
        lambda x, x_reconst: x * (x_reconst.log() + torch.log1p(-x_reconst))
    ),
    "The two terms of the log-likelihood are subtracted; they are to be added.": (
        lambda x, x_reconst: torch.xlogy(x, x_reconst) - torch.special.xlog1py(1 - x, -x_reconst)
    ),
    "x_reconst is taken for logits; it holds probabilities.": (
        lambda x, x_reconst: x * x_reconst - F.softplus(x_reconst)
    ),
    "The log-likelihood is in bits; logarithms are to be natural.": (
        lambda x, x_reconst: log_bernoulli(x, x_reconst) / math.log(2)
    ),
    "The log-likelihood has logarithms to base 10; they are to be natural.": (
        lambda x, x_reconst: log_bernoulli(x, x_reconst) / math.log(10)
    ),
    "Grey pixels are rounded; they enter as they are, as probabilities.": (
        lambda x, x_reconst: log_bernoulli(x.round(), x_reconst)
    ),
    **{
        f"A number as large as {epsilon:g} is added inside the logarithms; 1e-5 at most may be.": _added(epsilon)
        for epsilon in (1e-2, 1e-3, 1e-4)
    },
    "The log-likelihood is halved.": lambda x, x_reconst: log_bernoulli(x, x_reconst) / 2,
    "The squared error stands where the log-likelihood of Bernoulli pixels belongs.": (
        lambda x, x_reconst: -(x - x_reconst).square()
    ),
    "Half the squared error stands where the log-likelihood of Bernoulli pixels belongs.": (
        lambda x, x_reconst: -(x - x_reconst).square() / 2
    ),
    "The log-density of a Gaussian stands where the log-likelihood of Bernoulli pixels belongs.": (
        lambda x, x_reconst: -((x - x_reconst).square() + math.log(2 * math.pi)) / 2
    ),
    "The absolute error stands where the log-likelihood of Bernoulli pixels belongs.": (
        lambda x, x_reconst: -(x - x_reconst).abs()
    ),
    "The logarithms are missing from the log-likelihood.": (
        lambda x, x_reconst: x * x_reconst + (1 - x) * (1 - x_reconst)
    ),
}


def _cut_off(least: float) -> Formula:
    """The log-likelihood with logarithms that are not below a number."""
    return lambda x, x_reconst: x * x_reconst.log().clamp(min=least) + (1 - x) * (1 - x_reconst).log().clamp(min=least)


LIKELIHOODS |= {f"Logarithms are cut off at {least:g}; leave out the clamp.": _cut_off(least) for least in (-3.0, -5.0)}


def _means_within(bound: float) -> Formula:
    """The divergence with means cut off."""
    return lambda m, s, m0, s0: kl_normals(m.clamp(-bound, bound), s, m0, s0)


def _stddevs_within(least: float, most: float) -> Formula:
    """The divergence with standard deviations of the posterior cut off."""
    return lambda m, s, m0, s0: kl_normals(m, s.clamp(least, most), m0, s0)


DIVERGENCES: dict[str, Formula] = {  # of the mean and the standard deviation of the posterior, and of the prior
    "This is with the reverse divergence, KL(p || q); the bound has KL(q || p).": (
        lambda m, s, m0, s0: kl_normals(m0, s0, m, s)
    ),
    "The prior is taken to be N(0, I) whatever z_prior is; use the mean and standard deviation of z_prior.": (
        lambda m, s, m0, s0: kl_normals(m, s, torch.zeros_like(m), torch.ones_like(m))
    ),
    "The factor 1/2 of the KL divergence is missing, and the prior is taken to be N(0, I) whatever z_prior is.": (
        lambda m, s, m0, s0: 2 * kl_normals(m, s, torch.zeros_like(m), torch.ones_like(m))
    ),
    "The mean of the prior is taken to be 0; use that of z_prior.": (
        lambda m, s, m0, s0: kl_normals(m, s, torch.zeros_like(m), s0)
    ),
    "The standard deviation of the prior is taken to be 1; use that of z_prior.": (
        lambda m, s, m0, s0: kl_normals(m, s, m0, torch.ones_like(m))
    ),
    "The standard deviations are taken for variances.": (lambda m, s, m0, s0: kl_normals(m, s.sqrt(), m0, s0.sqrt())),
    "The variances are taken for standard deviations: where z_posterior.variance stands, its stddev belongs.": (
        lambda m, s, m0, s0: kl_normals(m, s.square(), m0, s0.square())
    ),
    "The standard deviation of the posterior is taken for its variance, and the prior for N(0, I).": (
        lambda m, s, m0, s0: kl_normals(m, s.sqrt(), torch.zeros_like(m), torch.ones_like(m))
    ),
    "The logarithm in the KL divergence is that of the ratio of standard deviations, halved: either that of the "
    "variances is halved, or that of the standard deviations is not.": (
        lambda m, s, m0, s0: kl_normals(m, s, m0, s0) + (s / s0).log() / 2
    ),
    "The logarithm in the KL divergence is that of the ratio of variances; it is to be halved.": (
        lambda m, s, m0, s0: kl_normals(m, s, m0, s0) - (s / s0).log()
    ),
    "The sign of the logarithm in the KL divergence is flipped.": (
        lambda m, s, m0, s0: kl_normals(m, s, m0, s0) + 2 * (s / s0).log()
    ),
    "The logarithm in the KL divergence is missing.": (lambda m, s, m0, s0: kl_normals(m, s, m0, s0) + (s / s0).log()),
    "The term -1/2 of every latent variable is missing from the KL divergence.": (
        lambda m, s, m0, s0: kl_normals(m, s, m0, s0) + 0.5
    ),
    "The term of the means is missing from the KL divergence.": lambda m, s, m0, s0: kl_normals(m0, s, m0, s0),
    "The means enter the KL divergence without their square.": (
        lambda m, s, m0, s0: kl_normals(m0, s, m0, s0) + (m - m0) / (2 * s0.square())
    ),
    "The standard deviation of the posterior stands where its variance belongs in the KL divergence.": (
        lambda m, s, m0, s0: kl_normals(m, s, m0, s0) + (s - s.square()) / (2 * s0.square())
    ),
    "The KL divergence divides by the standard deviation of the prior, where its variance belongs.": (
        lambda m, s, m0, s0: (s.square() + (m - m0).square()) / (2 * s0) - 0.5 - (s / s0).log()
    ),
    **{
        f"Means of the posterior are cut off at {bound:g}; leave out the clamp.": _means_within(bound)
        for bound in (3.0, 5.0, 10.0)
    },
    **{
        f"Standard deviations of the posterior are cut off at {most:g}; leave out the clamp.": _stddevs_within(0, most)
        for most in (3.0, 5.0, 10.0)
    },
    **{
        f"Standard deviations of the posterior are at least {least:g}; leave out the clamp.": (
            _stddevs_within(least, math.inf)
        )
        for least in (0.1, 0.01)
    },
}

ELBO = ClosedForm(
    accepted=(elbo,),
    misconceptions={
        **SIGNS,
        **{sentence: bound(likelihood) for sentence, likelihood in LIKELIHOODS.items()},
        **{sentence: bound(divergence=divergence) for sentence, divergence in DIVERGENCES.items()},
        **REDUCTIONS,
    },
)

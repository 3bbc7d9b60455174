"""Both terms of the evidence lower bound of trained networks, estimated from samples (Kingma and Welling, 2014)."""

from __future__ import annotations

from torch import Tensor
from torch.distributions import Bernoulli, Normal


def log_likelihood(x: Tensor, probabilities: Tensor) -> float:
    """Log-likelihood of images x (B, ...) in [0, 1] under Bernoulli pixels, in nats, mean over the images."""
    return float(Bernoulli(probabilities, validate_args=False).log_prob(x).flatten(1).sum(1).mean())


def divergence_of_samples(z: Tensor, mean: Tensor, stddev: Tensor) -> float:
    """E[log q(z|x) - log p(z)] in nats, mean over the images, for p = N(0, I).

    Args:
        z: (B, ...), one sample of q(z|x) = N(mean, stddev^2) for each image.
        mean, stddev: shaped like z. The standard error is below sqrt(variables / B) nats.
    """
    ratio = Normal(mean, stddev, validate_args=False).log_prob(z) - Normal(0.0, 1.0).log_prob(z)
    return float(ratio.flatten(1).sum(1).mean())

"""Losses. Each returns a scalar: a sum over the elements of one image, the mean over the batch."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Normal


def compute_elbo(x: Tensor, x_reconst: Tensor, z_posterior: Normal, z_prior: Normal) -> Tensor:
    """Evidence lower bound E[log p(x|z)] - KL(q(z|x) || p(z)) in nats, estimated with the one z behind `x_reconst`.

    The likelihood of a pixel is Bernoulli, log p(x|z) = x log x' + (1 - x) log(1 - x') with x' = `x_reconst`.
    Kingma and Welling, "Auto-Encoding Variational Bayes" (2014), equation (3) and appendix C.1.

    Args:
        x: (B, C, H, W) images in [0, 1]; grey pixels count as probabilities.
        x_reconst: decoded images in [0, 1], shaped like `x`. They may be exactly 0 or 1.
        z_posterior: q(z|x), a Normal over (B, z_dim).
        z_prior: p(z), any Normal over (z_dim,) or (B, z_dim).
    """
    from torch.distributions import kl_divergence  # in here, since block 2.1a leaves a result of the same name

    ############################ Your code here ############################
    # TODO(1.2): compute the evidence lower bound of each image: sum over its pixels, and over its latents.
    # Leave it in `elbo`, of shape (B,). Where `x_reconst` is exactly 0 or 1, it and its gradients must be finite;
    # if you clamp it, then at no more than 1e-5.
    ########################################################################
    raise NotImplementedError("1.2")
    ########################################################################
    return elbo.mean()


class KLDivergenceLoss(nn.Module):
    """KL(q(z|x) || p(z)) in nats, of the posterior q(z|x) = N(mu, exp(logvar)) from the prior p(z) = N(0, I).

    Kingma and Welling, "Auto-Encoding Variational Bayes" (2014), appendix B.
    """

    def forward(self, mu: Tensor, logvar: Tensor) -> Tensor:
        """Return the divergence, summed over the latent variables of an image, averaged over the batch.

        Args:
            mu: (B, ...) posterior means.
            logvar: (B, ...) logarithms of the posterior variances, any real number, shaped like `mu`.
        """
        ############################ Your code here ############################
        # TODO(2.1a): compute the KL divergence of q(z|x) = N(mu, exp(logvar)) from p(z) = N(0, I).
        # Leave it in `kl_divergence`, of shape (B,). `mu` and `logvar` may have any number of axes from two on.
        ########################################################################
        raise NotImplementedError("2.1a")
        ########################################################################
        return kl_divergence.mean()


class GANLossD(nn.Module):
    """Hinge loss of the discriminator, (E[max(0, 1 - real)] + E[max(0, 1 + fake)]) / 2.

    Lim and Ye, "Geometric GAN" (2017); the factor 1/2 is part of the definition used here.
    """

    def forward(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the loss of the discriminator, averaged over the batch.

        Args:
            real: (B, 1) or (B, 1, h, w) logits of data.
            fake: logits of generated images, shaped like `real`.
        """
        ############################ Your code here ############################
        # TODO(2.2a): compute the hinge loss of the discriminator.
        # Leave it in `loss`, of any shape whose mean is the loss.
        ########################################################################
        raise NotImplementedError("2.2a")
        ########################################################################
        return loss.mean()


class GANLossG(nn.Module):
    """Hinge loss of the generator, -E[fake].

    Lim and Ye, "Geometric GAN" (2017).
    """

    def forward(self, fake: Tensor) -> Tensor:
        """Return the loss of the generator, averaged over the batch.

        Args:
            fake: (B, 1) or (B, 1, h, w) logits of generated images.
        """
        ############################ Your code here ############################
        # TODO(2.2b): compute the loss of the generator.
        # Leave it in `loss`, of any shape whose mean is the loss.
        ########################################################################
        raise NotImplementedError("2.2b")
        ########################################################################
        return loss.mean()

"""Losses. Every `forward` returns a scalar: sums over the elements of one image, means over the batch."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class KLDivergenceLoss(nn.Module):
    """KL(q(z|x) || p(z)) in nats, of the posterior q(z|x) = N(mu, exp(logvar)) from the prior p(z) = N(0, I).

    Kingma and Welling, "Auto-Encoding Variational Bayes" (2014), appendix B.
    """

    def forward(self, mu: Tensor, logvar: Tensor) -> Tensor:
        """Return the divergence, summed over the latent variables of an image, averaged over the batch.

        Args:
            mu: (B, ...) posterior means.
            logvar: (B, ...) logarithms of the posterior variances, any real number.
        """
        ############################ Your code here ############################
        # TODO(2.1a): compute the KL divergence of q(z|x) = N(mu, exp(logvar)) from p(z) = N(0, I).
        # Leave it in `kl_divergence`, of shape (B,). `mu` and `logvar` may have any number of axes.
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
            real: (B,), (B, 1) or (B, 1, h, w) logits of data.
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
            fake: (B,), (B, 1) or (B, 1, h, w) logits of generated images.
        """
        ############################ Your code here ############################
        # TODO(2.2b): compute the loss of the generator.
        # Leave it in `loss`, of any shape whose mean is the loss.
        ########################################################################
        raise NotImplementedError("2.2b")
        ########################################################################
        return loss.mean()

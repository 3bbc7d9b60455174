"""The training step of a GAN: Goodfellow et al., "Generative Adversarial Nets" (2014)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer


def gan_step(
    generator: nn.Module,
    discriminator: nn.Module,
    generator_optimizer: Optimizer,
    discriminator_optimizer: Optimizer,
    x: Tensor,
    z: Tensor,
) -> tuple[Tensor, Tensor]:
    """One step of the discriminator and then one of the generator, each by its own optimizer.

    Goodfellow et al., "Generative Adversarial Nets" (2014): algorithm 1, with the non-saturating loss of section 3.

    Args:
        generator: z (B, z_dim) -> images shaped like `x`. In training mode, and so it stays.
        discriminator: images -> (B,) probabilities that they are real. In training mode, and so it stays.
        generator_optimizer, discriminator_optimizer: hold the parameters of one network each.
        x: (B, C, H, W) real images.
        z: (B, z_dim) noise, used in both steps and the only source of randomness.

    Returns:
        discriminator_loss: -E[log D(x)] - E[log(1 - D(G(z)))] before its step, a scalar.
        generator_loss: -E[log D(G(z))] between the two steps, a scalar.
    """
    ############################ Your code here ############################
    # TODO(1.4): take a step of the discriminator on `x` and on generated images that are detached; then a step of
    # the generator, judged by the new discriminator. Each starts from zero gradients, even if there were some before
    # the call, and moves its own parameters only. Leave the losses, as tensors, in `discriminator_loss` and
    # `generator_loss`.
    ########################################################################
    raise NotImplementedError("1.4")
    ########################################################################
    return discriminator_loss.detach(), generator_loss.detach()

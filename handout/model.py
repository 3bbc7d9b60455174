"""Networks. Part 1: a small auto-encoder and GAN. Part 2: convolutional ones, and the UNet that predicts noise."""

import math

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from module import (
    Decoder,
    Downsample,
    Encoder,
    LabelEmbedding,
    ResBlock,
    TimeEmbedding,
    Upsample,
    conv3x3,
    norm,
    zero_init,
)


class MLPVAE(nn.Module):
    """Variational auto-encoder of fully connected layers: q(z|x) = N(mu, sigma^2), pixels in (0, 1).

    Kingma and Welling, "Auto-Encoding Variational Bayes" (2014), appendix C.
    """

    def __init__(self, x_shape: tuple[int, ...], z_dim: int, hidden_dim: int = 500):
        super().__init__()
        self.x_shape = tuple(x_shape)
        x_dim = math.prod(x_shape)
        ############################ Your code here ############################
        # TODO(1.1a): make the networks that `encode` and `decode` use. The encoder has three hidden ReLU layers of
        # `hidden_dim` units and on them two heads, a linear one for mu and a softplus one for sigma. The decoder has
        # 1 to 12 hidden ReLU layers of the same width and ends in a sigmoid. No normalisation, no dropout.
        ########################################################################
        raise NotImplementedError("1.1a")
        ########################################################################

    def encode(self, x: Tensor) -> Normal:
        """x (B, C, H, W) in [0, 1] -> q(z|x), a Normal whose mean and standard deviation are (B, z_dim)."""
        ############################ Your code here ############################
        # TODO(1.1b): leave q(z|x) in `posterior`.
        ########################################################################
        raise NotImplementedError("1.1b")
        ########################################################################
        return posterior

    def decode(self, z: Tensor) -> Tensor:
        """z (B, z_dim) -> (B, *x_shape) in (0, 1)."""
        ############################ Your code here ############################
        # TODO(1.1c): leave the images in `x_reconst`.
        ########################################################################
        raise NotImplementedError("1.1c")
        ########################################################################
        return x_reconst


class Generator(nn.Module):
    """Turns noise into images: Goodfellow et al., "Generative Adversarial Nets" (2014), with fully connected layers."""

    def __init__(self, z_dim: int, x_shape: tuple[int, ...], hidden_dim: int = 500):
        super().__init__()
        self.x_shape = tuple(x_shape)
        x_dim = math.prod(x_shape)
        ############################ Your code here ############################
        # TODO(1.3a): make a network (B, z_dim) -> (B, x_dim) with 1 to 12 hidden ReLU or LeakyReLU layers of
        # `hidden_dim` units that ends in a sigmoid. No normalisation, no dropout. Leave it in `self.net`.
        ########################################################################
        raise NotImplementedError("1.3a")
        ########################################################################

    def forward(self, z: Tensor) -> Tensor:
        """z (B, z_dim), standard normal -> (B, *x_shape) in (0, 1)."""
        return self.net(z).reshape(-1, *self.x_shape)


class MLPDiscriminator(nn.Module):
    """The probability that an image is real and not generated: Goodfellow et al. (2014), fully connected layers."""

    def __init__(self, x_shape: tuple[int, ...], hidden_dim: int = 500):
        super().__init__()
        x_dim = math.prod(x_shape)
        ############################ Your code here ############################
        # TODO(1.3b): make a network (B, x_dim) -> (B, 1) with 1 to 12 hidden ReLU or LeakyReLU layers of
        # `hidden_dim` units that ends in a sigmoid. No normalisation, no dropout. Leave it in `self.net`.
        ########################################################################
        raise NotImplementedError("1.3b")
        ########################################################################

    def forward(self, x: Tensor) -> Tensor:
        """x (B, *x_shape) in [0, 1] -> (B,) probabilities."""
        return self.net(x.flatten(1)).squeeze(1)


class VAE(nn.Module):
    """Convolutional variational auto-encoder with latents at a quarter of the resolution.

    Kingma and Welling, "Auto-Encoding Variational Bayes" (2014).
    """

    def __init__(self, img_channels: int = 3, z_channels: int = 3, num_channels: int = 32):
        super().__init__()
        self.encoder = Encoder(img_channels, z_channels, num_channels)
        self.decoder = Decoder(img_channels, z_channels, num_channels)

    def encode(self, x: Tensor) -> Tensor:
        """x (B, img_channels, H, W) in [-1, 1] -> (B, z_channels, H / 4, W / 4), the posterior mean."""
        mu, _ = torch.chunk(self.encoder(x), 2, dim=1)
        return mu

    def decode(self, z: Tensor) -> Tensor:
        """z (B, z_channels, h, w) -> (B, img_channels, 4 h, 4 w) in [-1, 1]."""
        return self.decoder(z)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encode, draw one latent by the reparameterisation trick (section 2.4 of the paper), decode.

        Args:
            x: (B, img_channels, H, W) images in [-1, 1].

        Returns:
            x_recon: (B, img_channels, H, W), the decoded latent.
            mu, logvar: (B, z_channels, H / 4, W / 4), mean and log-variance of q(z|x).
        """
        mu, logvar = torch.chunk(self.encoder(x), 2, dim=1)
        ############################ Your code here ############################
        # TODO(2.1b): draw z ~ q(z|x) = N(mu, exp(logvar)) such that gradients reach `mu` and `logvar`.
        # Leave it in `z`, shaped like `mu`.
        ########################################################################
        raise NotImplementedError("2.1b")
        ########################################################################
        x_recon = self.decoder(z)
        return x_recon, mu, logvar


class Discriminator(nn.Module):
    """PatchGAN: one logit for each of many overlapping patches, high for data and low for generated images.

    Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks" (2017), section 3.2.2.
    """

    def __init__(self, in_channels: int = 3, num_channels: int = 32):
        super().__init__()
        c = num_channels
        self.net = nn.Sequential(
            nn.Conv2d(in_channels, c, kernel_size=4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(c, 2 * c, kernel_size=4, stride=2, padding=1),
            norm(2 * c),
            nn.LeakyReLU(0.2),
            conv3x3(2 * c, 4 * c),
            norm(4 * c),
            nn.LeakyReLU(0.2),
            conv3x3(4 * c, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """x (B, in_channels, H, W) in [-1, 1] -> (B, 1, H / 4, W / 4) logits."""
        return self.net(x)


class UNet(nn.Module):
    """Predicts the noise in a latent from the latent, its label and its time step.

    Ronneberger et al., "U-Net" (2015), with the embeddings of Ho et al. (2020), appendix B.
    """

    def __init__(self, in_channels: int = 3, out_channels: int = 3, num_classes: int = 10, num_channels: int = 32):
        super().__init__()
        c, emb = num_channels, 4 * num_channels
        self.time_embedding = TimeEmbedding(c, emb)
        self.label_embedding = LabelEmbedding(num_classes, emb)
        self.conv_in = conv3x3(in_channels, c)
        self.down1 = ResBlock(c, c, emb)
        self.down2 = ResBlock(c, 2 * c, emb)
        self.middle = ResBlock(2 * c, 4 * c, emb)
        self.up2 = ResBlock(4 * c + 2 * c, 2 * c, emb)
        self.up1 = ResBlock(2 * c + c, c, emb)
        self.downsample = Downsample()
        self.upsample2 = Upsample(4 * c)
        self.upsample1 = Upsample(2 * c)
        self.conv_out = nn.Sequential(norm(c), nn.SiLU(), zero_init(conv3x3(c, out_channels)))

    def forward(self, x: Tensor, y: Tensor, t: Tensor) -> Tensor:
        """Predict noise; zero before training.

        Args:
            x: (B, in_channels, H, W) noisy latents, H and W multiples of 4.
            y: (B,) labels, integers in [0, num_classes).
            t: (B,) time steps, integers in [0, num_timesteps).

        Returns:
            (B, out_channels, H, W).
        """
        emb = self.time_embedding(t) + self.label_embedding(y)
        h1 = self.down1(self.conv_in(x), emb)
        h2 = self.down2(self.downsample(h1), emb)
        h = self.middle(self.downsample(h2), emb)
        h = self.up2(torch.cat([self.upsample2(h), h2], dim=1), emb)
        h = self.up1(torch.cat([self.upsample1(h), h1], dim=1), emb)
        return self.conv_out(h)

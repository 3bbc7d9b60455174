"""Building blocks of the networks. Given: there is nothing to fill in here.

Images and latents are (B, C, H, W). Residual blocks are GroupNorm, SiLU, convolution, as in Ho et al.,
"Denoising Diffusion Probabilistic Models" (2020), appendix B.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def norm(channels: int) -> nn.GroupNorm:
    """Group normalisation with 8 groups (Wu and He, "Group Normalization", 2018); 8 must divide `channels`."""
    return nn.GroupNorm(8, channels)


def conv3x3(in_channels: int, out_channels: int) -> nn.Conv2d:
    """A 3x3 convolution that keeps height and width."""
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)


class ResBlock(nn.Module):
    """Two convolutions with a skip connection, and an embedding added between them if there is one."""

    def __init__(self, in_channels: int, out_channels: int, emb_channels: int | None = None):
        super().__init__()
        self.conv1 = nn.Sequential(norm(in_channels), nn.SiLU(), conv3x3(in_channels, out_channels))
        self.conv2 = nn.Sequential(norm(out_channels), nn.SiLU(), conv3x3(out_channels, out_channels))
        self.emb = nn.Sequential(nn.SiLU(), nn.Linear(emb_channels, out_channels)) if emb_channels else None
        same = in_channels == out_channels
        self.skip = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, kernel_size=1)

    def forward(self, x: Tensor, emb: Tensor | None = None) -> Tensor:
        """x (B, in_channels, H, W), emb (B, emb_channels) -> (B, out_channels, H, W)."""
        h = self.conv1(x)
        if self.emb is not None:
            h = h + self.emb(emb)[:, :, None, None]
        return self.skip(x) + self.conv2(h)


class Downsample(nn.Module):
    """Half the height and width, by averaging squares of 2x2 pixels."""

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W), H and W even -> (B, C, H / 2, W / 2)."""
        return F.avg_pool2d(x, kernel_size=2)


class Upsample(nn.Module):
    """Twice the height and width, by repeating the nearest pixel, then a convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = conv3x3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) -> (B, C, 2 H, 2 W)."""
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


class Encoder(nn.Sequential):
    """(B, in_channels, H, W) -> (B, 2 z_channels, H / 4, W / 4): mean and log-variance along the channels."""

    def __init__(self, in_channels: int, z_channels: int, num_channels: int):
        c = num_channels
        super().__init__(
            conv3x3(in_channels, c),
            ResBlock(c, c),
            Downsample(),
            ResBlock(c, 2 * c),
            Downsample(),
            ResBlock(2 * c, 4 * c),
            norm(4 * c),
            nn.SiLU(),
            conv3x3(4 * c, 2 * z_channels),
        )


class Decoder(nn.Sequential):
    """(B, z_channels, h, w) -> (B, out_channels, 4 h, 4 w), in [-1, 1]."""

    def __init__(self, out_channels: int, z_channels: int, num_channels: int):
        c = num_channels
        super().__init__(
            conv3x3(z_channels, 4 * c),
            ResBlock(4 * c, 4 * c),
            Upsample(4 * c),
            ResBlock(4 * c, 2 * c),
            Upsample(2 * c),
            ResBlock(2 * c, c),
            norm(c),
            nn.SiLU(),
            conv3x3(c, out_channels),
            nn.Tanh(),
        )


class TimeEmbedding(nn.Module):
    """Sines and cosines of the time step, then a network of two layers.

    Vaswani et al., "Attention Is All You Need" (2017), section 3.5.
    """

    def __init__(self, num_channels: int, emb_channels: int, max_period: float = 10_000.0):
        super().__init__()
        half = num_channels // 2
        frequencies = torch.exp(-math.log(max_period) * torch.arange(half) / half)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.net = nn.Sequential(nn.Linear(2 * half, emb_channels), nn.SiLU(), nn.Linear(emb_channels, emb_channels))

    def forward(self, t: Tensor) -> Tensor:
        """t (B,) integers -> (B, emb_channels)."""
        angles = t[:, None].float() * self.frequencies
        return self.net(torch.cat([angles.sin(), angles.cos()], dim=1))


class LabelEmbedding(nn.Embedding):
    """y (B,) integers in [0, num_classes) -> (B, emb_channels), one learned vector a class."""


def zero_init(conv: nn.Conv2d) -> nn.Conv2d:
    """Return `conv` with weights and bias zero, so that a network ending in it starts as the zero function."""
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)
    return conv

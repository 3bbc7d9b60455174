"""Latent diffusion: how it is trained and how it samples. Given: there is nothing to fill in here.

Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models" (2022).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from dataset import Images, signed
from diffusion import DenoiseFn, GaussianDiffusion
from loop import Terms, Training, minimise
from model import VAE, UNet

PAPERS_TIMESTEPS = 1000
Watch = Callable[[Tensor, Tensor], None]


class LDMTraining(Training):
    """Part 2: diffusion on the latents of a frozen VAE, whose mean and standard deviation are made 0 and 1.

    Args:
        vae: arguments of the auto-encoder.
        num_classes, num_channels: of the UNet.
        num_timesteps: number of steps of the diffusion.
        lr: learning rate.
    """

    prepare = staticmethod(lambda latents: latents)

    def __init__(
        self,
        vae: dict[str, int],
        num_classes: int = 10,
        num_channels: int = 32,
        num_timesteps: int = PAPERS_TIMESTEPS,
        lr: float = 3e-4,
    ):
        super().__init__()
        self.vae = VAE(**vae).requires_grad_(False)
        channels = vae["z_channels"]
        self.register_buffer("latent_mean", torch.zeros(channels, 1, 1))
        self.register_buffer("latent_std", torch.ones(channels, 1, 1))
        self.unet = UNet(channels, channels, num_classes, num_channels)
        self.diffusion = GaussianDiffusion(num_timesteps=num_timesteps)
        self.add_optimizer("unet", lr)

    @torch.no_grad()
    def encode(self, images: Images, fit: bool, batch_size: int = 500) -> Images:
        """Images as normalised latents (N, C, h, w), by their own mean and standard deviation if `fit`."""
        device = self.latent_mean.device
        parts = [self.vae.encode(signed(part.to(device))) for part in images.pixels.split(batch_size)]
        latents = torch.cat(parts)
        if fit:
            self.latent_mean = latents.mean(dim=(0, 2, 3))[:, None, None]
            self.latent_std = latents.std(dim=(0, 2, 3))[:, None, None]
        latents = (latents - self.latent_mean) / self.latent_std
        return Images(latents, images.labels.to(device), images.classes)

    def decode(self, latents: Tensor) -> Tensor:
        """Normalised latents (B, C, h, w) -> images (B, 3, 4 h, 4 w) in [0, 1]."""
        return (self.vae.decode(latents * self.latent_std + self.latent_mean) + 1) / 2

    def step(self, x: Tensor, y: Tensor, step: int) -> Terms:
        loss = self.loss(x, y)
        minimise(loss, self.optimizers["unet"])
        return {"noise_mse": loss}

    def measure(self, x: Tensor, y: Tensor) -> Terms:
        return {"noise_mse": self.loss(x, y).expand(len(x))}

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """The mean squared error of the noise that the UNet predicts: a scalar."""
        return self.diffusion(self.unet, x, y)

    def denoiser(self, watch: Watch | None = None) -> DenoiseFn:
        """The function that samplers call. `watch(x, t)` is told the arguments of every call."""

        def denoise_fn(x: Tensor, y: Tensor, t: Tensor) -> Tensor:
            if watch is not None:
                watch(x, t)
            return self.predict(x, y, t)

        return denoise_fn

    def predict(self, x: Tensor, y: Tensor, t: Tensor) -> Tensor:
        """The noise in x (B, C, h, w) with labels y (B,) at steps t (B,): (B, C, h, w)."""
        return self.unet(x, y, t)

    @torch.no_grad()
    def sample(self, count: int, labels: Tensor, watch: Watch | None = None) -> Tensor:
        """New images (count, 3, H, W) in [0, 1] for labels (count,); `watch` as for `denoiser`."""
        shape = (count, len(self.latent_mean), 8, 8)
        return self.decode(self.draw_latents(self.denoiser(watch), shape, labels))

    def draw_latents(self, denoise_fn: DenoiseFn, shape: tuple[int, ...], labels: Tensor) -> Tensor:
        """Normalised latents of `shape` for labels (B,), by every step of the diffusion."""
        return self.diffusion.sample(denoise_fn, shape, labels)

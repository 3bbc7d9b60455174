"""Latent diffusion: how it is trained and how it samples, with what Part 3 adds by options. Given: nothing to fill in.

Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models" (2022).
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor

from dataset import Images, signed
from diffusion import (
    DenoiseFn,
    GaussianDiffusion,
    RectifiedFlow,
    cosine_betas,
    drop_labels,
    guided_noise,
    linear_betas,
)
from loop import Terms, Training, minimise
from model import VAE, UNet
from runs import RunError
from train import update_average

PAPERS_TIMESTEPS = 1000
TIME_SCALE = 1000  # the time of a flow, in [0, 1], as the UNet's embedding of time tells it best
SAMPLERS = {"noise": ("ddpm", "ddim"), "velocity": ("ddpm", "ddim"), "flow": ("euler", "heun")}


@dataclass(frozen=True)
class Sampling:
    """How latents are drawn: the options of sample.py.

    Attributes:
        sampler: "ddpm" takes every step and "ddim" `num_steps` of them; "euler" and "heun" follow a flow in as many.
            By default, the first that the model knows.
        eta: of "ddim".
        guidance_weight: how much labels count; None takes the prediction for the label as it is.
        average: whether to use the average of the weights, if training kept one.
    """

    sampler: str | None = None
    num_steps: int = 50
    eta: float = 0.0
    guidance_weight: float | None = None
    average: bool = True


def make_diffusion(schedule: str | None, num_timesteps: int) -> GaussianDiffusion:
    """A diffusion with the schedule "linear" or "cosine" of question 3.1; without a name, that of Ho et al. (2020)."""
    if schedule is None:
        return GaussianDiffusion(num_timesteps=num_timesteps)
    return GaussianDiffusion(betas={"linear": linear_betas, "cosine": cosine_betas}[schedule](num_timesteps))


def spaced_steps(num_timesteps: int, count: int) -> Tensor:
    """`count` of the steps 0, ..., num_timesteps - 1, as even as can be, both ends among them: (count,) int64."""
    return torch.linspace(0, num_timesteps - 1, count, dtype=torch.float64).round().long()


class LDMTraining(Training):
    """Part 2: diffusion on the latents of a frozen VAE, whose mean and standard deviation are made 0 and 1.

    Args:
        vae: arguments of the auto-encoder.
        num_classes, num_channels: of the UNet.
        num_timesteps, schedule: of the diffusion (3.1).
        lr: learning rate.
        prediction: what the UNet predicts: "noise", "velocity" (3.5), or the velocity of a "flow" (3.6).
        min_snr: the gamma of min-SNR weights (3.5), if the loss is weighted.
        label_dropout: the share of labels that are dropped, for guidance (3.3).
        average_decay: of the average of the weights (3.4), if there is to be one.
    """

    prepare = staticmethod(lambda latents: latents)

    def __init__(
        self,
        vae: dict[str, int],
        num_classes: int = 10,
        num_channels: int = 32,
        num_timesteps: int = PAPERS_TIMESTEPS,
        lr: float = 3e-4,
        schedule: str | None = None,
        prediction: str = "noise",
        min_snr: float | None = None,
        label_dropout: float = 0.0,
        average_decay: float | None = None,
    ):
        super().__init__()
        self.vae = VAE(**vae).requires_grad_(False)
        channels = vae["z_channels"]
        self.register_buffer("latent_mean", torch.zeros(channels, 1, 1))
        self.register_buffer("latent_std", torch.ones(channels, 1, 1))
        self.null_label, self.label_dropout = num_classes, label_dropout
        self.unet = UNet(channels, channels, num_classes + (label_dropout > 0), num_channels)
        self.average_decay = average_decay
        self.average = deepcopy(self.unet).requires_grad_(False) if average_decay is not None else None
        self.diffusion = make_diffusion(schedule, num_timesteps)
        self.flow = RectifiedFlow()
        self.prediction, self.min_snr = prediction, min_snr
        self.sampling = Sampling()
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

    # ---------------------------------------------------------------- training

    def step(self, x: Tensor, y: Tensor, step: int) -> Terms:
        if self.label_dropout > 0:
            y = drop_labels(y, self.null_label, self.label_dropout)
        loss = self.loss(x, y)
        minimise(loss, self.optimizers["unet"])
        if self.average is not None:
            update_average(self.average, self.unet, step, self.average_decay)
        return {f"{self.prediction}_mse": loss}

    def measure(self, x: Tensor, y: Tensor) -> Terms:
        return {f"{self.prediction}_mse": self.loss(x, y).expand(len(x))}

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """The mean squared error of what the UNet predicts, weighted if `min_snr` says so: a scalar."""
        if self.prediction == "flow":
            return self.flow(self.flow_velocity, x, y)
        if self.prediction == "noise" and self.min_snr is None:
            return self.diffusion(self.unet, x, y)
        t, noise = torch.randint(self.diffusion.num_timesteps, (len(x),), device=x.device), torch.randn_like(x)
        target = noise if self.prediction == "noise" else self.diffusion.velocity(x, t, noise)
        errors = (self.unet(self.diffusion.q_sample(x, t, noise), y, t) - target).square().flatten(1).mean(dim=1)
        if self.min_snr is not None:
            errors = errors * self.diffusion.min_snr_weight(t, self.min_snr, self.prediction)
        return errors.mean()

    def flow_velocity(self, x: Tensor, y: Tensor, time: Tensor) -> Tensor:
        """The velocity of a flow, by the UNet: x (B, C, H, W), y (B,), time (B,) in [0, 1] -> (B, C, H, W)."""
        return self.unet(x, y, TIME_SCALE * time)

    # ---------------------------------------------------------------- sampling

    def denoiser(self, watch: Callable[[Tensor, Tensor], None] | None = None) -> DenoiseFn:
        """What samplers call: the noise in x, or the velocity of a flow, guided and averaged as `sampling` says.

        `watch(x, t)` is told every call, with the steps t (B,), or the times of a flow.
        """
        network = self.average if self.average is not None and self.sampling.average else self.unet

        def denoise_fn(x: Tensor, y: Tensor, t: Tensor) -> Tensor:
            if watch is not None:
                watch(x, t)
            steps = TIME_SCALE * t if self.prediction == "flow" else t
            weight = self.sampling.guidance_weight
            if weight is None:
                predicted = network(x, y, steps)
            else:
                predicted = guided_noise(network, x, y, steps, self.null_label, weight)
            if self.prediction == "velocity":
                return self.diffusion.predict_noise_from_velocity(x, t, predicted)
            return predicted

        return denoise_fn

    @torch.no_grad()
    def sample(self, count: int, labels: Tensor, watch: Callable[[Tensor, Tensor], None] | None = None) -> Tensor:
        """New images (count, 3, H, W) in [0, 1] for labels (count,); `watch` as for `denoiser`. Raises RunError."""
        sampling, denoise_fn = self.sampling, self.denoiser(watch)
        sampler = sampling.sampler or SAMPLERS[self.prediction][0]
        self.expect_sampling(sampler)
        shape = (count, len(self.latent_mean), 8, 8)
        if sampler == "ddpm":
            return self.decode(self.diffusion.sample(denoise_fn, shape, labels))
        x = torch.randn(shape, device=labels.device)
        if sampler == "ddim":
            steps = spaced_steps(self.diffusion.num_timesteps, sampling.num_steps).to(labels.device)
            return self.decode(self.diffusion.ddim_sample(denoise_fn, x, labels, steps, sampling.eta))
        return self.decode(self.flow.sample(denoise_fn, x, labels, sampling.num_steps, heun=sampler == "heun"))

    def expect_sampling(self, sampler: str) -> None:
        """Raise RunError if this model cannot sample as it is asked to."""
        if sampler not in SAMPLERS[self.prediction]:
            known = " or ".join(SAMPLERS[self.prediction])
            raise RunError(f"A model that predicts {self.prediction} does not sample by {sampler}; take {known}.")
        if self.sampling.guidance_weight is not None and self.label_dropout == 0:
            raise RunError("Only a model trained with --label-dropout can be guided; train one, with 0.1 for example.")
        most = self.diffusion.num_timesteps
        if self.sampling.num_steps < 1 or (sampler == "ddim" and self.sampling.num_steps > most):
            limit = f", and no more than {most}" if sampler == "ddim" else ""
            raise RunError(f"--num-steps {self.sampling.num_steps} cannot be taken; give 1 or more{limit}.")

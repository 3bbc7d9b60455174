"""Latent diffusion with what Part 3 adds by options of train.py and sample.py. Given: there is nothing to fill in."""

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor

from average import update_average
from diffusion import DenoiseFn
from enhanced import EnhancedDiffusion, cosine_betas, linear_betas
from flow import RectifiedFlow
from guidance import drop_labels, guided_noise
from ldm import PAPERS_TIMESTEPS, LDMTraining
from loop import Terms
from runs import RunError

TIME_SCALE = 1000  # the UNet's embedding of time tells times in [0, 1] apart best if they are scaled by this
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


def make_diffusion(schedule: str | None, num_timesteps: int) -> EnhancedDiffusion:
    """A diffusion with the schedule "linear" or "cosine" of question 3.1; without a name, that of Ho et al. (2020)."""
    if schedule is None:
        return EnhancedDiffusion(num_timesteps=num_timesteps)
    return EnhancedDiffusion(betas={"linear": linear_betas, "cosine": cosine_betas}[schedule](num_timesteps))


def spaced_steps(num_timesteps: int, count: int) -> Tensor:
    """`count` of the steps 0, ..., num_timesteps - 1, as even as can be, both ends among them: (count,) int64."""
    return torch.linspace(0, num_timesteps - 1, count, dtype=torch.float64).round().long()


class EnhancedLDMTraining(LDMTraining):
    """Part 3: latent diffusion with other schedules, targets, weights of the loss, and ways to sample.

    Args:
        vae, num_classes, num_channels, num_timesteps, lr: as for `LDMTraining`.
        schedule: "linear" or "cosine" (3.1).
        prediction: what the UNet predicts: "noise", "velocity" (3.5), or the velocity of a "flow" (3.6).
        min_snr: the gamma of min-SNR weights (3.5), if the loss is weighted.
        label_dropout: the share of labels that are dropped, for guidance (3.3).
        average_decay: of the average of the weights (3.4), if one is kept.
    """

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
        super().__init__(vae, num_classes + (label_dropout > 0), num_channels, num_timesteps, lr)
        self.null_label, self.label_dropout = num_classes, label_dropout
        self.average_decay = average_decay
        self.average = deepcopy(self.unet).requires_grad_(False) if average_decay is not None else None
        self.diffusion = make_diffusion(schedule, num_timesteps)
        self.flow = RectifiedFlow()
        self.prediction, self.min_snr = prediction, min_snr
        self.sampling = Sampling()

    # ---------------------------------------------------------------- training

    def step(self, x: Tensor, y: Tensor, step: int) -> Terms:
        if self.label_dropout > 0:
            y = drop_labels(y, self.null_label, self.label_dropout)
        terms = super().step(x, y, step)
        if self.average is not None:
            update_average(self.average, self.unet, step, self.average_decay)
        return {f"{self.prediction}_mse": terms["noise_mse"]}

    def measure(self, x: Tensor, y: Tensor) -> Terms:
        return {f"{self.prediction}_mse": super().measure(x, y)["noise_mse"]}

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """The mean squared error of what the UNet predicts, weighted if `min_snr` says so: a scalar."""
        if self.prediction == "flow":
            return self.flow(self.flow_velocity, x, y)
        if self.prediction == "noise" and self.min_snr is None:
            return super().loss(x, y)
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

    def predict(self, x: Tensor, y: Tensor, t: Tensor) -> Tensor:
        """The noise in x at steps t, or the velocity of a flow at times t, guided and averaged as `sampling` says."""
        network = self.average if self.average is not None and self.sampling.average else self.unet
        steps = TIME_SCALE * t if self.prediction == "flow" else t
        weight = self.sampling.guidance_weight
        if weight is None:
            predicted = network(x, y, steps)
        else:
            predicted = guided_noise(network, x, y, steps, self.null_label, weight)
        if self.prediction == "velocity":
            return self.diffusion.predict_noise_from_velocity(x, t, predicted)
        return predicted

    def draw_latents(self, denoise_fn: DenoiseFn, shape: tuple[int, ...], labels: Tensor) -> Tensor:
        """Normalised latents of `shape` for labels (B,), as `sampling` says. Raises RunError."""
        sampling = self.sampling
        sampler = sampling.sampler or SAMPLERS[self.prediction][0]
        self.expect_sampling(sampler)
        if sampler == "ddpm":
            return super().draw_latents(denoise_fn, shape, labels)
        x = torch.randn(shape, device=labels.device)
        if sampler == "ddim":
            steps = spaced_steps(self.diffusion.num_timesteps, sampling.num_steps).to(labels.device)
            return self.diffusion.ddim_sample(denoise_fn, x, labels, steps, sampling.eta)
        return self.flow.sample(denoise_fn, x, labels, sampling.num_steps, heun=sampler == "heun")

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

"""Denoising diffusion (DDPM): Ho et al., "Denoising Diffusion Probabilistic Models" (2020).

Step t runs from 0 to num_timesteps - 1, so that x_0 of the paper is `x_start` here and x_1 of the paper has
t = 0. `denoise_fn(x, y, t)` predicts the noise in x (B, C, H, W) from labels y (B,) and steps t (B,).
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DenoiseFn = Callable[[Tensor, Tensor, Tensor], Tensor]


def extract(a: Tensor, t: Tensor, shape: torch.Size) -> Tensor:
    """Entries a[t] of a schedule a (T,) for steps t (B,), as (B, 1, ..., 1) to broadcast over `shape`."""
    return a.gather(0, t).reshape(-1, *[1] * (len(shape) - 1))


class GaussianDiffusion(nn.Module):
    """The forward process q, which adds noise, and the reverse process p, which removes it.

    Every schedule is a buffer of shape (num_timesteps,), computed in float64 and stored in float32. It is linear from
    `beta_start` to `beta_end`, or else `betas` (num_timesteps,).
    """

    def __init__(
        self,
        beta_start: float = 1e-4,
        beta_end: float = 2e-2,
        num_timesteps: int = 1000,
        betas: Tensor | None = None,
    ):
        super().__init__()
        if betas is None:
            betas = torch.linspace(beta_start, beta_end, num_timesteps, dtype=torch.float64)
        self.num_timesteps = len(betas)
        alphas = 1 - betas
        alphas_cumprod = alphas.cumprod(dim=0)
        alphas_cumprod_prev = torch.cat([torch.ones(1, dtype=torch.float64), alphas_cumprod[:-1]])
        schedules = {
            "betas": betas,
            "alphas_cumprod": alphas_cumprod,
            "alphas_cumprod_prev": alphas_cumprod_prev,
            # q(x_t | x_0), equation (4)
            "sqrt_alphas_cumprod": alphas_cumprod.sqrt(),
            "sqrt_one_minus_alphas_cumprod": (1 - alphas_cumprod).sqrt(),
            "log_one_minus_alphas_cumprod": (1 - alphas_cumprod).log(),
            "sqrt_recip_alphas_cumprod": (1 / alphas_cumprod).sqrt(),
            "sqrt_recipm1_alphas_cumprod": (1 / alphas_cumprod - 1).sqrt(),
            # q(x_{t-1} | x_t, x_0), equations (6) and (7)
            "posterior_variance": betas * (1 - alphas_cumprod_prev) / (1 - alphas_cumprod),
            "posterior_mean_coef1": betas * alphas_cumprod_prev.sqrt() / (1 - alphas_cumprod),
            "posterior_mean_coef2": alphas.sqrt() * (1 - alphas_cumprod_prev) / (1 - alphas_cumprod),
        }
        for name, schedule in schedules.items():
            self.register_buffer(name, schedule.float())

    def q_sample(self, x_start: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Draw x_t ~ q(x_t | x_0) in one step, equation (4).

        Args:
            x_start: (B, C, H, W) data x_0.
            t: (B,) steps, integers in [0, num_timesteps), one for each image.
            noise: (B, C, H, W) standard normal noise, the only source of randomness.

        Returns:
            (B, C, H, W) noisy data x_t.
        """
        ############################ Your code here ############################
        # TODO(2.3a): return x_t, made of `x_start` and `noise` at the step `t` of each image.
        # `extract` reads a schedule at `t`; the schedules are the buffers made in `__init__`.
        ########################################################################
        raise NotImplementedError("2.3a")
        ########################################################################

    def predict_start_from_noise(self, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Solve equation (4) for x_0: x (B, C, H, W) at steps t (B,) with its noise -> (B, C, H, W)."""
        return (
            extract(self.sqrt_recip_alphas_cumprod, t, x.shape) * x
            - extract(self.sqrt_recipm1_alphas_cumprod, t, x.shape) * noise
        )

    def q_posterior(self, x_start: Tensor, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (B, C, H, W) and variance (B, 1, 1, 1) of q(x_{t-1} | x_t, x_0), equations (6) and (7)."""
        mean = (
            extract(self.posterior_mean_coef1, t, x.shape) * x_start
            + extract(self.posterior_mean_coef2, t, x.shape) * x
        )
        return mean, extract(self.posterior_variance, t, x.shape)

    def p_mean_variance(self, denoise_fn: DenoiseFn, x: Tensor, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (B, C, H, W) and variance (B, 1, 1, 1) of p(x_{t-1} | x_t), with x_0 as `denoise_fn` sees it."""
        x_start = self.predict_start_from_noise(x, t, denoise_fn(x, y, t))
        return self.q_posterior(x_start, x, t)

    def p_sample(self, denoise_fn: DenoiseFn, x: Tensor, y: Tensor, t: Tensor) -> Tensor:
        """Draw x_{t-1} ~ p(x_{t-1} | x_t), algorithm 2 line 4: (B, C, H, W). No noise is added at t = 0."""
        mean, variance = self.p_mean_variance(denoise_fn, x, y, t)
        not_last = (t > 0)[:, None, None, None]
        return mean + not_last * variance.sqrt() * torch.randn_like(x)

    @torch.no_grad()
    def sample(self, denoise_fn: DenoiseFn, shape: tuple[int, ...], y: Tensor) -> Tensor:
        """Draw data from noise, algorithm 2.

        Args:
            denoise_fn: predicts noise; called once for every step, from num_timesteps - 1 down to 0.
            shape: (B, C, H, W) of the data to draw.
            y: (B,) labels, passed on to `denoise_fn` as they are.

        Returns:
            (B, C, H, W) samples x_0.
        """
        b = shape[0]
        ############################ Your code here ############################
        # TODO(2.3b): start from noise and take every step of the reverse process with `self.p_sample`.
        # Its `t` is a (B,) tensor of int64 on the device of `self.betas`. Leave the samples in `img`.
        ########################################################################
        raise NotImplementedError("2.3b")
        ########################################################################
        return img

    def p_losses(self, denoise_fn: DenoiseFn, x_start: Tensor, y: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """The simplified objective, equation (14): mean squared error of the predicted noise, a scalar."""
        x = self.q_sample(x_start, t, noise)
        return F.mse_loss(denoise_fn(x, y, t), noise)

    def forward(self, denoise_fn: DenoiseFn, x_start: Tensor, y: Tensor) -> Tensor:
        """The objective at steps drawn uniformly, algorithm 1: x_start (B, C, H, W), y (B,) -> scalar."""
        t = torch.randint(self.num_timesteps, (len(x_start),), device=x_start.device)
        return self.p_losses(denoise_fn, x_start, y, t, torch.randn_like(x_start))

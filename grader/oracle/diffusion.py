"""The forward process of DDPM (Ho et al., 2020) and its posterior, in float64.

Steps are numbered from 0, and abar of step -1 is 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Schedule:
    """A linear schedule; every tensor is (num_timesteps,) in float64."""

    beta_start: float = 1e-4
    beta_end: float = 2e-2
    num_timesteps: int = 1000

    @classmethod
    def rescaled(cls, num_timesteps: int) -> Schedule:
        """The default schedule with betas scaled by 1000 / T, so that the last step is all but noise."""
        scale = 1000 / num_timesteps
        return cls(1e-4 * scale, 2e-2 * scale, num_timesteps)

    @cached_property
    def betas(self) -> Tensor:
        """Variance added at each step."""
        steps = torch.arange(self.num_timesteps, dtype=torch.float64) / (self.num_timesteps - 1)
        return self.beta_start + (self.beta_end - self.beta_start) * steps

    @cached_property
    def alphas_cumprod(self) -> Tensor:
        """abar_t, by the sum of logarithms."""
        return torch.log1p(-self.betas).cumsum(0).exp()

    @cached_property
    def alphas_cumprod_prev(self) -> Tensor:
        """abar_{t-1}, 1 at t = 0."""
        return torch.cat([torch.ones(1, dtype=torch.float64), self.alphas_cumprod[:-1]])

    @cached_property
    def posterior_variance(self) -> Tensor:
        """Variance of q(x_{t-1} | x_t, x_0), equation (7); 0 at t = 0."""
        return self.betas * (1 - self.alphas_cumprod_prev) / (1 - self.alphas_cumprod)

    @cached_property
    def posterior_mean_coef1(self) -> Tensor:
        """Weight of x_0 in the mean of q(x_{t-1} | x_t, x_0)."""
        return self.alphas_cumprod_prev.sqrt() * self.betas / (1 - self.alphas_cumprod)

    @cached_property
    def posterior_mean_coef2(self) -> Tensor:
        """Weight of x_t in the mean of q(x_{t-1} | x_t, x_0)."""
        return (1 - self.betas).sqrt() * (1 - self.alphas_cumprod_prev) / (1 - self.alphas_cumprod)

    def buffers(self) -> dict[str, Tensor]:
        """Every schedule that `GaussianDiffusion` stores, by name."""
        abar = self.alphas_cumprod
        return {
            "betas": self.betas,
            "alphas_cumprod": abar,
            "alphas_cumprod_prev": self.alphas_cumprod_prev,
            "sqrt_alphas_cumprod": abar**0.5,
            "sqrt_one_minus_alphas_cumprod": (1 - abar) ** 0.5,
            "log_one_minus_alphas_cumprod": torch.log1p(-abar),
            "sqrt_recip_alphas_cumprod": abar**-0.5,
            "sqrt_recipm1_alphas_cumprod": (1 / abar - 1) ** 0.5,
            "posterior_variance": self.posterior_variance,
            "posterior_mean_coef1": self.posterior_mean_coef1,
            "posterior_mean_coef2": self.posterior_mean_coef2,
        }

    def predict_start(self, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x_0 from x_t (B, C, H, W), t (B,) and its noise: equation (4) solved for x_0."""
        abar = column(self.alphas_cumprod, t)
        return (x.double() - (1 - abar).sqrt() * noise.double()) / abar.sqrt()

    def posterior_mean(self, x_start: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Mean of q(x_{t-1} | x_t, x_0), equation (7)."""
        return column(self.posterior_mean_coef1, t) * x_start + column(self.posterior_mean_coef2, t) * x.double()


def column(schedule: Tensor, t: Tensor) -> Tensor:
    """schedule (T,) at t (B,), as (B, 1, 1, 1)."""
    return schedule[t].reshape(-1, 1, 1, 1)


@dataclass(frozen=True)
class GaussianData:
    """Data N(mean, std^2), independent in every element, whose exact denoiser is known."""

    schedule: Schedule
    mean: float
    std: float

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        """E[noise | x_t] at x (B, C, H, W) and t (B,), in float64."""
        abar = column(self.schedule.alphas_cumprod, t)
        variance = abar * self.std**2 + 1 - abar
        return (1 - abar).sqrt() * (x.double() - abar.sqrt() * self.mean) / variance

    def sampled_moments(self) -> tuple[float, float]:
        """Mean and variance of what ancestral sampling returns, which differ from the data's at finite T.

        Every reverse step is affine in x with known noise, so that both follow a recursion from N(0, 1).
        """
        abar, prev = self.schedule.alphas_cumprod, self.schedule.alphas_cumprod_prev
        variances, previous = abar * self.std**2 + 1 - abar, prev * self.std**2 + 1 - prev
        gains = (1 - self.schedule.betas).sqrt() * previous / variances
        offset, variance = -abar[-1].sqrt() * self.mean, torch.ones((), dtype=torch.float64)
        for t in reversed(range(self.schedule.num_timesteps)):
            offset = gains[t] * offset
            variance = gains[t] ** 2 * variance + self.schedule.posterior_variance[t]
        return self.mean + float(offset), float(variance)

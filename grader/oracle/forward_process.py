"""The forward process of DDPM in one step (Ho et al., 2020, equation (4))."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .closed_form import ClosedForm
from .diffusion import Schedule, column


def q_sample(schedule: Schedule) -> ClosedForm:
    """x_t as a function of x_start (B, C, H, W), t (B,) and noise, equation (4)."""
    abar, last = schedule.alphas_cumprod, schedule.num_timesteps - 1
    shifted_up = lambda t: torch.clamp(t + 1, max=last)  # noqa: E731
    shifted_down = lambda t: torch.clamp(t - 1, min=0)  # noqa: E731

    def mix(signal: Tensor, noise_scale: Tensor) -> Callable[..., Tensor]:
        """x_t by schedules (T,) of the weights of signal and noise."""
        return lambda x_start, t, noise: column(signal, t) * x_start + column(noise_scale, t) * noise

    def clamped(bound: int) -> Callable[..., Tensor]:
        return lambda x_start, t, noise: right(x_start, t, noise).clamp(-bound, bound)

    right = mix(abar.sqrt(), (1 - abar).sqrt())
    alphas = 1 - schedule.betas
    usual, usual_betas = Schedule(), Schedule(num_timesteps=schedule.num_timesteps)
    usual_weights = usual.alphas_cumprod.sqrt(), (1 - usual.alphas_cumprod).sqrt()
    return ClosedForm(
        accepted=(right,),
        misconceptions={
            "alpha of one step is used; the product of all steps so far, alphas_cumprod, belongs here.": mix(
                alphas.sqrt(), (1 - alphas).sqrt()
            ),
            "The square roots are missing: alphas_cumprod and 1 - alphas_cumprod enter as square roots.": mix(
                abar, 1 - abar
            ),
            "The square root of alphas_cumprod is missing in the weight of x_start.": mix(abar, (1 - abar).sqrt()),
            "The square root is missing in the weight of the noise.": mix(abar.sqrt(), 1 - abar),
            "The weight of the noise is 1 - sqrt(alphas_cumprod); the root is to be taken of the difference.": mix(
                abar.sqrt(), 1 - abar.sqrt()
            ),
            "x_start is divided by its weight; it is to be multiplied by it.": mix(abar**-0.5, (1 - abar).sqrt()),
            "The two weights are swapped, or x_start and noise are.": mix((1 - abar).sqrt(), abar.sqrt()),
            "The noise is subtracted; it is added.": mix(abar.sqrt(), -(1 - abar).sqrt()),
            "x_start is subtracted; it is added.": mix(-abar.sqrt(), (1 - abar).sqrt()),
            "The weight of x_start multiplies the noise as well, which has a weight of its own.": mix(
                abar.sqrt(), (abar * (1 - abar)).sqrt()
            ),
            "The weight of the noise multiplies x_start as well, which has a weight of its own.": mix(
                (abar * (1 - abar)).sqrt(), (1 - abar).sqrt()
            ),
            "The weight of x_start is that of a single step, the square root of 1 - beta.": mix(
                alphas.sqrt(), (1 - abar).sqrt()
            ),
            "The weight of the noise is sqrt(1 + alphas_cumprod); it is sqrt(1 - alphas_cumprod).": mix(
                abar.sqrt(), (1 + abar).sqrt()
            ),
            "x_start keeps its full size; its weight is sqrt(alphas_cumprod).": mix(
                torch.ones_like(abar), (1 - abar).sqrt()
            ),
            "The noise keeps its full size; its weight is sqrt(1 - alphas_cumprod).": mix(
                abar.sqrt(), torch.ones_like(abar)
            ),
            "The noise is missing.": mix(abar.sqrt(), torch.zeros_like(abar)),
            "x_start is missing: only the noise is there.": mix(torch.zeros_like(abar), (1 - abar).sqrt()),
            "The noise is that of the posterior, with the weight sqrt(posterior_variance).": mix(
                abar.sqrt(), schedule.posterior_variance.sqrt()
            ),
            "The noise is standardised first; it is standard normal as it is.": (
                lambda x_start, t, noise: right(x_start, t, (noise - noise.mean()) / (noise.std() + 1e-8))
            ),
            **{f"The result is clamped to [-{bound}, {bound}]; x_t leaves it.": clamped(bound) for bound in (1, 3, 10)},
            "The noise has the weight sqrt(beta) of a single step.": mix(abar.sqrt(), schedule.betas.sqrt()),
            "The step of the first image is used for the whole batch; every image has its own t.": (
                lambda x_start, t, noise: right(x_start, t[:1].expand_as(t), noise)
            ),
            "The step of the last image is used for the whole batch; every image has its own t.": (
                lambda x_start, t, noise: right(x_start, t[-1:].expand_as(t), noise)
            ),
            "The weights are averaged over the batch; every image has those of its own t.": (
                lambda x_start, t, noise: (
                    column(abar.sqrt(), t).mean() * x_start + column((1 - abar).sqrt(), t).mean() * noise
                )
            ),
            "At t = 0 the data come back clean; t = 0 is already the first noisy step.": (
                lambda x_start, t, noise: torch.where(t.reshape(-1, 1, 1, 1) == 0, x_start, right(x_start, t, noise))
            ),
            "t is one too low: the weights are those of the step before.": (
                lambda x_start, t, noise: right(x_start, shifted_down(t), noise)
            ),
            "t is one too high.": lambda x_start, t, noise: right(x_start, shifted_up(t), noise),
            "t runs backwards.": lambda x_start, t, noise: right(x_start, last - t, noise),
            "alphas_cumprod_prev is used, which is the schedule of the step before.": mix(
                schedule.alphas_cumprod_prev.sqrt(), (1 - schedule.alphas_cumprod_prev).sqrt()
            ),
            "The schedule of 1000 steps from 1e-4 to 2e-2 is used, whatever schedule was asked for.": (
                lambda x_start, t, noise: mix(*usual_weights)(x_start, t.clamp(max=usual.num_timesteps - 1), noise)
            ),
            "The betas run from 1e-4 to 2e-2, whatever schedule was asked for.": mix(
                usual_betas.alphas_cumprod.sqrt(), (1 - usual_betas.alphas_cumprod).sqrt()
            ),
        },
    )

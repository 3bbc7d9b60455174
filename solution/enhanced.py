"""Part 3: what improves on DDPM. Schedules of any length, sampling in fewer steps, other targets, a bound.

Steps, data and `denoise_fn` are those of diffusion.py.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion import DenoiseFn, GaussianDiffusion, extract

LARGEST_BETA = 0.999


def linear_betas(num_timesteps: int) -> Tensor:
    """The schedule of Ho et al. (2020), section 4, for any number of steps: with fewer steps each adds more noise.

    Args:
        num_timesteps: T, at least 2.

    Returns:
        (num_timesteps,) in float64, computed in float64 from the first tensor on; none is above LARGEST_BETA.
    """
    ############################ Your code here ############################
    # TODO(3.1a): return betas in float64, evenly spaced from 1e-4 to 2e-2 for 1000 steps. With n times fewer
    # steps each beta is n times as large. Then replace those above LARGEST_BETA by it.
    ########################################################################
    scale = 1000 / num_timesteps
    betas = torch.linspace(scale * 1e-4, scale * 2e-2, num_timesteps, dtype=torch.float64)
    return betas.clamp(max=LARGEST_BETA)
    ########################################################################


def cosine_betas(num_timesteps: int, offset: float = 0.008) -> Tensor:
    """The schedule of Nichol and Dhariwal, "Improved Denoising Diffusion Probabilistic Models" (2021), equation (17).

    Args:
        num_timesteps: T, at least 1.
        offset: s of the paper, which keeps the first betas from being too small.

    Returns:
        (num_timesteps,) in float64, computed in float64 from the first tensor on; none is above LARGEST_BETA.
    """
    ############################ Your code here ############################
    # TODO(3.1b): compute alphas_cumprod at the times 0, 1/T, ..., 1 in float64; at time 0 it is 1. Return the
    # betas that follow from it. Replace those above LARGEST_BETA by it.
    ########################################################################
    times = torch.linspace(0, 1, num_timesteps + 1, dtype=torch.float64)
    alphas_cumprod = torch.cos((times + offset) / (1 + offset) * math.pi / 2) ** 2
    betas = 1 - alphas_cumprod[1:] / alphas_cumprod[:-1]
    return betas.clamp(max=LARGEST_BETA)
    ########################################################################


class EnhancedDiffusion(GaussianDiffusion):
    """The diffusion of Part 2, with a sampler of fewer steps, the velocity as a target, and the variational bound."""

    @torch.no_grad()
    def ddim_sample(self, denoise_fn: DenoiseFn, x: Tensor, y: Tensor, steps: Tensor, eta: float = 0.0) -> Tensor:
        """Draw data from noise in some of the steps.

        Song, Meng and Ermon, "Denoising Diffusion Implicit Models" (2021), equations (12) and (16).

        Args:
            denoise_fn: predicts noise; called once for every one of `steps`, from the last down to the first, with
                t (B,) of int64 on the device of x.
            x: (B, C, H, W) standard normal noise to start from, in float32: x_t at the last of `steps`. It is not
                changed.
            y: (B,) labels, passed on to `denoise_fn` as they are.
            steps: (S,) increasing integers in [0, num_timesteps), int64, on the device of x. There is at least one,
                and there may be 1000; the first need not be 0.
            eta: how much noise is added on the way, in [0, 1]. With 0 none is added; with 1 and all steps this
                samples as `sample` does.

        Returns:
            (B, C, H, W) samples x_0.
        """
        ############################ Your code here ############################
        # TODO(3.2): move from each of `steps` to the one before it in `steps`, and from the first of them to x_0,
        # where alphas_cumprod is 1. Clamp nothing. Leave the samples in `img`.
        ########################################################################
        img = x
        abars = self.alphas_cumprod[steps]
        before = F.pad(abars[:-1], (1, 0), value=1.0)
        for step, abar, abar_before in zip(steps.flip(0), abars.flip(0), before.flip(0), strict=True):
            t = step.repeat(len(x))
            noise = denoise_fn(img, y, t)
            x_start = self.predict_start_from_noise(img, t, noise)
            variance = eta**2 * (1 - abar_before) / (1 - abar) * (1 - abar / abar_before)
            img = abar_before.sqrt() * x_start + (1 - abar_before - variance).sqrt() * noise
            img = img + variance.sqrt() * torch.randn_like(img)
        ########################################################################
        return img

    def velocity(self, x_start: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """What a network may predict instead of the noise: the velocity, which is well defined at every step.

        Salimans and Ho, "Progressive Distillation for Fast Sampling of Diffusion Models" (2022), section 4.

        Args:
            x_start: (B, C, H, W) data x_0.
            t: (B,) steps.
            noise: (B, C, H, W), with which `q_sample` makes x_t.

        Returns:
            (B, C, H, W) v_t.
        """
        ############################ Your code here ############################
        # TODO(3.5a): return v_t, the derivative of x_t with respect to the angle whose cosine is
        # sqrt_alphas_cumprod at t.
        ########################################################################
        return (
            extract(self.sqrt_alphas_cumprod, t, noise.shape) * noise
            - extract(self.sqrt_one_minus_alphas_cumprod, t, noise.shape) * x_start
        )
        ########################################################################

    def predict_noise_from_velocity(self, x: Tensor, t: Tensor, velocity: Tensor) -> Tensor:
        """The noise in x_t (B, C, H, W) at steps t (B,) with the velocity v_t (B, C, H, W): (B, C, H, W)."""
        ############################ Your code here ############################
        # TODO(3.5b): return the noise in `x`, computed from `x`, `velocity` and the schedule at `t`: a sampler
        # does not know x_start.
        ########################################################################
        return (
            extract(self.sqrt_one_minus_alphas_cumprod, t, x.shape) * x
            + extract(self.sqrt_alphas_cumprod, t, x.shape) * velocity
        )
        ########################################################################

    def min_snr_weight(self, t: Tensor, gamma: float, prediction: str) -> Tensor:
        """Weights (B,) of the squared errors at steps t (B,), so that steps with little noise do not rule the loss.

        Hang et al., "Efficient Diffusion Training via Min-SNR Weighting Strategy" (2023), section 3.4.

        Args:
            t: (B,) steps.
            gamma: the largest weight that an error of x_0 may have, above 0.
            prediction: "noise" or "velocity": the error is that of a prediction of it.

        Returns:
            (B,), on the device of t.
        """
        ############################ Your code here ############################
        # TODO(3.5c): return the weights. A squared error of x_0 has the weight min(SNR, gamma), with the
        # signal-to-noise ratio SNR = alphas_cumprod / (1 - alphas_cumprod). Work out the weight of a squared error
        # of the noise, and of the velocity, that comes from the same error of x_0.
        ########################################################################
        abar = self.alphas_cumprod[t]
        snr = abar / (1 - abar)
        return snr.clamp(max=gamma) / (snr if prediction == "noise" else snr + 1)
        ########################################################################

    @torch.no_grad()
    def bits_per_dim(self, denoise_fn: DenoiseFn, x_start: Tensor, y: Tensor) -> Tensor:
        """An upper bound on -log p(x_0), from one draw of x_t for each step: Ho et al. (2020), equation (5).

        Args:
            denoise_fn: predicts noise; called once for every step, of which there may be 1000.
            x_start: (B, C, H, W) data x_0, which is not changed.
            y: (B,) labels, passed on to `denoise_fn` as they are.

        Returns:
            (B,) in bits, divided by the number of elements C H W.
        """
        ############################ Your code here ############################
        # TODO(3.7): leave the bound in `nats`, of shape (B,). It is the sum of the KL divergence of q(x_T | x_0)
        # from N(0, I); for each t > 0 that of q(x_{t-1} | x_t, x_0) from p(x_{t-1} | x_t), which have the same
        # variance; and at t = 0 of -log N(x_0; mean, betas[0]) with the mean of p. Draw every x_t from q(x_t | x_0).
        ########################################################################
        abar = self.alphas_cumprod[-1]
        nats = 0.5 * (abar * (x_start.square() - 1) - torch.log1p(-abar)).flatten(1).sum(1)
        for step in range(self.num_timesteps):
            t = torch.full((len(x_start),), step, dtype=torch.int64, device=x_start.device)
            x = self.q_sample(x_start, t, torch.randn_like(x_start))
            mean, variance = self.p_mean_variance(denoise_fn, x, y, t)
            if step > 0:
                terms = (self.q_posterior(x_start, x, t)[0] - mean).square() / (2 * variance)
            else:
                terms = (x_start - mean).square() / (2 * self.betas[0]) + 0.5 * (2 * math.pi * self.betas[0]).log()
            nats = nats + terms.flatten(1).sum(1)
        ########################################################################
        return nats / (math.log(2) * x_start[0].numel())

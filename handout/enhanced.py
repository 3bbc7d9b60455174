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
    raise NotImplementedError("3.1a")
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
    raise NotImplementedError("3.1b")
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
        raise NotImplementedError("3.2")
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
        raise NotImplementedError("3.5a")
        ########################################################################

    def predict_noise_from_velocity(self, x: Tensor, t: Tensor, velocity: Tensor) -> Tensor:
        """The noise in x_t (B, C, H, W) at steps t (B,) with the velocity v_t (B, C, H, W): (B, C, H, W)."""
        ############################ Your code here ############################
        # TODO(3.5b): return the noise in `x`, computed from `x`, `velocity` and the schedule at `t`: a sampler
        # does not know x_start.
        ########################################################################
        raise NotImplementedError("3.5b")
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
        raise NotImplementedError("3.5c")
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
        raise NotImplementedError("3.7")
        ########################################################################
        return nats / (math.log(2) * x_start[0].numel())

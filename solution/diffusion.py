"""Denoising diffusion (DDPM): Ho et al., "Denoising Diffusion Probabilistic Models" (2020); and what improves on it.

Step t runs from 0 to num_timesteps - 1, so that x_0 of the paper is `x_start` here and x_1 of the paper has
t = 0. `denoise_fn(x, y, t)` predicts the noise in x (B, C, H, W) from labels y (B,) and steps t (B,).
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DenoiseFn = Callable[[Tensor, Tensor, Tensor], Tensor]
LARGEST_BETA = 0.999


def extract(a: Tensor, t: Tensor, shape: torch.Size) -> Tensor:
    """Entries a[t] of a schedule a (T,) for steps t (B,), as (B, 1, ..., 1) to broadcast over `shape`."""
    return a.gather(0, t).reshape(-1, *[1] * (len(shape) - 1))


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
        signal = extract(self.sqrt_alphas_cumprod, t, x_start.shape) * x_start
        return signal + extract(self.sqrt_one_minus_alphas_cumprod, t, x_start.shape) * noise
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
        img = torch.randn(shape, device=self.betas.device)
        for step in reversed(range(self.num_timesteps)):
            t = torch.full((b,), step, dtype=torch.int64, device=self.betas.device)
            img = self.p_sample(denoise_fn, img, y, t)
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


def drop_labels(y: Tensor, null_label: int, probability: float) -> Tensor:
    """Labels to train with for guidance: Ho and Salimans, "Classifier-Free Diffusion Guidance" (2022), algorithm 1.

    Args:
        y: (B,) labels, which stay as they are.
        null_label: the label that stands for none.
        probability: that a label is dropped, in [0, 1]; labels are dropped independently.

    Returns:
        (B,) labels, int64, some of which are `null_label`, on the device of y.
    """
    ############################ Your code here ############################
    # TODO(3.3a): return new labels: those of `y`, each replaced by `null_label` with `probability`.
    ########################################################################
    dropped = torch.rand(y.shape, device=y.device) < probability
    return torch.where(dropped, null_label, y)
    ########################################################################


def guided_noise(
    denoise_fn: DenoiseFn, x: Tensor, y: Tensor, t: Tensor, null_label: int, guidance_weight: float
) -> Tensor:
    """The noise in x as it is predicted when sampling is guided towards the labels.

    Ho and Salimans (2022), equation (6), whose w is `guidance_weight` - 1.

    Args:
        denoise_fn: predicts noise, for the labels it is trained with and for `null_label`.
        x: (B, C, H, W) at steps t.
        y: (B,) labels.
        t: (B,) steps.
        null_label: the label that stands for none.
        guidance_weight: with 0 the labels do not count, with 1 the prediction for the labels is returned. Any
            number is allowed, above 1 and below 0 too.

    Returns:
        (B, C, H, W).
    """
    ############################ Your code here ############################
    # TODO(3.3b): return the prediction without labels, plus `guidance_weight` times what the labels add to it.
    # Without labels, every image of the batch has `null_label`.
    ########################################################################
    with_labels = denoise_fn(x, y, t)
    without = denoise_fn(x, torch.full_like(y, null_label), t)
    return without + guidance_weight * (with_labels - without)
    ########################################################################


class RectifiedFlow(nn.Module):
    """Straight paths from data, at time 0, to noise, at time 1: Liu, Gong and Liu, "Flow Straight and Fast" (2023).

    `velocity_fn(x, y, time)` predicts dx/dtime of x (B, C, H, W) from labels y (B,) and times (B,) in [0, 1].
    """

    def path(self, x_start: Tensor, time: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Points of the paths from data to noise, and their velocity: equation (1), where time runs the other way.

        Args:
            x_start: (B, C, H, W) data.
            time: (B,) times in [0, 1], one for each image.
            noise: (B, C, H, W) standard normal noise.

        Returns:
            x: (B, C, H, W), `x_start` at time 0 and `noise` at time 1.
            velocity: (B, C, H, W), its derivative by time.
        """
        ############################ Your code here ############################
        # TODO(3.6a): leave the points of the straight paths in `x`, and their derivatives in `velocity`.
        ########################################################################
        time = time.reshape(-1, 1, 1, 1)
        x = (1 - time) * x_start + time * noise
        velocity = noise - x_start
        ########################################################################
        return x, velocity

    def forward(self, velocity_fn: DenoiseFn, x_start: Tensor, y: Tensor) -> Tensor:
        """The objective at times drawn uniformly: x_start (B, C, H, W), y (B,) -> mean squared error, a scalar."""
        time = torch.rand(len(x_start), device=x_start.device)
        x, velocity = self.path(x_start, time, torch.randn_like(x_start))
        return F.mse_loss(velocity_fn(x, y, time), velocity)

    @torch.no_grad()
    def sample(self, velocity_fn: DenoiseFn, x: Tensor, y: Tensor, num_steps: int, heun: bool = False) -> Tensor:
        """Follow the velocity from noise to data, in steps of equal length.

        Args:
            velocity_fn: predicts the velocity at times (B,) on the device of x; called once for every step, at the
                time where it starts, and for a step of Heun once more, at the time where it ends.
            x: (B, C, H, W) standard normal noise to start from, at time 1, which is not changed.
            y: (B,) labels, passed on to `velocity_fn` as they are.
            num_steps: number of steps, at least 1.
            heun: whether a step follows the mean of the velocities at both of its ends, instead of the one at its
                start. The second is that at the point where Euler's step ends. The last step, to time 0, is Euler's.

        Returns:
            (B, C, H, W) samples at time 0.
        """
        ############################ Your code here ############################
        # TODO(3.6b): take `num_steps` steps from time 1 to time 0. Leave the samples in `img`.
        ########################################################################
        img = x
        for step in range(num_steps, 0, -1):
            time = torch.full((len(x),), step / num_steps, device=x.device)
            velocity = velocity_fn(img, y, time)
            if heun and step > 1:
                ahead = velocity_fn(img - velocity / num_steps, y, time - 1 / num_steps)
                velocity = (velocity + ahead) / 2
            img = img - velocity / num_steps
        ########################################################################
        return img

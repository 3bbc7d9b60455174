"""Part 3: flow matching, Liu, Gong and Liu, "Flow Straight and Fast" (2023)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion import DenoiseFn, extract


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
        raise NotImplementedError("3.6a")
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
        raise NotImplementedError("3.6b")
        ########################################################################
        return img

"""Gaussian data whose velocity on the way to noise is known (Liu, Gong and Liu, 2023), in float64."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

SMALLEST_VARIANCE = 1e-12  # in place of 0, which a single point has at time 0, and only there


@dataclass(frozen=True)
class GaussianFlow:
    """Data N(mean, std^2), independent in every element; all of it at one point where std is 0."""

    mean: float
    std: float

    def velocity(self, x: Tensor, time: float) -> Tensor:
        """The expected velocity of the paths that are at x, of any shape, at a time in [0, 1]; shaped like x."""
        rest = 1 - time
        centre, variance = rest * self.mean, (rest * self.std) ** 2 + time**2
        covariance = time - rest * self.std**2  # of velocity and position
        return -self.mean + covariance / max(variance, SMALLEST_VARIANCE) * (x.double() - centre)

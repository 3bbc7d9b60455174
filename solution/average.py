"""Part 3: a running average of weights, which samples better than the weights themselves."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, step: int, decay: float = 0.9999) -> None:
    """Move a running average of a network's weights one step on, in place.

    Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging" (1992), with weights that fall off
    exponentially: what the network was n steps ago counts decay^n.

    Args:
        average: a network like `network`, whose parameters are the average. They are changed in place.
        network: as it is after the step; it is not changed.
        step: number of the step, counted from 0.
        decay: the share of the average that is kept in a step. It is (1 + step) / (10 + step) while that is smaller,
            so that the average soon forgets what the network was before training.
    """
    ############################ Your code here ############################
    # TODO(3.4): move every parameter of `average` towards that of `network`, once, also where two layers share it.
    # Copy every buffer. Leave modes and requires_grad as they are.
    ########################################################################
    decay = min(decay, (1 + step) / (10 + step))
    for mean, parameter in zip(average.parameters(), network.parameters(), strict=True):
        mean.lerp_(parameter, 1 - decay)
    for kept, buffer in zip(average.buffers(), network.buffers(), strict=True):
        kept.copy_(buffer)
    ########################################################################

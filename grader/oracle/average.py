"""Question 3.4: the running average of a network's weights, whose decay warms up.

Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging" (1992), is about the mean of all steps;
the weights here fall off exponentially instead, as in Ho, Jain and Abbeel, "Denoising Diffusion Probabilistic Models"
(2020), appendix B.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .closed_form import ClosedForm, Formula

Factors = tuple[Tensor, Tensor]  # those of the average and of the network, in the sum that is the new average
Rule = Callable[[Tensor, Tensor], Factors]  # of the number of the step and the decay
Decay = Callable[[Tensor, Tensor], Tensor]


def warm_up(step: Tensor) -> Tensor:
    """What the decay is at first."""
    return (1 + step) / (10 + step)


def decay_of(step: Tensor, decay: Tensor) -> Tensor:
    """The decay of one step."""
    return torch.minimum(decay, warm_up(step))


def convex(decay: Decay) -> Rule:
    """The factors that add up to one, of a decay."""
    return lambda step, long_run: (decay(step, long_run), 1 - decay(step, long_run))


def capped(decay: Callable[[Tensor], Tensor]) -> Rule:
    """The factors with another decay at first."""
    return convex(lambda step, long_run: torch.minimum(long_run, decay(step)))


def following(rule: Rule) -> Formula:
    """The average after some calls, by the rule of one."""

    def formula(average: Tensor, networks: Tensor, steps: Tensor, decay: Tensor) -> Tensor:
        """average (n,), networks (K, n): what the network is at each call, steps (K,), decay () -> (n,)."""
        for network, step in zip(networks, steps.double(), strict=True):
            of_average, of_network = rule(step, decay)
            average = of_average * average + of_network * network
        return average

    return formula


MISTAKES: dict[str, Rule] = {
    "The average does not move: change its parameters in place, those of nested modules too; a name that is bound to "
    "something new changes no module.": lambda step, decay: (torch.ones_like(decay), torch.zeros_like(decay)),
    "The average becomes the network itself; it is to keep the share `decay` of what it was.": (
        lambda step, decay: (torch.zeros_like(decay), torch.ones_like(decay))
    ),
    "The decay is the same from the first step on; at first it is (1 + step) / (10 + step), where that is less.": (
        convex(lambda step, decay: decay)
    ),
    "The decay is always (1 + step) / (10 + step); `decay` is the most that it may be.": (
        convex(lambda step, decay: warm_up(step))
    ),
    "The warm-up ends too soon: it lasts as long as (1 + step) / (10 + step) is less than `decay`.": (
        convex(lambda step, decay: torch.where(step < 1000, decay_of(step, decay), decay))
    ),
    "At step 0 the average becomes the network itself; step 0 is a step like every other.": (
        convex(lambda step, decay: decay_of(step, decay) * (step > 0))
    ),
    "The weight of the network is the warm-up: (1 + step) / (10 + step) belongs to the average, as `decay` does.": (
        convex(lambda step, decay: 1 - torch.minimum(1 - decay, warm_up(step)))
    ),
    "Of `decay` and (1 + step) / (10 + step) the greater is taken; it is the less.": (
        convex(lambda step, decay: torch.maximum(decay, warm_up(step)))
    ),
    "`decay` and (1 + step) / (10 + step) are multiplied; the less of the two is taken.": (
        convex(lambda step, decay: decay * warm_up(step))
    ),
    "The decay of the step and 1 less it are swapped: the decay is the share of what the average was.": (
        convex(lambda step, decay: 1 - decay_of(step, decay))
    ),
    "The decay and 1 less it are swapped, and the decay is the same from the first step on.": (
        convex(lambda step, decay: 1 - decay)
    ),
    "1 is added to the step once too often; steps count from 0, as `step` does.": (
        capped(lambda step: warm_up(step + 1))
    ),
    "The warm-up is step / (10 + step); a 1 is missing above the line.": capped(lambda step: step / (10 + step)),
    "The warm-up is step / (9 + step), as if steps counted from 1; they count from 0.": (
        capped(lambda step: step / (9 + step))
    ),
    "The warm-up is (1 + step) / (11 + step); it is (1 + step) / (10 + step).": (
        capped(lambda step: (1 + step) / (11 + step))
    ),
    "Parentheses are missing in the warm-up: it is (1 + step) / (10 + step), not (1 + step) / 10 + step.": (
        capped(lambda step: (1 + step) / 10 + step)
    ),
    "The share of the network is 1 / (step + 1), as in the mean of all steps; old steps are to be forgotten.": convex(
        lambda step, decay: step / (1 + step)
    ),
    "The average moves away from the network; it is to move towards it.": (
        convex(lambda step, decay: 2 - decay_of(step, decay))
    ),
    "The network is added at its full weight; its share is what the decay leaves.": (
        lambda step, decay: (decay_of(step, decay), torch.ones_like(decay))
    ),
    "The average is not shrunk before the network's share is added: what it was counts `decay` times.": (
        lambda step, decay: (torch.ones_like(decay), 1 - decay_of(step, decay))
    ),
    "The average is shrunk, and nothing of the network is added.": (
        lambda step, decay: (decay_of(step, decay), torch.zeros_like(decay))
    ),
    "The difference from the network is taken after the average was multiplied by the decay; do one or the other.": (
        lambda step, decay: (decay_of(step, decay) ** 2, 1 - decay_of(step, decay))
    ),
    "Every parameter moves twice in one call.": convex(lambda step, decay: decay_of(step, decay) ** 2),
    "Every parameter moves several times in one call: parameters() of a module has those of the modules in it too.": (
        convex(lambda step, decay: decay_of(step, decay) ** 3)
    ),
}

RUNNING_AVERAGE = ClosedForm(
    (following(convex(decay_of)),), {sentence: following(rule) for sentence, rule in MISTAKES.items()}
)

"""The standard deviation of the small VAE, told from what it becomes when the weights of its head are scaled."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .closed_form import ClosedForm, Formula


def softplus_scaled(above: Tensor, below: Tensor, scale: Tensor) -> Tensor:
    """softplus(scale a), where softplus(a) - softplus(-a) = a is known.

    Args:
        above, below: the standard deviation where the head gives a and -a.
        scale: a number.
    """
    return F.softplus(scale * (above - below))


def _positive(activation: Callable[[Tensor], Tensor], inverse: Callable[[Tensor], Tensor]) -> Formula:
    """The same for another activation, whose inverse gives a."""
    return lambda above, below, scale: activation(scale * inverse(above))


def _inverse_softplus(y: Tensor) -> Tensor:
    return y + torch.log(-torch.expm1(-y))


SIGMA = ClosedForm(
    accepted=(softplus_scaled,),
    misconceptions={
        "The standard deviation does not depend on the weights of its head.": lambda above, below, scale: above,
        "The standard deviation is exp of its head; it is softplus.": _positive(torch.exp, torch.log),
        "The standard deviation is a sigmoid of its head, which cannot exceed 1; it is softplus.": _positive(
            torch.sigmoid, torch.logit
        ),
        "The standard deviation is a ReLU of its head; it is softplus, which is never 0.": (
            lambda above, below, scale: F.relu(scale * (above - below))
        ),
        "The standard deviation is the absolute value of its head; it is softplus.": (
            lambda above, below, scale: scale.abs() * above
        ),
        "The standard deviation is the square of its head; it is softplus.": (
            lambda above, below, scale: scale.square() * above
        ),
        "The standard deviation is ELU + 1 of its head; it is softplus.": _positive(
            lambda a: F.elu(a) + 1, lambda y: torch.where(y > 1, y - 1, y.log())
        ),
        "The standard deviation is the square of softplus; Normal takes the standard deviation itself.": _positive(
            lambda a: F.softplus(a).square(), lambda y: _inverse_softplus(y.sqrt())
        ),
        "The standard deviation is the root of softplus; softplus is the standard deviation itself.": _positive(
            lambda a: F.softplus(a).sqrt(), lambda y: _inverse_softplus(y.square())
        ),
        "Softplus is applied twice.": _positive(
            lambda a: F.softplus(F.softplus(a)), lambda y: _inverse_softplus(_inverse_softplus(y))
        ),
        "Softplus comes after a ReLU, so that the standard deviation is never below log 2.": (
            lambda above, below, scale: F.softplus(
                F.relu(scale * (_inverse_softplus(above) - _inverse_softplus(below)))
            )
        ),
    },
)

"""Standard deviation of the latent that a VAE draws (Kingma and Welling, 2014, section 2.4)."""

from __future__ import annotations

import torch
from torch import Tensor

from .closed_form import ClosedForm


def standard_deviation(logvar: Tensor) -> Tensor:
    """The standard deviation of N(mu, exp(logvar)), elementwise."""
    return (logvar / 2).exp()


STANDARD_DEVIATION = ClosedForm(
    accepted=(standard_deviation,),
    misconceptions={
        "exp(logvar) stands where the standard deviation belongs; it is the variance.": lambda logvar: logvar.exp(),
        "logvar stands where the standard deviation belongs; it is the logarithm of the variance.": (
            lambda logvar: logvar.abs()
        ),
        "logvar / 2 stands where the standard deviation belongs; it is its logarithm.": (
            lambda logvar: logvar.abs() / 2
        ),
        "The square root of logvar stands where the standard deviation belongs; logvar is the logarithm of the "
        "variance.": lambda logvar: logvar.abs().sqrt(),
        "The standard deviation is 1; it is to follow from logvar.": lambda logvar: torch.ones_like(logvar),
        "The sign of logvar is flipped: the standard deviation falls where it is to rise.": (
            lambda logvar: (-logvar / 2).exp()
        ),
        "exp(2 logvar) stands where the standard deviation belongs: exp(logvar) is the variance, and this its "
        "square.": lambda logvar: (2 * logvar).exp(),
        "exp(logvar) / 2 stands where the standard deviation belongs: half of the variance is not its root.": (
            lambda logvar: logvar.exp() / 2
        ),
        "The root is taken twice: it is to be taken once, of the variance.": lambda logvar: (logvar / 4).exp(),
    },
)

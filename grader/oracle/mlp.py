"""What lies behind the layers of a fully connected network, told from numbers that come out of it.

Networks are told apart when they are chains: every unit of a layer is the mean of the units before it times a gain,
so that what comes out of the network is one number of its gains, whatever its widths.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, product

import torch
import torch.nn.functional as F
from torch import Tensor

from .closed_form import ClosedForm, Formula

Activation = Callable[[Tensor], Tensor]

# ---------------------------------------------------------------- the standard deviation


def softplus_scaled(above: Tensor, below: Tensor, zero: Tensor, scale: Tensor) -> Tensor:
    """softplus(scale a), where softplus(a) - softplus(-a) = a is known.

    Args:
        above, below, zero: the standard deviation where the head gives a, -a and 0.
        scale: a number.
    """
    return F.softplus(scale * (above - below))


def _positive(activation: Activation, inverse: Activation) -> Formula:
    """The same for another activation, whose inverse gives a."""
    return lambda above, below, zero, scale: activation(scale * inverse(above))


def _inverse_softplus(y: Tensor) -> Tensor:
    return y + torch.log(-torch.expm1(-y))


def _with_beta(above: Tensor, below: Tensor, zero: Tensor, scale: Tensor) -> Tensor:
    """softplus(beta scale a) / beta, which is log 2 / beta where the head gives 0."""
    beta = math.log(2) / zero
    return F.softplus(beta * scale * (above - below)) / beta


SIGMA = ClosedForm(
    accepted=(softplus_scaled,),
    misconceptions={
        "The standard deviation does not depend on the weights of its head.": lambda above, below, zero, scale: above,
        "The standard deviation is an exponential of its head, as it is where the head gives a log-variance or the "
        "logarithm of sigma; it is to be softplus of the head.": _positive(torch.exp, torch.log),
        "The standard deviation is a sigmoid of its head, which cannot exceed 1; it is softplus.": _positive(
            torch.sigmoid, torch.logit
        ),
        "The standard deviation is a ReLU of its head; it is softplus, which is never 0.": (
            lambda above, below, zero, scale: F.relu(scale * (above - below))
        ),
        "The standard deviation is the absolute value of its head; it is softplus.": (
            lambda above, below, zero, scale: scale.abs() * above
        ),
        "The standard deviation is the square of its head; it is softplus.": (
            lambda above, below, zero, scale: scale.square() * above
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
            lambda above, below, zero, scale: F.softplus(
                F.relu(scale * (_inverse_softplus(above) - _inverse_softplus(below)))
            )
        ),
        "Softplus has a beta; leave it at 1.": _with_beta,
        "A number is added to softplus; 1e-4 at most may be.": (
            lambda above, below, zero, scale: F.softplus(scale * (above - below)) + zero - math.log(2)
        ),
    },
)


# ---------------------------------------------------------------- what comes behind a layer

GAINS = (-4.0, -2.5, -1.4, -0.6, 0.3, 0.7, 1.2, 2.2, 3.5)  # of a last layer; some make any output leave [0, 1]
MOST_LAYERS = 6  # hidden layers that activations are told of


def _leaky(slope: float) -> Activation:
    return lambda a: F.leaky_relu(a, slope)


ACTIVATIONS: dict[str, Activation] = {
    "a ReLU": F.relu,
    "nothing": lambda a: a,
    **{f"a LeakyReLU with the slope {slope:g}": _leaky(slope) for slope in (0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.3)},
    "a tanh": torch.tanh,
    "a sigmoid": torch.sigmoid,
    "an ELU": F.elu,
    "a SELU": F.selu,
    "a GELU": F.gelu,
    "a GELU in its tanh approximation": lambda a: F.gelu(a, approximate="tanh"),
    "a SiLU": F.silu,
    "a Mish": F.mish,
    "a softplus": F.softplus,
    "a Hardtanh": F.hardtanh,
    "an absolute value": torch.abs,
    "a square": torch.square,
    "an exponential": torch.exp,
}
OUTPUTS: dict[str, Activation] = {
    "Nothing comes behind the last layer: the sigmoid is missing.": lambda a: a,
    "A tanh comes behind the last layer, where a sigmoid belongs.": torch.tanh,
    "A ReLU comes behind the last layer, where a sigmoid belongs.": F.relu,
    "The logarithm of a sigmoid comes behind the last layer, where the sigmoid itself belongs.": F.logsigmoid,
    "A softplus comes behind the last layer, where a sigmoid belongs.": F.softplus,
    "An exponential comes behind the last layer, where a sigmoid belongs.": torch.exp,
    "What comes out of the last layer is cut off at 0 and 1; a sigmoid belongs there.": lambda a: a.clamp(0, 1),
    "A hard sigmoid, made of straight lines, comes behind the last layer; a sigmoid belongs there.": F.hardsigmoid,
    "The sigmoid is applied twice; once is right.": lambda a: a.sigmoid().sigmoid(),
    "A ReLU lies between the last layer and the sigmoid, so that nothing is below 1/2; leave it out.": (
        lambda a: a.relu().sigmoid()
    ),
    "A tanh lies between the last layer and the sigmoid; leave it out.": lambda a: a.tanh().sigmoid(),
}


def close(one: Tensor, other: Tensor) -> bool:
    """Whether numbers in float64 that a network computed in float32 agree."""
    return bool(torch.allclose(one, other.double(), rtol=1e-3, atol=1e-4))


def draw_gains(layers: int) -> Tensor:
    """Gains (48, layers) between -2 and 2 that activations are told apart at; the same at every call."""
    generator = torch.Generator().manual_seed(layers)
    return torch.rand(48, layers, generator=generator, dtype=torch.float64) * 4 - 2


def name_activations(gains: Tensor, results: Tensor) -> tuple[str, ...]:
    """The activations behind hidden layers, where at most two kinds of them occur; () where they are none known.

    Args:
        gains: (N, layers), those of the hidden layers of a chain whose input is 1 and whose last gain is 1.
        results: (N,), what came out.
    """
    for names in _arrangements(gains.shape[1]):
        value = torch.ones(len(gains), dtype=torch.float64)
        for name, gain in zip(names, gains.unbind(1), strict=True):
            value = ACTIVATIONS[name](gain * value)
        if close(results, value):
            return names
    return ()


def _arrangements(layers: int) -> Iterator[tuple[str, ...]]:
    """One activation for each layer, of at most two kinds."""
    yield from ((name,) * layers for name in ACTIVATIONS)
    for pair in combinations(ACTIVATIONS, 2):
        yield from (names for names in product(pair, repeat=layers) if len(set(names)) == 2)


def name_output(results: Tensor, layers: int) -> str:
    """What comes behind the last layer of a chain, as a sentence; "" where it is none known.

    Args:
        results: (len(GAINS),), what came out for an input of 1, hidden gains of 1 and the last gain of `GAINS`.
        layers: the number of hidden layers, behind which one and the same activation is.
    """
    gains = torch.tensor(GAINS, dtype=torch.float64)
    for unit in dict.fromkeys(_units(layers)):
        for sentence, output in OUTPUTS.items():
            if close(results, output(gains * unit)):
                return sentence
    return ""


def name_head(results: Sequence[float] | Tensor, layers: int) -> str:
    """The activation behind a head, of the same chain; "" where it is none known."""
    gains, found = torch.tensor(GAINS, dtype=torch.float64), torch.as_tensor(results, dtype=torch.float64)
    for unit in dict.fromkeys(_units(layers)):
        for name, activation in ACTIVATIONS.items():
            if close(found, activation(gains * unit)):
                return name
    return ""


def _units(layers: int) -> Iterator[float]:
    """What the last hidden units of a chain may be, where all gains are 1; the most usual, 1, comes first."""
    for activation in ACTIVATIONS.values():
        unit = torch.ones((), dtype=torch.float64)
        for _ in range(layers):
            unit = activation(unit)
        yield float(unit)

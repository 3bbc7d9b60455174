"""A closed form: the formulas accepted as right, and the misconceptions that explain a wrong number."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Formula = Callable[..., Tensor]


class Expected(ABC):
    """What is right at some inputs, and what known mistakes give there.

    Attributes:
        inputs: the inputs by name, as they went to the student's code.
    """

    inputs: dict[str, Tensor]

    @property
    @abstractmethod
    def sentences(self) -> Iterable[str]:
        """The sentences that explain the misconceptions."""

    @abstractmethod
    def values(self) -> list[Tensor]:
        """The value of every accepted formula, in float64."""

    @abstractmethod
    def misconceived(self, sentence: str) -> Tensor:
        """The value of the misconception that a sentence explains, in float64."""

    @abstractmethod
    def gradients(self, which: int = 0, cotangent: Tensor | None = None) -> dict[str, Tensor]:
        """Gradients of the sum of an accepted formula's value times `cotangent`.

        Args:
            which: the number of the formula among those accepted.
            cotangent: shaped like the value; ones where there is none.

        Returns:
            By name, a gradient in float64 for every floating-point input.
        """


@dataclass(frozen=True)
class ClosedForm:
    """Formulas of the same arguments.

    Attributes:
        accepted: formulas that are right; usually one.
        misconceptions: wrong formulas, by the sentence that tells whoever wrote them what they did.
    """

    accepted: tuple[Formula, ...]
    misconceptions: Mapping[str, Formula]

    def at(self, **inputs: Tensor) -> Evaluated:
        """The values at `inputs`; floating-point inputs are taken to float64 as they are."""
        return Evaluated(self, inputs)


@dataclass(frozen=True)
class Evaluated(Expected):
    """What a closed form gives at some inputs."""

    form: ClosedForm
    inputs: dict[str, Tensor]

    @property
    def sentences(self) -> Iterable[str]:
        """See Expected."""
        return self.form.misconceptions

    def values(self) -> list[Tensor]:
        """See Expected."""
        return [formula(**self._inputs64()) for formula in self.form.accepted]

    def misconceived(self, sentence: str) -> Tensor:
        """See Expected."""
        return self.form.misconceptions[sentence](**self._inputs64())

    def gradients(self, which: int = 0, cotangent: Tensor | None = None) -> dict[str, Tensor]:
        """See Expected."""
        inputs = self._inputs64()
        leaves = {name: x.requires_grad_() for name, x in inputs.items() if x.is_floating_point()}
        value = self.form.accepted[which](**inputs)
        total = value.sum() if cotangent is None else (value * cotangent.double()).sum()
        found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
        return {
            name: torch.zeros_like(leaf) if gradient is None else gradient
            for (name, leaf), gradient in zip(leaves.items(), found, strict=True)
        }

    def _inputs64(self) -> dict[str, Tensor]:
        return {n: x.double() if x.is_floating_point() else x for n, x in self.inputs.items()}

"""A closed form: the formulas accepted as right, and the misconceptions that explain a wrong number."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

Formula = Callable[..., Tensor]
KEPT, KEPT_NUMBERS = 256, 4096  # evaluations of a form that are kept, and numbers that go into one of them


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

    A class is graded at the inputs of one seed: what was computed at small ones is kept.

    Attributes:
        accepted: formulas that are right; usually one.
        misconceptions: wrong formulas, by the sentence that tells whoever wrote them what they did.
    """

    accepted: tuple[Formula, ...]
    misconceptions: Mapping[str, Formula]
    _kept: dict[tuple, Evaluated] = field(default_factory=dict, compare=False, repr=False)

    def at(self, **inputs: Tensor) -> Evaluated:
        """The values at `inputs`; floating-point inputs are taken to float64 as they are."""
        if sum(x.numel() for x in inputs.values()) > KEPT_NUMBERS:
            return Evaluated(self, inputs)
        key = tuple((name, x.dtype, x.shape, x.detach().numpy().tobytes()) for name, x in inputs.items())
        if key not in self._kept:
            if len(self._kept) == KEPT:
                self._kept.clear()
            self._kept[key] = Evaluated(self, inputs)
        return self._kept[key]


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
        return self._values

    def misconceived(self, sentence: str) -> Tensor:
        """See Expected."""
        if sentence not in self._misconceived:
            self._misconceived[sentence] = self.form.misconceptions[sentence](**self._inputs64())
        return self._misconceived[sentence]

    def gradients(self, which: int = 0, cotangent: Tensor | None = None) -> dict[str, Tensor]:
        """See Expected."""
        inputs = {name: x.detach() for name, x in self._inputs64().items()}
        leaves = {name: x.requires_grad_() for name, x in inputs.items() if x.is_floating_point()}
        value = self.form.accepted[which](**inputs)
        total = value.sum() if cotangent is None else (value * cotangent.double()).sum()
        found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
        return {
            name: torch.zeros_like(leaf) if gradient is None else gradient
            for (name, leaf), gradient in zip(leaves.items(), found, strict=True)
        }

    @cached_property
    def _values(self) -> list[Tensor]:
        return [formula(**self._inputs64()) for formula in self.form.accepted]

    @cached_property
    def _misconceived(self) -> dict[str, Tensor]:
        return {}

    def _inputs64(self) -> dict[str, Tensor]:
        return {n: x.double() if x.is_floating_point() else x for n, x in self.inputs.items()}

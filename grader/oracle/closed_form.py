"""A closed form: the formulas accepted as right, and the misconceptions that explain a wrong number."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Formula = Callable[..., Tensor]


@dataclass(frozen=True)
class ClosedForm:
    """Formulas of the same arguments.

    Attributes:
        accepted: formulas that are right; usually one.
        misconceptions: wrong formulas, by the sentence that tells whoever wrote them what they did.
    """

    accepted: tuple[Formula, ...]
    misconceptions: Mapping[str, Formula]

    def at(self, **inputs: Tensor) -> Expected:
        """The values at `inputs`; floating-point inputs are taken to float64 as they are."""
        return Expected(self, inputs)


@dataclass(frozen=True)
class Expected:
    """What a closed form gives at some inputs."""

    form: ClosedForm
    inputs: dict[str, Tensor]

    def values(self) -> list[Tensor]:
        """The value of every accepted formula, in float64."""
        return [formula(**self._inputs64()) for formula in self.form.accepted]

    def gradients(self, formula: Formula, cotangent: Tensor | None = None) -> dict[str, Tensor]:
        """Gradients in float64, by every floating-point input, of the sum of the value times `cotangent`."""
        inputs = self._inputs64()
        leaves = {name: x.requires_grad_() for name, x in inputs.items() if x.is_floating_point()}
        value = formula(**inputs)
        total = value.sum() if cotangent is None else (value * cotangent.double()).sum()
        found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
        return {
            name: torch.zeros_like(leaf) if gradient is None else gradient
            for (name, leaf), gradient in zip(leaves.items(), found, strict=True)
        }

    def misconceived(self, sentence: str) -> Tensor:
        """The value of the misconception that `sentence` explains, in float64."""
        return self.form.misconceptions[sentence](**self._inputs64())

    def _inputs64(self) -> dict[str, Tensor]:
        return {n: x.double() if x.is_floating_point() else x for n, x in self.inputs.items()}

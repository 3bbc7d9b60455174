"""Seeded inputs of the checks: one stream for every pair of run seed and check; and what a check has to show."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TypeVar

import torch
from torch import Tensor

from .margins import Ledger

SHOWN_IMAGES = 40
Value = TypeVar("Value")


@dataclass(frozen=True)
class Exhibits:
    """What a check that trained a model has to show, by title: for the page of a result, never for a verdict.

    Attributes:
        images: bytes, or floating-point numbers that are meant to be in [0, 1]; (N, C, H, W) with C 1 or 3.
        curves: finite numbers, evenly spaced over training.
    """

    images: dict[str, Tensor] = field(default_factory=dict)
    curves: dict[str, list[float]] = field(default_factory=dict)


class Draw:
    """Draws the inputs of one check; the same seed and check draw the same, whatever ran before.

    Attributes:
        worker_seed: for the generators in the worker.
        margins: how much of every tolerance the check has used.
        exhibits: what the check has to show.
    """

    def __init__(self, seed: int, check: str):
        digest = hashlib.sha256(f"{seed}/{check}".encode()).digest()
        self.worker_seed = int.from_bytes(digest[8:15], "big")
        self.margins = Ledger()
        self.exhibits = Exhibits()
        self._generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))

    def within(self, name: str, used: float) -> bool:
        """Keep how much of its tolerance a statistic has used. Returns whether that is less than all; nan is not."""
        return self.margins.within(name, used)

    def show(self, title: str, images: Tensor) -> None:
        """Keep the first of some images (N, C, H, W), bytes or in [0, 1], for the page."""
        self.exhibits.images[title] = images[:SHOWN_IMAGES].detach().cpu()

    def curve(self, title: str, values: Iterable[float]) -> None:
        """Keep a curve for the page, up to the first value that is not finite."""
        self.exhibits.curves[title] = list(takewhile(math.isfinite, values))

    def normal(self, *shape: int, mean: float = 0.0, std: float = 1.0) -> Tensor:
        """Normal numbers in float32."""
        return torch.randn(shape, generator=self._generator) * std + mean

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Uniform numbers in float32."""
        return torch.rand(shape, generator=self._generator) * (high - low) + low

    def integers(self, high: int, *shape: int) -> Tensor:
        """Integers in [0, high), int64."""
        return torch.randint(high, shape, generator=self._generator)

    def multiples(self, step: float, low: float, high: float, *shape: int) -> Tensor:
        """Uniform multiples of a step between two others, in float32: few digits, to be checked by hand."""
        return step * (round(low / step) + self.integers(round((high - low) / step) + 1, *shape))

    def number(self, low: float, high: float) -> float:
        """A uniform number that ends after three decimals, the same on every processor."""
        return round(float(self.uniform(low, high, 1)), 3)

    def integer(self, low: int, high: int) -> int:
        """An integer in [low, high]."""
        return low + int(self.integers(high - low + 1, 1))

    def shuffled(self, values: Sequence[Value]) -> list[Value]:
        """Values in random order."""
        return [values[n] for n in self.permutation(len(values)).tolist()]

    def permutation(self, count: int) -> Tensor:
        """The integers in [0, count) in random order, int64."""
        return torch.randperm(count, generator=self._generator)

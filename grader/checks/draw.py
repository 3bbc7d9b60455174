"""Seeded inputs of the checks: one stream for every pair of run seed and check."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from .margins import Ledger


class Draw:
    """Draws the inputs of one check; the same seed and check draw the same, whatever ran before.

    Attributes:
        worker_seed: for the generators in the worker.
        margins: how much of every tolerance the check has used.
    """

    def __init__(self, seed: int, check: str):
        digest = hashlib.sha256(f"{seed}/{check}".encode()).digest()
        self.worker_seed = int.from_bytes(digest[8:15], "big")
        self.margins = Ledger()
        self._generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))

    def within(self, name: str, used: float) -> bool:
        """Keep how much of its tolerance a statistic has used. Returns whether that is less than all; nan is not."""
        return self.margins.within(name, used)

    def normal(self, *shape: int, mean: float = 0.0, std: float = 1.0) -> Tensor:
        """Normal numbers in float32."""
        return torch.randn(shape, generator=self._generator) * std + mean

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Uniform numbers in float32."""
        return torch.rand(shape, generator=self._generator) * (high - low) + low

    def integers(self, high: int, *shape: int) -> Tensor:
        """Integers in [0, high), int64."""
        return torch.randint(high, shape, generator=self._generator)

    def permutation(self, count: int) -> Tensor:
        """The integers in [0, count) in random order, int64."""
        return torch.randperm(count, generator=self._generator)

"""Judges whether numbers have the digits of float32, or were rounded to half of them on the way."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .expect import wrong

HALVES = (torch.float16, torch.bfloat16)
FEWEST = 16  # different numbers; as many of float32 are all on the grid of float16 with a probability below 1e-50
FEWEST_DRAWN, MOST = 256, 0.6
IN_FLOAT32 = "Compute in float32, as x is: no .half(), no bfloat16, and no autocast around it."


def expect_full_precision(x: Any, what: str) -> None:
    """Expect numbers of float32 or float64 that were not rounded to 16 bits, if it is a tensor of numbers at all.

    Args:
        x: numbers that fill their digits, as normal ones do.
        what: what the numbers are, to begin a sentence with.

    Raises:
        Failure: if they have no more digits than float16 or bfloat16.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        return
    if x.dtype in HALVES:
        raise wrong(f"{what} is a tensor of {x.dtype}.", IN_FLOAT32)
    values = x.unique()  # a clamp makes many of them the same
    for dtype in HALVES:
        if len(values) >= FEWEST and torch.equal(values, values.to(dtype).to(x.dtype)):
            raise wrong(f"{what} has no more digits than {str(dtype).removeprefix('torch.')}.", IN_FLOAT32)


def expect_fine_noise(noise: Tensor, what: str) -> None:
    """Expect drawn numbers, known to 1e-6, that do not lie on the grid of float16 or bfloat16.

    Of right numbers a fifth is as near to the grid; as many as MOST are at a rate below 1e-40. Raises Failure.
    """
    large = noise[noise.abs() > 0.1]
    for dtype in HALVES:
        spacing = large.abs().log2().floor().exp2() * torch.finfo(dtype).eps
        near = (large - large.to(dtype).double()).abs() < 0.1 * spacing
        if len(near) >= FEWEST_DRAWN and float(near.double().mean()) > MOST:
            raise wrong(f"{what} has no more digits than {str(dtype).removeprefix('torch.')}.", IN_FLOAT32)

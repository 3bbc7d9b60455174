"""Whether numbers have the digits of float32, or were rounded to 16 bits on the way to a result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from grader.engine.student import Failure, Remote, call_each
from grader.oracle.answers import Form
from grader.oracle.closed_form import Expected

from .expect import expect_all, tensor, wrong

HALVES = (torch.float16, torch.bfloat16)
FEWEST = 16  # different numbers; as many of float32 are all on the grid of float16 with a probability below 1e-50
FEWEST_TELLING = 3  # numbers that are rounded by chance, 1 in 8,192 each, with a probability below 1e-11
FEWEST_DRAWN, MOST = 256, 0.6
NEAR = 0.02  # of a number, more than rounding it a few times to 16 bits takes away
IN_FLOAT32 = "Compute in float32: use neither half() nor bfloat16 nor autocast."


def is_rounded(x: Tensor) -> bool:
    """Whether a type of 16 bits holds all of some numbers exactly."""
    return any(torch.equal(x.to(dtype).to(x.dtype), x) for dtype in HALVES)


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
    if len(values) >= FEWEST and is_rounded(values):
        raise wrong(f"{what} has only the digits of a type of 16 bits, as float16 is.", IN_FLOAT32)


def expect_fine_noise(noise: Tensor, what: str) -> None:
    """Expect drawn numbers, known to 1e-6, that do not lie on the grid of float16 or bfloat16.

    Of right numbers a fifth is as near to the grid; as many as MOST are at a rate below 1e-40. Raises Failure.
    """
    large = noise[noise.abs() > 0.1]
    for dtype in HALVES:
        spacing = large.abs().log2().floor().exp2() * torch.finfo(dtype).eps
        near = (large - large.to(dtype).double()).abs() < 0.1 * spacing
        if len(near) >= FEWEST_DRAWN and float(near.double().mean()) > MOST:
            raise wrong(f"{what} has only the digits of a type of 16 bits, as float16 is.", IN_FLOAT32)


def explain_digits(judged: Sequence[tuple[Tensor, Expected]]) -> str:
    """Whether results have only the digits of a type of 16 bits, where the right ones have more, as a sentence."""
    got = torch.cat([result.flatten() for result, _ in judged])
    right = torch.cat([expected.values()[0].flatten() for _, expected in judged])
    telling = (right != right.half().double()) & (right != right.bfloat16().double())
    near = bool(((got - right).abs() <= NEAR * right.abs()).all())
    if near and int(telling.sum()) >= FEWEST_TELLING and is_rounded(got[telling]):
        return f"The results have only the digits of a type of 16 bits, as float16 is. {IN_FLOAT32}"
    return ""


def expect_each(function: Remote, form: Form, cases: Sequence[dict[str, Tensor]], what: str) -> None:
    """`grader.checks.expect.expect_each`, which also tells numbers that were rounded to 16 bits."""
    expected = [form.at(**inputs) for inputs in cases]
    expect_with_digits(list(zip(call_each(function, cases), expected, strict=True)), what)


def expect_with_digits(results: Sequence[tuple[object, Expected]], what: str = "the result") -> None:
    """`grader.checks.expect.expect_all`, which also tells numbers that were rounded to 16 bits."""
    judged = [(tensor(got, tuple(right.values()[0].shape), what.capitalize()), right) for got, right in results]
    try:
        expect_all(judged, what)
    except Failure as failure:
        failure.hint = explain_digits(judged) or failure.hint
        raise

"""Whether numbers were rounded to 16 bits on the way to a result."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from grader.engine.student import Failure, Remote, call_each
from grader.oracle.answers import Form
from grader.oracle.closed_form import Expected

from .expect import expect_all, tensor, wrong

FEWEST = 3  # numbers that are rounded by chance, 1 in 8,192 each, with a probability below 1e-11
NEAR = 0.02  # of a number, more than rounding it a few times to 16 bits takes away
HINT = "Compute in float32: use neither half() nor autocast."


def is_rounded(x: Tensor) -> bool:
    """Whether a type of 16 bits holds all of some numbers in float64 exactly."""
    return any(torch.equal(x.to(dtype).double(), x) for dtype in (torch.float16, torch.bfloat16))


def expect_all_digits(x: Tensor, what: str) -> None:
    """Expect numbers that are not all rounded to 16 bits. Raises Failure."""
    if bool(x.any()) and is_rounded(x):
        raise wrong(f"{what} has only the digits of a type of 16 bits, as float16 is.", HINT)


def explain_digits(judged: Sequence[tuple[Tensor, Expected]]) -> str:
    """Whether results have only the digits of a type of 16 bits, where the right ones have more, as a sentence."""
    got = torch.cat([result.flatten() for result, _ in judged])
    right = torch.cat([expected.values()[0].flatten() for _, expected in judged])
    telling = (right != right.half().double()) & (right != right.bfloat16().double())
    near = bool(((got - right).abs() <= NEAR * right.abs()).all())
    if near and int(telling.sum()) >= FEWEST and is_rounded(got[telling]):
        return f"The results have only the digits of a type of 16 bits, as float16 is. {HINT}"
    return ""


def expect_each(function: Remote, form: Form, cases: Sequence[dict[str, Tensor]], what: str) -> None:
    """`grader.checks.expect.expect_each`, which also tells numbers that were rounded to 16 bits."""
    results = [(value, form.at(**inputs)) for value, inputs in zip(call_each(function, cases), cases, strict=True)]
    expect_with_digits(results, what)


def expect_with_digits(results: Sequence[tuple[object, Expected]], what: str = "the result") -> None:
    """`grader.checks.expect.expect_all`, which also tells numbers that were rounded to 16 bits."""
    judged = [(tensor(got, tuple(right.values()[0].shape), what.capitalize()), right) for got, right in results]
    try:
        expect_all(judged, what)
    except Failure as failure:
        failure.hint = explain_digits(judged) or failure.hint
        raise

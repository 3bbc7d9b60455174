"""Finds the mistake in numbers that are not right: the one known mistake, or the two, that reproduce them all.

Two mistakes are put together by what each does to the right numbers: it adds to them, as a missing term does, or
multiplies them, as a wrong sign, factor or reduction does. If no two known mistakes give a student's numbers, the
property that broke is named: a constant factor, the size of the batch, a constant, some images only.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor

from grader.oracle.closed_form import Expected

from .margins import ATOL, close

FEWEST_NUMBERS = 3  # two mistakes are looked for in at least as many numbers, since fewer agree by chance
Judged = Sequence[tuple[Tensor, Expected]]


class Explanation(NamedTuple):
    """What is known of a failure.

    Attributes:
        hint: the mistake that was made, or "".
        where: the property that broke, or "".
    """

    hint: str
    where: str


def explain(judged: Judged) -> Explanation:
    """What was done to get every one of these results, or else the property of them that broke.

    Args:
        judged: results in float64, at least one of which is not right, and what was expected.
    """
    got = [result for result, _ in judged]
    rights = [expected.values()[0] for _, expected in judged]
    hint = _one(judged) or _two(judged, _flatten(got), _flatten(rights))
    return Explanation(hint, "" if hint else _property(got, rights))


def _one(judged: Judged) -> str:
    """The sentence of the mistake that gives every result."""
    sentences = judged[0][1].sentences
    fits = (text for text in sentences if all(close(got, right.misconceived(text)) for got, right in judged))
    return next(fits, "")


def _two(judged: Judged, flat: Tensor, right: Tensor) -> str:
    """The sentences of the two mistakes that together give all results: `flat`, where `right` is expected."""
    if flat.numel() < FEWEST_NUMBERS:
        return ""
    sentences = judged[0][1].sentences
    known = {text: _flatten([expected.misconceived(text) for _, expected in judged]) for text in sentences}
    telling = [text for text, values in known.items() if values.shape == right.shape and not close(values, right)]
    for one, other in combinations(telling, 2):
        first, second = known[one], known[other]
        if close(first, second):
            continue
        if close(flat, first + second - right) or close(flat, first * second / right):
            return f"There are two mistakes. {one} {other}"
    return ""


def _flatten(values: list[Tensor]) -> Tensor:
    return torch.cat([value.reshape(-1) for value in values])


def _property(got: list[Tensor], rights: list[Tensor]) -> str:
    """The property that broke, as a sentence."""
    flat, right = _flatten(got), _flatten(rights)
    if bool(right.abs().min() < ATOL):
        return _some_images(got, rights)
    ratio = float((flat / right).median())
    if close(flat, -right):
        return "The sign is flipped."
    if ratio and flat.numel() > 1 and close(flat, ratio * right):
        return f"It is exactly {ratio:.4g} times the right value, whatever the input."
    offset = float((flat - right).median())
    if flat.numel() > 1 and abs(offset) > ATOL and close(flat, right + offset):
        more = "more" if offset > 0 else "less"
        return f"It is exactly {abs(offset):.4g} {more} than the right value, whatever the input."
    return _some_images(got, rights)


def _some_images(got: list[Tensor], rights: list[Tensor]) -> str:
    """Which images of a batch are right, where some are and others are not."""
    for result, right in zip(got, rights, strict=True):
        if result.ndim < 2 or len(result) < 2:
            continue
        fits = [close(*pair) for pair in zip(result, right, strict=True)]
        if any(fits) and not all(fits):
            numbers = ", ".join(str(n) for n, fit in enumerate(fits) if fit)
            return f"Of a batch of {len(fits)} images only {numbers} (counted from 0) came out right."
    return ""

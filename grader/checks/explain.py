"""Finds the mistake in numbers that are not right: what gives all of them, or else where and how they differ.

A single known mistake is looked for first, then the precision of another type, a constant factor or offset, and a
wrong factor of one term. Two mistakes are named only if no other two known ones give the same numbers. What is said
must be clear from the numbers: it gives them more closely, by far, than they differ from the right ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor

from grader.oracle.closed_form import Expected

from .margins import ATOL, RTOL, close

FEWEST_NUMBERS = 3  # fewer agree by chance with one of many combinations
CLEARLY = 0.02  # how far numbers may be from what explains them, as a share of how far they are from others
SHOWN_ENTRIES = 8
NEAR = 0.01  # relative error of what is nearly right
HALF_TYPES = (torch.float16, torch.bfloat16)
HALF = "The numbers have the few digits of float16 or bfloat16: leave tensors in the type in which they come."
MISSING_TERM = re.compile(r"(The term .+?),? is missing\.")
Judged = Sequence[tuple[Tensor, Expected]]


class Explanation(NamedTuple):
    """What is known of a failure.

    Attributes:
        hint: the mistake that was made, or "".
        where: the property that broke, or "".
    """

    hint: str = ""
    where: str = ""


def explain(judged: Judged, shown: tuple[Tensor, Expected] | None = None) -> Explanation:
    """What was done to get every one of these results, or else the property of them that broke.

    Args:
        judged: results in float64, at least one of which is not right, and what was expected, of the same shape.
        shown: the one that the student is shown, which is among them; by default the failed one of the fewest inputs.
    """
    flat, right = _flatten([got for got, _ in judged]), _flatten([_right(expected) for _, expected in judged])
    known = _known(judged, right)
    if hint := _one(known, flat, right) or _precision(flat, right):
        return Explanation(hint)
    if where := _constant(flat, right):
        return Explanation("", where)
    if hint := _term(known, flat, right) or _two(known, flat, right):
        return Explanation(hint)
    got, expected = shown or smallest_wrong(judged)
    return Explanation("", place(got, _right(expected), expected.inputs) or _distance(flat, right))


def smallest_wrong(judged: Judged) -> tuple[Tensor, Expected]:
    """The failed result of the fewest input numbers; any result where none has failed."""
    failed = [pair for pair in judged if not any(close(pair[0], value) for value in pair[1].values())]
    return min(failed or judged, key=lambda pair: sum(x.numel() for x in pair[1].inputs.values()))


def _right(expected: Expected) -> Tensor:
    return expected.values()[0]


def _flatten(values: list[Tensor]) -> Tensor:
    return torch.cat([value.reshape(-1) for value in values])


def _known(judged: Judged, right: Tensor) -> dict[str, Tensor]:
    """The numbers that known mistakes give in place of the right ones, by sentence."""
    found = {}
    for text in judged[0][1].sentences:
        values = [expected.misconceived(text) for _, expected in judged]
        if all(value.shape == _right(expected).shape for value, (_, expected) in zip(values, judged, strict=True)):
            found[text] = _flatten(values)
    return found


def _far(one: Tensor, other: Tensor, right: Tensor) -> float:
    """How far numbers are from others, in tolerances."""
    return float(((one - other) / (ATOL + RTOL * right.abs())).norm())


def _gives(numbers: Tensor, flat: Tensor, right: Tensor, *others: Tensor) -> bool:
    """Whether `numbers` are the student's, `flat`: much nearer to them than the right ones, and than others, are."""
    if not close(flat, numbers):
        return False
    return _far(flat, numbers, right) <= CLEARLY * min(_far(flat, other, right) for other in (right, *others))


# ---------------------------------------------------------------- one mistake


def _one(known: dict[str, Tensor], flat: Tensor, right: Tensor) -> str:
    """The sentence of the mistake that gives every result."""
    return next((text for text, numbers in known.items() if _gives(numbers, flat, right)), "")


def _precision(flat: Tensor, right: Tensor) -> str:
    """That the numbers went through a type of 16 bits, if they have its few digits and are otherwise right."""
    if len(flat.unique()) < FEWEST_NUMBERS or not float((flat - right).norm()) <= NEAR * float(right.norm()):
        return ""
    return HALF if any(torch.equal(flat.to(dtype).double(), flat) for dtype in HALF_TYPES) else ""


def _constant(flat: Tensor, right: Tensor) -> str:
    """The factor, or the offset, between all numbers and the right ones, as a sentence."""
    if flat.numel() < 2 or not bool(right.any()):
        return ""
    ratio = float(flat @ right / (right @ right))
    if _gives(-right, flat, right):
        return "The sign is flipped."
    if ratio and _gives(ratio * right, flat, right):
        return f"It is exactly {ratio:.4g} times the right value at every input that was tried."
    offset = float((flat - right).median())
    if _gives(right + offset, flat, right):
        more = "more" if offset > 0 else "less"
        return f"It is exactly {abs(offset):.4g} {more} than the right value at every input that was tried."
    return ""


def _term(known: dict[str, Tensor], flat: Tensor, right: Tensor) -> str:
    """The term of which the sign or a factor is wrong, if it is one, among those that are known to go missing."""
    found = []
    for text, without in known.items():
        missing = MISSING_TERM.fullmatch(text)
        term = (right - without) / (ATOL + RTOL * right.abs())
        if missing is None or int((term.abs() > 1).sum()) < FEWEST_NUMBERS:
            continue
        factor = 1 + float((flat - right) / (ATOL + RTOL * right.abs()) @ term / (term @ term))
        if _gives(without + factor * (right - without), flat, right):
            found.append(_wrong_factor(missing[1], factor))
    return found[0] if len(found) == 1 else ""


def _wrong_factor(term: str, factor: float) -> str:
    if abs(factor + 1) < CLEARLY:
        return f"{term} has the wrong sign."
    return f"{term} has a factor that is wrong: it counts {factor:.4g} times what it must."


# ---------------------------------------------------------------- two mistakes


def _two(known: dict[str, Tensor], flat: Tensor, right: Tensor) -> str:
    """The sentences of the two mistakes that together give all results, if no other two do.

    A factor, a sign or a reduction multiplies what another mistake gives; two others add up, as wrong terms do.
    """
    if flat.numel() < FEWEST_NUMBERS:
        return ""
    telling = {text: numbers for text, numbers in known.items() if bool(numbers.any()) and not close(numbers, right)}
    factors = {text for text, numbers in telling.items() if _is_factor(numbers, right)}
    found = []
    for (one, first), (other, second) in combinations(telling.items(), 2):
        together = first * second / right if factors & {one, other} else first + second - right
        if _gives(together, flat, right, first, second):
            found.append(f"There are two mistakes. {one} {other}")
    return found[0] if len(found) == 1 else ""


def _is_factor(numbers: Tensor, right: Tensor) -> bool:
    """Whether numbers are the right ones times a constant, or counts, or inverse ones."""
    if bool((right.abs() < ATOL).any()):
        return False
    ratio = numbers / right
    if close(ratio, ratio.median().expand_as(ratio)):
        return True
    return any(close(counts, counts.round(), rtol=0, atol=1e-3) for counts in (ratio, 1 / ratio))


# ---------------------------------------------------------------- where they differ


def place(got: Tensor, right: Tensor, inputs: Mapping[str, Tensor]) -> str:
    """Where in a result, which is not right, it shows: another order, some images, some entries of another axis.

    Args:
        got, right: results in float64 of the same shape.
        inputs: those of the call, by name, whose first axis is the batch where it is that of the result.
    """
    return _order(got, right) or _entries(got, right, inputs)


def _order(got: Tensor, right: Tensor) -> str:
    """In which order the right numbers came out, where it is another than theirs."""
    if got.ndim < 2 or got.numel() < FEWEST_NUMBERS:
        return ""
    rows = torch.stack([((got - row).abs() <= ATOL + RTOL * row.abs()).flatten(1).all(1) for row in right])
    if bool((rows.sum(0) == 1).all()) and bool((rows.sum(1) == 1).all()):
        came = rows.int().argmax(0).tolist()
        reverse = came == sorted(came, reverse=True)
        order = "reverse order" if reverse else f"another order: {', '.join(map(str, came))}"
        return f"Along the first axis the right results come out, but in {order}."
    for axis in range(1, got.ndim):
        if close(got, right.flip(axis)):
            return f"Along axis {axis} (counted from 0) the right numbers come out in reverse order."
    for one, other in combinations(range(got.ndim), 2):
        if got.shape[one] == got.shape[other] and close(got, right.transpose(one, other)):
            return f"The right numbers come out with the axes {one} and {other} (counted from 0) swapped."
    return ""


def _entries(got: Tensor, right: Tensor, inputs: Mapping[str, Tensor]) -> str:
    """Which images, or which entries of another axis, came out right, where some did and others did not."""
    fits = (got - right).abs() <= ATOL + RTOL * right.abs()
    batched = all(x.ndim and len(x) == len(got) for x in inputs.values()) if got.ndim else False
    for axis in range(got.ndim):
        each = fits.movedim(axis, 0).reshape(got.shape[axis], -1).all(1).tolist()
        if any(each) and not all(each):
            return _some(each, "a batch of {} images" if axis == 0 and batched else f"the {{}} entries of axis {axis}")
    return ""


def _some(fits: list[bool], of: str) -> str:
    rare = sum(fits) * 2 <= len(fits)
    numbers = [str(n) for n, fit in enumerate(fits) if fit == rare]
    if len(numbers) > SHOWN_ENTRIES:
        numbers = [*numbers[: SHOWN_ENTRIES - 2], "...", numbers[-1]]
    verdict = "right" if rare else "wrong"
    return f"Of {of.format(len(fits))} only {', '.join(numbers)} (counted from 0) came out {verdict}."


def _distance(flat: Tensor, right: Tensor) -> str:
    """How far, or to which side, the numbers are off, where that is the same everywhere."""
    error = flat - right
    if bool((error.abs() <= NEAR * right.abs()).all()):
        most = float((error / right.where(right != 0, 1)).abs().max())
        return f"Every number is within {105 * most:.2g} % of the right one."  # never less, rounded as it is
    off = error.abs() > ATOL + RTOL * right.abs()
    if flat.numel() >= FEWEST_NUMBERS and bool(off.all()) and len(error.sign().unique()) == 1:
        return f"Every number is too {'large' if error[0] > 0 else 'small'}."
    return ""

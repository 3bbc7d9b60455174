"""Judges what came back, in this order: a usable tensor, its shape, its type, finite, its value, its gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from grader.engine.student import Failure, Observation, Remote, Unusable, call_each
from grader.engine.text import printable
from grader.oracle.answers import Form
from grader.oracle.closed_form import Expected

from .explain import explain, place, smallest_wrong
from .margins import close

SHOWN_ELEMENTS = 6
IMAGE_AXES = ("images", "channels", "rows", "columns")
NOTHING = "End with `return` and the result, or leave it in the name that the block asks for."
NUMPY = "Stay in torch: leave out .numpy() and functions of np."
COMPARED = "A comparison gives True and False: choose numbers by it, as torch.where does, or multiply by them."
ROUNDED = "Look for what makes integers: //, .long(), .int(), .byte(), or a tensor of whole numbers without a dtype."


def wrong(message: str, hint: str = "", where: str = "") -> Failure:
    """The failure of a check whose result is not right."""
    return Failure("wrong", message, hint, where)


def tensor(value: Any, shape: tuple[int, ...], what: str) -> Tensor:
    """`value` in float64, if it is a finite floating-point tensor of `shape`; raises Failure if it is not."""
    if value is None:
        raise wrong(f"{what} is None: nothing is returned, or left.", NOTHING)
    if not isinstance(value, Tensor):
        kind, hint = _no_tensor(value)
        raise wrong(f"{what} is {kind}, where a tensor belongs.", hint)
    if tuple(value.shape) != tuple(shape):
        message = f"{what} has the shape {tuple(value.shape)}; {tuple(shape)} is expected."
        raise wrong(message, where=explain_shape(tuple(value.shape), tuple(shape)))
    if not value.is_floating_point():
        hint = COMPARED if value.dtype is torch.bool else ROUNDED
        raise wrong(f"{what} is a tensor of {value.dtype}, where floating-point numbers belong.", hint)
    precise = value.double()
    if not math.isfinite(float(precise.sum())) and not bool(precise.isfinite().all()):  # the sum is the quick way
        raise wrong(f"{what} is not finite: it holds {'nan' if value.isnan().any() else 'inf'}.")
    return precise


def _no_tensor(value: Any) -> tuple[str, str]:
    """What a value is that is not a tensor, and what to do about it."""
    if isinstance(value, Unusable):
        return printable(value.what), NUMPY if "NumPy" in value.what else ""
    if isinstance(value, tuple):
        return "a tuple or list", "Return the tensor itself, or make one of the parts by torch.stack or torch.cat."
    if isinstance(value, bool | int | float):
        return f"a Python {type(value).__name__}", "Keep the tensor: leave out .item(), float() and .tolist()."
    return "text" if isinstance(value, str) else "a dict" if isinstance(value, dict) else "an object", ""


def explain_shape(got: tuple[int, ...], right: tuple[int, ...]) -> str:
    """How a shape differs from the right one, as a sentence; "" where that is not clear."""
    if [n for n in got if n != 1] == [n for n in right if n != 1]:
        return "The two differ in axes of length 1 only."
    if len(got) < len(right) and got == right[: len(got)]:
        return f"The last {len(right) - len(got)} of the axes are missing." if got else "It is a single number."
    if len(right) == 1 and got == right * 2:
        return "It is square, as (B, 1) and (B,) are when they are broadcast together."
    if len(right) < len(got) and right == got[: len(right)] and right:
        return f"It has the right axes, and {len(got) - len(right)} more behind them."
    if sorted(got) == sorted(right):
        return "The axes are in another order."
    if math.prod(got) == math.prod(right):
        return "It has as many numbers as it must have, in another shape."
    if len(got) == len(right) == len(IMAGE_AXES):
        odd = [name for name, one, other in zip(IMAGE_AXES, got, right, strict=True) if one != other]
        return f"The axes are those of images, channels, rows and columns; it differs in the {' and the '.join(odd)}."
    return ""


def indices(value: Any, count: int, length: int, what: str) -> Tensor:
    """`value`, if it is a tensor of `count` integers of int64 in [0, length); raises Failure if it is not."""
    if not isinstance(value, Tensor) or value.dtype != torch.int64 or tuple(value.shape) != (count,):
        kind = f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else "something else"
        raise wrong(f"{what} is {kind}; a ({count},) tensor of int64 is expected.")
    if bool(((value < 0) | (value >= length)).any()):
        raise wrong(f"{what} holds {int(value.min())} to {int(value.max())}; 0 to {length - 1} are expected.")
    return value


def outputs(value: Any, count: int, what: str) -> tuple:
    """`value`, if it is a sequence of `count` results; raises Failure if it is not."""
    if not isinstance(value, tuple) or len(value) != count:
        single = "nothing" if value is None else "a single result"
        got = f"{len(value)} results" if isinstance(value, tuple) else single
        raise wrong(f"{what} returned {got}; {count} are expected.", "Keep the return statement of the handout.")
    return value


def describe(inputs: dict[str, Tensor]) -> str:
    """The inputs of a check in words: values where they are few, shapes where they are many."""
    parts = []
    for name, x in inputs.items():
        few = x.numel() <= SHOWN_ELEMENTS
        shown = f"= {numbers(x)}" if few else f"of shape {tuple(x.shape)}"
        parts.append(f"{name} {shown}")
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def numbers(x: Tensor) -> str:
    """A few numbers of a tensor, to four digits."""
    flat = x.detach().reshape(-1)[:SHOWN_ELEMENTS].tolist()
    shown = ", ".join(f"{value:.4g}" for value in flat)
    return shown if x.numel() == 1 else f"[{shown}{', ...' if x.numel() > SHOWN_ELEMENTS else ''}]"


def expect(actual: Any, expected: Expected, what: str = "the result") -> int:
    """Expect a value of a closed form. Returns which accepted formula gives it; raises Failure if none does."""
    return expect_all([(actual, expected)], what)[0]


def expect_all(results: Sequence[tuple[Any, Expected]], what: str = "the result") -> list[int]:
    """Expect values of a closed form at several inputs, and explain a failure by what holds at all of them.

    Args:
        results: pairs of what came back and what is expected.
        what: what came back, in the middle of a sentence.

    Returns:
        For each pair, the number of the accepted formula that gives the value.

    Raises:
        Failure: about the value that is not right at the smallest input.
    """
    rights = [expected.values() for _, expected in results]
    judged = [
        (tensor(actual, tuple(values[0].shape), what.capitalize()), expected)
        for (actual, expected), values in zip(results, rights, strict=True)
    ]
    formulas = [
        next((which for which, value in enumerate(values) if close(got, value)), None)
        for (got, _), values in zip(judged, rights, strict=True)
    ]
    fits = [expected for (_, expected), formula in zip(judged, formulas, strict=True) if formula is not None]
    if len(fits) < len(judged):
        got, expected = smallest_wrong(judged)
        hint, where = explain(judged)
        measured = f"With {describe(expected.inputs)}, {what} is {numbers(got)}, which is not right."
        raise wrong(measured, hint, where or (f"With {describe(fits[0].inputs)} it is right." if fits else ""))
    return [formula for formula in formulas if formula is not None]


def expect_each(function: Remote, form: Form, cases: Sequence[dict[str, Tensor]], what: str) -> None:
    """Expect the values of a closed form from a student's function, called once for every case.

    Args:
        function: the student's, called with the inputs of a case by position.
        form: the closed form, of the same inputs.
        cases: inputs by name.
        what: what comes back, in the middle of a sentence.

    Raises:
        Failure: if a call has no result, or about the value that is not right at the smallest input.
    """
    expected = [form.at(**inputs) for inputs in cases]
    expect_all(list(zip(call_each(function, cases), expected, strict=True)), what)


def expect_gradients(observed: Observation, expected: Expected, cotangent: Tensor | None = None) -> None:
    """Expect the value and the gradients of a closed form, by every input that was differentiated.

    Args:
        observed: one call; gradients are shaped like their inputs.
        expected: the closed form at the inputs of the call.
        cotangent: the weights of the result's elements that the call was differentiated with.

    Raises:
        Failure: about the value, or about the first gradient that is missing or not right.
    """
    formula = expect(observed.value, expected)
    right = expected.gradients(formula, cotangent)
    for name, gradient in observed.gradients.items():
        if gradient is None:
            raise wrong(
                f"No gradient reaches {name}.",
                "Stay in torch from the inputs to the result: no detach, .item(), .data, no_grad or numpy.",
            )
        got = tensor(gradient, tuple(right[name].shape), f"The gradient by {name}")
        if not close(got, right[name]):
            raise wrong(
                f"With {describe(expected.inputs)}, the gradient by {name} is {numbers(got)}, which is not right.",
                "The value is right, so that something on the way cuts or bends the gradient: a detach, a clamp.",
                place(got, right[name], expected.inputs),
            )


def expect_unchanged(observed: Observation, inputs: dict[str, Tensor]) -> None:
    """Expect that a call left its arguments as they were. Raises Failure about the first that it changed."""
    for name, before in inputs.items():
        after = observed.arguments[name]
        if not isinstance(after, Tensor) or after.shape != before.shape or not torch.equal(after, before):
            raise wrong(
                f"Your code changed its argument {name} in place.",
                "Compute new tensors; leave out operations that end in _ and += on arguments.",
            )

"""Whether student code makes its tensors where its inputs are: on "meta", a device of every machine without numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from grader.engine.student import Built, Failure, Remote, Student, Unusable, later

from .expect import wrong

ELSEWHERE = "meta"
MIXED = "on the expected device"  # what torch says where tensors of two devices meet


def moved(student: Student, x: Tensor) -> Built:
    """A tensor on the other device, as an argument of a call."""
    return Built(student.torch.Tensor.to, {"x": x, "device": ELSEWHERE})


def is_moved(value: Any) -> bool:
    """Whether what came back is a tensor on the other device."""
    return isinstance(value, Unusable) and value.what.endswith(f"the device {ELSEWHERE}")


@contextmanager
def on_another_device(what: str, hint: str) -> Iterator[None]:
    """Run student code on inputs that are on the other device; `what` is there, to begin a sentence with.

    Nothing is said of another exception: code that reads numbers, or makes a generator, may be right and fail there.

    Raises:
        Failure: where tensors of two devices meet, with `hint`; and every failure that is not an exception.
    """
    try:
        yield
    except Failure as failure:
        if MIXED in failure.message:
            raise wrong(f"With {what} on another device your code fails. {failure.message}", hint) from None
        if failure.status != "error":
            raise


def expect_on_device_of(
    student: Student,
    module: Remote,
    inputs: Mapping[str, Tensor],
    judge: Callable[[Any], object],
    like: str,
    method: str = "",
) -> None:
    """Expect that a module makes its tensors, and its (first) result, where it and its inputs are. Raises Failure.

    What is not right on the CPU is not right on another device.

    Args:
        student: whose module it is.
        module: an nn.Module.
        inputs: tensors by name, passed by position.
        judge: expects the right result on the CPU; raises Failure.
        like: the tensor that a student is told to make others like.
        method: the name of what is called; by default, the module itself.
    """
    function = getattr(module, method) if method else module
    names = " and ".join(inputs)
    hint = f"Make tensors where {like} is: device={like}.device, or zeros_like and randn_like."
    here = function(*inputs.values())
    try:
        judge(here)
    except Failure as failure:
        raise failure.told("") from None  # why it is not right, one result cannot tell: the checks of values do
    later(module.to, ELSEWHERE)
    with on_another_device(names, hint):
        value = function(*(moved(student, x) for x in inputs.values()))
        first = value[0] if isinstance(value, tuple) and value else value
        if isinstance(first, Tensor):
            raise wrong(f"With {names} on another device the result is not there.", hint)

"""Judges whether student code makes its tensors where its arguments are."""

from __future__ import annotations

from typing import Any

from grader.engine.student import Failure, Remote, Student

from .expect import wrong

ELSEWHERE = "engine.elsewhere"  # as the worker calls it
TWO_DEVICES = "on the same device"


def expect_one_device(student: Student, function: Remote, *arguments: Any, moved: str = "arguments") -> None:
    """Expect code to make its tensors, and its result, where its arguments and its module are.

    Args:
        student: who made the function.
        function: what to call; the module whose method it is moves as well.
        arguments: by position. The tensors among them move; functions take and give tensors that are there.
        moved: what is on another device, as a word or two.

    Raises:
        Failure: where tensors of two devices meet. Another exception is left to the checks of values.
    """
    if student.device != "cpu":  # then every check runs on another device than torch's default
        return
    try:
        Remote(student, ELSEWHERE).call(function, *arguments)
    except Failure as failure:
        if TWO_DEVICES in failure.message:
            raise wrong(
                f"With its {moved} on another device your code fails. {failure.message}",
                "Make every tensor on the device of the arguments: device=x.device.",
            ) from None
        if failure.status != "error":
            raise

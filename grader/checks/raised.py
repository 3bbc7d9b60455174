"""What to do about exceptions of student code, told by what torch or Python says of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

from grader.engine.student import Failure

Check = Callable[..., None]


def with_hints(hints: Mapping[str, str]) -> Callable[[Check], Check]:
    """Make a check tell what to do about an exception whose message has one of some texts in it.

    Args:
        hints: sentences by text, the first of which is taken. Those of failures that have one stay as they are.
    """

    def decorate(check: Check) -> Check:
        @functools.wraps(check)
        def run(*arguments: object) -> None:
            try:
                check(*arguments)
            except Failure as failure:
                if failure.status == "error" and not failure.hint:
                    failure.hint = next((hint for text, hint in hints.items() if text in failure.message), "")
                raise

        return run

    return decorate


def unassigned(name: str) -> dict[str, str]:
    """The hint for a block that does not leave its result in the variable `name`."""
    return {f"name '{name}' is not defined": f"Leave your result in `{name}`."}

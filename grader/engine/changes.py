"""What student code changed in its process, as the trusted side tells it."""

from __future__ import annotations

from typing import Any

from .state import is_known
from .text import printable
from .wire import WireError, decode

MAX_TOLD = 5  # in one sentence


class Changes:
    """What was changed during the checks of each question, and by each file while it was imported."""

    def __init__(self) -> None:
        self._by_question: dict[str, dict[str, bool]] = {}
        self._by_file: dict[str, dict[str, bool]] = {}

    def add(self, reported: Any, question: str, put_back: bool = True) -> None:
        """Take what a worker says has changed.

        Args:
            reported: the skeleton of a dictionary from modules, "" for a call, to lists of what they changed.
            question: whose check ran last.
            put_back: whether all of it could be put back.

        Raises:
            WireError: if it is malformed, or names what no worker watches.
        """
        found = decode(reported, {}, _no_object)
        if type(found) is not dict:
            raise WireError("a malformed list of changes")
        for module, words in found.items():
            if type(words) is not tuple or not all(type(one) is str and is_known(one) for one in words):
                raise WireError("a malformed list of changes")
            told = (
                self._by_file.setdefault(f"{module}.py", {}) if module else self._by_question.setdefault(question, {})
            )
            for one in words:
                told[one] = told.get(one, True) and put_back

    def notes(self) -> list[str]:
        """A sentence for each question and each file."""
        of_questions = [
            f"While {question or 'your code'} was checked, the code changed {_listed(told)}; "
            + ("the questions after it ran in a new process." if _stuck(told) else f"{_were(told)} for the rest.")
            for question, told in sorted(self._by_question.items())
        ]
        of_files = [
            f"Importing {printable(file, 80)} changed {_listed(told)}; "
            + (f"not all of that can be undone." if _stuck(told) else f"{_were(told)}.")
            for file, told in sorted(self._by_file.items())
        ]
        return of_files + of_questions


def _no_object(kind: str, content: Any) -> None:
    raise WireError("a malformed list of changes")


def _stuck(told: dict[str, bool]) -> bool:
    return not all(told.values())


def _were(told: dict[str, bool]) -> str:
    return "it was put back" if len(told) == 1 else "they were put back"


def _listed(told: dict[str, bool]) -> str:
    """The first few, in words."""
    names = sorted(told)
    if len(names) > MAX_TOLD:
        names = [*names[:MAX_TOLD], f"{len(names) - MAX_TOLD} more"]
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last

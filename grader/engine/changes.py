"""What student code changed in its process, as the trusted side tells it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .state import is_known
from .text import printable
from .wire import WireError, decode

MAX_TOLD = 5  # in one sentence
MAX_KEPT = 100  # of one question or file
Told = dict[str, bool]  # what was changed, in words: whether it was put back


class Changes:
    """What was changed during the checks of each question, and by each file while it was imported.

    `is_module` says whether a name is that of a module of the submission.
    """

    def __init__(self, is_module: Callable[[str], bool]) -> None:
        self._is_module = is_module
        self._by_question: dict[str, Told] = {}
        self._by_file: dict[str, Told] = {}

    def add(self, reported: Any, question: str) -> None:
        """Take what a worker says has changed.

        Args:
            reported: the skeleton of a dictionary from modules, "" for a call, to what was put back and what was not.
            question: that whose check ran last.

        Raises:
            WireError: if it is malformed, or names what no worker watches.
        """
        found = decode(reported, {}, _no_object, printable)
        if type(found) is not dict:
            raise WireError("a malformed list of changes")
        for module, parts in found.items():
            if type(parts) is not tuple or len(parts) != 2 or not (module == "" or self._is_module(module)):
                raise WireError("a malformed list of changes")
            put_back, stuck = map(_read_words, parts)
            told = (
                self._by_file.setdefault(f"{module}.py", {}) if module else self._by_question.setdefault(question, {})
            )
            if len(told) < MAX_KEPT:
                told.update(dict.fromkeys(put_back, True) | dict.fromkeys(stuck, False))

    def notes(self) -> list[str]:
        """A sentence for each file and each question."""
        of_files = [
            f"Importing {file} changed {_listed(told)}; "
            + (f"{_were(told)}." if all(told.values()) else f"{_listed(_stuck(told))} cannot be put back.")
            for file, told in sorted(self._by_file.items())
        ]
        of_questions = [
            f"While {question or 'your code'} was checked, the code changed {_listed(told)}; "
            + (f"{_were(told)} for the rest." if all(told.values()) else "what follows ran in a new process.")
            for question, told in sorted(self._by_question.items())
        ]
        return of_files + of_questions


def _read_words(words: Any) -> tuple[str, ...]:
    """What was changed, in words that a worker may use. Raises WireError for others."""
    if type(words) is not tuple or not all(type(one) is str and is_known(one) for one in words):
        raise WireError("a malformed list of changes")
    return words


def _no_object(kind: str, content: Any) -> None:
    raise WireError("a malformed list of changes")


def _stuck(told: Told) -> Told:
    return {words: back for words, back in told.items() if not back}


def _were(told: Told) -> str:
    return "it was put back" if len(told) == 1 else "they were put back"


def _listed(told: Told) -> str:
    """The first few, in words."""
    names = sorted(told)
    if len(names) > MAX_TOLD:
        names = [*names[:MAX_TOLD], f"{len(names) - MAX_TOLD} more"]
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last

"""The rubric: questions, points and titles, as data in rubric.toml."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

RUBRIC = Path(__file__).with_name("rubric.toml")


class RubricError(Exception):
    """The rubric is not what it must be; the message says where and what to do."""


@dataclass(frozen=True)
class Question:
    """One question: where its block is, and the points of its checks by name.

    One with `needs` has no block of its own: its checks run once those of the questions it needs have passed.
    """

    id: str
    title: str
    file: str
    block: str
    visibility: str
    checks: dict[str, float]
    needs: tuple[str, ...] = ()

    @property
    def points(self) -> float:
        """What the question is worth."""
        return sum(self.checks.values())


def load(path: Path = RUBRIC) -> list[Question]:
    """Read the questions, in order. Raises RubricError if the file is no rubric."""
    try:
        data = tomllib.loads(path.read_text("utf-8"))
        questions = [Question(**entry) for entry in data["question"]]
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise RubricError(f"{path} is no rubric: {error}") from error
    ids = [question.id for question in questions]
    if len(set(ids)) != len(ids):
        raise RubricError(f"{path}: a question is listed twice; give every [[question]] an id of its own")
    for at, question in enumerate(questions):
        if unknown := set(question.needs) - set(ids[:at]):
            raise RubricError(f"{path}: {question.id} needs {', '.join(sorted(unknown))}, not listed before it")
    return questions


def select(questions: list[Question], only: str | None) -> list[Question]:
    """The questions whose id starts with one of the comma-separated prefixes of `only`, and those that they need.

    All of them where `only` is None or empty.

    Raises RubricError if a prefix matches none.
    """
    if not only:
        return questions
    prefixes = [prefix.strip() for prefix in only.split(",") if prefix.strip()]
    for prefix in prefixes:
        if not any(question.id.startswith(prefix) for question in questions):
            known = ", ".join(question.id for question in questions)
            raise RubricError(f"there is no question {prefix}; there are {known}")
    chosen = {question.id for question in questions if question.id.startswith(tuple(prefixes))}
    chosen |= {needed for question in questions if question.id in chosen for needed in question.needs}
    return [question for question in questions if question.id in chosen]

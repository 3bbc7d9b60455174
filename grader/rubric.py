"""The rubric: questions, points and titles, as data in rubric.toml."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

RUBRIC = Path(__file__).with_name("rubric.toml")
PUBLIC_SEED = 0
AUDIENCES = ("student", "after_due", "ta")  # each sees what those before it see
DUE = AUDIENCES[1]


class RubricError(Exception):
    """The rubric is not what it must be; the message says where and what to do."""


@dataclass(frozen=True)
class Question:
    """One question: where its block is, and what its checks are worth.

    Attributes:
        checks: points by the name of a check.
        audiences: by the name of a check, the first of AUDIENCES that may see it.
        needs: other questions. One with needs has no block of its own: its checks run once those questions are right.
        where_after, hints_after: the attempts of a student after which it is shown where a mistake is, and what it is;
            0 shows it from the first.
        optional: whether its points are a bonus, on top of what can be earned.
        points_later: what is to be earned after the due date, by checks that are not among `checks`.
    """

    id: str
    title: str
    file: str
    block: str
    checks: dict[str, float]
    audiences: dict[str, str]
    needs: tuple[str, ...] = ()
    where_after: int = 0
    hints_after: int = 0
    optional: bool = False
    points_later: float = 0

    @property
    def points(self) -> float:
        """What the question is worth."""
        return sum(self.checks.values())


def load(path: Path = RUBRIC) -> list[Question]:
    """Read the questions, in order. Raises RubricError if the file is no rubric."""
    try:
        data = tomllib.loads(path.read_text("utf-8"))
        questions = [_question(data.get("feedback", {}) | entry) for entry in data["question"]]
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        raise RubricError(f"{path} is no rubric: {error}") from error
    ids = [question.id for question in questions]
    if len(set(ids)) != len(ids):
        raise RubricError(f"{path}: a question is listed twice; give every [[question]] an id of its own")
    for at, question in enumerate(questions):
        if unknown := set(question.needs) - set(ids[:at]):
            raise RubricError(f"{path}: {question.id} needs {', '.join(sorted(unknown))}, not listed before it")
    return questions


def _question(entry: dict[str, Any]) -> Question:
    """A question from its entry, where a check is its points, or a table of points and visibility."""
    tables = {name: x if isinstance(x, dict) else {"points": x} for name, x in entry.pop("checks").items()}
    default = entry.pop("visibility", AUDIENCES[0])
    audiences = {name: table.get("visibility", default) for name, table in tables.items()}
    if unknown := set(audiences.values()) - set(AUDIENCES):
        raise ValueError(f"{', '.join(sorted(unknown))} is no visibility; there are {', '.join(AUDIENCES)}")
    points = {name: table["points"] for name, table in tables.items()}
    return Question(**entry | {"checks": points, "audiences": audiences, "needs": tuple(entry.get("needs", ()))})


def seen_by(questions: list[Question], audience: str) -> list[Question]:
    """The questions with the checks that one of AUDIENCES may see; those that are left without a check fall away."""
    levels = AUDIENCES[: AUDIENCES.index(audience) + 1]
    kept = []
    for question in questions:
        checks = {name: points for name, points in question.checks.items() if question.audiences[name] in levels}
        later = [question.checks[name] for name in question.checks.keys() - checks if question.audiences[name] == DUE]
        if checks:
            kept.append(replace(question, checks=checks, points_later=sum(later)))
    return kept


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

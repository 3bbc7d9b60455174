"""The result model: what results.json holds. Names are stable: add, never rename.

`results.schema.json` beside this file documents every field.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from grader.checks.draw import Exhibits
from grader.checks.runner import PROBLEM_CHARACTERS, STATUSES, Outcome
from grader.engine.text import CHARACTERS, Clean
from grader.rubric import Question

SCHEMA = 1
IDLE = ("not_attempted", "skipped")  # what did not run
PLAIN = re.compile(r"(The block|Block \S+) is empty\.|Waits for .*, not filled in yet\.")  # of a question left alone
OUTPUT_CHARACTERS = 64 << 10


@dataclass(frozen=True)
class CheckResult(Clean):
    """One check; see results.schema.json."""

    id: str
    title: str
    status: str
    score: float
    max_score: float
    message: str
    hint: str
    seconds: float
    visibility: str
    where: str = ""
    later: str = ""

    @property
    def points(self) -> str:
        """Points earned and to be earned, in words."""
        return f"{number(self.score)} of {_counted(self.max_score)}"

    @property
    def reason(self) -> str:
        """What makes two failures the same: the most that is known of the mistake."""
        return self.hint or self.where or self.message


@dataclass(frozen=True)
class QuestionResult(Clean):
    """One question; its status is `passed` if all its checks passed, else the gravest of theirs."""

    id: str
    title: str
    score: float
    max_score: float
    status: str
    checks: list[CheckResult]
    optional: bool = False
    points_later: float = 0

    @property
    def worth(self) -> float:
        """Its points, with those that can be earned after the due date."""
        return self.max_score + self.points_later

    @property
    def reasons(self) -> list[list[CheckResult]]:
        """The checks that failed, those with the same reason together; those of which most is known come first."""
        grouped: dict[str, list[CheckResult]] = {}
        for check in self.checks:
            if check.status not in ("passed", *IDLE):
                grouped.setdefault(check.reason, []).append(check)
        return sorted(grouped.values(), key=lambda group: (not (group[0].hint or group[0].later), not group[0].where))

    @property
    def idle(self) -> list[str]:
        """Why checks did not run, each reason once."""
        return list(dict.fromkeys(check.message for check in self.checks if check.status in IDLE))

    @property
    def why_idle(self) -> list[str]:
        """The same, less what the status of the question says already."""
        alone = all(check.status == "not_attempted" for check in self.checks)
        return [message for message in self.idle if not (alone and PLAIN.fullmatch(message))]

    @property
    def points(self) -> str:
        """Points earned and to be earned, in words."""
        return f"{number(self.score)} of {_counted(self.worth)}{after_due(self.points_later)}"

    @property
    def left_alone(self) -> bool:
        """Whether it is optional, and was not attempted."""
        return self.optional and self.status == "not_attempted"


@dataclass(frozen=True)
class Result(Clean):
    """One submission, graded.

    By the id of a check, `exhibits` are for the page, and `problems`, tracebacks, for those who look after the grader;
    neither is part of results.json.

    `score` has the points of optional questions, `bonus`, in it; `max_score` has not.
    """

    schema: int
    submission: str
    seed: int
    device: str
    environment: dict[str, str]
    isolation: dict[str, str]
    score: float
    max_score: float
    bonus: float
    seconds: float
    notes: list[str]
    output: str = field(metadata={CHARACTERS: OUTPUT_CHARACTERS})
    questions: list[QuestionResult]
    outputs: dict[str, str] = field(default_factory=dict, metadata={CHARACTERS: OUTPUT_CHARACTERS})
    exhibits: dict[str, Exhibits] = field(default_factory=dict, compare=False, repr=False)
    problems: dict[str, str] = field(
        default_factory=dict, compare=False, repr=False, metadata={CHARACTERS: PROBLEM_CHARACTERS}
    )

    @property
    def shown(self) -> list[QuestionResult]:
        """The questions, less the optional ones that were not attempted; those too where there are no others."""
        return [question for question in self.questions if not question.left_alone] or self.questions

    @property
    def invitation(self) -> str:
        """What there is to earn by the questions that are not `shown`, as a sentence; "" if there are none."""
        alone = [question for question in self.questions if question.left_alone]
        left = alone if len(alone) < len(self.questions) else []
        ids, points = ", ".join(question.id for question in left), number(sum(question.max_score for question in left))
        return f"Not attempted, for a bonus of {points} points: {ids}." if left else ""

    @property
    def points(self) -> str:
        """Points earned and to be earned, in words; the bonus, where there is one, apart."""
        required = [question for question in self.questions if not question.optional]
        optional = [question for question in self.questions if question.optional]
        said, counted = [], []
        if self.max_score:
            said.append(f"{number(self.score - self.bonus)} of {number(_worth(required))} points")
            counted += required
        if self.bonus or not said:
            said.append(f"{number(self.bonus)} of {number(_worth(optional))} points of the bonus")
            counted += optional
        return ", and ".join(said) + after_due(sum(question.points_later for question in counted))

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> Result:
        """The result that `as_fields` gave. Raises TypeError or KeyError if there are other fields."""
        questions = [
            QuestionResult(**question | {"checks": [CheckResult(**check) for check in question["checks"]]})
            for question in fields["questions"]
        ]
        return cls(**fields | {"questions": questions})

    def as_fields(self) -> dict[str, Any]:
        """The fields of results.json."""
        questions = [vars(each) | {"checks": [dict(vars(check)) for check in each.checks]} for each in self.questions]
        fields = vars(self) | {"questions": questions}
        return {name: value for name, value in fields.items() if name not in ("exhibits", "problems")}

    @property
    def log(self) -> str:
        """The problems as text, a traceback under the id of each check."""
        return "\n".join(f"{check}\n{problem}" for check, problem in self.problems.items())

    def to_json(self) -> str:
        """The text of results.json."""
        return json.dumps(self.as_fields(), indent=2, ensure_ascii=True, allow_nan=False) + "\n"

    def write(self, path: Path) -> None:
        """Write results.json in one step, so that a reader never sees half of it. Raises OSError."""
        write_whole(path, self.to_json())


def write_whole(path: Path, text: str | Iterable[str]) -> None:
    """Write a file, of one text or of pieces as they come, in one step. Raises OSError."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with part.open("w", encoding="utf-8", errors="replace") as file:
            file.writelines([text] if isinstance(text, str) else text)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def question_result(question: Question, outcomes: Sequence[Outcome]) -> QuestionResult:
    """The result of a question from the outcomes of its checks."""
    checks = [
        CheckResult(
            id=outcome.check.id,
            title=outcome.check.title,
            status=outcome.status,
            score=question.checks[outcome.check.name] if outcome.status == "passed" else 0,
            max_score=question.checks[outcome.check.name],
            message=outcome.message,
            hint=outcome.hint,
            seconds=round(outcome.seconds, 4),
            visibility=question.audiences[outcome.check.name],
            where=outcome.where,
        )
        for outcome in outcomes
    ]
    status = max((check.status for check in checks), key=STATUSES.index)
    score = sum(check.score for check in checks)
    return QuestionResult(
        question.id,
        question.title,
        score,
        question.points,
        status,
        checks,
        question.optional,
        question.points_later,
    )


@cache
def environment() -> dict[str, str]:
    """Versions and machine, for whoever compares two results."""
    found = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "executable": Path(sys.executable).name,
    }
    for package in ("torch", "numpy", "pytest"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _worth(questions: Iterable[QuestionResult]) -> float:
    """The points of questions, with those that can be earned after the due date."""
    return sum(question.worth for question in questions)


def _counted(points: float) -> str:
    """Points with their noun."""
    return f"{number(points)} point" if points == 1 else f"{number(points)} points"


def after_due(points: float) -> str:
    """What is to be said after points earned where others can be earned after the due date."""
    return f"; {number(points)} more after the due date" if points else ""


def number(points: float) -> Any:
    """Points as people write them: 10, not 10.0."""
    return int(points) if float(points).is_integer() else round(points, 2)

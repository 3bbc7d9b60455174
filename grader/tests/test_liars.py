"""What a worker says may be made up: it is never an error of ours, and what is said of it is safe and short."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest

from grader.assignment import REPOSITORY, SOLUTION
from grader.checks.runner import Check, Outcome, run
from grader.engine.launcher import ZygoteLauncher
from grader.engine.student import Student
from grader.engine.text import CUT, MOST, printable
from grader.grading import load_checks

from .conftest import QUESTIONS
from .liars import Frame, Liar, record

REPLIES = 20_000  # that hold lies, of all checks together
CHECKS = [check for check in load_checks().values() if not QUESTIONS[check.question].needs]


def recorded(launcher: ZygoteLauncher, check: Check) -> list[Frame]:
    """What the solution says in a check."""
    outcomes: list[Outcome] = []
    frames = record(launcher, lambda student: outcomes.append(run(check, student, 0)))
    assert outcomes[0].status == "passed"
    return frames


def texts(outcome: Outcome) -> Iterator[str]:
    """Every text of an outcome but the one that no student sees."""
    for each in fields(outcome):
        value: Any = getattr(outcome, each.name)
        if isinstance(value, str) and each.name != "problem":
            yield value


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.id)
def test_lies(check: Check, launcher: ZygoteLauncher) -> None:
    frames, random_, lies = recorded(launcher, check), random.Random(check.id), 0
    while lies < REPLIES / len(CHECKS):
        liar = Liar(frames, random_)
        student = Student(SOLUTION, liar)  # type: ignore[arg-type]
        outcome = run(check, student, 0)
        lies += liar.lies
        assert outcome.status != "grader_error", outcome.problem
        for text in texts(outcome):
            assert printable(text, MOST) == text
            assert len(text) <= MOST + len(CUT)
            assert str(REPOSITORY) not in text
        assert all(printable(note, MOST) == note for note in student.notes)

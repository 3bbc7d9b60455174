"""Runs one check on one submission and says how it ended. What pytest and the batch have in common."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

from grader.engine.launcher import StartError
from grader.engine.student import Failure, Student

from .draw import Draw, Exhibits
from .margins import Ledger, kept_in

# From best to gravest.
STATUSES = (
    "passed",
    "skipped",
    "not_attempted",
    "wrong",
    "error",
    "out_of_memory",
    "timeout",
    "crashed",
    "grader_error",
)
CheckFunction = Callable[[Student, Draw], None]
CHECKS: dict[str, Check] = {}


@dataclass(frozen=True)
class Check:
    """One check of one question.

    Attributes:
        question: its id.
        name: its name in the rubric.
        title: what is checked, said to a student.
        function: runs it; raises Failure.
        imports: modules that take long to import, and that student code will need.
    """

    question: str
    name: str
    title: str
    function: CheckFunction
    imports: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """Its name in results.json."""
        return f"{self.question}/{self.name}"


@dataclass(frozen=True)
class Outcome:
    """How a check ended.

    Attributes:
        check: what ran.
        status: the verdict, one of `STATUSES`.
        message: what was measured.
        hint: what the mistake is, and what to do about it.
        where: where it shows.
        seconds: for how long it ran.
        margins: how much of every tolerance it used.
        exhibits: what it has to show.
    """

    check: Check
    status: str
    message: str = ""
    hint: str = ""
    where: str = ""
    seconds: float = 0.0
    margins: Ledger = field(default_factory=Ledger)
    exhibits: Exhibits = field(default_factory=Exhibits)


def question(question_id: str, imports: tuple[str, ...] = ()) -> Callable[[CheckFunction], CheckFunction]:
    """Register `test_<name>(student, draw)` as a check of a question; its docstring's first line is its title."""

    def register(function: CheckFunction) -> CheckFunction:
        name = function.__name__.removeprefix("test_")
        title = (function.__doc__ or name).strip().splitlines()[0]
        check = Check(question_id, name, title, function, imports)
        if check.id in CHECKS:
            raise ValueError(f"two checks are called {check.id}")
        CHECKS[check.id] = check
        function.check = check  # type: ignore[attr-defined]
        return function

    return register


def run(check: Check, student: Student, seed: int) -> Outcome:
    """Run a check. A fault of the grader's own is `grader_error`, never the student's.

    Raises:
        StartError: if not even a first worker starts.
    """
    started = time.perf_counter()
    status, message, hint, where = "passed", "", "", ""
    draw = Draw(seed, check.id)
    try:
        with kept_in(draw.margins):
            student.begin(draw.worker_seed, check.imports)
            check.function(student, draw)
            student.settle()
    except Failure as failure:
        status, message, hint, where = failure.status, failure.message, failure.hint, failure.where
    except StartError as error:
        if not student.isolation.layers:  # no worker ever started: there is nothing to grade with
            raise
        status, message = "grader_error", str(error)
    except Exception:
        status = "grader_error"
        message = f"The grader failed in {check.id}; tell the instructor.\n{traceback.format_exc(limit=-4)}"
    seconds = time.perf_counter() - started
    return Outcome(check, status, message, hint, where, seconds, draw.margins, draw.exhibits)

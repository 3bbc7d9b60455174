"""Runs one check on one submission and says how it ended. What pytest and the batch have in common."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

from grader.engine.launcher import StartError
from grader.engine.student import Failure, Student
from grader.engine.text import CHARACTERS, Clean
from grader.engine.watchdog import Guard, OutOfMemory, OutOfTime, Overrun, ran_out_of_memory

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
PROBLEM_CHARACTERS = 8000
GROWTH_BYTES = 512 << 20  # of this process, while it judges what a check is given; the solution takes 150 MB
JUDGING_SECONDS = 30.0  # of the processor, for one check; the solution takes 2
COULD_NOT_JUDGE = "Your code gave back values that this check could not judge."
LOOK_AT_RESULTS = (
    "Look at the types, shapes and sizes of what it returns, of its attributes and of the parameters of its networks, "
    "and at what it passes to functions that it is given."
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
class Outcome(Clean):
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
        problem: a traceback for those who look after the grader, which is for no student to see.
    """

    check: Check
    status: str
    message: str = ""
    hint: str = ""
    where: str = ""
    seconds: float = 0.0
    margins: Ledger = field(default_factory=Ledger)
    exhibits: Exhibits = field(default_factory=Exhibits)
    problem: str = field(default="", metadata={CHARACTERS: PROBLEM_CHARACTERS})


def stumbled(status: str, message: str) -> bool:
    """Whether a check came to no verdict of its own, which none does on what students write in good faith."""
    return status == "grader_error" or message == COULD_NOT_JUDGE


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
    draw = Draw(seed, check.id)
    failure, problem = Failure("passed", ""), ""
    guard = Guard(GROWTH_BYTES, min(JUDGING_SECONDS, student.judging_seconds))
    try:
        if student.judging_seconds <= 0:
            raise Failure("timeout", "Not run: to judge the checks before this one took all the time there is.")
        with guard, kept_in(draw.margins):
            student.begin(draw.worker_seed, check.imports, check.question)
            check.function(student, draw)
            student.settle()
    except Failure as verdict:
        failure = verdict
    except StartError as error:
        if not student.isolation.layers:  # no worker ever started: there is nothing to grade with
            raise
        failure, problem = Failure("grader_error", str(error)), traceback.format_exc()
    except (Exception, Overrun) as error:
        failure, problem = _unexpected(check, student, error), traceback.format_exc()
        student.drop()
    student.judging_seconds -= guard.used
    seconds = time.perf_counter() - started
    said = (failure.status, failure.message, failure.hint, failure.where)
    return Outcome(check, *said, seconds, draw.margins, draw.exhibits, problem[-PROBLEM_CHARACTERS:])


def _unexpected(check: Check, student: Student, error: BaseException) -> Failure:
    """What an exception in a check means: once the worker has said anything, that is what the check stumbled over."""
    if not student.answered:
        return Failure("grader_error", f"The grader failed in {check.id}; tell the instructor.")
    about = f"what {student.doing} gave back" if student.doing else "what your code gave back"
    if isinstance(error, OutOfTime):
        return Failure("timeout", f"To judge {about} took too long.", LOOK_AT_RESULTS)
    if isinstance(error, OutOfMemory) or ran_out_of_memory(error):
        return Failure("out_of_memory", f"To judge {about} takes more memory than there is.", LOOK_AT_RESULTS)
    return Failure("error", COULD_NOT_JUDGE, LOOK_AT_RESULTS)

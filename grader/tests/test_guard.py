"""What judges is bounded: it is interrupted once, while it judges, and the checks after it go on."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from grader.batch import run as batch
from grader.batch.problems import Problems
from grader.batch.store import PROBLEMS, Store
from grader.batch.work import Settings
from grader.checks import runner
from grader.checks.draw import Draw
from grader.checks.runner import Outcome
from grader.engine import watchdog
from grader.engine.launcher import ZygoteLauncher
from grader.engine.student import Student
from grader.engine.watchdog import Guard, OutOfMemory, OutOfTime, Overrun
from grader.grading import grade, load_checks, session
from grader.submission import Submission

from .conftest import EXACT, QUESTIONS

CHECK = load_checks()["2.2b/generator_gradient"]


def spin() -> None:
    while True:
        pass


def grow() -> None:
    kept = []
    while True:
        kept.append(bytes(b"x" * (1 << 20)))


def test_what_takes_too_long_is_interrupted() -> None:
    guard = Guard(1 << 40, 0.2)
    with pytest.raises(OutOfTime), guard:
        spin()
    assert guard.used >= 0.2


def test_what_grows_too_much_is_interrupted() -> None:
    with pytest.raises(OutOfMemory), Guard(64 << 20, 60):
        grow()


def test_waiting_takes_no_time() -> None:
    with Guard(1 << 40, 0.2) as guard:
        time.sleep(0.5)
    assert guard.used < 0.2


def test_nothing_is_raised_behind_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each guard is over its bound from the start, and left about when its thread looks."""
    monkeypatch.setattr(watchdog, "INTERVAL_SECONDS", 0.0005)
    before, raised = sys.getswitchinterval(), 0
    sys.setswitchinterval(1e-5)
    for turn in range(300):
        try:
            with Guard(1 << 40, -1):
                for _ in range(turn * 1000):
                    pass
        except Overrun:
            raised += 1
        for _ in range(2000):  # where one that comes late would come
            pass
    sys.setswitchinterval(before)
    assert 0 < raised <= 300


def outcomes(
    solution: Submission, launcher: ZygoteLauncher, *functions: Callable[[Student, Draw], None]
) -> list[Outcome]:
    """How checks that do this end, one after another on one submission."""
    with session(solution, EXACT, launcher, 0) as current:
        return [runner.run(replace(CHECK, function=function), current.student, 0) for function in functions]


def test_a_check_over_its_bounds_is_the_submissions_once_it_has_answered(
    solution: Submission, launcher: ZygoteLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "JUDGING_SECONDS", 0.2)
    monkeypatch.setattr(runner, "GROWTH_BYTES", 64 << 20)

    def spins(student: Student, draw: Draw) -> None:
        student.torch.ones(2)
        spin()

    def grows(student: Student, draw: Draw) -> None:
        student.torch.ones(2)
        grow()

    def fails(student: Student, draw: Draw) -> None:
        student.torch.ones(2)
        raise ZeroDivisionError("by what it gave back")

    def has_no_memory(student: Student, draw: Draw) -> None:
        student.torch.ones(2)
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory: of 1 bytes")

    ended = outcomes(solution, launcher, spins, grows, fails, has_no_memory, CHECK.function)
    assert [one.status for one in ended] == ["timeout", "out_of_memory", "error", "out_of_memory", "passed"]
    assert ended[0].message == "To judge what torch.ones gave back took too long."
    assert ended[2].message == runner.COULD_NOT_JUDGE
    assert all(one.hint == runner.LOOK_AT_RESULTS for one in ended[:4])
    assert "ZeroDivisionError: by what it gave back" in ended[2].problem
    assert "ZeroDivisionError" not in ended[2].message + ended[2].hint
    assert ended[4].problem == ""


def test_before_an_answer_all_of_it_is_the_graders(
    solution: Submission, launcher: ZygoteLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "JUDGING_SECONDS", 0.2)
    ended = outcomes(
        solution, launcher, lambda student, draw: spin(), lambda student, draw: draw.normal("x"), CHECK.function
    )  # type: ignore[arg-type]
    assert [one.status for one in ended] == ["grader_error", "grader_error", "passed"]
    assert "TypeError" in ended[1].problem
    assert ended[1].message == f"The grader failed in {CHECK.id}; tell the instructor."


def test_a_submission_has_so_many_seconds_to_be_judged(solution: Submission, launcher: ZygoteLauncher) -> None:
    with session(solution, EXACT, launcher, 0) as current:
        current.student.judging_seconds = 0.0
        outcome = current.run(CHECK)
    assert (outcome.status, outcome.message[:8]) == ("timeout", "Not run:")


def test_tracebacks_go_to_the_log_of_a_class_and_to_no_result(
    tmp_path: Path, solution: Submission, launcher: ZygoteLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(student: Student, draw: Draw) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setitem(load_checks(), CHECK.id, replace(CHECK, function=fails))
    result = grade(solution, [QUESTIONS["2.2b"]], launcher, 0)
    assert "ZeroDivisionError" in result.log
    assert "ZeroDivisionError" not in result.to_json()
    fields, told = result.as_fields() | {PROBLEMS: result.log}, []
    planned, problems = batch.Plan({}, {"k": {}}), Problems(tmp_path / "problems.log")
    with closing(Store(tmp_path / "grades.sqlite")) as store:
        batch.carry_out(
            planned, Settings(seed=0), store, 1, lambda key, each: told.append(each),
            lambda *_: iter([("k", fields)]), problems,
        )  # fmt: skip
        assert store.result("k") == told[0] == result.as_fields()
    assert problems.count == 1
    assert "ZeroDivisionError: ours" in problems.path.read_text("utf-8")

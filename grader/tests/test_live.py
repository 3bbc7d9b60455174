"""What is seen while a class is graded."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from grader.batch.live import NEWEST, live
from grader.report.result import QuestionResult, Result


def result(score: float, optional: str = "", **statuses: str) -> dict[str, Any]:
    """The fields of a result with statuses by question, some of which are optional."""
    questions = [QuestionResult(name, "", 0, 0, status, [], name in optional) for name, status in statuses.items()]
    return Result(
        schema=1, submission="", seed=0, device="cpu", environment={}, isolation={}, score=score, max_score=10, bonus=0,
        seconds=1.25, notes=[], output="", questions=questions,
    ).as_fields()  # fmt: skip


def seen(terminal: bool, results: list[tuple[str, dict[str, Any]]], students: dict[str, str]) -> str:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=terminal, width=120, color_system=None)
    with live(len(results), students, console) as tell:
        for key, fields in results:
            tell(key, fields)
    return screen.getvalue()


def test_a_terminal_shows_the_newest_results_and_a_file_the_bar_alone() -> None:
    students = {"anna": "k1", "ben": "k1", "cleo\x1b[2J": "k2"}
    results = [("k1", result(10, a="passed")), ("k2", result(4.5, a="wrong", b="not_attempted"))]
    last = seen(True, results, students).rpartition("student")[2]
    assert "anna, ben" in last
    assert "10 of 10" in last
    assert "4.5 of 10" in last
    assert "a wrong, b not attempted" in last
    assert "cleo\\u001b[2J" in last
    assert "passed 1, wrong 1" in last
    quiet = seen(False, results, students)
    assert "anna" not in quiet
    assert "2/2" in quiet


def test_optional_questions_that_were_left_alone_are_not_amiss() -> None:
    some = result(10, optional="bc", a="passed", b="not_attempted", c="wrong")
    last = seen(True, [("k1", some)], {"anna": "k1"}).rpartition("student")[2]
    assert ("c wrong" in last, "b not attempted" in last) == (True, False)
    none = result(10, optional="b", a="passed", b="not_attempted")
    assert "passed 1" in seen(True, [("k1", none)], {"anna": "k1"})


def test_few_lines_are_shown_however_many_there_are() -> None:
    many = [(f"k{n}", result(n, a="passed")) for n in range(10)]
    students = {f"student-{n}": f"k{n}" for n in range(10)} | {f"twin-{n}": "k9" for n in range(5)}
    last = seen(True, many, students).rpartition("student  ")[2]
    assert "student-1 " not in last
    assert sum(f"student-{n} " in last for n in range(9)) == NEWEST - 1
    assert "student-9, twin-0, twin-1 and 3 more" in last

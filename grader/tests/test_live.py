"""What is seen while a class is graded."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from grader.batch.live import NEWEST, live


def result(score: float, **statuses: str) -> dict[str, Any]:
    questions = [{"id": question, "status": status} for question, status in statuses.items()]
    return {"score": score, "max_score": 10, "seconds": 1.25, "questions": questions}


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
    every = result(10, a="passed", b="not_attempted", c="wrong")
    for question in every["questions"][1:]:
        question["optional"] = True
    last = seen(True, [("k1", every)], {"anna": "k1"}).rpartition("student")[2]
    assert ("c wrong" in last, "b not attempted" in last) == (True, False)
    del every["questions"][2]
    assert "passed 1" in seen(True, [("k1", every)], {"anna": "k1"})


def test_few_lines_are_shown_however_many_there_are() -> None:
    many = [(f"k{n}", result(n, a="passed")) for n in range(10)]
    students = {f"student-{n}": f"k{n}" for n in range(10)} | {f"twin-{n}": "k9" for n in range(5)}
    last = seen(True, many, students).rpartition("student  ")[2]
    assert "student-1 " not in last
    assert sum(f"student-{n} " in last for n in range(9)) == NEWEST - 1
    assert "student-9, twin-0, twin-1 and 3 more" in last

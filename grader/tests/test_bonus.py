"""Optional questions: their points are a bonus, and those that were left alone stand in nobody's way."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from grader.report.class_page import write
from grader.report.class_summary import ClassSummary
from grader.report.console import print_result
from grader.report.entry import Entry
from grader.report.feedback import as_markdown, as_text
from grader.report.gradescope import to_gradescope
from grader.report.html import render
from grader.report.result import CheckResult, QuestionResult, Result
from grader.rubric import Question

IDS = {"2.1a": 4.0, "3.1": 2.0, "3.2": 5.0}
LEFT = "Not attempted, for a bonus of {} points: {}."


def question(name: str, status: str) -> QuestionResult:
    points = IDS[name]
    score = points if status == "passed" else 0.0
    check = CheckResult(f"{name}/check", f"What {name} is", status, score, points, "", "", 0.0, "student")
    return QuestionResult(name, f"Title of {name}", score, points, status, [check], optional=name.startswith("3"))


def result(**statuses: str) -> Result:
    """A result with statuses by question; `_` stands for the point in an id."""
    questions = [question(name.replace("q", "").replace("_", "."), status) for name, status in statuses.items()]
    return Result(
        schema=1, submission="anna", seed=0, device="cpu", environment={}, isolation={},
        score=sum(q.score for q in questions), max_score=sum(q.max_score for q in questions if not q.optional),
        bonus=sum(q.score for q in questions if q.optional), seconds=1.0, notes=[], output="", questions=questions,
    )  # fmt: skip


RESULTS = {
    "none attempted": (result(q2_1a="passed", q3_1="not_attempted", q3_2="not_attempted"), "4 of 4 points", ["2.1a"]),
    "some right": (
        result(q2_1a="passed", q3_1="passed", q3_2="not_attempted"),
        "4 of 4 points, and 2 of 7 points of the bonus",
        ["2.1a", "3.1"],
    ),
    "one wrong": (result(q2_1a="passed", q3_1="wrong", q3_2="not_attempted"), "4 of 4 points", ["2.1a", "3.1"]),
    "nothing else asked for": (result(q3_1="passed", q3_2="wrong"), "2 of 7 points of the bonus", ["3.1", "3.2"]),
    "none attempted, and nothing else asked for": (
        result(q3_1="not_attempted", q3_2="not_attempted"),
        "0 of 7 points of the bonus",
        ["3.1", "3.2"],
    ),
}


@pytest.mark.parametrize(("graded", "points", "shown"), RESULTS.values(), ids=RESULTS)
def test_every_report_shows_what_was_attempted(graded: Result, points: str, shown: list[str]) -> None:
    assert (graded.points, [q.id for q in graded.shown]) == (points, shown)
    hidden = [q.id for q in graded.questions if q.id not in shown]
    left = LEFT.format(int(sum(IDS[name] for name in hidden)), ", ".join(hidden)) if hidden else ""
    assert graded.invitation == left
    printed = Console(file=io.StringIO(), width=100)
    print_result(graded, printed)
    table, page = printed.file.getvalue(), render(graded)  # type: ignore[attr-defined]
    titles = (table, page, as_text(graded), as_markdown(graded), str(to_gradescope(graded, [])["tests"]))
    for name in IDS:
        belongs = name in shown
        assert [f"Title of {name}" in text or f"What {name} is" in text for text in titles] == [belongs] * len(titles)
    assert f"Score: {points}" in table
    assert as_text(graded).startswith(points)
    assert as_markdown(graded).startswith(f"# {points}")
    assert f"<title>anna: {points}</title>" in page
    assert (left in table, left in page) == (True, True)


def test_the_bonus_counts_in_the_score_and_not_in_what_can_be_earned() -> None:
    graded = RESULTS["some right"][0]
    assert (graded.score, graded.max_score, graded.bonus) == (6, 4, 2)
    assert to_gradescope(graded, [])["score"] == 6
    assert Result.from_fields(graded.as_fields()) == graded


def test_the_page_of_a_class_leaves_out_what_nobody_attempted(tmp_path: Path) -> None:
    summary = ClassSummary()
    for name in ("none attempted", "some right"):
        summary.add(Entry(name, name), RESULTS[name][0])
    write(tmp_path / "index.html", summary)
    page = (tmp_path / "index.html").read_text("utf-8")
    assert ("Title of 3.1" in page, "Title of 3.2" in page) == (True, False)
    assert (summary.max_score, summary.scores) == (4, [4, 6])
    assert page.count("<dt>bonus</dt>") == page.count("<dt>passed of those who tried</dt>") == 1


def test_who_left_a_bonus_alone_counts_in_no_rate_of_it() -> None:
    summary = ClassSummary()
    for name in ("none attempted", "some right", "one wrong"):
        summary.add(Entry(name, name), RESULTS[name][0])
    bonus, required = summary.question("3.1"), summary.question("2.1a")
    assert (bonus.passed, bonus.graded, bonus.median) == (1, 2, 1)
    assert bonus.counts == {"passed": 1, "not_attempted": 1, "wrong": 1}
    assert (required.passed, required.graded) == (3, 3)


def test_a_question_is_optional_where_the_rubric_says_so() -> None:
    assert not Question("1.1", "", "", "", {}, {}).optional
    assert Question("3.1", "", "", "", {}, {}, optional=True).optional

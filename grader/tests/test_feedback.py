"""Who sees what: audiences of checks, and hints that open after some attempts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from grader.assignment import REPOSITORY
from grader.cli import app
from grader.grading import load_checks
from grader.report.feedback import as_markdown, fenced, hold_back_hints
from grader.rubric import AUDIENCES, RubricError, load, seen_by
from grader.submission import Submission

from .conftest import QUESTIONS, Graded, filled, write

HALF = "kl_divergence = (mu**2 + logvar.exp() - 1 - logvar).flatten(1).sum(1)"
RUBRIC = """
schema = 1
[feedback]
hints_after = 2
[[question]]
id = "a"
title = "A"
file = "loss.py"
block = "f"
[question.checks]
first = 2
second = {{ points = 1.5, visibility = "{second}" }}
[[question]]
id = "b"
title = "B"
file = "loss.py"
block = "g"
visibility = "ta"
hints_after = 0
[question.checks]
third = 3
"""


def rubric(folder: Path, second: str = "after_due") -> Path:
    path = folder / "rubric.toml"
    path.write_text(RUBRIC.format(second=second), "utf-8")
    return path


def test_each_audience_sees_what_those_before_it_see(tmp_path: Path) -> None:
    questions = load(rubric(tmp_path))
    seen = {
        audience: {question.id: question.checks for question in seen_by(questions, audience)} for audience in AUDIENCES
    }
    assert seen["student"] == {"a": {"first": 2}}
    assert seen["after_due"] == {"a": {"first": 2, "second": 1.5}}
    assert seen["ta"] == seen["after_due"] | {"b": {"third": 3}}
    assert [question.hints_after for question in questions] == [2, 0]


def test_an_unknown_audience_is_an_error_in_words(tmp_path: Path) -> None:
    with pytest.raises(RubricError, match="everybody is no visibility; there are student, after_due, ta"):
        load(rubric(tmp_path, "everybody"))


def test_every_question_with_a_block_has_a_hidden_check_worth_points() -> None:
    for question in load():
        hidden = {name: points for name, points in question.checks.items() if question.audiences[name] != "student"}
        assert bool(hidden) == (not question.needs), question.id
        assert all(points > 0 for points in hidden.values())


def test_hidden_checks_are_those_that_the_release_leaves_out() -> None:
    hidden = {f"{q.id}/{name}" for q in load() for name, audience in q.audiences.items() if audience != "student"}
    assert hidden == {check.id for check in load_checks().values() if ".hidden." in check.function.__module__}


def test_hints_open_after_as_many_attempts_as_asked_for(handout: Submission, graded: Graded) -> None:
    result = graded(filled(handout, "2.1a", HALF), "2.1a")
    waiting = [replace(QUESTIONS["2.1a"], hints_after=2)]
    hints = {
        attempt: {check.hint for check in hold_back_hints(result, waiting, attempt).questions[0].checks} - {""}
        for attempt in (1, 2, 3, None)
    }
    assert hints[1] == {"A hint opens with attempt 3; this is attempt 1."}
    assert hints[2] == {"A hint opens with attempt 3; this is attempt 2."}
    assert hints[3] == hints[None] == {"The factor 1/2 of the KL divergence is missing."}


@pytest.mark.parametrize(("audience", "points"), [("student", 8), ("after_due", 9), ("ta", 9)])
def test_make_grade_for_an_audience(solution: Submission, tmp_path: Path, audience: str, points: int) -> None:
    folder, results = write(tmp_path / "mine", solution), tmp_path / "results.json"
    arguments = ["grade", str(folder), "--only", "2.1a", "--results", str(results), "--audience", audience]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert f"Score: {points} of {points} points" in done.output


def test_the_readme_names_every_audience() -> None:
    text = (REPOSITORY / "README.md").read_text("utf-8")
    assert all(f"`{audience}`" in text for audience in AUDIENCES)


def test_markdown_says_what_failed_and_keeps_student_text_in_fences(handout: Submission, graded: Graded) -> None:
    loud = 'kl_divergence = mu.flatten(1).sum(1)\nraise ValueError("</p> ```\\n# A title of their own")'
    result = replace(graded(filled(handout, "2.1a", loud), "2.1a"), notes=["`loss.py` was ``changed``"])
    said = as_markdown(result)
    titles = [line for line in outside_fences(said) if line.startswith("#")]
    assert titles == [f"# 0 of {result.max_score:g} points", titles[1], "## Notes"]
    assert titles[1].startswith("## 2.1a KL divergence: 0 of")
    assert "# A title of their own" in said
    assert fenced("a ```` b", 2) == "  `````text\n  a ```` b\n  `````"


def outside_fences(text: str) -> list[str]:
    """The lines of Markdown that are in no fence."""
    found, fence = [], ""
    for line in text.splitlines():
        opening = line.strip()
        if fence:
            fence = "" if opening == fence else fence
        elif opening.startswith("```"):
            fence = opening.removesuffix("text")
        else:
            found.append(line)
    return found

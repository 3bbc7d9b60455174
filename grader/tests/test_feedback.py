"""Who sees what: audiences of checks, and hints that open after some attempts."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from grader.assignment import REPOSITORY
from grader.cli import app
from grader.grading import load_checks
from grader.report.attempts import FILE, count_attempts, read_history
from grader.report.console import print_result
from grader.report.feedback import as_markdown, as_text, fenced, hold_back_hints, visible_to
from grader.report.html import render
from grader.report.result import CheckResult, QuestionResult, Result
from grader.rubric import AUDIENCES, RubricError, load, seen_by
from grader.submission import Submission

from .conftest import QUESTIONS, Graded, filled, write
from .test_html import Page

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


def made(name: str, status: str, message: str, where: str = "", hint: str = "") -> CheckResult:
    """A check that ended in some way."""
    return CheckResult(name, f"title of {name}", status, 0, 1, message, hint, 0.1, "student", where)


def result_of(*questions: QuestionResult) -> Result:
    """A result with some questions."""
    score, most = (sum(getattr(each, name) for each in questions) for name in ("score", "max_score"))
    return Result(1, "anna", 0, "cpu", {}, {}, score, most, 0, 1.0, [], "", list(questions))


def printed(result: Result, everything: bool = False) -> str:
    """What the terminal shows."""
    console = Console(record=True, width=120, file=io.StringIO())
    print_result(result, console, everything)
    return console.export_text()


def in_order(text: str, *parts: str) -> bool:
    """Whether a text has some parts one after the other."""
    places = [text.find(part) for part in parts]
    return -1 not in places and places == sorted(places)


def shown_at_home(handout: Submission, folder: Path, code: str, *options: str) -> str:
    """What `make grade` prints and writes where students are at home."""
    submission, results = write(folder / "mine", filled(handout, "3.5c", code)), folder / "results.json"
    arguments = ["grade", str(submission), "--only", "3.5c", "--results", str(results), "--audience", "student"]
    done = CliRunner().invoke(app, [*arguments, *options], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    return done.output + results.read_text("utf-8")


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
    assert hints[1] == hints[2] == set()
    assert hints[3] == hints[None] == {"The factor 1/2 of the KL divergence is missing."}
    later = {
        attempt: {check.later for check in hold_back_hints(result, waiting, attempt).questions[0].checks} - {""}
        for attempt in (1, 2, 3)
    }
    assert later[1] == {"Attempt 3, 2 after this one, says what the mistake is."}
    assert later[2] == {"The next attempt says what the mistake is."}
    assert later[3] == set()


def test_where_a_mistake_is_and_what_it_is_open_one_after_the_other() -> None:
    checks = [
        made("a/wrong", "wrong", "measured", where="the term of mu", hint="The sign is wrong."),
        made("a/raises", "error", "raised", hint="Delete the line that raises."),
    ]
    result = result_of(QuestionResult("a", "A", 0, 2, "wrong", checks))
    waiting = [replace(QUESTIONS["2.1a"], id="a", where_after=1, hints_after=3)]
    said = {}
    for attempt in (1, 2, 3, 4):
        wrong, raises = hold_back_hints(result, waiting, {"a": attempt}).questions[0].checks
        said[attempt] = [wrong.message, wrong.where, wrong.hint, wrong.later]
        assert raises == checks[1]
    assert said == {
        1: ["measured", "", "", "The next attempt shows where."],
        2: ["measured", "the term of mu", "", "Attempt 4, 2 after this one, says what the mistake is."],
        3: ["measured", "the term of mu", "", "The next attempt says what the mistake is."],
        4: ["measured", "the term of mu", "The sign is wrong.", ""],
    }
    assert hold_back_hints(result, waiting, {}) == result


def test_what_is_known_best_comes_first_and_all_shows_all() -> None:
    checks = [
        made("a/1", "wrong", "first message"),
        made("a/2", "wrong", "second message"),
        made("a/3", "wrong", "third message", where="at the last step"),
        made("a/4", "not_attempted", "Question 2.1a is not filled in."),
        made("a/5", "wrong", "fifth message", hint="The factor 1/2 is missing."),
        made("a/6", "wrong", "sixth message", hint="The factor 1/2 is missing."),
        made("a/7", "passed", ""),
    ]
    result = result_of(QuestionResult("a", "A", 1, 7, "wrong", checks))
    assert [[check.id for check in group] for group in result.questions[0].reasons] == [
        ["a/5", "a/6"], ["a/3"], ["a/1"], ["a/2"],
    ]  # fmt: skip
    short, long = printed(result), printed(result, everything=True)
    assert in_order(short, "fifth", "1/2", "third", "at the last step", "first", "Question 2.1a is not filled in")
    assert "1 more reason: `make grade ALL=yes` shows all" in short
    assert not [word for word in ("second", "sixth") if word in short]
    assert in_order(long, "fifth", "sixth", "1/2", "third", "at the last step", "first", "second message")
    assert long.count("1/2") == 1
    assert "more reason" not in long
    for text in (as_text(result), as_markdown(result), Page(render(result)).text):
        assert in_order(text, "1/2", "last step", "first message", "second message")
        assert "Question 2.1a is not filled in." in text


@pytest.mark.parametrize(
    ("message", "shown"),
    [("The block is empty.", False), ("Block 1.1c is empty.", False), ("Delete the line that raises, line 53.", True)],
)
def test_a_question_that_was_not_attempted_says_why_where_that_is_news(message: str, shown: bool) -> None:
    result = result_of(QuestionResult("a", "A", 0, 1, "not_attempted", [made("a/1", "not_attempted", message)]))
    assert [message in said for said in (printed(result), as_text(result), as_markdown(result))] == [shown] * 3
    partly = [made("a/1", "not_attempted", message), made("a/2", "passed", "")]
    assert message in printed(result_of(QuestionResult("a", "A", 1, 2, "not_attempted", partly)))


def test_notes_are_shown_once_above_the_score() -> None:
    result = replace(result_of(QuestionResult("a", "A", 1, 1, "passed", [])), notes=["one", "two", "one"])
    assert printed(result).splitlines()[-3:] == ["note: one", "note: two", "Score: 1 of 1 points"]
    assert [as_text(result).count("one"), as_markdown(result).count("one")] == [1, 1]
    assert Page(render(result)).text.count("\none\n") == 1


def test_points_that_are_earned_after_the_due_date_are_said() -> None:
    (question,) = seen_by([QUESTIONS["2.1a"]], "student")
    assert (question.points, question.points_later) == (8, 1)
    assert [seen_by([QUESTIONS["2.1a"]], audience)[0].points_later for audience in AUDIENCES[1:]] == [0, 0]
    checks = [made("2.1a/x", "passed", "")]
    result = result_of(QuestionResult("2.1a", "KL divergence", 8, 8, "passed", checks, points_later=1))
    for text in (printed(result), as_text(result), as_markdown(result), Page(render(result)).text):
        assert text.count("8 of 9 points; 1 more after the due date") >= 2  # of the question, and of all
    assert "8 / 9" in printed(result)


# ---------------------------------------------------------------- attempts at home


def test_an_attempt_is_a_change_of_the_block_that_did_not_pass(handout: Submission, tmp_path: Path) -> None:
    questions = [QUESTIONS["2.1a"], QUESTIONS["2.2a"]]
    tries = [HALF, HALF, f"# again\n\n{HALF}  ", f"{HALF} * 3", HALF, f"{HALF} * 4"]
    counted = []
    for code in tries:
        submission = filled(handout, "2.1a", code)
        result = result_of(*(QuestionResult(each, "", 0, 1, "wrong", []) for each in ("2.1a",)))
        counted.append(count_attempts(tmp_path, submission, questions, result))
    assert counted == [{"2.1a": n} for n in (1, 1, 1, 2, 2, 3)]
    for status in ("passed", "not_attempted", "skipped", "grader_error"):
        result = result_of(QuestionResult("2.1a", "", 0, 1, status, []))
        assert count_attempts(tmp_path, filled(handout, "2.1a", f"{HALF} * 5"), questions, result) == {}
    assert list(json.loads((tmp_path / FILE).read_text("utf-8"))["tried"]) == ["2.1a"]


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"\xff\xfe", b"[]", b"null", b'{"schema": 2, "tried": {}}', b'{"schema": 1, "tried": [1]}',
        b'{"schema": 1, "tried": {"2.1a": 3}}', b'{"schema": 1, "tried": {"2.1a": [3]}}', b'{"schema": 1}',
        b"[" * 100_000, b" " * (2 << 20), b'{"schema": 1, "tried": {"2.1a": ["\\ud800"]}}'[:-3],
    ],
)  # fmt: skip
def test_a_damaged_history_is_begun_again(handout: Submission, tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    result = result_of(QuestionResult("2.1a", "", 0, 1, "wrong", []))
    submission = filled(handout, "2.1a", HALF)
    assert count_attempts(tmp_path, submission, [QUESTIONS["2.1a"]], result) == {"2.1a": 1}
    assert read_history(tmp_path / FILE)


def test_a_history_that_cannot_be_written_ends_no_grading(handout: Submission, tmp_path: Path) -> None:
    result = result_of(QuestionResult("2.1a", "", 0, 1, "wrong", []))
    (tmp_path / FILE).mkdir()
    for folder in (tmp_path, tmp_path / "nowhere"):
        assert count_attempts(folder, handout, [QUESTIONS["2.1a"]], result) == {"2.1a": 1}


def test_hints_open_by_attempts_at_home(handout: Submission, tmp_path: Path) -> None:
    """The hint of this mistake is what 3.5c asks for."""
    snr = "snr = self.alphas_cumprod[t] / (1 - self.alphas_cumprod[t])\n"
    codes = [snr + f"return snr.clamp(max=gamma) / snr{same}" for same in ("", " * 1", " / 1")]
    said = [shown_at_home(handout, tmp_path, code) for code in codes]
    answer = "This is the weight of an error of the noise"
    assert [answer in each for each in said] == [False, False, True]
    assert "Attempt 3, 2 after this one, says what the mistake is." in said[0]
    assert "The next attempt says what the mistake is." in said[1]
    assert " attempt " not in said[2]
    assert answer not in shown_at_home(handout, tmp_path, codes[0], "--attempt", "1")


def test_hints_that_answer_their_question_wait() -> None:
    waiting = {question.id for question in load() if question.hints_after}
    assert waiting == {"3.5b", "3.5c"}
    assert all(question.where_after < question.hints_after for question in load() if question.id in waiting)


@pytest.mark.parametrize(
    ("audience", "score"),
    [("student", "8 of 9 points; 1 more after the due date"), ("after_due", "9 of 9 points"), ("ta", "9 of 9 points")],
)
def test_make_grade_for_an_audience(solution: Submission, tmp_path: Path, audience: str, score: str) -> None:
    folder, results = write(tmp_path / "mine", solution), tmp_path / "results.json"
    arguments = ["grade", str(folder), "--only", "2.1a", "--results", str(results), "--audience", audience]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert f"Score: {score}\n" in done.output
    assert not (tmp_path / FILE).exists()


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


def test_what_is_printed_during_hidden_checks_is_not_for_students(handout: Submission, graded: Graded) -> None:
    """Checks that fewer people may see run after the others, so that nothing printed before them knows their inputs."""
    code = "print('saw', [round(x, 4) for x in fake.flatten().tolist()])\nloss = -fake.mean()"
    result = graded(filled(handout, "2.2b", code), "2.2b")
    seen = visible_to(result, "student")
    assert result.output.startswith(seen.output)
    assert 0 < seen.output.count("saw") < result.output.count("saw")
    assert seen.outputs == {}
    assert visible_to(result, "after_due").output == result.output

"""Any encoding of the output will do, and what a submission prints or raises ends no grading."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from grader.assignment import REPOSITORY
from grader.report.feedback import as_markdown, as_text
from grader.report.gradescope import as_json, to_gradescope
from grader.report.html import render
from grader.report.result import write_whole
from grader.submission import Submission

from .conftest import Graded, filled, write

ODD = "\u2500\u2502 \u202e \ud800 \udcff caf\xe9 \u4f60 \x1b[31m"
ENCODINGS = ["ascii", "cp1252", "gbk", "utf-8", "utf-16"]


@pytest.fixture
def odd(handout: Submission) -> Submission:
    """A submission that prints and raises characters which encodings lack, by every way to a message."""
    text = ascii(ODD)
    submission = filled(handout, "2.1a", f"print({text})\nraise ValueError({text})")
    submission = filled(submission, "2.2b", f"class E(Exception): __str__ = lambda self: {text}\nraise E")
    submission = filled(submission, "2.2a", f"loss = {text}")
    submission = filled(submission, "1.2", f"return {{{text}: x}}[{text} + 'x']")
    return filled(submission, "2.3b", f"img = denoise_fn(**{{{text}: 1}})")


def run(*arguments: str, encoding: str = "", **environment: str) -> subprocess.CompletedProcess:
    """Run a module in a process of its own, whose streams have the encoding."""
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONIOENCODING": encoding, "COLUMNS": "100"} | environment,
        capture_output=True,
        timeout=200,
    )


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_no_character_ends_a_grading_whatever_the_encoding(odd: Submission, tmp_path: Path, encoding: str) -> None:
    folder, results = write(tmp_path / "anna", odd), tmp_path / "r.json"
    places = ["--results", str(results), "--html", str(tmp_path / "r.html")]
    done = run("grader", "grade", str(folder), "--only", "1.2,2.1a,2.2,2.3b", *places, encoding=encoding)
    assert (done.returncode, done.stderr) == (0, b"")
    said = done.stdout.decode(encoding)
    assert "Score: 0 of " in said
    assert ("\u2501" in said) == encoding.startswith("utf")
    assert ("+--" in said) != encoding.startswith("utf")
    questions = json.loads(results.read_text("utf-8"))["questions"]
    messages = " ".join(check["message"] for question in questions for check in question["checks"])
    assert "\\ud800" in messages
    assert messages.encode("utf-8")
    assert not {"grader_error", "passed"} & {question["status"] for question in questions}
    assert "\\ud800" in (tmp_path / "r.html").read_text("utf-8")


def test_results_are_whole_where_the_locale_is_c(odd: Submission, tmp_path: Path) -> None:
    folder, results = write(tmp_path / "anna", odd), tmp_path / "r.json"
    plain = {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = run("grader", "grade", str(folder), "--only", "2.1a", "--results", str(results), **plain)
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(results.read_text("utf-8"))["questions"][0]["status"] == "error"


def test_what_students_and_instructors_read_can_be_written(odd: Submission, graded: Graded, tmp_path: Path) -> None:
    result = graded(odd, "1.2", "2.1a", "2.2a", "2.2b", "2.3b")
    fields = to_gradescope(result, [])
    for text in (result.to_json(), render(result), as_text(result), as_markdown(result), as_json(fields)):
        assert text.encode("utf-8")
    write_whole(tmp_path / "grades.csv", [f"{ODD},1\n"])  # a name, say, that no file system can have
    assert (tmp_path / "grades.csv").read_text("utf-8").endswith("caf\xe9 \u4f60 \x1b[31m,1\n")


@pytest.mark.parametrize("encoding", ENCODINGS[:3])
@pytest.mark.parametrize(
    "command",
    [
        ["grader", "doctor"],
        ["grader", "--help"],
        ["grader", "batch", "nowhere-\u4f60"],
        ["grader.selfcheck", "--help"],
    ],
    ids=lambda words: " ".join(words[:2]).replace("grader ", ""),
)
def test_no_command_needs_an_encoding(command: list[str], encoding: str) -> None:
    done = run(*command, encoding=encoding)
    assert b"Traceback" not in done.stderr
    assert done.returncode == (2 if "batch" in command else 0), done.stderr
    assert (done.stdout or done.stderr).decode(encoding)


@pytest.mark.parametrize("command", [["grade", "solution", "--only", "2.2b", "--no-training"], ["doctor"]])
def test_a_reader_that_leaves_is_no_error(tmp_path: Path, command: list[str]) -> None:
    """As `make grade | head -3` is: what is not read is not printed, and nothing is said about it."""
    results = tmp_path / "r.json"
    options = ["--results", str(results), "--fail-under", "100"] if "grade" in command else []
    ours, theirs = os.pipe()
    os.close(ours)
    words = [sys.executable, "-m", "grader", *command, *options]
    done = subprocess.run(words, cwd=REPOSITORY, stdout=theirs, stderr=subprocess.PIPE, timeout=200)
    with suppress(OSError):
        os.close(theirs)
    assert (done.returncode, done.stderr) == (1 if options else 0, b"")
    assert results.exists() == bool(options)

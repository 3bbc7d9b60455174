"""What the tests of the grader share: one launcher, and submissions made from the handout or the solution."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from grader.assignment import HANDOUT, SOLUTION
from grader.checks.runner import Check, Outcome
from grader.engine.launcher import OPTIMIZERS, ZygoteLauncher
from grader.grading import grade, load_checks
from grader.report.result import QuestionResult, Result
from grader.rubric import Question, load
from grader.submission import Submission, read

NEED = {  # tests that cannot even be read without a package, which a machine lent for its GPU may lack
    "test_selfcheck.py": "libcst",
    "test_similarity.py": "rapidfuzz",
    "test_class_page.py": "rapidfuzz",
    "test_hostile_class.py": "rapidfuzz",
    "test_cluster.py": "distributed",
}
collect_ignore = [file for file, package in NEED.items() if find_spec(package) is None]

torch.set_num_threads(1)
QUESTIONS = {question.id: question for question in load()}
EXACT = [question for question in QUESTIONS.values() if not question.needs]
REQUIRED_POINTS, BONUS_POINTS = (sum(q.points for q in EXACT if q.optional == bonus) for bonus in (False, True))
Graded = Callable[..., Result]


def pytest_report_header() -> list[str]:
    """Say which files are left out, and why."""
    return [f"{file} is left out: {NEED[file]} is not installed (make test installs it)" for file in collect_ignore]


@pytest.fixture(scope="session")
def launcher() -> Iterator[ZygoteLauncher]:
    """A zygote that serves the whole test run."""
    with_torch = ZygoteLauncher()
    with_torch.require(OPTIMIZERS)
    yield with_torch
    with_torch.close()


@pytest.fixture(scope="session")
def solution() -> Submission:
    """The solution, as a submission."""
    return read(SOLUTION)


@pytest.fixture(scope="session")
def handout() -> Submission:
    """The handout, as a submission."""
    return read(HANDOUT)


@pytest.fixture(scope="session")
def solved() -> Iterator[SimpleNamespace]:
    """The modules of the solution, under the names students import them by."""
    names = sorted(path.stem for path in SOLUTION.glob("*.py"))
    sys.path.insert(0, str(SOLUTION))
    try:
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in names})
    finally:
        sys.path.remove(str(SOLUTION))
        for name in names:
            sys.modules.pop(name, None)


def with_source(submission: Submission, file: str, source: str | bytes) -> Submission:
    """`submission` with one file replaced."""
    data = source.encode() if isinstance(source, str) else source
    return replace(submission, sources=submission.sources | {file: data})


def filled(submission: Submission, question: str, code: str | Mapping[str, str]) -> Submission:
    """`submission` with the block of a question filled with `code`, or several blocks by name."""
    return submission.filled(QUESTIONS[question].file, {question: code} if isinstance(code, str) else code)


@pytest.fixture
def graded(launcher: ZygoteLauncher) -> Graded:
    """Grades a submission on some questions, by default all but those that train, with the same seed every time."""

    def run(submission: Submission, *questions: str, seed: int = 0, **options: Any) -> Result:
        chosen: list[Question] = [QUESTIONS[q] for q in questions] or EXACT
        return grade(submission, chosen, launcher, seed, **options)

    return run


def by_id(result: Result) -> dict[str, QuestionResult]:
    """The questions of a result by id."""
    return {question.id: question for question in result.questions}


def run_check(check_id: str, submission: Submission, launcher: ZygoteLauncher, seed: int = 0) -> Outcome:
    """Run one check on a submission."""
    from grader.grading import session

    check: Check = load_checks()[check_id]
    with session(submission, [QUESTIONS[check.question]], launcher, seed) as current:
        return current.run(check)


def write(folder: Path, submission: Submission) -> Path:
    """Write a submission's files into a folder, as a student hands them in."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in submission.sources.items():
        (folder / name).write_bytes(source)
    return folder

"""Lets pytest run the checks like any tests: `pytest grader/checks -k 2.1a` grades SUBMISSION, or the solution."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .draw import Draw

if TYPE_CHECKING:
    from grader.engine.student import Student
    from grader.grading import Session


@pytest.fixture(scope="session")
def grading() -> Iterator[Session]:
    """The submission that is graded, with the seed and the checks of `make grade`."""
    from grader.assignment import HANDOUT, SOLUTION
    from grader.engine.launcher import default_launcher
    from grader.grading import session
    from grader.rubric import PUBLIC_SEED, load
    from grader.submission import read

    folder = Path(os.environ.get("SUBMISSION") or (SOLUTION if SOLUTION.is_dir() else HANDOUT))
    with closing(default_launcher()) as launcher, session(read(folder), load(), launcher, PUBLIC_SEED) as current:
        yield current


@pytest.fixture
def student(grading: Session) -> Student:
    """What a check asks."""
    return grading.student


@pytest.fixture
def draw(grading: Session, request: pytest.FixtureRequest) -> Draw:
    """The inputs of a check."""
    return Draw(grading.seed, request.function.check.id)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """Put the checks in the order of `make grade`, and have -k find them by their question."""
    from grader.grading import in_order
    from grader.rubric import load

    place = {check.id: number for number, check in enumerate(in_order(load()))}
    checks = [item for item in items if hasattr(getattr(item, "obj", None), "check")]
    for item in checks:
        item.extra_keyword_matches.add(item.obj.check.question)
        item.add_marker(pytest.mark.filterwarnings("default"))
    others = [item for item in items if item not in checks]
    items[:] = others + sorted(checks, key=lambda item: place.get(item.obj.check.id, len(place)))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool:
    """Run a check as `make grade` does, and tell pytest how it ended."""
    grading: Session = pyfuncitem.funcargs["grading"]  # type: ignore[assignment]
    outcome = grading.run(pyfuncitem.obj.check)
    said = "\n".join(filter(None, (f"{outcome.status}: {outcome.message}", outcome.where, outcome.hint)))
    if outcome.status in ("skipped", "not_attempted"):
        pytest.skip(said)
    if outcome.status != "passed":
        pytest.fail(said, pytrace=False)
    return True

"""Runs the checks of one submission under pytest.

pytest sees only grader/checks: no configuration, plugin or file of the submission or of the machine.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any
from unittest.mock import patch

import pytest

from .checks.draw import Draw
from .checks.runner import Check
from .engine.launcher import Launcher, StartError
from .engine.student import Student
from .grading import CHECKS_FOLDER, Session, in_order, session
from .report.result import Result
from .rubric import Question
from .submission import Submission

OPTIONS = (
    *("-c", os.devnull, f"--rootdir={CHECKS_FOLDER}", f"--confcutdir={CHECKS_FOLDER}"),
    *("-p", "no:cacheprovider", "--capture=no"),
)
FOREIGN = ("PYTEST_ADDOPTS", "PYTEST_PLUGINS")


class Interrupted(Exception):
    """The checks did not run to their end; the message says why."""


class ChecksPlugin:
    """Lets pytest run the checks of a session: picks them, gives them their fixtures, records how they end."""

    def __init__(self, current: Session, progress: Callable[[Check], None]):
        self.current = current
        self.progress = progress
        self.start_error: StartError | None = None
        self.wanted = {check.id: n for n, check in enumerate(in_order(current.questions))}

    @pytest.fixture
    def student(self) -> Student:
        """The submission."""
        return self.current.student

    @pytest.fixture
    def draw(self, request: pytest.FixtureRequest) -> Draw:
        """The inputs of one check."""
        return Draw(self.current.seed, request.function.check.id)

    def pytest_collection_modifyitems(self, items: list[pytest.Function]) -> None:
        """Keep the checks of the questions asked for, in the order to run them."""
        kept = [item for item in items if item.obj.check.id in self.wanted]
        items[:] = sorted(kept, key=lambda item: self.wanted[item.obj.check.id])

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> bool:
        """Run a check as the batch does, and tell pytest how it ended."""
        check = pyfuncitem.obj.check
        self.progress(check)
        try:
            outcome = self.current.run(check)
        except StartError as error:
            self.start_error = error
            pytest.exit(str(error))
        if outcome.status != "passed":
            pytest.fail(f"{outcome.status}: {outcome.message}", pytrace=False)
        return True


@contextmanager
def _no_foreign_plugins() -> Iterator[None]:
    """Keep pytest plugins that happen to be installed, and options in the environment, out of the grading."""
    without = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    with patch.dict(os.environ, without | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}, clear=True):
        yield


def run_pytest(
    submission: Submission,
    questions: list[Question],
    launcher: Launcher,
    seed: int,
    progress: Callable[[Check], None] = lambda check: None,
    **options: Any,
) -> Result:
    """Grade a submission under pytest.

    Raises:
        StartError: if no worker starts.
        Interrupted: if somebody stopped it, or pytest failed.
    """
    with session(submission, questions, launcher, seed, **options) as current:
        printed = io.StringIO()
        with _no_foreign_plugins(), redirect_stdout(printed):
            plugin = ChecksPlugin(current, progress)
            status = pytest.main([*OPTIONS, str(CHECKS_FOLDER)], plugins=[plugin])
        if plugin.start_error is not None:
            raise plugin.start_error
        if status == pytest.ExitCode.INTERRUPTED:
            raise Interrupted("stopped before the checks were through; no results were written")
        if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            raise Interrupted(f"pytest could not run the checks: {printed.getvalue().strip()[-1000:]}")
        return current.result()

"""`make watch`: what changed is graded again, and nothing else; half-written files are waited for."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from grader.assignment import REPOSITORY
from grader.engine.launcher import ZygoteLauncher
from grader.rubric import select
from grader.submission import Submission
from grader.watch import Report, Watch, show

from .conftest import QUESTIONS, filled, write

RIGHT = "kl_divergence = 0.5 * (mu**2 + torch.exp(logvar) - 1 - logvar).flatten(1).sum(1)"
TWICE = "kl_divergence = (mu**2 + torch.exp(logvar) - 1 - logvar).flatten(1).sum(1)"


@pytest.fixture
def watched(handout: Submission, launcher: ZygoteLauncher, tmp_path: Path) -> Watch:
    """A handout with 2.2b right, of which 2.1a, 2.2a and 2.2b are watched, and which was looked at once."""
    folder = write(tmp_path / "mine", filled(handout, "2.2b", "loss = -fake"))
    made = Watch(folder, select(list(QUESTIONS.values()), "2.1a,2.2"), launcher, 0)
    assert graded(made.look()) == {"2.1a": "not_attempted", "2.2a": "not_attempted", "2.2b": "passed"}
    return made


def graded(report: Report | None) -> dict[str, str]:
    assert report is not None
    assert report.result is not None, report.problem
    return {question.id: question.status for question in report.result.questions}


def edit(watched: Watch, question: str, code: str) -> None:
    """Save a block with other code in it."""
    from grader.submission import read

    write(watched.folder, filled(read(watched.folder), question, code))


def test_only_what_changed_is_graded_again_and_the_news_is_said(watched: Watch) -> None:
    assert watched.look() is None
    edit(watched, "2.1a", TWICE)
    report = watched.look()
    assert graded(report) == {"2.1a": "wrong"}
    edit(watched, "2.1a", RIGHT)
    report = watched.look()
    assert graded(report) == {"2.1a": "passed"}
    assert all(sentence.startswith("Now right: 2.1a, ") for sentence in report.news)  # type: ignore[union-attr]
    assert len(report.news) >= 5  # type: ignore[union-attr]
    edit(watched, "2.1a", TWICE)
    report = watched.look()
    assert any(sentence.startswith("Not right any longer: 2.1a, ") for sentence in report.news)  # type: ignore[union-attr]


def test_code_outside_of_blocks_concerns_every_question(watched: Watch) -> None:
    path = watched.folder / "loss.py"
    path.write_text(path.read_text("utf-8").replace("import torch\n", "import torch\n\nHALF = 0.5\n", 1), "utf-8")
    assert set(graded(watched.look())) == {"2.1a", "2.2a", "2.2b"}


def test_a_half_written_file_is_waited_for(watched: Watch) -> None:
    path = watched.folder / "loss.py"
    whole = path.read_text("utf-8")
    path.write_text(whole.replace("loss = -fake", "loss = -(fake"), "utf-8")
    report = watched.look()
    assert report is not None
    assert report.result is None
    assert report.problem.startswith("loss.py, line ")
    assert report.problem.endswith("The next save is awaited.")
    path.write_text(whole, "utf-8")
    assert watched.look() is None
    path.unlink()
    assert graded(watched.look()) == {"2.1a": "error", "2.2a": "error", "2.2b": "error"}


def test_code_outside_is_told_from_a_block_that_says_the_same(watched: Watch) -> None:
    path = watched.folder / "loss.py"
    path.write_text("loss = -fake\n" + path.read_text("utf-8"), "utf-8")
    watched.look()
    edit(watched, "2.2b", "loss = fake")
    assert graded(watched.look()) == {"2.2b": "wrong"}


def test_deep_nesting_is_waited_for(watched: Watch) -> None:
    path = watched.folder / "loss.py"
    path.write_text(path.read_text("utf-8") + f"\nx = {'-' * 20_000}1\n", "utf-8")
    report = watched.look()
    assert report is not None
    assert report.problem.startswith("loss.py")


def test_what_code_does_to_its_process_does_not_end_the_watch(watched: Watch) -> None:
    edit(watched, "2.2b", "import os\nos._exit(3)")
    assert graded(watched.look()) == {"2.2b": "crashed"}
    edit(watched, "2.2b", "loss = -fake")
    assert graded(watched.look()) == {"2.2b": "passed"}


def test_the_screen_is_cleared_on_a_terminal_only(watched: Watch) -> None:
    edit(watched, "2.1a", RIGHT)
    report = watched.look()
    assert report is not None
    for terminal in (True, False):
        printed = io.StringIO()
        show(report, Console(file=printed, force_terminal=terminal, width=100, highlight=False))
        assert printed.getvalue().startswith("\x1b[2J") == terminal
        assert "Now right: 2.1a" in printed.getvalue()


def test_the_command_grades_at_every_save_and_ends_with_ctrl_c(handout: Submission, tmp_path: Path) -> None:
    pytest.importorskip("watchfiles", reason="watchfiles tells of saved files")
    folder = write(tmp_path / "mine", handout)
    command = [sys.executable, "-u", "-m", "grader", "watch", str(folder), "--only", "2.2b"]
    running = subprocess.Popen(
        command,
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which tests in the background ignore
    )
    try:
        wait_for(running, "Ctrl-C ends")
        time.sleep(1)  # the watcher starts after the first verdict
        write(folder, filled(handout, "2.2b", "loss = -fake"))
        wait_for(running, "Now right: 2.2b")
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == 0
    finally:
        running.kill()
        running.communicate()


def wait_for(running: subprocess.Popen[str], text: str) -> None:
    """Read what a process prints up to a line with a text in it."""
    assert running.stdout is not None
    said = []
    for line in running.stdout:
        said.append(line)
        if text in line:
            return
    raise AssertionError(f"{text} was not said: {said}")

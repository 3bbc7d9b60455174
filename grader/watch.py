"""Grades a submission again whenever a file of it is saved: only the questions whose code has changed.

torch and the process that starts workers stay loaded, so that a verdict on one question takes a fraction of a second.
"""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console
from rich.text import Text

from . import blocks
from .engine.launcher import Launcher
from .grading import grade
from .report.attempts import code_hash, count_attempts
from .report.console import print_result
from .report.feedback import hold_back_hints
from .report.result import CheckResult, Result
from .rubric import Question
from .submission import Submission, SubmissionError, read

QUIET_MILLISECONDS = 50  # without another event, after which a save is over
CLEAR = "\x1b[2J\x1b[H"
Verdicts = dict[str, CheckResult]  # by the id of a check


@dataclass
class Watch:
    """A submission that is being edited.

    Attributes:
        folder: where it is.
        questions: those to grade.
        launcher: starts the workers.
        seed: of the inputs that the checks draw.
        training: whether to train models as well.
        history: the folder that remembers attempts, by which hints open; None to show everything.
        graded: the code of each question at its last verdict, as a hash.
        verdicts: the last of each check.
    """

    folder: Path
    questions: Sequence[Question]
    launcher: Launcher
    seed: int
    training: bool = False
    history: Path | None = None
    graded: dict[str, str] = field(default_factory=dict)
    verdicts: Verdicts = field(default_factory=dict)

    def look(self) -> Report | None:
        """Grade what has changed since the last look; None where nothing has. Raises StartError."""
        try:
            submission = read(self.folder)
        except SubmissionError as error:
            return Report(str(error))
        broken = next(syntax_errors(submission), "")
        if broken:
            return Report(f"{broken} The next save is awaited.")
        codes = {question.id: code_of(submission, question) for question in self.questions}
        changed = [question for question in self.questions if codes[question.id] != self.graded.get(question.id)]
        if not changed:
            return None
        started = time.perf_counter()
        result = grade(submission, changed, self.launcher, self.seed, training=self.training)
        if self.history is not None:
            result = hold_back_hints(result, changed, count_attempts(self.history, submission, changed, result))
        self.graded |= {question.id: codes[question.id] for question in changed}
        found = {check.id: check for question in result.questions for check in question.checks}
        news = what_changed(self.verdicts, found) if self.verdicts else []
        self.verdicts |= found
        return Report("", result, news, time.perf_counter() - started)


@dataclass(frozen=True)
class Report:
    """What a look has found.

    Attributes:
        problem: why nothing was graded, as a sentence, or "".
        result: of the questions that changed.
        news: what is different from the verdicts before, in sentences.
        seconds: that grading took.
    """

    problem: str
    result: Result | None = None
    news: list[str] = field(default_factory=list)
    seconds: float = 0.0


def code_of(submission: Submission, question: Question) -> str:
    """A hash of all that decides about a question: its blocks, and everything outside of blocks."""
    outside = hashlib.sha256()
    for file in sorted(submission.sources):
        lines = blocks.split_lines(submission.text(file) or "")
        for block in sorted(submission.blocks(file).values(), key=lambda block: block.start, reverse=True):
            del lines[block.start : block.end]
        outside.update("\n".join([file, *lines, ""]).encode("utf-8", "replace"))
    return f"{code_hash(submission, question)} {outside.hexdigest()}"


def syntax_errors(submission: Submission) -> Iterator[str]:
    """The files that Python cannot read, as sentences: those that are half written, above all."""
    for file, source in submission.sources.items():
        try:
            with warnings.catch_warnings():  # of an escape sequence, say
                warnings.simplefilter("ignore")
                compile(source, file, "exec", dont_inherit=True)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # the last two of deep nesting
            line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
            yield f"{file}{line}: {getattr(error, 'msg', error)}."


def what_changed(before: Verdicts, now: Verdicts) -> list[str]:
    """Sentences on the checks that pass now, that fail now, and that say something else."""
    passed, failed, other = [], [], []
    for check in now.values():
        old = before.get(check.id)
        if old is None or (old.status, old.message) == (check.status, check.message):
            continue
        if check.status == "passed":
            passed.append(check)
        elif old.status == "passed":
            failed.append(check)
        else:
            other.append(check)
    words = (("Now right", passed), ("Not right any longer", failed), ("Something else is said", other))
    return [f"{what}: {check.id.partition('/')[0]}, {check.title}" for what, checks in words for check in checks]


def show(report: Report, console: Console) -> None:
    """Clear the screen, and print what a look has found."""
    if console.is_terminal:
        console.file.write(CLEAR)
    at = time.strftime("%H:%M:%S")
    if report.result is None:
        console.print(Text(f"{at}  {report.problem}", "yellow"))
        return
    print_result(replace(report.result, isolation={}), console)
    console.print(Text(f"{at}, in {report.seconds:.1f} s"))
    for sentence in report.news:
        console.print(Text(sentence, "green" if sentence.startswith("Now right") else "yellow"))
    if not report.news:
        console.print(Text("Save a file to grade it again; Ctrl-C ends.", "dim"))


def saves(folder: Path, poll: bool) -> Iterable[object]:
    """Something for every time that Python files in a folder are saved, until Ctrl-C."""
    from watchfiles import PythonFilter, watch

    return watch(folder, watch_filter=PythonFilter(), debounce=400, step=QUIET_MILLISECONDS, force_polling=poll or None)

"""Grades one submission: stages it, runs the checks of the questions asked for, makes the result."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .checks.runner import CHECKS, Check, Outcome, run
from .engine.launcher import Launcher
from .engine.student import CALL_SECONDS, WALL_SECONDS, Student
from .report.result import SCHEMA, QuestionResult, Result, environment, question_result
from .rubric import AUDIENCES, Question, RubricError
from .submission import Submission

CHECKS_FOLDER = Path(__file__).with_name("checks")
TORCHVISION = ("torchvision", "torchvision.transforms.v2", "torchvision.utils")
SEEN_OUTPUT = 16 << 10  # characters of what was printed before the checks that an audience may not see
ENDLESS = 2  # time-outs of one question after which its other checks are not run


def _are_empty(blocks: list[str]) -> str:
    """A sentence on blocks that are not filled in."""
    if len(blocks) == 1:
        return f"Block {blocks[0]} is empty."
    return f"Blocks {', '.join(blocks[:-1])} and {blocks[-1]} are empty."


@cache
def load_checks() -> dict[str, Check]:
    """Import every check. Returns them by id."""
    for path in sorted(CHECKS_FOLDER.rglob("test_*.py")):
        module = path.relative_to(CHECKS_FOLDER).with_suffix("")
        importlib.import_module(".".join(["grader.checks", *module.parts]))
    return CHECKS


def checks_of(question: Question) -> list[Check]:
    """The checks of a question, in the rubric's order. Raises RubricError if rubric and checks disagree."""
    found = {check.name: check for check in load_checks().values() if check.question == question.id}
    if odd := sorted(set(question.checks) - set(found) | set(found) - set(question.audiences)):
        raise RubricError(f"rubric.toml and grader/checks disagree on the checks of {question.id}: {', '.join(odd)}")
    return [found[name] for name in question.checks]


def in_order(questions: list[Question]) -> list[Check]:
    """The checks of questions in the order to run them.

    Those that train come last, after all that they need. Those that fewer people may see come after the others, so that
    what student code prints before them holds nothing of their inputs. Then come those that need imports.

    Raises RubricError as `checks_of` does.
    """

    def place(of: tuple[Question, Check]) -> tuple[bool, int, bool]:
        question, check = of
        return bool(question.needs), AUDIENCES.index(question.audiences[check.name]), bool(check.imports)

    pairs = [(question, check) for question in questions for check in checks_of(question)]
    return [check for _, check in sorted(pairs, key=place)]


@dataclass
class Session:
    """One submission being graded: gates each check, runs it, and remembers how it ended."""

    submission: Submission
    questions: list[Question]
    student: Student
    seed: int
    device: str = "cpu"
    training: bool = True
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    started: float = field(default_factory=time.perf_counter)
    printed: dict[str, str] = field(default_factory=dict)  # by audience, before a check ran that it may not see

    def run(self, check: Check) -> Outcome:
        """Run one check, or say why there is nothing to run."""
        question = next(question for question in self.questions if question.id == check.question)
        for audience in AUDIENCES[: AUDIENCES.index(question.audiences[check.name])]:
            if audience not in self.printed:
                self.printed[audience] = self.student.printed()[-SEEN_OUTPUT:]
        outcome = self._gate(check, question) or self._named(run(check, self.student, self.seed), question)
        self.outcomes[check.id] = outcome
        return outcome

    def _gate(self, check: Check, question: Question) -> Outcome | None:
        """An outcome for a check that there is no point in running."""
        if question.needs:
            return self._wait(check, question)
        if question.file not in self.submission.sources:
            why = self.submission.absent.get(question.file, f"{question.file} is missing.")
            hint = f"Hand in {question.file} beside the other files." if " is missing" in why else ""
            return Outcome(check, "error", why, hint)
        if not self.submission.attempted(question):
            return Outcome(check, "not_attempted", _are_empty(self.submission.empty_blocks(question) or [question.id]))
        others = [outcome for outcome in self.outcomes.values() if outcome.check.question == question.id]
        endless = [outcome for outcome in others if outcome.status == "timeout"]
        if len(endless) >= ENDLESS and not self.student.failed_to_import(question.file):
            hint = endless[0].hint
            return Outcome(check, "timeout", "Not run: two checks of this question did not come to an end.", hint)
        return None

    def _named(self, outcome: Outcome, question: Question) -> Outcome:
        """An outcome that says which block of a question is empty, where others of it are filled in."""
        empty = self.submission.empty_blocks(question)
        if outcome.status != "not_attempted" or not empty:
            return outcome
        return replace(outcome, status="error", message=_are_empty(empty))

    def _wait(self, check: Check, question: Question) -> Outcome | None:
        """An outcome for a check of training that is left out, or whose parts are not all right yet."""
        if not self.training:
            return Outcome(check, "skipped", "Left out, as was asked for.")
        before = [outcome for outcome in self.outcomes.values() if outcome.check.question in question.needs]
        waits = {outcome.check.question: outcome.status for outcome in before if outcome.status != "passed"}
        if not waits:
            return None
        names = ", ".join(name for name in question.needs if name in waits)
        if set(waits.values()) == {"not_attempted"}:
            return Outcome(check, "not_attempted", f"Waits for {names}, not filled in yet.")
        return Outcome(check, "skipped", f"Waits for {names}: what is wrong there comes first.")

    def question_results(self) -> list[QuestionResult]:
        """The results so far; a check that left no outcome is the grader's fault."""
        return [
            question_result(
                question,
                [
                    self.outcomes.get(check.id) or Outcome(check, "grader_error", "The check did not run.")
                    for check in checks_of(question)
                ],
            )
            for question in self.questions
        ]

    def _fault_notes(self) -> list[str]:
        """A sentence on each file that could not be imported as a whole."""
        return [
            f"{module}.py cannot be imported: {fault}. Its blocks were graded one by one."
            for module, fault in sorted(self.student.faults.items())
        ]

    def result(self) -> Result:
        """End the worker and make the result."""
        self.student.close()
        questions = self.question_results()
        return Result(
            schema=SCHEMA,
            submission=self.submission.name,
            seed=self.seed,
            device=self.device,
            environment=environment(),
            isolation=self.student.isolation.as_fields() if self.student.isolation.layers else {},
            score=sum(question.score for question in questions),
            max_score=sum(question.max_score for question in questions if not question.optional),
            bonus=sum(question.score for question in questions if question.optional),
            seconds=round(time.perf_counter() - self.started, 3),
            notes=self.submission.notes + self._fault_notes() + self.student.notes,
            output=self.student.output,
            questions=questions,
            outputs=self.printed,
            exhibits={check: outcome.exhibits for check, outcome in self.outcomes.items()},
            problems={check: outcome.problem for check, outcome in self.outcomes.items() if outcome.problem},
        )


def prepared_imports(submission: Submission) -> list[str]:
    """Modules that the student's files mention, and that can only be imported before a worker is closed off."""
    mentioned = any(b"torchvision" in source for source in submission.sources.values())
    return list(TORCHVISION) if mentioned and find_spec("torchvision") is not None else []


@contextmanager
def session(
    submission: Submission,
    questions: list[Question],
    launcher: Launcher,
    seed: int,
    call_seconds: float = CALL_SECONDS,
    wall_seconds: float = WALL_SECONDS,
    training: bool = True,
) -> Iterator[Session]:
    """Stage a submission and be ready to run checks on it.

    Args:
        submission: what a student handed in.
        questions: those to grade.
        launcher: starts the workers.
        seed: of the inputs that the checks draw.
        call_seconds, wall_seconds: longest one call, and all calls together, may take.
        training: whether to train models, which takes seconds each.

    Raises:
        StartError: on leaving, if what starts workers is gone.
    """
    with submission.staged() as folder:
        imports = sorted({name for check in in_order(questions) for name in check.imports})
        student = Student(folder, launcher, call_seconds, wall_seconds, imports, prepared_imports(submission))
        try:
            yield Session(submission, questions, student, seed, launcher.device, training)
        finally:
            student.close()


def grade(
    submission: Submission,
    questions: list[Question],
    launcher: Launcher,
    seed: int,
    progress: Callable[[Check], None] = lambda check: None,
    **options: Any,
) -> Result:
    """Grade a submission: its checks, run one after another. `pytest grader/checks` runs the same.

    `progress` is told each check before it runs; `options` and the rest are those of `session`.

    Raises:
        StartError: if no worker starts.
        RubricError: if rubric and checks disagree.
    """
    with session(submission, questions, launcher, seed, **options) as current:
        for check in in_order(questions):
            progress(check)
            current.run(check)
        return current.result()

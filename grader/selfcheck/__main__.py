"""python -m grader.selfcheck: the checks measured on the bank and on mutants of the solution.

A check is as good as the mistakes it catches. Whatever is right must pass, whatever is wrong must not, no hint may be
untrue, and a mutant that passes must be proved right in equivalent.toml.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Annotated, TypeVar

import torch
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from grader.assignment import HANDOUT
from grader.bank import Filling, load_bank
from grader.checks.runner import Outcome, stumbled
from grader.engine.launcher import OPTIMIZERS, Launcher, default_launcher
from grader.engine.student import CALL_SECONDS
from grader.grading import grade, in_order, session
from grader.rubric import Question, load, select
from grader.streams import prepare_streams
from grader.submission import read

from .diagnoses import Diagnosis, diagnose
from .mutants import Mutant, mutants_of, solution_blocks
from .proofs import ProofError, load_proofs, proved

MUTANT_SECONDS = 2.0  # for a call of a mutant; the solution's take less than a tenth
COLUMNS = ("right", "wrong", "named", "untrue", "mutants", "killed", "proved", "survive")
T = TypeVar("T")


@dataclass
class Tally:
    """What was found about some questions; complaints are about what must not be."""

    right: int = 0
    accepted: int = 0
    wrong: int = 0
    caught: int = 0
    named: int = 0
    untrue: int = 0
    mutants: int = 0
    killed: int = 0
    equivalent: int = 0
    surviving: list[Mutant] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def __add__(self, other: Tally) -> Tally:
        return Tally(**{name: value + getattr(other, name) for name, value in vars(self).items()})

    @property
    def cells(self) -> list[str]:
        """The row of the table."""
        shares = ((self.accepted, self.right), (self.caught, self.wrong), (self.named, self.wrong))
        counts = (self.untrue, self.mutants, self.killed, self.equivalent, len(self.surviving))
        return [*(f"{some}/{every}" for some, every in shares), *map(str, counts)]

    @property
    def sentences(self) -> list[str]:
        """The same in words."""
        return [
            f"right fillings accepted: {self.accepted} of {self.right}",
            f"wrong fillings caught: {self.caught} of {self.wrong}",
            f"wrong fillings whose mistake is named: {self.named} of {self.wrong}",
            f"hints that the bank does not hold to be true: {self.untrue}",
            f"mutants: {self.mutants} made, {self.killed} killed, {self.equivalent} proved equivalent, "
            f"{len(self.surviving)} surviving",
        ]


def count_right(filling: Filling, question: Question, launcher: Launcher, seed: int, tally: Tally) -> None:
    """Grade a right filling, which must lose nothing."""
    result = grade(read(HANDOUT).filled(question.file, filling.blocks), [question], launcher, seed)
    lost = [check for check in result.questions[0].checks if check.status != "passed"]
    tally.right += 1
    tally.accepted += not lost
    tally.complaints += [f"{filling} is rejected by {check.id}: {check.message}" for check in lost]


def count_wrong(diagnosis: Diagnosis, tally: Tally) -> None:
    """Judge what a wrong filling was told: it must lose points, for reasons that are true."""
    filling = diagnosis.filling
    broken = [check for check in diagnosis.failed if stumbled(check.status, check.message)]
    caught = any(check.max_score for check in diagnosis.failed if check not in broken)
    tally.wrong += 1
    tally.caught += caught
    tally.named += diagnosis.named
    tally.untrue += len(diagnosis.untrue)
    tally.complaints += [f"{check.id} breaks on {filling}: {check.message}" for check in broken]
    tally.complaints += [] if caught else [f"{filling} is accepted: {filling.mistake}"]
    tally.complaints += [f"{filling} is given a hint that the bank does not hold: {hint}" for hint in diagnosis.untrue]


def count_mutant(mutant: Mutant, outcome: Outcome | None, is_proved: bool, tally: Tally) -> None:
    """Judge a mutant by the check it failed, if any: one that is proved right must pass, and no other may."""
    tally.mutants += 1
    if outcome is None:
        tally.equivalent += is_proved
        tally.surviving += [] if is_proved else [mutant]
        return
    said = f"{outcome.check.id}: {outcome.message}\n{mutant.diff}"
    if stumbled(outcome.status, outcome.message):
        tally.complaints.append(f"{mutant} breaks {said}")
        return
    tally.killed += 1
    if is_proved:
        tally.complaints.append(f"{mutant} has a proof in equivalent.toml, but is rejected by {said}")


def first_failure(mutant: Mutant, question: Question, launcher: Launcher, seed: int, seconds: float) -> Outcome | None:
    """The first check worth points that a mutant fails, in a handout with the question's other blocks solved."""
    filled = solution_blocks(question) | {mutant.block: mutant.code}
    submission = read(HANDOUT).filled(question.file, filled)
    with session(submission, [question], launcher, seed, call_seconds=seconds) as current:
        checks = (check for check in in_order([question]) if question.checks[check.name])
        outcomes = (current.run(check) for check in checks)
        return next((outcome for outcome in outcomes if outcome.status != "passed"), None)


def progress(items: Iterable[T], title: str) -> Iterator[T]:
    """The items, with a line that says how many are done; nothing where the output is no terminal."""
    console, found = Console(stderr=True), list(items)
    yield from track(found, title, console=console, transient=True, disable=not console.is_terminal)


def measure(questions: list[Question], launcher: Launcher, seed: int) -> dict[str, Tally]:
    """Grade the bank and the mutants of some questions. Returns what was found, by question.

    Raises ProofError if a proof of these questions is about no mutant, or about several.
    """
    tallies = {question.id: Tally() for question in questions}
    by_id = {question.id: question for question in questions}
    bank = [filling for filling in load_bank() if filling.question in by_id]
    mutants = [mutant for question in questions for mutant in mutants_of(question)]
    names = {mutant.block for mutant in mutants}
    equivalent = proved(mutants, [proof for proof in load_proofs() if proof.block in names])
    for filling in progress([filling for filling in bank if filling.right], "right fillings"):
        count_right(filling, by_id[filling.question], launcher, seed, tallies[filling.question])
    wrong = [filling for filling in bank if not filling.right]
    for filling in progress(wrong, "wrong fillings"):
        for diagnosis in diagnose([filling], launcher, seed):
            count_wrong(diagnosis, tallies[filling.question])
    for mutant in progress(mutants, "mutants"):
        seconds = CALL_SECONDS if mutant in equivalent else MUTANT_SECONDS
        outcome = first_failure(mutant, by_id[mutant.question], launcher, seed, seconds)
        count_mutant(mutant, outcome, mutant in equivalent, tallies[mutant.question])
    return tallies


def report(tallies: dict[str, Tally], console: Console) -> None:
    """Print the table, then what must not be, and each survivor with its diff."""
    total = sum(tallies.values(), Tally())
    table = Table(box=SIMPLE_HEAD, show_footer=True, padding=(0, 1, 0, 0))
    table.add_column("question", "all", no_wrap=True)
    for title, footer in zip(COLUMNS, total.cells, strict=True):
        table.add_column(title, footer, justify="right", no_wrap=True)
    for question, tally in tallies.items():
        table.add_row(question, *tally.cells)
    console.print(table)
    for mutant in total.surviving:
        console.print(Text(f"{mutant} survives", "red"))
        console.print(Text(mutant.diff), soft_wrap=True)
    for complaint in total.complaints:
        console.print(Text(complaint, "red"), soft_wrap=True)
    for sentence in total.sentences:
        console.print(sentence)


def main(
    only: Annotated[str, typer.Option(help="Comma-separated beginnings of question ids.")] = "",
    seed: Annotated[int, typer.Option(help="Seed of the inputs that the checks draw.")] = 0,
) -> None:
    """Grade the bank and the mutants; exit status 1 if a right one is rejected, a wrong one or a mutant passes."""
    torch.set_num_threads(1)
    started, console = time.perf_counter(), Console(highlight=False)
    questions = [question for question in select(load(), only) if not question.needs]
    try:
        with closing(default_launcher()) as launcher:
            launcher.require(OPTIMIZERS)
            tallies = measure(questions, launcher, seed)
    except ProofError as error:
        console.print(Text(f"error: {error}", "red"))
        raise typer.Exit(1) from None
    report(tallies, console)
    console.print(f"{time.perf_counter() - started:.0f} s")
    total = sum(tallies.values(), Tally())
    if total.complaints or total.surviving:
        raise typer.Exit(1)


if __name__ == "__main__":
    prepare_streams()
    typer.run(main)

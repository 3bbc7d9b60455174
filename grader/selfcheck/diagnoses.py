"""What a student is told about every wrong filling of the bank, and whether it names the mistake that was made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Annotated

import torch
import typer

from grader.assignment import HANDOUT
from grader.bank import Filling, load_bank
from grader.engine.launcher import OPTIMIZERS, Launcher, default_launcher
from grader.grading import grade
from grader.report.result import CheckResult
from grader.rubric import load
from grader.submission import read


@dataclass(frozen=True)
class Diagnosis:
    """A wrong filling, and the checks that failed on it."""

    filling: Filling
    failed: list[CheckResult]

    @property
    def told(self) -> list[str]:
        """What the student reads, every reason once."""
        return list(dict.fromkeys(" ".join(filter(None, said(check))) for check in self.failed))

    @property
    def named(self) -> bool:
        """Whether a student is told what the bank asks for."""
        return bool(self.filling.diagnosis) and any(self.filling.diagnosis in text for text in self.told)

    @property
    def untrue(self) -> list[str]:
        """The hints that the bank does not hold to be true of this filling."""
        true = [text for text in (self.filling.diagnosis, *self.filling.also) if text]
        hints = dict.fromkeys(check.hint for check in self.failed if check.hint)
        return [hint for hint in hints if not any(text in hint for text in true)]


def said(check: CheckResult) -> tuple[str, str, str]:
    """What a check says: what was measured, where it shows, what the mistake is; each may be empty."""
    return check.message, check.where, check.hint


def diagnose(fillings: list[Filling], launcher: Launcher, seed: int = 0) -> Iterator[Diagnosis]:
    """Grade wrong fillings, one after another, each in an otherwise empty handout."""
    questions, handout = {question.id: question for question in load()}, read(HANDOUT)
    for filling in fillings:
        question = questions[filling.question]
        result = grade(handout.filled(question.file, filling.blocks), [question], launcher, seed)
        failed = [check for check in result.questions[0].checks if check.status != "passed"]
        yield Diagnosis(filling, failed)


def main(
    only: Annotated[str, typer.Option(help="The beginning of question ids.")] = "",
    unnamed: Annotated[bool, typer.Option(help="Only those whose mistake is not named.")] = False,
) -> None:
    """Print every wrong filling, its mistake, and what a student is told; then how many were named."""
    torch.set_num_threads(1)
    wrong = [filling for filling in load_bank() if not filling.right and filling.question.startswith(only)]
    named = 0
    with closing(default_launcher()) as launcher:
        launcher.require(OPTIMIZERS)
        for diagnosis in diagnose(wrong, launcher):
            named += diagnosis.named
            if unnamed and diagnosis.named and not diagnosis.untrue:
                continue
            print(f"{diagnosis.filling} [{'named' if diagnosis.named else 'NOT NAMED'}]: {diagnosis.filling.mistake}")
            for text in diagnosis.told:
                print(f"    {text}")
            for hint in diagnosis.untrue:
                print(f"    NOT IN THE BANK: {hint}")
    print(f"{named} of {len(wrong)} wrong fillings are told what their mistake is")


if __name__ == "__main__":
    typer.run(main)

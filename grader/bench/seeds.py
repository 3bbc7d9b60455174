"""Grades the solution and every right filling of the bank at many seeds: none may ever lose a point."""

from __future__ import annotations

import time
from contextlib import closing
from typing import Annotated

import torch
import typer

from grader.assignment import HANDOUT, SOLUTION
from grader.bank import load_bank
from grader.engine.launcher import default_launcher
from grader.grading import grade
from grader.rubric import load
from grader.submission import Submission, read


def variants(fillings: bool) -> list[tuple[str, Submission, list[str]]]:
    """Names, submissions and the questions to grade: the solution, and the right fillings if wanted."""
    questions = {question.id: question for question in load() if not question.needs}
    found = [("solution", read(SOLUTION), list(questions))]
    handout = read(HANDOUT)
    for filling in load_bank() if fillings else []:
        if filling.right:
            submission = handout.filled(questions[filling.question].file, filling.blocks)
            found.append((str(filling), submission, [filling.question]))
    return found


def main(
    seeds: Annotated[int, typer.Option(help="Seeds to run, from 0.")] = 200,
    fillings: Annotated[bool, typer.Option(help="Also every right filling of the bank.")] = True,
) -> None:
    """Print every lost point, and how many runs lost none. Exit status 1 if any did."""
    torch.set_num_threads(1)
    questions = {question.id: question for question in load()}
    runs = failures = 0
    started = time.perf_counter()
    with closing(default_launcher()) as launcher:
        for name, submission, wanted in variants(fillings):
            for seed in range(seeds):
                result = grade(submission, [questions[question] for question in wanted], launcher, seed)
                lost = [c for q in result.questions for c in q.checks if c.status != "passed"]
                runs, failures = runs + 1, failures + bool(lost)
                for check in lost:
                    print(f"{name}, seed {seed}: {check.id} {check.status}: {check.message}")
    print(f"{runs} runs in {time.perf_counter() - started:.0f} s, {failures} lost a point")
    if failures:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)

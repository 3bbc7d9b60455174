"""Trains as the grader does, at many seeds: how long it takes, and how much of its tolerance each statistic uses.

With fillings, every wrong one of the bank is trained as well, past the gate that keeps it from training, to see which
of them training alone would catch.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from contextlib import closing
from typing import Annotated

import torch
import typer

from grader.assignment import SOLUTION
from grader.bank import load_bank
from grader.checks.draw import Draw
from grader.checks.runner import Check
from grader.engine.launcher import OPTIMIZERS, Launcher, default_launcher
from grader.engine.student import Failure, Student
from grader.grading import checks_of
from grader.rubric import Question, load
from grader.submission import Submission, read


def train(submission: Submission, check: Check, launcher: Launcher, seed: int) -> tuple[float, dict[str, float], str]:
    """Run one check of training. Returns its seconds, the margins it used, and why it failed, if it did."""
    with submission.staged() as folder:
        student = Student(folder, launcher, call_seconds=60.0)
        draw, failure = Draw(seed, check.id), ""
        started = time.perf_counter()
        try:
            student.begin(draw.worker_seed, check.imports)
            check.function(student, draw)
        except Failure as caught:
            failure = f"{caught.status}: {caught.message.splitlines()[0]}"
        finally:
            student.close()
        return time.perf_counter() - started, draw.margins, failure


def measure_right(trained: list[tuple[Question, Check]], launcher: Launcher, seeds: int) -> int:
    """Print the time and the closest calls of the solution over seeds. Returns how many runs failed."""
    solution, failures, total = read(SOLUTION), 0, 0.0
    for question, check in trained:
        seconds, used = [], defaultdict(list)
        for seed in range(seeds):
            took, margins, failure = train(solution, check, launcher, seed)
            seconds.append(took)
            for name, value in margins.items():
                used[name].append(value)
            if failure:
                failures += 1
                print(f"{question.id}, seed {seed}: {failure}")
        total += statistics.median(seconds)
        calls = ", ".join(f"{name} {statistics.median(v):.2f} (worst {max(v):.2f})" for name, v in used.items())
        print(f"{question.id}: median {statistics.median(seconds):.1f} s; of its tolerance used: {calls}", flush=True)
    print(f"all together {total:.1f} s; {failures} of {seeds * len(trained)} runs failed")
    return failures


def measure_wrong(trained: list[tuple[Question, Check]], launcher: Launcher) -> None:
    """Print, for every wrong filling, whether training alone would catch it."""
    solution = read(SOLUTION)
    files = {question.id: question.file for question in load()}
    for question, check in trained:
        wrong = [filling for filling in load_bank() if not filling.right and filling.question in question.needs]
        caught = 0
        for filling in wrong:
            submission = solution.filled(files[filling.question], filling.blocks)
            *_, failure = train(submission, check, launcher, 0)
            caught += bool(failure)
            print(f"{question.id} {filling}: {failure or 'trains all the same'}", flush=True)
        print(f"{question.id}: {caught} of {len(wrong)} wrong fillings are caught by training alone", flush=True)


def main(
    seeds: Annotated[int, typer.Option(help="Seeds to run, from 0.")] = 20,
    only: Annotated[str, typer.Option(help="Beginning of the questions to train.")] = "",
    fillings: Annotated[bool, typer.Option(help="Also every wrong filling of the bank.")] = False,
) -> None:
    """Train the solution at many seeds, and the wrong fillings at one. Exit status 1 if the solution ever failed."""
    torch.set_num_threads(1)
    questions = [question for question in load() if question.needs and question.id.startswith(only)]
    trained = [(question, check) for question in questions for check in checks_of(question)]
    with closing(default_launcher()) as launcher:
        launcher.require(OPTIMIZERS)
        failures = measure_right(trained, launcher, seeds)
        if fillings:
            measure_wrong(trained, launcher)
    if failures:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)

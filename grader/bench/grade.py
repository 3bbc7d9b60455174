"""How fast grading is: `make grade` against `import torch`, and a class against one process per submission."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from grader.assignment import REPOSITORY
from grader.batch.pool import on_a_pool
from grader.batch.work import Settings
from grader.bench.classroom import make_class, write_class

TARGET_SECONDS = 1.5
TARGET_RATE, TARGET_RATIO, TARGET_GAIN = 15, 15, 1.8
TURNS = 3
SHARE_FOR_GAIN = 4
WARM = 4
SETTINGS = Settings(seed=0, training=False)
Class = Mapping[str, Mapping[str, bytes]]


def seconds(*arguments: str) -> float:
    """Wall-clock time of one Python process. Raises CalledProcessError if it fails."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def compare_with_import(runs: int) -> None:
    """Print how long `make grade` takes beyond `import torch`, alternating the two."""
    with TemporaryDirectory() as folder:
        results = str(Path(folder) / "results.json")
        grade = ("-m", "grader", "grade", "solution", "--no-training", "--results", results)
        seconds("-c", "import torch"), seconds(*grade)  # warm the file cache
        pairs = [(seconds("-c", "import torch"), seconds(*grade)) for _ in range(runs)]
    imports, grades = (sorted(times) for times in zip(*pairs, strict=True))
    beyond = statistics.median(grade - imported for imported, grade in pairs)
    print(f"{runs} pairs of runs on {os.cpu_count()} cores")
    for name, times in (("import torch", imports), ("grade, exact checks", grades)):
        print(f"{name:22} median {statistics.median(times):.2f} s, from {times[0]:.2f} to {times[-1]:.2f} s")
    print(f"{'beyond import torch':22} median {beyond:.2f} s; the target is at most {TARGET_SECONDS} s")


@dataclass
class Rate:
    """Submissions that were graded, and the seconds that took, in several turns."""

    submissions: int = 0
    seconds: float = 0.0

    def add(self, submissions: int, seconds: float) -> None:
        """One more turn."""
        self.submissions += submissions
        self.seconds += seconds

    @property
    def each_second(self) -> float:
        """Submissions per second."""
        return self.submissions / self.seconds


def time_batch(rate: Rate, made: Class, jobs: int) -> None:
    """Grade a class as the batch does, timed when every process has graded a few: they start once a class."""
    results = on_a_pool(made, SETTINGS, jobs)
    list(islice(results, WARM * jobs))
    started = time.perf_counter()
    count = sum(1 for _ in results)
    rate.add(count, time.perf_counter() - started)


def time_one_by_one(rate: Rate, made: Class, jobs: int) -> None:
    """Grade a class with a process of its own for each submission, doing the same checks, some side by side."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_class(folder, made)

        def grade(student: str) -> None:
            results = str(folder / f"{student}.json")
            arguments = ("--no-training", "--seed", "0", "--results", results)
            seconds("-m", "grader", "grade", str(folder / student), *arguments)

        started = time.perf_counter()
        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(grade, made))
        rate.add(len(made), time.perf_counter() - started)


def compare_class(students: int, sample: int, jobs: int) -> None:
    """Print the rates of a class with one job and with several, and that of one process each on a sample of the class.

    They take turns, so that a machine that becomes slower meanwhile does so for all of them.
    """
    made = list(make_class(students).items())
    everybody, one_by_one, alone, several = Rate(), Rate(), Rate(), Rate()
    for turn in range(TURNS):
        part = made[turn::TURNS]
        some = dict(part[: max(len(part) // SHARE_FOR_GAIN, (WARM + 1) * jobs)])
        time_batch(everybody, dict(part), jobs)
        time_one_by_one(one_by_one, dict(part[:: max(len(part) * TURNS // sample, 1)]), jobs)
        time_batch(alone, some, 1)
        time_batch(several, some, jobs)
    rates = [rate.each_second for rate in (everybody, one_by_one, alone, several)]
    print(f"a class of {students}, numeric questions, right, wrong, missing, broken and hostile code, in {TURNS} turns")
    print(f"{'batch, 1 job':22} {rates[2]:.2f} submissions a second, of {alone.submissions}")
    print(f"{f'batch, {jobs} jobs':22} {rates[3]:.2f} a second, of the same")
    print(f"{f'gain of {jobs} jobs':22} {rates[3] / rates[2]:.2f}; the target is {TARGET_GAIN} for 2")
    print(f"{'batch, everybody':22} {rates[0]:.2f} a second; the target is {TARGET_RATE} on two cores")
    print(f"{f'{jobs} processes':22} {rates[1]:.2f} a second, one process each, of {one_by_one.submissions} of them")
    print(f"{'batch to processes':22} {rates[0] / rates[1]:.1f}; the target is {TARGET_RATIO}")


def main(
    runs: Annotated[int, typer.Option(help="Pairs of runs of `make grade` and `import torch`.")] = 15,
    students: Annotated[int, typer.Option(help="Students of the class; 0 for none.")] = 500,
    sample: Annotated[int, typer.Option(help="How many of them get a process of their own.")] = 20,
    jobs: Annotated[int, typer.Option(help="How many are graded at once.")] = 2,
) -> None:
    """Print the medians and rates against the targets."""
    if runs:
        compare_with_import(runs)
    least = TURNS * (WARM + 1) * jobs
    if 0 < students < least:
        raise typer.BadParameter(f"{jobs} jobs in {TURNS} turns take {least} students or more.")
    if students:
        compare_class(students, sample, jobs)


if __name__ == "__main__":
    typer.run(main)

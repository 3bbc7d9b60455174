"""How fast grading is: `make grade` against `import torch`, and a class against one pytest process per submission."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from grader.assignment import REPOSITORY
from grader.batch.run import Settings, grade_contents
from grader.bench.classroom import make_class, write_class

TARGET_SECONDS = 1.5
TARGET_RATE, TARGET_RATIO, TARGET_GAIN = 15, 15, 1.8
SHARE_FOR_GAIN = 5
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


def rate_of_batch(made: Class, jobs: int) -> float:
    """Submissions per second of the batch, from the first result on: processes start once a class."""
    results = grade_contents(made, SETTINGS, jobs)
    next(results)
    started = time.perf_counter()
    return sum(1 for _ in results) / (time.perf_counter() - started)


def rate_of_pytest(made: Class, jobs: int) -> float:
    """Submissions per second where each gets a pytest process of its own for the same checks, some side by side."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_class(folder, made)

        def grade(student: str) -> None:
            results = str(folder / f"{student}.json")
            seconds(
                "-m", "grader", "grade", str(folder / student), "--no-training", "--seed", "0", "--results", results
            )

        started = time.perf_counter()
        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(grade, made))
        return len(made) / (time.perf_counter() - started)


def compare_class(students: int, sample: int, jobs: int) -> None:
    """Print the rates of a class with one job and with several, and that of pytest on a sample of the class."""
    made = make_class(students)
    part = dict(list(made.items())[:: max(len(made) // sample, 1)][:sample])
    some = dict(list(made.items())[: students // SHARE_FOR_GAIN])
    alone, several = rate_of_batch(some, 1), rate_of_batch(some, jobs)
    together, pytest = rate_of_batch(made, jobs), rate_of_pytest(part, jobs)
    print(f"a class of {students}, numeric questions, right, wrong, missing, broken and hostile code")
    print(f"{'batch, 1 job':22} {alone:.2f} submissions a second, of the first {len(some)}")
    print(f"{f'batch, {jobs} jobs':22} {several:.2f} a second, of the same")
    print(f"{f'gain of {jobs} jobs':22} {several / alone:.2f}; the target is {TARGET_GAIN} for 2")
    print(f"{'batch, everybody':22} {together:.2f} a second; the target is {TARGET_RATE} on two cores")
    print(f"{f'pytest, {jobs} processes':22} {pytest:.2f} a second, one process each, of {len(part)} of them")
    print(f"{'batch to pytest':22} {together / pytest:.1f}; the target is {TARGET_RATIO}")


def main(
    runs: Annotated[int, typer.Option(help="Pairs of runs of `make grade` and `import torch`.")] = 15,
    students: Annotated[int, typer.Option(help="Students of the class.")] = 500,
    sample: Annotated[int, typer.Option(help="How many of them pytest grades.")] = 20,
    jobs: Annotated[int, typer.Option(help="How many are graded at once.")] = 2,
) -> None:
    """Print the medians and rates against the targets."""
    if runs:
        compare_with_import(runs)
    if students:
        compare_class(students, sample, jobs)


if __name__ == "__main__":
    typer.run(main)

"""How long `make grade` takes beyond `import torch`, alternating the two in one run."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from grader.assignment import REPOSITORY

TARGET_SECONDS = 1.5


def seconds(*arguments: str) -> float:
    """Wall-clock time of one Python process. Raises CalledProcessError if it fails."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main(runs: Annotated[int, typer.Option(help="Pairs of runs.")] = 15) -> None:
    """Print the medians, and their difference against the target."""
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


if __name__ == "__main__":
    typer.run(main)

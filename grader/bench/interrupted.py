"""A class graded undisturbed, and killed at random moments: the same grades, and memory that does not grow with it."""

from __future__ import annotations

import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from grader.assignment import REPOSITORY
from grader.bench.classroom import make_class, write_class

FEW = 50
POLL_SECONDS = 0.2
MOST_GROWTH = 1.1
LEFT = re.compile(r"(\d+) left to grade")


@dataclass
class Run:
    """One run of the batch.

    Attributes:
        seconds: for how long it ran.
        parent, grader: most memory that its first process, and any process that grades, had in use, in MB.
        left: how many submissions it had to grade; None if it did not get so far.
        status: exit status, negative for a signal.
    """

    seconds: float = 0.0
    parent: float = 0.0
    grader: float = 0.0
    left: int | None = None
    status: int = 0


def peak(pid: int) -> float:
    """The most memory a process had in use, in MB; 0 for one that is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


def children(pid: int) -> list[int]:
    """The processes that a process started."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def run_batch(submissions: Path, out: Path, jobs: int, kill_after: float | None = None) -> Run:
    """Grade a class, and kill it after some seconds if it is not done by then."""
    run, started, told = Run(), time.monotonic(), out.with_suffix(".log")
    command = ["batch", str(submissions), "--out", str(out), "--jobs", str(jobs), "--seed", "0", "--no-training"]
    with told.open("wb") as file:
        process = subprocess.Popen([sys.executable, "-m", "grader", *command], cwd=REPOSITORY, stdout=file, stderr=file)
    while process.poll() is None:
        run.parent = max(run.parent, peak(process.pid))
        run.grader = max([run.grader, *map(peak, children(process.pid))])
        if kill_after is not None and time.monotonic() - started > kill_after:
            orphans = children(process.pid)
            process.send_signal(signal.SIGKILL)
            process.wait()
            while any(peak(orphan) for orphan in orphans):  # the kernel ends them, which takes it a moment
                time.sleep(0.05)
            break
        time.sleep(POLL_SECONDS)
    run.seconds, run.status = time.monotonic() - started, process.returncode
    found = LEFT.search(told.read_text())
    run.left = int(found[1]) if found else None
    if run.status not in (0, -signal.SIGKILL):
        raise typer.BadParameter(f"the batch ended with status {run.status}: {told.read_text()[-2000:]}")
    return run


def main(
    students: Annotated[int, typer.Option(help="Students of the class.")] = 500,
    kills: Annotated[int, typer.Option(help="How often it is killed.")] = 10,
    jobs: Annotated[int, typer.Option(help="How many are graded at once.")] = 2,
    seed: Annotated[int, typer.Option(help="Of the class, and of the moments.")] = 0,
) -> None:
    """Print what was measured. Exit status 1 if grades differ, or memory grows by more than a tenth."""
    draw = random.Random(seed)
    with TemporaryDirectory() as name:
        folder, made = Path(name), make_class(students, seed)
        write_class(folder / "all", made)
        write_class(folder / "few", dict(list(made.items())[:FEW]))
        few = run_batch(folder / "few", folder / "few-grades", jobs)
        whole = run_batch(folder / "all", folder / "grades", jobs)
        print(f"{students} submissions undisturbed: {whole.seconds:.0f} s, {students / whole.seconds:.1f} a second")
        growth = [(after / before, what) for before, after, what in (
            (few.parent, whole.parent, "first process"), (few.grader, whole.grader, "graders"),
        )]  # fmt: skip
        print(f"most memory, {FEW} submissions: {few.parent:.0f} MB the first process, {few.grader:.0f} MB a grader")
        print(f"most memory, {students}: {whole.parent:.0f} MB the first process, {whole.grader:.0f} MB a grader")
        for _ in range(kills):
            run = run_batch(folder / "all", folder / "killed", jobs, draw.uniform(0, 1.5 * whole.seconds / kills + 6))
            left = "before it had read the class" if run.left is None else f"with {run.left} left at its beginning"
            print(f"{'killed' if run.status else 'ended'} after {run.seconds:.1f} s, {left}")
        run = run_batch(folder / "all", folder / "killed", jobs)
        print(f"the last run had {run.left} left")
        same = (folder / "killed/grades.csv").read_bytes() == (folder / "grades/grades.csv").read_bytes()
    print(f"grades.csv is {'the same to the byte' if same else 'NOT the same'}")
    if not same or max(growth)[0] > MOST_GROWTH:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)

"""What a worker costs: time to fork it with all layers and its self-test, private memory, and what it leaves behind."""

from __future__ import annotations

import os
import statistics
import time
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from grader.assignment import SOLUTION
from grader.engine.launcher import ZygoteLauncher
from grader.submission import read

TARGET_MILLISECONDS, TARGET_MEGABYTES = 15, 10


def private_megabytes(pid: int) -> float | None:
    """Memory that only this process holds; None where the system does not say (another user's process)."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return None
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def held() -> tuple[int, float]:
    """Open descriptors and resident megabytes of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return sum(1 for _ in Path("/proc/self/fd").iterdir()), pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def main(workers: Annotated[int, typer.Option(help="Workers to start, one after another.")] = 1000) -> None:
    """Print medians against the targets, and what the grader holds before and after."""
    times, memory = [], []
    with closing(ZygoteLauncher()) as launcher, read(SOLUTION).staged() as folder:
        summary = ""
        for warm in range(workers + 20):
            if warm == 20:
                before = held()
            started = time.perf_counter()
            process = launcher.spawn(folder)
            elapsed = time.perf_counter() - started
            private = private_megabytes(process.handle) if warm % 10 == 0 else None
            summary = process.isolation.summary
            process.end()
            if warm >= 20:
                times.append(1e3 * elapsed)
                memory += [] if private is None else [private]
        after = held()
    ordered = sorted(times)
    print(f"{workers} workers, isolation: {summary}")
    print(f"fork, layers and self-test  median {statistics.median(times):.1f} ms, 95 % below "
          f"{ordered[int(0.95 * len(ordered))]:.1f} ms; the target is at most {TARGET_MILLISECONDS} ms")  # fmt: skip
    shown = f"median {statistics.median(memory):.1f} MB" if memory else "not readable as this user"
    print(f"private memory              {shown}; the target is at most {TARGET_MEGABYTES} MB")
    print(f"the grader holds            {before[0]} descriptors and {before[1]:.0f} MB before, "
          f"{after[0]} and {after[1]:.0f} MB after")  # fmt: skip


if __name__ == "__main__":
    typer.run(main)

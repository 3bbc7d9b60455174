"""The command that grades a class: read what was handed in, grade what is new, write what goes back."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from grader.report.result import STATUSES

from .entry import Entry
from .run import Plan, Settings, carry_out
from .store import Store

DATABASE = "grades.sqlite"


@dataclass(frozen=True)
class Class:
    """A class after grading.

    Attributes:
        entries: everybody.
        keys: of results, by student.
        store: holds the results; open.
    """

    entries: Sequence[Entry]
    keys: dict[str, str]
    store: Store

    def result(self, student: str) -> dict[str, Any] | None:
        """The fields of a student's results.json; None where nothing could be graded."""
        return self.store.result(self.keys[student]) if student in self.keys else None


def class_seed(store: Store, seed: int | None) -> int:
    """The seed of a class: the one asked for, or that of the run before, or a new one that nobody can know."""
    if seed is not None:
        return seed
    last = store.last_settings()
    return secrets.randbelow(2**31) if last is None else int(last["seed"])


@contextmanager
def progress_bar(total: int, console: Console) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A bar with rate, time left and how results ended; told every result."""
    columns = (
        TextColumn("grading"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[ended]}"),
    )
    ended: Counter[str] = Counter()
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=total, rate="", ended="")

        def show(result: dict[str, Any]) -> None:
            ended[max((question["status"] for question in result["questions"]), key=STATUSES.index)] += 1
            counts = ", ".join(f"{name.replace('_', ' ')} {ended[name]}" for name in STATUSES if ended[name])
            speed = bar.tasks[task].finished_speed or bar.tasks[task].speed or 0.0
            bar.update(task, advance=1, rate=f"{speed:.1f}/s", ended=counts)

        yield show


def grade_waiting(planned: Plan, settings: Settings, store: Store, jobs: int, console: Console) -> None:
    """Grade what a plan has to grade, with a progress bar. Raises GradingError and StoreError as `carry_out` does."""
    with progress_bar(len(planned.waiting), console) as progress:
        carry_out(planned, settings, store, jobs, progress)


def open_store(out: Path) -> Store:
    """The database of a class in the folder that everything is written to, which is made."""
    out.mkdir(parents=True, exist_ok=True)
    return Store(out / DATABASE)


def merge_shards(out: Path, shards: Sequence[Path]) -> int:
    """Bring the results of shards together in one folder. Returns how many were new. Raises StoreError."""
    with closing(open_store(out)) as store:
        return sum(store.merge(folder / DATABASE) for folder in shards)

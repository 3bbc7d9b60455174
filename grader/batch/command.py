"""The command that grades a class: read what was handed in, grade what is new, write what goes back."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from grader.engine.isolation import WeakIsolationError
from grader.engine.launcher import StartError, default_launcher
from grader.engine.text import printable
from grader.report.entry import Entry, Grade
from grader.report.gradebook import Filled, GradebookError, fill_canvas, fill_gradescope, fill_moodle
from grader.rubric import RubricError, load, select

from .intake import IntakeError, intake
from .live import live
from .pool import on_a_pool
from .problems import FILE, Problems
from .run import Plan, Pool, carry_out, plan
from .schedule import Unfinished
from .store import Store, StoreError
from .work import GradingError, Settings

if TYPE_CHECKING:
    from .cluster import Cluster

DATABASE = "grades.sqlite"


EXPECTED = (GradebookError, GradingError, IntakeError, RubricError, StartError, StoreError, WeakIsolationError)


class CommandError(Exception):
    """The class cannot be graded; the message says what to do."""


@dataclass(frozen=True)
class Gradebooks:
    """Files that systems gave, to be filled in; `assignment` is a column of Canvas."""

    canvas: Path | None = None
    assignment: str | None = None
    moodle: Path | None = None
    gradescope: Path | None = None


@dataclass(frozen=True)
class Scheduler:
    """Of a Dask cluster: its address, and the certificates that tls:// needs."""

    address: str
    tls_ca_file: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None


@dataclass(frozen=True)
class Request:
    """What `batch` was asked; the options of the command say what each is."""

    submissions: Path
    out: Path
    layout: str | None
    template: str | None
    roster: Path | None
    only: str
    regrade: tuple[str, ...]
    jobs: int
    seed: int | None
    shard: str
    feedback: str
    device: str
    training: bool
    allow_weak_isolation: bool
    gradebooks: Gradebooks
    cluster: Scheduler | None = None


def grade_all(request: Request, console: Console | None = None) -> bool:
    """Grade a class as asked, and say what was done.

    Returns:
        Whether nothing is left to do: everything that was handed in has a result, which is shown.

    Raises:
        CommandError: if the class cannot be graded.
    """
    console = console or Console(highlight=False)
    try:
        select(load(), request.only)
        only_shard = parse_shard(request.shard)
        found = intake(request.submissions, request.layout, request.template, request.roster)
        entries = found.entries
        handed_in = sum(not entry.error for entry in entries)
        say(console, f"{len(entries)} students ({found.layout}), {handed_in} with something to grade.", *found.notes)
        isolation = "that of each worker" if request.cluster else check_isolation(request)
        with closing(open_store(request.out)) as store:
            problems = Problems(request.out / FILE)
            settings = settings_of(request, store)
            planned = plan(entries, settings, store, request.regrade, only_shard)
            say(console, f"isolation: {isolation}. Seed {settings.seed}. {len(planned.waiting)} left to grade.")
            left = grade_waiting(planned, settings, store, request, console, problems)
            if only_shard is None:
                give_back(request, entries, planned, store, left, problems, console)
            elif left:
                problems.note(f"Shard {request.shard}", f"{len(left)} hand-ins have no result", reasons(left))
    except (*EXPECTED, OSError, sqlite3.Error) as error:
        raise CommandError(str(error)) from error
    if problems.count:
        say(console, f"Something is left, the grades of all others are there: {problems.path} says what and why.")
    return not problems.count


def give_back(
    request: Request,
    entries: Sequence[Entry],
    planned: Plan,
    store: Store,
    left: Mapping[str, Unfinished],
    problems: Problems,
    console: Console,
) -> None:
    """Write what goes back to the class, and say what it is. Raises OSError, StoreError and GradebookError."""
    from .returns import write_class  # which takes a moment that no shard needs

    for entry in entries:
        if entry.trouble:
            problems.note(entry.student, "what was handed in could not be read", entry.trouble)
    back = write_class(entries, planned.keys, store, request.out, request.feedback, left, problems)
    say(console, *fill_gradebooks(request, back), f"Grades and feedback are in {request.out}.")
    ungraded = [grade.entry.student for grade in back if planned.keys.get(grade.entry.student) and grade.score is None]
    if ungraded:
        say(console, f"Without a grade, as grading did not end: {', '.join(ungraded)}. The same command tries again.")


def reasons(left: Mapping[str, Unfinished]) -> str:
    """Why contents have no result, by key."""
    return "\n".join(f"{key}: {unfinished.why}\n{unfinished.details}" for key, unfinished in left.items())


def say(console: Console, *sentences: str) -> None:
    """Print sentences, one a line."""
    for sentence in sentences:
        console.print(Text(printable(sentence)))


def parse_shard(text: str) -> tuple[int, int] | None:
    """A shard like 0/4. Raises CommandError if it is none."""
    if not text:
        return None
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise CommandError(f"{text} is no shard; write 0/4 for the first of four, up to 3/4.")
    return int(number), int(count)


def check_isolation(request: Request) -> str:
    """What stands between a submission and this machine. Raises WeakIsolationError if that is too little."""
    with closing(default_launcher(request.device)) as launcher, TemporaryDirectory() as name:
        process = launcher.spawn(Path(name).resolve())
        process.end()
    if not request.allow_weak_isolation:
        process.isolation.require_strong()
    return process.isolation.summary


def settings_of(request: Request, store: Store) -> Settings:
    """What is asked of every submission."""
    return Settings(
        class_seed(store, request.seed, bool(request.shard)), request.device, "ta", request.only, request.training
    )


def fill_gradebooks(request: Request, back: Sequence[Grade]) -> list[str]:
    """Write the systems' files with grades in them to the folder.

    Returns:
        Sentences on what to look at.

    Raises:
        GradebookError: once all others are filled in, if a file is not what its system gives.
    """
    books, said, refused = request.gradebooks, list[str](), list[str]()
    fillings: list[tuple[Path | None, Callable[[Path], Filled]]] = [
        (books.canvas, lambda path: fill_canvas(path, back, books.assignment)),
        (books.moodle, lambda path: fill_moodle(path, back)),
        (books.gradescope, lambda path: fill_gradescope(path, back)),
    ]
    for path, fill in fillings:
        try:
            if path:
                said += write_filled(request.out / f"filled-{path.name}", fill(path))
        except GradebookError as error:
            refused.append(str(error))
    if refused:
        raise GradebookError(" ".join([*said, *refused]))
    return said


def write_filled(target: Path, book: Filled) -> list[str]:
    """Write a filled-in file. Returns sentences on what to look at."""
    book.write(target)
    unplaced = [f"{student}: {why}" for student, why in book.unmatched.items()]
    return [f"{target} has the grades of {len(book.matched)} students.", *unplaced, *book.notes]


def class_seed(store: Store, seed: int | None, is_shard: bool = False) -> int:
    """The seed of a class: the one asked for, or that of the run before, or a new one that nobody can know.

    Raises:
        CommandError: for a shard of which neither is there: the others would draw other seeds.
    """
    if seed is not None:
        return seed
    last = store.last_settings()
    if last is None and is_shard:
        raise CommandError("a shard needs --seed, a number that nobody knows, and the same for all shards of a class.")
    return secrets.randbelow(2**31) if last is None else int(last["seed"])


def grade_waiting(
    planned: Plan, settings: Settings, store: Store, request: Request, console: Console, problems: Problems
) -> dict[str, Unfinished]:
    """Grade what a plan has to grade, and show the progress. Returns and raises what `carry_out` does."""
    with ExitStack() as stack:
        pool: Pool = on_a_pool
        if request.cluster and planned.waiting:
            cluster = stack.enter_context(cluster_of(request, request.cluster))
            say(console, *cluster.notes)
            pool = cluster.grade
        tell = stack.enter_context(live(len(planned.waiting), planned.keys, console))
        return carry_out(planned, settings, store, request.jobs, tell, pool, problems)


def cluster_of(request: Request, scheduler: Scheduler) -> AbstractContextManager[Cluster]:
    """The cluster to grade on. Raises GradingError if what it takes is not installed."""
    try:
        from .cluster import connect
    except ModuleNotFoundError as error:
        if error.name not in ("dask", "distributed"):
            raise
        raise GradingError("a cluster needs Dask: pip install '.[cluster]', here and on every worker.") from error
    return connect(scheduler, request.device, request.allow_weak_isolation)


def open_store(out: Path) -> Store:
    """The database of a class in the folder that everything is written to, which is made."""
    out.mkdir(parents=True, exist_ok=True)
    return Store(out / DATABASE)


def merge_shards(out: Path, shards: Sequence[Path]) -> int:
    """Bring the results of shards together in one folder. Returns how many were new. Raises CommandError."""
    try:
        with closing(open_store(out)) as store:
            return sum(store.merge(folder / DATABASE) for folder in shards)
    except (StoreError, OSError, sqlite3.Error) as error:
        raise CommandError(str(error)) from error

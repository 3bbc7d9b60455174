"""The command that grades a class: read what was handed in, grade what is new, write what goes back."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from grader.engine.isolation import WeakIsolationError
from grader.engine.launcher import StartError, default_launcher
from grader.engine.text import printable
from grader.report.class_summary import ClassSummary
from grader.report.feedback import as_markdown, as_text, visible_to
from grader.report.gradebook import GradebookError, fill_canvas, fill_gradescope, fill_moodle, write_grades
from grader.report.pictures import exhibits_of
from grader.report.regrade import Before, Changes
from grader.report.result import Result
from grader.rubric import RubricError, load, select

from .entry import Entry, Grade
from .intake import IntakeError, intake
from .live import live
from .run import GradingError, Plan, Pool, Settings, carry_out, key_under, on_a_pool, plan
from .store import Store, StoreError

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


def grade_all(request: Request, console: Console | None = None) -> None:
    """Grade a class as asked, and say what was done. Raises CommandError."""
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
            settings = settings_of(request, store)
            planned = plan(entries, settings, store, request.regrade, only_shard)
            say(console, f"isolation: {isolation}. Seed {settings.seed}. {len(planned.waiting)} left to grade.")
            grade_waiting(planned, settings, store, request, console)
            if only_shard is None:
                back = write_class(entries, planned.keys, store, request.out, request.feedback)
                say(console, *fill_gradebooks(request, back), f"Grades and feedback are in {request.out}.")
    except (*EXPECTED, OSError) as error:
        raise CommandError(str(error)) from error


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
    """Write the systems' files with grades in them to the folder. Returns sentences on what to look at."""
    books, filled = request.gradebooks, []
    if books.canvas:
        filled.append((books.canvas, fill_canvas(books.canvas, back, books.assignment)))
    if books.moodle:
        filled.append((books.moodle, fill_moodle(books.moodle, back)))
    if books.gradescope:
        filled.append((books.gradescope, fill_gradescope(books.gradescope, back)))
    said = []
    for path, book in filled:
        target = request.out / f"filled-{path.name}"
        book.write(target)
        said.append(f"{target} has the grades of {len(book.matched)} students.")
        said += [f"{student}: {why}" for student, why in book.unmatched.items()] + book.notes
    return said


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


def grade_waiting(planned: Plan, settings: Settings, store: Store, request: Request, console: Console) -> None:
    """Grade what a plan has to grade, and show how it goes on. Raises what `carry_out` raises."""
    with ExitStack() as stack:
        pool: Pool = on_a_pool
        if request.cluster and planned.waiting:
            cluster = stack.enter_context(cluster_of(request, request.cluster))
            say(console, *cluster.notes)
            pool = cluster.grade
        tell = stack.enter_context(live(len(planned.waiting), planned.keys, console))
        carry_out(planned, settings, store, request.jobs, tell, pool)


def cluster_of(request: Request, scheduler: Scheduler) -> AbstractContextManager[Cluster]:
    """The cluster to grade on. Raises GradingError if what it takes is not installed."""
    try:
        from .cluster import connect
    except ModuleNotFoundError as error:
        if error.name not in ("dask", "distributed"):
            raise
        raise GradingError("a cluster needs Dask: pip install '.[cluster]', here and on every worker.") from error
    return connect(scheduler, request.device, request.allow_weak_isolation)


def write_class(
    entries: Sequence[Entry], keys: Mapping[str, str], store: Store, out: Path, audience: str
) -> list[Grade]:
    """Write grades.csv, index.html, and for every student feedback/<student>.html and .md.

    Args:
        entries: the class.
        keys: of results, by student.
        store: holds the results; one at a time is read.
        out: the folder to write to.
        audience: of the feedback, one of AUDIENCES.

    Returns:
        What goes back for everybody.

    Raises:
        OSError: if a file cannot be written.
    """
    from grader.report import class_page
    from grader.report.html import write

    from .similarity import similarity

    feedback = out / "feedback"
    feedback.mkdir(exist_ok=True)
    points: dict[str, dict[str, float]] = {}
    told: dict[str, str] = {}
    summary, changes = ClassSummary(), changes_since(store)
    gallery = class_page.Gallery(lambda student: store.pictures(keys[student]))
    for entry, result in results(entries, keys, store):
        row = summary.add(entry, result)
        if result is None:
            continue
        strips = store.pictures(keys[entry.student])
        gallery.add(row.number, strips)
        if changes:
            changes.add(row.number, entry.student, entry.files, keys[entry.student], result)
        points[entry.student] = {question.id: question.score for question in result.questions}
        seen = visible_to(replace(result, exhibits=exhibits_of(strips)), audience)
        told[entry.student] = as_text(seen)
        write(seen, feedback / f"{entry.student}.html")
        (feedback / f"{entry.student}.md").write_text(as_markdown(seen), "utf-8")
    grades = [
        Grade(entry, row.score, summary.max_score, told.get(entry.student, entry.error))
        for entry, row in zip(entries, summary.rows, strict=True)
    ]
    write_grades(out / "grades.csv", grades, list(summary.titles), points)
    alike = similarity({entry.student: entry.files for entry in entries if not entry.error})
    class_page.write(out / "index.html", summary, changes, alike, gallery)
    return grades


def results(entries: Sequence[Entry], keys: Mapping[str, str], store: Store) -> Iterator[tuple[Entry, Result | None]]:
    """Everybody with a result, or with None, one after another; results are by the names of their students."""
    for entry in entries:
        fields = store.result(keys[entry.student]) if entry.student in keys else None
        if fields is None:
            yield entry, None
        else:
            fields["notes"] = list(dict.fromkeys([*entry.notes, *fields["notes"]]))
            yield entry, replace(Result.from_fields(fields), submission=printable(entry.name))


def changes_since(store: Store) -> Changes | None:
    """To find what is other than after the run before; None where there was none, or nothing is left of it."""
    found, now = store.run_before(), store.last_settings()
    if found is None or now is None:
        return None
    number, text = found
    before = Before(
        settings=json.loads(text),
        keys=store.hand_ins(number),
        result=store.result,
        unchanged=lambda files, key: key_under(files, text) == key,
    )
    return Changes(before, now)


def open_store(out: Path) -> Store:
    """The database of a class in the folder that everything is written to, which is made."""
    out.mkdir(parents=True, exist_ok=True)
    return Store(out / DATABASE)


def merge_shards(out: Path, shards: Sequence[Path]) -> int:
    """Bring the results of shards together in one folder. Returns how many were new. Raises CommandError."""
    try:
        with closing(open_store(out)) as store:
            return sum(store.merge(folder / DATABASE) for folder in shards)
    except (StoreError, OSError) as error:
        raise CommandError(str(error)) from error

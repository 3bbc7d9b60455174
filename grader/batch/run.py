"""Grades a class: every content once, on several processes, each of which starts workers of its own.

What student code may do to a worker, it does to a worker; a process of the pool that dies all the same is replaced,
and what it was grading is graded again. That never becomes a grade.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from grader.assignment import REPOSITORY, pristine
from grader.rubric import Question, load, seen_by, select

from .entry import Entry
from .store import PICTURES, Store

ATTEMPTS = 3  # of a submission whose process dies
PROBLEMS = "problems"  # the name under which tracebacks of the grader travel with the fields of a result
PROBLEMS_LOG = "problems.log"  # where they go, beside the store
IN_FLIGHT = 2  # submissions a process has at hand, so that none waits for the parent
KEPT_MEMORY = {-3: 32 << 20, -1: 128 << 20}  # M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of mallopt(3), in bytes
Contents = Mapping[str, Mapping[str, bytes]]  # files by name, by the key of their result
DECIDES = ("grader/*.py", "grader/*.toml", "grader/checks/**/*.py", "grader/oracle/*.py", "grader/engine/*.py")
DECIDES_TOO = ("grader/report/result.py", "data/*.py", "data/*.png")


class GradingError(Exception):
    """A submission could not be graded for reasons of ours; the message says which."""


@dataclass(frozen=True)
class Settings:
    """What is asked of every submission of a class.

    Attributes:
        seed: of the inputs that the checks draw.
        device: where student code computes.
        audience: the checks to run, those that these may see.
        only: questions, as of `rubric.select`.
        training: whether to train models.
    """

    seed: int
    device: str = "cpu"
    audience: str = "ta"
    only: str = ""
    training: bool = True

    @property
    def text(self) -> str:
        """One line that names them, and what grades: the same text, the same results."""
        return json.dumps(asdict(self) | {"grader": grader_digest()}, sort_keys=True)


@cache
def grader_digest() -> str:
    """A digest of everything that decides about a result: checks, oracle, engine, rubric, data and handout."""
    digest = hashlib.sha256()
    paths = {path for pattern in (*DECIDES, *DECIDES_TOO) for path in REPOSITORY.glob(pattern)}
    parts = {str(path.relative_to(REPOSITORY)): path.read_bytes() for path in paths}
    parts |= {f"pristine/{name}": text.encode() for name, text in pristine().items()}
    for name, content in sorted(parts.items()):
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def key_of(files: Mapping[str, bytes], settings: Settings) -> str:
    """The key of a result: a digest of a submission's files and of what it is asked."""
    return key_under(files, settings.text)


def key_under(files: Mapping[str, bytes], settings: str) -> str:
    """The key of a result under settings whose text is given, those of a run before say."""
    digest = hashlib.sha256(settings.encode())
    for name, content in sorted(files.items()):
        digest.update(f"{name}\0{len(content)}\0".encode("utf-8", "surrogatepass") + content)
    return digest.hexdigest()


def shard(keys: Sequence[str], number: int, count: int) -> list[str]:
    """The keys of one of `count` shards, numbered from 0; the same keys whoever asks."""
    return [key for key in keys if int(key[:12], 16) % count == number]


# ---------------------------------------------------------------- in a process of the pool

_launcher: Any = None


def _begin_in_pool(device: str) -> None:
    """Make a process of the pool ready, and have it end with the parent."""
    from grader.engine.sandbox import die_with_parent

    if sys.platform == "linux":
        die_with_parent()  # a batch that is killed leaves nothing that goes on grading
    _begin(device)


def _keep_freed_memory() -> None:
    """Have the C library keep what is freed for the next tensors: to ask the kernel for pages again takes longer."""
    from grader.engine.landlock import LIBC

    if LIBC is not None and hasattr(LIBC, "mallopt"):  # glibc
        for option, size in KEPT_MEMORY.items():
            LIBC.mallopt(option, size)


def _begin(device: str) -> None:
    """Make a process ready to grade: torch here and in its zygote, side by side."""
    global _launcher
    _keep_freed_memory()
    os.environ["OMP_NUM_THREADS"] = "1"  # a core a process; torch reads it once
    from grader.engine.launcher import OPTIMIZERS, default_launcher

    _launcher = default_launcher(device)
    _launcher.require(OPTIMIZERS)
    atexit.register(_launcher.close)
    import torch

    torch.set_num_threads(1)


@cache
def _questions(settings: Settings) -> list[Question]:
    """What to grade."""
    return select(seen_by(load(), settings.audience), settings.only)


def grade_files(files: Mapping[str, bytes], settings: Settings) -> dict[str, Any]:
    """Grade one submission.

    Returns:
        The fields of its results.json, without a name, and if there is something to show, strips under PICTURES, and if
        the grader stumbled, what for the log under PROBLEMS.
    """
    from grader.grading import grade
    from grader.report.pictures import strips
    from grader.submission import from_files

    if _launcher is None:
        _begin(settings.device)
    questions = _questions(settings)
    submission = from_files("", files)
    result = grade(submission, questions, _launcher, settings.seed, training=settings.training)
    shown = strips(result.exhibits)
    beside = {PICTURES: shown, PROBLEMS: result.log}
    return result.as_fields() | {name: value for name, value in beside.items() if value}


# ---------------------------------------------------------------- in the parent


@dataclass(frozen=True)
class Plan:
    """What is to be graded.

    Attributes:
        keys: of the results, by student; those of whom nothing can be graded are left out.
        waiting: the contents that have no result yet, by key.
    """

    keys: dict[str, str]
    waiting: dict[str, Mapping[str, bytes]]


def plan(
    entries: Sequence[Entry],
    settings: Settings,
    store: Store,
    regrade: Sequence[str] = (),
    only_shard: tuple[int, int] | None = None,
) -> Plan:
    """Note a run in the store, and find what it has to grade: every content once.

    Args:
        entries: the class.
        settings: what is asked.
        store: the results so far.
        regrade: students whose results are forgotten first.
        only_shard: number and count, to leave the other shards to others.
    """
    handed_in = [entry for entry in entries if not entry.error]
    keys = {entry.student: key_of(entry.files, settings) for entry in handed_in}
    contents = {keys[entry.student]: entry.files for entry in handed_in}
    store.begin(settings.text, keys)
    store.forget(keys[student] for student in regrade if student in keys)
    known = store.known()
    waiting = [key for key in contents if key not in known]
    if only_shard is not None:
        waiting = shard(waiting, *only_shard)
    return Plan(keys, {key: contents[key] for key in waiting})


def carry_out(
    planned: Plan,
    settings: Settings,
    store: Store,
    jobs: int,
    tell: Callable[[str, dict[str, Any]], None],
    pool: Pool | None = None,
) -> None:
    """Grade what waits, on processes of this machine or on `pool`; results go to the store as they come.

    `tell` is told the key and the fields of each, without pictures.

    Raises:
        GradingError: if a submission could not be graded in ATTEMPTS, once all others are.
        StoreError: if results cannot be kept.
    """
    for key, result in grade_contents(planned.waiting, settings, jobs, pool):
        if problem := result.pop(PROBLEMS, ""):
            with (store.path.parent / PROBLEMS_LOG).open("a", encoding="utf-8", errors="replace") as log:
                log.write(f"{key}\n{problem}\n")
        store.save(key, result)
        tell(key, {name: value for name, value in result.items() if name != PICTURES})


def grade_contents(
    contents: Contents, settings: Settings, jobs: int, pool: Pool | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Grade contents by key on a pool of processes, and give each result as it comes. Raises GradingError."""
    pool = pool or on_a_pool
    attempts, lost = dict.fromkeys(contents, 0), 0
    waiting = list(contents)
    while waiting:
        suspects = [key for key in waiting if attempts[key]]  # one of them ended a process: each gets one to itself
        batch, several = (suspects[:1], 1) if suspects else (waiting, jobs)
        try:
            for key, result in pool({key: contents[key] for key in batch}, settings, several):
                waiting.remove(key)
                yield key, result
        except PoolDied as died:
            for key in died.keys:
                attempts[key] += 1
                if attempts[key] == ATTEMPTS:
                    waiting.remove(key)
                    lost += 1
    if lost:
        raise GradingError(
            f"{lost} submissions could not be graded: the process that graded them died {ATTEMPTS} times. Run the "
            "same command again; if it happens again, there may be too little memory."
        )


class PoolDied(Exception):
    """A process of a pool died; `keys` are what it may have been grading."""

    def __init__(self, keys: list[str]):
        super().__init__()
        self.keys = keys


# Grades contents with settings on so many processes, and gives keys and results as they come. Raises PoolDied.
Pool = Callable[[Contents, Settings, int], Iterator[tuple[str, dict[str, Any]]]]


def on_a_pool(contents: Contents, settings: Settings, jobs: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Grade contents, with few in flight, so that memory does not grow with their number. Raises PoolDied."""
    waiting, running = list(contents), dict[Future, str]()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(waiting)), context, _begin_in_pool, (settings.device,)) as pool:
        try:
            while waiting or running:
                while waiting and len(running) < jobs * IN_FLIGHT:
                    key = waiting.pop(0)
                    running[pool.submit(grade_files, contents[key], settings)] = key
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    result = future.result()
                    yield running.pop(future), result
        except BrokenProcessPool:
            raise PoolDied(list(running.values())) from None
        finally:
            pool.shutdown(cancel_futures=True)

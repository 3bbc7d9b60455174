"""Grades a class: every content once, on several processes, each of which starts workers of its own.

What student code may do to a worker, it does to a worker. What a hand-in does to the process that grades it costs
nobody else a grade, and never becomes one: it has no result then, and a sentence that says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grader.report.entry import Entry

from .pool import on_a_pool
from .problems import Problems
from .schedule import Answer, Unfinished
from .store import BESIDE, PROBLEMS, Store, UnusableError
from .work import Contents, Settings, key_of

# Grades contents with settings on so many processes, and gives keys and answers as they come.
Pool = Callable[[Contents, Settings, int], Iterator[tuple[str, Answer]]]


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
    """Note a run in the store, and find what it has to grade: every content once that has no result which can stay.

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
    waiting = [key for key in contents if key not in known or is_open(store.result(key))]
    if only_shard is not None:
        waiting = shard(waiting, *only_shard)
    return Plan(keys, {key: contents[key] for key in waiting})


def is_open(result: Mapping[str, Any] | None) -> bool:
    """Whether a stored result cannot be shown, or the grader itself failed in it, which another run may not."""
    return result is None or any(question["status"] == "grader_error" for question in result["questions"])


def shard(keys: Sequence[str], number: int, count: int) -> list[str]:
    """The keys of one of `count` shards, numbered from 0; the same keys whoever asks."""
    return [key for key in keys if int(key[:12], 16) % count == number]


def carry_out(
    planned: Plan,
    settings: Settings,
    store: Store,
    jobs: int,
    tell: Callable[[str, Answer], None],
    pool: Pool = on_a_pool,
    problems: Problems | None = None,
) -> dict[str, Unfinished]:
    """Grade what waits, on processes of this machine or on `pool`; results go to the store as they come.

    `tell` is told the key and the answer of each, without pictures; `problems` where the grader itself failed.

    Returns:
        By key, why what has no result has none.

    Raises:
        GradingError: if nothing can be graded any longer.
        StoreError: if results cannot be kept.
    """
    left = {}
    for key, answer in pool(planned.waiting, settings, jobs) if planned.waiting else ():
        answer = kept(key, answer, store)
        if isinstance(answer, Unfinished):
            left[key] = answer
            tell(key, answer)
        else:
            if problems and PROBLEMS in answer:
                problems.note(key, "the grader failed in a check, or could not judge what it got", answer[PROBLEMS])
            tell(key, {name: value for name, value in answer.items() if name not in BESIDE})
    return left


def kept(key: str, answer: Answer, store: Store) -> Answer:
    """An answer, whose result is in the store now; or why there is none that could be. Raises StoreError."""
    if isinstance(answer, Unfinished):
        return answer
    try:
        store.save(key, answer)
    except UnusableError as error:
        return Unfinished(f"Its result cannot be kept: {error}.", repr(error.__cause__))
    return answer

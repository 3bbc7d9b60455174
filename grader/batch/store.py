"""What was graded, in SQLite: a result by the content that gives it, and for every run of the batch who had which.

A result is written in one transaction as soon as it is there, so that a batch that is killed loses at most the
submissions it was grading, and grades none twice.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import astuple, dataclass, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from grader.checks.runner import STATUSES
from grader.report.pictures import Strip
from grader.report.result import Result

TABLES = """
CREATE TABLE IF NOT EXISTS results (key TEXT PRIMARY KEY, result TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS pictures (
    key TEXT NOT NULL REFERENCES results, place INTEGER NOT NULL,
    check_id TEXT NOT NULL, title TEXT NOT NULL, count INTEGER NOT NULL, png BLOB NOT NULL, PRIMARY KEY (key, place)
);
CREATE TABLE IF NOT EXISTS runs (id INTEGER PRIMARY KEY, settings TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS hand_ins (
    run INTEGER NOT NULL REFERENCES runs, student TEXT NOT NULL, key TEXT NOT NULL, PRIMARY KEY (run, student)
);
"""
RUN_BEFORE = """
SELECT id, settings FROM runs WHERE id < (SELECT max(id) FROM runs)
    AND EXISTS (SELECT * FROM hand_ins JOIN results USING (key) WHERE run = id) ORDER BY id DESC LIMIT 1
"""
WAIT_SECONDS = 60.0
NOT_OF_THE_DISK = (sqlite3.DataError, sqlite3.InterfaceError, sqlite3.ProgrammingError)  # but of what is to be kept
NO_RESULT = "it is not of the form that results have"
ESCAPED_SURROGATE = b"\\ud"  # how JSON writes one, in ASCII
MAX_RESULT_BYTES = 16 << 20
PICTURES = "pictures"  # the name under which strips of images travel with the fields of a result
PROBLEMS = "problems"  # that of the grader's own tracebacks, which are not kept
BESIDE = (PICTURES, PROBLEMS)


class StoreError(Exception):
    """The results cannot be kept or read; the message says what to do."""


class UnusableError(ValueError):
    """What should be a result is none that can be kept or shown; the message says why, without a full stop."""


def usable(fields: Any) -> dict[str, Any]:
    """The fields of a result, with its pictures, once everything is of its kind and has a sensible size.

    Characters that no file can hold, lone surrogates, become question marks. Raises UnusableError.
    """
    try:
        plain = {name: value for name, value in fields.items() if name not in BESIDE}
        text = json.dumps(plain, ensure_ascii=False).encode("utf-8", "replace")
    except (AttributeError, TypeError, RecursionError, ValueError) as error:
        raise UnusableError(NO_RESULT) from error
    return read_back(text) | {name: fields[name] for name in BESIDE if name in fields}


def read_back(text: bytes) -> dict[str, Any]:
    """The fields of a result from JSON. Raises UnusableError."""
    if len(text) > MAX_RESULT_BYTES:
        raise UnusableError(f"it has more than {MAX_RESULT_BYTES >> 20} MB")
    try:
        fields = json.loads(text)
        if ESCAPED_SURROGATE in text:
            fields = json.loads(json.dumps(fields, ensure_ascii=False).encode("utf-8", "replace"))
        expect_kinds(Result.from_fields(fields))
    except (AttributeError, KeyError, OverflowError, TypeError, RecursionError, ValueError) as error:
        raise UnusableError(NO_RESULT) from error
    return fields


def expect_kinds(result: Result) -> None:
    """Raise UnusableError if anything in a result is not of the kind that its field has."""
    statuses = {question.status for question in result.questions}
    statuses |= {check.status for question in result.questions for check in question.checks}
    if not result.questions or not statuses <= set(STATUSES) or not is_a(result, Result):
        raise UnusableError(NO_RESULT)


def is_a(value: Any, kind: Any) -> bool:
    """Whether a value is of a kind, that of a field of a result; all its parts are, too, and numbers are finite."""
    if kind in (str, int, bool):
        return type(value) is kind
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    if is_dataclass(kind):
        return type(value) is kind and all(is_a(getattr(value, name), of) for name, of in kinds(kind).items())  # type: ignore[arg-type]
    if get_origin(kind) is list:
        return type(value) is list and all(is_a(each, get_args(kind)[0]) for each in value)
    of, to = get_args(kind)
    return type(value) is dict and all(is_a(key, of) and is_a(each, to) for key, each in value.items())


@cache
def kinds(of: type) -> dict[str, Any]:
    """The kinds of the fields of a dataclass, by name."""
    return get_type_hints(of)


@dataclass
class Store:
    """The database of a class, open.

    Attributes:
        path: its file.
    """

    path: Path

    def __post_init__(self) -> None:
        try:
            self._connection = sqlite3.connect(self.path, timeout=WAIT_SECONDS)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")  # a power cut takes no transaction back
            with self._connection:
                self._connection.executescript(TABLES)
        except sqlite3.Error as error:
            raise StoreError(f"{self.path} is no database of grades ({error}); give OUT another folder.") from error

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def save(self, key: str, result: dict[str, Any]) -> None:
        """Keep a result, and beside it the strips of images that it may have under PICTURES.

        Raises:
            UnusableError: if it is nothing that can be kept.
            StoreError: if nothing can, for instance on a full disk.
        """
        fields = {name: value for name, value in result.items() if name not in BESIDE}
        try:
            text = json.dumps(fields, ensure_ascii=True, allow_nan=False)
            pictures = [(key, place, *astuple(strip)) for place, strip in enumerate(result.get(PICTURES, ()))]
        except (TypeError, ValueError, RecursionError) as error:
            raise UnusableError(NO_RESULT) from error
        try:
            with self._connection:
                self._connection.execute("DELETE FROM pictures WHERE key = ?", (key,))
                self._connection.execute("INSERT OR REPLACE INTO results VALUES (?, ?)", (key, text))
                self._connection.executemany("INSERT INTO pictures VALUES (?, ?, ?, ?, ?, ?)", pictures)
        except (UnicodeEncodeError, OverflowError, *NOT_OF_THE_DISK) as error:
            raise UnusableError("it is nothing that a database can hold") from error
        except sqlite3.Error as error:
            raise StoreError(f"{self.path} cannot be written ({error}); what was graded before is safe.") from error

    def forget(self, keys: Iterable[str]) -> None:
        """Drop results with their pictures, to grade again what they are of."""
        dropped = [(key,) for key in keys]
        with self._connection:
            self._connection.executemany("DELETE FROM pictures WHERE key = ?", dropped)
            self._connection.executemany("DELETE FROM results WHERE key = ?", dropped)

    def known(self) -> set[str]:
        """The keys of all results."""
        return {key for (key,) in self._connection.execute("SELECT key FROM results")}

    def result(self, key: str) -> dict[str, Any] | None:
        """One result; None where there is none, or none that can be read and shown."""
        with closing(
            self._connection.execute("SELECT CAST(result AS BLOB) FROM results WHERE key = ?", (key,))
        ) as rows:
            found = rows.fetchone()
        try:
            return None if found is None else read_back(found[0])
        except UnusableError:
            return None

    def pictures(self, key: str) -> list[Strip]:
        """The strips of images of a result, in the order of its checks."""
        query = "SELECT check_id, title, count, png FROM pictures WHERE key = ? ORDER BY place"
        with closing(self._connection.execute(query, (key,))) as rows:
            return [Strip(*row) for row in rows]

    def begin(self, settings: str, keys: dict[str, str]) -> int:
        """Note a run and the key of every student's hand-in; the same run as before is not noted twice.

        Returns:
            The number of the run.
        """
        last = self._last_run()
        if last is not None and last[1] == settings and self.hand_ins(last[0]) == keys:
            return last[0]
        with self._connection:
            run = self._connection.execute("INSERT INTO runs (settings) VALUES (?)", (settings,)).lastrowid
            rows = [(run, student, key) for student, key in keys.items()]
            self._connection.executemany("INSERT INTO hand_ins VALUES (?, ?, ?)", rows)
        assert run is not None
        return run

    def _agree(self, source: Store) -> None:
        """Take over the settings of another store. Raises StoreError if there are others here."""
        ours, theirs = self._last_run(), source._last_run()
        if theirs is None or (ours is not None and ours[1] == theirs[1]):
            return
        if ours is not None:
            raise StoreError(
                f"{source.path} was graded with another seed, other options or another version of the grader than what "
                f"is in {self.path.parent}; grade all shards with the same, or merge into another folder."
            )
        self.begin(theirs[1], {})

    def _last_run(self) -> tuple[int, str] | None:
        """The number and the settings of the last run."""
        return self._connection.execute("SELECT id, settings FROM runs ORDER BY id DESC LIMIT 1").fetchone()

    def last_settings(self) -> dict[str, Any] | None:
        """The settings of the last run; None where there was none."""
        found = self._last_run()
        return None if found is None else json.loads(found[1])

    def run_before(self) -> tuple[int, str] | None:
        """The newest run before the last one of which results are left: its number, and its settings as text."""
        return self._connection.execute(RUN_BEFORE).fetchone()

    def hand_ins(self, run: int) -> dict[str, str]:
        """The keys of the hand-ins of a run, by student."""
        return dict(self._connection.execute("SELECT student, key FROM hand_ins WHERE run = ?", (run,)))

    def merge(self, other: Path) -> int:
        """Take over the results of another store, of a shard say, with their pictures, and what was asked.

        Returns:
            How many results were new.

        Raises:
            StoreError: if something else was asked of the results that are here.
        """
        before = self.known()
        with closing(Store(other)) as source:
            self._agree(source)
            rows = source._connection.execute("SELECT key, result FROM results")
            pictures = source._connection.execute("SELECT * FROM pictures")
            with self._connection:
                self._connection.executemany("INSERT OR IGNORE INTO results VALUES (?, ?)", rows)
                new = (row for row in pictures if row[0] not in before)
                self._connection.executemany("INSERT INTO pictures VALUES (?, ?, ?, ?, ?, ?)", new)
        return len(self.known()) - len(before)

"""What was graded, in SQLite: a result by the content that gives it, and for every run of the batch who had which.

A result is written in one transaction as soon as it is there, so that a batch that is killed loses at most the
submissions it was grading, and grades none twice.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TABLES = """
CREATE TABLE IF NOT EXISTS results (key TEXT PRIMARY KEY, result TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS runs (id INTEGER PRIMARY KEY, settings TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS hand_ins (
    run INTEGER NOT NULL REFERENCES runs, student TEXT NOT NULL, key TEXT NOT NULL, PRIMARY KEY (run, student)
);
"""
WAIT_SECONDS = 60.0


class StoreError(Exception):
    """The results cannot be kept or read; the message says what to do."""


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
        """Keep a result. Raises StoreError, for instance on a full disk."""
        text = json.dumps(result, ensure_ascii=True, allow_nan=False)
        try:
            with self._connection:
                self._connection.execute("INSERT OR REPLACE INTO results VALUES (?, ?)", (key, text))
        except sqlite3.Error as error:
            raise StoreError(f"{self.path} cannot be written ({error}); what was graded before is safe.") from error

    def forget(self, keys: Iterable[str]) -> None:
        """Drop results, to grade again what they are of."""
        with self._connection:
            self._connection.executemany("DELETE FROM results WHERE key = ?", [(key,) for key in keys])

    def known(self) -> set[str]:
        """The keys of all results."""
        return {key for (key,) in self._connection.execute("SELECT key FROM results")}

    def result(self, key: str) -> dict[str, Any] | None:
        """One result; None where there is none."""
        with closing(self._connection.execute("SELECT result FROM results WHERE key = ?", (key,))) as rows:
            found = rows.fetchone()
        return None if found is None else json.loads(found[0])

    def begin(self, settings: str, keys: dict[str, str]) -> int:
        """Note a run and the key of every student's hand-in; the same run as before is not noted twice.

        Returns:
            The number of the run.
        """
        last = self._connection.execute("SELECT id, settings FROM runs ORDER BY id DESC LIMIT 1").fetchone()
        if last is not None and last[1] == settings and self.hand_ins(last[0]) == keys:
            return last[0]
        with self._connection:
            run = self._connection.execute("INSERT INTO runs (settings) VALUES (?)", (settings,)).lastrowid
            rows = [(run, student, key) for student, key in keys.items()]
            self._connection.executemany("INSERT INTO hand_ins VALUES (?, ?, ?)", rows)
        assert run is not None
        return run

    def last_settings(self) -> dict[str, Any] | None:
        """The settings of the last run; None where there was none."""
        found = self._connection.execute("SELECT settings FROM runs ORDER BY id DESC LIMIT 1").fetchone()
        return None if found is None else json.loads(found[0])

    def hand_ins(self, run: int) -> dict[str, str]:
        """The keys of the hand-ins of a run, by student."""
        return dict(self._connection.execute("SELECT student, key FROM hand_ins WHERE run = ?", (run,)))

    def merge(self, other: Path) -> int:
        """Take over the results of another store, of a shard say. Returns how many were new."""
        before = len(self.known())
        with closing(Store(other)) as source:
            rows = source._connection.execute("SELECT key, result FROM results")
            with self._connection:
                self._connection.executemany("INSERT OR IGNORE INTO results VALUES (?, ?)", rows)
        return len(self.known()) - before

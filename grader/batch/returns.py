"""What goes back to a class: grades.csv, index.html for those who grade, and a page of feedback for everybody.

What one student's result does to what is made of it is noted and costs that student a page, and nobody else
anything.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from grader.engine.text import printable
from grader.report import class_page
from grader.report.class_summary import ClassSummary
from grader.report.entry import Entry, Grade
from grader.report.feedback import as_markdown, as_text, message_as_markdown, visible_to
from grader.report.gradebook import write_grades
from grader.report.html import render, render_message
from grader.report.likeness import Similarity
from grader.report.pictures import Strip, exhibits_of
from grader.report.regrade import Before, Changes
from grader.report.result import Result, write_whole

from .problems import FILE, Problems
from .schedule import Unfinished
from .similarity import similarity
from .store import Store
from .work import key_under

NOT_ENDED = "Grading did not end"
NOT_A_ZERO = (
    "There is no grade yet, which does not stand for 0 points. Those who grade see what happened, and can grade this "
    "hand-in again."
)
NOT_SHOWN = "The feedback could not be written. Those who grade see why; the grade is not affected."
FORGOTTEN = Unfinished("Its result could not be read, and the same command grades it again.")


@dataclass
class Returns:
    """What goes back, made student by student.

    Attributes:
        keys: of results, by student.
        store: holds the results; one at a time is read.
        out: the folder to write to.
        audience: of the feedback, one of AUDIENCES.
        left: by key, why a result is missing.
        problems: what went wrong.
        summary, changes, gallery: for the page of the class.
        points: by student and question.
        told: feedback as text, by student.
    """

    keys: Mapping[str, str]
    store: Store
    out: Path
    audience: str
    left: Mapping[str, Unfinished]
    problems: Problems
    summary: ClassSummary = field(default_factory=ClassSummary)
    changes: Changes | None = None
    points: dict[str, dict[str, float]] = field(default_factory=dict)
    told: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.gallery = class_page.Gallery(lambda student: self.store.pictures(self.keys[student]))
        with self.problems.noted("The class", "what changed since the run before could not be found"):
            self.changes = changes_since(self.store)

    def add(self, entry: Entry) -> None:
        """Write the feedback of one student, and note what the page of the class needs."""
        if entry.student not in self.keys:
            self.summary.add(entry, None)
            return
        rows = len(self.summary.rows)
        with self.problems.noted(entry.student, "the result could not be shown"):
            if (result := self._result(entry)) is not None:
                self.summary.add(entry, result)
                self.points[entry.student] = {question.id: question.score for question in result.questions}
                self._give_feedback(entry, result)
        if len(self.summary.rows) == rows:
            self._give_reason(entry, self.left.get(self.keys[entry.student], FORGOTTEN))
        elif entry.student not in self.told:
            self._write_message(entry, NOT_SHOWN)

    def _result(self, entry: Entry) -> Result | None:
        """The result of a student, by the name of the student; None where there is none that can be read."""
        fields = self.store.result(self.keys[entry.student])
        if fields is None:
            return None
        notes = list(dict.fromkeys([*entry.notes, *fields["notes"]]))
        return replace(Result.from_fields(fields), submission=printable(entry.name), notes=notes)

    def _give_feedback(self, entry: Entry, result: Result) -> None:
        """Write the pages of a student with a result, and take part of it over to the page of the class."""
        row, key = self.summary.rows[-1].number, self.keys[entry.student]
        strips: list[Strip] = []
        with self.problems.noted(entry.student, "the pictures could not be shown"):
            exhibits = exhibits_of(strips := self.store.pictures(key))
            self.gallery.add(row, strips)
            result = replace(result, exhibits=exhibits)
        with self.problems.noted(entry.student, "the result could not be compared with that of the run before"):
            if self.changes:
                self.changes.add(row, entry.student, entry.files, key, result)
        seen = visible_to(result, self.audience)
        told = as_text(seen)
        self._write(entry, {"html": render(seen), "md": as_markdown(seen)})
        self.told[entry.student] = told

    def _give_reason(self, entry: Entry, why: Unfinished) -> None:
        """Say why a student has no grade: to the student in words, to those who grade with the details."""
        said = f"{NOT_ENDED}: {why.why}"
        self.problems.note(entry.student, said, why.details)
        self.summary.add(replace(entry, error=said), None, unfinished=True)
        self._write_message(entry, said, NOT_A_ZERO)

    def _write_message(self, entry: Entry, *sentences: str) -> None:
        """Write pages that have only sentences to say."""
        self.told[entry.student] = "\n".join(sentences)
        self._write(entry, {"html": render_message(*sentences), "md": message_as_markdown(*sentences)})

    def _write(self, entry: Entry, pages: Mapping[str, str]) -> None:
        for kind, text in pages.items():
            write_whole(self.out / "feedback" / f"{entry.student}.{kind}", text)

    def grades(self, entries: Sequence[Entry]) -> list[Grade]:
        """What goes into grades.csv and gradebooks, in the order of `entries`."""
        return [
            Grade(
                replace(entry, error=row.error),
                row.score,
                self.summary.max_score,
                self.told.get(entry.student, row.error),
            )
            for entry, row in zip(entries, self.summary.rows, strict=True)
        ]


def write_class(
    entries: Sequence[Entry],
    keys: Mapping[str, str],
    store: Store,
    out: Path,
    audience: str,
    left: Mapping[str, Unfinished] | None = None,
    problems: Problems | None = None,
) -> list[Grade]:
    """Write grades.csv, index.html, and for every student feedback/<student>.html and .md.

    Args:
        entries: the class.
        keys, store, out, audience, left, problems: as of `Returns`.

    Returns:
        What goes back for everybody.

    Raises:
        OSError: if a file cannot be written.
        StoreError: if results cannot be read.
    """
    problems = problems or Problems(out / FILE)
    (out / "feedback").mkdir(exist_ok=True)
    back = Returns(keys, store, out, audience, left or {}, problems)
    for entry in entries:
        back.add(entry)
    grades = back.grades(entries)
    write_grades(out / "grades.csv", grades, list(back.summary.titles), back.points)
    alike = None
    with problems.noted("The class", "similar code could not be looked for"):
        alike = similarity({entry.student: entry.files for entry in entries if not entry.error})
    write_page(back, alike)
    return grades


def write_page(back: Returns, alike: Similarity | None) -> None:
    """Write index.html, with less on it where something cannot be shown. Raises OSError."""
    path, problems = back.out / "index.html", back.problems
    with problems.noted("The class", "index.html could not be written with everything, and so it has the grades only"):
        class_page.write(path, back.summary, back.changes, alike, back.gallery)
        return
    with problems.noted("The class", "index.html could not be written"):
        class_page.write(path, back.summary)
        return
    write_whole(path, render_message(f"This page could not be made, {FILE} says why. The grades are in grades.csv."))


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

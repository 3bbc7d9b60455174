"""What goes back to where the class came from: grades.csv, and the very file that a system gave, with grades in it.

A file of Canvas, Moodle or Gradescope is never written anew. It is read as text, and the cells of grade and feedback
are put into that text: columns, order, quoting, line endings and byte order mark are those that the system wrote.
"""

from __future__ import annotations

import csv
import html
import io
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .entry import Grade
from .result import number, write_whole

COLUMNS = ("student", "name", "score", "max_score", "late", "attempt", "error", "notes")
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # the last are full-width
BYTE_ORDER_MARK = "\ufeff"
DELIMITERS = ",;\t"


class GradebookError(Exception):
    """The file is not what the system gives; the message says what to do."""


@dataclass(frozen=True)
class System:
    """How a learning management system calls what matters here.

    Attributes:
        file: its file, in words.
        keys: by the column that says who a row is about, the keys of an Entry that say the same.
        grade: the column of the grade; empty where it is named after the assignment.
        feedback: the column of the feedback, which is HTML; empty where there is none.
        maximum: the column of the points that can be had; empty where there is none.
        kept: cells of the grade that say something else, and stay.
    """

    file: str
    keys: dict[str, tuple[str, ...]]
    grade: str = ""
    feedback: str = ""
    maximum: str = ""
    kept: tuple[str, ...] = ()


CANVAS = System(
    "a gradebook of Canvas",
    {"ID": ("canvas_id",), "SIS User ID": ("sis_id", "sid"), "SIS Login ID": ("login", "email")},
    kept=("EX", "N/A"),
)
MOODLE = System(
    "a grading worksheet of Moodle",
    {"Identifier": ("moodle_id",), "ID number": ("sis_id", "sid"), "Email address": ("email",)},
    grade="Grade",
    feedback="Feedback comments",
    maximum="Maximum grade",
)
GRADESCOPE = System(
    "a file of grades of Gradescope",
    {"SID": ("sid", "sis_id"), "Email": ("email",)},
    grade="Total Score",
    maximum="Max Points",
)


@dataclass(frozen=True)
class Filled:
    """A system's file with grades in it.

    Attributes:
        text: the whole file, with its byte order mark and line endings.
        matched: students whose grades are in it.
        unmatched: by student, why theirs is not; a sentence.
        notes: sentences about what to look at before the file is uploaded.
    """

    text: str
    matched: list[str]
    unmatched: dict[str, str]
    notes: list[str]

    def write(self, path: Path) -> None:
        """Write the file, line endings as they are. Raises OSError."""
        path.write_bytes(self.text.encode())


# ---------------------------------------------------------------- grades.csv


def write_grades(
    path: Path,
    grades: Sequence[Grade],
    questions: Sequence[str] = (),
    scores: Mapping[str, Mapping[str, float]] | None = None,
) -> None:
    """Write one row per student.

    Args:
        path: the file, in UTF-8.
        grades: in the order of the rows; without a score where nothing could be graded.
        questions: ids, a column each after all others.
        scores: points by student and question; a cell is empty where there are none.

    Raises:
        OSError: if it cannot be written.
    """
    made = io.StringIO()
    rows = csv.writer(made, lineterminator="\n")
    rows.writerow([*COLUMNS, *questions])
    for grade in grades:
        entry, points = grade.entry, (scores or {}).get(grade.entry.student, {})
        row = [entry.student, entry.name, _points(grade.score), number(grade.max_score)]
        row += ["yes" if entry.late else "no", entry.attempt, entry.error, " ".join(entry.notes)]
        row += [_points(points.get(question)) for question in questions]
        rows.writerow([defused(cell) if isinstance(cell, str) else cell for cell in row])
    write_whole(path, made.getvalue())


def _points(points: float | None) -> float | str:
    return "" if points is None else number(points)


def defused(text: str) -> str:
    """Text that a spreadsheet shows and does not compute, and that can be encoded."""
    encodable = text.encode("utf-8", "replace").decode()
    return f"'{encodable}" if encodable.startswith(FORMULA) else encodable


# ---------------------------------------------------------------- a file as text, and where its cells are


@dataclass(frozen=True)
class Cell:
    """A cell: what it says, and the part of the text that it is, quotes included."""

    value: str
    start: int
    end: int


@dataclass(frozen=True)
class Sheet:
    """A file of a system.

    Attributes:
        text: all of it.
        delimiter: between cells.
        rows: cells, the header first.
    """

    text: str
    delimiter: str
    rows: list[list[Cell]]

    @property
    def header(self) -> list[str]:
        """Names of the columns."""
        return [cell.value.strip() for cell in self.rows[0]]

    def column(self, name: str) -> int | None:
        """Where a column is, whatever the case of its name; None where there is none of that name."""
        names = [found.casefold() for found in self.header]
        return names.index(name.casefold()) if name and name.casefold() in names else None

    def value(self, row: int, column: int | None) -> str:
        """What a cell says; empty where the row is too short, or there is no column."""
        return self.rows[row][column].value if column is not None and column < len(self.rows[row]) else ""

    def with_cells(self, cells: Mapping[tuple[int, int], str]) -> str:
        """The text with other cells, by row and column: quoted where the old ones were, or have to be."""
        made, at = [], 0
        for (row, column), value in sorted(cells.items()):
            cell = self.rows[row][column]
            made += [self.text[at : cell.start], self._written(value, self.text[cell.start : cell.end])]
            at = cell.end
        return "".join([*made, self.text[at:]])

    def _written(self, value: str, old: str) -> str:
        special = {self.delimiter, '"', "\r", "\n"} & set(value) or value != value.strip()
        return '"' + value.replace('"', '""') + '"' if special or old.startswith('"') else value


def read_sheet(path: Path, system: System) -> Sheet:
    """Read a file, with the delimiter that gives it the columns of a system. Raises GradebookError."""
    try:
        text = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not in UTF-8"
        raise GradebookError(f"{path} cannot be read: {why}. Give {system.file}, as it was downloaded.") from error
    for delimiter in DELIMITERS:
        rows = split(text, delimiter, path)
        try:
            sheet = Sheet(text, delimiter, [next(rows)])
        except GradebookError:  # another delimiter may read this header
            continue
        known = any(sheet.column(name) is not None for name in system.keys)
        if known and (not system.grade or sheet.column(system.grade) is not None):
            sheet.rows.extend(rows)
            return sheet
    wanted = f"one of {', '.join(system.keys)}" + (f", and {system.grade}" if system.grade else "")
    raise GradebookError(f"{path} is not {system.file}: it needs the columns {wanted}. Give it as it was downloaded.")


def split(text: str, delimiter: str, path: Path) -> Iterator[list[Cell]]:
    """The cells of a text, row by row. Raises GradebookError at a quote that is not closed."""
    field = re.compile(rf'"([^"]*(?:""[^"]*)*)"([^{delimiter}\r\n]*)|((?!")[^{delimiter}\r\n]*)')
    at = len(BYTE_ORDER_MARK) if text.startswith(BYTE_ORDER_MARK) else 0
    row: list[Cell] = []
    line = 1
    while found := field.match(text, at):
        quoted, rest, bare = found.groups()
        row.append(Cell(bare if quoted is None else quoted.replace('""', '"') + rest, *found.span()))
        at = found.end()
        if text.startswith(delimiter, at):
            at += 1
            continue
        yield row
        at += 2 if text.startswith("\r\n", at) else 1
        if at >= len(text):
            return
        row, line = [], line + 1
    raise GradebookError(f"{path}: a quote in row {line} is never closed. Download the file again.")


# ---------------------------------------------------------------- the systems' files


def fill_canvas(gradebook: Path, grades: Sequence[Grade], assignment: str | None = None) -> Filled:
    """Fill in the column of an assignment: the one named, with or without its number, else the only one there is.

    Raises:
        GradebookError: if the file is no gradebook, or it is not clear which column is meant.
    """
    sheet = read_sheet(gradebook, CANVAS)
    column = _assignment_column(sheet, assignment)
    possible = [row for row in range(len(sheet.rows)) if sheet.value(row, 0).strip() == "Points Possible"]
    return _fill(sheet, CANVAS, grades, column, {sheet.value(row, column) for row in possible})


def fill_moodle(worksheet: Path, grades: Sequence[Grade]) -> Filled:
    """Fill in grades and feedback. Raises GradebookError if the file is no worksheet."""
    return _fill_named(worksheet, MOODLE, grades)


def fill_gradescope(table: Path, grades: Sequence[Grade]) -> Filled:
    """Fill in the total scores. Raises GradebookError if the file is no table of grades."""
    return _fill_named(table, GRADESCOPE, grades)


def _assignment_column(sheet: Sheet, assignment: str | None) -> int:
    """The column of an assignment of Canvas, "name (number)". Raises GradebookError if it is not clear."""
    columns = {at: name for at, name in enumerate(sheet.header) if re.search(r" \(\d+\)$", name)}
    named = [at for at, name in columns.items() if assignment in (None, name, re.sub(r" \(\d+\)$", "", name))]
    if len(named) == 1:
        return named[0]
    choices = ", ".join(columns.values())
    if not columns:
        raise GradebookError("The gradebook has no assignment, a column like HW2 (123). Export it with the assignment.")
    if assignment is None:
        raise GradebookError(f"The gradebook has several assignments; say which of {choices}.")
    several = "several assignments" if named else "no assignment"
    raise GradebookError(f"The gradebook has {several} called {assignment}; there are {choices}.")


def _fill_named(path: Path, system: System, grades: Sequence[Grade]) -> Filled:
    """Fill in a file whose column of the grade has a name of its own."""
    sheet = read_sheet(path, system)
    column, maximum = sheet.column(system.grade), sheet.column(system.maximum)
    assert column is not None  # or it would not have been read
    return _fill(sheet, system, grades, column, {sheet.value(row, maximum) for row in range(1, len(sheet.rows))})


def _fill(sheet: Sheet, system: System, grades: Sequence[Grade], column: int, possible: set[str]) -> Filled:
    """Put grades and feedback into the rows that they belong to; `possible` is what the file says of full points."""
    rows, unmatched = _match(sheet, system, grades)
    feedback = sheet.column(system.feedback)
    cells, matched = {}, []
    for row, grade in rows.items():
        student, there = grade.entry.student, sheet.value(row, column).strip()
        if grade.score is None:
            unmatched[student] = "Nothing was graded: " + (grade.entry.error or "nothing was handed in.")
        elif there in system.kept:
            unmatched[student] = f"The file says {there} in place of a grade."
        elif len(sheet.rows[row]) <= max(column, feedback or 0):
            unmatched[student] = f"Row {row + 1} ends before the column of the grade."
        else:
            matched.append(student)
            cells[row, column] = str(number(grade.score))
            if feedback is not None:
                cells[row, feedback] = defused(as_html(grade.feedback))
    return Filled(sheet.with_cells(cells), matched, unmatched, _notes(system, grades, possible))


def _match(sheet: Sheet, system: System, grades: Sequence[Grade]) -> tuple[dict[int, Grade], dict[str, str]]:
    """Rows and whose they are, by keys and never by name; and by student why they have no row."""
    places: dict[tuple[str, str], set[int]] = defaultdict(set)
    for name in system.keys:
        for row in range(1, len(sheet.rows)):
            places[name, _plain(name, sheet.value(row, sheet.column(name)))].add(row)
    owners: dict[int, list[Grade]] = defaultdict(list)
    unmatched = {}
    for grade in grades:
        known = {
            (name, plain)
            for name, keys in system.keys.items()
            for key in keys
            if (plain := _plain(name, grade.entry.keys.get(key, "")))
        }
        found = {row for place in known if place in places for row in places[place]}
        if len(found) == 1:
            owners[found.pop()].append(grade)
        elif found:
            shown = " and ".join(str(row + 1) for row in sorted(found))
            unmatched[grade.entry.student] = f"Rows {shown} could both be theirs."
        else:
            said = ", ".join(sorted({plain for _, plain in known})) or f"no {' or '.join(system.keys)} is known of them"
            unmatched[grade.entry.student] = f"No row is theirs: {said}."
    for row, several in owners.items():
        if len(several) > 1:
            who = " and ".join(grade.entry.student for grade in several)
            unmatched |= {grade.entry.student: f"Row {row + 1} could belong to {who}." for grade in several}
    return {row: several[0] for row, several in owners.items() if len(several) == 1}, unmatched


def _plain(column: str, key: str) -> str:
    """A key as it is compared: Moodle writes "Participant 123" where the names of its folders have 123."""
    return re.sub(r"^.*\D(?=\d+$)", "", key.strip()) if column == "Identifier" else key.strip().casefold()


def _notes(system: System, grades: Sequence[Grade], possible: set[str]) -> list[str]:
    """A sentence for every number of full points in the file that is not the one of the grades."""
    ours = {float(grade.max_score) for grade in grades if grade.score is not None}
    theirs = {text.strip().replace(",", ".") for text in possible}
    numbers = sorted(float(text) for text in theirs if re.fullmatch(r"\d+(\.\d+)?", text))
    return [
        f"The file has {number(points)} points for what is graded here with {' or '.join(map(str, map(number, ours)))}."
        for points in numbers
        if ours and ours != {points}
    ]


def as_html(text: str) -> str:
    """Plain text as HTML on one line, without the quotes and backslashes that readers of CSV disagree on."""
    return "<br>".join(html.escape(line).replace("\\", "&#92;") for line in text.splitlines())

"""The roster of a class: a CSV file, its columns found by their names, and whose entry a row is."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from grader.report.entry import Entry

from .archives import decoded, one_line
from .layouts import IntakeError

COLUMNS = {
    "name": ("name", "student", "studentname", "fullname", "displayname", "sortablename", "姓名"),
    "first": ("firstname", "givenname", "first", "vorname"),
    "last": ("lastname", "surname", "familyname", "last", "nachname"),
    "login": ("login", "loginid", "sisloginid", "username", "user", "netid", "githubusername", "githublogin", "github"),
    "email": ("email", "emailaddress", "mail", "邮箱"),
    "sid": ("sid", "studentid", "studentnumber", "idnumber", "matriculationnumber", "matrikelnummer", "学号"),
    "sis_id": ("sisid", "sisuserid"),
    "canvas_id": ("canvasid", "canvasuserid"),
    "moodle_id": ("moodleid",),
    "id": ("id", "identifier", "userid"),  # of what system, the other columns say, or nothing does
    "late": ("lateness", "latenesshms", "late"),
}
NOBODY = {"points possible", "student, test"}  # rows of Canvas's gradebook that are no student's
PARTICIPANT = re.compile(r"[^\W\d].* (\d+)")  # as Moodle writes an identifier, in any language
ON_TIME = {"", "0", "no", "false"}
MAX_BYTES = 32 << 20


@dataclass(frozen=True)
class Listed:
    """A row of a roster.

    Attributes:
        name, keys: as of `Entry`.
        id: an identifier of nobody knows what system.
        late: whether the row says so, as a Gradescope export of grades does.
    """

    name: str
    keys: dict[str, str] = field(default_factory=dict)
    id: str = ""
    late: bool = False

    @property
    def label(self) -> str:
        """What the name of the student's files is made from."""
        known = [self.keys[key] for key in ("canvas_id", "moodle_id", "sid", "login", "sis_id") if key in self.keys]
        return "_".join([part for part in (self.name, *known[:1]) if part] or [self.keys.get("email") or self.id])


def read_roster(path: Path) -> list[Listed]:
    """The rows of a roster that name somebody.

    Raises:
        IntakeError: if there is no such file, or nothing in it names students.
    """
    shown = one_line(str(path))
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise IntakeError(f"The roster {shown} cannot be read ({error.strerror}); give a CSV file.") from error
    if len(raw) > MAX_BYTES:
        raise IntakeError(f"The roster {shown} is over {MAX_BYTES >> 20} MB; give a CSV file with a row a student.")
    text = _text(raw)
    head = text.lstrip("\r\n").partition("\n")[0]
    delimiter = max(",;\t", key=head.count)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    except csv.Error as error:
        raise IntakeError(f"The roster {shown} is no CSV file ({error}); export it again.") from error
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    columns = _columns(rows[0]) if rows else {}
    if not columns.keys() - {"late"}:
        raise IntakeError(f"The roster {shown} has no column for id, login, email or name; name one in its first row.")
    listed = [_listed({what: row[i].strip() for what, i in columns.items() if i < len(row)}) for row in rows[1:]]
    return [row for row in listed if (row.name or row.keys or row.id) and row.name.strip().lower() not in NOBODY]


def _text(raw: bytes) -> str:
    """A table as text, in UTF-8, UTF-16 or what Windows and DOS write in Chinese or German."""
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return raw.decode("utf-16", "replace")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = decoded(raw)
        return text if any(unicodedata.category(c) == "Lo" for c in text) else raw.decode("cp1252", "replace")


def _columns(header: Sequence[str]) -> dict[str, int]:
    """Where each kind of column is; of several, the first."""
    found: dict[str, int] = {}
    for i, cell in enumerate(header):
        spelled = re.sub(r"[\W_]+", "", cell).casefold()
        for what, spellings in COLUMNS.items():
            if spelled in spellings:
                found.setdefault(what, i)
    if "id" in found and "canvas_id" not in found and "sis_id" in found:
        found["canvas_id"] = found.pop("id")
    return found


def _listed(cells: dict[str, str]) -> Listed:
    name = cells.get("name") or " ".join(part for what in ("first", "last") if (part := cells.get(what)))
    keys = {key: cells[key] for key in ("canvas_id", "sis_id", "moodle_id", "email", "sid", "login") if cells.get(key)}
    number = cells.get("id", "")
    if participant := PARTICIPANT.fullmatch(number):
        keys["moodle_id"], number = participant[1], ""
    late = cells.get("late", "").strip().lower()
    return Listed(name, keys, number, late not in ON_TIME and bool(re.sub(r"[0:.]", "", late)))


# ---------------------------------------------------------------- whose row it is


def match(entries: Sequence[Entry], listed: Sequence[Listed]) -> dict[int, int]:
    """The row of each entry that has one, by index: by a key of both, else by any key or the name, where one fits."""
    matched: dict[int, int] = {}
    for marks_of_entry, marks_of_row in (
        (_keys_of_entry, _keys_of_row),
        (_values_of_entry, _values_of_row),
        (_names_of_entry, _names_of_row),
    ):
        taken = set(matched.values())
        rows = _unique({i: marks_of_row(row) for i, row in enumerate(listed) if i not in taken})
        left = _unique({i: marks_of_entry(entry) for i, entry in enumerate(entries) if i not in matched})
        for mark, i in left.items():
            if mark in rows and i not in matched and rows[mark] not in taken:
                matched[i] = rows[mark]
                taken.add(rows[mark])
    return matched


def _unique(marks: dict[int, set[str]]) -> dict[str, int]:
    """Whose each mark is, of those that are one's alone."""
    counts = Counter(mark for found in marks.values() for mark in found if mark)
    return {mark: i for i, found in marks.items() for mark in sorted(found) if counts[mark] == 1}


def _keys_of_entry(entry: Entry) -> set[str]:
    return {f"{key} {value.casefold()}" for key, value in entry.keys.items()}


def _keys_of_row(row: Listed) -> set[str]:
    return {f"{key} {value.casefold()}" for key, value in row.keys.items()}


def _values_of_entry(entry: Entry) -> set[str]:
    return {value.casefold() for value in (entry.name, *entry.keys.values())}


def _values_of_row(row: Listed) -> set[str]:
    return {value.casefold() for value in (row.id, *row.keys.values())}


def _names_of_entry(entry: Entry) -> set[str]:
    return {_squashed([entry.name])}


def _names_of_row(row: Listed) -> set[str]:
    """The ways to write a name: as it is, last name first, first name first; Canvas leaves out all but letters."""
    words = row.name.replace(",", " ").split()
    return {_squashed(words), _squashed(words[-1:] + words[:-1]), _squashed(words[1:] + words[:1])}


def _squashed(words: Iterable[str]) -> str:
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", "".join(words))).casefold()

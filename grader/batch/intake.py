"""What a class handed in, from a folder or an archive of any of the usual systems: one entry a student.

Everything about a download is hostile: names, paths, archives. A hand-in that cannot be read is the `error` of its
student, as a sentence, and never that of the class. Nothing is written to disk.
"""

from __future__ import annotations

import hashlib
import io
import re
import traceback
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from grader.assignment import student_files
from grader.locating import is_answered, is_litter, locate, worth_reading
from grader.report.entry import Entry

from .archives import (
    LINK,
    MAX_BYTES,
    BadArchive,
    Budget,
    Member,
    archive_members,
    folder_members,
    is_archive,
    one_line,
)
from .layouts import (
    METADATA,
    IntakeError,
    Layout,
    Person,
    Piece,
    from_template,
    has_code,
    is_somebodys,
    named_layout,
    recognise,
)
from .roster import Listed, match, read_roster

__all__ = ["Intake", "IntakeError", "intake"]

MAX_DEPTH = 3  # archives within archives
MAX_CODE_BYTES = 1 << 20  # of one file; of those below, the ones over MAX_FILE_BYTES are left out later
MAX_ALL_CODE_BYTES = 4 << 20  # of one student, as they stay in memory
MAX_STUDENT = 80  # characters
MAX_STUDENT_BYTES = 200  # which leaves room for a suffix on every file system
SHOWN = 5  # names in a sentence
NOTHING = "Nothing was handed in."
UNREADABLE = "What was handed in cannot be read; pack the files again."
RESERVED = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|clock\$|(?:com|lpt)[0-9¹²³])(?:\..*)?", re.IGNORECASE)


@dataclass(frozen=True)
class Intake:
    """A class.

    Attributes:
        entries: everybody, sorted by student.
        layout: how the download is laid out, in words.
        notes: sentences on what belongs to nobody, and on who is on one list only.
    """

    entries: list[Entry]
    layout: str
    notes: list[str]


Part = tuple[Piece, Member]


@dataclass
class HandIn:
    """What one student handed in, before it is read.

    Attributes:
        person: who.
        parts: the files, and what their places say.
        attempt: number of the newest attempt, as far as the system says.
        notes: as of `Entry`.
    """

    person: Person
    parts: list[Part] = field(default_factory=list)
    attempt: int = 1
    notes: list[str] = field(default_factory=list)


def intake(path: Path, layout: str | None = None, template: str | None = None, roster: Path | None = None) -> Intake:
    """Read a class.

    Args:
        path: a folder, or a zip or tar.
        layout: canvas, moodle, gradescope, github or folders; recognised by default.
        template: a pattern of paths like {login}_{attempt}_{file}, in place of a layout.
        roster: a CSV file that lists everybody.

    Raises:
        IntakeError: if `path` is no class, or another argument is of no use; the message says what to do.
    """
    listed = read_roster(roster) if roster else []
    with ExitStack() as files:
        members, litter = _download(path, files)
        members, litter = _unwrapped(members, litter)
        found = _layout(path, members, litter, layout, template, listed)
        hand_ins, strays = _sorted_out(members, found)
        if not hand_ins:
            raise IntakeError(
                f"{one_line(str(path))} holds nothing that was handed in, read as {found.said}; give the folder or "
                "archive that the system made, or a template."
            )
        entries = _entries(hand_ins)
    notes = [f"{one_line(stray)} is nobody's; it was left out." for stray in strays[:SHOWN]]
    if strays[SHOWN:]:
        notes.append(f"{len(strays) - SHOWN} more files are nobody's; they were left out.")
    if roster:
        entries, more = _with_roster(entries, listed)
        notes += more
    return Intake(sorted(entries, key=lambda entry: entry.student), found.said, notes)


# ---------------------------------------------------------------- the download


def _download(path: Path, files: ExitStack) -> tuple[list[Member], list[str]]:
    """The files of a download, and the litter that was passed over. Raises IntakeError."""
    shown = one_line(str(path))
    if path.is_dir():
        return folder_members(path)
    try:
        file = files.enter_context(path.open("rb"))
    except FileNotFoundError:
        raise IntakeError(f"{shown} does not exist; give the folder or archive with what was handed in.") from None
    except OSError as error:
        raise IntakeError(f"{shown} cannot be read ({error.strerror}).") from error
    try:
        members = archive_members(file, path.name, Budget(float("inf"), float("inf"), float("inf")), large=True)
    except BadArchive as error:
        what = str(error).partition(";")[0]
        raise IntakeError(f"{what}; download it again, or unpack it and give the folder.") from error
    litter = [member.path for member in members if is_litter(member.path)]
    return [member for member in members if not is_litter(member.path)], litter


def _unwrapped(members: list[Member], litter: list[str]) -> tuple[list[Member], list[str]]:
    """The same without the folders around everything, as long as they are no student's."""
    paths = [member.path for member in members]
    around, classes = "", ""
    while len(tops := {path.partition("/")[0] for path in paths}) == 1 and not is_somebodys(top := tops.pop()):
        paths = [path.partition("/")[2] for path in paths]
        if not all(paths) or has_code(paths):
            break
        around += f"{top}/"
        handed_in = {p.partition("/")[0] for p in paths if is_archive(p) or has_code([p.rpartition("/")[2]])}
        if len(handed_in) > 1 or recognise(paths, [], lambda: b"{}").name != "folders":
            classes = around
    members = [replace(member, path=member.path.removeprefix(classes)) for member in members]
    return members, [path.removeprefix(classes) for path in litter]


def _layout(
    path: Path,
    members: Sequence[Member],
    litter: Sequence[str],
    layout: str | None,
    template: str | None,
    listed: Sequence[Listed],
) -> Layout:
    """The layout that was asked for, or the one it is. Raises IntakeError."""
    paths = [member.path for member in members]
    logins = {row.keys["login"] for row in listed if "login" in row.keys}

    def metadata() -> bytes:
        try:
            return next(m for m in members if m.path == METADATA).read(MAX_BYTES, Budget())
        except BadArchive as error:
            raise IntakeError(f"{error} Export the submissions again.") from error

    if template:
        return from_template(template)
    if layout:
        return named_layout(layout, paths, litter, metadata, logins)
    found = recognise(paths, litter, metadata, logins)
    if found.name in ("folders", "github") and has_code(paths):
        raise IntakeError(
            f"{one_line(str(path))} is one submission, and no class; give the folder or archive that holds everybody's."
        )
    return found


def _sorted_out(members: Iterable[Member], layout: Layout) -> tuple[dict[str, HandIn], list[str]]:
    """What everybody handed in, by owner, and the paths that are nobody's."""
    hand_ins = {owner: HandIn(person, [], attempt, notes) for owner, (person, attempt, notes) in layout.people.items()}
    strays = []
    for member in members:
        pieces = layout.place(member.path)
        for piece in pieces:
            hand_ins.setdefault(piece.owner, HandIn(piece.person)).parts.append((piece, member))
        if not pieces and member.path != METADATA:
            strays.append(member.path)
    return hand_ins, strays


# ---------------------------------------------------------------- one student


def _entries(hand_ins: Mapping[str, HandIn]) -> list[Entry]:
    names = file_names({owner: hand_in.person.label for owner, hand_in in hand_ins.items()})
    contents: dict[tuple[int, ...], Contents] = {}  # a group hands in once
    entries = []
    for owner, hand_in in hand_ins.items():
        parts, older = _newest(hand_in.parts)
        same = tuple(id(member) for _, member in hand_in.parts)
        if same not in contents:
            contents[same] = read_hand_in([replace(member, path=piece.file) for piece, member in parts])
        read = contents[same]
        attempts = [piece.attempt + piece.version[0] for piece, _ in parts]
        entries.append(
            Entry(
                student=names[owner],
                name=hand_in.person.name,
                keys=hand_in.person.keys,
                files=read.files,
                late=any(piece.late for piece, _ in parts),
                attempt=max([hand_in.attempt, *attempts]),
                notes=[*read.notes, *hand_in.notes, *older],
                error=read.error,
                members=list(hand_in.person.members),
                trouble=read.trouble,
            )
        )
    return entries


def _newest(parts: Sequence[Part]) -> tuple[list[Part], list[str]]:
    """The files of the newest attempt, of each the newest version, and notes on what is older."""
    newest = max((piece.attempt for piece, _ in parts), default=1)
    left = sorted({piece.attempt for piece, _ in parts} - {newest})
    notes = [f"Not counted: attempt {', '.join(map(str, left))}; attempt {newest} is newer."] if left else []
    versions: dict[str, tuple[int, int]] = {}
    for piece, _ in parts:
        if piece.attempt == newest:
            versions[piece.file] = max(piece.version, versions.get(piece.file, piece.version))
    older = [member.name for piece, member in parts if piece.attempt == newest and piece.version < versions[piece.file]]
    if older:
        notes.append(f"Not counted: {_listing(older)}; there is a newer one.")
    kept = [part for part in parts if part[0].attempt == newest and part[0].version == versions[part[0].file]]
    return kept, notes


@dataclass(frozen=True)
class Contents:
    """What was in a hand-in; attributes as of `Entry`."""

    files: dict[str, bytes] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    error: str = ""
    trouble: str = ""


def read_hand_in(members: Sequence[Member]) -> Contents:
    """The Python files of a hand-in, wherever they are in it; why there are none, whatever is the matter with it."""
    try:
        return _read_hand_in(members)
    except Exception:
        return Contents(error=UNREADABLE, trouble=traceback.format_exc())


def _read_hand_in(members: Sequence[Member]) -> Contents:
    """The same, if nothing is the matter that nobody expected."""
    if not members:
        return Contents(error=NOTHING)
    with ExitStack() as files:
        budget = Budget()
        try:
            budget.count([member.path for member in members], "What was handed in")
            found, failures = _opened(_visible(members), budget, files)
        except BadArchive as error:
            return Contents(error=str(error))
        return _read(found, failures)


def _read(found: Sequence[Member], failures: Sequence[str]) -> Contents:
    """The contents that count among files, with sentences on archives that could not be opened."""
    odd = [f"{one_line(member.path)} was left out: {member.odd}." for member in found if member.odd][:SHOWN]
    usable = [member for member in found if not member.odd]
    located = locate(usable, _peek)
    chosen = sorted(located.files.items(), key=lambda item: usable.index(item[1]))
    counted = {id(member) for _, member in chosen}
    strays = _strays([member for member in usable if id(member) not in counted])
    if not located.files.keys() & set(student_files()):
        looks = [why for name, why in located.absent.items() if why != f"{name} is missing."]
        none = " ".join([f"None of {', '.join(student_files())} was handed in; ask for these files.", *looks])
        return Contents(notes=[*failures[1:], *odd, *strays], error=[*failures, none][0])
    missing = [why for name, why in located.absent.items() if why != f"{name} is missing."]  # that, grading says
    notes = [*located.notes, *missing, *failures, *odd, *strays]
    beside = [member for member in usable if member.folder == located.home and member.name.endswith(".py")]
    if clash := _clash(beside, found):
        return Contents(notes=notes, error=clash)
    code = Budget(bytes=MAX_ALL_CODE_BYTES)
    try:
        return Contents({name: member.read(MAX_CODE_BYTES, code) for name, member in chosen}, notes)
    except BadArchive as error:
        return Contents(notes=notes, error=str(error))


def _peek(member: Member) -> bytes | None:
    """The contents of a file that may count; None if it cannot be read."""
    try:
        return member.read(MAX_CODE_BYTES, Budget(bytes=MAX_CODE_BYTES))
    except BadArchive:
        return None


def _visible(members: Iterable[Member]) -> list[Member]:
    """Members without what systems hide, what was installed, and what students download beside the handout."""
    members = list(members)
    kept = worth_reading(member.path for member in members)
    return [member for member in members if member.path in kept]


def _opened(members: list[Member], budget: Budget, files: ExitStack) -> tuple[list[Member], list[str]]:
    """Members with those of archives, which are opened as long as answers to the assignment are missing.

    Args:
        members: files of one student.
        budget: what may be read of them.
        files: closes what is opened.

    Returns:
        The members, and sentences on the archives that could not be read.
    """
    failures: list[str] = []
    for _ in range(MAX_DEPTH):
        archives = [member for member in members if is_archive(member.path) and not member.odd]
        if not archives or is_answered([member for member in members if not member.odd], _peek):
            break
        members = [member for member in members if member.odd or not is_archive(member.path)]
        for archive in archives:
            try:
                members += _inside(archive, budget, files)
            except BadArchive as error:
                failures.append(str(error))
    return members, failures


def _inside(archive: Member, budget: Budget, files: ExitStack) -> list[Member]:
    """The members of an archive, below its own path. Raises BadArchive, also for a hostile name among them."""
    shown = one_line(archive.path)
    file = files.enter_context(archive.open()) if archive.open else io.BytesIO(archive.read(MAX_BYTES, budget))
    inside = archive_members(file, archive.path, budget)
    for member in inside:
        if member.odd and member.odd != LINK:
            raise BadArchive(
                f"{shown} holds {one_line(member.path) or 'a file'}, but {member.odd}; pack the files again."
            )
    if not (inside := _visible(inside)):
        raise BadArchive(f"{shown} holds no files; hand it in again.")
    return [replace(member, path=f"{archive.path}/{member.path}") for member in inside]


def _clash(chosen: Sequence[Member], members: Sequence[Member]) -> str:
    """A sentence on files that cannot lie in one folder; "" if all can."""
    folders = {"/".join(parts[:i]) for m in members for parts in [m.path.split("/")] for i in range(1, len(parts))}
    seen: dict[str, str] = {}
    for member in chosen:
        alike = unicodedata.normalize("NFC", member.name).casefold()
        if alike in seen:
            both = f"{one_line(seen[alike])} and {one_line(member.name)} are one name on most systems"
            what = f"{one_line(member.name)} is there twice" if seen[alike] == member.name else both
            return f"{what}; hand in one of them."
        if member.path in folders:
            return f"{one_line(member.name)} is both a file and a folder; hand in the file alone."
        seen[alike] = member.name
    return ""


def _strays(members: Sequence[Member]) -> list[str]:
    """A note on what does not count."""
    return [f"Left out: {_listing([member.path for member in members])}."] if members else []


def _listing(names: Sequence[str]) -> str:
    shown = ", ".join(one_line(name, 60) for name in names[:SHOWN])
    return f"{shown} and {len(names) - SHOWN} more" if names[SHOWN:] else shown


# ---------------------------------------------------------------- names


def file_names(labels: Mapping[str, str], taken: Iterable[str] = ()) -> dict[str, str]:
    """Names that are safe for files on any system and differ in more than case, by owner; stable from run to run.

    Args:
        labels: what each is made from, by owner. Where two would be alike, both get digits of their owner's digest.
        taken: names that are not to be given.
    """
    names = {owner: _file_name(label) for owner, label in labels.items()}
    others = {_alike(name) for name in taken}
    digits = 6
    while shared := {
        name for name, count in Counter(map(_alike, names.values())).items() if count > 1 or name in others
    }:
        for owner, name in names.items():
            if _alike(name) in shared:
                digest = hashlib.sha256(owner.encode("utf-8", "surrogatepass")).hexdigest()[:digits]
                names[owner] = f"{_file_name(labels[owner], digits + 1)}-{digest}"
        digits += 6
    return names


def _alike(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()


def _file_name(label: str, room: int = 0) -> str:
    """A label with letters, digits and a few signs only, and `room` for characters after it."""
    kept = "".join(
        c if c.isalnum() or c in "-_.@" or unicodedata.category(c) == "Mn" else "_"
        for c in unicodedata.normalize("NFC", label)
    )
    kept = re.sub(r"__+", "_", kept).strip("._- ")[: MAX_STUDENT - 1 - room]
    kept = kept.encode("utf-8", "replace")[: MAX_STUDENT_BYTES - room].decode("utf-8", "ignore").strip("._- ")
    return f"_{kept}" if RESERVED.fullmatch(kept) else kept or "student"


# ---------------------------------------------------------------- the roster


def _with_roster(entries: list[Entry], listed: Sequence[Listed]) -> tuple[list[Entry], list[str]]:
    """Entries with what the roster knows of each, those who handed in nothing, and notes on who is not on it."""
    rows = match(entries, listed)
    merged = [_merged(entry, listed[rows[i]]) if i in rows else entry for i, entry in enumerate(entries)]
    missing = [listed[i] for i in sorted(set(range(len(listed))) - set(rows.values()))]
    owners = {f"roster {row.name} {row.id} {sorted(row.keys.items())}": row for row in missing}
    names = file_names({owner: row.label for owner, row in owners.items()}, [entry.student for entry in entries])
    merged += [Entry(names[owner], row.name or row.label, _keys(row), error=NOTHING) for owner, row in owners.items()]
    unknown = [entry.name for i, entry in enumerate(entries) if i not in rows]
    return merged, [f"Not on the roster: {_listing(unknown)}."] if unknown else []


def _keys(row: Listed) -> dict[str, str]:
    return row.keys | ({"sid": row.id} if row.id and "sid" not in row.keys else {})


def _merged(entry: Entry, row: Listed) -> Entry:
    """An entry with the keys of its row, and its name, which a system spells better there than in a file name."""
    return replace(entry, name=row.name or entry.name, keys=_keys(row) | entry.keys, late=entry.late or row.late)

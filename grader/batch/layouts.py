"""How the systems lay out what a class handed in: whose a file is, from its path in the download."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from grader.assignment import student_files

from .archives import is_archive, one_line, without_suffix

METADATA = "submission_metadata.yml"
MAX_NESTED = 64
KEYS = ("canvas_id", "sis_id", "moodle_id", "email", "sid", "login")

CANVAS = re.compile(
    r"(?:(?P<name>.+?)(?P<late>_LATE|_late)?_(?P<id>\d+)|(?P<anon_late>LATE_)?anon_(?P<anon>\w+?)(?P<late_anon>_LATE)?)"
    r"_(?:(?P<attachment>\d+)_(?P<file>.+)|(?P<page>text\.html|link\.html))",
    re.DOTALL,
)
RESUBMITTED = re.compile(r"(?P<stem>.+)-(?P<count>[1-9]\d?)(?P<suffix>(?:\.tar)?\.\w+)", re.DOTALL)
MOODLE = re.compile(
    r"(?P<name>.+?)(?:_(?P<id>\d+))?_assignsubmission_(?P<plugin>file|onlinetext|comments)(?:_(?P<file>.*))?", re.DOTALL
)
GITHUB_LOGIN = re.compile(r"[A-Za-z0-9](?:-?[A-Za-z0-9]){0,38}")
NO_ASSIGNMENT = {"group", "team", "student", "submission", "user"}  # group-1, group-2: folders, no repositories


class IntakeError(Exception):
    """What was given is no class; the message is a sentence that says what to do."""


@dataclass(frozen=True)
class Person:
    """Somebody of the class.

    Attributes:
        label: what the name of the student's files is made from.
        name, keys: as of `Entry`.
        members: names of the others of a group.
    """

    label: str
    name: str
    keys: dict[str, str] = field(default_factory=dict)
    members: tuple[str, ...] = ()


@dataclass(frozen=True)
class Piece:
    """A file of the download, and whose it is.

    Attributes:
        owner: whose: the same for all files of a student, and for nobody else's.
        person: who that is.
        file: the path within what was handed in.
        late: whether the system says so.
        attempt: which attempt the file is of, counted from 1; the newest counts.
        version: of this one file; the newest counts, and no file of another name is the older for it.
    """

    owner: str
    person: Person
    file: str
    late: bool = False
    attempt: int = 1
    version: tuple[int, int] = (0, 0)


Place = Callable[[str], Sequence[Piece]]  # whose the file at a path is; nobody's if empty


@dataclass(frozen=True)
class Layout:
    """A way to lay out a class.

    Attributes:
        name: as one asks for it.
        said: as it is said.
        place: whose a file is.
        people: everybody the download names, with notes on each, whether or not there is a file; by owner.
    """

    name: str
    said: str
    place: Place
    people: dict[str, tuple[Person, int, list[str]]] = field(default_factory=dict)


def _split(path: str) -> tuple[str, str]:
    """The first part of a path, and "/" with the rest, or "" where there is none."""
    first, slash, rest = path.partition("/")
    return first, slash + rest


# ---------------------------------------------------------------- Canvas


def place_canvas(path: str) -> list[Piece]:
    """{sortablename}[_LATE]_{userid}_{attachmentid}_{file}, or anon_{anonid}_..., or that as an unpacked folder."""
    first, rest = _split(path)
    found = CANVAS.fullmatch(first)
    if found is None:
        return []
    who = found["id"] or found["anon"]
    name = found["name"] or f"anon_{found['anon']}"
    file, count = found["file"] or found["page"], 0
    again = RESUBMITTED.fullmatch(file)
    if again and (again["suffix"] == ".py" or is_archive(file)):
        file, count = again["stem"] + again["suffix"], int(again["count"])
    person = Person(f"{name}_{who}" if found["id"] else name, name, {"canvas_id": who} if found["id"] else {})
    late = any(found[group] for group in ("late", "anon_late", "late_anon"))
    return [Piece(f"canvas {who}", person, file + rest, late, 1, (count, int(found["attachment"] or 0)))]


# ---------------------------------------------------------------- Moodle


def place_moodle(path: str) -> list[Piece]:
    """{Full name}_{id}_assignsubmission_file_/..., or the same as a prefix of files."""
    first, rest = _split(path)
    found = MOODLE.fullmatch(first)
    if found is None:
        return []
    name, number = found["name"], found["id"] or ""
    person = Person(f"{name}_{number}" if number else name, name, {"moodle_id": number} if number else {})
    file = ((found["file"] or "") + rest).lstrip("/")
    return [Piece(f"moodle {number or name}", person, file)] if file else []


# ---------------------------------------------------------------- Gradescope


def read_metadata(text: bytes) -> dict[str, Any]:
    """The records of an export by folder, every value as text.

    Raises:
        IntakeError: if it is no such file.
    """
    try:
        records = _plain_yaml(text)
    except (yaml.YAMLError, ValueError) as error:
        raise IntakeError(
            f"{METADATA} cannot be read; export the submissions again, or take the layout folders."
        ) from error
    if not isinstance(records, dict):
        raise IntakeError(f"{METADATA} lists no submissions; export them again, or take the layout folders.")
    return {folder: _plain_keys(record) for folder, record in records.items()}


def _plain_yaml(text: bytes) -> Any:
    """YAML as texts, lists and dicts, whatever its tags say; an alias is "". Built from events, as PyYAML's own way
    to build values recurses, and in C without a limit.

    Raises:
        yaml.YAMLError, ValueError: if it is none, or nested deeper than any export.
    """
    stack: list[tuple[bool, list[Any]]] = [(False, [])]
    for event in yaml.parse(text, getattr(yaml, "CBaseLoader", yaml.BaseLoader)):
        if isinstance(event, yaml.CollectionStartEvent):
            stack.append((isinstance(event, yaml.MappingStartEvent), []))
            if len(stack) > MAX_NESTED:
                raise ValueError("nested too deeply")
        elif isinstance(event, yaml.CollectionEndEvent):
            mapping, items = stack.pop()
            pairs = zip(map(str, items[::2]), items[1::2], strict=True) if mapping else ()
            stack[-1][1].append(dict(pairs) if mapping else items)
        elif isinstance(event, yaml.NodeEvent):
            stack[-1][1].append(getattr(event, "value", ""))
    return next(iter(stack[0][1]), None)


def _plain_keys(record: object) -> dict[str, Any]:
    """A record with plain keys for Ruby's symbols; empty if it is none."""
    return {key.strip(":"): value for key, value in record.items()} if isinstance(record, dict) else {}


def gradescope(metadata: bytes) -> Layout:
    """An export: everybody of a group hands in the same. Raises IntakeError as `read_metadata`."""
    pieces: dict[str, list[Piece]] = {}
    people: dict[str, tuple[Person, int, list[str]]] = {}
    for folder, record in read_metadata(metadata).items():
        submitters = [_plain_keys(person) for person in _list(record.get("submitters"))]
        names = [str(person.get("name") or person.get("email") or folder) for person in submitters] or [folder]
        older = [str(_plain_keys(attempt).get("created_at") or "?") for attempt in _list(record.get("history"))]
        notes = [f"Not counted: older attempts of {one_line(', '.join(older), 300)}."] if older else []
        for i, (name, fields) in enumerate(zip(names, submitters or [{}], strict=True)):
            keys = {key: str(fields[key]) for key in ("sid", "email") if fields.get(key)}
            label = f"{name}_{keys.get('sid') or folder.rpartition('_')[2]}"
            person = Person(label, name, keys, (*names[:i], *names[i + 1 :]))
            owner = f"gradescope {keys.get('sid') or keys.get('email') or f'{folder} {i}'}"
            people[owner] = person, len(older) + 1, notes
            pieces.setdefault(folder, []).append(Piece(owner, person, "", attempt=1))

    def place(path: str) -> list[Piece]:
        first, rest = _split(path)
        found = pieces.get(first) or pieces.get(without_suffix(first)) or []
        file = rest.lstrip("/") or first
        return [replace(piece, file=file) for piece in found]

    return Layout("gradescope", "a Gradescope export", place, people)


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


# ---------------------------------------------------------------- GitHub Classroom, and plain folders


def github(paths: Iterable[str], litter: Iterable[str], logins: Collection[str] = ()) -> Layout | None:
    """Repositories {assignment}-{username} side by side; None if the folders are none.

    Args:
        paths: of all files.
        litter: what was passed over, .git among it.
        logins: those of the roster, which say where an assignment with hyphens ends.
    """
    folders = sorted({_split(path)[0] for path in paths if "/" in path})
    repositories = any(path.split("/")[1:2] == [".git"] for path in litter)
    if not folders or (len(folders) < 2 and not repositories):
        return None
    known = {login.casefold() for login in logins}
    best = (-1, 0)
    for end in (i + 1 for i, c in enumerate(folders[0]) if c == "-"):
        rests = [folder[end:] for folder in folders if folder.startswith(folders[0][:end])]
        if len(rests) == len(folders) and all(GITHUB_LOGIN.fullmatch(rest) for rest in rests):
            # Of one repository the assignment is the first word; of several, what all begin with.
            best = max(best, (sum(rest.casefold() in known for rest in rests), end if len(folders) > 1 else -end))
    prefix = folders[0][: abs(best[1])]
    numbered = all(folder[len(prefix) :].isdigit() for folder in folders) or prefix.strip("-").lower() in NO_ASSIGNMENT
    if not prefix or (numbered and not repositories):
        return None

    def place(path: str) -> list[Piece]:
        first, rest = _split(path)
        login = first[len(prefix) :]
        return [Piece(f"github {first}", Person(login, login, {"login": login}), rest[1:])] if rest else []

    return Layout("github", f"GitHub Classroom repositories of {one_line(prefix[:-1])}", place)


def place_folders(path: str) -> list[Piece]:
    """One folder or one archive a student."""
    first, rest = _split(path)
    if not rest and not is_archive(first):
        return []
    name = first if rest else without_suffix(first)
    return [Piece(f"folder {name}", Person(name, name), rest[1:] or first)]


# ---------------------------------------------------------------- a template of one's own

FREE = ("name", *KEYS, "any")
MAX_FREE = 3  # in a template: the time a hostile name takes grows with the power
FIELDS = dict.fromkeys(FREE, r"[^/]+?") | {
    "attempt": r"\d{1,6}",
    "late": r"_?(?:LATE|Late|late)?_?",
    "file": r".+",
}


def from_template(template: str) -> Layout:
    """The layout that a pattern like {login}_{attempt}_{file} describes.

    Raises:
        IntakeError: if it is none.
    """
    if not re.fullmatch(r"(?:[^{}]|\{\w+\})+", template):
        raise IntakeError(f"The template {one_line(template)} is no pattern like {{login}}_{{attempt}}_{{file}}.")
    if sum(template.count(f"{{{name}}}") for name in (*FREE, "id")) > MAX_FREE:
        raise IntakeError(f"The template has over {MAX_FREE} fields besides attempt, late and file; use fewer.")
    pattern, used = "", set[str]()
    for literal, name in re.findall(r"([^{}]*)(?:\{(\w*)\})?", template):
        pattern += re.escape(literal)
        name = "sid" if name == "id" else name
        if name and name not in FIELDS:
            raise IntakeError(f"The template has a field {{{one_line(name)}}}; there are {', '.join(FIELDS)}.")
        if name in used and name != "any":
            raise IntakeError(f"The template has {{{name}}} twice; give each field once.")
        pattern += (f"(?P<{name}>{FIELDS[name]})" if name != "any" else FIELDS["any"]) if name else ""
        used.add(name)
    if not used & {"name", *KEYS}:
        raise IntakeError(f"The template names nobody; use one of {', '.join(('name', *KEYS))}, in braces.")
    shape = re.compile(pattern, re.DOTALL)

    def place(path: str) -> list[Piece]:
        found = shape.fullmatch(path)
        file = found["file"] if found and "file" in used else ""
        if "file" not in used:  # a folder or an archive a student
            for i in [i for i, c in enumerate(path) if c == "/"]:
                if found := shape.fullmatch(path[:i]):
                    file = path[i + 1 :]
                    break
            else:
                found, file = shape.fullmatch(without_suffix(path)), path.rpartition("/")[2]
        if found is None:
            return []
        parts = {name: text for name, text in found.groupdict().items() if text}
        keys = {key: parts[key] for key in KEYS if key in parts}
        name = parts.get("name") or next(iter(keys.values()))
        who = " ".join(f"{key} {value}" for key, value in keys.items()) or name
        label = "_".join(dict.fromkeys([name, *list(keys.values())[:1]]))
        late = bool(parts.get("late", "").strip("_"))
        return [Piece(f"template {who}", Person(label, name, keys), file, late, int(parts.get("attempt", 1)))]

    return Layout("template", f"the template {one_line(template)}", place)


# ---------------------------------------------------------------- which it is


def recognise(
    paths: Sequence[str], litter: Sequence[str], metadata: Callable[[], bytes], logins: Collection[str] = ()
) -> Layout:
    """The layout of a download.

    Args:
        paths: of all files, relative to its top.
        litter: of what was passed over.
        metadata: gives the contents of METADATA, if there is such a file.
        logins: of the roster.

    Raises:
        IntakeError: if METADATA is there and cannot be read.
    """
    tops = sorted({_split(path)[0] for path in paths})
    canvas = sum(bool(place_canvas(top)) for top in tops)
    if METADATA in tops:
        return gradescope(metadata())
    if any(MOODLE.fullmatch(top) for top in tops):
        return Layout("moodle", "a Moodle download", place_moodle)
    if canvas and 2 * canvas >= len(tops):
        return Layout("canvas", "a Canvas download", place_canvas)
    return github(paths, litter, logins) or Layout("folders", "one folder or archive per student", place_folders)


def named_layout(
    name: str, paths: Sequence[str], litter: Sequence[str], metadata: Callable[[], bytes], logins: Collection[str] = ()
) -> Layout:
    """The layout of a name, whatever the download looks like. Raises IntakeError if there is none."""
    plain = {
        "canvas": Layout("canvas", "a Canvas download", place_canvas),
        "moodle": Layout("moodle", "a Moodle download", place_moodle),
        "folders": Layout("folders", "one folder or archive per student", place_folders),
    }
    if name in plain:
        return plain[name]
    if name == "gradescope" and METADATA in paths:
        return gradescope(metadata())
    if name == "github" and (found := github(paths, litter, logins)):
        return found
    if name in ("gradescope", "github"):
        raise IntakeError(f"This is no download of the layout {name}; leave the layout out, and it is recognised.")
    raise IntakeError(f"There is no layout {one_line(name)}; there are canvas, moodle, gradescope, github, folders.")


def is_somebodys(top: str) -> bool:
    """Whether Canvas or Moodle would name a student's file or folder so."""
    return bool(place_canvas(top) or MOODLE.fullmatch(top))


def has_code(paths: Iterable[str]) -> bool:
    """Whether a file of the assignment is at the top."""
    return any(path in student_files() for path in paths)

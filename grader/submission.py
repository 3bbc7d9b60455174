"""A submission: the student's files, from a folder or from memory, read as text and never executed here."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from . import blocks
from .assignment import blocks_of, given_files, pristine, student_files
from .blocks import Block
from .changes import changes
from .decoding import UndecodableError, decode
from .engine.student_files import BLOCKS
from .engine.text import printable
from .locating import is_litter, locate, shown, worth_reading
from .rubric import Question
from .tidying import without_leftovers, without_notebook_lines

MAX_FILE_BYTES = 256 << 10
MAX_FILES = 100
MAX_NAME_BYTES = 255  # of a file, on every usual file system
MAX_FOLDERS = 2000  # that are searched for files
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")


class SubmissionError(Exception):
    """What was given is not a submission; the message is a sentence that says what to do."""


@dataclass(frozen=True)
class Submission:
    """The Python files that were handed in, by name, and what is odd about them.

    Attributes:
        name: that of the folder, or of the student; hostile until escaped.
        sources: contents of the student's files, those with blocks and any of their own: Python in UTF-8, each line
            at the place where the student has it.
        notes: sentences about what a reader of the grade should know: code changed outside blocks, files left out.
        absent: why one of the student's files is not among them, as a sentence.
    """

    name: str
    sources: dict[str, bytes]
    notes: list[str]
    absent: dict[str, str] = field(default_factory=dict)

    def text(self, file: str) -> str | None:
        """A file as text, whatever its bytes; None where it is missing."""
        source = self.sources.get(file)
        return None if source is None else source.decode("utf-8", "replace")

    def blocks(self, file: str) -> Mapping[str, Block]:
        """The blocks of a file by name, wherever its rulers are; none that cannot be found."""
        return blocks.parse(self.text(file) or "", pristine().get(file, ""))

    def empty_blocks(self, question: Question) -> list[str]:
        """The blocks of a question without code. One that cannot be found is not empty: the file as it is counts."""
        found = self.blocks(question.file)
        names = blocks_of(question.id, question.file)
        return [name for name in names if name in found and not found[name].attempted]

    def attempted(self, question: Question) -> bool:
        """Whether a block of a question holds code."""
        return len(self.empty_blocks(question)) < len(blocks_of(question.id, question.file))

    def filled(self, file: str, code: Mapping[str, str]) -> Submission:
        """This submission with blocks of `file` filled, by name. KeyError if the file lacks one of them."""
        text = self.text(file) or ""
        for block, body in code.items():
            text = blocks.fill(text, block, body, pristine().get(file, ""))
        return replace(self, sources=self.sources | {file: text.encode()})

    @contextmanager
    def staged(self) -> Iterator[Path]:
        """A temporary folder with what student code may see: the handout, and the student's files over it.

        Beside them it says where the blocks are, for files that cannot be imported as a whole.
        """
        with TemporaryDirectory(prefix="submission-") as name:
            folder = Path(name).resolve()
            for file, text in pristine().items():
                (folder / file).write_text(text, "utf-8")
            for file, source in self.sources.items():
                (folder / file).write_bytes(source)
            parts = {Path(file).stem: self._parts(file) for file in student_files() if file in self.sources}
            (folder / BLOCKS).write_text(json.dumps(parts), "utf-8")
            yield folder

    def _parts(self, file: str) -> dict[str, Any]:
        """What `engine.student_files` needs to know of a file to import it block by block."""
        text, handout = "\n".join(blocks.split_lines(self.text(file) or "")), pristine()[file]
        places = {"blocks": blocks.parse(text, handout), "places": blocks.parse(handout)}
        found = {key: {name: (b.start, b.end, b.indent) for name, b in of.items()} for key, of in places.items()}
        return {"text": text, "handout": handout, **found}


@dataclass(frozen=True)
class _OnDisk:
    """A file below the folder that was given."""

    path: str
    modified: float
    place: Path


def read(path: Path) -> Submission:
    """Read the submission in the folder `path`, or in one below it. Raises SubmissionError if there is none."""
    said = printable(str(path))
    if not path.exists():
        raise SubmissionError(
            f"{said} does not exist; give the folder that holds your loss.py, model.py and diffusion.py."
        )
    if not path.is_dir():
        what = (
            "an archive; unpack it and give the folder"
            if path.suffix in ARCHIVES
            else "a file; give the folder it is in"
        )
        raise SubmissionError(f"{said} is {what}.")
    found = _below(path)
    located = locate(found, lambda file: _contents(file.place))
    counted = {id(file) for file in located.files.values()}
    left = [file for file in found if file.path.endswith(".py") and "/" in file.path and id(file) not in counted]
    own = [file for file in left if file.place.name not in pristine()]
    notes = [*located.notes, *([f"Left out: {shown(*own)}."] if own else [])]
    contents = {name: _contents(located.files[name].place) for name in _first(located.files)}
    return _made(path.name, said, contents, notes, located.absent)


def _below(root: Path) -> list[_OnDisk]:
    """The files below a folder that may be part of a submission, those nearest to it first. No link is followed."""
    found, folders = list[_OnDisk](), [root]
    for folder in folders:
        try:
            items = sorted(os.scandir(folder), key=lambda item: item.name)
        except OSError:
            continue
        for item in items:
            path = Path(item.path).relative_to(root).as_posix()
            if is_litter(path) or item.name.startswith("."):
                continue
            if item.is_dir(follow_symlinks=False):
                folders += [Path(item.path)] if len(folders) < MAX_FOLDERS else []
            else:
                found.append(_OnDisk(path, item.stat(follow_symlinks=False).st_mtime, Path(item.path)))
    kept = worth_reading(file.path for file in found)
    return [file for file in found if file.path in kept]


def from_files(name: str, files: Mapping[str, bytes]) -> Submission:
    """The submission that consists of `files`, contents by name; no other than Python files counts.

    Raises:
        SubmissionError: if none of the student's files is among them.
    """
    found = [_InMemory(file) for file in files]
    located = locate(found, lambda file: files[file.path])
    contents = {name: located.files[name].path for name in _first(located.files)}
    return _made(
        name,
        printable(name),
        {name: files[path] if _plain(name) else None for name, path in contents.items()},
        located.notes,
        located.absent,
    )


@dataclass(frozen=True)
class _InMemory:
    """A file of a flat hand-in."""

    path: str
    modified: float = 0.0


def _made(
    name: str, said: str, files: Mapping[str, bytes | None], notes: list[str], absent: dict[str, str]
) -> Submission:
    """A submission of Python files; those without contents are left out, and so is what is too large."""
    if not any(file in student_files() for file in files):
        looks = [why for file, why in absent.items() if why != f"{file} is missing."]
        raise SubmissionError(
            " ".join([f"{said} holds none of {', '.join(student_files())}; give the folder they are in.", *looks])
        )
    usable = {file: source for file, source in files.items() if source is not None and len(source) <= MAX_FILE_BYTES}
    left_out = [
        f"{printable(file)} was left out: it is a link, not a plain file, or over {MAX_FILE_BYTES >> 10} KB."
        for file in files
        if file not in usable and file not in given_files()
    ]
    sources, refused = dict[str, bytes](), dict[str, str]()
    said_of_files: list[str] = []
    for file, source in usable.items():
        if file in given_files():
            said_of_files += _given_note(file, source)
            continue
        try:
            text, more = _text(file, source)
        except UndecodableError as error:
            refused[file] = f"{printable(file)} {error}"
            continue
        sources[file] = text.encode("utf-8", "surrogatepass")
        said_of_files += more
    absent = absent | {file: why for file, why in refused.items() if file in student_files()}
    missing = [absent.get(file, f"{file} is missing.") for file in student_files() if file not in sources]
    unread = [why for file, why in refused.items() if file not in student_files()]
    return Submission(name, sources, [*notes, *missing, *unread, *left_out, *said_of_files], absent)


def _first(names: Iterable[str]) -> list[str]:
    """As many names as count, sorted; none of the assignment's own is cut for a student's other files."""
    return sorted(sorted(names, key=lambda name: (name not in pristine(), name))[:MAX_FILES])


def _plain(name: str) -> bool:
    """Whether a file can be written under a name, in the folder it is meant for."""
    try:
        return len(os.fsencode(name)) <= MAX_NAME_BYTES and not {"/", "\0"} & set(name)
    except UnicodeEncodeError:
        return False


def _contents(path: Path) -> bytes | None:
    """The contents of a plain file of a usual size; None for any other."""
    if path.is_symlink() or not path.is_file() or path.stat().st_size > MAX_FILE_BYTES:
        return None
    return path.read_bytes()


def _text(file: str, source: bytes) -> tuple[str, list[str]]:
    """A file as text without what would end it, and sentences on it. Raises UndecodableError."""
    text, encoding = decode(source)
    notes = [f"{printable(file)} {encoding}"] if encoding else []
    text, more = without_notebook_lines(text, printable(file))
    notes += more
    handout = pristine().get(file)
    if handout is None:
        return text, notes
    text, more = without_leftovers(text, file, handout)
    notes += more
    lost = [question for question in blocks.parse(handout) if question not in blocks.parse(text, handout)]
    if lost:
        functions = "functions" if lost[1:] else "function"
        notes.append(f"{file}: the {functions} of {', '.join(lost)} cannot be found; the file was graded as it is.")
    elif changed := changes(text, handout):
        notes.append(f"{file}: outside the blocks, {changed}; the file was graded as it is.")
    return text, notes


def _given_note(file: str, source: bytes) -> list[str]:
    """A sentence on a given file that was changed, and so not used."""
    try:
        changed = changes(decode(source)[0], pristine()[file])
    except UndecodableError:
        changed = "it cannot be read"
    return [f"{file} was changed; the one of the handout was used instead."] if changed else []

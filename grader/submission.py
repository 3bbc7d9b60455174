"""A submission: the student's files, from a folder or from memory, read as text and never executed here."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from . import blocks
from .assignment import blocks_of, given_files, pristine, student_files
from .engine.student_files import BLOCKS
from .engine.text import printable
from .rubric import Question

MAX_FILE_BYTES = 256 << 10
MAX_FILES = 100
MAX_NAME_BYTES = 255  # of a file, on every usual file system
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")


class SubmissionError(Exception):
    """What was given is no submission; the message is a sentence that says what to do."""


@dataclass(frozen=True)
class Submission:
    """The Python files that were handed in, by name, and what is odd about them.

    Attributes:
        name: that of the folder, or of the student; hostile until escaped.
        sources: contents of the student's files, those with blocks and any of their own.
        notes: sentences about what a reader of the grade should know: code changed outside blocks, files left out.
    """

    name: str
    sources: dict[str, bytes]
    notes: list[str]

    def text(self, file: str) -> str | None:
        """A file as text, whatever its bytes; None where it is missing."""
        source = self.sources.get(file)
        return None if source is None else source.decode("utf-8", "replace")

    def attempted(self, question: Question) -> bool:
        """Whether a block of a question holds code. Where the rulers are gone, the file as it is counts."""
        found = blocks.parse(self.text(question.file) or "")
        return any(block not in found or found[block].attempted for block in blocks_of(question.id, question.file))

    def filled(self, file: str, code: Mapping[str, str]) -> Submission:
        """This submission with blocks of `file` filled, by name. KeyError if the file lacks one of them."""
        text = self.text(file) or ""
        for block, body in code.items():
            text = blocks.fill(text, block, body)
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
        places = {"blocks": blocks.parse(text), "places": blocks.parse(handout)}
        found = {key: {name: (b.start, b.end, b.indent) for name, b in of.items()} for key, of in places.items()}
        return {"text": text, "handout": handout, **found}


def read(path: Path) -> Submission:
    """Read the submission in the folder `path`. Raises SubmissionError if there is none."""
    shown = printable(str(path))
    if not path.exists():
        raise SubmissionError(
            f"{shown} does not exist; give the folder that holds your loss.py, model.py and diffusion.py."
        )
    if not path.is_dir():
        what = (
            "an archive; unpack it and give the folder"
            if path.suffix in ARCHIVES
            else "a file; give the folder it is in"
        )
        raise SubmissionError(f"{shown} is {what}.")
    found = {p.name: p for p in path.glob("*.py")}
    return _made(path.name, shown, {name: _contents(found[name]) for name in _first(found)})


def from_files(name: str, files: Mapping[str, bytes]) -> Submission:
    """The submission that consists of `files`, contents by name; no other than Python files counts.

    Raises:
        SubmissionError: if none of the student's files is among them.
    """
    named = {file: source if _plain(file) else None for file, source in files.items() if file.endswith(".py")}
    return _made(name, printable(name), {file: named[file] for file in _first(named)})


def _made(name: str, shown: str, files: Mapping[str, bytes | None]) -> Submission:
    """A submission of Python files; those without contents are left out, and so is what is too large."""
    if not any(file in student_files() for file in files):
        raise SubmissionError(f"{shown} holds none of {', '.join(student_files())}; give the folder they are in.")
    sources = {file: source for file, source in files.items() if source is not None and len(source) <= MAX_FILE_BYTES}
    notes = [
        f"{printable(file)} was left out: it is a link, no plain file, or over {MAX_FILE_BYTES >> 10} KB."
        for file in files
        if file not in sources and file not in given_files()
    ]
    given = {file: sources.pop(file) for file in given_files() if file in sources}
    submission = Submission(name, sources, notes)
    notes += [note for file in student_files() if (note := _outside_note(submission, file))]
    notes += [note for file, source in given.items() if (note := _given_note(file, source))]
    return submission


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


def _outside_note(submission: Submission, file: str) -> str | None:
    """A sentence on a student file whose code outside the blocks is not the handout's."""
    text = submission.text(file)
    if text is None:
        return f"{file} is missing."
    handout = pristine()[file]
    found = blocks.parse(text)
    lost = [question for question in blocks.parse(handout) if question not in found]
    if lost:
        return f"{file}: the rulers around {', '.join(lost)} are gone; the file was graded as it is."
    changed = blocks.changed_outside(text, handout)
    if changed:
        return (
            f"{file}: code outside the blocks was changed, lines {changed[0]} to {changed[1]}; it was graded as it is."
        )
    return None


def _given_note(file: str, source: bytes) -> str | None:
    """A sentence on a given file that was changed, and so not used."""
    text = "\n".join(blocks.split_lines(source.decode("utf-8", "replace")))
    changed = blocks.changed_outside(text, pristine()[file])
    return f"{file} was changed; the one of the handout was used instead." if changed else None

"""A submission: a folder with the student's files, read as text and never executed here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from . import blocks
from .assignment import blocks_of, given_files, pristine, student_files
from .engine.text import printable
from .rubric import Question

MAX_FILE_BYTES = 256 << 10
MAX_FILES = 100
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")


class SubmissionError(Exception):
    """What was given is no submission; the message is a sentence that says what to do."""


@dataclass(frozen=True)
class Submission:
    """The Python files of a folder, by name, and what is odd about them.

    Attributes:
        path: the folder.
        sources: contents of the student's files, those with blocks and any of their own.
        notes: sentences about what a reader of the grade should know: code changed outside blocks, files left out.
    """

    path: Path
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
        """A temporary folder with what student code may see: the student's files and pristine given ones."""
        with TemporaryDirectory(prefix="submission-") as name:
            folder = Path(name).resolve()
            for file, source in self.sources.items():
                (folder / file).write_bytes(source)
            for file in given_files():
                (folder / file).write_text(pristine()[file], "utf-8")
            yield folder


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
    found = sorted(p for p in path.glob("*.py"))
    if not any(p.name in student_files() for p in found):
        raise SubmissionError(f"{shown} holds none of {', '.join(student_files())}; give the folder they are in.")
    sources: dict[str, bytes] = {}
    notes: list[str] = []
    for file in found[:MAX_FILES]:
        if file.name in given_files():
            continue
        if file.is_symlink() or not file.is_file() or file.stat().st_size > MAX_FILE_BYTES:
            notes.append(
                f"{printable(file.name)} was left out: it is a link, no plain file, or over {MAX_FILE_BYTES >> 10} KB."
            )
            continue
        sources[file.name] = file.read_bytes()
    submission = Submission(path, sources, notes)
    notes += [note for name in student_files() if (note := _outside_note(submission, name))]
    notes += [note for name in given_files() if (note := _given_note(path / name))]
    return submission


def _outside_note(submission: Submission, file: str) -> str | None:
    """A sentence on a student file whose code outside the blocks is not the handout's."""
    text = submission.text(file)
    if text is None:
        return f"{file} is missing."
    handout = pristine()[file]
    lost = [question for question in blocks.parse(handout) if question not in blocks.parse(text)]
    if lost:
        return f"{file}: the rulers around {', '.join(lost)} are gone; the file was graded as it is."
    changed = blocks.changed_outside(text, handout)
    if changed:
        return (
            f"{file}: code outside the blocks was changed, lines {changed[0]} to {changed[1]}; it was graded as it is."
        )
    return None


def _given_note(path: Path) -> str | None:
    """A sentence on a given file that was changed, and so not used."""
    if path.is_symlink() or not path.is_file() or path.stat().st_size > MAX_FILE_BYTES:
        return None
    changed = blocks.changed_outside(path.read_text("utf-8", "replace"), pristine()[path.name])
    return f"{path.name} was changed; the one of the handout was used instead." if changed else None

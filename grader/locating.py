"""Which of the files in a folder or archive are the submission, in any folder and under any name."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from . import blocks
from .assignment import pristine, student_files
from .decoding import UndecodableError, decode
from .engine.text import printable

LITTER = {"__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini", ".git", "__pycache__", "site-packages", "node_modules"}
ENVIRONMENT = "pyvenv.cfg"  # is at the top of every virtual environment
INSTALLED = ("bin", "include", "lib", "lib64", "share", "Include", "Lib", "Scripts")
RUBRIC = "grader/rubric.toml"  # is in every copy of what students download
RELEASED = ("grader", "data")
SAME_TIME = 60.0  # seconds within which files are equally new: they came out of one archive or repository
MAX_UNLIKE = 50  # files of other names that are searched for blocks
PYTHON = (".py", ".py.txt", ".txt")
SHOWN = 5  # paths in a sentence
FILLED, OTHER, UNTOUCHED = 2, 1, 0


class File(Protocol):
    """A file of what was handed in."""

    @property
    def path(self) -> str:
        """Where it is, relative and with slashes."""

    @property
    def modified(self) -> float:
        """When it was changed last, in seconds; 0 where nothing says so."""


F = TypeVar("F", bound=File)


@dataclass(frozen=True)
class Located(Generic[F]):
    """What counts.

    Attributes:
        files: by the name they count under.
        home: the folder that most of them are in.
        notes: sentences on what was chosen; on filled blocks that do not count first.
        absent: for each of the student's files that is missing, a sentence that names what looks like it.
    """

    files: dict[str, F]
    home: str
    notes: list[str] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)


def is_litter(path: str) -> bool:
    """Whether a path is something that systems and tools leave behind."""
    return any(part in LITTER or part.startswith("._") for part in path.split("/"))


def worth_reading(paths: Iterable[str]) -> set[str]:
    """Paths without what is hidden, what was installed, and what students download beside the handout."""
    seen = [path for path in paths if not is_litter(path) and not any(p.startswith(".") for p in path.split("/"))]
    aside: list[str] = []
    for mark, folders in ((ENVIRONMENT, INSTALLED), (RUBRIC, RELEASED)):
        tops = [path.removesuffix(mark) for path in seen if f"/{path}".endswith(f"/{mark}")]
        aside += [f"{top}{folder}/" for top in tops for folder in folders]
    return {path for path in seen if not path.startswith(tuple(aside))}


def folder_of(path: str) -> str:
    """A path without its last part; "" at the top."""
    return path.rpartition("/")[0]


def name_of(path: str) -> str:
    """The last part of a path, its letters composed."""
    return unicodedata.normalize("NFC", path.rpartition("/")[2])


def is_code(path: str) -> bool:
    """Whether a file may be Python, also under a suffix that an editor or mail program added."""
    return name_of(path).lower().endswith(PYTHON)


def looks_like(name: str, file: str) -> bool:
    """Whether a name is that of a file but for case, copies' numbers, invisible letters and words around it."""
    plain = unicodedata.normalize("NFKC", name).casefold()
    plain = "".join(c for c in plain if unicodedata.category(c) not in ("Cf", "Mn"))
    return is_code(plain) and file.removesuffix(".py") in plain


# ---------------------------------------------------------------- choosing


def locate(found: Sequence[F], contents: Callable[[F], bytes | None]) -> Located[F]:
    """Choose the submission from files of which `contents` gives the bytes, or None if they cannot be read.

    Of several files of one name those count in which blocks are filled in, and of these the newest. A file of another
    name counts where it alone has the blocks of one that is missing.
    """
    choice = _Choice(found, contents)
    files: dict[str, F] = {}
    notes, absent = list[str](), dict[str, str]()
    for name in student_files():
        file = choice.named(name)
        other, why = choice.renamed(name) if file is None or choice.is_better_alike(name, file) else (None, "")
        if other is not None:
            notes.append(f"{shown(other)} was taken for {name}.")
        elif file is None:
            absent[name] = f"{name} is missing{why}"
        elif folder_of(file.path) != choice.home:
            notes.append(f"{name} was taken from {printable(folder_of(file.path), 120) or 'beside the others'}.")
        if (best := other or file) is not None:
            files[name] = best
    own = _own(found, files, choice.home)
    return Located(files | own, choice.home, [*choice.left_out(files), *sorted(notes)], absent)


def is_answered(found: Sequence[F], contents: Callable[[F], bytes | None]) -> bool:
    """Whether files are all of the student's, and not all as they were given out."""
    choice = _Choice(found, contents)
    files = {name: choice.named(name) for name in student_files()}
    return all(files.values()) and any(file and choice.state(file, name) != UNTOUCHED for name, file in files.items())


def _own(found: Sequence[F], files: Mapping[str, F], home: str) -> dict[str, F]:
    """The other Python files beside those that count, by name; of two of one name the one at home."""
    folders = {home} | {folder_of(file.path) for file in files.values()}
    own: dict[str, F] = {}
    for file in sorted(found, key=lambda file: folder_of(file.path) != home):
        name = name_of(file.path)
        if folder_of(file.path) in folders and name.endswith(".py") and name not in student_files():
            own.setdefault(name, file)
    return {name: file for name, file in own.items() if all(file is not taken for taken in files.values())}


def shown(*files: File) -> str:
    """The paths of files, for use in a sentence."""
    paths = [printable(file.path, 60) for file in files]
    if paths[SHOWN:]:
        return f"{', '.join(paths[:SHOWN])} and {len(paths) - SHOWN} more"
    return " and ".join([", ".join(paths[:-1]), paths[-1]] if paths[1:] else paths)


class _Choice(Generic[F]):
    """The files that may count, and what is known of them; contents are read only where there is a choice."""

    def __init__(self, found: Sequence[F], contents: Callable[[F], bytes | None]):
        code = [file for file in found if is_code(file.path)]
        self._named = {name: [file for file in code if name_of(file.path) == name] for name in student_files()}
        self._others = [file for file in code if name_of(file.path) not in pristine()]
        self._contents = contents
        self._texts: dict[int, str | None] = {}
        self.home = self._home()

    def named(self, name: str) -> F | None:
        """The file of this very name that counts."""
        return self._best(self._named[name], name)

    def is_better_alike(self, name: str, file: F) -> bool:
        """Whether blocks are filled in in a file of a name like this, and not in the file itself."""
        return bool(self._alike(name)) and self.state(file, name) != FILLED

    def renamed(self, name: str) -> tuple[F | None, str]:
        """The one file of another name that has the blocks of this one; or the end of a sentence on why none counts."""
        with_blocks = self._alike(name)
        if not self._named[name] and not with_blocks:
            with_blocks = [file for file in self._others[:MAX_UNLIKE] if self.state(file, name) == FILLED]
        if len({self._text(file) for file in with_blocks}) == 1:
            return self._best(with_blocks, name), ""
        alike = with_blocks or [file for file in self._others if looks_like(name_of(file.path), name)]
        if not alike:
            return None, "."
        if len(alike) == 1:
            return None, f"; {shown(*alike)} looks like it. Hand it in as {name}."
        return None, f"; {shown(*alike)} look like it. Hand in one of them as {name}."

    def left_out(self, files: Mapping[str, F]) -> list[str]:
        """A sentence on the files with filled blocks that do not count, and those that count in their place."""
        left, instead = list[F](), list[F]()
        for name, file in files.items():
            several = [*(self._named[name] if len(self._named[name]) > 1 else []), *self._alike(name)]
            more = [
                one
                for one in several
                if one is not file and self.state(one, name) == FILLED and self._text(one) != self._text(file)
            ]
            left += more
            instead += [file] if more else []
        if not left:
            return []
        newer = min(file.modified for file in instead) > max(file.modified for file in left) + SAME_TIME
        verb = "counts" if len(instead) == 1 else "count"
        why = f", which {'is' if len(instead) == 1 else 'are'} newer," if newer else ""
        return [f"Left out, though blocks are filled in: {shown(*left)}; {shown(*instead)}{why} {verb} instead."]

    def state(self, file: F, name: str) -> int:
        """Whether a file, taken for one of the student's, has blocks that are filled in, or is as it was given out."""
        text, handout = self._text(file), pristine()[name]
        found = blocks.parse(text or "", handout)
        if any(block.attempted for block in found.values()):
            return FILLED
        return UNTOUCHED if found.keys() == blocks.parse(handout).keys() else OTHER

    def _best(self, files: Sequence[F], name: str) -> F | None:
        """Of files that may be one of the student's: one that is filled in, the newest, the nearest to the others."""
        if len(files) < 2:
            return next(iter(files), None)
        states = {id(file): self.state(file, name) for file in files}
        best = [file for file in files if states[id(file)] == max(states.values())]
        if all(file.modified for file in best):
            best = [file for file in best if file.modified >= max(file.modified for file in best) - SAME_TIME]
        return min(best, key=lambda f: (folder_of(f.path) != self.home, f.path.count("/"), len(f.path), f.path))

    def _home(self) -> str:
        """The folder that holds the most files with filled blocks, or else the most files."""
        places = [(folder_of(file.path), name, file) for name, files in self._named.items() for file in files]
        folders = {folder for folder, _, _ in places}
        if len(folders) < 2:
            return next(iter(folders), "")
        states = Counter[tuple[str, int]]()
        for folder, name in {(folder, name) for folder, name, _ in places}:
            file = next(file for place, of, file in places if (place, of) == (folder, name))
            states[folder, self.state(file, name)] += 1
        return min(
            folders,
            key=lambda folder: (
                *(-states[folder, state] for state in (FILLED, OTHER, UNTOUCHED)),
                folder.count("/"),
                len(folder),
                folder,
            ),
        )

    def _alike(self, name: str) -> list[F]:
        """Files of a name like that of one of the student's, in which its blocks are filled in."""
        alike = [file for file in self._others if looks_like(name_of(file.path), name)]
        return [file for file in alike if self.state(file, name) == FILLED]

    def _text(self, file: F) -> str | None:
        """A file as text; None if it cannot be read."""
        if id(file) not in self._texts:
            source = self._contents(file)
            try:
                self._texts[id(file)] = None if source is None else decode(source)[0]
            except UndecodableError:
                self._texts[id(file)] = None
        return self._texts[id(file)]

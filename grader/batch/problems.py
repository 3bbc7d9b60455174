"""What went wrong while a class was graded, with tracebacks: a file for those who grade, and never for students."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from grader.engine.text import printable

from .store import StoreError

FILE = "problems.log"
MAX_CHARACTERS = 16 << 10  # of the details of one problem
OF_THE_NAME = (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, None)  # and not of the disk, which is everybody's


@dataclass
class Problems:
    """The problems of a run.

    Attributes:
        path: of the file; what is in it of a run before is dropped, and without problems the file is not made.
        count: of the problems so far.
    """

    path: Path
    count: int = 0

    def __post_init__(self) -> None:
        self.path.unlink(missing_ok=True)

    def note(self, who: str, what: str, details: str = "") -> None:
        """Add one: a student, a sentence, and what helps to find the reason. Raises OSError."""
        self.count += 1
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{printable(who)}: {printable(what)}\n{printable(details, MAX_CHARACTERS)}\n\n")

    @contextmanager
    def noted(self, who: str, what: str) -> Iterator[None]:
        """Note an exception, and go on. Raises what is nobody's fault: StoreError, and OSError of the disk."""
        try:
            yield
        except StoreError:
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno not in OF_THE_NAME:
                raise
            self.note(who, what, traceback.format_exc())

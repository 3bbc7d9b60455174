"""What the assignment consists of: the files of the handout, those with blocks and those that are given."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from . import blocks

REPOSITORY = Path(__file__).resolve().parents[1]
SOLUTION = REPOSITORY / "solution"
HANDOUT = REPOSITORY / "handout"
PRISTINE = REPOSITORY / "grader" / "pristine"  # the handout as it was given out, in what students download


def handout_files(solution: Path = SOLUTION) -> dict[str, str]:
    """What the handout must hold: text by file name."""
    return {
        path.name: blocks.empty(path.read_text("utf-8"))
        for path in sorted([*solution.glob("*.py"), *solution.glob("*.md")])
    }


@cache
def pristine() -> dict[str, str]:
    """The Python files of the handout as they are given out, by name.

    Made from the solution where there is one, else read from PRISTINE: handout/ itself may hold somebody's work.
    """
    files = handout_files() if SOLUTION.is_dir() else {p.name: p.read_text("utf-8") for p in PRISTINE.glob("*.py")}
    return {name: text for name, text in sorted(files.items()) if name.endswith(".py")}


@cache
def student_files() -> list[str]:
    """The files of the handout that have blocks."""
    return [name for name, text in pristine().items() if blocks.parse(text)]


@cache
def given_files() -> list[str]:
    """The files of the handout without blocks, which are always taken from the handout."""
    return [name for name, text in pristine().items() if not blocks.parse(text)]


@cache
def blocks_of(question: str, file: str) -> list[str]:
    """The blocks of a question: the one of its name, or several with a letter after it (1.1a, 1.1b)."""
    return [block for block in blocks.parse(pristine().get(file, "")) if block == question or block[:-1] == question]

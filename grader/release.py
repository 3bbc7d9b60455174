"""Makes handout/ from solution/: the same files with the body of every block emptied."""

from __future__ import annotations

from pathlib import Path

from . import blocks
from .assignment import HANDOUT, SOLUTION, handout_files


class FilledError(Exception):
    """The handout holds somebody's work; the message says where."""


def make_handout(solution: Path = SOLUTION, handout: Path = HANDOUT, force: bool = False) -> list[str]:
    """Write the handout. Returns the names of the files that changed.

    Raises:
        FilledError: if a block of the handout is filled in, unless `force`.
    """
    wanted = handout_files(solution)
    filled = [
        f"{name} ({question})"
        for name in wanted
        if (handout / name).exists()
        for question, block in blocks.parse((handout / name).read_text("utf-8")).items()
        if block.attempted
    ]
    if filled and not force:
        raise FilledError(
            f"These blocks of the handout are filled in and would be lost: {', '.join(filled)}. "
            "Copy them elsewhere, or run again with FORCE=1."
        )
    handout.mkdir(exist_ok=True)
    changed = []
    for name, text in wanted.items():
        path = handout / name
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")
            changed.append(name)
    for path in [*handout.glob("*.py"), *handout.glob("*.md")]:
        if path.name not in wanted:
            path.unlink()
            changed.append(path.name)
    return changed

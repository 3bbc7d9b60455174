"""Lines of a student's file that are not part of an answer and would end it: they are taken out, and said.

No line is added or removed, so that the lines of an error are those of the student's file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from . import blocks
from .blocks import Block
from .engine.text import printable
from .words import read_lines, split_lines

NOTEBOOK = re.compile(r"[ \t\f]*(?:%{1,2}[A-Za-z]|![ \t]*[A-Za-z./]|get_ipython[ \t]*\(|[A-Za-z_][\w.]*\?{1,2}[ \t]*$)")
SHOWN = 3  # lines that are quoted in a sentence


def without_notebook_lines(text: str, file: str) -> tuple[str, list[str]]:
    """A file whose lines of a notebook, like `%%writefile` and `!pip`, are comments; and a sentence on them."""
    written = split_lines(text)
    found = [at for at, line in enumerate(read_lines(text)) if not line.continues and NOTEBOOK.match(written[at])]
    if not found:
        return text, []
    quoted = ", ".join(f"`{printable(written[at].strip(), 40)}`" for at in found[:SHOWN])
    more = f" and {len(found) - SHOWN} more" if found[SHOWN:] else ""
    what = "is a command of a notebook" if len(found) == 1 else "are commands of a notebook"
    note = f"{file}: {quoted}{more} {what}, not Python ({_lines(found)}); delete the line{'s'[: len(found) > 1]}."
    for at in found:
        written[at] = _commented(written[at])
        if written[at].lstrip()[2:].startswith("get_ipython"):
            for following in _continuation(text, at):
                written[following] = "# " + written[following]
    return "\n".join(written), [note]


def _commented(line: str) -> str:
    """A line as a comment; within a block of code, which must not be empty, after a `pass`."""
    code = line.lstrip()
    indent = line[: len(line) - len(code)]
    return f"{indent}pass  # {code}" if indent else f"# {code}"


def _continuation(text: str, at: int) -> Sequence[int]:
    """The lines that continue line `at`."""
    lines = read_lines(text)
    end = at + 1
    while end < len(lines) and lines[end].continues:
        end += 1
    return range(at + 1, end)


def without_leftovers(text: str, file: str, handout: str) -> tuple[str, list[str]]:
    """A file without the placeholders left in blocks that are filled in, and without copies of blocks; and notes."""
    written = split_lines(text)
    notes = []
    for block in blocks.parse(text, handout).values():
        if block.copies:
            lines = [at for start, end in block.copies for at in range(start, end)]
            for at in lines:
                written[at] = "# " + written[at]
            kept = f"lines {block.start + 1} to {block.end}"
            notes.append(f"{file}: block {block.question} is there {_times(len(block.copies) + 1)}; {kept} count.")
        if block.attempted and (raising := _placeholders(text, block)):
            for at in raising:
                written[at] = written[at][: len(written[at]) - len(written[at].lstrip())] + "pass"
            which = "the line that raises" if len(raising) == 1 else "the lines that raise"
            notes.append(f"{file}: delete {which} in block {block.question}, {_lines(raising)}; it was left out here.")
    return "\n".join(written), notes


def _placeholders(text: str, block: Block) -> list[int]:
    """The lines of a block that are the handout's placeholder, at the block's own level."""
    argument = rf"(?:(['\"]){re.escape(block.question)}\1)?"
    raising = re.compile(rf"raise NotImplementedError(?:\(\s*{argument}\s*\))?\s*;?\s*(?:#.*)?")
    lines, written = read_lines(text)[block.start : block.end], split_lines(text)[block.start : block.end]
    level = min((line.indent for line in lines if line.words and not line.continues), default=0)
    return [
        block.start + at
        for at, (line, code) in enumerate(zip(lines, written, strict=True))
        if line.indent == level and not line.continues and raising.fullmatch(code.strip())
    ]


def _lines(found: Sequence[int]) -> str:
    """Line numbers, from 1, as they are said."""
    numbers = [str(at + 1) for at in found]
    if len(numbers) == 1:
        return f"line {numbers[0]}"
    return f"lines {', '.join(numbers[:-1])} and {numbers[-1]}"


def _times(count: int) -> str:
    return "twice" if count == 2 else f"{count} times"

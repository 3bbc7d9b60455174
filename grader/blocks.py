"""Blocks: the parts of a student file between rulers, which students fill in.

A block is an opening ruler that says "Your code here", a comment that names the question, a second ruler, the
body, and a closing ruler. One parser serves the handout, the solution, the bank and every submission.
"""

from __future__ import annotations

import io
import re
import textwrap
import tokenize
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

OPENING = re.compile(r"[ \t]*#{8,}[ \t]*your code here[ \t]*#{8,}[ \t]*", re.IGNORECASE)
RULER = re.compile(r"[ \t]*#{20,}[ \t]*")
COMMENT = re.compile(r"[ \t]*#.*")
TODO = re.compile(r"[ \t]*#[ \t]*TODO\((?P<question>[\w.]+)\).*")
PLACEHOLDER = re.compile(r"(pass|\.\.\.|raise NotImplementedError(\(.*\))?)\s*(#.*)?")
KEPT = 64  # files of which blocks are remembered: those of the handout, and of some submissions
LAYOUT_TOKENS = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.ENCODING, tokenize.ENDMARKER}


@dataclass(frozen=True)
class Block:
    """One block of a file; `start` and `end` are the line indices (from 0) of its body, end excluded."""

    question: str
    indent: str
    start: int
    end: int
    body: str

    @property
    def attempted(self) -> bool:
        """Whether the body holds any statement other than a placeholder."""
        lines = [line.strip() for line in self.body.splitlines()]
        return any(line and not line.startswith("#") and not PLACEHOLDER.fullmatch(line) for line in lines)


def split_lines(text: str) -> list[str]:
    """Lines as Python counts them (newlines of any system, and nothing else, end a line)."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


@lru_cache(KEPT)
def parse(text: str) -> Mapping[str, Block]:
    """Blocks of a file by question, in order. What is not a whole block is not in it."""
    lines = split_lines(text)
    found: dict[str, Block] = {}
    at = 0
    while at < len(lines):
        block = _block_at(lines, at)
        at = block.end + 1 if block else at + 1
        if block and block.question not in found:
            found[block.question] = block
    return MappingProxyType(found)


def _block_at(lines: list[str], opening: int) -> Block | None:
    """The block whose opening ruler is line `opening`, if there is one."""
    if not OPENING.fullmatch(lines[opening]):
        return None
    question, at = None, opening + 1
    while at < len(lines) and COMMENT.fullmatch(lines[at]) and not RULER.fullmatch(lines[at]):
        if OPENING.fullmatch(lines[at]):
            return None
        todo = TODO.fullmatch(lines[at])
        question = todo["question"] if todo else question
        at += 1
    if question is None or at == len(lines) or not RULER.fullmatch(lines[at]):
        return None
    start = at + 1
    for end in range(start, len(lines)):
        if OPENING.fullmatch(lines[end]):
            return None
        if RULER.fullmatch(lines[end]):
            indent = lines[opening][: len(lines[opening]) - len(lines[opening].lstrip())]
            return Block(question, indent, start, end, "\n".join(lines[start:end]))
    return None


def fill(text: str, question: str, code: str) -> str:
    """`text` with the body of one block replaced by `code`, indented to fit. KeyError if it has no such block."""
    block = parse(text)[question]
    lines = split_lines(text)
    body = textwrap.indent(textwrap.dedent(code).strip("\n"), block.indent)
    return "\n".join([*lines[: block.start], body, *lines[block.end :]])


@lru_cache(KEPT)
def empty(text: str) -> str:
    """`text` with the body of every block replaced by `raise NotImplementedError("<question>")`."""
    lines = split_lines(text)
    for question, block in reversed(list(parse(text).items())):
        lines[block.start : block.end] = [f'{block.indent}raise NotImplementedError("{question}")']
    return "\n".join(lines)


def changed_outside(submitted: str, handout: str) -> tuple[int, int] | None:
    """First and last line (from 1) of `submitted` between which code outside the blocks differs from `handout`.

    Comments, blank lines and spacing do not count. None where nothing differs.
    """
    untouched, emptied = empty(handout), empty(submitted)
    if untouched == emptied:
        return None
    ours, theirs = _tokens(untouched), _tokens(emptied)
    if [token for token, _ in ours] == [token for token, _ in theirs]:
        return None
    # Lines are counted in the submission as it was handed in, not as emptied.
    shift = _line_shift(submitted)
    before = _common_prefix(ours, theirs)
    after = _common_prefix(ours[before:][::-1], theirs[before:][::-1])
    first = theirs[min(before, len(theirs) - 1)][1] if theirs else 1
    last = theirs[max(before, len(theirs) - after - 1)][1] if len(theirs) > before else first
    return shift(first), shift(max(first, last))


def _common_prefix(a: list[tuple[str, int]], b: list[tuple[str, int]]) -> int:
    """Number of leading tokens that two streams share."""
    shared = 0
    for (x, _), (y, _) in zip(a, b, strict=False):
        if x != y:
            break
        shared += 1
    return shared


def _line_shift(text: str) -> Callable[[int], int]:
    """A function from a line number of `empty(text)` to the line number of `text`."""
    bodies = [(block.start, block.end) for block in parse(text).values()]

    def shift(line: int) -> int:
        for start, end in bodies:
            if line > start + 1:
                line += end - start - 1
        return line

    return shift


def _tokens(text: str) -> list[tuple[str, int]]:
    """Tokens that mean something, with their lines; stripped lines where the text is no Python.

    Python's tokeniser does not recurse, so that a hostile file cannot exhaust the stack, as its parser can.
    """
    try:
        stream = list(tokenize.generate_tokens(io.StringIO(text).readline))
    except (tokenize.TokenError, SyntaxError):
        return [(line.strip(), n) for n, line in enumerate(split_lines(text), 1) if line.strip()]
    layout = {tokenize.INDENT: "<indent>", tokenize.DEDENT: "<dedent>"}
    return [(layout.get(t.type, t.string), t.start[0]) for t in stream if t.type not in LAYOUT_TOKENS]

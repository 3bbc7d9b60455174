"""Blocks: the parts of a student file between rulers, which students fill in.

A block is an opening ruler that says "Your code here", a comment that names the question, a second ruler, the body, and
a closing ruler. In a submission all of them may be changed or gone: a block is then what stands between the
handout's own lines, those before it and those after it in its function.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType

from .words import CLOSING, MARKS, Line, Scope, Word, read_lines, scopes, split_lines

__all__ = ["Block", "empty", "fill", "parse", "split_lines"]

OPENING = re.compile(r"[ \t\f]*#{8,}[ \t]*your code here[ \t]*#{8,}[ \t\f]*", re.IGNORECASE)
RULER = re.compile(r"[ \t\f]*#{20,}[ \t\f]*")
COMMENT = re.compile(r"[ \t\f]*#.*")
TODO = re.compile(r"[ \t\f]*#[ \t]*TODO\((?P<question>[\w.]+)\).*")
PLACEHOLDER = re.compile(r"(pass|\.\.\.|raise NotImplementedError(\(.*\))?)\s*(#.*)?")
KEPT = 64  # files of which blocks are remembered: those of the handout, and of some submissions


@dataclass(frozen=True)
class Block:
    """One block of a file.

    Attributes:
        question: its name.
        indent: white space before its code.
        start, end: line indices (from 0) of its body, end excluded.
        body: those lines.
        copies: start and end of the bodies of copies of it, which do not count.
    """

    question: str
    indent: str
    start: int
    end: int
    body: str
    copies: tuple[tuple[int, int], ...] = ()

    @property
    def attempted(self) -> bool:
        """Whether the body holds any statement other than a placeholder."""
        lines = [line.strip() for line in split_lines(self.body)]
        return any(line and not line.startswith("#") and not PLACEHOLDER.fullmatch(line) for line in lines)


@lru_cache(KEPT)
def parse(text: str, handout: str = "") -> Mapping[str, Block]:
    """Blocks of a file by question, in order. What is not a whole block is not in it.

    Args:
        text: of the file.
        handout: the same file as it was given out, by which blocks are found whose rulers were changed.
    """
    ruled = _between_rulers(split_lines(text))
    if not handout or _emptied(text, ruled) == handout:
        return MappingProxyType(ruled)
    found = {}
    for question, given in _places(handout).items():
        block = ruled.get(question)
        if block is None or not _goes_on(text, block, given):
            block = _between_code(text, given) or block
        if block is not None:
            found[question] = block
    return MappingProxyType(found)


# ---------------------------------------------------------------- by rulers


def _between_rulers(lines: Sequence[str]) -> dict[str, Block]:
    """Blocks by their rulers; of copies the first."""
    found: dict[str, Block] = {}
    at = 0
    while at < len(lines):
        block = _block_at(lines, at)
        at = block.end + 1 if block else at + 1
        if block and block.question not in found:
            found[block.question] = block
    return found


def _block_at(lines: Sequence[str], opening: int) -> Block | None:
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
            return _block(question, lines, opening, start, end)
    return None


def _block(question: str, lines: Sequence[str], opening: int, start: int, end: int) -> Block:
    """The block of these lines, whose indent is that of its code, or where it has none that of its first ruler."""
    code = (line for line in lines[start:end] if line.strip() and not COMMENT.fullmatch(line))
    first = next(code, lines[opening])
    return Block(question, first[: len(first) - len(first.lstrip())], start, end, "\n".join(lines[start:end]))


# ---------------------------------------------------------------- by the handout's code


@dataclass(frozen=True)
class _Place:
    """Where a block is in the handout.

    Attributes:
        question: name of the block.
        scope: dotted name of the function around it.
        before: words of the function before the block.
        after: words of the function after it.
        then: all words after it up to the next block.
    """

    question: str
    scope: str
    before: list[str]
    after: list[str]
    then: list[str]


@lru_cache(KEPT)
def _places(handout: str) -> dict[str, _Place]:
    """The blocks of the handout by name."""
    lines, inside = read_lines(handout), scopes(handout)
    ruled = list(_between_rulers(split_lines(handout)).values())
    places = {}
    for block, following in zip(ruled, [*ruled, None][1:], strict=True):
        around = [scope for scope in inside if scope.start < block.start <= block.end <= scope.end + 1]
        scope = around[-1] if around else Scope("", 0, len(lines))
        places[block.question] = _Place(
            block.question,
            scope.name,
            *(
                [word.text for word in _kept(_words(lines, start, end))]
                for start, end in (
                    (scope.start, block.start),
                    (block.end, scope.end),
                    (block.end, following.start if following else len(lines)),
                )
            ),
        )
    return places


def _words(lines: Sequence[Line], start: int, end: int) -> list[Word]:
    return [word for line in lines[start:end] for word in line.words]


def _kept(words: Iterable[Word]) -> list[Word]:
    """Words that place a block: no string, which may be a docstring, and nothing that formatters add and take away."""
    return [word for word in words if word.text not in MARKS and not word.is_string]


def _goes_on(text: str, block: Block, given: _Place) -> bool:
    """Whether the handout's code follows the closing ruler of a block."""
    rest = _words(read_lines(text), block.end, len(split_lines(text)))
    return [word.text for word in _kept(rest)][: max(1, len(given.then))] == given.then


def _between_code(text: str, given: _Place) -> Block | None:
    """A block between the handout's code before and after it in its function, the last function of that name."""
    scope = next((scope for scope in reversed(scopes(text)) if scope.name == given.scope), None)
    if scope is None:
        return None
    words, written = _words(read_lines(text), scope.start, scope.end), split_lines(text)
    head = _head(words, given.before, written, scope)
    if head is None:
        return None
    tail = _tail(words, head, given.after, written)
    first = words[head - 1].last + 1 if head else scope.start
    last = words[tail].first if tail < len(words) else scope.end
    while last < len(written) and tail == len(words) and COMMENT.fullmatch(written[last]):
        last += 1
    code = range(words[head].first, words[tail - 1].last + 1) if head < tail else range(last, last)
    return _whole(written, given.question, range(first, last), code)


def _head(words: Sequence[Word], before: list[str], written: Sequence[str], scope: Scope) -> int | None:
    """How many words of a function come before its block; None if nothing tells."""
    kept = _kept(words)[: len(before)]
    if [word.text for word in kept] == before:
        head = words.index(kept[-1]) + 1 if kept else 0
        while head < len(words) and (words[head].text in CLOSING or words[head].is_string):
            head += 1
        return head
    mark = next((at for at in range(scope.start, scope.end) if _is_mark(written[at])), None)
    return None if mark is None else sum(word.last < mark for word in words)


def _tail(words: Sequence[Word], head: int, after: list[str], written: Sequence[str]) -> int:
    """How many words of a function come before the handout's code after its block, or else before the last ruler."""
    kept = _kept(words[head:])[-len(after) :]
    if not after or head == len(words):
        return len(words)
    if [word.text for word in kept] == after:
        return words.index(kept[0], head)
    rulers = [at for at in range(words[head].first + 1, words[-1].first) if RULER.fullmatch(written[at])]
    return sum(word.last < rulers[-1] for word in words) if rulers else len(words)


def _is_mark(line: str) -> bool:
    """Whether a line is one that begins a block."""
    return bool(OPENING.fullmatch(line) or TODO.fullmatch(line))


def _whole(written: Sequence[str], question: str, place: range, code: range) -> Block:
    """The block in the lines of `place`, those of `code` its statements; of several copies the first that is filled."""
    copies = [block for at in place if (block := _block_at(written, at))]
    if len(copies) > 1:
        kept = next((copy for copy in copies if copy.attempted), copies[0])
        others = tuple((copy.start, copy.end) for copy in copies if copy is not kept)
        return replace(kept, question=question, copies=others)
    heading = range(place.start, code.start)
    opening = next((at for at in heading if _is_mark(written[at])), place.start)
    start = next((at + 1 for at in heading if at > opening and RULER.fullmatch(written[at])), code.start)
    after = range(max(start, code.stop), place.stop)
    end = next((at for at in reversed(after) if RULER.fullmatch(written[at])), place.stop)
    return _block(question, written, min(opening, len(written) - 1), start, end)


# ---------------------------------------------------------------- filling and emptying


def fill(text: str, question: str, code: str, handout: str = "") -> str:
    """`text` with the body of one block replaced by `code`, indented to fit. KeyError if it has no such block."""
    block = parse(text, handout)[question]
    lines = split_lines(text)
    body = textwrap.indent(textwrap.dedent(code).strip("\n"), block.indent)
    return "\n".join([*lines[: block.start], body, *lines[block.end :]])


@lru_cache(KEPT)
def empty(text: str, handout: str = "") -> str:
    """`text` with the body of every block replaced by `raise NotImplementedError("<question>")`, and without copies."""
    return _emptied(text, parse(text, handout))


def _emptied(text: str, found: Mapping[str, Block]) -> str:
    """`text` with the bodies of blocks replaced by placeholders."""
    lines = split_lines(text)
    bodies = [(block.start, block.end, [_placeholder(block)]) for block in found.values()]
    bodies += [(start, end, []) for block in found.values() for start, end in block.copies]
    for start, end, instead in sorted(bodies, key=lambda body: body[:2], reverse=True):
        lines[start:end] = instead
    return "\n".join(lines)


def _placeholder(block: Block) -> str:
    return f'{block.indent}raise NotImplementedError("{block.question}")'

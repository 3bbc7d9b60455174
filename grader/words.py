"""The words of a Python file, line by line, even if something is wrong with the file.

Python's own tokeniser gives up at the first bracket that is not closed. This one never does, so that a mistake in one
block does not hide the others; and it does not recurse, so that hostile text cannot exhaust it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

KEPT = 128  # files of which words are remembered
TAB = 8
TOKEN = re.compile(
    r"""
      (?P<space> \#[^\n]* | [ \t\f]+ | \\\n )
    | (?P<line> \n )
    | (?P<text> (?i:[rbfu]{0,2}) (?: (?P<three>\"{3}|'{3}) (?:\\.|(?!(?P=three)).)* (?P=three)?
        | (?P<one>["']) (?:\\.|(?!(?P=one))[^\\\n])* (?P=one)? ) )
    | (?P<number> \.?\d[\w.]* (?:(?<=[eE])[+-]\w+)? )
    | (?P<name> \w+ )
    | \*\*=? | //=? | -> | := | [=!<>+*/%@&|^-]= | .
    """,
    re.VERBOSE | re.DOTALL,
)
SCOPE = re.compile(r"(?P<indent>[ \t\f]*)(?:async[ \t]+)?(?:def|class)[ \t]+(?P<name>\w+)")
MARKS = frozenset("(),;")  # what a formatter adds around an expression and takes away
CLOSING = frozenset("),;")


@dataclass(frozen=True)
class Word:
    """One token, where it begins, and its first and last line, from 0. A string is its text without spaces."""

    text: str
    at: int
    first: int
    last: int

    @property
    def is_string(self) -> bool:
        """Whether it is a string."""
        return self.text[0] == '"'


@dataclass(frozen=True)
class Line:
    """A line: its indent in columns, its words, and whether it continues the line before it."""

    indent: int
    words: tuple[Word, ...]
    continues: bool


@dataclass(frozen=True)
class Scope:
    """A function or class: its dotted name, and the line indices of its first line and of the one after its last."""

    name: str
    start: int
    end: int


def split_lines(text: str) -> list[str]:
    """Lines as Python counts them (newlines of any system, and nothing else, end a line)."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def columns(line: str) -> int:
    """The indent of a line, as Python counts it."""
    column = 0
    for character in line:
        if character not in " \t\f":
            break
        column = {" ": column + 1, "\t": (column // TAB + 1) * TAB, "\f": 0}[character]
    return column


@lru_cache(KEPT)
def read_lines(text: str) -> tuple[Line, ...]:
    """The lines of a file with their words. A line that begins with def or class continues no bracket."""
    written = split_lines(text)
    words: list[list[Word]] = [[] for _ in written]
    continues = [False] * len(written)
    at, depth = 0, 0
    for found in TOKEN.finditer("\n".join(written)):
        kind, token = found.lastgroup, found[0]
        last = at + token.count("\n")
        if kind == "line":
            continues[last] = depth > 0 and not SCOPE.match(written[last])
            depth = depth if continues[last] else 0
        else:
            continues[at + 1 : last + 1] = [True] * (last - at)
        if kind not in ("line", "space"):
            depth = max(0, depth + (token in "([{") - (token in ")]}"))
            words[at].append(Word(_plain(token, found), found.start(), at, last))
        at = last
    return tuple(Line(columns(line), tuple(w), c) for line, w, c in zip(written, words, continues, strict=True))


def _plain(token: str, found: re.Match[str]) -> str:
    """A token as it is compared: of strings the text alone."""
    quote = found["three"] or found["one"]
    if quote is None:
        return token.lower() if found["number"] else token
    inner = token[token.index(quote) + len(quote) :].removesuffix(quote)
    return '"' + "".join(inner.split())


def scopes(text: str) -> list[Scope]:
    """The functions and classes of a file, in order, those within others too."""
    written, lines = split_lines(text), read_lines(text)
    around: list[tuple[int, Scope]] = []
    done: list[Scope] = []
    end = 0  # of the code so far
    for at, line in enumerate(lines):
        if line.words and not line.continues:
            while around and line.indent <= around[-1][0]:
                done.append(replace(around.pop()[1], end=end))
            if found := SCOPE.match(written[at]):
                name = f"{around[-1][1].name}.{found['name']}" if around else found["name"]
                around.append((line.indent, Scope(name, at, at)))
        end = at + 1 if line.words or line.continues else end
    done += [replace(scope, end=end) for _, scope in around]
    return sorted(done, key=lambda scope: scope.start)


def loose(words: Iterable[Word]) -> list[str]:
    """Words without what a formatter adds or takes away: brackets, commas, the seams of a string."""
    kept: list[str] = []
    for word in words:
        if word.is_string and kept and kept[-1][0] == '"':
            kept[-1] += word.text[1:]
        elif word.text not in MARKS:
            kept.append(word.text)
    return kept

"""What a student changed outside the blocks, by name: functions, classes and imports, for any layout."""

from __future__ import annotations

import ast
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from . import blocks
from .engine.text import printable
from .words import Word, loose, read_lines, scopes, split_lines

MAX_WORDS = 300  # of a statement that is parsed: a deeper one could exhaust the stack
MAX_STATEMENTS = 300
MAX_INDENT = 80  # columns
MAX_SHOWN = 6  # names in a sentence
MAX_NAME = 200  # characters
REST = "code outside functions and classes"


@dataclass(frozen=True)
class Statement:
    """A statement, or the first line of a compound one: its indent in columns, its lines and its words."""

    indent: int
    start: int
    end: int
    words: tuple[Word, ...]

    def begins(self, *words: str) -> bool:
        """Whether its first word is one of these."""
        return self.words[0].text in words


@dataclass
class Part:
    """A function, a class without its functions, one imported name, or the rest."""

    statements: list[Statement] = field(default_factory=list)
    code: list[str] = field(default_factory=list)

    @property
    def words(self) -> list[Word]:
        """The words of all its statements."""
        return [word for statement in self.statements for word in statement.words]


def changes(submitted: str, handout: str) -> str:
    """What was changed outside the blocks, like "mix was added; GANLossG.forward was changed"; "" if nothing was.

    Comments, docstrings, layout, the order of imports, and code that only runs as a script do not count.
    """
    untouched, emptied = blocks.empty(handout), blocks.empty(submitted, handout)
    if untouched == emptied:
        return ""
    given, found = _parts(untouched), _parts(emptied)
    names = {
        "added": _outermost([name for name in found if name not in given]),
        "removed": _outermost([name for name in given if name not in found]),
        "changed": [name for name, part in found.items() if name in given and not _same(part, given[name])],
    }
    return "; ".join(f"{_listed(some)} {'were' if some[1:] else 'was'} {verb}" for verb, some in names.items() if some)


def _listed(names: Sequence[str]) -> str:
    shown = [printable(name, 60) for name in names]
    if names[MAX_SHOWN:]:
        return f"{', '.join(shown[:MAX_SHOWN])} and {len(names) - MAX_SHOWN} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if shown[1:] else shown)


def _outermost(names: Sequence[str]) -> list[str]:
    """Names without those of what is inside another of them."""
    whole = set(names)
    return [name for name in names if not any(name[:at] in whole for at, c in enumerate(name) if c == ".")]


# ---------------------------------------------------------------- the parts of a file


def _parts(text: str) -> Mapping[str, Part]:
    """The parts of a file by name, without docstrings and what only runs as a script."""
    written = split_lines(text)
    owner = [REST] * len(written)
    for scope in scopes(text):
        owner[scope.start : scope.end] = [scope.name] * (scope.end - scope.start)
    parts: dict[str, Part] = {}
    decorators: list[Statement] = []
    for statement in _without_script(_statements(text)):
        decorators.append(statement)
        if statement.begins("@"):
            continue
        name = owner[statement.start]
        if name == REST and statement.begins("import", "from"):
            for imported, words in _imported(statement.words):
                one = Statement(0, statement.start, statement.end, words)
                parts.setdefault(f"the import of {imported}", Part()).statements.append(one)
        elif not all(word.is_string for word in statement.words):
            part = parts.setdefault(name, Part())
            part.statements += decorators
            part.code += [line for each in decorators for line in written[each.start : each.end]]
        decorators = []
    return parts


def _statements(text: str) -> Iterator[Statement]:
    """The statements of a file."""
    lines = read_lines(text)
    starts = [at for at, line in enumerate(lines) if line.words and not line.continues]
    for start, following in zip(starts, [*starts, len(lines)][1:], strict=True):
        end = max(at + 1 for at in range(start, following) if at == start or lines[at].continues)
        words = tuple(word for line in lines[start:end] for word in line.words if word.text != ";")
        if words:
            yield Statement(lines[start].indent, start, end, words)


def _without_script(statements: Iterator[Statement]) -> Iterator[Statement]:
    """Statements without those of `if __name__ == "__main__":`."""
    script = False
    for statement in statements:
        if statement.indent == 0:
            compared = [word.text for word in statement.words if word.text not in "()"]
            script = compared[:3] == ["if", "__name__", "=="] or (script and statement.begins("else", "elif"))
        if not script:
            yield statement


def _imported(words: Sequence[Word]) -> Iterator[tuple[str, tuple[Word, ...]]]:
    """The names that an import makes, each with the words that say where from."""
    texts = [word.text for word in words]
    at = texts.index("import") if "import" in texts else 0
    source = replace(words[0], text="".join(texts[:at]) or "import")
    one: list[Word] = []
    for word in [*words[at + 1 :], None]:
        if word is not None and word.text != ",":
            one += [word] if word.text not in "()" else []
        elif one:
            name = one[-1].text if "as" in [w.text for w in one] else "".join(w.text for w in one)
            yield name[:MAX_NAME], (source, *one)
            one = []


# ---------------------------------------------------------------- whether two are the same


def _same(one: Part, other: Part) -> bool:
    """Whether two parts do the same: to the letter, or brackets aside and as Python understands them."""
    if _exact(one.words) == _exact(other.words):
        return True
    if loose(one.words) != loose(other.words):
        return False
    first, second = _understood(one), _understood(other)
    return first is None or second is None or first == second


def _exact(words: Sequence[Word]) -> list[str]:
    """Words without the commas before a closing bracket."""
    following = [*(word.text for word in words[1:]), ""]
    pairs = zip(words, following, strict=True)
    return [word.text for word, after in pairs if word.text != "," or after not in (")", "]", "}")]


def _understood(part: Part) -> str | None:
    """A part as Python understands it; None where it cannot, or where its nesting could harm the parser."""
    long = any(len(each.words) > MAX_WORDS or each.indent > MAX_INDENT for each in part.statements)
    if long or len(part.statements) > MAX_STATEMENTS:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd escapes in strings
            return ast.dump(ast.parse(textwrap.dedent("\n".join(part.code))))
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        return None

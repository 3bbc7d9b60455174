"""Makes text of unknown origin safe to show, where it enters: what comes from a worker or a hand-in is hostile."""

from __future__ import annotations

import unicodedata
from dataclasses import fields
from typing import Any

MOST = 2000  # characters of a text that is shown
MOST_ITEMS = 1000  # of a list or mapping of texts
CUT = " ..."
CHARACTERS = "characters"  # the metadata of a field that has another limit
# Controls, bidi and format marks, lone surrogates, private use.
HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
BLANK = "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0"  # of other categories, and not seen


def printable(text: str, limit: int = 500) -> str:
    """`text` with control, bidi and other invisible characters spelled out, cut to `limit` characters.

    Newlines and tabs stay. Terminal escapes lose their effect; markup is for the page that shows it to escape. What
    was made printable once stays as it is.
    """
    kept = text[: limit + len(CUT) + 1]
    shown = kept if kept.isascii() and kept.isprintable() else "".join(map(_visible, kept))
    return shown if len(shown) <= limit + len(CUT) else shown[:limit] + CUT


def _visible(character: str) -> str:
    """A character, or its number where it has an effect or cannot be seen."""
    if character in "\n\t" or (unicodedata.category(character) not in HIDDEN and not _is_blank(character)):
        return character
    return f"\\u{ord(character):04x}"


def _is_blank(character: str) -> bool:
    """Whether a letter or mark shows nothing: a filler, or a selector of variants."""
    return character in BLANK or "\ufe00" <= character <= "\ufe0f" or character >= "\U000e0000"


def clean(value: Any, limit: int = MOST) -> Any:
    """A value whose texts, and those in lists, tuples and dictionaries in it, are printable and not too many."""
    if type(value) is str:
        return printable(value, limit)
    if type(value) in (list, tuple):
        return type(value)(clean(item, limit) for item in value[:MOST_ITEMS])
    if type(value) is dict:
        kept = list(value.items())[:MOST_ITEMS]
        return {clean(name, limit): clean(item, limit) for name, item in kept}
    return value


class Clean:
    """A dataclass whose texts are cleaned when it is made, those of fields that are added later too."""

    def __post_init__(self) -> None:
        for each in fields(self):  # type: ignore[arg-type]
            value = getattr(self, each.name)
            object.__setattr__(self, each.name, clean(value, each.metadata.get(CHARACTERS, MOST)))

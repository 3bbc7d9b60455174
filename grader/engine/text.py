"""Makes text of unknown origin safe to show: student text is hostile until it went through here."""

from __future__ import annotations

import unicodedata

HIDDEN = {
    "Cc",
    "Cf",
    "Cs",
    "Co",
    "Cn",
    "Zl",
    "Zp",
}  # controls, bidi and format marks, lone surrogates, private use


def printable(text: str, limit: int = 500) -> str:
    """`text` with control, bidi and other invisible characters spelled out, cut to `limit` characters.

    Newlines and tabs stay. Terminal escapes lose their effect; markup is for the page that shows it to escape.
    """
    cut = text[:limit]
    shown = "".join(c if c in "\n\t" or unicodedata.category(c) not in HIDDEN else f"\\u{ord(c):04x}" for c in cut)
    return shown if len(text) <= limit else shown + " ..."

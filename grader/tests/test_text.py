"""Student text is hostile until it is printable."""

from __future__ import annotations

import pytest

from grader.engine.text import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\n\ttext", "plain\n\ttext"),
        ("\x1b[31mred", "\\u001b[31mred"),
        ("a\rb\x07\x00", "a\\u000db\\u0007\\u0000"),
        ("\u202etxt.exe", "\\u202etxt.exe"),
        ("\u200bhidden\ufeff", "\\u200bhidden\\ufeff"),
        ("\u2028", "\\u2028"),
        ("\ud800", "\\ud800"),
        ("学生 é ñ", "学生 é ñ"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_printable_is_capped() -> None:
    assert printable("x" * 1000, 10) == "x" * 10 + " ..."

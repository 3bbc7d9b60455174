"""Student text is hostile until it is printable."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import pytest

from grader.checks.runner import Outcome
from grader.engine.isolation import Isolation
from grader.engine.student import Failure
from grader.engine.text import CUT, MOST, printable
from grader.grading import load_checks
from grader.report.result import OUTPUT_CHARACTERS, CheckResult, QuestionResult, Result


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
        ("a\u3164b\ufe0f", "a\\u3164b\\ufe0f"),
        ("学生 é ñ", "学生 é ñ"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_printable_is_capped() -> None:
    assert printable("x" * 1000, 10) == "x" * 10 + " ..."


# ---------------------------------------------------------------- nothing of a result goes around it

HOSTILE = "\x1b[2J\ud800\u202e\u200b\0" + "\U0001f600" * 5000
KINDS: list[tuple[type, dict[str, Any]]] = [
    (Outcome, {"check": load_checks()["2.1a/kl_gradient"]}),
    (CheckResult, {}),
    (QuestionResult, {}),
    (Result, {}),
    (Isolation, {"stopped": {HOSTILE: True}}),
]


def hostile(hint: str) -> Any:
    """A value of a type, with hostile text wherever it has text."""
    if hint.startswith("str"):
        return HOSTILE
    if hint.startswith(("dict[str, str]", "list[str]")):
        return {HOSTILE: HOSTILE} if hint.startswith("dict") else [HOSTILE] * 2
    return {"f": 0.0, "i": 1, "b": False, "l": [], "d": {}}.get(hint[0].lower())


def strings(value: Any) -> Iterator[str]:
    """Every text in a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for pair in value.items():
            yield from strings(pair)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from strings(item)


@pytest.mark.parametrize(("kind", "given"), KINDS, ids=lambda part: getattr(part, "__name__", ""))
def test_every_text_of_a_result_is_cleaned_when_it_is_made(kind: type, given: dict[str, Any]) -> None:
    """Also of a field that is added later: its type says whether it holds text."""
    made = kind(**{each.name: hostile(str(each.type)) for each in fields(kind)} | given)
    found = [text for each in fields(kind) for text in strings(getattr(made, each.name))]
    assert len(found) >= 2
    for text in found:
        text.encode("utf-8")
        assert printable(text, len(text)) == text
        assert len(text) <= OUTPUT_CHARACTERS + len(CUT)
    assert replace(made) == made


def test_a_failure_is_clean_whoever_raises_it() -> None:
    failure = Failure("wrong", HOSTILE, HOSTILE, HOSTILE)
    for text in (failure.message, failure.hint, failure.where):
        assert text == printable(HOSTILE, MOST)


def test_printable_twice_is_printable_once() -> None:
    for text in ("x" * 20, "\x1b" * 20, "\ufe0f" * 7, "a\n\u3164b" * 9):
        for limit in range(1, 40):
            assert printable(printable(text, limit), limit) == printable(text, limit)
            assert len(printable(text, limit)) <= limit + len(CUT)


def test_a_result_is_small_whatever_a_worker_says() -> None:
    check = CheckResult("2.1a/x", HOSTILE, "wrong", 0, 1, HOSTILE, HOSTILE, 0, "student", HOSTILE, HOSTILE)
    question = QuestionResult("2.1a", HOSTILE, 0, 1, "wrong", [check] * 10)
    notes, words = [HOSTILE] * 10, {HOSTILE: HOSTILE}
    result = Result(
        1, HOSTILE, 0, "cpu", words, words, 0, 1, 0, 0, notes, HOSTILE * 100, [question], {"student": HOSTILE}
    )
    assert len(result.to_json()) < 12 * (10 * 5 * MOST + 10 * MOST + 2 * OUTPUT_CHARACTERS + 10 * MOST)
    assert Result.from_fields(json.loads(result.to_json())) == result

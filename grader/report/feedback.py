"""What of a result is shown to whom: hints open by steps, after as many attempts as the rubric asks for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from grader.rubric import AUDIENCES, Question

from .result import CheckResult, QuestionResult, Result

MAX_TEXT = 20_000


def visible_to(result: Result, audience: str) -> Result:
    """The result without the checks that one of AUDIENCES may not see; the points of questions stay.

    What student code printed goes too, from where it could have printed the inputs of such checks.
    """
    levels = AUDIENCES[: AUDIENCES.index(audience) + 1]
    questions = [
        replace(question, checks=[check for check in question.checks if check.visibility in levels])
        for question in result.questions
    ]
    kept = [question for question in questions if question.checks]
    return replace(result, questions=kept, output=result.outputs.get(audience, result.output), outputs={})


def as_text(result: Result) -> str:
    """What a student reads where there is room for plain text only: points, and why some are missing.

    It is cut to MAX_TEXT characters, which is what the cells of gradebooks hold.
    """
    lines = [result.points]
    for question in result.shown:
        lines.append(_headline(question))
        lines += [f"  {reason}" for reason in (*(group[0].reason for group in question.reasons), *question.why_idle)]
    text = "\n".join([*lines, *(f"Note: {note}" for note in dict.fromkeys(result.notes))])
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]} ..."


def as_markdown(result: Result) -> str:
    """The same with every check that failed, as Markdown; what student code had a hand in stands in fences."""
    lines = [f"# {result.points}"]
    for question in result.shown:
        lines.append(f"\n## {_headline(question)}")
        for check in [check for group in question.reasons for check in group]:
            said = "\n".join(filter(None, (check.message, check.where, check.hint, check.later)))
            lines.append(f"\n- {check.title}\n{fenced(said, indent=2)}")
        lines += [f"\n{fenced(message)}" for message in question.why_idle]
    notes = [fenced(note) for note in dict.fromkeys(result.notes)]
    return "\n".join([*lines, *(["\n## Notes\n", *notes] if notes else [])]) + "\n"


def message_as_markdown(*sentences: str) -> str:
    """What a student reads in place of a result, as Markdown, which has no effect in it."""
    return "\n".join(map(fenced, sentences)) + "\n"


def _headline(question: QuestionResult) -> str:
    """A question, its points and its status."""
    return f"{question.id} {question.title}: {question.points}, {question.status.replace('_', ' ')}"


def fenced(text: str, indent: int = 0) -> str:
    """Text that Markdown shows as it is: in a fence longer than any run of backticks in it."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return "\n".join(" " * indent + line for line in [f"{fence}text", *text.splitlines(), fence])


def hold_back_hints(result: Result, questions: list[Question], attempt: int | Mapping[str, int] | None) -> Result:
    """The result as it is shown at a student's attempt: how much it says of a mistake grows from one to the next.

    What was measured is said at once; where the mistake is, and what it is, after as many attempts as the rubric asks
    for. Of code that raises or does not end everything is said at once.

    Args:
        result: of a submission.
        questions: those that were graded.
        attempt: counted from 1, of all questions or by question; everything is shown of a question without one.
    """
    by_id = {question.id: question for question in questions}
    shown = []
    for question in result.questions:
        at = attempt.get(question.id) if isinstance(attempt, Mapping) else attempt
        if at is not None:
            checks = [_at_attempt(check, by_id[question.id], at) for check in question.checks]
            question = replace(question, checks=checks)
        shown.append(question)
    return replace(result, questions=shown)


def _at_attempt(check: CheckResult, question: Question, attempt: int) -> CheckResult:
    """A check less what opens later, and a sentence that says so."""
    steps = (("where", question.where_after, "shows where"), ("hint", question.hints_after, "says what the mistake is"))
    held = [step for step in steps if getattr(check, step[0]) and attempt <= step[1]]
    if check.status != "wrong" or not held:
        return check
    _, wait, opens = min(held, key=lambda step: step[1])
    later = "The next attempt" if attempt == wait else f"Attempt {wait + 1}, {wait + 1 - attempt} after this one,"
    closed: dict[str, Any] = dict.fromkeys((name for name, _, _ in held), "")
    return replace(check, **closed, later=f"{later} {opens}.")

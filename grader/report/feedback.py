"""What of a result is shown to whom: hints open after as many attempts as the rubric asks for."""

from __future__ import annotations

import re
from dataclasses import replace

from grader.rubric import AUDIENCES, Question

from .result import Result, number


def visible_to(result: Result, audience: str) -> Result:
    """The result without the checks that one of AUDIENCES may not see; the points of questions stay."""
    levels = AUDIENCES[: AUDIENCES.index(audience) + 1]
    questions = [
        replace(question, checks=[check for check in question.checks if check.visibility in levels])
        for question in result.questions
    ]
    return replace(result, questions=[question for question in questions if question.checks])


def as_text(result: Result) -> str:
    """What a student reads where there is room for plain text only: points, and why some are missing."""
    lines = [result.points]
    for question in result.shown:
        points = f"{number(question.score)} of {number(question.max_score)}"
        lines.append(f"{question.id} {question.title}: {points}, {question.status.replace('_', ' ')}")
        reasons = dict.fromkeys(check.reason for check in question.checks if check.status != "passed")
        lines += [f"  {reason}" for reason in reasons if question.status != "not_attempted"]
    return "\n".join([*lines, *(f"Note: {note}" for note in result.notes)])


def as_markdown(result: Result) -> str:
    """The same with every check that failed, as Markdown; what student code had a hand in stands in fences."""
    lines = [f"# {result.points}"]
    for question in result.shown:
        points = f"{number(question.score)} of {number(question.max_score)}"
        lines.append(f"\n## {question.id} {question.title}: {points}, {question.status.replace('_', ' ')}")
        for check in question.checks:
            if check.status not in ("passed", "not_attempted"):
                said = "\n".join(part for part in (check.message, check.where, check.hint) if part)
                lines.append(f"\n- {check.title}\n{fenced(said, indent=2)}")
    notes = [fenced(note) for note in result.notes]
    return "\n".join([*lines, *(["\n## Notes\n", *notes] if notes else [])]) + "\n"


def fenced(text: str, indent: int = 0) -> str:
    """Text that Markdown shows as it is: in a fence longer than any run of backticks in it."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return "\n".join(" " * indent + line for line in [f"{fence}text", *text.splitlines(), fence])


def hold_back_hints(result: Result, questions: list[Question], attempt: int | None) -> Result:
    """The result as it is shown at a student's attempt, counted from 1; all hints are open where None is given."""
    if attempt is None:
        return result
    wait = {question.id: question.hints_after for question in questions}
    shown = []
    for question in result.questions:
        if attempt <= wait[question.id]:
            later = f"A hint opens with attempt {wait[question.id] + 1}; this is attempt {attempt}."
            checks = [replace(check, hint=later if check.hint else "") for check in question.checks]
            question = replace(question, checks=checks)
        shown.append(question)
    return replace(result, questions=shown)

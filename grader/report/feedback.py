"""What of a result is shown to whom: hints open after as many attempts as the rubric asks for."""

from __future__ import annotations

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
    lines = [f"{number(result.score)} of {number(result.max_score)} points"]
    for question in result.questions:
        points = f"{number(question.score)} of {number(question.max_score)}"
        lines.append(f"{question.id} {question.title}: {points}, {question.status.replace('_', ' ')}")
        reasons = dict.fromkeys(check.hint or check.message for check in question.checks if check.status != "passed")
        lines += [f"  {reason}" for reason in reasons if question.status != "not_attempted"]
    return "\n".join([*lines, *(f"Note: {note}" for note in result.notes)])


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

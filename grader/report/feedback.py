"""What of a result is shown to whom: hints open after as many attempts as the rubric asks for."""

from __future__ import annotations

from dataclasses import replace

from grader.rubric import Question

from .result import Result


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

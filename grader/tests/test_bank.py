"""Every right filling of the bank earns every point; every wrong one loses some, and its mistake is named."""

from __future__ import annotations

from collections import Counter

import pytest

from grader.bank import Filling, load_bank
from grader.checks.runner import stumbled
from grader.rubric import load
from grader.selfcheck.diagnoses import Diagnosis
from grader.submission import Submission

from .conftest import Graded, filled

BANK = load_bank()


@pytest.mark.parametrize("filling", BANK, ids=str)
def test_filling(filling: Filling, handout: Submission, graded: Graded) -> None:
    result = graded(filled(handout, filling.question, filling.blocks), filling.question)
    [question] = result.questions
    assert [check.id for check in question.checks if stumbled(check.status, check.message)] == [], result.log
    reasons = [f"{check.id}: {check.message}" for check in question.checks if check.status != "passed"]
    if filling.right:
        assert question.score == question.max_score, reasons
    else:
        assert question.score < question.max_score, f"not caught: {filling.mistake}"
        diagnosis = Diagnosis(filling, [check for check in question.checks if check.status != "passed"])
        assert all(check.message for check in diagnosis.failed)
        assert diagnosis.named or not filling.diagnosis, diagnosis.told
        assert diagnosis.untrue == []


@pytest.mark.parametrize("question", [question.id for question in load() if not question.needs])
def test_there_are_enough_fillings(question: str) -> None:
    counts = Counter(filling.right for filling in BANK if filling.question == question)
    assert counts[True] >= 6
    assert counts[False] >= 12


def test_wrong_fillings_differ_from_right_ones_in_code() -> None:
    codes = Counter((filling.question, *(code.strip() for code in filling.blocks.values())) for filling in BANK)
    assert [code for code, count in codes.items() if count > 1] == []

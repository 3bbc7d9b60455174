"""Points are earned by computing: recorded answers and constants earn nothing in any check."""

from __future__ import annotations

import pytest

from grader.checks.runner import Check
from grader.engine.launcher import ZygoteLauncher
from grader.grading import load_checks
from grader.rubric import Question
from grader.submission import Submission

from .conftest import EXACT, QUESTIONS, Graded
from .constants import constants
from .recorded import replayed

JUDGED = [check for check in load_checks().values() if QUESTIONS[check.question] in EXACT]


@pytest.mark.parametrize("check", JUDGED, ids=lambda check: check.id)
def test_what_the_solution_said_at_one_seed_is_wrong_at_another(
    check: Check, solution: Submission, launcher: ZygoteLauncher
) -> None:
    before, after = replayed(solution, QUESTIONS[check.question], check, launcher)
    assert before.status == "passed", before.message
    assert after.status in ("wrong", "error", "crashed"), after.message


@pytest.mark.parametrize("question", EXACT, ids=lambda question: question.id)
def test_a_constant_an_input_or_noise_earns_nothing(question: Question, handout: Submission, graded: Graded) -> None:
    tried = list(constants(question.id))
    assert len(tried) >= 5
    for blocks in tried:
        [result] = graded(handout.filled(question.file, blocks), question.id, seed=3).questions
        earned = [check.id for check in result.checks if check.status == "passed"]
        assert (result.score, earned) == (0, []) or set(earned) <= GIVEN, blocks
        assert result.status != "grader_error"


GIVEN = {
    "2.3a/given_schedules",
    "2.3b/given_reverse_step",
}  # worth 0 points: what the handout has, whatever a block does

"""Questions 3.1a and 3.1b for other lengths and offsets."""

from __future__ import annotations

from grader.checks.draw import Draw
from grader.checks.runner import question
from grader.checks.test_3_1_schedules import Arguments, expect_betas
from grader.engine.student import Student


@question("3.1a")
def test_linear_betas_of_other_lengths(student: Student, draw: Draw) -> None:
    """Other numbers of steps, up to 4000."""
    lengths = [4, 20, 21, draw.integer(400, 899), 4000]
    expect_betas(student.enhanced.linear_betas, "LINEAR_BETAS", [{"num_timesteps": n} for n in lengths])


@question("3.1b")
def test_cosine_betas_of_other_lengths(student: Student, draw: Draw) -> None:
    """Other numbers of steps, up to 4000, with other offsets."""
    offsets = [*draw.uniform(0, 2, 4).tolist(), 0.008, 0.0]
    lengths = [1, 3, draw.integer(150, 649), 2000, 4000, 4000]
    cases: list[Arguments] = [{"num_timesteps": n, "offset": s} for n, s in zip(lengths, offsets, strict=True)]
    expect_betas(student.enhanced.cosine_betas, "COSINE_BETAS", cases)

"""Question 3.7 on shapes and schedules that no public check has."""

from __future__ import annotations

from dataclasses import replace

from grader.checks.draw import Draw
from grader.checks.runner import question
from grader.checks.test_3_7_bound import Case, expect_bounds, expect_every_step
from grader.engine.student import Student
from grader.oracle.diffusion import Schedule


@question("3.7")
def test_bound_of_other_sizes(student: Student, draw: Draw) -> None:
    """Images of other shapes, with other schedules, errors and sizes."""
    large, near, single = (
        Case.drawn(draw, schedule, *shape)
        for schedule, shape in [
            (Schedule(0.03, 0.2, 2), (3, 4, 5, 7)),
            (Schedule(0.01, 0.1, 9), (5, 1, 1, 3)),
            (Schedule(0.4, 0.05, 6), (1, 2, 3, 1)),
        ]
    )
    large = replace(large, x_start=10 * large.x_start, noise_error=4 * large.noise_error)
    near = replace(near, noise_error=0.5 * near.noise_error)
    results = []
    for case in (large, near, single):
        value, seen = case.bound_of(student)
        expect_every_step(seen)
        results.append((value, case))
    expect_bounds(results)

"""Question 3.2 on shapes, schedules and steps that no public check has."""

from __future__ import annotations

from grader.checks.draw import Draw
from grader.checks.runner import question
from grader.checks.test_3_2_ddim import Way, expect_trajectories, run_checked
from grader.engine.student import Student
from grader.oracle.diffusion import GaussianData, Schedule


@question("3.2")
def test_ddim_of_other_sizes(student: Student, draw: Draw) -> None:
    """Images of other shapes, with other schedules and steps, and other data; moves with eta = 0.7.

    False-failure rate: at most 8e-10, at 23,040 numbers.
    """
    ways = [
        (GaussianData(Schedule(1e-4, 2e-2, 400), 0.8, 0.7), (0, 1, 57, 230, 399)),
        (GaussianData(Schedule(2e-2, 0.6, 7), 14.0, 2.0), (3, 5)),
    ]
    expect_trajectories(student, draw, ways, (1, 3, 2, 5))
    data = GaussianData(Schedule(1e-3, 0.2, 40), -0.6, 1.2)
    for shape in ((20, 2, 16, 9), (1, 2, 60, 48)):
        samples, seen = run_checked(student, draw, data, (1, 2, 11, 20, 38), shape, 0.7)
        Way(seen, samples, 0.7).expect_right()

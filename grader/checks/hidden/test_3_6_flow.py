"""Questions 3.6a and 3.6b on shapes, times and data that no public check has."""

from __future__ import annotations

import torch

from grader.checks.draw import Draw
from grader.checks.expect import wrong
from grader.checks.runner import question
from grader.checks.test_3_6_flow import (
    FLOW_POINTS,
    FLOW_VELOCITY,
    draw_path,
    expect_paths,
    expect_points,
    expect_times,
    paths,
    run_sampler,
)
from grader.engine.student import Student
from grader.oracle.flow import exact_samples
from grader.oracle.gaussian_flow import GaussianFlow

# Times that Heun's error gets smaller with half the step: 4.48 from 8 steps to 16 on BROAD, in the limit 4.
FALL = (4.0, 5.0)
BROAD = GaussianFlow(-2.0, 0.7)


@question("3.6a")
def test_flow_of_other_sizes(student: Student, draw: Draw) -> None:
    """Images of other shapes and sizes, at other times."""
    times = [draw.uniform(0, 1, 5), torch.tensor([1.0, 1e-4]), draw.uniform(0, 1, 1), torch.zeros(3)]
    shapes = [(1, 7, 3), (4, 1, 1), (2, 9, 2), (3, 2, 2)]
    cases = [draw_path(draw, time, *shape) for time, shape in zip(times, shapes, strict=True)]
    cases = [{name: x if name == "time" else 20 * x for name, x in inputs.items()} for inputs in cases]
    points, velocities = zip(*paths(student, cases), strict=True)
    expect_paths(FLOW_POINTS, cases, points, "x")
    expect_paths(FLOW_VELOCITY, cases, velocities, "velocity")


@question("3.6b")
def test_flow_sampler_of_other_sizes(student: Student, draw: Draw) -> None:
    """Images of other shapes, other data and numbers of steps; Heun's error falls with the square of the step."""
    cases = [
        ((1, 4, 2, 3), 3, False),
        ((1, 3, 2, 2), 6, True),
        ((3, 2, 1, 5), 7, True),
        ((4, 1, 3, 1), 1, True),
        ((2, 1, 1, 1), 1, False),
    ]
    expect_points([run_sampler(student, BROAD, draw.normal(*shape), steps, heun) for shape, steps, heun in cases])
    x = draw.normal(2, 2, 4, 4).sign() * draw.uniform(1, 3, 2, 2, 4, 4)
    runs = [run_sampler(student, BROAD, x, num_steps, True) for num_steps in (8, 16)]
    expect_times(runs)
    long, short = ((run.samples - exact_samples(BROAD, x)).abs().mean() for run in runs)
    if not FALL[0] < float(long / short) < FALL[1]:
        raise wrong(
            f"With steps of half the length, the error of Heun's samples falls {float(long / short):.3g} times; "
            "it must fall by about the square of 2."
        )

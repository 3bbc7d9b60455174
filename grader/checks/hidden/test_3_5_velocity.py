"""Questions 3.5a, 3.5b and 3.5c on shapes, schedules and values that no public check has."""

from __future__ import annotations

import torch

from grader.checks.draw import Draw
from grader.checks.runner import question
from grader.checks.test_3_5_velocity import OF_NOISE, OF_VELOCITY, Inputs, expect_images, expect_weights
from grader.engine.launcher import OPTIMIZERS
from grader.engine.student import Student
from grader.oracle.diffusion import Schedule

OTHERS = {Schedule(3e-2, 0.1, 33): [(5, 1, 7, 3), (2, 4, 1, 1)], Schedule(2.5e-2, 0.5, 10): [(6, 2, 2, 9)]}
STEEP = Schedule(1e-5, 0.5, 30)


def draw_cases(draw: Draw, names: tuple[str, str]) -> list[tuple[Schedule, Inputs]]:
    """Large images of other shapes, by two names, with the steps t (B,) between them, for other schedules."""
    cases: list[tuple[Schedule, Inputs]] = []
    for schedule, shapes in OTHERS.items():
        for shape in shapes:
            one, other = (draw.normal(*shape, std=2) for _ in names)
            cases.append(
                (schedule, {names[0]: one, "t": draw.integers(schedule.num_timesteps, shape[0]), names[1]: other})
            )
    return cases


@question("3.5a", imports=OPTIMIZERS)
def test_velocity_of_other_sizes(student: Student, draw: Draw) -> None:
    """Large images of other shapes, with other schedules."""
    expect_images(student, "velocity", "velocity", draw_cases(draw, OF_VELOCITY), "the velocity")


@question("3.5b")
def test_noise_from_velocity_of_other_sizes(student: Student, draw: Draw) -> None:
    """Large images of other shapes, with other schedules."""
    cases = draw_cases(draw, OF_NOISE)
    expect_images(student, "predict_noise_from_velocity", "noise_from_velocity", cases, "the noise")


@question("3.5c")
def test_weights_of_other_schedules(student: Student, draw: Draw) -> None:
    """The first and the last steps of schedules from almost no noise to almost no signal, and other gammas."""
    usual = Schedule()
    edges = torch.tensor([999, 0, 1, 998, 2])
    cases = [(usual, edges, gamma) for gamma in (5.0, 1e-3, 0.7, 1e9)]
    cases += [(STEEP, draw.permutation(STEEP.num_timesteps), 10.0), (STEEP, torch.tensor([29]), 20.0)]
    for prediction in ("velocity", "noise"):
        expect_weights(student, prediction, cases)

"""Question 3.4 on networks, steps and decays that no public check has."""

from __future__ import annotations

from grader.checks.draw import Draw
from grader.checks.runner import question
from grader.checks.test_3_4_average import (
    Blueprint,
    draw_case,
    expect_averages,
    expect_buffers,
    follow,
)
from grader.engine.student import Remote, Student


def convolving(nn: Remote) -> Remote:
    """Convolutions with normalisations of both kinds, and a parameter that is neither weight nor bias of a layer."""
    inner = nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 1, (1, 2), bias=False))
    return nn.Sequential(nn.Conv2d(1, 4, 2), nn.GroupNorm(2, 4), inner, nn.MultiheadAttention(2, 1))


CONVOLUTIONS = Blueprint(
    convolving,
    {
        "0.weight": (4, 1, 2, 2),
        "0.bias": (4,),
        "1.weight": (4,),
        "1.bias": (4,),
        "2.0.weight": (4,),
        "2.0.bias": (4,),
        "2.1.weight": (1, 4, 1, 2),
        "3.in_proj_weight": (6, 2),
        "3.in_proj_bias": (6,),
        "3.out_proj.weight": (2, 2),
        "3.out_proj.bias": (2,),
    },
    {"2.0": 4},
)


@question("3.4")
def test_average_of_other_networks(student: Student, draw: Draw) -> None:
    """A network of convolutions, normalisations and attention, over several steps, at other steps and decays."""
    cases = [
        draw_case(draw, CONVOLUTIONS, 0, 1, 2, decay=0.3),
        draw_case(draw, CONVOLUTIONS, 79, 80, 81, 82, decay=0.9, network=8),
        draw_case(draw, CONVOLUTIONS, 30_000, decay=0.999, network=100),
    ]
    averages = [follow(student, CONVOLUTIONS, case) for case in cases]
    expect_averages(CONVOLUTIONS, cases, averages)
    for case, average in zip(cases, averages, strict=True):
        expect_buffers(case, average)

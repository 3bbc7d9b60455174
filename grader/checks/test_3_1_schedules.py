"""Questions 3.1a and 3.1b: schedules of betas, linear and cosine, for any number of steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from grader.engine.student import Failure, Remote, Student, call_each
from grader.oracle.answers import form
from grader.oracle.closed_form import Expected

from .draw import Draw
from .expect import close, expect_all, numbers, tensor, wrong
from .runner import question

LARGEST_BETA = 0.999
FEWEST = 20  # steps at which the first of right betas is not cut off
MOST_SIGNAL = 0.001  # alphas_cumprod at the end, at most: with LARGEST_BETA that of a single step
USUAL_OFFSET = {"offset": 0.008}
# Right formulas in float64 differ by 1e-12 at most, by cancellation in 1 - ratio at 4000 steps, where the cosine is all
# but 0. A single number that is rounded to float32 on the way puts some of the betas off by 1e-8 of their value.
RTOL, ATOL = 1e-9, 1e-11
CLIP_DIGITS = 1e-6  # by how much a bound may be off, which may be a number in float32
NEARLY = {"rtol": 1e-2, "atol": 1e-6}  # what rounding to float32 on the way does, and nothing that is known by name
EVENLY = 1e-3  # of a gap, which rounding to float32 on the way leaves
Arguments = Mapping[str, int | float]


def expected_betas(name: str, arguments: Arguments) -> Expected:
    """What a closed form gives for the arguments of a schedule, numbers that are not rounded on the way."""
    kinds = {int: torch.int64, float: torch.float64}
    return form(name).at(**{key: torch.tensor(value, dtype=kinds[type(value)]) for key, value in arguments.items()})


def with_values(pairs: Sequence[tuple[Tensor, Expected]]) -> list[tuple[Tensor, Tensor]]:
    """The same with the right values."""
    return [(got, expected.values()[0]) for got, expected in pairs]


def betas_in_float64(value: Any, num_timesteps: int) -> Tensor:
    """A schedule that a student's code returned: (num_timesteps,) in float64. Raises Failure if it is another thing."""
    if isinstance(value, Tensor) and tuple(value.shape) != (num_timesteps,):
        raise wrong(
            f"With num_timesteps = {num_timesteps}, the schedule has the shape {tuple(value.shape)}.",
            "There is one beta for each of num_timesteps steps, in a tensor of one dimension.",
        )
    betas = tensor(value, (num_timesteps,), "The schedule")
    if value.dtype != torch.float64:
        raise wrong(
            f"The schedule is in {str(value.dtype).removeprefix('torch.')}; float64 belongs here.",
            "Give dtype=torch.float64 to the tensor that you begin with: float32 has too few digits for 1 - beta and "
            "for the product over all steps.",
        )
    return betas


def clipped(betas: Tensor) -> Tensor:
    """Betas in which those that are LARGEST_BETA but for the digits of float32 are just that."""
    return betas.where((betas - LARGEST_BETA).abs() > CLIP_DIGITS, LARGEST_BETA)


def expect_betas(function: Remote, name: str, cases: Sequence[Arguments], left_out: Arguments | None = None) -> None:
    """Expect the schedules of a closed form.

    Args:
        function: the student's, called once for every case by position.
        name: of the closed form.
        cases: arguments by name.
        left_out: the other arguments, which are left to their defaults.

    Raises:
        Failure: if a schedule is not right, or not to the digits of float64.
    """
    results = call_each(function, cases)
    pairs = [
        (betas_in_float64(value, int(case["num_timesteps"])), expected_betas(name, {**case, **(left_out or {})}))
        for value, case in zip(results, cases, strict=True)
    ]
    rounded = [(got, right) for got, right in with_values(pairs) if not close(clipped(got), clipped(right), RTOL, ATOL)]
    if not rounded:
        return
    try:
        expect_all(pairs, "the schedule")
    except Failure as failure:
        if failure.hint or not all(close(got, right, **NEARLY) for got, right in with_values(pairs)):
            raise
    got, right = rounded[0]
    off = float(((got - right) / right).abs().max())
    raise wrong(
        f"With {len(got)} steps, a beta is off by {off:.1g} of its value, much more than float64 rounds.",
        "A number is rounded on the way, or a small one is added: compute in float64 from the first tensor on.",
    )


def expect_noise_at_the_end(function: Remote, lengths: Sequence[int]) -> None:
    """Expect schedules of some lengths whose betas are in (0, LARGEST_BETA] and rise, and leave no signal.

    Those that are cut off at the end do not rise there.
    """
    results = call_each(function, [{"num_timesteps": length} for length in lengths])
    for value, length in zip(results, lengths, strict=True):
        betas, where = betas_in_float64(value, length), f"With num_timesteps = {length}"
        if float(betas.min()) <= 0:
            raise wrong(f"{where}, a beta is {float(betas.min()):.4g}; every beta is above 0.")
        if float(betas.max()) > LARGEST_BETA + CLIP_DIGITS:
            raise wrong(f"{where}, a beta is {float(betas.max()):.6g}; none may be above {LARGEST_BETA}.")
        if bool((betas.diff() < -CLIP_DIGITS * betas[1:]).any()):
            raise wrong(f"{where}, the betas are {numbers(betas)} and fall somewhere; no beta is below the one before.")
        if length >= FEWEST and not float(betas[0]) < float(betas[-1]):
            raise wrong(f"{where}, all betas are {float(betas[0]):.4g}; the last is above the first.")
        signal = float(torch.log1p(-betas).sum().exp())
        if signal > MOST_SIGNAL * (1 + CLIP_DIGITS):
            raise wrong(
                f"{where}, alphas_cumprod ends at {signal:.3g}; it may be {MOST_SIGNAL} at most, so that sampling can "
                "start from noise."
            )


def draw_lengths(draw: Draw) -> list[int]:
    """Numbers of steps, from tens to thousands."""
    return [draw.integer(least, 2 * least) for least in (25, 50, 250, 700, 2000)]


# ---------------------------------------------------------------- 3.1a


@question("3.1a")
def test_linear_betas_of_1000_steps(student: Student, draw: Draw) -> None:
    """1000 steps: the schedule of the paper, in float64; with nearly as many, too, betas rise evenly."""
    expect_betas(student.enhanced.linear_betas, "LINEAR_BETAS", [{"num_timesteps": 1000}])
    lengths = [draw.integer(900, 999), draw.integer(1001, 1100)]
    for value, length in zip(
        call_each(student.enhanced.linear_betas, [{"n": n} for n in lengths]), lengths, strict=True
    ):
        gaps = betas_in_float64(value, length).diff()
        if not float(gaps.min()) > 0 or not close(gaps, gaps.mean().expand_as(gaps), EVENLY, 0):
            raise wrong(f"With num_timesteps = {length}, the betas do not rise evenly.")


@question("3.1a")
def test_linear_betas_of_any_length(student: Student, draw: Draw) -> None:
    """Other numbers of steps, few and many; none of the betas is above 0.999."""
    drawn = [draw.integer(30, 399), draw.integer(1100, 1399)]
    lengths = [2, 3, 10, 19, *drawn]
    expect_betas(student.enhanced.linear_betas, "LINEAR_BETAS", [{"num_timesteps": n} for n in lengths])


@question("3.1a")
def test_linear_betas_end_in_noise(student: Student, draw: Draw) -> None:
    """However many steps there are, betas rise within (0, 0.999], and all but noise is left at the end."""
    expect_noise_at_the_end(student.enhanced.linear_betas, [2, 3, 5, 20, 21, *draw_lengths(draw)])


# ---------------------------------------------------------------- 3.1b


@question("3.1b")
def test_cosine_betas_of_any_length(student: Student, draw: Draw) -> None:
    """The offset of the paper, and one step, some steps or 1000: the betas, in float64."""
    lengths = [1, 2, 5, draw.integer(30, 129), 1000]
    expect_betas(student.enhanced.cosine_betas, "COSINE_BETAS", [{"num_timesteps": n} for n in lengths], USUAL_OFFSET)


@question("3.1b")
def test_cosine_betas_of_other_offsets(student: Student, draw: Draw) -> None:
    """Other offsets, small ones and large ones."""
    offsets = [0.0, 0.008, *draw.uniform(0.02, 0.1, 1).tolist(), *draw.uniform(0.2, 0.8, 1).tolist()]
    lengths = [4, 200, 7, draw.integer(40, 139)]
    cases: list[Arguments] = [{"num_timesteps": n, "offset": s} for n, s in zip(lengths, offsets, strict=True)]
    expect_betas(student.enhanced.cosine_betas, "COSINE_BETAS", cases)


@question("3.1b")
def test_cosine_betas_end_in_noise(student: Student, draw: Draw) -> None:
    """However many steps there are, betas rise within (0, 0.999], and all but noise is left at the end."""
    expect_noise_at_the_end(student.enhanced.cosine_betas, [1, 2, 3, 10, *draw_lengths(draw)])

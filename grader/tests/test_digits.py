"""Numbers that were rounded to 16 bits are told from those of float32, and noise that is cut off or used again."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from grader.checks.digits import expect_fine_noise, expect_full_precision
from grader.checks.noise import expect_not_reordered, expect_standard_normal
from grader.engine.student import Failure

HALVES = [torch.float16, torch.bfloat16]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", HALVES)
def test_numbers_of_16_bits_are_named(dtype: torch.dtype) -> None:
    for x in (normal(40).to(dtype), normal(40).to(dtype).float(), normal(40).to(dtype).double()):
        with pytest.raises(Failure, match="16"):
            expect_full_precision(x, "x")


@pytest.mark.parametrize(
    "x", [normal(40), normal(40).double(), torch.zeros(40), normal(40).sign(), normal(40).clamp(-0.1, 0.1), None, 1.5]
)
def test_numbers_of_32_bits_and_what_are_no_numbers_pass(x: object) -> None:
    expect_full_precision(x, "x")


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("std", [0.15, 1.0])
def test_noise_of_16_bits_is_named_however_it_is_scaled(dtype: torch.dtype, std: float) -> None:
    error = 1e-7 * normal(4000, seed=1).double()
    right = std * normal(4000).double() + error
    expect_fine_noise(right, "the noise")
    with pytest.raises(Failure, match="only the digits of a type of 16 bits"):
        expect_fine_noise((std * normal(4000)).to(dtype).double() + error, "the noise")


def test_noise_in_another_order_is_named() -> None:
    noise = normal(3, 5, 200).double()
    expect_not_reordered(noise, 0, "step", "the noise")
    for again in (noise[0].flip(0), -noise[0].roll(7, 1), noise[0].T.reshape(5, 200)):
        with pytest.raises(Failure, match="one step has that of another in another order"):
            expect_not_reordered(torch.stack([noise[0], noise[1], again]), 0, "step", "the noise")


@pytest.mark.parametrize("bound", [2.0, 3.0])
def test_noise_that_is_cut_off_is_named(bound: float) -> None:
    noise = normal(20, 1000).double()
    expect_standard_normal(noise, {"image": (0,)}, "the noise")
    with pytest.raises(Failure) as caught:
        expect_standard_normal(noise.clamp(-bound, bound), {"image": (0,)}, "the noise")
    assert f"It never leaves [-{bound:.2f}, {bound:.2f}]" in caught.value.hint

"""The schedules of 3.1 against mathematics that is not in the oracle, and what their checks say about other results."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, testing

from grader.checks.test_3_1_schedules import ATOL, MOST_SIGNAL, RTOL, betas_in_float64, expected_betas
from grader.engine.student import Failure
from grader.oracle.answers import form, recording
from grader.oracle.closed_form import ClosedForm
from grader.oracle.diffusion import Schedule
from grader.oracle.schedules import COSINE_BETAS, LINEAR_BETAS

FORMS = {"LINEAR_BETAS": LINEAR_BETAS, "COSINE_BETAS": COSINE_BETAS}
CASES = [(name, sentence) for name, form in FORMS.items() for sentence in form.misconceptions]


def linear(num_timesteps: int) -> Tensor:
    return expected_betas("LINEAR_BETAS", {"num_timesteps": num_timesteps}).values()[0]


def cosine(num_timesteps: int, offset: float = 0.008) -> Tensor:
    return expected_betas("COSINE_BETAS", {"num_timesteps": num_timesteps, "offset": offset}).values()[0]


def test_the_linear_schedule_of_the_paper() -> None:
    testing.assert_close(linear(1000), Schedule().betas)
    assert float((1 - linear(1000)).prod()) == pytest.approx(4.036e-5, rel=1e-3)


def test_linear_betas_are_an_arithmetic_sequence_up_to_the_clip() -> None:
    for length in (50, 400, 4000):
        betas = linear(length)
        testing.assert_close(betas.diff(), betas.diff()[:1].expand(length - 1), rtol=0, atol=1e-15)
        assert float(betas.mean()) == pytest.approx(1000 / length * (1e-4 + 2e-2) / 2)
    assert linear(2).tolist() == [0.05, 0.999]
    assert linear(4).tolist() == [0.025, 0.999, 0.999, 0.999]


def test_the_noise_of_the_linear_schedule_hardly_depends_on_the_number_of_steps() -> None:
    """The betas sum to 10.05 for any T; with more and more steps alphas_cumprod at the end goes to exp(-10.05)."""
    left = [float((1 - linear(length)).prod()) for length in (2, 3, 20, 100, 1000, 100_000)]
    assert max(left) <= MOST_SIGNAL
    assert left[-1] == pytest.approx(math.exp(-10.05), rel=2e-3)


@pytest.mark.parametrize("offset", [0.0, 0.008, 0.3, 2.0])
def test_the_product_of_cosine_alphas_telescopes(offset: float) -> None:
    """Before the last step, which is clipped, it is cos^2 of the angle there over that of the offset alone."""
    for length in (2, 3, 10, 1000, 4000):
        abar = (1 - cosine(length, offset)).cumprod(0)
        for step in {1, length // 2, length - 1}:
            angles = [math.pi / 2 * (time + offset) / (1 + offset) for time in (step / length, 0)]
            right = (1 + math.cos(2 * angles[0])) / (1 + math.cos(2 * angles[1]))
            assert float(abar[step - 1]) == pytest.approx(right, rel=1e-8, abs=1e-12)
        assert float(abar[-1] / abar[-2]) == pytest.approx(0.001)


def test_the_cosine_betas_with_no_offset_begin_at_a_squared_sine() -> None:
    for length in (2, 7, 4000):
        assert float(cosine(length, 0.0)[0]) == pytest.approx(math.sin(math.pi / 2 / length) ** 2, rel=1e-12)
    assert cosine(1).tolist() == [0.999]


def test_float32_loses_the_cosine_schedule() -> None:
    """The reason why its betas are to be in float64: 1 - abar is 1 at the end, and the first betas are off."""
    abar = (1 - cosine(1000)).cumprod(0)
    assert 0 < float(abar[-1]) < torch.finfo(torch.float32).eps
    assert float((1 - abar[-1]).float()) == 1
    angles = (torch.linspace(0, 1, 1001) + 0.008) / 1.008 * torch.pi / 2
    f = torch.cos(angles) ** 2
    off = ((1 - f[1:] / f[:-1]) / cosine(1000) - 1).abs()[:-1].max()
    assert float(off) > 100 * RTOL


def test_formulas_in_float64_agree_far_better_than_the_tolerance() -> None:
    """The formula as the paper writes it, at the smallest beta that a check asks for."""
    f = torch.cos(torch.linspace(0, 1, 4001, dtype=torch.float64) * torch.pi / 2) ** 2
    betas, right = (1 - f[1:] / f[:-1]).clamp(max=0.999), cosine(4000, 0.0)
    assert float(((betas - right).abs() / (RTOL * right + ATOL)).max()) < 0.1


@pytest.mark.parametrize("right", [linear(370), linear(1000), cosine(5), cosine(1000)])
def test_a_schedule_that_was_rounded_to_float32_is_far_outside_the_tolerance(right: Tensor) -> None:
    off = (right.float().double() - right).abs() / (RTOL * right + ATOL)
    assert float(off.max()) > 3


def test_schedules_are_recorded_for_students_in_float64() -> None:
    with recording() as answers:
        form("COSINE_BETAS").at(num_timesteps=torch.tensor(5), offset=torch.tensor(0.008, dtype=torch.float64))
    ((entry,),) = answers.entries.values()
    assert torch.equal(entry["values"][0], cosine(5))


@pytest.mark.parametrize(("name", "sentence"), CASES)
def test_no_misconception_gives_the_right_schedule_or_that_of_another(name: str, sentence: str) -> None:
    """Mistakes that are closer than the tolerance are told apart by which of them is nearer by far."""
    form, offset = FORMS[name], {"offset": 0.02} if name == "COSINE_BETAS" else {}
    expected = [expected_betas(name, {"num_timesteps": length, **offset}) for length in (3, 7, 300, 1700)]
    value = torch.cat([at.misconceived(sentence) for at in expected])
    assert not torch.allclose(value, torch.cat([at.values()[0] for at in expected]), rtol=1e-5, atol=1e-6)
    others = {text: torch.cat([at.misconceived(text) for at in expected]) for text in other(form, sentence)}
    assert [text for text, betas in others.items() if torch.allclose(value, betas, rtol=1e-5, atol=1e-6)] == []


def other(form: ClosedForm, sentence: str) -> list[str]:
    return [text for text in form.misconceptions if text != sentence]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.ones(4, dtype=torch.float64), r"num_timesteps = 3, the schedule has the shape \(4,\)"),
        (torch.ones(3, 1, dtype=torch.float64), r"the shape \(3, 1\)"),
        (torch.ones(3), "is in float32; float64 belongs here"),
        (torch.ones(3, dtype=torch.int64), "is a tensor of torch.int64"),
        (torch.full((3,), torch.nan, dtype=torch.float64), "is not finite"),
        ((0.1, 0.2, 0.3), "is a tuple or list, where a tensor belongs"),
        (None, "is None"),
    ],
)
def test_what_is_no_schedule_is_named(value: object, message: str) -> None:
    with pytest.raises(Failure, match=message):
        betas_in_float64(value, 3)

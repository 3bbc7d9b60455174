"""The oracle of 3.5 against what must hold of it: derivatives, rotations, limits; and the steps its checks choose."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, testing

from grader.checks.draw import Draw
from grader.checks.hidden.test_3_5_velocity import OTHERS, STEEP
from grader.checks.test_3_5_velocity import (
    DEFAULT,
    GAMMAS,
    MIDDLE,
    SCHEDULES,
    SMALLEST_ROOT,
    draw_errors,
    draw_pair,
    ends,
)
from grader.oracle.closed_form import ClosedForm
from grader.oracle.diffusion import Schedule
from grader.oracle.forward_process import q_sample
from grader.oracle.velocity import min_snr_weight, noise_from_velocity, velocity

SCHEDULE = Schedule(2e-4, 1e-2, 1200)
STEPS = torch.tensor([0, 3, 500, 998, 1199])


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def images(one: str, other: str) -> dict[str, Tensor]:
    shape = (len(STEPS), 2, 3, 4)
    return {one: draw(*shape), "t": STEPS, other: draw(*shape, seed=1)}


def large(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same with images eight times as large, which leave [-10, 10]."""
    return {name: 8 * x if x.is_floating_point() else x for name, x in inputs.items()}


def value(form: ClosedForm, **inputs: Tensor) -> Tensor:
    return form.at(**inputs).values()[0]


def weights(t: Tensor, gamma: float, prediction: str, schedule: Schedule = SCHEDULE) -> Tensor:
    return value(min_snr_weight(schedule, prediction), t=t, gamma=torch.tensor(gamma, dtype=torch.float64))


# ---------------------------------------------------------------- velocity


def test_velocity_is_the_derivative_of_x_by_the_angle() -> None:
    inputs = images("x_start", "noise")
    angle = SCHEDULE.alphas_cumprod[STEPS].sqrt().acos().reshape(-1, 1, 1, 1)
    angles = angle.expand_as(inputs["noise"]).clone().requires_grad_()
    x = angles.cos() * inputs["x_start"] + angles.sin() * inputs["noise"]
    [derivative] = torch.autograd.grad(x.sum(), angles)
    testing.assert_close(value(q_sample(SCHEDULE), **inputs), x.detach())
    testing.assert_close(value(velocity(SCHEDULE), **inputs), derivative)


def test_x_and_velocity_are_data_and_noise_turned() -> None:
    inputs = images("x_start", "noise")
    x, v = value(q_sample(SCHEDULE), **inputs), value(velocity(SCHEDULE), **inputs)
    testing.assert_close(x**2 + v**2, inputs["x_start"] ** 2 + inputs["noise"] ** 2)
    testing.assert_close(value(noise_from_velocity(SCHEDULE), x=x, t=STEPS, velocity=v), inputs["noise"])
    x_start = SCHEDULE.predict_start(x, STEPS, inputs["noise"])
    testing.assert_close(x_start, inputs["x_start"])


def test_velocity_is_the_noise_of_clean_data_and_minus_the_data_of_noise() -> None:
    extreme = Schedule(1e-12, 0.999, 20)
    inputs = {"x_start": draw(2, 1, 2, 2), "t": torch.tensor([0, 19]), "noise": draw(2, 1, 2, 2, seed=1)}
    v = value(velocity(extreme), **inputs)
    testing.assert_close(v[0], inputs["noise"][0], atol=1e-3, rtol=0)
    testing.assert_close(v[1], -inputs["x_start"][1], atol=1e-3, rtol=0)


# ---------------------------------------------------------------- weights


@pytest.mark.parametrize("gamma", GAMMAS)
def test_weighted_errors_are_one_loss_of_x_start(gamma: float) -> None:
    """An error of 1 in x_0, and those of the noise and the velocity that it makes."""
    x = draw(len(STEPS), 1, 1, 1)

    def noise_of(x_start: Tensor) -> Tensor:
        abar = SCHEDULE.alphas_cumprod[STEPS].reshape(-1, 1, 1, 1)
        return (x - abar.sqrt() * x_start) / (1 - abar).sqrt()

    def velocity_of(x_start: Tensor) -> Tensor:
        return velocity(SCHEDULE).accepted[0](x_start=x_start, t=STEPS, noise=noise_of(x_start))

    snr = SCHEDULE.alphas_cumprod[STEPS] / (1 - SCHEDULE.alphas_cumprod[STEPS])
    x_start = draw(*x.shape, seed=1)
    functions: dict[str, Callable[[Tensor], Tensor]] = {"noise": noise_of, "velocity": velocity_of}
    for prediction, function in functions.items():
        made = (function(x_start + 1) - function(x_start)).flatten()
        loss = weights(STEPS, gamma, prediction) * made**2
        testing.assert_close(loss, snr.clamp(max=gamma))


def test_weights_without_a_limit() -> None:
    testing.assert_close(weights(STEPS, 1e9, "noise"), torch.ones(5, dtype=torch.float64))
    testing.assert_close(weights(STEPS, 1e9, "velocity"), SCHEDULE.alphas_cumprod[STEPS])


def test_weights_below_every_ratio_grow_with_gamma() -> None:
    for prediction in ("noise", "velocity"):
        testing.assert_close(weights(STEPS, 2e-4, prediction), 2 * weights(STEPS, 1e-4, prediction))


def test_weights_by_hand() -> None:
    """abar is 0.8 and 0.8 * 0.2, so that SNR is 4 and 4 / 21."""
    schedule, t = Schedule(0.2, 0.8, 2), torch.tensor([0, 1])
    assert weights(t, 2.0, "noise", schedule).tolist() == pytest.approx([0.5, 1.0])
    assert weights(t, 2.0, "velocity", schedule).tolist() == pytest.approx([0.4, 0.16])


# ---------------------------------------------------------------- misconceptions

EVERY = torch.randperm(20, generator=torch.Generator().manual_seed(0))
LIMITS = [{"t": EVERY, "gamma": torch.tensor(gamma)} for gamma in (3.0, 0.7)]  # one alone hides some from others
FORMS = {
    "velocity": (velocity(SCHEDULE), [large(images("x_start", "noise"))]),
    "noise": (noise_from_velocity(SCHEDULE), [large(images("x", "velocity"))]),
    "weight of noise": (min_snr_weight(SCHEDULES[0], "noise"), LIMITS),
    "weight of velocity": (min_snr_weight(SCHEDULES[0], "velocity"), LIMITS),
}


@pytest.mark.parametrize("name", FORMS)
def test_no_misconception_gives_the_right_value_or_that_of_another(name: str) -> None:
    form, cases = FORMS[name]
    expected = [form.at(**inputs) for inputs in cases]
    right = torch.cat([one.values()[0] for one in expected])
    known = {text: torch.cat([one.misconceived(text) for one in expected]) for text in form.misconceptions}
    for sentence, wrong in known.items():
        assert not torch.allclose(wrong, right), sentence
        assert [text for text, other in known.items() if torch.allclose(wrong, other, equal_nan=True)] == [sentence]


# ---------------------------------------------------------------- inputs of the checks


def smallest_root(schedule: Schedule, t: Tensor) -> float:
    abar = schedule.alphas_cumprod[t]
    return float(torch.minimum(abar, 1 - abar).sqrt().min())


def test_images_are_tested_where_no_root_is_small() -> None:
    assert smallest_root(DEFAULT, torch.tensor(MIDDLE)) > SMALLEST_ROOT
    for schedule in [*SCHEDULES, *OTHERS]:
        assert smallest_root(schedule, torch.tensor(ends(schedule))) > SMALLEST_ROOT


def test_rounding_in_float32_is_far_below_the_tolerance_of_weights() -> None:
    """Wherever weights are tested, and by a formula that loses most digits: 1 - abar of a rounded root."""
    for schedule, gamma in [(DEFAULT, 5.0), (STEEP, 20.0), (SCHEDULES[0], 5.0)]:
        t = torch.arange(schedule.num_timesteps)
        abar = schedule.alphas_cumprod.sqrt().float() ** 2
        snr = abar / (1 - abar)
        for prediction, divisor in {"noise": snr, "velocity": snr + 1}.items():
            right = weights(t, gamma, prediction, schedule)
            used = ((snr.clamp(max=gamma) / divisor).double() - right).abs() / (1e-5 + 1e-4 * right)
            assert float(used.max()) < 0.3


def test_errors_that_mean_the_same_x_start() -> None:
    """Those of the velocity are larger, by (SNR + 1) / SNR."""
    schedule, t = SCHEDULES[0], torch.tensor([0, 7, 19])
    of_noise, of_velocity = draw_errors(Draw(0, "x"), schedule, t)
    testing.assert_close(of_noise / of_velocity, schedule.alphas_cumprod[t])


def test_a_pair_is_made_of_its_noise() -> None:
    inputs, noise = draw_pair(Draw(0, "x"), SCHEDULES[1], [0, 6])
    found = value(noise_from_velocity(SCHEDULES[1]), **inputs)
    testing.assert_close(found.float(), noise)
    assert math.isfinite(float(found.sum()))

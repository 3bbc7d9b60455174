"""The oracle against independent values: torch.distributions, hand computation, identities of the process."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, testing
from torch.distributions import Normal, kl_divergence

from grader.oracle.closed_form import KEPT, KEPT_NUMBERS, ClosedForm
from grader.oracle.diffusion import GaussianData, Schedule, column
from grader.oracle.forward_process import q_sample
from grader.oracle.hinge import DISCRIMINATOR_HINGE, GENERATOR_HINGE
from grader.oracle.kl import KL
from grader.oracle.reparameterisation import STANDARD_DEVIATION
from grader.oracle.statistics import (
    distribution_bound,
    mean_bound,
    normal_quantile,
    rare_event_bounds,
    variance_bounds,
)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---------------------------------------------------------------- losses


@pytest.mark.parametrize(
    ("mu", "logvar", "value"), [(1, 0, 0.5), (0, 1, (math.e - 2) / 2), (0, math.log(4), 1.5 - math.log(2))]
)
def test_kl_by_hand(mu: float, logvar: float, value: float) -> None:
    expected = KL.at(mu=torch.tensor([[float(mu)]]), logvar=torch.tensor([[logvar]], dtype=torch.float64))
    assert expected.values()[0].item() == pytest.approx(value, abs=1e-12)


def test_kl_agrees_with_torch_distributions_and_its_gradients_with_calculus() -> None:
    mu, logvar = draw(6, 3, 4), draw(6, 3, 4, seed=1)
    expected = KL.at(mu=mu, logvar=logvar)
    independent = kl_divergence(Normal(mu, (logvar / 2).exp()), Normal(0.0, 1.0)).sum((1, 2)).mean()
    testing.assert_close(expected.values()[0], independent)
    gradients = expected.gradients()
    testing.assert_close(gradients["mu"], mu / 6)
    testing.assert_close(gradients["logvar"], (logvar.exp() - 1) / 12)


@pytest.mark.parametrize(("real", "fake", "value"), [(2, -2, 0), (0, 0, 1), (-1, 1, 2), (0.5, -3, 0.25)])
def test_hinge_by_hand(real: float, fake: float, value: float) -> None:
    expected = DISCRIMINATOR_HINGE.at(real=torch.tensor([[float(real)]]), fake=torch.tensor([[float(fake)]]))
    assert [v.item() for v in expected.values()] == [value, value]
    assert GENERATOR_HINGE.at(fake=torch.tensor([[float(fake)]])).values()[0].item() == -fake


def test_the_two_accepted_hinges_differ_on_patches_only() -> None:
    real, fake = 2 * draw(4, 1, 3, 3), 2 * draw(4, 1, 3, 3, seed=1)
    per_patch, per_image = DISCRIMINATOR_HINGE.at(real=real, fake=fake).values()
    assert not torch.isclose(per_patch, per_image)
    one, other = DISCRIMINATOR_HINGE.at(real=real[:, :, 0, 0], fake=fake[:, :, 0, 0]).values()
    testing.assert_close(one, other)


def inputs_of(form: ClosedForm) -> dict[str, Tensor]:
    """Inputs at which the formulas differ: for the hinge, means and patches beyond the margins."""
    names = form.accepted[0].__code__.co_varnames[: form.accepted[0].__code__.co_argcount]
    if "fake" in names:
        shifts = {"real": 1.5, "fake": -1.5}
        return {name: 4 * draw(5, 1, 3, 1, seed=n) + shifts[name] for n, name in enumerate(names)}
    scales = torch.linspace(0.02, 2, 5).reshape(5, 1, 1, 1)  # the first posterior is almost the prior
    inputs = {name: scales * draw(5, 3, 2, 4, seed=n) for n, name in enumerate(names)}
    if "t" in names:  # of images, which leave [-10, 10]
        return {name: 8 * x for name, x in inputs.items()} | {"t": torch.tensor([0, 3, 500, 998, 1199])}
    return inputs


FORMS = {
    "kl": KL,
    "std": STANDARD_DEVIATION,
    "hinge_d": DISCRIMINATOR_HINGE,
    "hinge_g": GENERATOR_HINGE,
    "q_sample": q_sample(Schedule(2e-4, 1e-2, 1200)),
}


@pytest.mark.parametrize(("name", "sentence"), [(name, s) for name, form in FORMS.items() for s in form.misconceptions])
def test_no_misconception_gives_the_right_value_or_that_of_another(name: str, sentence: str) -> None:
    form = FORMS[name]
    expected = form.at(**inputs_of(form))
    value = expected.misconceived(sentence)
    assert not any(torch.allclose(value, right) for right in expected.values())
    others = [s for s in form.misconceptions if s != sentence]
    assert [s for s in others if torch.allclose(value, expected.misconceived(s), equal_nan=False)] == []


# ---------------------------------------------------------------- diffusion


@pytest.mark.parametrize("schedule", [Schedule(), Schedule.rescaled(50), Schedule(1e-3, 0.4, 20)], ids=str)
def test_schedule_identities(schedule: Schedule) -> None:
    abar, prev = schedule.alphas_cumprod, schedule.alphas_cumprod_prev
    c1, c2, variance = schedule.posterior_mean_coef1, schedule.posterior_mean_coef2, schedule.posterior_variance
    testing.assert_close(abar, (1 - schedule.betas).cumprod(0))
    testing.assert_close(c1 + c2 * abar.sqrt(), prev.sqrt())
    testing.assert_close(c2**2 * (1 - abar) + variance, 1 - prev)
    testing.assert_close(1 / variance[1:], (1 - schedule.betas[1:]) / schedule.betas[1:] + 1 / (1 - prev[1:]))
    assert (c1[0].item(), c2[0].item(), variance[0].item()) == (pytest.approx(1), 0, 0)
    assert float(abar[-1]) < 1e-2


def test_unscaled_betas_leave_much_signal_and_rescaled_ones_do_not() -> None:
    assert float(Schedule(num_timesteps=100).alphas_cumprod[-1]) == pytest.approx(0.36, abs=0.01)
    assert float(Schedule.rescaled(100).alphas_cumprod[-1]) < 1e-3


@pytest.mark.parametrize(
    ("std", "steps", "ratio"),
    [(1.0, 1000, 0.991), (1.0, 200, 0.958), (1.0, 50, 0.854), (0.5, 1000, 0.985), (0.5, 200, 0.932), (0.5, 50, 0.786)],
)
def test_variance_of_the_sampler_on_gaussian_data(std: float, steps: int, ratio: float) -> None:
    mean, variance = GaussianData(Schedule.rescaled(steps), 0.3, std).sampled_moments()
    assert variance / std**2 == pytest.approx(ratio, abs=1e-3)
    assert mean == pytest.approx(0.3, abs=1e-2)


def test_moments_of_the_sampler_agree_with_a_simulation() -> None:
    """One million samples; the tolerances are five standard errors."""
    data = GaussianData(Schedule(1e-3, 0.4, 20), 0.5, 0.5)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(100_000, 1, 2, 5, generator=generator, dtype=torch.float64)
    for step in reversed(range(20)):
        t = torch.full((len(x),), step)
        mean = data.schedule.posterior_mean(data.schedule.predict_start(x, t, data.denoise(x, t)), x, t)
        noise = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        x = mean + column(data.schedule.posterior_variance, t).sqrt() * noise
    mean, variance = data.sampled_moments()
    assert float(x.mean()) == pytest.approx(mean, abs=5 * math.sqrt(variance / 1e6))
    assert float(x.var()) == pytest.approx(variance, abs=5 * variance * math.sqrt(2 / 1e6))


def test_denoiser_is_exact_on_a_point() -> None:
    data = GaussianData(Schedule(), 1.7, 0.0)
    t = torch.tensor([0, 10, 999])
    noise = draw(3, 2, 4, 4)
    x = q_sample(data.schedule).at(x_start=torch.full_like(noise, 1.7), t=t, noise=noise).values()[0]
    testing.assert_close(data.denoise(x, t), noise, atol=1e-9, rtol=1e-9)


# ---------------------------------------------------------------- statistics


def test_normal_quantile() -> None:
    assert normal_quantile(0.05) == pytest.approx(1.959964, abs=1e-6)
    assert math.erfc(normal_quantile(1e-11) / math.sqrt(2)) == pytest.approx(1e-11, rel=1e-6)


@pytest.mark.parametrize("rate", [0.1, 0.01])
def test_bounds_are_crossed_no_more_often_than_stated(rate: float) -> None:
    """2,000 samples of 400 numbers at rates that can be seen; five standard errors over the rate are allowed."""
    noise = draw(2000, 400)
    allowed = 2000 * rate + 5 * math.sqrt(2000 * rate)
    assert int((noise.mean(1).abs() > mean_bound(400, rate)).sum()) <= allowed
    low, high = variance_bounds(400, rate)
    squares = noise.square().mean(1)
    assert int(((squares < low) | (squares > high)).sum()) <= allowed
    ordered = torch.special.ndtr(noise.sort(1).values)
    steps = torch.arange(401, dtype=torch.float64) / 400
    distance = torch.maximum((ordered - steps[:-1]).amax(1), (steps[1:] - ordered).amax(1))
    assert int((distance > distribution_bound(400, rate)).sum()) <= allowed
    fewest, most = rare_event_bounds(400, 0.05, rate)
    outside = (noise.abs() > normal_quantile(0.05)).sum(1)
    assert int(((outside < fewest) | (outside > most)).sum()) <= allowed


def test_rare_events_that_never_happen_are_noticed_where_thirty_are_expected() -> None:
    low, high = rare_event_bounds(65_536, math.erfc(3.5 / math.sqrt(2)), 1e-11)
    assert 0 < low < 30.5 < high
    assert rare_event_bounds(100, 1e-4, 1e-11)[0] == 0


def test_what_is_computed_at_small_inputs_is_kept_for_the_next_submission() -> None:
    calls: list[int] = []

    def square(x: torch.Tensor) -> torch.Tensor:
        calls.append(x.numel())
        return x.square()

    form = ClosedForm((square,), {"It is not squared.": lambda x: x})
    small, large = torch.arange(3.0), torch.zeros(KEPT_NUMBERS + 1)
    for _ in range(3):
        assert form.at(x=small.clone()).values()[0].tolist() == [0, 1, 4]
        assert form.at(x=small).misconceived("It is not squared.").tolist() == [0, 1, 2]
        form.at(x=large).values()
    assert sorted(calls) == [3, *[KEPT_NUMBERS + 1] * 3]
    assert form.at(x=small.double()).values()[0].dtype == torch.float64
    assert form.at(x=small + 1).values()[0].tolist() == [1, 4, 9]
    precise = small.double()
    form.at(x=precise).gradients()
    assert not precise.requires_grad
    for number in range(KEPT + 1):
        form.at(x=torch.tensor([float(number)]))
    assert len(form._kept) <= KEPT

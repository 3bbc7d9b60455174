"""Question 3.7: the oracle of the variational bound, and the denoiser of its checks, against independent mathematics."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, testing
from torch.distributions import Normal, kl_divergence

from grader.checks.draw import Draw
from grader.checks.test_3_7_bound import (
    MILD,
    MOST_CALLS,
    STEEP,
    Case,
    Denoiser,
    Drawn,
    expect_bounds,
    expect_every_step,
    noise_in,
    noised,
)
from grader.engine.student import Failure
from grader.oracle.bound import Bound, bits_per_dim
from grader.oracle.diffusion import GaussianData, Schedule

SCHEDULE = Schedule(0.02, 0.5, 6)


def a_case(*shape: int, seed: int = 0) -> Case:
    return Case.drawn(Draw(seed, "test"), SCHEDULE, *shape)


def bound(case: Case) -> Tensor:
    return bits_per_dim(case.schedule).at(x_start=case.x_start, noise_error=case.noise_error).values()[0]


def steps_of(t: int, count: int) -> Tensor:
    return torch.full((count,), t)


# ---------------------------------------------------------------- the oracle


def bound_by_distributions(case: Case, seed: int) -> Tensor:
    """The bound by the divergences of distributions, with noise that is drawn: (B,) in bits a dimension."""
    schedule, x_start, count = case.schedule, case.x_start.double(), len(case.x_start)
    generator, abar = torch.Generator().manual_seed(seed), case.schedule.alphas_cumprod
    terms = [kl_divergence(Normal(abar[-1].sqrt() * x_start, (1 - abar[-1]).sqrt()), Normal(0.0, 1.0))]
    for step in range(schedule.num_timesteps):
        t, noise = steps_of(step, count), torch.randn(x_start.shape, generator=generator, dtype=torch.float64)
        x = abar[step].sqrt() * x_start + (1 - abar[step]).sqrt() * noise
        start = schedule.predict_start(x, t, noise + case.noise_error[step])
        mean, right = schedule.posterior_mean(start, x, t), schedule.posterior_mean(x_start, x, t)
        std = schedule.posterior_variance[step].sqrt()
        if step:
            terms.append(kl_divergence(Normal(right, std), Normal(mean, std)))
        else:
            terms.append(-Normal(mean, schedule.betas[0].sqrt()).log_prob(x_start))
    return sum(terms).mean((1, 2, 3)) / math.log(2)


@pytest.mark.parametrize("seed", range(3))
def test_the_bound_is_that_of_the_distributions_whatever_noise_is_drawn(seed: int) -> None:
    case = a_case(4, 3, 2, 5)
    testing.assert_close(bound_by_distributions(case, seed), bound(case))


def test_without_errors_the_later_terms_vanish() -> None:
    x_start = a_case(3, 2, 2, 2).x_start.double()
    terms = Bound.of(SCHEDULE, x_start, torch.zeros(6, 3, 2, 2, 2, dtype=torch.float64))
    assert not terms.steps.any()
    testing.assert_close(terms.first, torch.full((3,), 4 * math.log(2 * math.pi * 0.02), dtype=torch.float64))


def test_with_the_same_error_of_x_0_everywhere_the_weights_telescope() -> None:
    abar = SCHEDULE.alphas_cumprod
    error = (abar / (1 - abar)).sqrt().reshape(6, 1, 1, 1, 1).expand(6, 2, 1, 2, 2)
    terms = Bound.of(SCHEDULE, torch.zeros(2, 1, 2, 2, dtype=torch.float64), error)
    expected = 2 * (abar[0] / (1 - abar[0]) - abar[-1] / (1 - abar[-1]))
    testing.assert_close(terms.steps.sum(0), expected.expand(2))


def test_the_prior_is_no_wrong_one_and_vanishes_where_all_is_noise() -> None:
    x_start = a_case(3, 2, 2, 2).x_start.double()
    noisy = Bound.of(Schedule(0.1, 0.999, 30), x_start, torch.zeros(30, 3, 2, 2, 2, dtype=torch.float64))
    assert float(noisy.prior.abs().max()) < 1e-6
    clear = Bound.of(SCHEDULE, x_start, torch.zeros(6, 3, 2, 2, 2, dtype=torch.float64))
    assert not torch.isclose(clear.prior, clear.divergence_of_prior()).any()


def test_no_misconception_is_right_and_no_two_are_the_same() -> None:
    found = []
    for schedule in (MILD, STEEP):
        case = Case.drawn(Draw(1, "test"), schedule, 4, 3, 2, 3)
        expected = bits_per_dim(schedule).at(x_start=case.x_start, noise_error=case.noise_error)
        found.append(torch.stack([expected.values()[0], *map(expected.misconceived, expected.sentences)]))
    values = torch.cat(found, dim=1)
    assert bool(values.isfinite().all())
    distances = (values[:, None] / values - 1).abs().amax(2).fill_diagonal_(math.inf)
    assert float(distances.min()) > 2e-3


# ---------------------------------------------------------------- Gaussian data


def expected_bound(data: GaussianData) -> float:
    """The mean of the bound over data and noise with the exact denoiser, in nats an element.

    x_0 given x_t is normal with the variance s^2 (1 - abar) / (abar s^2 + 1 - abar), the mean squared error of x_0.
    """
    abar, variance = data.schedule.alphas_cumprod, data.std**2
    errors = variance * (1 - abar) / (abar * variance + 1 - abar)
    snr = abar / (1 - abar)
    prior = 0.5 * (abar[-1] * (data.mean**2 + variance - 1) - torch.log(1 - abar[-1]))
    first = errors[0] / (2 * data.schedule.betas[0]) + 0.5 * torch.log(2 * math.pi * data.schedule.betas[0])
    return float(prior + 0.5 * ((snr[:-1] - snr[1:]) * errors[1:]).sum() + first)


def entropy(data: GaussianData) -> float:
    """Of an element, in nats."""
    return 0.5 * math.log(2 * math.pi * math.e * data.std**2)


@pytest.mark.parametrize("data", [GaussianData(SCHEDULE, 0.0, 1.0), GaussianData(SCHEDULE, 0.7, 0.5)])
def test_on_gaussian_data_the_solution_has_the_expected_bound(data: GaussianData, solved: SimpleNamespace) -> None:
    torch.manual_seed(0)
    diffusion = solved.enhanced.EnhancedDiffusion(0.02, 0.5, 6)
    x_start = data.mean + data.std * torch.randn(2000, 1, 8, 8)
    bits = diffusion.bits_per_dim(lambda x, y, t: data.denoise(x, t).float(), x_start, torch.zeros(2000).long())
    error = float(bits.std()) / math.sqrt(2000)
    assert abs(float(bits.mean()) - expected_bound(data) / math.log(2)) < 5 * error
    assert error < 0.02


@pytest.mark.parametrize("data", [GaussianData(SCHEDULE, 0.3, 1.0), GaussianData(Schedule(), -1.0, 0.2)])
def test_what_is_expected_above_the_entropy_are_the_divergences_of_the_whole_chain(data: GaussianData) -> None:
    schedule, abar = data.schedule, data.schedule.alphas_cumprod
    variances = abar * data.std**2 + 1 - abar
    previous = torch.cat([torch.tensor([data.std**2]), variances[:-1]])
    ratios = schedule.betas * previous / variances / torch.cat([schedule.betas[:1], schedule.posterior_variance[1:]])
    steps = 0.5 * (ratios - 1 - ratios.log()).sum()  # of q(x_{t-1} | x_t), which has the mean of p
    prior = kl_divergence(Normal(abar[-1].sqrt() * data.mean, variances[-1].sqrt()), Normal(0.0, 1.0))
    assert expected_bound(data) - entropy(data) == pytest.approx(float(prior + steps), rel=1e-9)
    assert float(prior + steps) > 0


# ---------------------------------------------------------------- the denoiser of the checks


def test_noise_is_found_in_what_it_was_put_in() -> None:
    case = a_case(4, 3, 2, 2)
    x_start, t, noise = case.x_start.double(), torch.tensor([0, 5, 2, 3]), case.noise_error[0].double()
    x = noised(SCHEDULE, x_start, t, noise)
    testing.assert_close(SCHEDULE.predict_start(x, t, noise), x_start)
    testing.assert_close(noise_in(SCHEDULE, x_start, t, x), noise)
    right = Drawn(case).moments()
    abar = SCHEDULE.alphas_cumprod.reshape(-1, 1, 1, 1, 1)
    testing.assert_close(right.mean, abar.sqrt() * x_start)
    testing.assert_close(right.std, (1 - abar).sqrt().expand_as(right.std))


def test_images_may_come_in_any_batches() -> None:
    case = a_case(4, 3, 2, 2)
    together, alone = Denoiser(case), Denoiser(case)
    noise = case.noise_error[1].double()
    for step in range(6):
        x = together.q_sample(case.x_start, steps_of(step, 4), noise)
        seen = together.denoise_fn(x, case.y, steps_of(step, 4))
        testing.assert_close(seen, (noise + case.noise_error[step]).float(), rtol=1e-4, atol=1e-4)
        for n in (2, 0, 3, 1):
            part = alone.denoise_fn(x[n : n + 1], case.y[n : n + 1], steps_of(step, 1))
            testing.assert_close(part[0], seen[n])
    assert torch.equal(together.x, alone.x)
    for denoiser in (together, alone):
        expect_every_step(denoiser)
        assert denoiser.mislabelled == ""


@pytest.mark.parametrize(
    ("x", "y", "t", "told"),
    [
        (torch.zeros(4, 3, 2, 2), None, [0, 0, 0, 0.5], "torch.float32"),
        (torch.zeros(4, 3, 2, 2), None, [0, 0, 0], "one step for every image"),
        (torch.zeros(4, 3, 2, 2), None, [0, 0, 6, 0], "t = 6"),
        (torch.zeros(4, 3, 2, 2), None, [0, -1, 0, 0], "t = -1"),
        (torch.zeros(4, 3, 2), None, [0] * 4, "shape"),
        (torch.full((4, 3, 2, 2), math.nan), None, [0] * 4, "not finite"),
        ("x", None, [0], "a tensor belongs"),
        (torch.zeros(2, 3, 2, 2), None, [0, 0], "no labels that are theirs"),
        (torch.zeros(2, 3, 2, 2), torch.tensor([77, 78]), [0, 0], "no labels that are theirs"),
    ],
)
def test_a_malformed_call_is_the_student_s_failure(x: object, y: object, t: list[float], told: str) -> None:
    with pytest.raises(Failure) as failure:
        Denoiser(a_case(4, 3, 2, 2)).denoise_fn(x, y, torch.tensor(t))
    assert told in f"{failure.value.message} {failure.value.hint}"


@pytest.mark.parametrize("t", [None, 3, torch.tensor(3), "t"])
def test_what_is_no_tensor_of_steps_is_the_student_s_failure(t: object) -> None:
    denoiser = Denoiser(a_case(4, 3, 2, 2))
    with pytest.raises(Failure, match="passes a t to denoise_fn"):
        denoiser.denoise_fn(denoiser.case.x_start, denoiser.case.y, t)
    with pytest.raises(Failure, match="passes a t to q_sample"):
        denoiser.q_sample(denoiser.case.x_start, t, denoiser.case.x_start)


def test_an_endless_loop_of_one_step_is_ended() -> None:
    denoiser = Denoiser(a_case(4, 3, 2, 2))
    arguments = denoiser.case.x_start, denoiser.case.y, steps_of(2, 4)
    for _ in range(MOST_CALLS):
        denoiser.denoise_fn(*arguments)
    with pytest.raises(Failure, match="repeated"):
        denoiser.denoise_fn(*arguments)


def test_other_labels_are_told_and_do_not_count_otherwise() -> None:
    denoiser = Denoiser(a_case(4, 3, 2, 2))
    denoiser.denoise_fn(denoiser.case.x_start, denoiser.case.y.flip(0), steps_of(2, 4))
    assert denoiser.mislabelled == "At t = 2 it passes the labels in another order"


def test_a_bound_that_is_not_finite_is_told_where_to_look() -> None:
    case = a_case(2, 1, 2, 2)
    for value in (math.inf, math.nan, 1e12):
        with pytest.raises(Failure) as failure:
            expect_bounds([(torch.tensor([1.0, value]), case)])
        assert "posterior_variance is 0" in failure.value.hint
    expect_bounds([(bound(case).float(), case)])

"""The oracle of DDIM against identities, limits and DDPM; and what the checks of question 3.2 make of moves."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, testing

from grader.checks.test_2_3_diffusion import Moves
from grader.checks.test_3_2_ddim import FAR_OFF, LONG, MEAN, STD, UNEVEN, WAYS, StepRecorder, fit, slopes, weighted
from grader.oracle.ddim import ddim_moments, ddim_trajectory, ddim_weights
from grader.oracle.diffusion import GaussianData, Schedule

ETA = torch.tensor(0.5)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def steps_of(schedule: Schedule) -> Tensor:
    return torch.arange(schedule.num_timesteps)


# ---------------------------------------------------------------- the oracle


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_a_move_keeps_the_distribution_of_x_given_the_data(eta: float) -> None:
    """Of sqrt(abar) x_0 + sqrt(1 - abar) noise it makes the same at the step before, and at the end x_0."""
    signal, noise, fresh = ddim_weights(LONG).at(steps=torch.tensor(UNEVEN), eta=torch.tensor(eta)).values()[0].T
    before = torch.cat([LONG.alphas_cumprod[list(UNEVEN[-2::-1])], torch.ones(1, dtype=torch.float64)])
    testing.assert_close(signal**2, before)
    testing.assert_close(noise**2 + fresh**2, 1 - before)
    assert signal[-1] == 1
    assert noise[-1] == fresh[-1] == 0
    assert bool((fresh[:-1] > 0).all()) == (eta > 0)


def test_with_eta_one_and_all_steps_a_move_is_the_posterior_of_ddpm() -> None:
    weights = ddim_weights(LONG).at(steps=steps_of(LONG), eta=torch.tensor(1.0)).values()[0].flip(0)
    abar = LONG.alphas_cumprod
    testing.assert_close(weights[:, 2] ** 2, LONG.posterior_variance)
    testing.assert_close(weights[1:, 1] / (1 - abar[1:]).sqrt(), LONG.posterior_mean_coef2[1:])
    testing.assert_close(weights[:, 0] - weights[:, 1] * (abar / (1 - abar)).sqrt(), LONG.posterior_mean_coef1)


def test_on_standard_normal_data_every_move_is_a_cosine() -> None:
    """With x on a circle of angle arccos sqrt(abar), a move takes the cosine of the angle that it goes through."""
    x = draw(3, 2, 1, 2)
    path = ddim_trajectory(LONG, 0.0, 1.0).at(x=x, steps=torch.tensor(UNEVEN)).values()[0]
    angles = torch.cat([torch.zeros(1), LONG.alphas_cumprod[list(UNEVEN)].sqrt().acos()]).flip(0)
    shrunk = torch.cat([torch.ones(1), (angles[:-1] - angles[1:]).cos().cumprod(0)])
    testing.assert_close(path, x[:, None] * shrunk[:, None, None, None])


def test_in_the_limit_of_many_steps_quantiles_are_kept() -> None:
    """The moves become the flow of an equation that takes N at every step to N: Song et al. (2021), section 4.3."""
    schedule, x = Schedule(1e-5, 4e-2, 1000), draw(2, 1, 2, 2)
    result = ddim_trajectory(schedule, MEAN, STD).at(x=x, steps=steps_of(schedule)).values()[0][:, -1]
    abar = schedule.alphas_cumprod[-1]
    testing.assert_close(
        result, MEAN + STD * (x - abar.sqrt() * MEAN) / (abar * STD**2 + 1 - abar).sqrt(), atol=1e-2, rtol=0
    )


def test_moments_agree_with_ddpm_and_without_noise_with_the_trajectory() -> None:
    one = ddim_moments(LONG, MEAN, STD).at(steps=steps_of(LONG), eta=torch.tensor(1.0)).values()[0]
    assert one.tolist() == pytest.approx(GaussianData(LONG, MEAN, STD).sampled_moments())
    steps, x = torch.tensor(UNEVEN), torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1)
    low, high = ddim_trajectory(LONG, MEAN, STD).at(x=x, steps=steps).values()[0][:, -1].flatten()
    none = ddim_moments(LONG, MEAN, STD).at(steps=steps, eta=torch.tensor(0.0)).values()[0]
    testing.assert_close(none, torch.stack([low, (high - low) ** 2]))


def test_moments_agree_with_a_simulation() -> None:
    """200,000 samples; the tolerances are five standard errors."""
    data, weights = GaussianData(LONG, MEAN, STD), ddim_weights(LONG).at(steps=torch.tensor(UNEVEN), eta=ETA)
    x = draw(200_000, 1, 1, 1)
    for step, (signal, noise, fresh) in zip(reversed(UNEVEN), weights.values()[0], strict=True):
        t = torch.full((len(x),), step)
        predicted = data.denoise(x, t)
        x = signal * LONG.predict_start(x, t, predicted) + noise * predicted + fresh * draw(*x.shape, seed=step + 1)
    mean, variance = ddim_moments(LONG, MEAN, STD).at(steps=torch.tensor(UNEVEN), eta=ETA).values()[0].tolist()
    assert float(x.mean()) == pytest.approx(mean, abs=5 * (variance / len(x)) ** 0.5)
    assert float(x.var()) == pytest.approx(variance, abs=5 * variance * (2 / len(x)) ** 0.5)


def test_on_a_point_every_way_ends_there() -> None:
    for schedule, steps in WAYS:
        path = ddim_trajectory(schedule, 1.7, 0.0).at(x=draw(2, 1, 2, 2), steps=torch.tensor(steps)).values()[0]
        testing.assert_close(path[:, -1], torch.full((2, 1, 2, 2), 1.7, dtype=torch.float64))


def test_no_misconception_gives_what_is_right_or_what_another_gives() -> None:
    x = draw(2, 2, 3, 3)
    paths = [ddim_trajectory(schedule, MEAN, STD).at(x=x, steps=torch.tensor(steps)) for schedule, steps in WAYS]
    paths.append(ddim_trajectory(LONG, *FAR_OFF).at(x=12 * x, steps=torch.tensor(UNEVEN)))
    weights = [ddim_weights(LONG).at(steps=torch.tensor(UNEVEN), eta=ETA)]
    for expected in (paths, weights):
        known = [torch.cat([e.values()[0].flatten() for e in expected])]
        for text in expected[0].sentences:
            value = torch.cat([e.misconceived(text).flatten() for e in expected])
            assert not any(torch.allclose(value, other, rtol=1e-3, atol=1e-4) for other in known), text
            known.append(value)


# ---------------------------------------------------------------- the checks


@pytest.mark.parametrize(
    ("taken", "told"),
    [
        ([2, 5, 7], "The loop runs upwards"),
        ([7, 5], "to x_0 is missing"),
        ([5, 2], "where sampling starts, is missing"),
        ([5, 2, 2], "t is the step that a move leads to"),
        ([5, 2, 0], "t is the step that a move leads to"),
        ([7, 5, 2, 0], "although `steps` does not hold it"),
        (list(range(9, -1, -1)), "All steps of the schedule"),
        (list(range(7, -1, -1)), "All steps from the last down"),
        ([2, 1, 0], "t is the position in `steps`; "),
        ([0, 1, 2], "t is the position in `steps`, upwards"),
        ([7, 2, 5], "Each of `steps` is taken once"),
    ],
)
def test_steps_that_are_not_right_are_explained(taken: list[int], told: str) -> None:
    seen = StepRecorder(GaussianData(WAYS[2][0], 0.0, 1.0), torch.zeros(1, 1, 2, 2), torch.zeros(1), (2, 5, 7))
    seen.steps = taken
    assert told in seen.explain_steps()


def test_moves_fit_their_weights_alone() -> None:
    """Noise that rises with x does not, nor does any misconception; the one that is made does."""
    weights = ddim_weights(LONG).at(steps=torch.tensor(UNEVEN), eta=ETA)
    x, steps = draw(5, 16, 2, 8, 8), list(UNEVEN[:0:-1])
    data, fresh = GaussianData(LONG, MEAN, STD), draw(5, 16, 2, 8, 8, seed=1)
    prediction = torch.stack([data.denoise(part, torch.full((16,), t)) for part, t in zip(x, steps, strict=True)])

    def moved(values: Tensor, noise: Tensor) -> Moves:
        start = Moves(LONG, steps, x, x, prediction)
        moments = weighted(start, values)
        return Moves(LONG, steps, x, moments.mean + moments.std * noise, prediction)

    right = weights.values()[0]
    assert fit(moved(right, fresh), weighted(moved(right, fresh), right))
    assert not fit(moved(right, 0.8 * fresh + 0.6 * x), weighted(moved(right, fresh), right))
    made = {text: weights.misconceived(text) for text in weights.sentences}
    for text, values in made.items():
        moves = moved(values, fresh)
        assert not fit(moves, weighted(moves, right)), text
        assert [other for other in made if fit(moves, weighted(moves, made[other]))] == [text]


def test_slopes_are_standard_normal() -> None:
    scores = slopes(draw(2000, 1, 1, 4, 8), 3 + draw(2000, 1, 1, 4, 8, seed=1))
    assert float(scores.mean()) == pytest.approx(0, abs=5 / 2000**0.5)
    assert float(scores.var()) == pytest.approx(1, abs=5 * (2 / 2000) ** 0.5)

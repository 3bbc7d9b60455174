"""Dropped labels and guidance: the closed form by Bayes' rule and in the limits, a guided sampler step by step."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, testing
from torch.distributions import Binomial, Normal

from grader.checks.draw import Draw
from grader.checks.hidden.test_3_3_guidance import ddim_step
from grader.checks.test_3_3_guidance import (
    CALLS,
    SMALL,
    Batch,
    Drops,
    draw_batch,
    draw_labels,
    expect_dropped,
    expect_every_place,
    expect_independent_pairs,
    expect_no_shared_coin,
    expect_random_numbers,
    expect_shares,
    is_binomial,
)
from grader.engine.student import Failure
from grader.oracle.diffusion import Schedule, column
from grader.oracle.guidance import GUIDED_NOISE, GuidedGaussians

SCHEDULE = Schedule(1e-2, 0.5, 8)
DATA = GuidedGaussians(SCHEDULE, torch.tensor([1.5, -2.0, 0.25], dtype=torch.float64), 0.5, 0.4)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def guided(weight: float, with_labels: Tensor, without: Tensor) -> Tensor:
    inputs = {"with_labels": with_labels, "without": without, "guidance_weight": torch.tensor(weight)}
    return GUIDED_NOISE.at(**inputs).values()[0]


# ---------------------------------------------------------------- the closed form


def test_weights_0_and_1_give_the_two_predictions_and_others_a_line_through_them() -> None:
    c, u = normal(4, 2, 3, 3), normal(4, 2, 3, 3, seed=1)
    testing.assert_close(guided(0.0, c, u), u)
    testing.assert_close(guided(1.0, c, u), c)
    for weight in (-2.0, 0.5, 7.5):
        testing.assert_close(guided(weight, c, u), torch.lerp(u, c, weight))


@pytest.mark.parametrize("weight", [-1.0, 0.0, 0.5, 1.0, 4.0])
def test_guided_noise_is_the_gradient_of_the_density_that_the_paper_aims_at(weight: float) -> None:
    """log p(x|y) + w log p(y|x), by Bayes' rule with two classes, differentiated by autograd."""
    abar = 0.3
    sigma = math.sqrt(1 - abar)
    x = normal(6).requires_grad_()
    joint = torch.stack([Normal(mean, 0.9).log_prob(x) + math.log(prior) for mean, prior in ((1.0, 0.3), (-0.5, 0.7))])
    log_marginal, log_class = joint.logsumexp(0), joint[0] - math.log(0.3)

    def noise_of(log_density: Tensor) -> Tensor:
        return -sigma * torch.autograd.grad(log_density.sum(), x, retain_graph=True)[0]

    aimed_at = log_class + (weight - 1) * (joint[0] - log_marginal)
    testing.assert_close(guided(weight, noise_of(log_class), noise_of(log_marginal)), noise_of(aimed_at))


def test_no_misconception_gives_the_right_value_or_that_of_another_at_all_weights() -> None:
    weights, c, u = (0.0, 0.5, 1.0, 3.0, -2.0, 4.0, 7.5, 15.0), normal(4, 2, 3, 3), normal(4, 2, 3, 3, seed=1)
    c, u = 8 * c, 8 * u
    cases = [GUIDED_NOISE.at(with_labels=c, without=u, guidance_weight=torch.tensor(w)) for w in weights]
    values = {text: torch.stack([case.misconceived(text) for case in cases]) for text in GUIDED_NOISE.misconceptions}
    values["right"] = torch.stack([case.values()[0] for case in cases])
    names = list(values)
    same = [(a, b) for n, a in enumerate(names) for b in names[:n] if torch.allclose(values[a], values[b])]
    assert same == []


# ---------------------------------------------------------------- a guided sampler


@pytest.mark.parametrize("weight", [-0.5, 0.0, 1.0, 2.5])
def test_sampled_agrees_with_the_steps(weight: float) -> None:
    start = x = normal(3, 2, 1, 2)
    without = torch.full_like(DATA.means, DATA.mean_without)
    for step in reversed(range(SCHEDULE.num_timesteps)):
        t = torch.full((3,), step)
        x = ddim_step(SCHEDULE, x, t, guided(weight, DATA.denoise(x, t, DATA.means), DATA.denoise(x, t, without)))
    testing.assert_close(x, DATA.sampled(start, weight), rtol=1e-6, atol=1e-6)


def test_guidance_moves_the_mean_and_leaves_the_spread() -> None:
    one, other = normal(3, 1, 1, 1), normal(3, 1, 1, 1, seed=1)
    spreads = [DATA.sampled(one, weight) - DATA.sampled(other, weight) for weight in (0.0, 1.0, 7.5)]
    testing.assert_close(spreads[1], spreads[0])
    testing.assert_close(spreads[2], spreads[0])
    point = GuidedGaussians(SCHEDULE, DATA.means, DATA.mean_without, 0.0)
    aimed_at = (0.5 + 3 * (DATA.means - 0.5)).reshape(3, 1, 1, 1)
    testing.assert_close(point.sampled(one, 3.0), aimed_at)


def test_with_many_steps_the_samples_have_the_moments_of_the_guided_data() -> None:
    """The limit of the probability flow, which maps N(0, 1) to N(guided mean, std^2); T = 4000 is close to it."""
    data = GuidedGaussians(Schedule.rescaled(4000), DATA.means, DATA.mean_without, 0.4)
    middle, above = (data.sampled(torch.full((3, 1, 1, 1), at), 2.0).flatten() for at in (0.0, 1.0))
    testing.assert_close(middle, 0.5 + 2 * (DATA.means - 0.5), rtol=0, atol=0.02)
    testing.assert_close(above - middle, torch.full((3,), 0.4, dtype=torch.float64), rtol=0, atol=0.01)


def test_the_denoiser_is_the_gradient_of_the_log_density() -> None:
    x, t = normal(3, 1, 2, 2).requires_grad_(), torch.tensor([0, 3, 7])
    abar = column(SCHEDULE.alphas_cumprod, t)
    noisy = Normal(abar.sqrt() * DATA.means.reshape(-1, 1, 1, 1), (abar * 0.4**2 + 1 - abar).sqrt())
    score = torch.autograd.grad(noisy.log_prob(x).sum(), x)[0]
    testing.assert_close(DATA.denoise(x.detach(), t, DATA.means), -(1 - abar).sqrt() * score)


# ---------------------------------------------------------------- what the checks stand on


def test_the_denoiser_of_a_batch_answers_in_any_order_and_names_what_is_not_of_it() -> None:
    batch = draw_batch(Draw(0, "batch"), [5, 0, 9], null_label=7 + 10)
    order = torch.tensor([2, 0, 0, 1])
    labels = torch.where(torch.tensor([True, False, True, False]), batch.y[order], 17)
    got = batch.denoise_fn(batch.x[order], labels, batch.t[order])
    testing.assert_close(
        got, torch.stack([batch.with_labels[2], batch.without[0], batch.with_labels[0], batch.without[1]])
    )
    wrong_calls: list[tuple[object, object, object, str]] = [
        (batch.x + 1e-3, batch.y, batch.t, "another x"),
        (batch.x[0], batch.y, batch.t, "where x belongs"),
        (batch.x, batch.y + 1000, batch.t, "for an image whose label is"),
        (batch.x, batch.y.int(), batch.t, "int32"),
        (batch.x, None, batch.t, "None for y"),
        (batch.x, batch.y, batch.t.flip(0), "that is not that of the image"),
        (batch.x, batch.y, batch.t[:1], r"of shape \(1,\) for t"),
    ]
    for x, y, t, message in wrong_calls:
        with pytest.raises(Failure, match=message):
            batch.denoise_fn(x, y, t)
    with pytest.raises(Failure) as failure:
        batch.denoise_fn(batch.x, batch.t, batch.y)
    assert failure.value.hint == "Labels come before t."


def test_images_of_a_batch_are_told_apart_by_all_of_their_elements() -> None:
    x = torch.zeros(2, 1, 1, 2)
    x[1, 0, 0, 1] = 1
    batch = Batch(x, torch.tensor([1, 2]), torch.tensor([3, 4]), 0, x + 5, x + 7)
    testing.assert_close(
        batch.denoise_fn(x.flip(0), torch.tensor([2, 0]), torch.tensor([4, 3])), torch.stack([x[1] + 5, x[0] + 7])
    )


@pytest.mark.parametrize(("trials", "probability"), [(200, 0.5), (2000, 0.1), (1000, 0.95)])
def test_binomial_bounds_keep_their_rate_and_catch_twice_the_rarer_side(trials: int, probability: float) -> None:
    rate = 1e-4
    log_probabilities = Binomial(trials, torch.tensor(probability, dtype=torch.float64)).log_prob(
        torch.arange(trials + 1.0)
    )
    draw = Draw(0, "bounds")
    outside = [k for k in range(trials + 1) if not is_binomial(draw, "hits", k, trials, probability, rate)]
    assert float(log_probabilities[outside].exp().sum()) <= rate
    assert {0, trials} <= set(outside)
    rarer = min(probability, 1 - probability)
    doubled = round(trials * (2 * rarer if probability <= 0.5 else 1 - 2 * rarer))
    assert doubled in outside


def drops(dropped: Tensor) -> Drops:
    classes = torch.arange(SMALL).div(2, rounding_mode="floor") % 10
    return Drops(0.5, classes.expand(CALLS, -1), dropped)


def test_the_statistics_of_dropped_labels_pass_independent_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    right = drops(torch.rand(CALLS, SMALL, generator=generator) < 0.5)
    draw = Draw(0, "drops")
    expect_no_shared_coin([right, right])
    expect_shares(draw, [right])
    for expect in (expect_every_place, expect_random_numbers, expect_independent_pairs):
        expect(draw, right)
    assert 0 < max(draw.margins.values()) < 0.8


def test_the_statistics_of_dropped_labels_catch_those_that_depend_on_one_another() -> None:
    generator, draw = torch.Generator().manual_seed(0), Draw(0, "drops")
    numbers = torch.rand(CALLS, SMALL, generator=generator)
    half = numbers <= numbers.median(dim=1, keepdim=True).values
    with pytest.raises(Failure, match="exactly half"):
        expect_random_numbers(draw, drops(half))
    with pytest.raises(Failure, match="at place"):
        expect_every_place(draw, drops(half.sort(dim=1, descending=True).values))
    for together in (
        (numbers[:, ::2] < 0.5).repeat_interleave(2, dim=1),
        (torch.arange(SMALL) % 2 == 0).expand(CALLS, -1),
    ):
        with pytest.raises(Failure, match="neighbours"):
            expect_independent_pairs(draw, drops(together))
    with pytest.raises(Failure, match="as a whole"):
        expect_no_shared_coin([drops((numbers[:, :1] < 0.5).expand(-1, SMALL))])


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ([10, 2, 10, 4], ""),
        ([0, 2, 0, 4], "Where a label is dropped stands 0."),
        ([4, 3, 2, 1], "The labels are in another order"),
        ([10, 2, 9, 8], "A label that is kept stays what and where it is"),
    ],
)
def test_labels_that_are_neither_kept_nor_dropped_are_named(value: list[int], told: str) -> None:
    y = torch.tensor([1, 2, 3, 4])
    if not told:
        assert expect_dropped(torch.tensor(value), y, 10).tolist() == [True, False, True, False]
        return
    with pytest.raises(Failure) as failure:
        expect_dropped(torch.tensor(value), y, 10)
    assert failure.value.hint.startswith(told)


def test_drawn_labels_are_never_the_one_that_stands_for_none() -> None:
    draw = Draw(0, "labels")
    assert draw_labels(draw, 0, 1000).unique().tolist() == list(range(1, 11))
    assert draw_labels(draw, 10, 1000).unique().tolist() == list(range(10))

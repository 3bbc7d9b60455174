"""The closed form of the running average against mathematics of its own, and what its checks do beside it."""

from __future__ import annotations

import math
from itertools import combinations

import torch
from torch import Tensor, testing

from grader.checks.draw import Draw
from grader.checks.expect import close
from grader.checks.test_3_4_average import LAYERS, WITH_BUFFERS, differing, draw_cases, listed, same
from grader.oracle.average import RUNNING_AVERAGE
from grader.tests.conftest import QUESTIONS


def after(average: Tensor, networks: Tensor, first: int, decay: float) -> Tensor:
    """The average after calls at `first` and the steps that follow."""
    steps = torch.arange(first, first + len(networks))
    inputs = {"average": average, "networks": networks, "steps": steps, "decay": torch.tensor(decay).double()}
    return RUNNING_AVERAGE.at(**inputs).values()[0]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_after_the_warm_up_what_was_n_steps_ago_counts_the_decay_to_the_n() -> None:
    average, networks, decay = normal(3), normal(20, 3, seed=1), 0.7
    powers = decay ** torch.arange(19, -1, -1, dtype=torch.float64)
    right = decay**20 * average + (1 - decay) * (powers[:, None] * networks).sum(dim=0)
    testing.assert_close(after(average, networks, 1000, decay), right)


def test_what_was_before_training_counts_a_product_of_gamma_functions_in_the_warm_up() -> None:
    calls = 30  # the product of (1 + s) / (10 + s) for s < n is n! 9! / (n + 9)!
    forgotten = after(torch.ones(1).double(), torch.zeros(calls, 1).double(), 0, 0.9999)
    right = math.exp(math.lgamma(calls + 1) + math.lgamma(10) - math.lgamma(calls + 10))
    testing.assert_close(forgotten, torch.tensor([right]).double())


def test_an_average_of_what_stands_still_stands_still_and_the_average_is_linear() -> None:
    average, networks = normal(4), normal(5, 4, seed=1)
    still = average.expand(5, 4)
    testing.assert_close(after(average, still, 3, 0.9), average)
    total = after(2 * average + 1, 2 * networks + 1, 0, 0.9)
    testing.assert_close(total, 2 * after(average, networks, 0, 0.9) + 1)


def test_the_average_lies_between_what_it_was_and_the_network() -> None:
    average, network = normal(50), normal(1, 50, seed=1)
    for step in (0, 8, 9, 10_000):
        moved = (after(average, network, step, 0.5) - average) / (network[0] - average)
        testing.assert_close(moved, torch.full_like(moved, max(0.5, 9 / (10 + step))))


def test_weights_of_torch() -> None:
    swa = torch.optim.swa_utils.get_ema_multi_avg_fn(0.95)
    mean, networks = [normal(4)], normal(6, 4, seed=1)
    right = after(mean[0].clone(), networks, 500, 0.95)
    for network in networks:
        swa(mean, [network], None)
    testing.assert_close(mean[0], right)


def test_mistakes_are_wrong_and_can_be_told_apart() -> None:
    """At the inputs of the check that looks for them."""
    expected = [RUNNING_AVERAGE.at(**case.inputs(LAYERS)) for case in draw_cases(Draw(0, "mistakes"))]
    values = {text: torch.cat([e.misconceived(text) for e in expected]) for text in RUNNING_AVERAGE.misconceptions}
    values["right"] = torch.cat([e.values()[0] for e in expected])
    assert [pair for pair in combinations(values, 2) if close(values[pair[0]], values[pair[1]])] == []


def test_states_are_compared_to_the_bit() -> None:
    state = WITH_BUFFERS.draw(Draw(0, "states"), 1, 2)
    other = {name: x.clone() for name, x in state.items()}
    assert differing(state, other) == []
    other["0.weight"][1] = torch.nextafter(other["0.weight"][1], torch.tensor(9.0))
    other["1.0.num_batches_tracked"] += 1
    del other["0.bias"]
    assert differing(state, other) == ["0.weight", "0.bias", "1.0.num_batches_tracked"]
    assert not same(torch.ones(2), torch.ones(2, 1))


def test_many_names_are_cut_short() -> None:
    assert listed(["a", "b"]) == "a, b"
    assert listed(list("abcdef")) == "a, b, c, d, ..."


def test_points() -> None:
    question = QUESTIONS["3.4"]
    assert question.optional
    assert question.points == 2

"""The closed forms of flow matching, by calculus and by the distributions that they are about."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, testing

from grader.checks.test_3_6_flow import Recorder
from grader.engine.student import Failure
from grader.oracle.closed_form import ClosedForm
from grader.oracle.flow import (
    FLOW_POINTS,
    FLOW_VELOCITY,
    OFF_COURSE,
    OFF_TIME,
    RIGHT,
    Sampler,
    exact_samples,
    flow_points,
    flow_times,
    lined_up,
)
from grader.oracle.gaussian_flow import GaussianFlow

FLOWS = [GaussianFlow(1.5, 0.5), GaussianFlow(-2.0, 1.7), GaussianFlow(0.0, 1.0)]
EPSILON = 1e-5


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def path_at(time: float | Tensor) -> dict[str, Tensor]:
    times = torch.as_tensor(time, dtype=torch.float64).expand(4).clone()
    return {"x_start": draw(4, 4, 4, 4), "time": times, "noise": draw(4, 4, 4, 4, seed=1)}


# ---------------------------------------------------------------- paths


def test_a_path_leads_from_data_to_noise_by_the_middle() -> None:
    start, middle, end = (FLOW_POINTS.at(**path_at(time)).values()[0] for time in (0.0, 0.5, 1.0))
    testing.assert_close(start, path_at(0.0)["x_start"])
    testing.assert_close(end, path_at(0.0)["noise"])
    testing.assert_close(middle, (start + end) / 2)


def test_the_velocity_is_the_derivative_of_the_points() -> None:
    time = torch.tensor([0.0, 0.2, 0.7, 1.0], dtype=torch.float64)
    before, after = (FLOW_POINTS.at(**path_at(t)).values()[0] for t in (time - EPSILON, time + EPSILON))
    testing.assert_close(FLOW_VELOCITY.at(**path_at(time)).values()[0], (after - before) / (2 * EPSILON))


@pytest.mark.parametrize("form", [FLOW_POINTS, FLOW_VELOCITY])
def test_mistakes_about_paths_differ_from_what_is_right_and_from_one_another(form: ClosedForm) -> None:
    inputs = path_at(torch.tensor([0.3, 0.45, 0.6, 0.9]))
    at = form.at(**{name: x if name == "time" else 8 * x for name, x in inputs.items()})
    values = [at.values()[0], *(at.misconceived(sentence) for sentence in at.sentences)]
    for n, one in enumerate(values):
        assert not any(torch.allclose(one, other) for other in values[:n]), list(at.sentences)[n - 1]


def test_a_time_cannot_be_lined_up_with_an_axis_of_another_length() -> None:
    x = draw(2, 3, 2, 5)
    time = torch.tensor([0.25, 0.75], dtype=torch.float64)
    assert lined_up(1)(x, time, -x).isnan().all()
    rows = lined_up(2)(x, time, -x)
    testing.assert_close(rows[:, :, 0], 0.5 * x[:, :, 0])
    testing.assert_close(rows[:, :, 1], -0.5 * x[:, :, 1])


# ---------------------------------------------------------------- the velocity of Gaussian data


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("time", [0.0, 0.3, 1.0])
def test_the_velocity_of_gaussian_data_is_a_regression_on_the_position(flow: GaussianFlow, time: float) -> None:
    x_start, noise = flow.mean + flow.std * draw(200_000), draw(200_000, seed=1)
    x, velocity = (1 - time) * x_start + time * noise, noise - x_start
    residual = velocity - flow.velocity(x, time)  # has mean 0 and is uncorrelated with x; bounds are five deviations
    deviation = float(residual.std()) / math.sqrt(len(x)) + 1e-9
    assert abs(float(residual.mean())) < 5 * deviation
    assert abs(float((residual * (x - x.mean())).mean())) < 5 * deviation * float(x.std())


def test_to_a_point_paths_are_straight() -> None:
    point, x = GaussianFlow(2.0, 0.0), draw(3, 2)
    testing.assert_close(point.velocity(x, 0.25), (x - 2) / 0.25)
    testing.assert_close(point.velocity(torch.full((1,), 2.0), 0.0), torch.tensor([-2.0], dtype=torch.float64))


# ---------------------------------------------------------------- samplers


@pytest.mark.parametrize("heun", [False, True])
@pytest.mark.parametrize("num_steps", [1, 2, 7])
def test_any_number_of_steps_ends_at_a_point(num_steps: int, heun: bool) -> None:
    samples = flow_points(num_steps, heun, 2.0, 0.0).at(x=draw(3, 2)).values()[0][:, -1]
    testing.assert_close(samples, torch.full_like(samples, 2.0))


@pytest.mark.parametrize("flow", FLOWS[:2])
@pytest.mark.parametrize(("heun", "order"), [(False, 1), (True, 2)])
def test_the_error_falls_with_the_order_of_the_method(flow: GaussianFlow, heun: bool, order: int) -> None:
    x = draw(3, 2)
    errors = [(RIGHT.seen(flow, x, n, heun)[1][:, -1] - exact_samples(flow, x)).abs().mean() for n in (128, 256)]
    assert float(errors[0] / errors[1]) == pytest.approx(2**order, rel=0.05)


def test_samples_of_many_steps_are_distributed_as_data() -> None:
    flow = FLOWS[0]
    x = draw(1000)
    x = (x - x.mean()) / x.std()
    samples = RIGHT.seen(flow, x, 200, True)[1][:, -1]
    assert float(samples.mean()) == pytest.approx(1.5, abs=1e-9)
    assert float(samples.std()) == pytest.approx(0.5, abs=1e-3)


def test_times_and_points_of_two_steps_by_hand() -> None:
    times = flow_times(2, True).at(x=draw(3)).values()[0]
    assert times.tolist() == [1.0, 0.5, 0.5]
    assert flow_times(2, False).at(x=draw(3)).values()[0].tolist() == [1.0, 0.5]
    x = torch.ones(1, dtype=torch.float64)  # of data N(0, 1): the velocity is (2 s - 1) x / ((1 - s)^2 + s^2)
    points = flow_points(2, True, 0.0, 1.0).at(x=x).values()[0]
    testing.assert_close(points, torch.tensor([[1.0, 0.5, 0.75, 0.75]], dtype=torch.float64))


def trace(sampler: Sampler, flow: GaussianFlow) -> list[Tensor]:
    """The times and points of a sampler, by Euler and by Heun, in several numbers of steps."""
    x = 8 * draw(2, 3)
    return [part for n in (2, 5, 120) for heun in (False, True) for part in sampler.seen(flow, x, n, heun)]


@pytest.mark.parametrize("samplers", [OFF_TIME, OFF_COURSE])
def test_mistakes_of_samplers_differ_from_what_is_right_and_from_one_another(samplers: Mapping[str, Sampler]) -> None:
    traces = [trace(sampler, GaussianFlow(-14.0, 2.0)) for sampler in (RIGHT, *samplers.values())]
    for n, one in enumerate(traces):
        for other in traces[:n]:
            pairs = zip(one, other, strict=True)
            assert not all(a.shape == b.shape and torch.allclose(a, b) for a, b in pairs), list(samplers)[n - 1]


def test_mistakes_of_the_way_leave_the_times_alone() -> None:
    for sentence, sampler in OFF_COURSE.items():
        for got, right in zip(trace(sampler, FLOWS[0])[::2], trace(RIGHT, FLOWS[0])[::2], strict=True):
            assert torch.equal(got, right), sentence


# ---------------------------------------------------------------- the recorder


def recorder() -> Recorder:
    return Recorder(FLOWS[0], (2, 1), torch.tensor([1, 1]), 2)


def test_labels_that_look_like_times_are_no_labels() -> None:
    seen = recorder()
    seen.velocity_fn(torch.zeros(2, 1), None, torch.ones(2))
    seen.velocity_fn(torch.zeros(2, 1), None, torch.full((2,), 1 + 1e-7, dtype=torch.float64))
    assert seen.times == [1.0, 1.0]
    with pytest.raises(Failure, match="more than 2 times"):
        seen.velocity_fn(torch.zeros(2, 1), None, torch.ones(2))


@pytest.mark.parametrize(
    ("time", "message"),
    [
        (0.5, "no tensor"),
        (torch.tensor([1, 1]), "labels y where time belongs"),
        (torch.tensor([0, 1]), "torch.int64"),
        (torch.tensor(0.5), r"shape \(\)"),
        (torch.tensor([0.5, 0.6]), "different times"),
        (torch.tensor([1.2, 1.2]), "time = 1.2"),
        (torch.tensor([math.nan, math.nan]), "time = nan"),
    ],
)
def test_a_time_that_is_none_is_named(time: object, message: str) -> None:
    with pytest.raises(Failure, match=message):
        recorder().velocity_fn(torch.zeros(2, 1), None, time)

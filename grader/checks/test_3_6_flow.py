"""Questions 3.6a, the straight paths of flow matching, and 3.6b, the samplers that follow their velocity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from grader.engine.student import Built, Failure, Observation, Student, call_each, observe
from grader.oracle.answers import Form, form
from grader.oracle.gaussian_flow import GaussianFlow

from .devices import expect_one_device
from .digits import expect_full_precision
from .draw import Draw
from .expect import (
    close,
    expect_all,
    expect_gradients,
    expect_unchanged,
    numbers,
    outputs,
    tensor,
    wrong,
)
from .explain import explain
from .runner import question
from .test_2_3_diffusion import instead_of_labels

FLOW_POINTS, FLOW_VELOCITY = form("FLOW_POINTS"), form("FLOW_VELOCITY")
X, VELOCITY = 0, 1  # of what path returns
NEVER_CALLED = "Your sampler never called velocity_fn."
ONE_TIME = "time is a (B,) tensor of floating-point numbers in [0, 1], the same for all images."
SHOWN_TIMES = 9
ON_THE_EDGE = 1e-5  # how far rounding may take a time out of [0, 1]
Inputs = dict[str, Tensor]


# ---------------------------------------------------------------- 3.6a


def draw_path(draw: Draw, time: Tensor, *shape: int, std: float = 1.0) -> Inputs:
    """Arguments of `path` for times (B,) and images of a shape (C, H, W)."""
    whole = (len(time), *shape)
    return {"x_start": draw.normal(*whole, std=std), "time": time, "noise": draw.normal(*whole, std=std)}


def draw_cubes(draw: Draw) -> list[Inputs]:
    """Arguments at drawn times, and at both ends; with axes as long as the batch, so that any may be taken for it.

    One of them is a single large image.
    """
    times = [draw.uniform(0.1, 0.9, 4), draw.uniform(0.1, 0.9, 4), torch.tensor([0.0, 1.0, 1.0, 0.0])]
    single = draw_path(draw, draw.uniform(0.1, 0.9, 1), 4, 4, 4, std=12.0)
    return [single, *(draw_path(draw, time, 4, 4, 4) for time in times)]


def paths(student: Student, cases: Sequence[Inputs]) -> list[tuple]:
    """What `path` returns, for every case."""
    return [outputs(both, 2, "path") for both in call_each(student.flow.RectifiedFlow().path, cases)]


def expect_paths(right: Form, cases: Sequence[Inputs], results: Sequence[Any], what: str) -> None:
    """One of the two results of `path`, for every case."""
    expect_all([(got, right.at(**inputs)) for got, inputs in zip(results, cases, strict=True)], what)


@question("3.6a")
def test_flow_points(student: Student, draw: Draw) -> None:
    """x on the paths, at another time for every image, and at the times 0 and 1."""
    cases = draw_cubes(draw)
    first, *points = [both[X] for both in paths(student, [cases[0], *cases])]
    shape = tuple(cases[0]["noise"].shape)
    if not close(tensor(first, shape, "x"), tensor(points[0], shape, "x")):
        raise wrong("Two calls with the same arguments differ.", "Use `noise`; do not draw noise of your own.")
    expect_paths(FLOW_POINTS, cases, points, "x")


@question("3.6a")
def test_flow_velocity(student: Student, draw: Draw) -> None:
    """The velocity on the paths, at another time for every image, and at the times 0 and 1."""
    cases = draw_cubes(draw)
    velocities = [both[VELOCITY] for both in paths(student, cases)]
    at_ends = velocities[-1]
    if isinstance(at_ends, Tensor) and not bool(at_ends.isfinite().all()):
        raise wrong(
            "At the times 0 and 1 the velocity is not finite.",
            "There is a derivative at every time: divide neither by time nor by 1 - time.",
        )
    expect_paths(FLOW_VELOCITY, cases, velocities, "velocity")


@question("3.6a")
def test_flow_gradient(student: Student, draw: Draw) -> None:
    """The gradients of both results by x_start and noise; the arguments stay, and all is on their device."""
    inputs = draw_path(draw, draw.uniform(0.1, 0.9, 3), 2, 4, 5)
    path = student.flow.RectifiedFlow().path
    observed = observe(path, inputs, differentiate=False)
    expect_unchanged(observed, inputs)
    outputs(observed.value, 2, "path")
    weights = draw.uniform(0.5, 1.5, *inputs["noise"].shape)
    for which, right in [(X, FLOW_POINTS), (VELOCITY, FLOW_VELOCITY)]:
        cotangent = torch.stack([weights if n == which else torch.zeros_like(weights) for n in (X, VELOCITY)])
        both = observe(student.torch.stack, {"results": Built(path, inputs)}, cotangent)
        expect_gradients(_of_images(both, which), right.at(**inputs), weights)
    expect_one_device(student, path, *inputs.values())


def _of_images(both: Observation, which: int) -> Observation:
    """One of two stacked results with its gradients by images; nobody differentiates by time."""
    gradients = {name: gradient for name, gradient in both.gradients.items() if name != "time"}
    if not isinstance(both.value, Tensor) or both.value.ndim == 0 or len(both.value) != len((X, VELOCITY)):
        raise wrong("path does not return two tensors of one shape.", "Leave them in `x` and `velocity`.")
    return replace(both, value=both.value[which], gradients=gradients)


# ---------------------------------------------------------------- 3.6b


class Recorder:
    """The velocity of data whose answer is known, which remembers every call: x and time.

    What it keeps is bounded: tensors of the shape that is expected, for a few times as many calls as are needed.

    Attributes:
        mislabelled: what first came in the place of the labels, and when, as a sentence; "" where they were right.
    """

    def __init__(self, flow: GaussianFlow, shape: tuple[int, ...], y: Tensor, most_calls: int):
        self.flow = flow
        self.shape = shape
        self.y = y
        self.most_calls = most_calls
        self.x: list[Tensor] = []
        self.mislabelled = ""
        self.times: list[float] = []

    def velocity_fn(self, x: object, y: object, time: object) -> Tensor:
        """The exact velocity, in float32; raises Failure where a call breaks the contract."""
        expect_full_precision(x, "The x that your sampler passes to velocity_fn")
        self.x.append(tensor(x, self.shape, "The x that your sampler passes to velocity_fn"))
        self.times.append(self._time(time))
        instead = "" if self.mislabelled else instead_of_labels(y, self.y)
        self.mislabelled = self.mislabelled or (instead and f"In call {len(self.times)} it passes {instead}")
        if len(self.times) > self.most_calls:
            raise wrong(
                f"Your sampler called velocity_fn more than {self.most_calls} times.",
                "Take num_steps steps: each calls it once, those of Heun twice.",
            )
        return self.flow.velocity(self.x[-1], self.times[-1]).float()

    def _time(self, time: object) -> float:
        """The one time that all of `time` (B,) says."""
        batch = self.shape[0]
        if not isinstance(time, Tensor):
            raise wrong("Your sampler passes a time to velocity_fn that is no tensor.", ONE_TIME)
        if time.dtype == self.y.dtype and torch.equal(time, self.y):
            raise wrong("Your sampler passes the labels y where time belongs.", "Labels come first, then time.")
        if not time.is_floating_point() or tuple(time.shape) != (batch,):
            raise wrong(
                f"Your sampler passes time with the shape {tuple(time.shape)} and {time.dtype} to velocity_fn.",
                f"{ONE_TIME} Here B = {batch}.",
            )
        low, high = float(time.min()), float(time.max())
        if high - low > ON_THE_EDGE:
            raise wrong("Your sampler passes different times for the images of one batch.", "All take the same step.")
        if not -ON_THE_EDGE <= low <= 1 + ON_THE_EDGE:
            raise wrong(f"Your sampler passes time = {low:.4g} to velocity_fn.", "Times are numbers from 0 to 1.")
        return min(max(low, 0.0), 1.0)


@dataclass(frozen=True)
class Run:
    """One call of a student's sampler: what it was called with, what it returned, and what was seen."""

    x: Tensor
    num_steps: int
    heun: bool
    observed: Observation
    seen: Recorder

    @property
    def asked(self) -> str:
        """What was asked for, to begin a sentence with."""
        return f"With num_steps = {self.num_steps} and heun = {self.heun}"

    @property
    def samples(self) -> Tensor:
        """What it returned, in float64. Raises Failure if that is no tensor like x."""
        expect_full_precision(self.observed.value, "The result of sample")
        return tensor(self.observed.value, tuple(self.x.shape), "The result of sample")

    @property
    def points(self) -> Tensor:
        """(B, calls + 1, C, H, W), the x of every call, then the samples."""
        return torch.stack([*self.seen.x, self.samples], dim=1)


def run_sampler(
    student: Student, flow: GaussianFlow, x: Tensor, num_steps: int, heun: bool, y: Tensor | None = None
) -> Run:
    """Run a student's sampler from x (B, C, H, W), on data whose velocity is known. Labels are 1, 2, ... by default."""
    y = torch.arange(1, len(x) + 1) if y is None else y
    seen = Recorder(flow, tuple(x.shape), y, 4 * num_steps + 4)
    arguments = {"velocity_fn": seen.velocity_fn, "x": x, "y": y, "num_steps": num_steps, "heun": heun}
    observed = observe(student.flow.RectifiedFlow().sample, arguments, differentiate=False)
    return Run(x, num_steps, heun, observed, seen)


def expect_times(runs: Sequence[Run]) -> None:
    """The times of all calls; a mistake is named where it gives those of all runs."""
    rights = [form("flow_times", run.num_steps, run.heun).at(x=run.x) for run in runs]
    got = [torch.tensor(run.seen.times, dtype=torch.float64) for run in runs]
    fits = [_alike(times, right.values()[0]) for times, right in zip(got, rights, strict=True)]
    if all(fits):
        return
    if not any(run.seen.times for run in runs):
        raise wrong(NEVER_CALLED)
    explained = (
        sentence
        for sentence in rights[0].sentences
        if all(_alike(times, right.misconceived(sentence)) for times, right in zip(got, rights, strict=True))
    )
    failed = [run for run, fit in zip(runs, fits, strict=True) if not fit][-1]
    raise wrong(f"{failed.asked}, {_calls(failed.seen.times)}, which is not right.", next(explained, ""))


def _alike(times: Tensor, right: Tensor) -> bool:
    """Whether times (calls,) are as many and the same; there may be none."""
    return len(times) == len(right) and (not len(times) or close(times, right))


def _calls(times: Sequence[float]) -> str:
    """At which times velocity_fn is called, in words."""
    if not times:
        return "your sampler never calls velocity_fn"
    shown = [f"{time:.4g}" for time in times]
    shown = shown if len(shown) <= SHOWN_TIMES else [*shown[:6], "...", *shown[-2:]]
    calls = f"{len(times)} times, at" if len(times) > 1 else "once, at"
    return f"your sampler calls velocity_fn {calls} {', '.join(shown)}"


def expect_points(runs: Sequence[Run]) -> None:
    """The x of every call at the right times, and the samples; a mistake is named where it gives those of all runs."""
    expect_times(runs)
    for run in runs:
        if not close(run.seen.x[0], run.x.double()):
            raise wrong(f"{run.asked}, sampling does not start from x.", "x is the noise to start from, at time 1.")
    rights = [
        form("flow_points", run.num_steps, run.heun, run.seen.flow.mean, run.seen.flow.std).at(x=run.x) for run in runs
    ]
    judged = [(run.points, right) for run, right in zip(runs, rights, strict=True)]
    for run, (got, right) in zip(runs, judged, strict=True):
        value = right.values()[0]
        n = next((n for n in range(got.shape[1]) if not close(got[:, n], value[:, n])), None)
        if n is not None:
            where = "the result" if n == len(run.seen.x) else f"the x of call {n + 1} of velocity_fn"
            raise wrong(
                f"{run.asked}, {where} is {numbers(got[:, n])}, which is not right.", *explain(judged, (got, right))
            )


NARROW, FAR_OFF = GaussianFlow(1.5, 0.5), GaussianFlow(-14.0, 2.0)


def draw_runs(student: Student, draw: Draw, heun: bool) -> list[Run]:
    """Runs of several images and of one; and of one where x, data and velocity leave [-10, 10]."""
    cases = [(NARROW, 2, 2, 1.0), (NARROW, 2, 5, 1.0), (NARROW, 1, 3, 1.0), (FAR_OFF, 1, 4, 14.0)]
    return [
        run_sampler(student, flow, draw.normal(batch, 2, 3, 3, std=std), steps, heun)
        for flow, batch, steps, std in cases
    ]


@question("3.6b")
def test_flow_sampler_times(student: Student, draw: Draw) -> None:
    """velocity_fn is called at the times of the steps, by Euler and by Heun, with time of shape (B,).

    Of 150 steps too, where a limit on their number shows.
    """
    many = [(draw.integer(120, 150), heun) for heun in (False, True)]
    cases = [*many, *((steps, heun) for steps in (1, 2, draw.integer(4, 9)) for heun in (False, True))]
    expect_times([run_sampler(student, NARROW, draw.normal(3, 1, 2, 2), *case) for case in cases])


@question("3.6b")
def test_flow_sampler_passes_the_labels_on(student: Student, draw: Draw) -> None:
    """velocity_fn gets the labels y in every call, as they were given."""
    seen = run_sampler(student, NARROW, draw.normal(6, 1, 2, 2), 3, True, draw.permutation(6)).seen
    if not seen.times:
        raise wrong(NEVER_CALLED)
    if seen.mislabelled:
        raise wrong(
            "Your sampler did not pass the labels y on to velocity_fn as they are.",
            f"{seen.mislabelled}; pass on y itself, in every call.",
        )


@question("3.6b")
def test_flow_sampler_of_euler(student: Student, draw: Draw) -> None:
    """The x of every call and the result, in Euler's steps on Gaussian data."""
    expect_points(draw_runs(student, draw, heun=False))


@question("3.6b")
def test_flow_sampler_of_heun(student: Student, draw: Draw) -> None:
    """The x of every call and the result, in Heun's steps on Gaussian data."""
    expect_points(draw_runs(student, draw, heun=True))


@question("3.6b")
def test_flow_sampler_ends_at_a_point(student: Student, draw: Draw) -> None:
    """If all data are one point, paths are straight, and any number of steps ends there, by Euler and by Heun."""
    flow = GaussianFlow(float(draw.uniform(1.5, 2.5, 1)), 0.0)
    cases = [(1, False), (4, False), (1, True), (4, True)]
    runs = [run_sampler(student, flow, draw.normal(3, 2, 2, 2), *case) for case in cases]
    expect_times(runs)
    for run in runs:
        if not close(run.samples, torch.full_like(run.samples, flow.mean)):
            distance = float((run.samples - flow.mean).abs().max())
            raise wrong(f"{run.asked} and all data at {flow.mean:.4g}, a sample is {distance:.2g} away from it.")


@question("3.6b")
def test_flow_sampler_leaves_inputs_alone(student: Student, draw: Draw) -> None:
    """The same arguments give the same samples, and stay as they are."""
    x = draw.normal(2, 1, 3, 3)
    one, other = (run_sampler(student, NARROW, x, 3, True) for _ in range(2))
    for run in (one, run_sampler(student, NARROW, x, 3, False), run_sampler(student, NARROW, x, 1, False)):
        if not run.seen.times:
            raise wrong(NEVER_CALLED)
        expect_unchanged(run.observed, {"x": x, "y": run.seen.y})
    if not close(one.samples, other.samples):
        raise wrong("Two calls with the same arguments differ.", "x is all the noise there is; draw none of your own.")


@question("3.6b")
def test_flow_sampler_stays_on_its_device(student: Student, draw: Draw) -> None:
    """Times are made where x is: noise on a GPU becomes data there."""
    x, y = draw.normal(4, 3, 4, 4), draw.integers(10, 4)
    for heun in (False, True):
        try:
            expect_points([run_sampler(student, NARROW, x, 3, heun, y)])
        except Failure as failure:
            raise failure.told("") from None  # as `expect_on_device_of` does
        seen = Recorder(NARROW, tuple(x.shape), y, 20)
        expect_one_device(student, student.flow.RectifiedFlow().sample, seen.velocity_fn, x, y, 3, heun, moved="x")

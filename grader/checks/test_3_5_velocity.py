"""Questions 3.5a and 3.5b, the velocity in the place of the noise, and 3.5c, Min-SNR weights of the loss.

The student's schedules are in float32. Right code may divide by sqrt(abar) or sqrt(1 - abar), or take the angle from
its cosine, which makes a rounding error larger by as much: images are tested at steps where neither root is below
SMALLEST_ROOT, so that right code stays far below the tolerance. Weights need no such care: a rounding error of
abar, which is 3e-8, becomes one of at most 3e-8 gamma.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from grader.engine.launcher import OPTIMIZERS
from grader.engine.student import Remote, Student, call_each, observe
from grader.oracle.answers import Form, form
from grader.oracle.closed_form import Expected
from grader.oracle.diffusion import Schedule

from .devices import expect_one_device
from .draw import Draw
from .expect import close, expect_all, expect_gradients, expect_unchanged, numbers, tensor, wrong
from .runner import question
from .test_2_3_diffusion import DEFAULT
from .test_3_2_ddim import make

SMALLEST_ROOT = 0.15
MIDDLE = range(50, 600)  # of the default schedule, where both roots are larger
SCHEDULES = (Schedule(3e-2, 0.3, 20), Schedule(4e-2, 0.6, 7), Schedule(2.5e-2, 4e-2, 100))
GAMMAS = (5.0, 1.0, 0.2, 1e6)
Inputs = dict[str, Tensor]


def draw_images(draw: Draw, t: Sequence[int] | Tensor, names: Sequence[str], std: float = 1.0) -> Inputs:
    """Images by two names, with the steps t (B,) between them."""
    steps = torch.as_tensor(t)
    one, other = (draw.normal(len(steps), 2, 3, 4, std=std) for _ in names)
    return {names[0]: one, "t": steps, names[1]: other}


def draw_steps(draw: Draw, count: int) -> Tensor:
    """Steps (count,) of the default schedule, all different and all in MIDDLE."""
    return draw.permutation(len(MIDDLE))[:count] + MIDDLE.start


def ends(schedule: Schedule) -> list[int]:
    """The first and the last step, and one between them."""
    return [0, schedule.num_timesteps - 1, schedule.num_timesteps // 2]


def expect_images(
    student: Student, method: str, name: str, cases: Sequence[tuple[Schedule, Inputs]], what: str
) -> None:
    """Images from a method of EnhancedDiffusion against the form of a name, each case with its own schedule."""
    results = []
    for schedule in dict.fromkeys(schedule for schedule, _ in cases):
        inputs = [given for own, given in cases if own == schedule]
        values = call_each(getattr(make(student, schedule), method), inputs)
        right = form(name, schedule)
        results += [(value, right.at(**given)) for value, given in zip(values, inputs, strict=True)]
    expect_all(results, what)


def expect_function(student: Student, function: Remote, inputs: Inputs, right: Form, weights: Tensor) -> None:
    """Expect that arguments stay, that nothing is random, one device, and the gradients by weights of the result."""
    observed = observe(function, inputs, differentiate=False)
    expect_unchanged(observed, inputs)
    again = observe(function, inputs, weights)
    first, second = (tensor(seen.value, tuple(weights.shape), "The result") for seen in (observed, again))
    if not close(first, second):
        raise wrong("Two calls with the same arguments differ.", "Nothing random belongs here; draw no noise.")
    expect_gradients(again, right.at(**inputs), weights)
    expect_one_device(student, function, *inputs.values())


# ---------------------------------------------------------------- 3.5a

OF_VELOCITY = ("x_start", "noise")  # the checks import what torch imports where a derivative is taken forwards


@question("3.5a", imports=OPTIMIZERS)
def test_velocity_steps_of_each_image(student: Student, draw: Draw) -> None:
    """v_t against the formula, with another step for every image, with one image, and with large ones."""
    sizes = ((9, 1.0), (1, 1.0), (4, 8.0))
    cases = [(DEFAULT, draw_images(draw, draw_steps(draw, batch), OF_VELOCITY, std)) for batch, std in sizes]
    expect_images(student, "velocity", "velocity", cases, "the velocity")


@question("3.5a", imports=OPTIMIZERS)
def test_velocity_first_and_last_step(student: Student, draw: Draw) -> None:
    """t = 0, which is already a little noisy, and t = T - 1, for several schedules."""
    cases = [(schedule, draw_images(draw, ends(schedule), OF_VELOCITY)) for schedule in SCHEDULES]
    expect_images(student, "velocity", "velocity", cases, "the velocity")


@question("3.5a", imports=OPTIMIZERS)
def test_velocity_gradient(student: Student, draw: Draw) -> None:
    """The gradients by x_start and noise; the arguments stay as they are, all is on their device, nothing is random."""
    inputs = draw_images(draw, draw_steps(draw, 4), OF_VELOCITY)
    weights = draw.uniform(0.5, 1.5, *inputs["noise"].shape)
    expect_function(student, make(student).velocity, inputs, form("velocity", DEFAULT), weights)


# ---------------------------------------------------------------- 3.5b

OF_NOISE = ("x", "velocity")


def draw_pair(draw: Draw, schedule: Schedule, t: Sequence[int] | Tensor) -> tuple[Inputs, Tensor]:
    """x_t and v_t of data and noise at steps t (B,), and the noise (B, C, H, W)."""
    made_of = draw_images(draw, t, OF_VELOCITY)
    x, velocity = (form(name, schedule).value(**made_of).float() for name in ("q_sample", "velocity"))
    return {"x": x, "t": made_of["t"], "velocity": velocity}, made_of["noise"]


@question("3.5b")
def test_noise_from_velocity_steps_of_each_image(student: Student, draw: Draw) -> None:
    """The noise against the formula, with another step for every image, with one image, and with large ones."""
    sizes = ((9, 1.0), (1, 1.0), (4, 8.0))
    cases = [(DEFAULT, draw_images(draw, draw_steps(draw, batch), OF_NOISE, std)) for batch, std in sizes]
    expect_images(student, "predict_noise_from_velocity", "noise_from_velocity", cases, "the noise")


@question("3.5b")
def test_noise_from_velocity_is_the_noise_of_x(student: Student, draw: Draw) -> None:
    """The noise that x_t and v_t were made with comes back, at the first and the last step of several schedules."""
    pairs = [(schedule, *draw_pair(draw, schedule, ends(schedule))) for schedule in SCHEDULES]
    cases = [(schedule, inputs) for schedule, inputs, _ in pairs]
    expect_images(student, "predict_noise_from_velocity", "noise_from_velocity", cases, "the noise")


@question("3.5b")
def test_noise_from_velocity_gradient(student: Student, draw: Draw) -> None:
    """The gradients by x and velocity; the arguments stay as they are, all is on their device, nothing is random."""
    inputs = draw_images(draw, draw_steps(draw, 4), OF_NOISE)
    weights = draw.uniform(0.5, 1.5, *inputs["x"].shape)
    right = form("noise_from_velocity", DEFAULT)
    expect_function(student, make(student).predict_noise_from_velocity, inputs, right, weights)


# ---------------------------------------------------------------- 3.5c


def expect_weights(student: Student, prediction: str, cases: Sequence[tuple[Schedule, Tensor, float]]) -> None:
    """Weights of a prediction against the formula, for schedules, steps t (B,) and gammas."""
    results: list[tuple[object, Expected]] = []
    for schedule in dict.fromkeys(schedule for schedule, _, _ in cases):
        own = [(t, gamma) for given, t, gamma in cases if given == schedule]
        calls = [{"t": t, "gamma": gamma, "prediction": prediction} for t, gamma in own]
        values = call_each(make(student, schedule).min_snr_weight, calls)
        right = form("min_snr_weight", schedule, prediction)
        expected = [right.at(t=t, gamma=torch.tensor(gamma)) for t, gamma in own]
        results += zip(values, expected, strict=True)
    expect_all(results, f"the weight of an error of the {prediction}")


def draw_weights(draw: Draw) -> list[tuple[Schedule, Tensor, float]]:
    """Every step of a short schedule for every gamma, some of a long one, and one step alone."""
    short = SCHEDULES[0]
    every = [(short, draw.permutation(short.num_timesteps), gamma) for gamma in GAMMAS]
    return [*every, (DEFAULT, draw_steps(draw, 16), 2.0), (DEFAULT, draw_steps(draw, 1), 0.5)]


@question("3.5c")
def test_weights_of_noise(student: Student, draw: Draw) -> None:
    """The weights of errors of the noise, for a gamma that limits many, some or none of them."""
    expect_weights(student, "noise", draw_weights(draw))


@question("3.5c")
def test_weights_of_velocity(student: Student, draw: Draw) -> None:
    """The weights of errors of the velocity, for a gamma that limits many, some or none of them."""
    expect_weights(student, "velocity", draw_weights(draw))


def draw_errors(draw: Draw, schedule: Schedule, t: Tensor) -> list[Tensor]:
    """Squared errors (B,) of a noise and of a velocity that mean the same wrong x_0, with the same x_t.

    All of it is linear, so that errors are made of errors, and x_t has none.
    """
    noise = draw.normal(len(t), 2, 3, 4)
    x_start = schedule.predict_start(torch.zeros_like(noise), t, noise).float()
    velocity = form("velocity", schedule).value(x_start=x_start, t=t, noise=noise)
    return [error.double().square().flatten(1).sum(1) for error in (noise, velocity)]


@question("3.5c")
def test_weights_make_one_loss(student: Student, draw: Draw) -> None:
    """A noise and a velocity that mean the same x_0 have the same weighted error; t stays, and all is on its device."""
    schedule, gamma = SCHEDULES[2], draw.number(2, 5)
    t = torch.tensor(draw.shuffled([0, draw.integer(20, 80), schedule.num_timesteps - 1]))
    function, weights = make(student, schedule).min_snr_weight, []
    for prediction in ("noise", "velocity"):
        inputs = {"t": t, "gamma": gamma, "prediction": prediction}
        observed = observe(function, inputs, differentiate=False)
        expect_unchanged(observed, {"t": t})
        weights.append(tensor(observed.value, (len(t),), f"The weight of an error of the {prediction}"))
        expect_one_device(student, function, *inputs.values())
    if not all(bool((weight > 0).all()) for weight in weights):
        raise wrong("A weight is not above 0.")
    one, other = (weight * error for weight, error in zip(weights, draw_errors(draw, schedule, t), strict=True))
    if not close(one, other):
        raise wrong(
            f"With gamma = {gamma:g}, errors of the noise and of the velocity that mean the same x_0 have the weighted "
            f"squares {numbers(one)} and {numbers(other)}; they must be the same.",
            "Both predictions get the same weights: look at `prediction`." if close(weights[0], weights[1]) else "",
        )

"""Question 3.2, the sampler of DDIM: on data whose denoiser is known, and known moves wherever nothing is random."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from grader.engine.student import Failure, Remote, Student, Unusable, fetch, observe
from grader.oracle.answers import form
from grader.oracle.closed_form import Expected
from grader.oracle.diffusion import GaussianData, Schedule
from grader.oracle.statistics import mean_bound, normal_quantile, variance_bounds

from .devices import expect_one_device
from .digits import expect_fine_noise, expect_full_precision
from .draw import Draw
from .expect import close, expect_unchanged, numbers, tensor, wrong
from .explain import explain
from .margins import ATOL, within
from .noise import (
    FEWEST,
    RATE,
    SAME,
    Moments,
    expect_distinct,
    expect_not_reordered,
    expect_standard_normal,
    rated,
    used_between,
)
from .runner import question
from .test_2_3_diffusion import (
    DEFAULT,
    FAR,
    NEVER_CALLED,
    Moves,
    Recorder,
    counting_denoiser,
    ellipsis,
    expect_labels,
    steps_in,
)

MEAN, STD = 0.8, 0.7
LONG = Schedule(5e-3, 0.3, 20)
UNEVEN = (0, 3, 4, 9, 14, 19)
FAR_OFF = -12.0, 3.0  # mean and standard deviation of data where x, x_0 and the noise leave [-10, 10]
WAYS = [  # some of the steps, unevenly; all; neither the last nor the first; a single one
    (Schedule(5e-3, 0.4, 12), (0, 3, 4, 9)),
    (Schedule(1e-2, 0.5, 6), (0, 1, 2, 3, 4, 5)),
    (Schedule(1e-2, 0.3, 10), (2, 5, 7)),
    (Schedule(1e-2, 0.3, 10), (4,)),
]
OTHER_START = "Sampling starts from the x that it is given, as it is: no other noise in its place, and not scaled."


BAD_ROOT = (
    "It comes of the square root of a negative number, or of a division by 0. alphas_cumprod falls with t: that of t "
    "is smaller than that of the step before, and that of x_0 is 1. Where a move leads, there is never less noise "
    "than the move adds: none at x_0."
)


def make(student: Student, schedule: Schedule = DEFAULT) -> Remote:
    """A student's EnhancedDiffusion with a schedule."""
    return student.enhanced.EnhancedDiffusion(schedule.beta_start, schedule.beta_end, schedule.num_timesteps)


class StepRecorder(Recorder):
    """A recorder of a sampler that is told which steps (S,) to take, from x."""

    def __init__(self, data: GaussianData, x: Tensor, y: Tensor, steps: Sequence[int]):
        super().__init__(data, tuple(x.shape), y)
        self.start = x
        self.asked = list(steps)

    def denoise_fn(self, x: object, y: object, t: object) -> Tensor:
        """See Recorder."""
        expect_no_bad_root(x)
        expect_full_precision(x, "The x that your sampler passes to denoise_fn")
        if len(self.steps) == self.data.schedule.num_timesteps + len(self.asked):
            self.expect_steps()
        return super().denoise_fn(x, y, t)

    def expect_steps(self) -> None:
        """Expect that the steps were taken from the last to the first, once each."""
        if not self.steps:
            raise wrong(NEVER_CALLED)
        if self.steps != self.asked[::-1]:
            raise wrong(
                f"With steps = [{ellipsis(self.asked)}], your sampler takes t = {ellipsis(self.steps)}.",
                self.explain_steps(),
            )

    def explain_steps(self) -> str:
        """The mistake in steps that were not taken as they should."""
        right, count = self.asked[::-1], len(self.asked)
        every = range(self.data.schedule.num_timesteps)
        known = [
            (right[::-1], "The loop runs upwards; sampling starts at the last of `steps` and ends at the first."),
            (right[:-1], "The move from the first of `steps` to x_0 is missing."),
            (right[1:], "The last of `steps`, where sampling starts, is missing."),
            (right[1:] + right[-1:], "t is the step that a move leads to; it is the step that x is at."),
            ([*right[1:], 0], "t is the step that a move leads to; it is the step that x is at."),
            ([*right, 0], "t = 0 is taken although `steps` does not hold it: the first of them leads to x_0 at once."),
            ([*every][::-1], "All steps of the schedule are taken; only those in `steps` are."),
            ([*every][right[0] :: -1], "All steps from the last down are taken; only those in `steps` are."),
            ([*range(count)][::-1], "t is the position in `steps`; it is the step that stands there."),
            (
                [*range(count)],
                "t is the position in `steps`, upwards; it is the step there, from the last to the first.",
            ),
        ]
        given = "Each of `steps` is taken once, from the last to the first, with t the step that x is at."
        return next((sentence for mistake, sentence in known if self.steps == mistake), given)

    def expect_start(self) -> None:
        """Expect that sampling started from the x that it was given."""
        if not close(self.x[0], self.start.double()):
            raise wrong("The x of the first call of denoise_fn is not the x that is given.", OTHER_START)


def expect_no_bad_root(x: object) -> None:
    """Say where nan and complex numbers come from; whatever else `x` may be is judged elsewhere."""
    is_complex = isinstance(x, Unusable) and "complex" in x.what
    if is_complex or (isinstance(x, Tensor) and bool(x.isnan().any())):
        raise wrong(f"Your sampler makes an x that holds {'complex numbers' if is_complex else 'nan'}.", BAD_ROOT)


def run_ddim(
    diffusion: Remote, draw: Draw, data: GaussianData, steps: Sequence[int], shape: tuple[int, ...], *eta: float
) -> tuple[Tensor, StepRecorder]:
    """Run a student's sampler from noise on data whose denoiser is known. Returns the samples and what was seen.

    The noise is as large as the mean of the data, if that is above 1.

    Raises Failure if the steps are others than those asked for, or the start is.
    """
    start = draw.normal(*shape, std=max(1.0, abs(data.mean)))
    seen = StepRecorder(data, start, draw.integers(10, shape[0]), steps)
    samples = diffusion.ddim_sample(seen.denoise_fn, seen.start, seen.y, torch.tensor(steps), *eta)
    expect_no_bad_root(samples)
    expect_full_precision(samples, "The result of ddim_sample")
    return tensor(samples, shape, "The result of ddim_sample"), seen


def run_checked(
    student: Student, draw: Draw, data: GaussianData, steps: Sequence[int], shape: tuple[int, ...], eta: float
) -> tuple[Tensor, StepRecorder]:
    """`run_ddim`, if it takes the steps it is asked to from the x it is given; raises Failure if it does not."""
    samples, seen = run_ddim(make(student, data.schedule), draw, data, steps, shape, eta)
    seen.expect_steps()
    seen.expect_start()
    return samples, seen


@question("3.2")
def test_ddim_takes_the_given_steps(student: Student, draw: Draw) -> None:
    """denoise_fn is called once for each of the steps, from the last to the first, starting with the x given.

    All of 1000 steps too: a limit on their number shows, and a function that calls itself for each of them.
    """
    for (schedule, steps), batch in zip(WAYS, (4, 1, 3, 2), strict=True):
        run_checked(student, draw, GaussianData(schedule, MEAN, STD), steps, (batch, 2, 3, 3), 0.5)
    every, x = range(DEFAULT.num_timesteps), draw.normal(1, 1, 2, 2)
    seen = StepRecorder(GaussianData(DEFAULT, MEAN, STD), x, torch.zeros(1, dtype=torch.int64), every)
    denoise_fn, taken = counting_denoiser(student)
    make(student).ddim_sample(denoise_fn, x, seen.y, torch.tensor(every), 0.0)
    seen.steps = steps_in(student, taken)
    seen.expect_steps()


@question("3.2")
def test_ddim_passes_the_labels_on(student: Student, draw: Draw) -> None:
    """denoise_fn gets the labels y at every step, as they were given."""
    data = GaussianData(LONG, MEAN, STD)
    _, seen = run_ddim(make(student, LONG), draw, data, UNEVEN, (6, 2, 3, 3), 0.5)
    expect_labels(seen)


# ---------------------------------------------------------------- without noise


@question("3.2")
def test_ddim_moves_without_noise(student: Student, draw: Draw) -> None:
    """With eta = 0 every x on the way and the result, against the formula: for all steps and for some of them."""
    near = [(GaussianData(schedule, MEAN, STD), steps) for schedule, steps in WAYS]
    expect_trajectories(student, draw, [*near, (GaussianData(LONG, *FAR_OFF), UNEVEN)], (2, 2, 3, 3))


def expect_trajectories(
    student: Student, draw: Draw, ways: Sequence[tuple[GaussianData, tuple[int, ...]]], shape: tuple[int, ...]
) -> None:
    """Runs with eta = 0 against equation (12), on some data and with some steps."""
    judged: list[tuple[Tensor, Expected]] = []
    for data, steps in ways:
        samples, seen = run_checked(student, draw, data, steps, shape, 0.0)
        inputs = {"x": seen.start, "steps": torch.tensor(steps)}
        right = form("ddim_trajectory", data.schedule, data.mean, data.std).at(**inputs)
        judged.append((torch.stack([*seen.x, samples], dim=1), right))
    for (path, right), (_, steps) in zip(judged, ways, strict=True):
        for t, x, expected in zip(reversed(steps), *(x.unbind(1)[1:] for x in (path, right.values()[0])), strict=True):
            if not close(x, expected):
                raise wrong(
                    f"With steps = [{ellipsis(steps)}] and eta = 0, your sampler goes from t = {t} to "
                    f"x = {numbers(x)}, which is not right.",
                    *explain(judged, (path, right)),
                )


@question("3.2")
def test_ddim_repeats_itself(student: Student, draw: Draw) -> None:
    """With eta = 0, the default, nothing is random; the arguments stay as they are, and all is on their device."""
    data, diffusion, shape = GaussianData(LONG, MEAN, STD), make(student, LONG), (2, 2, 3, 3)
    inputs = {"x": draw.normal(*shape), "y": draw.integers(10, shape[0]), "steps": torch.tensor(UNEVEN)}
    results = []
    for eta in ({}, {"eta": 0.0}, {"eta": 0.5}):
        seen = StepRecorder(data, inputs["x"], inputs["y"], UNEVEN)
        observed = observe(diffusion.ddim_sample, {"denoise_fn": seen.denoise_fn, **inputs, **eta}, differentiate=False)
        expect_unchanged(observed, inputs)
        expect_no_bad_root(observed.value)
        if not seen.steps:
            raise wrong(NEVER_CALLED)
        results.append(tensor(observed.value, shape, "The result of ddim_sample"))
    expect_training_mode(diffusion, "ddim_sample")
    seen = StepRecorder(data, inputs["x"], inputs["y"], UNEVEN)
    expect_one_device(student, diffusion.ddim_sample, seen.denoise_fn, *inputs.values(), 0.5)
    first, second, _ = results
    if not close(first, second):
        raise wrong(
            f"Two calls with the same x and eta = 0 differ, {numbers(first)} and {numbers(second)}.",
            "With eta = 0 nothing random is added, on the way or at its ends.",
        )


def expect_training_mode(module: Remote, method: str) -> None:
    """Expect a module to be in training mode, as it was before one of its methods was called."""
    if fetch(module.training) != (True,):
        raise wrong(f"After {method} the module is no longer in training mode.", "Leave its mode as it is.")


@question("3.2")
def test_ddim_is_exact_on_a_point(student: Student, draw: Draw) -> None:
    """If all data are one point, sampling returns that point, for any steps and eta."""
    for (schedule, steps), eta in zip(WAYS, (1.0, 0.5, 0.0, 1.0), strict=True):
        point = float(draw.uniform(1.5, 2.5, 1))
        data = GaussianData(schedule, point, 0.0)
        samples, _ = run_ddim(make(student, schedule), draw, data, steps, (4, 2, 3, 3), eta)
        if not close(samples, torch.full_like(samples, point)):
            distance = float((samples - point).abs().max())
            raise wrong(
                f"With all data at {point:.4g}, steps = [{ellipsis(steps)}] and eta = {eta:g}, a sample is "
                f"{distance:.2g} away from that point; it must be exact."
            )


# ---------------------------------------------------------------- with noise


AXES = {"pixel": (3, 4), "channel": (2,), "image": (1,), "step": (0,)}


def numbers_of_a_slice(noise: Tensor, axes: tuple[int, ...]) -> int:
    """How many numbers slices along some axes have."""
    return noise.numel() // math.prod(noise.shape[axis] for axis in axes)


@dataclass(frozen=True)
class Way:
    """What a sampler made of x at every step: x at the step before, and at the end the samples.

    Attributes:
        seen: the calls of the denoiser.
        samples: (B, C, H, W).
        eta: how much noise was asked for.
    """

    seen: StepRecorder
    samples: Tensor
    eta: float

    @property
    def weights(self) -> Expected:
        """The weights of predicted x_0, predicted noise and fresh noise, by move: (S, 3)."""
        steps, eta = torch.tensor(self.seen.asked), torch.tensor(self.eta)
        return form("ddim_weights", self.seen.data.schedule).at(steps=steps, eta=eta)

    @property
    def moves(self) -> Moves:
        """Those that are random: all but the one to x_0."""
        seen = self.seen
        parts = (torch.stack(list(x)) for x in (seen.x[:-1], seen.x[1:], seen.predictions[:-1]))
        return Moves(seen.data.schedule, seen.steps[:-1], *parts)

    def expect_right(self, ddpm: bool = False) -> None:
        """Expect moves of the right moments with independent noise, but for the one to x_0, which is exact.

        With `ddpm` they are those of DDPM.
        """
        moves, expected = self.moves, self.weights
        right = moves.posterior() if ddpm else weighted(moves, expected.values()[0])
        what = f"With steps = [{ellipsis(self.seen.asked)}] and eta = {self.eta:g},"
        if not fit(moves, right):
            for sentence in expected.sentences:
                if fit(moves, weighted(moves, expected.misconceived(sentence))):
                    raise wrong(f"{what} what your sampler draws has the wrong mean or standard deviation.", sentence)
        noise = (moves.after - right.mean) / right.std
        distance = float(noise.square().mean().sqrt())
        if not distance < FAR:  # this is not noise whose slices could be compared
            is_prediction = close(moves.after, moves.prediction.double())
            raise wrong(
                f"{what} the root mean square of how far x is from the mean of its move is {distance:.3g} standard "
                "deviations of the noise added there; it must be 1.",
                "x becomes what denoise_fn returns, which is the noise in x." if is_prediction else "",
            )
        axes = {name: along for name, along in AXES.items() if numbers_of_a_slice(noise, along) >= FEWEST}
        added = f"{what} the noise between the steps"
        try:
            self._expect_fresh(noise, what)
        except Failure as failure:
            sizes = noise.square().flatten(1).mean(1)
            if not failure.hint and bool(((sizes - 1).abs() < 0.1).all()):  # noise that steps share depends on x too
                expect_distinct(noise, axes, added)
            raise
        expect_standard_normal(noise, axes, added)
        expect_not_reordered(noise, 0, "step", added)
        expect_not_reordered(noise, 1, "image", added)
        for drawn in (noise, noise * right.std):
            expect_fine_noise(drawn, added)
        self._expect_end()

    def _expect_fresh(self, noise: Tensor, what: str) -> None:
        """Expect that the noise (moves, B, C, H, W) has nothing of the x that a move starts from, or sampling."""
        before = self.moves.x, self.seen.x[0].expand_as(noise)
        rate = RATE / (len(before) * len(noise))
        for x in before:
            scores = slopes(noise, x)
            used = [float(score.abs()) / normal_quantile(rate) for score in scores]
            n = next(
                (n for n, share in enumerate(used) if not within(rated("slope", noise[n].numel(), rate), share)), None
            )
            if n is None:
                continue
            follows = float(scores[n].abs()) > SAME * float((noise[n] - noise[n].mean()).norm())
            hint = ""
            if follows and n == 0:
                hint = "Nothing random is added there: what x becomes follows from what it was."
            elif follows and abs(float(noise[n].square().mean()) - 1) < 0.1:
                hint = "What is added there follows from an x that was there before; draw new noise for every move."
            raise wrong(f"{what} x is not moved as it should be from t = {self.seen.steps[n]}.", hint)

    def _expect_end(self) -> None:
        """Expect that nothing random is added on the way to x_0: the result is what is predicted there."""
        seen = self.seen
        t = torch.full((len(self.samples),), seen.steps[-1])
        predicted = seen.data.schedule.predict_start(seen.x[-1], t, seen.predictions[-1])
        if not close(self.samples, predicted):
            added = float((self.samples - predicted).square().mean().sqrt())
            some_right = float((self.samples - predicted).abs().median()) < ATOL  # as those that a clamp leaves alone
            raise wrong(
                f"With eta = {self.eta:g}, the result is {added:.3g} away from the x_0 that the last call predicts.",
                "" if some_right else "The last move leads to x_0 itself: it adds no noise and mixes none in.",
            )


def fit(moves: Moves, moments: Moments) -> bool:
    """Whether moves have some moments: the same fresh noise wherever x was; or exactly, without noise."""
    if not bool(moments.std.any()):
        return close(moves.after, moments.mean)
    if not moments.fit(moves.after, (moments.mean, moments.std)):
        return False
    scores = slopes((moves.after - moments.mean) / moments.std, moves.x)
    return float(scores.abs().max()) < normal_quantile(RATE / len(scores))


def slopes(noise: Tensor, x: Tensor) -> Tensor:
    """How noise (moves, ...) rises with x, by move: standard normal if the noise is, and knows nothing of x."""
    centred = x.flatten(1) - x.flatten(1).mean(1, keepdim=True)
    return (noise.flatten(1) * centred).sum(1) / centred.norm(dim=1)


def weighted(moves: Moves, weights: Tensor) -> Moments:
    """Moments of moves of some weights, by move: of predicted x_0, predicted noise and fresh noise, and of one more."""
    start, prediction, fresh = weights[: len(moves.steps), :, None, None, None, None].unbind(1)
    return Moments(start * moves.start + prediction * moves.prediction, fresh)


@question("3.2")
def test_ddim_with_eta_one_is_ddpm(student: Student, draw: Draw) -> None:
    """With eta = 1 and all steps, every x on the way is drawn as by DDPM, and the end is without noise.

    False-failure rate: at most 4e-10, at 21,504 numbers.
    """
    schedule = Schedule(1e-2, 0.6, 8)
    samples, seen = run_checked(student, draw, GaussianData(schedule, MEAN, STD), range(8), (16, 3, 8, 8), 1.0)
    Way(seen, samples, 1.0).expect_right(ddpm=True)


@question("3.2")
def test_ddim_draws_every_move(student: Student, draw: Draw) -> None:
    """With eta = 0.5 and some of the steps, every x on the way has its mean, and fresh noise of its variance.

    False-failure rate: at most 4e-10, at 23,040 numbers.
    """
    samples, seen = run_checked(student, draw, GaussianData(LONG, MEAN, STD), UNEVEN, (24, 3, 8, 8), 0.5)
    Way(seen, samples, 0.5).expect_right()


@question("3.2")
def test_ddim_is_exact_on_gaussians(student: Student, draw: Draw) -> None:
    """On Gaussian data the samples have the mean and the variance that the moves give.

    False-failure rate: at most 2e-10, at 12,288 numbers.
    """
    mean, std, eta = draw.number(0.6, 1), draw.number(0.5, 0.9), draw.number(0.4, 0.6)
    samples, _ = run_ddim(make(student, LONG), draw, GaussianData(LONG, mean, std), UNEVEN, (64, 3, 8, 8), eta)
    expected = form("ddim_moments", LONG, mean, std).at(steps=torch.tensor(UNEVEN), eta=torch.tensor(eta))
    mean, variance = expected.values()[0].tolist()
    count, scores = samples.numel(), (samples - mean) / math.sqrt(variance)
    if not draw.within(rated("mean", count, RATE), abs(float(scores.mean())) / mean_bound(count, RATE)):
        raise wrong(f"The samples have the mean {float(samples.mean()):.4f}, which is not that of the process.")
    low, high = variance_bounds(count, RATE)
    if not draw.within(rated("variance", count, RATE), used_between(low, float(scores.square().mean()), high)):
        raise wrong(f"The samples have the variance {float(samples.var()):.4f}, which is not that of the process.")

"""Questions 2.3a, the forward process, and 2.3b, the sampler; and the given code both stand on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import count

import torch
from torch import Tensor

from grader.engine.launcher import OPTIMIZERS
from grader.engine.student import Built, Failure, Remote, Student, at_once, call_each, fetch, later, observe
from grader.oracle.answers import form
from grader.oracle.closed_form import Expected
from grader.oracle.diffusion import GaussianData, Schedule, column
from grader.oracle.statistics import mean_bound, normal_quantile, variance_bounds

from .device import ELSEWHERE, expect_on_device_of, is_moved, moved, on_another_device
from .digits import expect_full_precision, expect_with_digits
from .draw import Draw
from .expect import (
    close,
    expect,
    expect_gradients,
    expect_unchanged,
    indices,
    numbers,
    outputs,
    tensor,
    wrong,
)
from .noise import (
    RATE,
    Moments,
    expect_moments,
    expect_standard_normal,
    expect_unrelated,
    explain_clamp,
    rated,
    used_between,
)
from .runner import question

DEFAULT = Schedule()
SHORT = Schedule(1e-3, 0.7, 8)
FAR = 3.0
OWN_NOISE = "Two calls with the same arguments differ: use `noise`, and draw no noise of your own."
NEVER_CALLED = "Your sampler never called denoise_fn."
GIVEN = "This is given code: copy it back from the handout."


def make(student: Student, schedule: Schedule = DEFAULT) -> Remote:
    """A student's GaussianDiffusion with a schedule."""
    return student.diffusion.GaussianDiffusion(schedule.beta_start, schedule.beta_end, schedule.num_timesteps)


# ---------------------------------------------------------------- 2.3a


def draw_q_sample(draw: Draw, t: list[int] | Tensor) -> dict[str, Tensor]:
    """Arguments of q_sample for steps t (B,)."""
    steps = torch.as_tensor(t)
    shape = (len(steps), 3, 4, 6)
    return {"x_start": draw.normal(*shape, std=6), "t": steps, "noise": draw.normal(*shape)}


def expect_q_sample(student: Student, schedules: Mapping[Schedule, Sequence[dict[str, Tensor]]]) -> None:
    """Calls of q_sample against equation (4), for some schedules."""
    calls = [partial(call_each, make(student, schedule).q_sample, cases) for schedule, cases in schedules.items()]
    judged = []
    for (schedule, cases), values in zip(schedules.items(), at_once(student.diffusion, calls), strict=True):
        right = form("q_sample", schedule)
        for value, inputs in zip(values, cases, strict=True):
            judged.append((tensor(value, tuple(inputs["noise"].shape), "The result"), right.at(**inputs)))
    try:
        expect_with_digits(judged)
    except Failure as failure:
        again = [value for call in calls for value in call()]
        failure.hint = _explain_change(judged, again) or failure.hint or _explain_alone(judged)
        raise


def _explain_change(judged: Sequence[tuple[Tensor, Expected]], again: Sequence[object]) -> str:
    """Whether results are others when the calls are made again, as a sentence; "" if they are not."""
    pairs = zip((got for got, _ in judged), again, strict=True)
    same = all(isinstance(other, Tensor) and torch.equal(got, other.double()) for got, other in pairs)
    return "" if same else OWN_NOISE


def _explain_alone(judged: Sequence[tuple[Tensor, Expected]]) -> str:
    """Whether a batch of one image comes out wrong, and more images do not, as a sentence; "" otherwise."""
    fits = [(len(got), close(got, right.values()[0])) for got, right in judged]
    if any(fit for _, fit in fits) and all(fit == (size > 1) for size, fit in fits):
        return "Only a batch of one image comes out wrong: treat it as any other batch."
    return ""


@question("2.3a")
def test_forward_one_step_for_all(student: Student, draw: Draw) -> None:
    """x_t against the formula, with the same step for every image."""
    expect_q_sample(student, {DEFAULT: [draw_q_sample(draw, [t] * 3) for t in (500, 1, 37, 950)]})


@question("2.3a")
def test_forward_steps_of_each_image(student: Student, draw: Draw) -> None:
    """x_t against the formula, with another step for every image, and for a single image."""
    steps = [draw.permutation(1000)[:16], torch.tensor([999, 3, 400, 0, 250]), torch.tensor([600])]
    expect_q_sample(student, {DEFAULT: [draw_q_sample(draw, t) for t in steps]})


@question("2.3a")
def test_forward_first_and_last_step(student: Student, draw: Draw) -> None:
    """t = 0, which is already a little noisy, and t = T - 1, for schedules of several lengths."""
    schedules = [DEFAULT, Schedule(1e-3, 0.3, 20), Schedule.rescaled(250)]
    ends = {s: [draw_q_sample(draw, [t, t]) for t in (0, s.num_timesteps - 1)] for s in schedules}
    expect_q_sample(student, ends)


@question("2.3a")
def test_forward_uses_the_noise_it_is_given(student: Student, draw: Draw) -> None:
    """The same arguments give the same x_t; without data only the noise remains, without noise only the data."""
    inputs = draw_q_sample(draw, [0, 100, 700, 999])
    first, second = call_each(make(student).q_sample, [inputs, inputs])
    shape = tuple(inputs["noise"].shape)
    if not close(tensor(first, shape, "The result"), tensor(second, shape, "The result")):
        raise wrong("The result is another when the call is made again.", OWN_NOISE)
    alone = [inputs | {name: torch.zeros(shape)} for name in ("x_start", "noise")]
    expect_q_sample(student, {DEFAULT: [inputs, *alone]})


@question("2.3a")
def test_forward_gradient(student: Student, draw: Draw) -> None:
    """The gradients by x_start and noise, which are the two weights; the arguments stay as they are."""
    inputs = draw_q_sample(draw, [0, 10, 300, 999])
    expected = form("q_sample", DEFAULT).at(**inputs)
    weights = draw.uniform(0.5, 1.5, *inputs["noise"].shape)
    observed = observe(make(student).q_sample, inputs, differentiate=False)
    expect_unchanged(observed, inputs)
    expect(observed.value, expected)
    expect_gradients(observe(make(student).q_sample, inputs, weights), expected, weights)


@question("2.3a")
def test_forward_stays_on_its_device(student: Student, draw: Draw) -> None:
    """Tensors are made where x_start is: a model on a GPU trains there."""
    inputs = draw_q_sample(draw, [0, 10, 300, 999])
    right = partial(expect, expected=form("q_sample", DEFAULT).at(**inputs))
    expect_on_device_of(student, make(student), inputs, right, like="x_start", method="q_sample")


@question("2.3a")
def test_given_schedules(student: Student, draw: Draw) -> None:
    """Given code: every schedule of GaussianDiffusion, computed in float64 and stored in float32."""
    schedules = DEFAULT, Schedule.rescaled(draw.integer(40, 60))
    pairs = [(make(student, schedule), schedule.buffers()) for schedule in schedules]
    values = fetch(*[getattr(diffusion, name) for diffusion, right in pairs for name in right])
    rights = [item for _, right in pairs for item in right.items()]
    for (name, expected), value in zip(rights, values, strict=True):
        got = tensor(value, tuple(expected.shape), f"The schedule {name}")
        if not close(got, expected, rtol=1e-5, atol=1e-9):
            raise wrong(f"The schedule {name} is not the one of the handout.", GIVEN)


# ---------------------------------------------------------------- 2.3b


class Recorder:
    """A denoiser of data whose answer is known, which remembers every call: x, t and when.

    What it keeps is bounded: tensors of the shape that is expected, for a few times as many calls as there are steps.

    Attributes:
        mislabelled: what first came in the place of the labels, and when, as a sentence; "" where they were right.
    """

    def __init__(self, data: GaussianData, shape: tuple[int, ...], y: Tensor):
        self.data = data
        self.shape = shape
        self.y = y
        self.x: list[Tensor] = []
        self.predictions: list[Tensor] = []
        self.steps: list[int] = []
        self.mislabelled = ""

    def denoise_fn(self, x: object, y: object, t: object) -> Tensor:
        """The exact noise prediction, in float32; raises Failure where a call breaks the contract."""
        x = tensor(x, self.shape, "The x that your sampler passes to denoise_fn")
        step = self._step(t)
        instead = "" if self.mislabelled else instead_of_labels(y, self.y)
        self.mislabelled = self.mislabelled or (instead and f"At t = {step} it passes {instead}")
        self.x.append(x)
        self.steps.append(step)
        self.predictions.append(self.data.denoise(x, torch.full((self.shape[0],), step)).float())
        expect_an_end(len(self.steps), self.data.schedule)
        return self.predictions[-1]

    def _step(self, t: object) -> int:
        """The one step that all of t (B,) says."""
        last, batch = self.data.schedule.num_timesteps - 1, self.shape[0]
        if not isinstance(t, Tensor):
            raise wrong("Your sampler passes a t to denoise_fn that is no tensor.", "t is a (B,) tensor of int64.")
        if t.dtype != torch.int64 or tuple(t.shape) != (batch,):
            raise wrong(
                f"Your sampler passes t with the shape {tuple(t.shape)} and {t.dtype} to denoise_fn.",
                f"t is a ({batch},) tensor of int64: one step for every image.",
            )
        low, high = int(t.min()), int(t.max())
        if low != high and torch.equal(t, self.y):
            raise wrong("Your sampler passes the labels y to denoise_fn where t belongs.", "Labels come first, then t.")
        if low != high:
            raise wrong("Your sampler passes different steps for the images of one batch.", "All take the same step.")
        if not 0 <= low <= last:
            raise wrong(f"Your sampler passes t = {low} to denoise_fn.", f"Steps run from {last} down to 0.")
        return low


def expect_an_end(calls: int, schedule: Schedule) -> None:
    """Expect that so many calls of a denoiser are not far more than a schedule has steps. Raises Failure."""
    last = schedule.num_timesteps
    if calls > 4 * last:
        raise wrong(
            f"Your sampler called denoise_fn more than {4 * last} times, with {last} steps to take.",
            "Every schedule has its own number of steps, self.num_timesteps; each is taken once.",
        )


def run_sampler(
    student: Student, draw: Draw, data: GaussianData, shape: tuple[int, ...], diffusion: Remote | None = None
) -> tuple[Tensor, Recorder]:
    """Run a student's sampler on data whose denoiser is known. Returns the samples and what was seen."""
    y = draw.integers(10, shape[0])
    recorder = Recorder(data, shape, y)
    diffusion = diffusion or make(student, data.schedule)
    samples = tensor(diffusion.sample(recorder.denoise_fn, shape, y), shape, "The result of sample")
    return samples, recorder


@question("2.3b", imports=OPTIMIZERS)
def test_sampler_stays_on_its_device(student: Student, draw: Draw) -> None:
    """Where the schedules are, there x and t are made: a model on a GPU samples there."""
    schedule, shape, calls = Schedule(1e-3, 0.3, 2), (4, 3, 4, 4), count(1)
    hint = "Make tensors where the schedules are: device=self.betas.device."

    def denoise_fn(x: object, y: object, t: object) -> Built:
        expect_an_end(next(calls), schedule)
        for name, value in {"x": x, "y": y, "t": t}.items():
            if isinstance(value, Tensor):  # one with elements to send
                raise wrong(f"With the model on another device the {name} that your sampler makes is not there.", hint)
            if not is_moved(value):
                raise wrong(f"The {name} that your sampler passes to denoise_fn is no tensor where the model is.")
        return moved(student, torch.zeros(shape))

    expect_point(student, draw, schedule)
    diffusion = make(student, schedule)
    later(diffusion.to, ELSEWHERE)
    with on_another_device("the model", hint):
        diffusion.sample(denoise_fn, shape, moved(student, torch.arange(4)))


@question("2.3b")
def test_sampler_takes_every_step_once(student: Student, draw: Draw) -> None:
    """denoise_fn is called once for each t, from T - 1 down to 0, with t of shape (B,)."""
    for few, many, batch in [(4, 7, 4), (9, 15, 1)]:
        schedule = Schedule(1e-3, 0.3, draw.integer(few, many))
        _, seen = run_sampler(student, draw, GaussianData(schedule, 0.0, 1.0), draw_shape(draw, batch))
        expect_all_steps(seen.steps, schedule)
    denoise_fn, steps = counting_denoiser(student)
    make(student).sample(denoise_fn, (1, 1, 1, 2), torch.zeros(1, dtype=torch.int64))
    expect_all_steps(steps_in(student, steps), DEFAULT)


def draw_shape(draw: Draw, batch: int) -> tuple[int, int, int, int]:
    """The shape (B, C, H, W) of a batch of small images."""
    return batch, draw.integer(2, 5), draw.integer(2, 9), draw.integer(2, 9)


def expect_all_steps(steps: list[int], schedule: Schedule) -> None:
    """Expect the steps that a sampler has taken to be T - 1, ..., 0. Raises Failure."""
    last = schedule.num_timesteps - 1
    if not steps:
        raise wrong(NEVER_CALLED)
    if steps != list(range(last, -1, -1)):
        raise wrong(
            f"With T = {last + 1}, your sampler takes the steps t = {ellipsis(steps)}.", _explain_steps(steps, last)
        )


# Of a thousand steps, only that they are taken: each other case is seen from the trusted side.
COUNTING = "lambda seen: lambda x, y, t: seen.extend(t.tolist()) or 0 * x"


def counting_denoiser(student: Student) -> tuple[Remote, Remote]:
    """A denoiser in the worker, where a thousand calls take little time, and the list of steps it is called with."""
    seen = later(student.builtins.list)
    return later(later(student.builtins.eval, COUNTING), seen), seen


def steps_in(student: Student, seen: Remote) -> list[int]:
    """The steps in a list of the worker, the first of them where there are far more than any schedule has."""
    steps = student.torch.tensor(seen)
    if not isinstance(steps, Tensor):
        return []
    return [int(step) for step in steps.flatten()[: 2 * DEFAULT.num_timesteps].nan_to_num().tolist()]


def ellipsis(steps: Sequence[int]) -> str:
    """Steps as text; of many the first and the last."""
    shown = [str(step) for step in steps]
    return ", ".join(shown if len(shown) <= 9 else [*shown[:5], "...", *shown[-3:]])


def _explain_steps(steps: list[int], last: int) -> str:
    """The mistake in a list of steps that is not last, ..., 0."""
    right = list(range(last, -1, -1))
    known = [
        (right[::-1], "The loop runs upwards; sampling starts at T - 1 and ends at 0."),
        (right[:-1], "The last step, t = 0, is missing."),
        (right[1:], "The first step, t = T - 1, is missing."),
        ([last], "x_0 is predicted in a single step; sampling takes every step from T - 1 down to 0."),
    ]
    for mistake, sentence in known:
        if steps == mistake:
            return sentence
    missing, repeated = [t for t in right if t not in steps], [t for t in right if steps.count(t) > 1]
    parts = [f"t = {ellipsis(missing)} left out"] * bool(missing) + [f"t = {ellipsis(repeated)} repeated"] * bool(
        repeated
    )
    return f"Each step is taken once, from T - 1 down to 0; here {' and '.join(parts) or 'the order is another'}."


@question("2.3b")
def test_sampler_passes_the_labels_on(student: Student, draw: Draw) -> None:
    """denoise_fn gets the labels y at every step, as they were given."""
    data = GaussianData(Schedule(1e-3, 0.3, 5), 0.0, 1.0)
    _, seen = run_sampler(student, draw, data, (6, 3, 4, 4))
    expect_labels(seen)


def expect_labels(seen: Recorder) -> None:
    """Expect that every call of a denoiser got the labels that the sampler was given."""
    if not seen.steps:
        raise wrong(NEVER_CALLED)
    if seen.mislabelled:
        raise wrong(
            "Your sampler did not pass the labels y on to denoise_fn as they are.",
            f"{seen.mislabelled}; pass on y itself, at every step.",
        )


def instead_of_labels(labels: object, right: Tensor) -> str:
    """What the sampler passed where the labels belong; "" if it passed those."""
    if not isinstance(labels, Tensor):
        return "None" if labels is None else "something that is no tensor"
    if labels.shape != right.shape:
        return f"labels of the shape {tuple(labels.shape)}"
    if labels.dtype != torch.int64:
        return f"labels of {labels.dtype}"
    if torch.equal(labels, right):
        return ""
    if not bool(labels.any()):
        return "zeros"
    return "the labels in another order" if torch.equal(labels.sort().values, right.sort().values) else "other labels"


@question("2.3b")
def test_sampler_starts_from_noise(student: Student, draw: Draw) -> None:
    """The first x is standard normal noise, new in every call.

    False-failure rate: at most 2e-10, at 98,304 numbers.
    """
    data = GaussianData(Schedule(1e-3, 0.4, 2), 0.0, 1.0)
    diffusion = make(student, data.schedule)
    batch, channels = draw.shuffled([(96, 2), (64, 3), (48, 4), (32, 6), (24, 8)])[0]
    height, width = draw.shuffled([(4, 64), (8, 32), (16, 16), (32, 8), (64, 4)])[0]
    starts = []
    for _ in range(2):
        _, seen = run_sampler(student, draw, data, (batch, channels, height, width), diffusion)
        if not seen.x:
            raise wrong(NEVER_CALLED)
        starts.append(seen.x[0])
    axes = {"pixel": (3, 4), "channel": (2,), "image": (1,), "call": (0,)}
    expect_standard_normal(torch.stack(starts), axes, "The x that sampling starts from")
    expect_full_precision(starts[0], "The x that sampling starts from")
    _, seen = run_sampler(student, draw, data, (1, 4, 16, 16), diffusion)
    expect_standard_normal(seen.x[0], {"channel": (1,)}, "The x that sampling of a single image starts from")


@question("2.3b")
def test_sampler_draws_every_transition(student: Student, draw: Draw) -> None:
    """Every x_{t-1} is drawn from the posterior: its mean, plus fresh noise of its variance.

    Once for many images, and once for a single image in evaluation mode.

    False-failure rate: at most 8e-10, at 114,048 numbers.
    """
    schedule = Schedule(1e-3, 0.6, 12)
    _, seen = run_sampler(student, draw, GaussianData(schedule, draw.number(0.3, 0.7), 0.5), (24, 3, 12, 12))
    expect_transitions(seen, {"pixel": (3, 4), "channel": (2,), "image": (1,), "step": (0,)})
    diffusion = make(student, schedule)
    later(diffusion.eval)
    _, seen = run_sampler(student, draw, GaussianData(schedule, draw.number(10, 14), 0.5), (1, 4, 16, 16), diffusion)
    expect_transitions(seen, {"channel": (2,), "step": (0,)}, " of a single image, in evaluation mode,")


def expect_transitions(seen: Recorder, axes: dict[str, tuple[int, ...]], of: str = "") -> None:
    """Expect that a run of a sampler draws every x from the posterior, with noise independent along `axes`."""
    data = seen.data
    if not seen.steps:
        raise wrong(NEVER_CALLED)
    before = [n for n, step in enumerate(seen.steps[:-1]) if step > 0]
    if not before:
        raise wrong("Your sampler takes no step from one t to the next.")
    moves = Moves(
        data.schedule,
        [seen.steps[n] for n in before],
        *(torch.stack([x[n] for n in before]) for x in (seen.x, seen.x[1:], seen.predictions)),
    )
    if hint := moves.explained_without_noise():
        raise wrong(f"Your sampler{of} does not draw x_{{t-1}} from its distribution: nothing random is added.", hint)
    if float(moves.after.abs().max()) <= 1:
        raise wrong("Every x between the steps lies in [-1, 1].", "It is clamped or squashed, which latents are not.")
    expect_full_precision(moves.after, "The x between the steps")
    for some in (moves, moves.first):  # the first alone, as x may have run off after it
        expect_moments(some.after, some.posterior(), some.mistaken, f"The x that your sampler{of} draws at every step")
    right = moves.posterior()
    noise = (moves.after - right.mean) / right.std
    distance = float(noise.square().mean().sqrt())
    if not distance <= FAR:  # it is not noise whose slices could be compared
        raise wrong(
            f"The x that your sampler{of} draws is {distance:.3g} standard deviations of a step away from its mean, in "
            "the root of the mean square, which must be 1.",
            explain_clamp(moves.after, "The x between the steps"),
        )
    expect_standard_normal(noise, axes, f"The noise between the steps{of.rstrip(',')}")
    reused = "Draw noise anew in every step: what sampling starts from is x, and not the noise of a step as well."
    expect_unrelated(noise, seen.x[0], "the noise that sampling starts from", reused)


@dataclass(frozen=True)
class Moves:
    """Moves of a sampler from x_t to x_{t-1}.

    Attributes:
        schedule: of what it samples.
        steps: t of every move.
        x: (moves, B, C, H, W), x_t.
        after: what the sampler made of it.
        prediction: the noise in x_t, as the denoiser told it.
    """

    schedule: Schedule
    steps: list[int]
    x: Tensor
    after: Tensor
    prediction: Tensor

    def at(self, schedule: Tensor) -> Tensor:
        """schedule (T,) at the step of every move, broadcast to x."""
        return schedule[self.steps].reshape(-1, 1, 1, 1, 1)

    @cached_property
    def start(self) -> Tensor:
        """The predicted x_0."""
        abar = self.at(self.schedule.alphas_cumprod)
        return (self.x - (1 - abar).sqrt() * self.prediction) / abar.sqrt()

    @property
    def first(self) -> Moves:
        """The first of them alone."""
        return Moves(self.schedule, self.steps[:1], self.x[:1], self.after[:1], self.prediction[:1])

    def posterior(self, start: Tensor | None = None) -> Moments:
        """Moments of q(x_{t-1} | x_t, x_0), with the predicted x_0 by default."""
        start = self.start if start is None else start
        mean = (
            self.at(self.schedule.posterior_mean_coef1) * start + self.at(self.schedule.posterior_mean_coef2) * self.x
        )
        return Moments(mean, self.at(self.schedule.posterior_variance).sqrt())

    def explained_without_noise(self) -> str:
        """Which known move this is that adds no noise, as a sentence; "" if none."""
        previous = self.at(self.schedule.alphas_cumprod_prev)
        known = {
            "The same x is passed to every step: use what a step returns as the x of the next.": self.x,
            "The mean of every step is taken: noise is to be added to it.": self.posterior().mean,
            "The x_0 that a step predicts is taken for the x of the next; self.p_sample draws that.": self.start,
            "The steps are those of DDIM, which are deterministic; those of DDPM are drawn by self.p_sample.": (
                previous.sqrt() * self.start + (1 - previous).sqrt() * self.prediction
            ),
            "The noise that denoise_fn predicts is taken for the x of the next step; self.p_sample draws that.": (
                self.prediction.double()
            ),
            "The noise that denoise_fn predicts is subtracted from x; self.p_sample draws the x of the next step.": (
                self.x - self.prediction
            ),
        }
        fits = (text for text, x in known.items() if float((self.after - x).abs().max()) < 1e-3)
        return next(fits, "")

    def mistaken(self) -> dict[str, Moments]:
        """Moments of known mistakes, by the sentence that says what was done."""
        right, previous = self.posterior(), self.at(self.schedule.alphas_cumprod_prev)
        scales = {
            "The noise is scaled by the variance; it is scaled by its square root.": right.std.square(),
            "The noise has the variance beta; it has the posterior variance.": self.at(self.schedule.betas).sqrt(),
            "The noise is not scaled: its standard deviation is 1 at every step.": torch.ones_like(right.std),
        }
        means = {text: Moments(mean, right.std) for text, mean in self.wrong_means().items()}
        others = {
            "The x_0 that a step predicts is clamped to [-1, 1]; latents are not.": (
                self.posterior(self.start.clamp(-1, 1))
            ),
            "The x_0 that a step predicts is noised anew; x_{t-1} depends on x_t too: self.p_sample draws it.": (
                Moments(previous.sqrt() * self.start, (1 - previous).sqrt())
            ),
        }
        return {text: Moments(right.mean, std) for text, std in scales.items()} | means | others

    def wrong_means(self) -> dict[str, Tensor]:
        """What known mistakes make of the mean of a step, by the sentence that says what was done."""
        abar, alpha, noise = self.at(self.schedule.alphas_cumprod), 1 - self.at(self.schedule.betas), self.prediction
        scaled = (1 - alpha) / (1 - abar).sqrt() * noise
        starts = {
            "The predicted noise is added to x; it must be subtracted.": (self.x + (1 - abar).sqrt() * noise)
            / abar.sqrt(),
            "x_0 is predicted without dividing by the square root of alphas_cumprod.": abar.sqrt() * self.start,
            "x_0 is predicted with alphas_cumprod where its square root must be.": (self.x - (1 - abar) * noise) / abar,
        }
        return {text: self.posterior(start).mean for text, start in starts.items()} | {
            "The mean of a step is not divided by the square root of alpha, which is 1 - beta.": self.x - scaled,
            "In the mean of a step the predicted noise has the weight beta, without 1 / sqrt(1 - alphas_cumprod).": (
                self.x - (1 - alpha) * noise
            )
            / alpha.sqrt(),
        }


def reverse_mean(data: GaussianData, x: Tensor, step: int) -> Tensor:
    """Mean of p(x_{t-1} | x_t) for the denoiser that the student's sampler was given."""
    t = torch.full((len(x),), step)
    prediction = data.denoise(x, t).float()
    return data.schedule.posterior_mean(data.schedule.predict_start(x, t, prediction), x, t)


@question("2.3b")
def test_sampler_ends_without_noise(student: Student, draw: Draw) -> None:
    """The result is the mean of the step t = 0, with nothing added, clamped or left out."""
    for low, high in ((0.3, 0.7), (-14.0, -10.0)):
        data = GaussianData(SHORT, draw.number(low, high), 0.5)
        samples, seen = run_sampler(student, draw, data, (8, 3, 8, 8))
        if not seen.steps:
            raise wrong(NEVER_CALLED)
        if seen.steps[-1] != 0:
            raise wrong("The last call of denoise_fn is not at t = 0.")
        mean = reverse_mean(data, seen.x[-1], 0)
        if not close(samples, mean, rtol=1e-3, atol=1e-4):
            hint = _explain_end(samples, mean, seen)
            raise wrong(f"The result {numbers(samples)} is not the mean of the step t = 0.", hint)
        expect_full_precision(samples, "The result")


def _explain_end(samples: Tensor, mean: Tensor, seen: Recorder) -> str:
    """What was done to the mean (B, C, H, W) of the step t = 0, or to its x, to get the samples; "" if not known."""
    x = seen.x[-1]
    last = Moves(seen.data.schedule, [0], x[None], samples[None], seen.predictions[-1][None])
    known = {
        "The step t = 0 is computed, but its result is thrown away.": x,
        "What the step t = 0 returns is added to its x; it is the result.": x + mean,
        "The result, or the x_0 that the step t = 0 predicts, is clamped to [-1, 1]; latents are not.": mean.clamp(
            -1, 1
        ),
        "The result goes through a tanh; latents are not bounded.": mean.tanh(),
        **{text: wrong_mean[0] for text, wrong_mean in last.wrong_means().items()},
    }
    if bool((samples == samples.max()).all()):  # which tells little
        return explain_clamp(samples, "The result")
    fits = (text for text, value in known.items() if close(samples, value, rtol=1e-4, atol=5e-5))
    return next(fits, "") or explain_clamp(samples, "The result") or _explain_added(samples - mean, x)


def _explain_added(added: Tensor, x: Tensor) -> str:
    """Whether noise was added to the mean of the step t = 0, or the mean is another one, as a sentence; else ""."""
    around, deviation = added - added.mean(), x - x.mean()
    slope = float((around * deviation).sum() / deviation.square().sum())
    if float((around - slope * deviation).norm()) < 1e-3 * float(added.norm()):
        return "Nothing random is added at t = 0, but the mean is not that of self.p_mean_variance."
    related = slope * float(deviation.norm() / around.square().mean().sqrt())
    try:
        expect_standard_normal(added / added.square().mean().sqrt(), {"image": (0,)}, "")
    except Failure:
        return ""
    return "Noise is added at t = 0; the last step takes the mean." if abs(related) < normal_quantile(RATE) else ""


@question("2.3b")
def test_sampler_is_exact_on_a_point(student: Student, draw: Draw) -> None:
    """If all data are one point, sampling returns that point, whatever noise it draws."""
    expect_point(student, draw, SHORT)


def expect_point(student: Student, draw: Draw, schedule: Schedule) -> None:
    """Expect samples of data at one point to be that point."""
    point = draw.number(1.5, 2.5)
    samples, _ = run_sampler(student, draw, GaussianData(schedule, point, 0.0), (4, 3, 4, 4))
    distance = float((samples - point).abs().max())
    if not draw.within("distance from the point", distance / 1e-3):
        raise wrong(f"With all data at {point:.4g}, a sample is {distance:.2g} away from it; it must be exact.")


@question("2.3b")
def test_sampler_is_exact_on_gaussians(student: Student, draw: Draw) -> None:
    """On Gaussian data the samples have the mean and the variance that the reverse process gives.

    False-failure rate: at most 2e-10, at 12,288 numbers.
    """
    data = GaussianData(SHORT, draw.number(0.3, 0.7), draw.number(0.3, 0.7))
    samples, _ = run_sampler(student, draw, data, (64, 3, 8, 8))
    mean, variance = data.sampled_moments()
    count = samples.numel()
    scores = (samples - mean) / math.sqrt(variance)
    if not draw.within(rated("mean", count, RATE), abs(float(scores.mean())) / mean_bound(count, RATE)):
        raise wrong(f"The samples have the mean {float(samples.mean()):.4f}, which is not that of the process.")
    low, high = variance_bounds(count, RATE)
    if not draw.within(rated("variance", count, RATE), used_between(low, float(scores.square().mean()), high)):
        raise wrong(f"The samples have the variance {float(samples.var()):.4f}, which is not that of the process.")


@question("2.3b")
def test_given_reverse_step(student: Student, draw: Draw) -> None:
    """Given code: predict_start_from_noise, q_posterior, p_mean_variance and p_sample.

    False-failure rate: at most 1e-10, at 12,288 numbers.
    """
    data = GaussianData(Schedule.rescaled(50), 0.5, 0.5)
    schedule, diffusion = data.schedule, make(student, data.schedule)
    shape = (64, 3, 8, 8)
    t = draw.integers(49, shape[0]) + 1
    x, y, noise = draw.normal(*shape), draw.integers(10, shape[0]), draw.normal(*shape)

    def denoise_fn(x: Tensor, y: Tensor, t: Tensor) -> Tensor:
        steps = indices(t, shape[0], schedule.num_timesteps, "The t that denoise_fn gets")
        return data.denoise(tensor(x, shape, "x"), steps).float()

    start = schedule.predict_start(x, t, noise)
    got = tensor(diffusion.predict_start_from_noise(x, t, noise), shape, "predict_start_from_noise")
    if not close(got, start, rtol=1e-3, atol=1e-3):
        raise wrong("predict_start_from_noise is not the one of the handout.", GIVEN)
    right = schedule.posterior_mean(start, x, t)
    mean, variance = outputs(diffusion.q_posterior(start.float(), x, t), 2, "q_posterior")
    _expect_posterior(schedule, mean, variance, right, t, "q_posterior")
    right = schedule.posterior_mean(schedule.predict_start(x, t, data.denoise(x, t).float()), x, t)
    mean, variance = outputs(diffusion.p_mean_variance(denoise_fn, x, y, t), 2, "p_mean_variance")
    _expect_posterior(schedule, mean, variance, right, t, "p_mean_variance")
    drawn = tensor(diffusion.p_sample(denoise_fn, x, y, t), shape, "p_sample")
    deviation = (drawn - right) / column(schedule.posterior_variance, t).sqrt()
    expect_standard_normal(deviation, {"image": (0,)}, "The noise of p_sample")
    first = torch.zeros_like(t)
    drawn = tensor(diffusion.p_sample(denoise_fn, x, y, first), shape, "p_sample")
    if not close(drawn, reverse_mean(data, x, 0), rtol=1e-3, atol=1e-3):
        raise wrong("p_sample adds noise at t = 0, or is not the one of the handout.", GIVEN)


def _expect_posterior(schedule: Schedule, mean: object, variance: object, right: Tensor, t: Tensor, what: str) -> None:
    shape = tuple(right.shape)
    if not close(tensor(mean, shape, f"The mean of {what}"), right, rtol=1e-3, atol=1e-3):
        raise wrong(f"The mean of {what} is not the one of the handout.", GIVEN)
    got = tensor(variance, (len(t), 1, 1, 1), f"The variance of {what}")
    if not close(got, column(schedule.posterior_variance, t), rtol=1e-4, atol=1e-9):
        raise wrong(f"The variance of {what} is not the one of the handout.", GIVEN)

"""Question 3.7, the variational bound in bits a dimension.

The checks' denoiser knows x_start, finds the true noise in the x_t it is given, and predicts that noise plus errors of
its own. So the value of the bound is known, whatever noise the student's code draws.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from grader.engine.student import Failure, Remote, Student, later, observe
from grader.oracle.answers import form
from grader.oracle.diffusion import Schedule

from .devices import expect_one_device
from .digits import expect_fine_noise, expect_full_precision
from .draw import Draw
from .expect import close, expect_all, expect_unchanged, numbers, tensor, wrong
from .noise import FEWEST, Moments, expect_moments, expect_not_reordered, expect_standard_normal
from .runner import question
from .test_2_3_diffusion import DEFAULT, counting_denoiser, draw_shape, ellipsis, instead_of_labels, steps_in
from .test_3_2_ddim import expect_training_mode, make, numbers_of_a_slice

MILD, STEEP, SHORT = Schedule(0.02, 0.3, 5), Schedule(0.01, 0.7, 6), Schedule(0.05, 0.4, 3)
LARGE = 1e8  # bits a dimension, where something was divided by all but 0; those of right code are below 1,000
MOST_CALLS = 4  # at one step of one image
NEVER_CALLED = "Your bound never called denoise_fn."
DIVIDED_BY_ZERO = "Look at t = 0, where posterior_variance is 0: the term there is -log N(x_0; mean, betas[0])."


def solve(affine: Callable[[Tensor], Tensor], value: Tensor) -> Tensor:
    """z with affine(z) = value, for a function that is affine in every element."""
    at_zero = affine(torch.zeros_like(value))
    return (value - at_zero) / (affine(torch.ones_like(value)) - at_zero)


def noised(schedule: Schedule, x_start: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """x_t from x_start (N, C, H, W), t (N,) and noise (N, C, H, W): what the given code takes x_start from."""
    return solve(lambda x: schedule.predict_start(x, t, noise), x_start)


def noise_in(schedule: Schedule, x_start: Tensor, t: Tensor, x: Tensor) -> Tensor:
    """The noise in x (N, C, H, W) at t (N,), with which the given code takes x_start from it."""
    return solve(lambda noise: schedule.predict_start(x, t, noise), x_start)


@dataclass(frozen=True)
class Case:
    """What a bound is computed of.

    Attributes:
        schedule: of T steps.
        x_start: (B, C, H, W), of another mean in every image.
        y: (B,) labels, all different.
        noise_error: (T, B, C, H, W), by how much the noise in x_t is predicted wrongly at every step.
    """

    schedule: Schedule
    x_start: Tensor
    y: Tensor
    noise_error: Tensor

    @classmethod
    def drawn(cls, draw: Draw, schedule: Schedule, *shape: int) -> Case:
        """A case of a batch of at most ten images of a `shape` (B, C, H, W)."""
        batch, steps = shape[0], schedule.num_timesteps
        x_start = draw.normal(*shape) + draw.uniform(-4, 4, batch, 1, 1, 1)
        scale = draw.uniform(0.5, 2, steps, batch, 1, 1, 1)
        return cls(schedule, x_start, draw.permutation(10)[:batch], scale * draw.normal(steps, *shape))

    def bound_of(self, student: Student) -> tuple[object, Denoiser]:
        """What the student's code returns, and the denoiser that it called."""
        diffusion, seen = prepared(student, self)
        value = diffusion.bits_per_dim(seen.denoise_fn, self.x_start, self.y)
        if not bool(seen.calls.any()):
            raise wrong(NEVER_CALLED)
        return value, seen


def prepared(student: Student, case: Case) -> tuple[Remote, Denoiser]:
    """A student's EnhancedDiffusion, whose q_sample is no mistake of this question, and a denoiser; for one call."""
    diffusion, seen = make(student, case.schedule), Denoiser(case)
    diffusion.q_sample = seen.q_sample
    return diffusion, seen


class Denoiser:
    """A denoiser that errs by known amounts, and remembers what it was called with.

    It may be called with any images at any steps at once. A batch as large as that of the case has its order; in any
    other the images are told apart by their labels.

    Attributes:
        case: what the bound is computed of.
        x: (T, B, C, H, W), the x that came last at every step of every image.
        calls: (T, B), how often one came.
        mislabelled: what came in the place of labels, as a sentence; "" where they were right.
    """

    def __init__(self, case: Case):
        self.case = case
        self.x = torch.zeros(case.noise_error.shape, dtype=torch.float64)
        self.calls = torch.zeros(case.noise_error.shape[:2], dtype=torch.int64)
        self.mislabelled = ""

    def denoise_fn(self, x: object, y: object, t: object) -> Tensor:
        """The noise in x plus the errors of the case, in float32; raises Failure where a call breaks the contract."""
        expect_full_precision(x, "The x that you pass to denoise_fn")
        x = self._images(x, "The x that you pass to denoise_fn")
        steps = self._steps(t, len(x), "denoise_fn")
        images = self._order(y, len(x))
        instead = instead_of_labels(y, self.case.y[images])
        self.mislabelled = self.mislabelled or (instead and f"At t = {int(steps[0])} it passes {instead}")
        self.calls.index_put_((steps, images), torch.ones_like(steps), accumulate=True)
        if int(self.calls.max()) > MOST_CALLS:
            expect_every_step(self)
        self.x[steps, images] = x
        noise = noise_in(self.case.schedule, self.case.x_start[images].double(), steps, x)
        return (noise + self.case.noise_error[steps, images]).float()

    def q_sample(self, x_start: object, t: object, noise: object) -> Tensor:
        """What question 2.3a asks for, in float32; raises Failure where a call breaks the contract."""
        x_start = self._images(x_start, "The x_start that you pass to q_sample")
        steps = self._steps(t, len(x_start), "q_sample")
        noise = tensor(noise, tuple(x_start.shape), "The noise that you pass to q_sample")
        return noised(self.case.schedule, x_start, steps, noise).float()

    def _images(self, x: object, what: str) -> Tensor:
        """x in float64, if it is some images of the case's size."""
        count, most = len(x) if isinstance(x, Tensor) and x.ndim else 1, self.calls.numel()
        if count > most:
            raise wrong(f"{what} has {count} images; every image at every step makes {most}.")
        return tensor(x, (count, *self.case.x_start.shape[1:]), what)

    def _steps(self, t: object, count: int, function: str) -> Tensor:
        """t, if it is a step for each of some images."""
        if not isinstance(t, Tensor) or t.dtype != torch.int64 or tuple(t.shape) != (count,):
            kind = f"with the shape {tuple(t.shape)} and {t.dtype}" if isinstance(t, Tensor) else "that is no tensor"
            raise wrong(
                f"Your bound passes a t to {function} {kind}.",
                f"t is a ({count},) tensor of int64: one step for every image.",
            )
        if count > 1 and torch.equal(t, self.case.y):
            raise wrong(f"Your bound passes the labels y to {function} where t belongs.", "Labels come first, then t.")
        last = self.case.schedule.num_timesteps - 1
        outside = t[(t < 0) | (t > last)]
        if len(outside):
            raise wrong(f"Your bound passes t = {int(outside[0])} to {function}.", f"Steps run from 0 to {last}.")
        return t

    def _order(self, y: object, count: int) -> Tensor:
        """Which image of the case is where in a batch, (count,)."""
        if count == len(self.case.y):
            return torch.arange(count)
        if isinstance(y, Tensor) and tuple(y.shape) == (count,):
            same = y[:, None] == self.case.y
            if bool(same.any(1).all()):
                return same.int().argmax(1)
        raise wrong(
            f"Your bound passes {count} images to denoise_fn, and no labels that are theirs.",
            "Pass the labels y on as they are.",
        )


# ---------------------------------------------------------------- values


def expect_bounds(results: list[tuple[object, Case]]) -> None:
    """Expect the bound of every case."""
    for value, _ in results:
        if isinstance(value, Tensor) and value.is_floating_point() and not bool((value.abs() < LARGE).all()):
            raise wrong(f"The bound is {numbers(value)}, in bits a dimension.", DIVIDED_BY_ZERO)
    expected = [
        (value, form("bits_per_dim", case.schedule).at(x_start=case.x_start, noise_error=case.noise_error))
        for value, case in results
    ]
    expect_all(expected, "the bound")


@question("3.7")
def test_bound_value(student: Student, draw: Draw) -> None:
    """The bound against the formula, with a denoise_fn that errs by known amounts."""
    cases = [Case.drawn(draw, MILD, 4, 3, 2, 3), Case.drawn(draw, STEEP, 3, 2, 4, 2)]
    expect_bounds([(case.bound_of(student)[0], case) for case in cases])


@question("3.7")
def test_bound_whatever_is_drawn(student: Student, draw: Draw) -> None:
    """Where denoise_fn errs by the same amounts, the bound is the same, whatever noise is drawn; x_start stays."""
    case = Case.drawn(draw, SHORT, 4, 2, 4, 4)
    diffusion, seen = prepared(student, case)
    tensors = {"x_start": case.x_start, "y": case.y}
    observed = observe(diffusion.bits_per_dim, {"denoise_fn": seen.denoise_fn} | tensors, differentiate=False)
    expect_unchanged(observed, tensors)
    expect_training_mode(diffusion, "bits_per_dim")
    values = observed.value, case.bound_of(student)[0]
    first, second = (tensor(value, (len(case.y),), "The bound") for value in values)
    if not close(first, second):
        raise wrong(
            f"Two calls give {numbers(first)} and {numbers(second)}, though denoise_fn errs by the same amounts.",
            "Add up the divergences themselves, for every t: they depend on the errors of denoise_fn, and not on what "
            "else is drawn.",
        )


# ---------------------------------------------------------------- calls of denoise_fn


def expect_every_step(seen: Denoiser) -> None:
    """Expect that every image was seen once at every step."""
    if bool((seen.calls == 1).all()):
        return
    if not bool(seen.calls.any()):
        raise wrong(NEVER_CALLED)
    last = len(seen.calls) - 1
    missing, repeated = ((seen.calls == 0).any(1), (seen.calls > 1).any(1))
    parts = [
        f"t = {ellipsis(which.nonzero().flatten().tolist())} {what}"
        for which, what in ((missing, "left out"), (repeated, "repeated"))
        if bool(which.any())
    ]
    hint = "The bound has a term for every t from 0 to T - 1, each computed once."
    if last and bool((seen.calls.sum(0) == 1).all()):
        hint = f"Every image is seen at one step only. {hint}"
    raise wrong(f"With T = {last + 1}, your bound calls denoise_fn with {' and '.join(parts)}.", hint)


@question("3.7")
def test_bound_takes_every_step_once(student: Student, draw: Draw) -> None:
    """denoise_fn is called once for each t, in any order.

    Of 1000 steps too: a limit on their number shows, and a function that calls itself for each of them.
    """
    for few, many, batch in ((4, 9, 4), (2, 6, 1)):
        case = Case.drawn(draw, Schedule(0.03, 0.3, draw.integer(few, many)), *draw_shape(draw, batch))
        expect_every_step(case.bound_of(student)[1])
    case = Case.drawn(draw, DEFAULT, 1, 1, 1, 2)
    denoise_fn, steps = counting_denoiser(student)
    diffusion, seen = make(student), Denoiser(case)
    diffusion.q_sample = later(student.builtins.eval, "lambda x_start, t, noise: noise")
    diffusion.bits_per_dim(denoise_fn, case.x_start, case.y)
    taken = torch.tensor(steps_in(student, steps), dtype=torch.int64)
    seen.calls[:, 0] = taken.clamp(0, len(seen.calls) - 1).bincount(minlength=len(seen.calls))
    expect_every_step(seen)


@question("3.7")
def test_bound_passes_the_labels_on(student: Student, draw: Draw) -> None:
    """denoise_fn gets the labels y at every step, as they were given."""
    _, seen = Case.drawn(draw, SHORT, 6, 3, 4, 4).bound_of(student)
    if seen.mislabelled:
        raise wrong(
            "Your bound did not pass the labels y on to denoise_fn as they are.",
            f"{seen.mislabelled}; pass on y itself, at every step.",
        )


@question("3.7")
def test_bound_draws_every_x(student: Student, draw: Draw) -> None:
    """Every x_t is drawn from q(x_t | x_0), with noise of its own at every step; for a batch of one as well.

    x_0 leaves [-10, 10].

    False-failure rate: at most 6e-10, at 18,432 numbers.
    """
    for shape in ((8, 3, 8, 8), (1, 3, 32, 16)):
        case = Case.drawn(draw, Schedule(0.05, 0.4, 6), *shape)
        case = replace(case, x_start=4 * case.x_start)
        found = []
        for _ in range(2):
            _, seen = case.bound_of(student)
            expect_every_step(seen)
            found.append(seen.x)
        expect_drawn(case, torch.stack(found))


CUT_OFF = "Every x is clamped to [-{bound}, {bound}]; latents are not."
AXES = {"pixel": (4, 5), "channel": (3,), "image": (2,), "step": (1,), "call": (0,)}


def expect_drawn(case: Case, x: Tensor) -> None:
    """Expect x_t at every step of some calls, (calls, T, B, C, H, W), to be drawn from q(x_t | x_0)."""
    drawn = Drawn(case)
    if hint := drawn.explained_without_noise(x):
        raise wrong("The x that your bound passes to denoise_fn is not drawn: nothing random was added.", hint)
    for bound in (1, 3, 5, 10):
        if float(x.abs().max()) == bound:
            raise wrong("The x that your bound passes to denoise_fn is cut off.", CUT_OFF.format(bound=bound))
    right, what = drawn.moments(), "The noise in x_t"
    expect_moments(x, right, drawn.mistaken, "The x that your bound passes to denoise_fn")
    noise = (x - right.mean) / right.std
    axes = {name: along for name, along in AXES.items() if numbers_of_a_slice(noise, along) >= FEWEST}
    expect_standard_normal(noise, axes, what)
    for name in ("image", "step", "call"):
        expect_not_reordered(noise, AXES[name][0], name, what)
    for numbers_drawn in (noise, noise * right.std):
        expect_fine_noise(numbers_drawn, what)


@dataclass(frozen=True)
class Drawn:
    """What x_t is at every step of a case: (T, B, C, H, W), to be broadcast over calls."""

    case: Case

    def at(self, steps: Tensor, noise: float) -> Tensor:
        """x_t at steps (T,), one for each of the case's, with the same noise in every element."""
        x_start, schedule = self.case.x_start.double(), self.case.schedule
        made = [noised(schedule, x_start, t.expand(len(x_start)), torch.full_like(x_start, noise)) for t in steps]
        return torch.stack(made)

    @property
    def steps(self) -> Tensor:
        """All steps, (T,)."""
        return torch.arange(self.case.schedule.num_timesteps)

    def moments(self, steps: Tensor | None = None) -> Moments:
        """Moments of q(x_t | x_0) at steps (T,), by default the right ones."""
        steps = self.steps if steps is None else steps
        mean = self.at(steps, 0.0)
        return Moments(mean, self.at(steps, 1.0) - mean)

    def explained_without_noise(self, x: Tensor) -> str:
        """What x is that no noise was added to, as a sentence; "" if nothing known."""
        known = {
            "x_start itself is passed to denoise_fn; pass x_t, drawn from q(x_t | x_0).": self.case.x_start.double(),
            "The noise that x_t is made with is zero; it is standard normal.": self.at(self.steps, 0.0),
            "The noise that x_t is made with is 1 everywhere; it is standard normal.": self.at(self.steps, 1.0),
        }
        return next((text for text, value in known.items() if float((x - value).abs().max()) < 1e-4), "")

    def mistaken(self) -> dict[str, Moments]:
        """Moments of known mistakes, by the sentence that says what was done."""
        last = len(self.steps) - 1
        return {
            "x_t is made with a t that is one too low.": self.moments((self.steps - 1).clamp(min=0)),
            "x_t is made with a t that is one too high.": self.moments((self.steps + 1).clamp(max=last)),
            "x_t is made with a t that runs the other way.": self.moments(last - self.steps),
            "x_t is always made with the last t.": self.moments(torch.full_like(self.steps, last)),
            "x_t is made of the x of the step before; q_sample makes it of x_start, for every t.": self._chained(),
        }

    def _chained(self) -> Moments:
        """Moments where q_sample is applied to the x of the step before, from t = 0 on."""
        right, start = self.moments(), self.case.x_start.double()
        gains = (right.mean / start).cumprod(0)
        variance = torch.zeros_like(start)
        stds = []
        for gain, std in zip(right.mean / start, right.std, strict=True):
            variance = gain.square() * variance + std.square()
            stds.append(variance.sqrt())
        return Moments(gains * start, torch.stack(stds))


@question("3.7")
def test_bound_stays_on_its_device(student: Student, draw: Draw) -> None:
    """Where x_start and the schedules are, there t and x_t are made: a model on a GPU has a bound."""
    case = Case.drawn(draw, MILD, 4, 3, 4, 4)
    try:
        expect_bounds([(case.bound_of(student)[0], case)])
    except Failure as failure:
        raise failure.told("") from None  # as `expect_on_device_of` does
    diffusion, seen = prepared(student, case)
    expect_one_device(
        student, diffusion.bits_per_dim, seen.denoise_fn, case.x_start, case.y, moved="model and the data"
    )

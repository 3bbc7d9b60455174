"""Question 1.2, the evidence lower bound."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from grader.engine.student import (
    Built,
    Failure,
    Observation,
    Student,
    call_each,
    fetch,
    later,
    observe,
    observe_each,
)
from grader.oracle.answers import form
from grader.oracle.closed_form import Expected

from .device import moved, on_another_device
from .draw import Draw
from .expect import (
    close,
    describe,
    expect_all,
    expect_gradients,
    expect_unchanged,
    numbers,
    tensor,
    wrong,
)
from .mlp import DIGITS, SMALL
from .runner import question

ELBO = form("ELBO")
Inputs = dict[str, Tensor]
DIFFERENTIATED = ("x_reconst", "posterior_mean", "posterior_stddev")
AGREES = 1e-3  # nats an image that pixels may cost which are reconstructed exactly: a clamp at 1e-5 costs 2e-4
PIXEL = (2, 1, 1, 1)  # images of a single pixel
IMAGES = (3, 1, 5, 4)  # the cost of a clamp adds up over 20 pixels
DISAGREES = -10.0  # nats that a pixel costs at least whose value is held to be impossible: ln 1e-5 is -11.5
INSIDE_LOGARITHM = "x holds pixels that are 0 or 1: log(x) and log(1 - x) are infinite there. Should it be x_reconst?"
KEPT_AWAY = "x_reconst is kept {:.2g} away from 0 and 1; 1e-5 at most is allowed."
ADDED = "About {:.2g} is added inside the logarithms; 1e-5 at most is allowed."
LOG_OF_ZERO = (
    "log 0 is -inf, and 0 * log 0 is nan: keep x_reconst away from 0 and 1, by no more than 1e-5, before the logarithm."
)
LOST_AT_ONE = (
    "Where x_reconst is 0 the bound is finite, where it is 1 it is not: what keeps it away from 1 is lost, or has the "
    "wrong sign. In float32, in which numbers next to 1 are 6e-8 apart, 1 - 1e-8 is 1."
)
GRADIENT_AT_ZERO = (
    "The bound itself is finite; the logarithm has no gradient at 0. Keep x_reconst away from 0 and 1 before the "
    "logarithm: what is done about it behind the logarithm, or by xlogy, does not help the gradient."
)
OVERFLOW = (
    "Where x_reconst is 1e-6 away from 0 and 1 it is not finite either; it is near 1e6, and float16 ends at 65504."
)
NOT_SAMPLED = "Draw nothing: the KL divergence of two normal distributions has a closed form, and the images are given."
GREY = "Pixels are grey here. A Bernoulli distribution of torch takes 0 and 1 only, unless it is told not to validate."


def arguments(student: Student, inputs: Inputs) -> dict[str, Any]:
    """Arguments of compute_elbo from tensors; the worker builds the distributions."""
    normal = student.torch.distributions.Normal
    pixels = {name: inputs[name] for name in ("x", "x_reconst")}
    distributions = {
        f"z_{name}": Built(normal, {part: inputs[part] for part in (f"{name}_mean", f"{name}_stddev")})
        for name in ("posterior", "prior")
    }
    return pixels | distributions


def draw_inputs(
    draw: Draw, shape: Sequence[int], z_dim: int, prior: Sequence[int] | None = None, least: float = 0.04
) -> Inputs:
    """Grey images (B, C, H, W), and distributions that differ in every latent; the prior is N(0, I) without a shape.

    No pixel of x_reconst is nearer to 0 or 1 than `least`, so that 1e-5 in the logarithms does not show.
    """
    batch = shape[0]
    return {
        "x": draw.uniform(0.02, 0.98, *shape),
        "x_reconst": draw.uniform(least, 1 - least, *shape),
        "posterior_mean": draw.normal(batch, z_dim),
        "posterior_stddev": draw.uniform(0.3, 1.6, batch, z_dim),
        "prior_mean": draw.normal(*prior) if prior else torch.zeros(z_dim),
        "prior_stddev": draw.uniform(0.5, 2.0, *prior) if prior else torch.ones(z_dim),
    }


def draw_far(draw: Draw, batch: int, z_dim: int) -> Inputs:
    """Posteriors that are far from the prior, very narrow and very wide."""
    stddevs = torch.linspace(-7, 3.3, batch * z_dim).exp()
    return {
        "posterior_mean": draw.normal(batch, z_dim, std=20),
        "posterior_stddev": stddevs[draw.permutation(batch * z_dim)].reshape(batch, z_dim),
    }


@contextmanager
def errors_explained(student: Student, cases: Sequence[Inputs]) -> Iterator[None]:
    """Say why a Bernoulli distribution of torch refuses the images, or which shapes did not fit together."""
    try:
        yield
    except Failure as failure:
        hint = failure.hint
        if "Boolean()" in failure.message:
            hint = GREY
        elif re.search(r"(Index|Runtime)Error: .*([Dd]imension|shape|size)", failure.message):
            hint = hint or explain_shapes(student, cases)
        raise failure.told(hint) from None


def explain_shapes(student: Student, cases: Sequence[Inputs]) -> str:
    """The shapes of the first call that fails."""
    for inputs in cases:
        try:
            student.loss.compute_elbo(*arguments(student, inputs).values())
        except Failure:
            means = [tuple(inputs[f"{name}_mean"].shape) for name in ("posterior", "prior")]
            return (
                f"There x has the shape {tuple(inputs['x'].shape)}, the mean of z_posterior {means[0]}, and that of "
                f"z_prior {means[1]}."
            )
    return ""


def expect_bounds(student: Student, cases: Sequence[Inputs]) -> None:
    """Expect the bound at every case, and the same bound in a second call."""
    calls = [arguments(student, inputs) for inputs in cases]
    with errors_explained(student, cases):
        *values, again = call_each(student.loss.compute_elbo, [*calls, calls[-1]])
    results = list(zip(values, cases, strict=True))
    for value, inputs in results:
        if not is_finite(value) and bool(inputs["x"].eq(inputs["x"].round()).all()):
            raise wrong(f"With {describe(inputs)}, the bound is {numbers(value)}.", INSIDE_LOGARITHM)
    expect_same(values[-1], again)
    judged = [(value, ELBO.at(**inputs)) for value, inputs in results]
    try:
        expect_all(judged, "the bound")
    except Failure as failure:
        hint = failure.hint or explain_weights(judged) or explain_nearly(judged)
        raise failure.told(hint) from None


def expect_same(value: Any, again: Any) -> None:
    """Expect the same bound of two calls with the same arguments."""
    if not close(tensor(value, (), "The bound"), tensor(again, (), "The bound")):
        raise wrong("Two calls with the same arguments give different bounds.", NOT_SAMPLED)


def expect_same_gradient(student: Student, inputs: Inputs, observed: Observation) -> None:
    """Expect the same gradient by x_reconst of a second call with the same arguments."""
    again = observe(student.loss.compute_elbo, arguments(student, inputs)).gradients["x_reconst"]
    once = observed.gradients["x_reconst"]
    if once is not None and again is not None and not close(once, again):
        raise wrong("Two calls with the same arguments give different gradients.", NOT_SAMPLED)


def explain_nearly(judged: Sequence[tuple[Any, Expected]]) -> str:
    """Say of bounds that are nearly right that they are; "" of others."""
    nearly = all(
        isinstance(value, Tensor) and value.ndim == 0 and close(value, expected.values()[0], SMALL)
        for value, expected in judged
    )
    return DIGITS if nearly else ""


def explain_weights(judged: Sequence[tuple[Any, Expected]]) -> str:
    """The weights of log-likelihood and KL divergence, if bounds are sums of the two with others than 1; else ""."""
    usable = all(isinstance(value, Tensor) and value.ndim == 0 and is_finite(value) for value, _ in judged)
    if len(judged) < 3 or not usable:
        return ""
    likelihood = torch.stack([expected.misconceived("The KL divergence is missing.") for _, expected in judged])
    right = torch.stack([expected.values()[0] for _, expected in judged])
    terms = torch.stack([likelihood, right - likelihood], dim=1)
    found = torch.stack([value.double() for value, _ in judged])
    weights = torch.linalg.lstsq(terms, found).solution
    if not close(terms @ weights, found) or close(weights, torch.ones(2), SMALL):
        return ""
    return (
        f"It is {weights[0]:.3g} times the log-likelihood minus {weights[1]:.3g} times the KL divergence; both "
        "factors must be 1."
    )


@question("1.2")
def test_elbo_by_hand(student: Student, draw: Draw) -> None:
    """One pixel and one latent variable, at values that can be checked by hand."""
    standard = {"mean": torch.zeros(1, 1), "stddev": torch.ones(1, 1)}
    drawn = [
        {"mean": draw.multiples(0.125, -2, 2, 1, 1), "stddev": draw.multiples(0.125, 0.25, 2, 1, 1)} for _ in range(3)
    ]
    cases = []
    for n, posterior in enumerate([standard, standard, *drawn]):  # with the first two, the KL divergence is 0
        x_reconst = draw.multiples(0.125, 0.125, 0.875, 1, 1, 1, 1)
        images = {"x": torch.full((1, 1, 1, 1), 1.0 - n % 2), "x_reconst": x_reconst}
        named = {"posterior": posterior, "prior": standard}.items()
        cases.append(images | {f"{of}_{part}": x for of, parts in named for part, x in parts.items()})
    expect_bounds(student, cases)


@question("1.2")
def test_elbo_batches(student: Student, draw: Draw) -> None:
    """Sums over pixels and latents and the mean over the batch, for any normal prior and device; arguments stay."""
    shapes: list[tuple[tuple[int, ...], int, tuple[int, ...] | None]] = [
        ((5, 3, 2, 2), 3, None),
        ((2, 1, 28, 28), 20, None),
        ((4, 3, 5, 7), 6, (6,)),
        ((6, 1, 4, 3), 2, (6, 2)),
        ((3, 1, 2, 5), 4, (4,)),
        ((1, 1, 3, 3), 1, (1,)),
    ]
    inputs = draw_inputs(draw, (4, 1, 3, 5), 2, (2,))
    with errors_explained(student, [inputs]):
        expect_kept(student, inputs | {"x_reconst": draw.integers(2, 4, 1, 3, 5).float()})
        expect_on_device(student, inputs)
    cases = [draw_inputs(draw, shape, z_dim, prior) for shape, z_dim, prior in shapes]
    expect_bounds(student, [*cases, draw_inputs(draw, (4, 1, 2, 6), 3, (3,)) | draw_far(draw, 4, 3)])


def expect_kept(student: Student, inputs: Inputs) -> None:
    """Expect that a call leaves the images and the distributions as they are."""
    normal = student.torch.distributions.Normal
    posterior, prior = (normal(inputs[f"{name}_mean"], inputs[f"{name}_stddev"]) for name in ("posterior", "prior"))
    images = {name: inputs[name] for name in ("x", "x_reconst")}
    called = images | {"z_posterior": posterior, "z_prior": prior}
    expect_unchanged(observe(student.loss.compute_elbo, called, differentiate=False), images)
    parts = fetch(posterior.mean, posterior.stddev, prior.mean, prior.stddev)
    for name, part in zip([name for name in inputs if name not in images], parts, strict=True):
        if not isinstance(part, Tensor) or not torch.equal(part, inputs[name]):
            raise wrong(f"Your code changed the {name.replace('_', ' of the ')} in place.", "Compute new tensors.")


def expect_on_device(student: Student, inputs: Inputs) -> None:
    """Expect that what is made in a call is where the images are."""
    there = {name: moved(student, x) for name, x in inputs.items()}
    called = [there["x"], there["x_reconst"]] + [
        Built(
            student.torch.distributions.Normal,
            {"mean": there[f"{name}_mean"], "stddev": there[f"{name}_stddev"], "check": False},
        )
        for name in ("posterior", "prior")
    ]
    hint = "Make tensors where the images are: device=x.device, or torch.zeros_like(x)."
    with on_another_device("the images and distributions", hint):  # where values cannot be read
        later(student.loss.compute_elbo, *called)
        student.settle()


@question("1.2")
def test_elbo_gradient(student: Student, draw: Draw) -> None:
    """The gradients by x_reconst and by the mean and the standard deviation of the posterior."""
    cases = [draw_inputs(draw, shape, z_dim, least=0.2) for shape, z_dim in [((7, 3, 5, 2), 3), ((8, 1, 4, 7), 24)]]
    with errors_explained(student, cases):
        observed = observe_each(student.loss.compute_elbo, [arguments(student, inputs) for inputs in cases])
    judged = [ELBO.at(**inputs) for inputs in cases]
    try:  # the two bounds together: a single one may be that of another mistake by chance
        expect_all([(one.value, expected) for one, expected in zip(observed, judged, strict=True)], "the bound")
    except Failure:
        [again] = call_each(student.loss.compute_elbo, [arguments(student, cases[0])])
        expect_same(observed[0].value, again)
        raise
    for one, expected, inputs in zip(observed, judged, cases, strict=True):
        wanted = {name: one.gradients[name] for name in DIFFERENTIATED}
        try:
            expect_gradients(replace(one, gradients=wanted), expected)
        except Failure:
            expect_same_gradient(student, inputs, one)
            raise


# ---------------------------------------------------------------- pixels that are exactly 0 or 1


@question("1.2")
def test_elbo_exact_pixels(student: Student, draw: Draw) -> None:
    """Reconstructions of exactly 0 and 1: right ones cost nothing, wrong ones very much, and none gives inf or nan."""
    same = draw.integers(2, *IMAGES).float()
    value = exact_bound(student, same, same)
    if not draw.within("nats where x_reconst is x", abs(value) / AGREES):
        raise wrong(
            f"Where x_reconst is x, all of it 0 or 1, and the KL divergence is 0, the bound is {value:.4g}, and not 0.",
            explain_cost(student),
        )
    for pixel in (0.0, 1.0):
        x = torch.full(PIXEL, pixel)
        value = exact_bound(student, x, 1 - x)
        if not draw.within("nats where x_reconst is 1 - x", DISAGREES / value if value < 0 else math.inf):
            raise wrong(
                f"For a single pixel x = {pixel:.0f} with x_reconst = {1 - pixel:.0f} the bound is {value:.4g}, "
                "which is too high for what x_reconst says is impossible.",
                "The sign is flipped." if value > 0 else explain_cost(student),
            )
    expect_rise(student, draw)


def expect_rise(student: Student, draw: Draw) -> None:
    """Expect a bound that rises, at every grey pixel, where x_reconst comes nearer to x."""
    x = draw.uniform(0.1, 0.9, *IMAGES)
    x_reconst = torch.where(draw.integers(2, *IMAGES).bool(), x + 0.05, x - 0.05)
    gradient = call_with_pixels(student, x, x_reconst).gradients["x_reconst"]
    if gradient is None or not torch.equal(gradient.sign(), (x - x_reconst).sign()):
        raise wrong("Where x_reconst comes nearer to x, at pixels that are grey, the bound does not rise.")


def call_with_pixels(student: Student, x: Tensor, x_reconst: Tensor) -> Observation:
    """compute_elbo of images where q is p, so that the KL divergence is 0."""
    batch = len(x)
    inputs = {
        "x": x,
        "x_reconst": x_reconst,
        "posterior_mean": torch.zeros(batch, 3),
        "posterior_stddev": torch.ones(batch, 3),
        "prior_mean": torch.zeros(3),
        "prior_stddev": torch.ones(3),
    }
    return observe(student.loss.compute_elbo, arguments(student, inputs))


def exact_bound(student: Student, x: Tensor, x_reconst: Tensor) -> float:
    """The bound of images of 0s and 1s where q is p. Raises Failure if it or its gradient is not finite."""
    observed = call_with_pixels(student, x, x_reconst)
    where = "Where x_reconst is x, all of it 0 or 1," if torch.equal(x, x_reconst) else "Where x_reconst is 1 - x,"
    if not is_finite(observed.value):
        raise wrong(f"{where} the bound is {numbers(observed.value)}.", explain_infinite(student))
    if not is_finite(observed.gradients["x_reconst"]):
        hint = INSIDE_LOGARITHM if has_log_of_x(student) else explain_gradient(student)
        raise wrong(f"{where} the gradient of the bound by x_reconst is not finite.", hint)
    return float(tensor(observed.value, (), "The bound"))


def pixel_bound(student: Student, pixel: float, decoded: float) -> float:
    """The bound of an image of a single pixel where q is p; it may be inf or nan."""
    value = call_with_pixels(student, torch.full(PIXEL, pixel), torch.full(PIXEL, decoded)).value
    return float(value) if isinstance(value, Tensor) and value.numel() == 1 else math.nan


def has_log_of_x(student: Student) -> bool:
    """Whether the bound, or its gradient, is not finite where x is 0 or 1 and x_reconst is neither."""
    observed = call_with_pixels(student, torch.tensor([0.0, 1.0]).reshape(PIXEL), torch.full(PIXEL, 0.5))
    return not (is_finite(observed.value) and is_finite(observed.gradients["x_reconst"]))


def explain_infinite(student: Student) -> str:
    """Why the bound of pixels that are 0 or 1 is not finite."""
    if has_log_of_x(student):
        return INSIDE_LOGARITHM
    finite_at_zero = all(math.isfinite(pixel_bound(student, pixel, 0.0)) for pixel in (0.0, 1.0))
    return LOST_AT_ONE if finite_at_zero else LOG_OF_ZERO


def explain_gradient(student: Student) -> str:
    """Why the gradient of pixels that are 0 or 1 is not finite."""
    near = torch.tensor([1e-6, 1 - 1e-6]).reshape(PIXEL)
    gradient = call_with_pixels(student, 1 - near.round(), near).gradients["x_reconst"]
    return GRADIENT_AT_ZERO if is_finite(gradient) else OVERFLOW


def explain_cost(student: Student) -> str:
    """How far x_reconst is kept away from 0 and 1, if that is why the bound of pixels that are 0 or 1 is not right."""
    right, opposite = pixel_bound(student, 1.0, 1.0), pixel_bound(student, 1.0, 0.0)
    distance = math.exp(min(opposite, 0.0))
    for sentence, cost in [(KEPT_AWAY, math.log1p(-min(distance, 0.99))), (ADDED, math.log1p(distance))]:
        if distance > 1e-5 and math.isclose(right, cost, rel_tol=1e-2):
            return sentence.format(distance)
    return ""


def is_finite(value: Any) -> bool:
    """Whether nothing in `value` is inf or nan, where it is a tensor."""
    return not isinstance(value, Tensor) or bool(value.isfinite().all())

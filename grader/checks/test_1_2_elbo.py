"""Question 1.2, the evidence lower bound."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from grader.engine.student import Built, Failure, Student, call_each, observe
from grader.oracle.answers import form

from .draw import Draw
from .expect import close, describe, expect_all, expect_gradients, numbers, tensor, wrong
from .runner import question

ELBO = form("ELBO")
Inputs = dict[str, Tensor]
DIFFERENTIATED = ("x_reconst", "posterior_mean", "posterior_stddev")
AGREES = 1e-3  # nats an image that pixels may cost which are reconstructed exactly: a clamp at 1e-5 costs 2e-4
DISAGREES = -10.0  # nats that a pixel costs at least whose value is held to be impossible: ln 1e-5 is -11.5
INSIDE_LOGARITHM = "x holds pixels that are 0 or 1: log(x) and log(1 - x) are infinite there. Should it be x_reconst?"
CLAMP = (
    "x_reconst may be kept away from 0 and 1, by no more than 1e-5. If another check of the bound fails too, look "
    "there first."
)
NOT_SAMPLED = "The KL divergence of two normal distributions has a closed form: draw no samples."
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


def draw_inputs(draw: Draw, shape: Sequence[int], z_dim: int, prior: Sequence[int] | None = None) -> Inputs:
    """Grey images of `shape`, and distributions that differ in every latent; the prior is N(0, I) without a shape."""
    batch = shape[0]
    return {
        "x": draw.uniform(0.02, 0.98, *shape),
        "x_reconst": draw.uniform(0.04, 0.96, *shape),
        "posterior_mean": draw.normal(batch, z_dim),
        "posterior_stddev": draw.uniform(0.3, 1.6, batch, z_dim),
        "prior_mean": draw.normal(*prior) if prior else torch.zeros(z_dim),
        "prior_stddev": draw.uniform(0.5, 2.0, *prior) if prior else torch.ones(z_dim),
    }


@contextmanager
def hint_at_grey_pixels() -> Iterator[None]:
    """Say why a Bernoulli distribution of torch refuses the images."""
    try:
        yield
    except Failure as failure:
        hint = GREY if "Boolean()" in failure.message else failure.hint
        raise Failure(failure.status, failure.message, hint) from None


def expect_bounds(student: Student, cases: Sequence[Inputs]) -> None:
    """Expect the bound at every case, and the same bound in a second call."""
    calls = [arguments(student, inputs) for inputs in cases]
    with hint_at_grey_pixels():
        *values, again = call_each(student.loss.compute_elbo, [*calls, calls[-1]])
    results = list(zip(values, cases, strict=True))
    for value, inputs in results:
        if not is_finite(value) and bool(inputs["x"].eq(inputs["x"].round()).all()):
            raise wrong(f"With {describe(inputs)}, the bound is {numbers(value)}.", INSIDE_LOGARITHM)
    if not close(tensor(values[-1], (), "The bound"), tensor(again, (), "The bound")):
        raise wrong("Two calls with the same arguments give different bounds.", NOT_SAMPLED)
    expect_all([(value, ELBO.at(**inputs)) for value, inputs in results], "the bound")


@question("1.2")
def test_elbo_by_hand(student: Student, draw: Draw) -> None:
    """One pixel and one latent variable, at values that can be checked by hand."""
    names = ("x", "x_reconst", "posterior_mean", "posterior_stddev", "prior_mean", "prior_stddev")
    values = [
        (1.0, 0.5, 0.0, 1.0, 0.0, 1.0),
        (0.0, 0.25, 0.0, 1.0, 0.0, 1.0),
        (1.0, 0.25, 1.0, 1.0, 0.0, 1.0),
        (0.0, 0.75, 0.0, 2.0, 0.0, 1.0),
        (1.0, 0.875, -0.5, 0.25, 0.0, 1.0),
    ]
    shapes = [(1, 1, 1, 1)] * 2 + [(1, 1)] * 4
    cases = [{n: torch.full(shape, v) for n, shape, v in zip(names, shapes, row, strict=True)} for row in values]
    expect_bounds(student, cases)


@question("1.2")
def test_elbo_batches(student: Student, draw: Draw) -> None:
    """Sums over pixels and latents and the mean over the batch, for images of any shape and any normal prior."""
    shapes: list[tuple[tuple[int, ...], int, tuple[int, ...] | None]] = [
        ((5, 12), 3, None),
        ((2, 1, 28, 28), 20, None),
        ((4, 3, 5, 7), 6, (6,)),
        ((6, 1, 4, 3), 2, (6, 2)),
        ((3, 2, 5), 4, (1,)),
        ((1, 9), 1, (1,)),
    ]
    expect_bounds(student, [draw_inputs(draw, shape, z_dim, prior) for shape, z_dim, prior in shapes])


@question("1.2")
def test_elbo_gradient(student: Student, draw: Draw) -> None:
    """The gradients by x_reconst and by the mean and the standard deviation of the posterior."""
    for shape, z_dim in [((4, 2, 5, 3), 3), ((3, 2, 4, 7), 5)]:
        inputs = draw_inputs(draw, shape, z_dim)
        with hint_at_grey_pixels():
            observed = observe(student.loss.compute_elbo, arguments(student, inputs))
        wanted = {name: observed.gradients[name] for name in DIFFERENTIATED}
        expect_gradients(replace(observed, gradients=wanted), ELBO.at(**inputs))


# ---------------------------------------------------------------- pixels that are exactly 0 or 1


@question("1.2")
def test_elbo_exact_pixels(student: Student, draw: Draw) -> None:
    """Reconstructions of exactly 0 and 1: right ones cost nothing, wrong ones very much, and none gives inf or nan."""
    same = torch.tensor([0.0, 1.0, 1.0, 0.0]).repeat(3, 1, 5, 1)  # the cost of a clamp adds up over 20 pixels
    value = exact_bound(student, same, same)
    if not draw.within("nats where x_reconst is x", abs(value) / AGREES):
        raise wrong(
            f"Where x_reconst is x, all of it 0 or 1, and the KL divergence is 0, the bound is {value:.4g}, and not 0.",
            CLAMP,
        )
    for pixel in (0.0, 1.0):
        x = torch.full((2, 1, 1, 1), pixel)
        value = exact_bound(student, x, 1 - x)
        if not draw.within("nats where x_reconst is 1 - x", DISAGREES / value if value < 0 else math.inf):
            raise wrong(
                f"For a single pixel x = {pixel:.0f} with x_reconst = {1 - pixel:.0f} the bound is {value:.4g}, "
                "which is too high for what x_reconst says is impossible.",
                "The sign is flipped." if value > 0 else CLAMP,
            )


def exact_bound(student: Student, x: Tensor, x_reconst: Tensor) -> float:
    """The bound of images of 0s and 1s where q is p. Raises Failure if it or its gradient is not finite."""
    batch = len(x)
    inputs = {
        "x": x,
        "x_reconst": x_reconst,
        "posterior_mean": torch.zeros(batch, 3),
        "posterior_stddev": torch.ones(batch, 3),
        "prior_mean": torch.zeros(3),
        "prior_stddev": torch.ones(3),
    }
    observed = observe(student.loss.compute_elbo, arguments(student, inputs))
    where = "Where x_reconst is x, all of it 0 or 1," if torch.equal(x, x_reconst) else "Where x_reconst is 1 - x,"
    gradient = observed.gradients["x_reconst"]
    if not is_finite(observed.value):
        raise wrong(f"{where} the bound is {numbers(observed.value)}.", "log 0 is -inf, and 0 * log 0 is nan.")
    if not is_finite(gradient):
        hint = "The bound itself is finite: keep x_reconst away from 0 before the logarithm, not after it."
        raise wrong(f"{where} the gradient of the bound by x_reconst is not finite.", hint)
    return float(tensor(observed.value, (), "The bound"))


def is_finite(value: Any) -> bool:
    """Whether nothing in `value` is inf or nan, where it is a tensor."""
    return not isinstance(value, Tensor) or bool(value.isfinite().all())

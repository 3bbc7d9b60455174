"""Questions 2.2a and 2.2b, the hinge losses of discriminator and generator."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from grader.engine.student import Student, observe, observe_each
from grader.oracle.answers import form

from .device import expect_on_device_of
from .digits import expect_each, expect_with_digits
from .draw import Draw
from .expect import expect, expect_gradients, expect_unchanged
from .runner import question

DISCRIMINATOR_HINGE, GENERATOR_HINGE = form("DISCRIMINATOR_HINGE"), form("GENERATOR_HINGE")
SHAPES = [(7, 1), (5, 1), (1, 1), (4, 1, 3, 3), (3, 1, 8, 8), (1, 1, 2, 5)]
KINKS = (-1.0, 0.0, 1.0)


def draw_logits(draw: Draw, *shape: int) -> Tensor:
    """Logits on both sides of every margin, and at least 0.05 away from where a hinge loss has a kink."""
    return _off_kinks(draw.normal(*shape, std=2))


def _off_kinks(logits: Tensor) -> Tensor:
    for kink in KINKS:
        near = (logits - kink).abs() < 0.05
        logits = torch.where(near, logits + 0.1, logits)
    return logits


def draw_around_margins(draw: Draw, *shape: int) -> dict[str, Tensor]:
    """Real and fake logits on both sides of their margins, with means beyond them: the mean alone costs nothing."""
    real, fake = (x - x.mean() for x in (draw_logits(draw, *shape), draw_logits(draw, *shape)))
    return {"real": _off_kinks(real + 1.5), "fake": _off_kinks(fake - 1.5)}


# ---------------------------------------------------------------- 2.2a


@question("2.2a")
def test_discriminator_single_logits(student: Student, draw: Draw) -> None:
    """One real and one fake logit, at values that can be checked by hand."""
    low, inside, high = (-4.0, -1.25), (-0.875, 0.875), (1.25, 4.0)
    ranges = [(inside, inside), (low, high), (inside, low), (high, high), (high, low), (inside, inside)]
    cases = [
        {"real": draw.multiples(0.125, *real, 1, 1, 1, 1), "fake": draw.multiples(0.125, *fake, 1, 1, 1, 1)}
        for real, fake in ranges
    ]
    expect_each(student.loss.GANLossD(), DISCRIMINATOR_HINGE, cases, "the loss")


@question("2.2a")
def test_discriminator_batches_and_patches(student: Student, draw: Draw) -> None:
    """The hinge before the mean, for one logit an image and for patches."""
    cases = [{"real": draw_logits(draw, *shape), "fake": draw_logits(draw, *shape)} for shape in SHAPES]
    expect_each(student.loss.GANLossD(), DISCRIMINATOR_HINGE, cases, "the loss")


@question("2.2a")
def test_discriminator_both_margins(student: Student, draw: Draw) -> None:
    """Nothing to pay beyond the margins 1 and -1, and something just before them."""
    values = [(1.5, -1.5), (0.9, -1.5), (1.5, -0.9), (100.0, -100.0), (-100.0, 100.0)]
    cases = [
        {"real": draw.uniform(-0.05, 0.05, 6, 1, 1, 1) + real, "fake": draw.uniform(-0.05, 0.05, 6, 1, 1, 1) + fake}
        for real, fake in values
    ]
    expect_each(student.loss.GANLossD(), DISCRIMINATOR_HINGE, cases, "the loss")


@question("2.2a")
def test_discriminator_gradient(student: Student, draw: Draw) -> None:
    """The gradients by real and fake, off the kinks of the hinge."""
    cases = [draw_around_margins(draw, *shape) for shape in [(8, 1, 1, 1), (2, 1, 6, 1), (3, 1, 4, 4)]]
    seen = observe_each(student.loss.GANLossD(), cases)
    rights = [DISCRIMINATOR_HINGE.at(**inputs) for inputs in cases]
    expect_with_digits([(observed.value, right) for observed, right in zip(seen, rights, strict=True)], "the loss")
    for observed, right in zip(seen, rights, strict=True):
        expect_gradients(observed, right)


@question("2.2a")
def test_discriminator_leaves_inputs_alone(student: Student, draw: Draw) -> None:
    """A second call gives the same value, and neither changes real or fake."""
    loss = student.loss.GANLossD()
    inputs = draw_around_margins(draw, 4, 1, 3, 3)
    for _ in range(2):
        observed = observe(loss, inputs, differentiate=False)
        expect(observed.value, DISCRIMINATOR_HINGE.at(**inputs), "the loss")
        expect_unchanged(observed, inputs)


@question("2.2a")
def test_discriminator_stays_on_its_device(student: Student, draw: Draw) -> None:
    """Tensors are made where real and fake are: a model on a GPU trains there."""
    inputs = {"real": draw_logits(draw, 4, 1, 3, 3), "fake": draw_logits(draw, 4, 1, 3, 3)}
    right = partial(expect, expected=DISCRIMINATOR_HINGE.at(**inputs), what="the loss")
    expect_on_device_of(student, student.loss.GANLossD(), inputs, right, like="real")


# ---------------------------------------------------------------- 2.2b


@question("2.2b")
def test_generator_single_logits(student: Student, draw: Draw) -> None:
    """One fake logit, at values that can be checked by hand."""
    cases = [{"fake": fake.reshape(1, 1, 1, 1)} for fake in draw.multiples(0.125, -4, 4, 5)]
    expect_each(student.loss.GANLossG(), GENERATOR_HINGE, cases, "the loss")


@question("2.2b")
def test_generator_batches_and_patches(student: Student, draw: Draw) -> None:
    """The mean over every logit, for one logit an image and for patches."""
    cases = [{"fake": draw_logits(draw, *shape)} for shape in SHAPES]
    expect_each(student.loss.GANLossG(), GENERATOR_HINGE, cases, "the loss")


@question("2.2b")
def test_generator_gradient(student: Student, draw: Draw) -> None:
    """The gradient by fake, the same for every logit; fake stays as it is."""
    cases = [{"fake": draw_logits(draw, *shape)} for shape in [(8, 1, 1, 1), (2, 1, 6, 1), (3, 1, 4, 4)]]
    seen = observe_each(student.loss.GANLossG(), cases)
    rights = [GENERATOR_HINGE.at(**inputs) for inputs in cases]
    expect_with_digits([(observed.value, right) for observed, right in zip(seen, rights, strict=True)], "the loss")
    for observed, right, inputs in zip(seen, rights, cases, strict=True):
        expect_gradients(observed, right)
        expect_unchanged(observed, inputs)


@question("2.2b")
def test_generator_stays_on_its_device(student: Student, draw: Draw) -> None:
    """Tensors are made where fake is: a model on a GPU trains there."""
    inputs = {"fake": draw_logits(draw, 4, 1, 3, 3)}
    right = partial(expect, expected=GENERATOR_HINGE.at(**inputs), what="the loss")
    expect_on_device_of(student, student.loss.GANLossG(), inputs, right, like="fake")

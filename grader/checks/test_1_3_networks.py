"""Questions 1.3a, the generator, and 1.3b, the discriminator of a small GAN."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from grader.engine.student import Failure, Remote, Student, at_once

from .draw import Draw
from .expect import close, wrong
from .mlp import (
    AS_IT_IS,
    BATCH,
    CUT,
    DISCRIMINATOR,
    GENERATOR,
    HIDDEN,
    LARGE,
    SIZES,
    X_SHAPE,
    Z_DIM,
    Circuit,
    Plan,
    Run,
    expect_alone,
    expect_any_size,
    expect_different_units,
    expect_every_input,
    expect_few_layers,
    expect_input_gradient,
    expect_kept,
    expect_layers,
    expect_probabilities,
    expect_rectifiers,
    expect_sigmoid,
    expect_slope,
    expect_trained,
    explain_activations,
    explain_normalisation,
    find_cut_off,
    find_gradients,
    image_hints,
    inner_call,
    logits,
    outputs_explained,
    pixel_name,
    plain,
    positive,
    read_parameters,
    rows,
    seed,
    sizes_explained,
    suppressed,
    used_parameters,
)
from .runner import question


def expect_hidden_layers(
    student: Student, module: Remote, plan: Plan, draw: Draw, run: Run, factors: Sequence[float] = ()
) -> None:
    """Expect hidden layers of ReLU or LeakyReLU and a sigmoid at the end.

    Args:
        student: the submission.
        module: the network in the worker.
        plan: the widths of its layers.
        draw: of inputs and weights.
        run: gives probabilities.
        factors: those that an input may take, of either sign.
    """
    inputs = positive(draw, 8, *plan.shape)
    shape = plain(module(inputs), f"{plan.what}'s output").shape
    module.requires_grad_(True)  # that parameters learn is a check of its own
    with rounding_explained(module, inputs):
        used = used_parameters(student, module, torch.ones(shape), {"what comes out": inner_call(module, inputs)})

    def cut_off() -> list[str]:
        everything = read_parameters(student, module)
        return find_cut_off(module, everything, used, lambda: plain(module(inputs), plan.what))

    expect_layers(used, plan, cut_off)
    circuit = Circuit(module, used, plan, draw, lambda x: rows(run(x))).moderate(inputs)
    expect_sigmoid(circuit, inputs, f"{plan.what}'s output")
    circuit = circuit.through(logits)
    expect_rectifiers(circuit, inputs, 0.5, "a ReLU or LeakyReLU")
    what = f"The logit of {plan.what.lower()}"
    try:
        expect_every_input(
            circuit, inputs, what, lambda i: pixel_name(i, plan.shape) if plan.shape[1:] else f"z_{i + 1}"
        )
        expect_any_size(circuit, inputs, what, factors)
    except Failure as failure:
        hint = explain_activations(circuit, "a ReLU or LeakyReLU") if failure.hint == AS_IT_IS else ""
        raise Failure(failure.status, failure.message, hint or failure.hint) from None
    signs: dict[str, float | Tensor] = {name: draw.integers(2, *used[name].shape) * 2.0 - 1 for name in circuit.hidden}
    once, twice = at_once(module, [partial(circuit.respond, inputs, signs), partial(circuit.run, 2 * inputs)])
    if not close(twice, 2 * once, 1e-3, 2e-5):  # logits may be small, and a SiLU is nearly linear there
        raise wrong(
            f"{plan.what} without biases does not give twice the logits for twice the input.",
            explain_activations(circuit, "a ReLU or LeakyReLU")
            or explain_normalisation(circuit, inputs)
            or "ReLU and LeakyReLU layers do; tanh, sigmoid, ELU, GELU and normalisation do not.",
        )


@contextmanager
def rounding_explained(module: Remote, inputs: Tensor) -> Iterator[None]:
    """Say that results are rounded where that cuts their gradient."""
    try:
        yield
    except Failure as failure:
        hint = failure.hint
        if hint == CUT:
            with suppressed():
                results = plain(module(inputs), "What comes out")
                if bool((results == results.round()).all()):
                    hint = "Every result is exactly 0 or 1: a comparison or a rounding has no gradient, leave it out."
        raise failure.told(hint) from None


def expect_network_trained(student: Student, module: Remote, plan: Plan, inputs: Tensor, draw: Draw) -> Tensor:
    """Expect that gradients reach every parameter, at positive inputs and weights, where no ReLU is closed.

    Returns:
        What the elements of the result were weighted with.
    """
    what = f"{plan.what}'s output"
    shape = plain(module(inputs), what).shape
    parameters = read_parameters(student, module)
    expect_few_layers(parameters, plan)
    expect_different_units(parameters, plan)
    circuit = Circuit(module, parameters, plan, draw, lambda inputs: plain(module(inputs), what))
    circuit.set()
    seed(student)
    weights = draw.uniform(0.5, 1.5, *shape)
    with rounding_explained(module, inputs):
        gradients = find_gradients(student, module, parameters, inner_call(module, inputs), weights, "what comes out")
    expect_trained(module, parameters, gradients, "what comes out", lambda: circuit.run(inputs))
    expect_slope(circuit, inputs, dict(zip(parameters, gradients, strict=True)), weights, "what comes out")
    return weights


def generate(generator: Remote, z: Tensor, x_shape: tuple[int, ...] = X_SHAPE) -> Tensor:
    """Generated images, judged up to their values."""
    batch = len(z)
    with sizes_explained(batch, x_shape, z.shape[1]):
        images = generator(z)
    return expect_probabilities(images, (batch, *x_shape), "What the generator returns", image_hints(batch, x_shape))


def discriminate(discriminator: Remote, x: Tensor) -> Tensor:
    """The probabilities of images, judged up to their values."""
    batch = len(x)
    try:
        with sizes_explained(batch, tuple(x.shape[1:]), takes_images=True):
            result = discriminator(x)
    except Failure as failure:
        raise failure.told(failure.hint or explain_squeeze(discriminator, x)) from None
    hints: dict[tuple[int, ...], str] = {
        (batch, width): f"self.net gives {width} numbers for an image; a single one is right." for width in range(2, 99)
    }
    hints[(1,)] = "The whole batch gets a single probability; each image has one of its own."
    return expect_probabilities(result, (batch,), "What the discriminator returns", hints)


def explain_squeeze(discriminator: Remote, x: Tensor) -> str:
    """Why `forward` cannot take away the axis of the single output."""
    with suppressed():
        shape = tuple(plain(discriminator.net(x.flatten(1)), "self.net").shape)
        if shape != (len(x), 1):
            return f"self.net returns the shape {shape}; (B, 1) is expected, of which forward takes the last axis away."
    return ""


@question("1.3a")
def test_generator_makes_images(student: Student, draw: Draw) -> None:
    """Images of shape (B, *x_shape) in (0, 1), by hidden layers of hidden_dim units and a sigmoid."""
    generators = [student.model.Generator(z_dim, x_shape, hidden_dim) for x_shape, z_dim, hidden_dim in SIZES]
    generator = student.model.Generator(Z_DIM, X_SHAPE, HIDDEN)
    with outputs_explained(student, generator, generator, GENERATOR, draw):
        steps = []
        for other, (x_shape, z_dim, _) in zip(generators, SIZES, strict=True):
            some = [draw.normal(count, z_dim, std=std) for count, std in [(4, 1.0), (2, 100.0)]]
            steps += [partial(generate, other, z, x_shape) for z in some]
        list(at_once(generator, steps))
        expect_alone(generator, lambda z: generate(generator, z), draw.normal(BATCH, Z_DIM), "The generator")
        expect_kept(generator, "z", draw.normal(BATCH, Z_DIM, std=20))
        factors = (-1, LARGE, -LARGE)
        expect_hidden_layers(student, generator, GENERATOR, draw, lambda z: generate(generator, z), factors)


@question("1.3a")
def test_generator_trains_every_parameter(student: Student, draw: Draw) -> None:
    """Gradients reach every parameter of the generator."""
    generator = student.model.Generator(Z_DIM, X_SHAPE, HIDDEN)
    with sizes_explained(4, X_SHAPE, Z_DIM):
        expect_network_trained(student, generator, GENERATOR, positive(draw, 4, Z_DIM), draw)


@question("1.3b")
def test_discriminator_gives_probabilities(student: Student, draw: Draw) -> None:
    """One probability an image, by hidden layers of hidden_dim units and a sigmoid."""
    discriminators = [student.model.MLPDiscriminator(x_shape, hidden_dim) for x_shape, _, hidden_dim in SIZES]
    discriminator = student.model.MLPDiscriminator(X_SHAPE, HIDDEN)
    with outputs_explained(student, discriminator, discriminator, DISCRIMINATOR, draw):
        steps = []
        for other, (x_shape, _, _) in zip(discriminators, SIZES, strict=True):
            some = [draw.uniform(0, high, count, *x_shape) for count, high in [(4, 1.0), (2, 100.0)]]
            steps += [partial(discriminate, other, x) for x in some]
        list(at_once(discriminator, steps))
        images = draw.uniform(0, 1, BATCH, *X_SHAPE)
        expect_alone(discriminator, lambda x: discriminate(discriminator, x), images, "The discriminator")
        expect_kept(discriminator, "x", draw.uniform(0, 1, BATCH, *X_SHAPE))
        expect_hidden_layers(student, discriminator, DISCRIMINATOR, draw, lambda x: discriminate(discriminator, x))


@question("1.3b")
def test_discriminator_trains_every_parameter(student: Student, draw: Draw) -> None:
    """Gradients reach every parameter of the discriminator, and the image it judges."""
    discriminator = student.model.MLPDiscriminator(X_SHAPE, HIDDEN)
    x = positive(draw, 4, *X_SHAPE)
    with sizes_explained(4, X_SHAPE, takes_images=True):
        weights = expect_network_trained(student, discriminator, DISCRIMINATOR, x, draw)
    expect_input_gradient(discriminator, "x", x, weights, "the generator")

"""Part 1 on shapes and values that no public check has."""

from __future__ import annotations

import math
from functools import partial

from torch import Tensor

from grader.checks.draw import Draw
from grader.checks.mlp import Plan, expect_dependence
from grader.checks.runner import question
from grader.checks.test_1_1_mlp import decode, encode
from grader.checks.test_1_2_elbo import draw_far, draw_inputs, expect_bounds
from grader.checks.test_1_3_networks import discriminate, generate
from grader.checks.test_1_4_gan_step import (
    DISCRIMINATOR_LOSS,
    GENERATOR_LOSS,
    MOVED_DISCRIMINATOR,
    MOVED_GENERATOR,
    draw_game,
    expect_played,
    noise_named,
    play,
)
from grader.checks.test_1_5_visualize import draw_map, draw_task, expect_directions, expect_square
from grader.engine.launcher import OPTIMIZERS
from grader.engine.student import Remote, Student


def draw_sizes(draw: Draw) -> list[tuple[tuple[int, int, int], int, int]]:
    """x_shape, z_dim and hidden_dim of three networks; no two of the widths of one are the same."""
    height, width = draw.shuffled([draw.integer(3, 4), draw.integer(8, 10)])
    return [
        ((3, height, width), draw.integer(10, 13), draw.integer(28, 33)),
        ((1, draw.integer(26, 30), draw.integer(26, 30)), draw.integer(18, 22), draw.integer(60, 68)),
        ((1, 1, draw.integer(7, 12)), 3, 5),
    ]


@question("1.1")
def test_mlp_vae_of_other_sizes(student: Student, draw: Draw) -> None:
    """Images, latent spaces and hidden layers of other sizes."""
    for x_shape, z_dim, hidden_dim in draw_sizes(draw):
        vae = student.model.MLPVAE(x_shape, z_dim, hidden_dim)
        student.settle()  # so that what fails is said of making it
        plan = Plan("The encoder", x_shape, (z_dim, 2 * z_dim), hidden_dim)
        mean = partial(encoded_mean, vae, z_dim)
        expect_dependence(student, vae, plan, draw, mean, "The mean of q(z|x)")
        plan = Plan("The decoder", (z_dim,), (math.prod(x_shape),), hidden_dim)
        image = partial(decode, vae, x_shape=x_shape)
        expect_dependence(student, vae, plan, draw, image, "The decoded image")


def encoded_mean(vae: Remote, z_dim: int, x: Tensor) -> Tensor:
    """The mean of q(z|x)."""
    return encode(vae, x, z_dim)[1]


@question("1.2")
def test_elbo_of_other_sizes(student: Student, draw: Draw) -> None:
    """Images and priors of other sizes, pixels near 0 and 1, posteriors that are very narrow or far from the prior."""
    plain = [
        draw_inputs(draw, (3, 3, 9, 5), 7),
        draw_inputs(draw, (7, 1, 3, 2), 5, (7, 5)),
        draw_inputs(draw, (1, 1, 5, 8), 1),
    ]
    extreme = draw_inputs(draw, (4, 1, 6, 6), 3, (3,)) | {
        "x": draw.integers(2, 4, 1, 6, 6).float(),
        "x_reconst": draw.uniform(-6, 6, 4, 1, 6, 6).sigmoid(),
        **draw_far(draw, 4, 3),
    }
    expect_bounds(student, [*plain, extreme])


@question("1.3a")
def test_generator_of_other_sizes(student: Student, draw: Draw) -> None:
    """Images, noise and hidden layers of other sizes."""
    for x_shape, z_dim, hidden_dim in draw_sizes(draw):
        generator = student.model.Generator(z_dim, x_shape, hidden_dim)
        plan = Plan("The generator", (z_dim,), (math.prod(x_shape),), hidden_dim)
        call = partial(generate, generator, x_shape=x_shape)
        expect_dependence(student, generator, plan, draw, call, "The generated image")


@question("1.3b")
def test_discriminator_of_other_sizes(student: Student, draw: Draw) -> None:
    """Images and hidden layers of other sizes."""
    for x_shape, _, hidden_dim in draw_sizes(draw):
        discriminator = student.model.MLPDiscriminator(x_shape, hidden_dim)
        plan = Plan("The discriminator", x_shape, (1,), hidden_dim)
        expect_dependence(student, discriminator, plan, draw, partial(discriminate, discriminator), "The probability")


@question("1.4", imports=OPTIMIZERS)
def test_gan_step_of_other_rates(student: Student, draw: Draw) -> None:
    """Networks that learn at different rates, in batches of other sizes."""
    games = [draw_game(draw, 11, 0.1, 0.8), draw_game(draw, 2, 0.9, 0.05), draw_game(draw, 3, 1.5, 0.4)]
    played = play(student, games)
    moved = {name: [game.after[name] for game in played] for name in ("discriminator", "generator")}
    with noise_named(student, games[0]):
        expect_played(DISCRIMINATOR_LOSS, played, [game.losses[0] for game in played], "the discriminator's loss")
        expect_played(MOVED_DISCRIMINATOR, played, moved["discriminator"], "the discriminator after its step")
        expect_played(GENERATOR_LOSS, played, [game.losses[1] for game in played], "the generator's loss")
        expect_played(MOVED_GENERATOR, played, moved["generator"], "the generator after its step")


@question("1.5")
def test_latent_grid_of_other_sizes(student: Student, draw: Draw) -> None:
    """Pictures of other sizes, the smallest of two rows: every point of the square in its place."""
    for rows, bound, channels in [((2,), (3.0, 5.0), 3), ((6, 8), (0.2, 0.5), 1), ((18, 20, 22), (2.0, 3.5), 1)]:
        task = draw_task(draw, rows, bound, channels)
        drawn = draw_map(student, task)
        expect_directions(student, drawn, task)
        expect_square(student, drawn, task)

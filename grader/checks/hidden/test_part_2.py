"""Part 2 on shapes and values that no public check has."""

from __future__ import annotations

import torch
from torch import Tensor

from grader.checks.digits import expect_each
from grader.checks.draw import Draw
from grader.checks.expect import close, outputs, tensor, wrong
from grader.checks.runner import question
from grader.checks.test_2_1_vae import AXES, KL, Posterior, bare_vae, expect_drawn
from grader.checks.test_2_2_gan import DISCRIMINATOR_HINGE, GENERATOR_HINGE
from grader.checks.test_2_3_diffusion import expect_q_sample, run_sampler
from grader.engine.student import Student
from grader.oracle.diffusion import GaussianData, Schedule


@question("2.1a")
def test_kl_of_other_sizes(student: Student, draw: Draw) -> None:
    """Latents of other shapes, with means and variances far from the prior's."""
    shapes = [(9, 2, 1, 5), (2, 300), (1, 1), (3, 1, 2, 1, 2, 2)]
    cases = [{"mu": draw.normal(*shape, std=5), "logvar": draw.uniform(-9, 9, *shape)} for shape in shapes]
    expect_each(student.loss.KLDivergenceLoss(), KL, cases, "the loss")


@question("2.1b")
def test_latent_of_other_sizes(student: Student, draw: Draw) -> None:
    """Latents of other shapes; of a very narrow posterior z is mu.

    False-failure rate: at most 3e-10, at 65,536 numbers.
    """
    vae = bare_vae(student)
    posterior = Posterior.drawn(draw, (128, 2, 8, 32), std=3, low=-6, high=6)
    expect_drawn(posterior.sample(vae), posterior, AXES)
    mu = draw.normal(1, 7, 3, 5)
    z, *_ = outputs(vae(torch.cat([mu, torch.full_like(mu, -60.0)], dim=1)), 3, "VAE.forward")
    if not close(tensor(z, tuple(mu.shape), "z"), mu.double()):
        raise wrong("With logvar = -60 the posterior is all but a point, and z is not there.")


def draw_large_logits(draw: Draw, *shapes: tuple[int, ...]) -> list[Tensor]:
    """Logits far beyond every margin, on both sides; so large that a mean of them may cancel and still be exact."""
    return [draw.normal(*shape).sign() * draw.uniform(10, 100, *shape) for shape in shapes]


@question("2.2a")
def test_discriminator_of_large_logits(student: Student, draw: Draw) -> None:
    """Logits far beyond the margins, one an image or patches of other shapes, and some near them."""
    shapes = [(31, 1), (2, 1, 6, 1), (4, 1, 2, 7)]
    pairs = zip(draw_large_logits(draw, *shapes), draw_large_logits(draw, *shapes), strict=True)
    cases = [{"real": real, "fake": fake} for real, fake in [*pairs, (draw.normal(6, 1), draw.normal(6, 1))]]
    expect_each(student.loss.GANLossD(), DISCRIMINATOR_HINGE, cases, "the loss")


@question("2.2b")
def test_generator_of_large_logits(student: Student, draw: Draw) -> None:
    """Large logits, one an image or patches of other shapes, and some small ones."""
    large = draw_large_logits(draw, (31, 1), (2, 1, 6, 1), (4, 1, 2, 7))
    cases = [{"fake": fake} for fake in [*large, draw.normal(6, 1)]]
    expect_each(student.loss.GANLossG(), GENERATOR_HINGE, cases, "the loss")


@question("2.3a")
def test_forward_of_other_sizes(student: Student, draw: Draw) -> None:
    """Images of other shapes, with other schedules."""

    def drawn(schedule: Schedule, *shape: int) -> dict[str, Tensor]:
        steps = draw.integers(schedule.num_timesteps, shape[0])
        return {"x_start": draw.normal(*shape, std=4), "t": steps, "noise": draw.normal(*shape)}

    schedules = {Schedule(5e-4, 0.05, 333): [(5, 1, 7, 3), (2, 4, 1, 1)], Schedule(1e-5, 0.5, 10): [(6, 2, 2, 9)]}
    cases = {schedule: [drawn(schedule, *shape) for shape in shapes] for schedule, shapes in schedules.items()}
    expect_q_sample(student, cases)


@question("2.3b")
def test_sampler_of_other_sizes(student: Student, draw: Draw) -> None:
    """Images of other shapes, with other schedules: every step once, and all data at one point end there."""
    for schedule, shape in [(Schedule(1e-2, 0.6, 4), (3, 2, 5, 7)), (Schedule(1e-3, 0.3, 7), (1, 4, 2, 3))]:
        point = float(draw.uniform(-3, -2, 1))
        samples, seen = run_sampler(student, draw, GaussianData(schedule, point, 0.0), shape)
        if seen.steps != list(reversed(range(schedule.num_timesteps))):
            raise wrong(f"With T = {schedule.num_timesteps} the steps are not T - 1, ..., 0, each once.")
        if not draw.within("distance from the point", float((samples - point).abs().max()) / 1e-3):
            raise wrong("With all data at one point, a sample is somewhere else.")

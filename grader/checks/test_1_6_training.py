"""Questions 1.6a and 1.6b: the small VAE and GAN, trained for seconds on embedded digits.

Bounds are far from what right code reaches at any of many seeds: `make bench-training` measures how far.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from data.embedded import glyphs
from grader.engine.launcher import OPTIMIZERS
from grader.engine.student import Remote, Student, fetch, later
from grader.oracle.sampled import divergence_of_samples, log_likelihood

from .draw import Draw
from .expect import tensor
from .runner import question
from .states import expect_readable, expect_state
from .training import CALLS, Bound, draw_split, learn

X_SHAPE, HIDDEN_DIM = (1, 28, 28), 128
VAE_Z, VAE_STEPS, VAE_BATCH, VAE_LR = 8, 150, 100, 2e-3
GAN_Z, GAN_STEPS, GAN_BATCH, GAN_LR = 32, 200, 64, 1e-3
NATS_ABOVE_THE_MEAN_IMAGE = 15.0
DISTANCE_OF_UNTRAINED = 0.8
REAL_FROM_NOISE = 0.2
GAN_LOOK = 5  # earlier, the images are grey and the discriminator has not met its match
TINY = 1e-6
SHOWN = 10  # images in each picture of the page


@question("1.6a", imports=OPTIMIZERS)
def test_mlp_vae_learns(student: Student, draw: Draw) -> None:
    """After seconds of training on digits, the bound of new digits is above what the mean digit alone gives."""
    split = draw_split(draw, glyphs)
    training = student.recipes.MLPVAETraining(X_SHAPE, VAE_Z, HIDDEN_DIM, VAE_LR)

    def judge() -> Iterator[Bound]:
        x = split.held_out_pixels.float() / 255
        elbo, x_reconst = bound_of_new_digits(student, draw, training, x)
        draw.show("New digits", x[:SHOWN])
        draw.show("The same digits, encoded and decoded", x_reconst[:SHOWN])
        mean_image = (split.pixels.double() / 255).mean(0).clamp(0.001, 0.999)
        baseline = log_likelihood(x.double(), mean_image.expand(x.shape))
        yield Bound(
            "bound",
            NATS_ABOVE_THE_MEAN_IMAGE / max(elbo - baseline, TINY),
            f"After {VAE_STEPS} steps the bound of new digits is {elbo:.1f} nats; one picture, the mean digit, reaches "
            f"{baseline:.1f} without any latent variable.",
            "Every part passed its own checks: look at what the network does to gradients (1.1).",
        )

    learn(student, draw, training, (split.pixels, split.labels), VAE_BATCH, VAE_STEPS, judge, first_look=CALLS)


def bound_of_new_digits(student: Student, draw: Draw, training: Remote, x: Tensor) -> tuple[float, Tensor]:
    """The bound in nats of digits x (B, 1, 28, 28), and their reconstructions; ends the worker. Raises Failure."""
    posterior = later(training.vae.encode, x)
    mean, stddev = fetch(posterior.mean, posterior.stddev)
    shape = (len(x), VAE_Z)
    mean, stddev = tensor(mean, shape, "The mean of encode(x)"), tensor(stddev, shape, "The stddev of encode(x)")
    expect_readable(training.vae, "MLPVAE")
    expect_readable(training.vae, "MLPVAE")
    weights = expect_state(training.vae.state_dict(), "The state of MLPVAE")
    student.close()  # decoded in another process, which has seen z and no image
    vae = student.model.MLPVAE(X_SHAPE, VAE_Z, HIDDEN_DIM)
    vae.load_state_dict(weights)
    z = (mean + stddev * draw.normal(*shape)).float()
    x_reconst = tensor(vae.decode(z), tuple(x.shape), "decode(z)").clamp(1e-6, 1 - 1e-6)
    return log_likelihood(x.double(), x_reconst) - divergence_of_samples(z.double(), mean, stddev), x_reconst


def nearest_distances(images: Tensor, data: Tensor) -> Tensor:
    """Euclidean distance from each of images (B, ...) to the nearest of data (N, ...): (B,)."""
    return torch.cdist(images.flatten(1), data.flatten(1)).amin(1)


@question("1.6b", imports=OPTIMIZERS)
def test_mlp_gan_learns(student: Student, draw: Draw) -> None:
    """After seconds of training on digits, generated images are nearer to digits, and D tells digits from noise."""
    split = draw_split(draw, glyphs)
    data = split.pixels.double() / 255
    training = student.recipes.MLPGANTraining(X_SHAPE, GAN_Z, HIDDEN_DIM, GAN_LR)
    z = draw.normal(200, GAN_Z)
    before = tensor(training.generator(z), (200, *X_SHAPE), "The generated images")

    def judge() -> Iterator[Bound]:
        after = tensor(training.generator(z), (200, *X_SHAPE), "The generated images")
        draw.show("What the generator made of noise before training", before[:SHOWN])
        draw.show("What it made of the same noise afterwards", after[:SHOWN])
        ratio = float(nearest_distances(after, data).mean() / nearest_distances(before, data).mean())
        yield Bound(
            "distance",
            ratio / DISTANCE_OF_UNTRAINED,
            f"After {GAN_STEPS} steps generated images are {ratio:.2f} times as far from the nearest digit as before.",
            "The generator does not learn: look at its step in 1.4, and at its last layers in 1.3a.",
        )
        real = tensor(training.discriminator(split.held_out_pixels.float() / 255), (500,), "D(x)").mean()
        noise = tensor(training.discriminator(draw.uniform(0, 1, 500, *X_SHAPE)), (500,), "D(noise)").mean()
        yield Bound(
            "discriminator",
            REAL_FROM_NOISE / max(float(real - noise), TINY),
            f"After {GAN_STEPS} steps D takes new digits for real with probability {float(real):.2f} and noise with "
            f"{float(noise):.2f}.",
            "The discriminator does not learn: look at its step in 1.4, and at its last layers in 1.3b.",
        )

    learn(student, draw, training, (split.pixels, split.labels), GAN_BATCH, GAN_STEPS, judge, first_look=GAN_LOOK)

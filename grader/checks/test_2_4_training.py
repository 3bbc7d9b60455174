"""Questions 2.4a to 2.4c: the VAE, the VAE-GAN and the diffusion model, trained for seconds on embedded shapes.

The weights come back, and are judged in the given networks on this side. Bounds are far from what right code reaches
at any of many seeds: `make bench-training` measures how far.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from data.embedded import shapes
from grader.engine.launcher import OPTIMIZERS
from grader.engine.student import Remote, Student
from grader.oracle.answers import form
from grader.oracle.diffusion import Schedule
from grader.oracle.quality import RidgeClassifier
from grader.oracle.reference import given_networks, load_weights
from grader.oracle.sampled import divergence_of_samples

from .draw import Draw
from .expect import tensor, wrong
from .runner import question
from .states import expect_readable, expect_state
from .training import Bound, Split, draw_split, learn

NUM_CHANNELS, Z_CHANNELS = 16, 3
KL_WEIGHT, GAN_WEIGHT = 1e-4, 1e-2
VAE_STEPS, VAE_BATCH, VAE_LR = 60, 8, 1e-3
HELD_OUT = 128  # the networks take 3 ms an image on this side
OF_THE_MEAN_IMAGE = 0.75
MOST_NATS = 250.0
NATS_AT_FIRST = 0.6  # of them: where nothing holds the divergence down it is there in a few steps
REAL_FROM_RECONSTRUCTED = 0.5

SCHEDULE = Schedule(1e-3, 0.2, 30)
LDM_STEPS, LDM_BATCH, LDM_LR = 150, 64, 3e-3
NOISY = 200  # new images whose noise is to be predicted
SAMPLES, CLASSES = 200, 10
RECOGNISED = 0.3
NOISE_BEFORE_SAMPLES = 0.47  # of its tolerance: with more, samples are not recognised yet
SPREADS = (0.3, 1.7)

TINY = 1e-6
SHOWN = 10  # images in each picture of the page
TRAINED = "The model that was trained"
VAE_LOOK, LDM_LOOK = 2, 4  # earlier, nothing has learned enough
NOT_THE_HANDOUTS = "Its networks are not those of the handout: leave the classes of model.py as they are."


def signed(pixels: Tensor) -> Tensor:
    """Bytes as numbers in [-1, 1]."""
    return pixels.float() / 127.5 - 1


def trained(module: Remote) -> dict[str, Tensor]:
    """The weights of what was trained. Raises Failure if they are too many, or not finite."""
    expect_readable(module, TRAINED)
    return expect_state(module.state_dict(), TRAINED)


def reconstructions(weights: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What the auto-encoder among some weights makes of images x (B, 3, 32, 32), and mu and logvar. Raises Failure."""
    vae = given_networks().VAE(3, Z_CHANNELS, NUM_CHANNELS)
    if not load_weights(vae, weights, "vae."):
        raise wrong("The weights of the VAE do not fit the handout's, or are not finite.", NOT_THE_HANDOUTS)
    with torch.no_grad():
        mu, logvar = vae.encoder(x).chunk(2, dim=1)
        return vae.decode(mu), mu, logvar


def vae_bounds(weights: dict[str, Tensor], split: Split, draw: Draw) -> Iterator[Bound]:
    """What the auto-encoder among some weights must reach. Raises Failure if they are not its weights."""
    x = signed(split.held_out_pixels)
    x_recon, mu, logvar = reconstructions(weights, x)
    draw.show("New images", (x[:SHOWN] + 1) / 2)
    draw.show("The same images, encoded and decoded", (x_recon[:SHOWN] + 1) / 2)
    share = float((x_recon - x).square().mean() / (signed(split.pixels).mean(0) - x).square().mean())
    yield Bound(
        "reconstruction",
        share / OF_THE_MEAN_IMAGE,
        f"After {VAE_STEPS} steps the squared error of new images is {share:.2f} of that of the mean image.",
        "Every part passed its own checks: look at how z depends on the image (2.1b).",
    )
    stddev = logvar.double().exp().sqrt()
    nats = divergence_of_samples(mu + stddev * draw.normal(*mu.shape), mu.double(), stddev)
    yield Bound(
        "divergence",
        nats / MOST_NATS,
        f"After {VAE_STEPS} steps the KL divergence of new images is {nats:.0f} nats: nothing holds it down.",
        "Look at the gradients of the KL divergence (2.1a).",
        enough=NATS_AT_FIRST,
    )


def discriminator_bound(weights: dict[str, Tensor], split: Split) -> Bound:
    """How well the discriminator among some weights tells images from their reconstructions. Raises Failure."""
    discriminator = given_networks().Discriminator(3, NUM_CHANNELS)
    if not load_weights(discriminator, weights, "discriminator."):
        raise wrong("The weights of the discriminator do not fit the handout's, or are not finite.", NOT_THE_HANDOUTS)
    x = signed(split.held_out_pixels)
    with torch.no_grad():
        real = float(discriminator(x).mean())
        fake = float(discriminator(reconstructions(weights, x)[0]).mean())
    return Bound(
        "discriminator",
        REAL_FROM_RECONSTRUCTED / max(real - fake, TINY),
        f"After {VAE_STEPS} steps the mean logit is {real:.2f} for new images and {fake:.2f} for reconstructions.",
        "The discriminator does not learn to tell them apart: look at 2.2a.",
    )


def train_vae(student: Student, draw: Draw, gan_weight: float) -> None:
    """Train the auto-encoder, and its discriminator where there is a weight for it. Raises Failure."""
    split = draw_split(draw, shapes, held_out=HELD_OUT)
    training = student.recipes.VAETraining(KL_WEIGHT, gan_weight, 0, Z_CHANNELS, NUM_CHANNELS, VAE_LR)

    def judge() -> Iterator[Bound]:
        weights = trained(training)
        yield from vae_bounds(weights, split, draw)
        if gan_weight > 0:
            yield discriminator_bound(weights, split)

    learn(student, draw, training, (split.pixels, split.labels), VAE_BATCH, VAE_STEPS, judge, first_look=VAE_LOOK)


@question("2.4a", imports=OPTIMIZERS)
def test_vae_learns(student: Student, draw: Draw) -> None:
    """After seconds of training on shapes, new images come back better than as the mean image."""
    train_vae(student, draw, gan_weight=0.0)


@question("2.4b", imports=OPTIMIZERS)
def test_vae_gan_learns(student: Student, draw: Draw) -> None:
    """The same with an adversarial loss, and the discriminator tells new images from their reconstructions."""
    train_vae(student, draw, GAN_WEIGHT)


@question("2.4c", imports=OPTIMIZERS)
def test_diffusion_learns(student: Student, draw: Draw) -> None:
    """After seconds of training on small shapes, noise is predicted, and samples are recognised as their class."""
    split = draw_split(draw, shapes)
    small = torch.nn.functional.avg_pool2d(split.pixels.float(), 4)
    mean, std = small.mean((0, 2, 3), keepdim=True), small.std((0, 2, 3), keepdim=True)
    latents = (small - mean) / std
    held_out = (torch.nn.functional.avg_pool2d(split.held_out_pixels.float(), 4) - mean) / std

    vae = {"z_channels": Z_CHANNELS, "num_channels": 8}
    training = student.recipes.LDMTraining(vae, CLASSES, NUM_CHANNELS, SCHEDULE.num_timesteps, LDM_LR)
    diffusion = student.diffusion.GaussianDiffusion(SCHEDULE.beta_start, SCHEDULE.beta_end, SCHEDULE.num_timesteps)
    training.diffusion = diffusion

    def judge() -> Iterator[Bound]:
        yield noise_bound(trained(training.unet), held_out, split.held_out_labels, draw)
        labels = torch.arange(SAMPLES) % CLASSES
        shape = (SAMPLES, *latents.shape[1:])
        samples = tensor(diffusion.sample(training.unet, shape, labels), shape, "The samples").float()
        first = [int((split.labels == label).nonzero()[0]) for label in range(CLASSES)]
        draw.show("Data, a column for each class", small[first] / 255)
        draw.show("Samples, a column for each class", (samples[: 4 * CLASSES] * std + mean) / 255)
        yield from sample_bounds(samples, labels, RidgeClassifier(latents, split.labels, CLASSES))

    learn(student, draw, training, (latents, split.labels), LDM_BATCH, LDM_STEPS, judge, first_look=LDM_LOOK)


def sample_bounds(samples: Tensor, labels: Tensor, classifier: RidgeClassifier) -> Iterator[Bound]:
    """What samples (N, C, H, W), asked for by labels (N,), must be like."""
    spread = float(samples.std())
    yield Bound(
        "spread",
        max(SPREADS[0] / max(spread, TINY), spread / SPREADS[1]),
        f"After {LDM_STEPS} steps the samples have the standard deviation {spread:.2f}; that of the data is 1.",
        "Look at the sampler (2.3b).",
    )
    recognised = classifier.accuracy(samples, labels)
    yield Bound(
        "recognised",
        RECOGNISED / max(recognised, TINY),
        f"After {LDM_STEPS} steps {recognised:.0%} of the samples are recognised as the class they were asked for; "
        f"by chance it would be {1 / CLASSES:.0%}.",
        "Look at the labels and the last steps of the sampler (2.3b).",
    )


def noise_bound(weights: dict[str, Tensor], latents: Tensor, labels: Tensor, draw: Draw) -> Bound:
    """A UNet's squared error on some latents (N, C, H, W), which must be below what is best for normal data.

    Raises Failure if the weights are not those of a UNet.
    """
    unet = given_networks().UNet(Z_CHANNELS, Z_CHANNELS, CLASSES, NUM_CHANNELS)
    if not load_weights(unet, weights):
        raise wrong("The weights of the UNet do not fit the handout's, or are not finite.", NOT_THE_HANDOUTS)
    latents, labels = latents[:NOISY], labels[:NOISY]
    t, noise = draw.integers(SCHEDULE.num_timesteps, len(latents)), draw.normal(*latents.shape)
    noisy = form("q_sample", SCHEDULE).value(x_start=latents, t=t, noise=noise).float()
    with torch.no_grad():
        predicted = unet(noisy, labels, t)
    error = float((predicted - noise).square().mean())
    normal_error = float(SCHEDULE.alphas_cumprod.mean())
    return Bound(
        "noise",
        error / normal_error,
        f"After {LDM_STEPS} steps the squared error of the predicted noise is {error:.2f}; {normal_error:.2f} is "
        "reached by a multiple of the noisy image.",
        "Look at the forward process (2.3a).",
        enough=NOISE_BEFORE_SAMPLES,
    )

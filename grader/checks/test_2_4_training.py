"""Questions 2.4a to 2.4c: the VAE, the VAE-GAN and the diffusion model, trained for seconds on embedded shapes.

The weights come back, and are judged in the given networks on this side. Bounds are far from what right code reaches
at any of many seeds: `make bench-training` measures how far.
"""

from __future__ import annotations

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
from .training import Split, draw_split, fit

NUM_CHANNELS, Z_CHANNELS = 16, 3
KL_WEIGHT, GAN_WEIGHT = 1e-4, 1e-2
VAE_STEPS, VAE_BATCH, VAE_LR = 60, 8, 1e-3
HELD_OUT = 128  # the networks take 3 ms an image on this side
OF_THE_MEAN_IMAGE = 0.75
MOST_NATS = 250.0
REAL_FROM_RECONSTRUCTED = 0.5

SCHEDULE = Schedule(1e-3, 0.2, 30)
LDM_STEPS, LDM_BATCH, LDM_LR = 150, 64, 3e-3
NOISY = 200  # new images whose noise is to be predicted
SAMPLES, CLASSES = 200, 10
RECOGNISED = 0.3
SPREADS = (0.3, 1.7)

TINY = 1e-6
SHOWN = 10  # images in each picture of the page
TRAINED = "The model that was trained"
NOT_THE_HANDOUTS = "Its networks are not those of the handout: leave the classes of model.py as they are."


def trained(module: Remote) -> dict[str, Tensor]:
    """The weights of what was trained. Raises Failure if they are too many, or not finite."""
    expect_readable(module, TRAINED)
    return expect_state(module.state_dict(), TRAINED)


def expect_vae(weights: dict[str, Tensor], split: Split, draw: Draw) -> Tensor:
    """Judge the auto-encoder among some weights. Returns reconstructions (B, 3, 32, 32); raises Failure."""
    vae = given_networks().VAE(3, Z_CHANNELS, NUM_CHANNELS)
    if not load_weights(vae, weights, "vae."):
        raise wrong("The weights of the VAE do not fit the handout's, or are not finite.", NOT_THE_HANDOUTS)
    x = split.held_out_pixels.float() / 127.5 - 1
    mean_image = (split.pixels.float() / 127.5 - 1).mean(0)
    with torch.no_grad():
        mu, logvar = vae.encoder(x).chunk(2, dim=1)
        x_recon = vae.decode(mu)
    draw.show("New images", (x[:SHOWN] + 1) / 2)
    draw.show("The same images, encoded and decoded", (x_recon[:SHOWN] + 1) / 2)
    share = float((x_recon - x).square().mean() / (mean_image - x).square().mean())
    stddev = logvar.double().exp().sqrt()
    nats = divergence_of_samples(mu + stddev * draw.normal(*mu.shape), mu.double(), stddev)
    if not draw.within("reconstruction", share / OF_THE_MEAN_IMAGE):
        raise wrong(
            f"After {VAE_STEPS} steps the squared error of new images is {share:.2f} of that of the mean image.",
            "Every part passed its own checks: look at how z depends on the image (2.1b).",
        )
    if not draw.within("divergence", nats / MOST_NATS):
        raise wrong(
            f"After {VAE_STEPS} steps the KL divergence of new images is {nats:.0f} nats: nothing holds it down.",
            "Look at the gradients of the KL divergence (2.1a).",
        )
    return x_recon


@question("2.4a", imports=OPTIMIZERS)
def test_vae_learns(student: Student, draw: Draw) -> None:
    """After seconds of training on shapes, new images come back better than as the mean image."""
    split = draw_split(draw, shapes, held_out=HELD_OUT)
    training = student.recipes.VAETraining(KL_WEIGHT, 0.0, 0, Z_CHANNELS, NUM_CHANNELS, VAE_LR)
    fit(student, draw, training, split.pixels, split.labels, VAE_BATCH, VAE_STEPS)
    expect_vae(trained(training), split, draw)


@question("2.4b", imports=OPTIMIZERS)
def test_vae_gan_learns(student: Student, draw: Draw) -> None:
    """The same with an adversarial loss, and the discriminator tells new images from their reconstructions."""
    split = draw_split(draw, shapes, held_out=HELD_OUT)
    training = student.recipes.VAETraining(KL_WEIGHT, GAN_WEIGHT, 0, Z_CHANNELS, NUM_CHANNELS, VAE_LR)
    fit(student, draw, training, split.pixels, split.labels, VAE_BATCH, VAE_STEPS)
    weights = trained(training)
    x_recon = expect_vae(weights, split, draw)
    discriminator = given_networks().Discriminator(3, NUM_CHANNELS)
    if not load_weights(discriminator, weights, "discriminator."):
        raise wrong("The weights of the discriminator do not fit the handout's, or are not finite.", NOT_THE_HANDOUTS)
    with torch.no_grad():
        real = float(discriminator(split.held_out_pixels.float() / 127.5 - 1).mean())
        fake = float(discriminator(x_recon).mean())
    if not draw.within("discriminator", REAL_FROM_RECONSTRUCTED / max(real - fake, TINY)):
        raise wrong(
            f"After {VAE_STEPS} steps the mean logit is {real:.2f} for new images and {fake:.2f} for reconstructions.",
            "The discriminator does not learn to tell them apart: look at 2.2a.",
        )


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
    fit(student, draw, training, latents, split.labels, LDM_BATCH, LDM_STEPS)
    expect_noise_is_predicted(trained(training.unet), held_out[:NOISY], split.held_out_labels[:NOISY], draw)

    labels = torch.arange(SAMPLES) % CLASSES
    shape = (SAMPLES, *latents.shape[1:])
    samples = tensor(diffusion.sample(training.unet, shape, labels), shape, "The samples").float()
    first = [int((split.labels == label).nonzero()[0]) for label in range(CLASSES)]
    draw.show("Data, a column for each class", small[first] / 255)
    draw.show("Samples, a column for each class", (samples[: 4 * CLASSES] * std + mean) / 255)
    spread = float(samples.std())
    if not draw.within("spread", max(SPREADS[0] / max(spread, TINY), spread / SPREADS[1])):
        raise wrong(
            f"After {LDM_STEPS} steps the samples have the standard deviation {spread:.2f}; that of the data is 1.",
            "Look at the sampler (2.3b).",
        )
    recognised = RidgeClassifier(latents, split.labels, CLASSES).accuracy(samples, labels)
    if not draw.within("recognised", RECOGNISED / max(recognised, TINY)):
        raise wrong(
            f"After {LDM_STEPS} steps {recognised:.0%} of the samples are recognised as the class they were asked for; "
            f"by chance it would be {1 / CLASSES:.0%}.",
            "Look at the labels and the last steps of the sampler (2.3b).",
        )


def expect_noise_is_predicted(weights: dict[str, Tensor], latents: Tensor, labels: Tensor, draw: Draw) -> None:
    """Judge a UNet's squared error on latents (N, C, H, W): below what is best for normal data. Raises Failure."""
    unet = given_networks().UNet(Z_CHANNELS, Z_CHANNELS, CLASSES, NUM_CHANNELS)
    if not load_weights(unet, weights):
        raise wrong("The weights of the UNet do not fit the handout's, or are not finite.", NOT_THE_HANDOUTS)
    t, noise = draw.integers(SCHEDULE.num_timesteps, len(latents)), draw.normal(*latents.shape)
    noisy = form("q_sample", SCHEDULE).value(x_start=latents, t=t, noise=noise).float()
    with torch.no_grad():
        predicted = unet(noisy, labels, t)
    error = float((predicted - noise).square().mean())
    normal_error = float(SCHEDULE.alphas_cumprod.mean())
    if not draw.within("noise", error / normal_error):
        raise wrong(
            f"After {LDM_STEPS} steps the squared error of the predicted noise is {error:.2f}; {normal_error:.2f} is "
            "reached by a multiple of the noisy image.",
            "Look at the forward process (2.3a).",
        )

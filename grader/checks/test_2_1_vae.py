"""Questions 2.1a, the KL divergence, and 2.1b, the reparameterisation trick."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from grader.engine.student import Remote, Student, observe
from grader.oracle.kl import KL

from .draw import Draw
from .expect import close, expect, expect_each, expect_gradients, expect_unchanged, outputs, tensor, wrong
from .noise import expect_scale, expect_standard_normal
from .runner import question

# ---------------------------------------------------------------- 2.1a


@question("2.1a")
def test_kl_one_variable(student: Student, draw: Draw) -> None:
    """A single latent variable, at values that can be checked by hand."""
    values = [(0.0, 1.0), (0.0, math.log(4)), (1.0, 0.5), (-0.5, -1.5), (2.0, -0.25)]
    shape = (1, 1, 1, 1)
    cases = [{"mu": torch.full(shape, mu), "logvar": torch.full(shape, logvar)} for mu, logvar in values]
    expect_each(student.loss.KLDivergenceLoss(), KL, cases, "the loss")


@question("2.1a")
def test_kl_batches_of_latents(student: Student, draw: Draw) -> None:
    """The sum over the latents of an image and the mean over the batch, for latents of any shape."""
    shapes = [(1, 5), (6, 1), (7, 3), (5, 2, 3), (8, 4, 7, 7), (1, 3, 8, 8), (2, 2, 3, 2, 2)]
    cases = [{"mu": draw.normal(*shape), "logvar": draw.normal(*shape)} for shape in shapes]
    expect_each(student.loss.KLDivergenceLoss(), KL, cases, "the loss")


@question("2.1a")
def test_kl_extreme_values(student: Student, draw: Draw) -> None:
    """Posteriors that are very narrow, very wide and far from the prior."""
    values = [(0.0, -45.0), (0.0, -12.0), (0.0, 12.0), (0.0, 25.0), (30.0, 0.0), (-300.0, -2.0)]
    shape = (3, 1, 2, 2)
    cases = [
        {"mu": draw.normal(*shape) + mean, "logvar": draw.uniform(-0.5, 0.5, *shape) + logvar}
        for mean, logvar in values
    ]
    expect_each(student.loss.KLDivergenceLoss(), KL, cases, "the loss")


@question("2.1a")
def test_kl_gradient(student: Student, draw: Draw) -> None:
    """The gradients by mu and logvar."""
    for shape in [(4, 3, 1, 1), (3, 2, 4, 4)]:
        inputs = {"mu": draw.normal(*shape, std=2), "logvar": draw.normal(*shape, std=2)}
        expect_gradients(observe(student.loss.KLDivergenceLoss(), inputs), KL.at(**inputs))


@question("2.1a")
def test_kl_leaves_inputs_alone(student: Student, draw: Draw) -> None:
    """A second call gives the same value, and neither changes mu or logvar."""
    loss = student.loss.KLDivergenceLoss()
    inputs = {"mu": draw.normal(4, 2, 3, 3), "logvar": draw.normal(4, 2, 3, 3)}
    for _ in range(2):
        observed = observe(loss, inputs, differentiate=False)
        expect(observed.value, KL.at(**inputs), "the loss")
        expect_unchanged(observed, inputs)


# ---------------------------------------------------------------- 2.1b

LATENTS = (64, 4, 16, 16)  # 65,536 numbers: |mean| is held below 0.026, the standard deviation to 2 %
AXES = {"image": (0,), "channel": (1,), "pixel": (2, 3)}


def bare_vae(student: Student) -> Remote:
    """A VAE whose encoder and decoder hand on what they get, so that forward(cat[mu, logvar]) shows z."""
    vae = student.model.VAE(num_channels=8)
    vae.encoder = student.torch.nn.Identity()
    vae.decoder = student.torch.nn.Identity()
    return vae


def draw_posterior(draw: Draw, shape: tuple[int, ...] = LATENTS) -> tuple[Tensor, Tensor]:
    """mu and logvar that differ in every element."""
    return draw.normal(*shape), draw.uniform(-2.0, 1.0, *shape)


def sample_noise(vae: Remote, mu: Tensor, logvar: Tensor) -> Tensor:
    """(z - mu) / exp(logvar / 2) of one call, in float64."""
    z, *_ = outputs(vae(torch.cat([mu, logvar], dim=1)), 3, "VAE.forward")
    return (tensor(z, tuple(mu.shape), "z") - mu.double()) / (logvar.double() / 2).exp()


@question("2.1b")
def test_noise_is_standard_normal(student: Student, draw: Draw) -> None:
    """(z - mu) / std is standard normal, and independent from image to image, channel to channel, pixel to pixel."""
    mu, logvar = draw_posterior(draw)
    noise = sample_noise(bare_vae(student), mu, logvar)
    std = (logvar.double() / 2).exp()
    mistaken = {
        "The standard deviation is exp(logvar); it is exp(logvar / 2), as logvar belongs to the variance.": std**2,
        "The standard deviation is logvar; it is exp(logvar / 2).": logvar.double().abs(),
        "The standard deviation is sqrt(|logvar|); it is exp(logvar / 2).": logvar.double().abs().sqrt(),
        "The standard deviation is 1; it is exp(logvar / 2).": torch.ones_like(std),
        "The standard deviation is exp(-logvar / 2); it is exp(logvar / 2).": 1 / std,
        "The standard deviation is exp(2 logvar); it is exp(logvar / 2).": std**4,
    }
    expect_scale(noise * std, std, mistaken, "What is added to mu")
    expect_standard_normal(noise, AXES, "The noise (z - mu) / std")


@question("2.1b")
def test_noise_is_fresh(student: Student, draw: Draw) -> None:
    """Every call draws new noise, whatever the seed."""
    mu, logvar = draw_posterior(draw, (16, 4, 8, 8))
    noises = []
    for seed in draw.integers(2**31, 2).tolist():
        student.begin(seed)
        vae = bare_vae(student)
        noises += [sample_noise(vae, mu, logvar), sample_noise(vae, mu, logvar)]
    expect_standard_normal(torch.stack(noises), {"call": (0,)}, "The noise (z - mu) / std of several calls")


@question("2.1b")
def test_latent_gradient(student: Student, draw: Draw) -> None:
    """dz/dmu = 1 and dz/dlogvar = (z - mu) / 2, exactly, whatever noise was drawn."""
    mu, logvar = draw_posterior(draw, (8, 4, 4, 4))
    weights = draw.uniform(0.5, 1.5, *mu.shape)
    observed = observe(bare_vae(student), {"x": torch.cat([mu, logvar], dim=1)}, weights)
    z, *_ = outputs(observed.value, 3, "VAE.forward")
    noise_part = tensor(z, tuple(mu.shape), "z") - mu.double()
    gradient = observed.gradients["x"]
    if gradient is None:
        raise wrong(
            "No gradient reaches mu and logvar.",
            "z must be a function of mu and logvar: Normal.rsample, not sample.",
        )
    by_mu, by_logvar = tensor(gradient, (8, 8, 4, 4), "The gradient").chunk(2, dim=1)
    if not bool(noise_part.any()):
        raise wrong("z equals mu: nothing random was added.")
    if not bool(by_logvar.any()):
        raise wrong("No gradient reaches logvar.", "The standard deviation must not be detached.")
    if not close(by_mu, weights.double()):
        raise wrong("The gradient of z by mu is not 1.", "mu enters z as it is, and the noise must not depend on it.")
    if not close(by_logvar, weights.double() * noise_part / 2, rtol=1e-3, atol=1e-5):
        raise wrong(
            "The gradient of z by logvar is not (z - mu) / 2, which it is for the right standard deviation.",
            "Look at how the standard deviation follows from logvar; the noise must not depend on logvar.",
        )


@question("2.1b")
def test_latent_returns_reconstruction_and_posterior(student: Student, draw: Draw) -> None:
    """forward returns the decoded latent, mu and logvar, with the networks of the handout."""
    mu, logvar = draw_posterior(draw, (2, 4, 4, 4))
    returned = outputs(bare_vae(student)(torch.cat([mu, logvar], dim=1)), 3, "VAE.forward")
    for name, right, got in [("mu", mu, returned[1]), ("logvar", logvar, returned[2])]:
        if not close(tensor(got, tuple(mu.shape), name), right.double()):
            raise wrong(f"VAE.forward does not return the encoder's {name}.")
    z = tensor(returned[0], tuple(mu.shape), "z")
    if close(z, mu.double()):
        raise wrong("z equals mu: nothing random was added.")
    images = draw.uniform(-1, 1, 2, 3, 32, 32)
    x_recon, *_ = outputs(student.model.VAE(num_channels=8)(images), 3, "VAE.forward")
    if float(tensor(x_recon, (2, 3, 32, 32), "x_recon").abs().max()) > 1:
        raise wrong("x_recon leaves [-1, 1].", "x_recon is what self.decoder makes of z.")

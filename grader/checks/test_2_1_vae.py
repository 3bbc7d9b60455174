"""Questions 2.1a, the KL divergence, and 2.1b, the reparameterisation trick."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from grader.engine.student import Failure, Remote, Student, call_each, later, observe, observe_each
from grader.oracle.answers import form
from grader.oracle.closed_form import Expected
from grader.oracle.statistics import variance_bounds

from .device import expect_on_device_of
from .digits import expect_each, expect_full_precision, expect_with_digits
from .draw import Draw
from .expect import close, expect, expect_gradients, expect_unchanged, outputs, tensor, wrong
from .noise import RATE, Moments, expect_moments, expect_standard_normal, explain_clamp
from .runner import question

KL, STANDARD_DEVIATION = form("KL"), form("STANDARD_DEVIATION")

# ---------------------------------------------------------------- 2.1a


@question("2.1a")
def test_kl_one_variable(student: Student, draw: Draw) -> None:
    """A single latent variable, at values that can be checked by hand."""
    near, wide, narrow = (1, 0.2, 0.05, 0.2), (4, 2.5, 0.2, 1.5), (3, 2.5, -1.5, -0.2)
    for some in ((near, wide), (narrow,)):  # apart: a logarithm of a negative logvar hides what else is wrong
        mu = torch.cat([draw.multiples(0.05, -far, far, count, 1, 1, 1, 1) for count, far, _, _ in some])
        logvar = torch.cat([draw.multiples(0.05, low, high, count, 1, 1, 1, 1) for count, _, low, high in some])
        cases = [{"mu": one, "logvar": other} for one, other in zip(mu, logvar, strict=True)]
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
    values = [(0.0, 0.0), (0.0, -45.0), (0.0, -12.0), (0.0, 12.0), (0.0, 25.0), (30.0, 0.0), (-300.0, -2.0)]
    shape = (5, 3, 7, 4)
    cases = [
        {"mu": draw.uniform(-1, 1, *shape) + mean, "logvar": draw.uniform(-0.5, 0.5, *shape) + logvar}
        for mean, logvar in values
    ]
    results = call_each(student.loss.KLDivergenceLoss(), cases)
    pairs = [(value, KL.at(**inputs)) for value, inputs in zip(results, cases, strict=True)]
    try:
        expect_with_digits(pairs, "the loss")
    except Failure as failure:
        raise wrong(failure.message, failure.hint or explain_extremes(pairs, values)) from None


def explain_extremes(pairs: list[tuple[object, Expected]], values: list[tuple[float, float]]) -> str:
    """Which posteriors come out wrong, as a sentence, if the first, a moderate one, and some others are right."""
    fits = [close(tensor(value, (), "The loss"), expected.values()[0]) for value, expected in pairs]
    if not fits[0]:
        return ""
    where = [f"(mu {mean:g}, logvar {logvar:g})" for (mean, logvar), fit in zip(values, fits, strict=True) if not fit]
    return (
        f"Moderate posteriors come out right, but not those near {', '.join(where)}: mu and logvar may be any numbers, "
        "so clamp neither, and add nothing small inside a logarithm."
    )


@question("2.1a")
def test_kl_gradient(student: Student, draw: Draw) -> None:
    """The gradients by mu and logvar."""
    shapes = [(5, 3, 7, 4), (3, 4, 1, 1)]
    cases = [{"mu": draw.normal(*shape, std=2), "logvar": draw.normal(*shape, std=2)} for shape in shapes]
    seen = [(o, KL.at(**x)) for o, x in zip(observe_each(student.loss.KLDivergenceLoss(), cases), cases, strict=True)]
    expect_with_digits([(observed.value, right) for observed, right in seen], "the loss")
    for observed, right in seen:
        expect_gradients(observed, right)


@question("2.1a")
def test_kl_leaves_inputs_alone(student: Student, draw: Draw) -> None:
    """A second call gives the same value, and neither changes mu or logvar."""
    loss = student.loss.KLDivergenceLoss()
    inputs = {"mu": draw.normal(5, 3, 7, 4), "logvar": draw.normal(5, 3, 7, 4)}
    calls = [observe(loss, inputs, differentiate=False) for _ in range(2)]
    first, second = (tensor(observed.value, (), "The loss") for observed in calls)
    if not close(first, second):
        raise wrong(
            "Two calls with the same mu and logvar give different losses.",
            "Something random, or kept from the last call, enters: this divergence has a closed form, which needs no "
            "sample of z.",
        )
    for observed in calls:
        expect_unchanged(observed, inputs)
        expect(observed.value, KL.at(**inputs), "the loss")


@question("2.1a")
def test_kl_stays_on_its_device(student: Student, draw: Draw) -> None:
    """Tensors are made where mu and logvar are: a model on a GPU trains there."""
    inputs = {"mu": draw.normal(4, 3, 4, 4), "logvar": draw.normal(4, 3, 4, 4)}
    right = partial(expect, expected=KL.at(**inputs), what="the loss")
    expect_on_device_of(student, student.loss.KLDivergenceLoss(), inputs, right, like="mu")


# ---------------------------------------------------------------- 2.1b

LATENTS = (64, 4, 16, 16)  # 65,536 numbers: |mean| is held below 0.026, the standard deviation to 2 %
AXES = {"pixel": (-2, -1), "channel": (-3,), "image": (-4,)}
LEVELS = 512
SPREAD = 10.0  # of mu, where noise is to be small beside it
FOLLOWS = 0.5  # correlation of z with such a mu: that of right code is above 0.95, that of noise below but at 1e-8


def bare_vae(student: Student, training: bool = True) -> Remote:
    """A VAE whose encoder and decoder hand on what they get, so that forward(cat[mu, logvar]) shows z."""
    vae = student.model.VAE(num_channels=8)
    vae.encoder = student.torch.nn.Identity()
    vae.decoder = student.torch.nn.Identity()
    later(vae.train, training)
    return vae


@dataclass(frozen=True, eq=False)
class Posterior:
    """A posterior of some shape, whose log-variance is one of a few levels in every element.

    Attributes:
        mu: the means.
        levels: (LEVELS,) log-variances.
        level: int64, shaped like `mu`, the level of every element.
    """

    mu: Tensor
    levels: Tensor
    level: Tensor

    @classmethod
    def drawn(
        cls, draw: Draw, shape: tuple[int, ...] = LATENTS, std: float = 1.0, low: float = -2.0, high: float = 1.0
    ) -> Posterior:
        """mu of a standard deviation and logvar in [low, high), which differ from element to element."""
        return cls(draw.normal(*shape, std=std), draw.uniform(low, high, LEVELS), draw.integers(LEVELS, *shape))

    @property
    def logvar(self) -> Tensor:
        """Log-variances, shaped like `mu`."""
        return self.levels[self.level]

    @property
    def moments(self) -> Moments:
        """Mean and standard deviation, in float64."""
        return Moments(self.mu.double(), STANDARD_DEVIATION.at(logvar=self.levels).values()[0][self.level])

    def mistaken(self) -> dict[str, Moments]:
        """Moments of known mistakes, by the sentence that says what was done."""
        expected, (mu, std) = STANDARD_DEVIATION.at(logvar=self.levels), (self.moments.mean, self.moments.std)
        scales = {text: Moments(mu, expected.misconceived(text)[self.level]) for text in expected.sentences}
        return scales | {
            "z is drawn from the prior: it depends on neither mu nor logvar.": Moments(0 * mu, torch.ones_like(std)),
            "mu is missing: z is drawn around it.": Moments(0 * mu, std),
            "mu is multiplied by the standard deviation; only the noise is.": Moments(mu * std, std),
            "mu is subtracted; it must be added.": Moments(-mu, std),
            "mu and the standard deviation are swapped: the noise is multiplied by mu.": Moments(std, mu.abs()),
        }

    def sample(self, vae: Remote) -> Tensor:
        """z of one call of a bare VAE, in float64."""
        z, *_ = outputs(vae(torch.cat([self.mu, self.logvar], dim=1)), 3, "VAE.forward")
        if isinstance(z, Tensor) and z.shape == self.mu.shape and torch.equal(z.isnan(), self.logvar < 0):
            raise wrong(
                "z is nan wherever logvar is negative.", "Take no square root and no logarithm of logvar itself."
            )
        precise = tensor(z, tuple(self.mu.shape), "z")
        expect_full_precision(precise, "z")
        return precise

    def expect_noise(self, z: Tensor, where: str) -> None:
        """Expect a z that is not mu, and say where it is; the check proper comes after."""
        if close(z, self.mu.double()):
            raise wrong(f"z equals mu {where}: nothing random was added.", "Draw noise in every mode, for every batch.")


def expect_drawn(z: Tensor, posterior: Posterior, axes: dict[str, tuple[int, ...]], of: str = "") -> None:
    """Expect draws z (..., B, C, H, W) from a posterior, independent along `axes`. Raises Failure."""
    right = posterior.moments
    expect_moments(z, right, posterior.mistaken, "z")
    noise, what = (z - right.mean) / right.std, f"The noise (z - mu) / std{of}"
    try:
        expect_standard_normal(noise, axes, what)
    except Failure as failure:
        hint = failure.hint or explain_clamp(z, "z") or explain_scale(noise, posterior.logvar)
        raise wrong(failure.message, hint) from None


def explain_scale(noise: Tensor, logvar: Tensor) -> str:
    """Where the noise (z - mu) / std has variance 1, by logvar, as a sentence; "" where that tells nothing."""
    bins = noise.flatten()[logvar.expand_as(noise).flatten().argsort()].chunk(8)
    variances = [float(x.var()) for x in bins]
    low, high = variance_bounds(bins[-1].numel(), RATE)
    right = [low < variance < high for variance in variances]
    if not any(right) and max(variances) * low < min(variances) * high:
        return f"The standard deviation is {float(noise.std()):.2f} times the right one, whatever logvar is."
    first, last = (right.index(True), 8 - right[::-1].index(True)) if any(right) else (0, 0)
    if all(right) or not all(right[first:last]) or first == last:
        return ""
    off = " and ".join(["small"] * (first > 0) + ["large"] * (last < 8))
    return (
        f"The standard deviation is not right where logvar is {off}, though it is elsewhere: is logvar clamped, or "
        "something added to the standard deviation?"
    )


@question("2.1b")
def test_noise_is_standard_normal(student: Student, draw: Draw) -> None:
    """(z - mu) / std is standard normal, and independent from image to image, channel to channel, pixel to pixel.

    Once near the prior, and once far from it.

    False-failure rate: at most 6e-10, at 65,536 numbers.
    """
    vae, posterior = bare_vae(student), Posterior.drawn(draw)
    expect_drawn(posterior.sample(vae), posterior, AXES)
    far = Posterior.drawn(draw, (64, 4, 8, 8), std=5, low=-14, high=14)
    expect_drawn(far.sample(vae), far, AXES, " of mu and logvar far from 0")


@question("2.1b")
def test_noise_is_fresh(student: Student, draw: Draw) -> None:
    """Every call draws new noise, at every seed, in training and in evaluation, for many images and for one.

    False-failure rate: at most 6e-10, at 16,384 numbers.
    """
    many, one = Posterior.drawn(draw, (16, 4, 8, 8)), Posterior.drawn(draw, (1, 4, 16, 16))
    drawn: dict[Posterior, list[Tensor]] = {many: [], one: []}
    modes = {"in training mode": True, "in evaluation mode": False}
    for seed, (mode, training) in zip(draw.integers(2**31, 2).tolist(), modes.items(), strict=True):
        student.begin(seed)
        vae = bare_vae(student, training)
        for posterior, batch in [(many, ""), (many, ""), (one, ", for a batch of one image")]:
            z = posterior.sample(vae)
            posterior.expect_noise(z, mode + batch)
            drawn[posterior].append(z)
    expect_drawn(torch.stack(drawn[many]), many, AXES | {"call": (0,)}, " of several calls")
    expect_drawn(torch.stack(drawn[one]), one, {"channel": (2,), "call": (0,)}, " of single images")


@question("2.1b")
def test_latent_gradient(student: Student, draw: Draw) -> None:
    """dz/dmu = 1 and dz/dlogvar = (z - mu) / 2, exactly, whatever noise was drawn."""
    posterior = Posterior.drawn(draw, (8, 4, 4, 4))
    mu, logvar = posterior.mu, posterior.logvar
    weights = draw.uniform(0.5, 1.5, *mu.shape)
    observed = observe(bare_vae(student), {"x": torch.cat([mu, logvar], dim=1)}, weights)
    z, *_ = outputs(observed.value, 3, "VAE.forward")
    precise = tensor(z, tuple(mu.shape), "z")
    expect_full_precision(precise, "z")
    noise_part = precise - mu.double()
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
        raise wrong(
            "No gradient reaches logvar.", "The standard deviation must follow from logvar, and not be detached."
        )
    if not bool(by_mu.any()):
        raise wrong("No gradient reaches mu.", "mu enters z as it is, and is not detached.")
    if not close(by_mu, weights.double()):
        raise wrong("The gradient of z by mu is not 1.", "mu enters z as it is, and the noise must not depend on it.")
    if not close(by_logvar, weights.double() * noise_part / 2, rtol=1e-3, atol=1e-5):
        raise wrong(
            "The gradient of z by logvar is not (z - mu) / 2, which it is for the right standard deviation.",
            "Look at how the standard deviation follows from logvar; the noise must not depend on logvar.",
        )


def expect_latent(returned: Any, mu: Tensor, logvar: Tensor) -> None:
    """Expect that a `bare_vae` returned a latent around mu, then mu and logvar (B, C, H, W). Raises Failure."""
    returned = outputs(returned, 3, "VAE.forward")
    for name, right, got in [("mu", mu, returned[1]), ("logvar", logvar, returned[2])]:
        if not close(tensor(got, tuple(mu.shape), name), right.double()):
            raise wrong(f"VAE.forward does not return the encoder's {name}.")
    z = tensor(returned[0], tuple(mu.shape), "z")
    if close(z, mu.double()):
        raise wrong("z equals mu: nothing random was added.")
    correlation = float(torch.corrcoef(torch.stack([z.flatten(), mu.double().flatten()]))[0, 1])
    if not correlation > FOLLOWS:
        raise wrong("z does not follow mu, which is much larger here than the standard deviation.")


@question("2.1b")
def test_latent_returns_reconstruction_and_posterior(student: Student, draw: Draw) -> None:
    """forward returns the decoded latent, mu and logvar, with the networks of the handout."""
    posterior = Posterior.drawn(draw, (2, 4, 4, 4), std=SPREAD)
    expect_latent(bare_vae(student)(torch.cat([posterior.mu, posterior.logvar], dim=1)), posterior.mu, posterior.logvar)
    images = draw.uniform(-1, 1, 2, 3, 16, 16)
    x_recon, *_ = outputs(student.model.VAE(num_channels=8)(images), 3, "VAE.forward")
    if float(tensor(x_recon, (2, 3, 16, 16), "x_recon").abs().max()) > 1:
        raise wrong("x_recon leaves [-1, 1].", "x_recon is what self.decoder makes of z.")


@question("2.1b")
def test_latent_stays_on_its_device(student: Student, draw: Draw) -> None:
    """Noise is drawn where mu and logvar are: a model on a GPU trains there."""
    mu, logvar = draw.normal(2, 4, 4, 4, std=SPREAD), draw.uniform(-2, 1, 2, 4, 4, 4)
    right = partial(expect_latent, mu=mu, logvar=logvar)
    expect_on_device_of(student, bare_vae(student), {"x": torch.cat([mu, logvar], dim=1)}, right, like="mu")

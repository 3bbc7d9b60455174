"""Hinge losses of a GAN (Lim and Ye, 2017), on logits of one number an image or of patches."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .closed_form import ClosedForm, Formula


def discriminator_hinge(real: Tensor, fake: Tensor) -> Tensor:
    """(E[max(0, 1 - real)] + E[max(0, 1 + fake)]) / 2 over every logit: a scalar."""
    return (F.relu(1 - real).mean() + F.relu(1 + fake).mean()) / 2


def per_image(logits: Tensor) -> Tensor:
    """One logit an image, the mean of its patches: (B,)."""
    return logits.reshape(len(logits), -1).mean(1)


def discriminator_hinge_per_image(real: Tensor, fake: Tensor) -> Tensor:
    """The same after each image's patches are averaged: also in the literature, and accepted."""
    return discriminator_hinge(per_image(real), per_image(fake))


def generator_hinge(fake: Tensor) -> Tensor:
    """-E[fake]: a scalar."""
    return -fake.mean()


def shared_hinge(real: Tensor, fake: Tensor) -> Tensor:
    """One hinge for each pair of logits; nan where they are not paired."""
    return F.relu(2 - real + fake).mean() / 2 if real.shape == fake.shape else real.new_tensor(torch.nan)


def leaky_hinge(slope: float) -> Formula:
    """The discriminator's hinge of leaky ReLUs."""
    return lambda real, fake: (F.leaky_relu(1 - real, slope).mean() + F.leaky_relu(1 + fake, slope).mean()) / 2


DISCRIMINATOR_HINGE = ClosedForm(
    accepted=(discriminator_hinge, discriminator_hinge_per_image),
    misconceptions={
        "The factor 1/2 of the discriminator's loss is missing.": (
            lambda real, fake: 2 * discriminator_hinge(real, fake)
        ),
        "real and fake are swapped, or the signs in both hinges: real logits are to rise above 1, fake ones to fall "
        "below -1.": (lambda real, fake: discriminator_hinge(fake, real)),
        "There is no hinge: a logit beyond its margin must cost nothing, max(0, ...).": (
            lambda real, fake: ((1 - real).mean() + (1 + fake).mean()) / 2
        ),
        "The term of the fake logits has no hinge: a logit beyond its margin must cost nothing, max(0, ...).": (
            lambda real, fake: (F.relu(1 - real).mean() + (1 + fake).mean()) / 2
        ),
        "The term of the real logits has no hinge: a logit beyond its margin must cost nothing, max(0, ...).": (
            lambda real, fake: ((1 - real).mean() + F.relu(1 + fake).mean()) / 2
        ),
        "The factor 1/2 reaches the term of the real logits only; it belongs to both.": (
            lambda real, fake: F.relu(1 - real).mean() / 2 + F.relu(1 + fake).mean()
        ),
        "The factor 1/2 reaches the term of the fake logits only; it belongs to both.": (
            lambda real, fake: F.relu(1 - real).mean() + F.relu(1 + fake).mean() / 2
        ),
        "min(0, ...) stands where max(0, ...) belongs.": (
            lambda real, fake: ((1 - real).clamp(max=0).mean() + (1 + fake).clamp(max=0).mean()) / 2
        ),
        "min(0, ...) stands where max(0, ...) belongs, and the factor 1/2 is missing.": (
            lambda real, fake: (1 - real).clamp(max=0).mean() + (1 + fake).clamp(max=0).mean()
        ),
        "The term of the fake logits is subtracted; it must be added.": (
            lambda real, fake: (F.relu(1 - real).mean() - F.relu(1 + fake).mean()) / 2
        ),
        "The term of the real logits is subtracted; it must be added.": (
            lambda real, fake: (F.relu(1 + fake).mean() - F.relu(1 - real).mean()) / 2
        ),
        "The hinges keep what is to cost nothing: the signs of logit and margin are both flipped.": (
            lambda real, fake: (F.relu(real - 1).mean() + F.relu(-1 - fake).mean()) / 2
        ),
        "max(0, ...) is taken of the logits; it is to be taken of their distance to the margin.": (
            lambda real, fake: ((1 - F.relu(real)).mean() + (1 + F.relu(fake)).mean()) / 2
        ),
        "The hinge leaks, by 0.01 of what is to cost nothing: it is max(0, ...), not a leaky ReLU.": leaky_hinge(0.01),
        "The hinge leaks, by 0.2 of what is to cost nothing: it is max(0, ...), not a leaky ReLU.": leaky_hinge(0.2),
        "The hinge is smoothed by a softplus; it is max(0, ...).": (
            lambda real, fake: (F.softplus(1 - real).mean() + F.softplus(1 + fake).mean()) / 2
        ),
        "The hinge is squared; it is linear beside its margin.": (
            lambda real, fake: (F.relu(1 - real).square().mean() + F.relu(1 + fake).square().mean()) / 2
        ),
        "Only the largest loss of the batch counts; the loss is the mean over all.": (
            lambda real, fake: (F.relu(1 - real).max() + F.relu(1 + fake).max()) / 2
        ),
        "The margin is 0; it is 1.": lambda real, fake: (F.relu(-real).mean() + F.relu(fake).mean()) / 2,
        "The mean over the batch is taken before the hinge; the hinge comes first.": (
            lambda real, fake: (F.relu(1 - real.mean()) + F.relu(1 + fake.mean())) / 2
        ),
        "The sum over the logits is taken; the loss is their mean.": (
            lambda real, fake: (F.relu(1 - real).sum() + F.relu(1 + fake).sum()) / 2
        ),
        "The sum over the patches is taken; the loss is the mean over every logit.": (
            lambda real, fake: discriminator_hinge(real, fake) * real[0].numel()
        ),
        "The sum over the batch is taken; the loss is the mean over every logit.": (
            lambda real, fake: discriminator_hinge(real, fake) * len(real)
        ),
        "The margin is 2; it is 1.": lambda real, fake: (F.relu(2 - real).mean() + F.relu(2 + fake).mean()) / 2,
        "Both terms share one hinge; each has its own.": shared_hinge,
        "The logits go through a sigmoid before the hinge; they enter as they are.": (
            lambda real, fake: discriminator_hinge(real.sigmoid(), fake.sigmoid())
        ),
        "This is the binary cross-entropy; the loss is the hinge.": (
            lambda real, fake: F.softplus(-real).mean() + F.softplus(fake).mean()
        ),
        "This is half of the binary cross-entropy; the loss is the hinge.": (
            lambda real, fake: (F.softplus(-real).mean() + F.softplus(fake).mean()) / 2
        ),
        "This is the binary cross-entropy with its targets swapped; the loss is the hinge.": (
            lambda real, fake: F.softplus(real).mean() + F.softplus(-fake).mean()
        ),
        "This is the least-squares loss; the loss is the hinge.": (
            lambda real, fake: ((real - 1).square().mean() + fake.square().mean()) / 2
        ),
        "The least-squares loss with targets 1 and -1 stands here; the loss is the hinge.": (
            lambda real, fake: ((real - 1).square().mean() + (fake + 1).square().mean()) / 2
        ),
        "The term of the fake logits is missing.": lambda real, fake: F.relu(1 - real).mean() / 2,
        "The term of the real logits is missing.": lambda real, fake: F.relu(1 + fake).mean() / 2,
        "The fake logits have the sign of the real ones: their hinge is max(0, 1 + fake).": (
            lambda real, fake: (F.relu(1 - real).mean() + F.relu(1 - fake).mean()) / 2
        ),
        "The real logits have the sign of the fake ones: their hinge is max(0, 1 - real).": (
            lambda real, fake: (F.relu(1 + real).mean() + F.relu(1 + fake).mean()) / 2
        ),
        "The sign of the loss is flipped.": lambda real, fake: -discriminator_hinge(real, fake),
        "This is the Wasserstein loss; the loss is the hinge.": lambda real, fake: fake.mean() - real.mean(),
        "This is half of the Wasserstein loss; the loss is the hinge.": (
            lambda real, fake: (fake.mean() - real.mean()) / 2
        ),
        "The hinge of the real logits has the wrong margin, -1: it is max(0, 1 - real).": (
            lambda real, fake: (F.relu(-1 - real).mean() + F.relu(1 + fake).mean()) / 2
        ),
        "The hinge of the fake logits has the wrong margin, 1: it is max(0, 1 + fake).": (
            lambda real, fake: (F.relu(1 - real).mean() + F.relu(fake - 1).mean()) / 2
        ),
        "The hinge of the real logits keeps what must cost nothing: it is max(0, 1 - real).": (
            lambda real, fake: (F.relu(real - 1).mean() + F.relu(1 + fake).mean()) / 2
        ),
        "The hinge of the fake logits keeps what must cost nothing: it is max(0, 1 + fake).": (
            lambda real, fake: (F.relu(1 - real).mean() + F.relu(-1 - fake).mean()) / 2
        ),
        "The loss is zero.": lambda real, fake: torch.zeros((), dtype=real.dtype),
    },
)

GENERATOR_HINGE = ClosedForm(
    accepted=(generator_hinge,),
    misconceptions={
        "The sign is flipped: the generator wants the logits of its images to be high.": lambda fake: fake.mean(),
        "This is the non-saturating cross-entropy, softplus(-fake); the hinge loss of the generator is linear.": (
            lambda fake: F.softplus(-fake).mean()
        ),
        "This is the saturating cross-entropy; the hinge loss of the generator is linear.": (
            lambda fake: -F.softplus(fake).mean()
        ),
        "The loss is halved; only the discriminator's loss has a factor 1/2.": lambda fake: -fake.mean() / 2,
        "This is a hinge with a margin; the generator's loss has no hinge, it is -E[fake].": lambda fake: F.relu(
            1 - fake
        ).mean(),
        "This is a hinge; the generator's loss has none, it is -E[fake].": lambda fake: F.relu(-fake).mean(),
        "The sum over the logits is taken; the loss is their mean.": lambda fake: -fake.sum(),
        "The sum over the patches is taken; the loss is the mean over every logit.": (
            lambda fake: -fake.mean() * fake[0].numel()
        ),
        "The sum over the batch is taken; the loss is the mean over every logit.": (
            lambda fake: -fake.mean() * len(fake)
        ),
        "The logits are squared; the loss is linear.": lambda fake: -fake.square().mean(),
        "The hinge of the discriminator stands here; the generator's loss is -E[fake].": (
            lambda fake: F.relu(1 + fake).mean()
        ),
        "The logits go through a sigmoid; they enter as they are.": lambda fake: -fake.sigmoid().mean(),
        "The logits go through a tanh; they enter as they are.": lambda fake: -fake.tanh().mean(),
        "Only the highest logit counts; the loss is the mean over all.": lambda fake: -fake.max(),
        "Only the lowest logit counts; the loss is the mean over all.": lambda fake: -fake.min(),
        "The median is taken; the loss is the mean.": lambda fake: -fake.median(),
        "The logits are clamped to [-1, 1]; they enter as they are.": lambda fake: -fake.clamp(-1, 1).mean(),
        "The loss is zero.": lambda fake: torch.zeros((), dtype=fake.dtype),
        "A constant 1 is added; the loss is linear without one.": lambda fake: 1 - fake.mean(),
        "This is the least-squares loss; the loss is -E[fake].": lambda fake: (fake - 1).square().mean(),
        "This is half the least-squares loss; the loss is -E[fake].": lambda fake: (fake - 1).square().mean() / 2,
        "The absolute value is taken; the loss is linear.": lambda fake: -fake.abs().mean(),
    },
)

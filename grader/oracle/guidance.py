"""Classifier-free guidance: Ho and Salimans, "Classifier-Free Diffusion Guidance" (2022).

Their w is `guidance_weight` - 1 here: their equation (6) is the prediction without labels at `guidance_weight` 0, and
the one with labels at 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .closed_form import ClosedForm, Formula
from .diffusion import Schedule, column


def _guided(with_labels: Tensor, without: Tensor, guidance_weight: Tensor) -> Tensor:
    """Equation (6): predictions (B, C, H, W) with labels and without, and a scalar weight."""
    return guidance_weight * with_labels + (1 - guidance_weight) * without


def _rescaled(with_labels: Tensor, without: Tensor, guidance_weight: Tensor) -> Tensor:
    """The guided prediction with the standard deviation of each image that the one with labels has."""
    guided = _guided(with_labels, without, guidance_weight)
    axes = tuple(range(1, guided.ndim))
    return guided * with_labels.std(axes, keepdim=True) / guided.std(axes, keepdim=True)


def _misaligned(with_labels: Tensor, without: Tensor, guidance_weight: Tensor) -> Tensor:
    """The guided prediction of a batch that was put together in halves, and is taken apart in turns."""
    both = torch.cat([with_labels, without])
    return _guided(both[::2], both[1::2], guidance_weight)


def _clamped(bound: int) -> dict[str, Formula]:
    """What is cut off at a bound, by sentence."""

    def result(with_labels: Tensor, without: Tensor, guidance_weight: Tensor) -> Tensor:
        return _guided(with_labels, without, guidance_weight).clamp(-bound, bound)

    def predictions(with_labels: Tensor, without: Tensor, guidance_weight: Tensor) -> Tensor:
        return _guided(with_labels.clamp(-bound, bound), without.clamp(-bound, bound), guidance_weight)

    def weight(with_labels: Tensor, without: Tensor, guidance_weight: Tensor) -> Tensor:
        return _guided(with_labels, without, guidance_weight.clamp(-bound, bound))

    return {
        f"The result is clamped to [-{bound}, {bound}]; noise is not bounded.": result,
        f"The predictions are clamped to [-{bound}, {bound}]; noise is not bounded.": predictions,
        f"guidance_weight is clamped to [-{bound}, {bound}]; it is taken as it is.": weight,
    }


GUIDED_NOISE = ClosedForm(
    accepted=(_guided,),
    misconceptions={
        "guidance_weight is taken for the w of the paper, which is guidance_weight - 1 here: what the labels add is "
        "counted once too often.": lambda with_labels, without, guidance_weight: (
            with_labels + guidance_weight * (with_labels - without)
        ),
        "The predictions with and without labels are swapped.": lambda with_labels, without, guidance_weight: _guided(
            without, with_labels, guidance_weight
        ),
        "Only the difference of the two predictions comes back; it is to be added to the one without labels.": (
            lambda with_labels, without, guidance_weight: guidance_weight * (with_labels - without)
        ),
        "The difference of the two predictions has the wrong sign.": lambda with_labels, without, guidance_weight: (
            without - guidance_weight * (with_labels - without)
        ),
        "The prediction with labels, times guidance_weight, is all there is; the one without labels counts too.": (
            lambda with_labels, without, guidance_weight: guidance_weight * with_labels
        ),
        "The whole prediction with labels is added to the one without; add only what it has more.": (
            lambda with_labels, without, guidance_weight: without + guidance_weight * with_labels
        ),
        "The mean of the two predictions comes back, whatever guidance_weight is.": (
            lambda with_labels, without, guidance_weight: (with_labels + without) / 2
        ),
        "The two predictions are added and divided by 1 + guidance_weight, which makes a mean of them.": (
            lambda with_labels, without, guidance_weight: (
                (without + guidance_weight * with_labels) / (1 + guidance_weight)
            )
        ),
        "The prediction with labels comes back as it is, whatever guidance_weight is.": (
            lambda with_labels, without, guidance_weight: with_labels
        ),
        "The prediction without labels comes back as it is, whatever guidance_weight is.": (
            lambda with_labels, without, guidance_weight: without
        ),
        "A guidance_weight of 0 is taken for no guidance at all; it means that the labels do not count.": (
            lambda with_labels, without, guidance_weight: (
                _guided(with_labels, without, guidance_weight) if guidance_weight else with_labels
            )
        ),
        "A guidance_weight below 1 is taken for 1; it makes the labels count less.": (
            lambda with_labels, without, guidance_weight: _guided(with_labels, without, guidance_weight.clamp(min=1))
        ),
        "A negative guidance_weight is taken for 0; it leads away from the labels.": (
            lambda with_labels, without, guidance_weight: _guided(with_labels, without, guidance_weight.clamp(min=0))
        ),
        "A guidance_weight above 1 is taken for 1; it makes the labels count more.": (
            lambda with_labels, without, guidance_weight: _guided(with_labels, without, guidance_weight.clamp(max=1))
        ),
        "guidance_weight is clamped to [0, 1]; it may be larger, and negative.": (
            lambda with_labels, without, guidance_weight: _guided(with_labels, without, guidance_weight.clamp(0, 1))
        ),
        "The sign of guidance_weight is lost: its absolute value is taken.": (
            lambda with_labels, without, guidance_weight: _guided(with_labels, without, guidance_weight.abs())
        ),
        "guidance_weight is squared.": lambda with_labels, without, guidance_weight: _guided(
            with_labels, without, guidance_weight.square()
        ),
        **_clamped(1),
        **_clamped(3),
        **_clamped(5),
        **_clamped(10),
        "The result is rescaled to the standard deviation of the prediction with labels; leave it as it is.": _rescaled,
        "The predictions of a doubled batch are taken apart in another order than they were put together: the images "
        "are mixed up.": _misaligned,
    },
)


@dataclass(frozen=True)
class GuidedGaussians:
    """Data N(mean, std^2) of each class, and N(mean_without, std^2) without labels, independent in every element.

    The noise predicted with labels is that of the one, without labels that of the other. Both are affine in x with the
    same slope, so that the guided prediction is exact for N(guided mean, std^2).

    Attributes:
        means: (B,), of the class of every image.
        mean_without: of the data without labels.
    """

    schedule: Schedule
    means: Tensor
    mean_without: float
    std: float

    def denoise(self, x: Tensor, t: Tensor, mean: Tensor) -> Tensor:
        """E[noise | x_t] of data N(mean, std^2) at x (B, C, H, W), t (B,) and mean (B,), in float64."""
        abar = column(self.schedule.alphas_cumprod, t)
        variance = abar * self.std**2 + 1 - abar
        return (1 - abar).sqrt() * (x.double() - abar.sqrt() * mean.double().reshape(-1, 1, 1, 1)) / variance

    def sampled(self, x: Tensor, guidance_weight: float) -> Tensor:
        """What deterministic sampling (DDIM, eta = 0, every step) makes of noise x (B, C, H, W), in float64.

        A step from t to t - 1 multiplies the distance of x_t from sqrt(abar_t) times the guided mean by
        (sqrt(abar_{t-1} abar_t) std^2 + sqrt((1 - abar_{t-1}) (1 - abar_t))) / (abar_t std^2 + 1 - abar_t).
        """
        guided = self.mean_without + guidance_weight * (self.means.double() - self.mean_without)
        guided = guided.reshape(-1, 1, 1, 1)
        abar, previous = self.schedule.alphas_cumprod, self.schedule.alphas_cumprod_prev
        along = (previous * abar).sqrt() * self.std**2 + ((1 - previous) * (1 - abar)).sqrt()
        gain = (along / (abar * self.std**2 + 1 - abar)).prod()
        return guided + gain * (x.double() - abar[-1].sqrt() * guided)

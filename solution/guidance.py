"""Part 3: guidance without a classifier, Ho and Salimans, "Classifier-Free Diffusion Guidance" (2022)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion import DenoiseFn, extract


def drop_labels(y: Tensor, null_label: int, probability: float) -> Tensor:
    """Labels to train with for guidance: Ho and Salimans, "Classifier-Free Diffusion Guidance" (2022), algorithm 1.

    Args:
        y: (B,) labels, which stay as they are.
        null_label: the label that stands for none.
        probability: that a label is dropped, in [0, 1]; labels are dropped independently.

    Returns:
        (B,) labels, int64, some of which are `null_label`, on the device of y.
    """
    ############################ Your code here ############################
    # TODO(3.3a): return new labels: those of `y`, each replaced by `null_label` with `probability`.
    ########################################################################
    dropped = torch.rand(y.shape, device=y.device) < probability
    return torch.where(dropped, null_label, y)
    ########################################################################


def guided_noise(
    denoise_fn: DenoiseFn, x: Tensor, y: Tensor, t: Tensor, null_label: int, guidance_weight: float
) -> Tensor:
    """The noise in x as it is predicted when sampling is guided towards the labels.

    Ho and Salimans (2022), equation (6), whose w is `guidance_weight` - 1.

    Args:
        denoise_fn: predicts noise, for the labels it is trained with and for `null_label`.
        x: (B, C, H, W) at steps t.
        y: (B,) labels.
        t: (B,) steps.
        null_label: the label that stands for none.
        guidance_weight: with 0 the labels do not count, with 1 the prediction for the labels is returned. Any
            number is allowed, above 1 and below 0 too.

    Returns:
        (B, C, H, W).
    """
    ############################ Your code here ############################
    # TODO(3.3b): return the prediction without labels, plus `guidance_weight` times what the labels add to it.
    # Without labels, every image of the batch has `null_label`.
    ########################################################################
    with_labels = denoise_fn(x, y, t)
    without = denoise_fn(x, torch.full_like(y, null_label), t)
    return without + guidance_weight * (with_labels - without)
    ########################################################################

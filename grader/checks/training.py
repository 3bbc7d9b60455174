"""Short training in the worker, for the questions that train a model; what comes back is judged elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from grader.engine.student import Remote, Student

from .draw import Draw

LONGER = {"cpu": 1, "cuda": 4}
CALLS = 10  # a call may take ten seconds: training is cut into as many calls, for slow machines
TERMS = {  # of the losses in recipes.py, as the page calls them
    "elbo": "Evidence lower bound, nats",
    "mse": "Squared error of reconstructions",
    "kl": "KL divergence, nats",
    "discriminator": "Loss of the discriminator",
    "generator": "Loss of the generator",
    "noise_mse": "Squared error of the noise",
}


@dataclass(frozen=True)
class Split:
    """Labelled images (N, C, H, W) in bytes, and others of the same kind that training does not see."""

    pixels: Tensor
    labels: Tensor
    held_out_pixels: Tensor
    held_out_labels: Tensor


def draw_split(draw: Draw, make: Callable, count: int = 2000, held_out: int = 500) -> Split:
    """Images of an embedded data set, new for every seed. `make(count, seed)` draws them as arrays."""
    first, second = draw.integers(2**31, 2).tolist()
    arrays = [*make(count, first), *make(held_out, second)]
    return Split(*(torch.from_numpy(array) for array in arrays))


def fit(
    student: Student, draw: Draw, training: Remote, inputs: Tensor, labels: Tensor, batch_size: int, steps: int
) -> None:
    """Train for some steps, on a GPU for more, with the loop of the handout, and show the losses.

    Raises Failure if student code does.
    """
    steps *= LONGER[student.device]
    images = student.dataset.Images(inputs, labels, [])
    means = []
    for call in range(CALLS):
        first, last = call * steps // CALLS, (call + 1) * steps // CALLS
        means.append(student.loop.fit(training, images, batch_size, 0, first, last))
    for term, title in TERMS.items():
        if term in as_numbers(means[0]):
            draw.curve(title, [as_numbers(each).get(term, math.nan) for each in means])


def as_numbers(means: Any) -> dict[str, float]:
    """What the worker says the terms of a loss were: the numbers in it by name, whatever it is."""
    return {k: v for k, v in means.items() if type(v) is float} if type(means) is dict else {}

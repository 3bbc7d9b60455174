"""Short training in the worker, for the questions that train a model; what comes back is judged elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from grader.engine.student import Remote, Student

from .draw import Draw

LONGER = {"cpu": 1, "cuda": 4}
CALLS = 10  # a call may take ten seconds: training is cut into as many calls, for slow machines


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


def fit(student: Student, training: Remote, inputs: Tensor, labels: Tensor, batch_size: int, steps: int) -> None:
    """Train for some steps, on a GPU for more, with the loop of the handout. Raises Failure if student code does."""
    steps *= LONGER[student.device]
    images = student.dataset.Images(inputs, labels, [])
    for call in range(CALLS):
        student.loop.fit(training, images, batch_size, 0, call * steps // CALLS, (call + 1) * steps // CALLS)

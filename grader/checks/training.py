"""Short training in the worker, for the questions that train a model; what comes back is judged elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from grader.engine.student import Remote, Student

from .draw import Draw
from .expect import wrong

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


@dataclass(frozen=True)
class Bound:
    """What training must reach.

    Attributes:
        name: of the tolerance.
        used: the share of it that is used; below 1 is right.
        message, hint: of the Failure where it is not.
        enough: the share below which more training shows nothing new.
    """

    name: str
    used: float
    message: str
    hint: str
    enough: float = 0.85


def learn(
    student: Student,
    draw: Draw,
    training: Remote,
    images: tuple[Tensor, Tensor],
    batch_size: int,
    steps: int,
    judge: Callable[[], Iterable[Bound]],
    first_look: int = 1,
) -> None:
    """Train with the loop of the handout until every bound is reached with a margin, and show the losses.

    Training ends at the latest after `steps`, on a GPU after more, and is judged by what it has reached then.

    Args:
        student: the submission.
        draw: keeps what is shown, and what the bounds use.
        training: what is trained.
        images: pixels or latents (N, C, H, W), and labels (N,).
        batch_size, steps: of the training.
        judge: gives the bounds, those that take least time first; the rest is not asked for after one that is missed.
        first_look: the call, counted from 1, after which the judge is asked for the first time.

    Raises Failure if student code does, or if the longest training misses a bound.
    """
    steps *= LONGER[student.device]
    data = student.dataset.Images(*images, [])
    means, bounds = [], list[Bound]()
    for call in range(1, CALLS + 1):
        first, last = (call - 1) * steps // CALLS, call * steps // CALLS
        means.append(student.loop.fit(training, data, batch_size, 0, first, last))
        if call >= first_look:
            bounds, reached = look(judge(), final=call == CALLS)
            if reached:
                break
    for term, title in TERMS.items():
        if term in as_numbers(means[0]):
            draw.curve(title, [as_numbers(each).get(term, math.nan) for each in means])
    for bound in bounds:
        if not draw.within(bound.name, bound.used):
            raise wrong(bound.message, bound.hint)


def look(bounds: Iterable[Bound], final: bool) -> tuple[list[Bound], bool]:
    """The bounds up to the first that is missed, with a margin unless this is the final look; and whether none is."""
    seen = []
    for bound in bounds:
        seen.append(bound)
        if not bound.used < (1 if final else bound.enough):
            return seen, False
    return seen, True


def as_numbers(means: Any) -> dict[str, float]:
    """What the worker says the terms of a loss were: the numbers in it by name, whatever it is."""
    return {k: v for k, v in means.items() if type(v) is float} if type(means) is dict else {}

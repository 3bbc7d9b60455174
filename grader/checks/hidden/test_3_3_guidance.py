"""Questions 3.3a and 3.3b on sizes and values that no public check has, and guidance within a sampler."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from grader.checks.draw import Draw
from grader.checks.expect import close, tensor, wrong
from grader.checks.noise import RATE
from grader.checks.runner import question
from grader.checks.test_3_3_guidance import (
    Batch,
    draw_labels,
    expect_dropped,
    expect_guided,
    is_binomial,
)
from grader.engine.student import Student, call_each
from grader.oracle.diffusion import Schedule, column
from grader.oracle.guidance import GuidedGaussians


@question("3.3a")
def test_drop_labels_of_other_sizes(student: Student, draw: Draw) -> None:
    """One label a call, many of a thousand classes, and another null_label.

    False-failure rate: at most 3e-10, at 6,000 numbers.
    """
    many = draw.integers(1000, 12_000)
    cases: list[dict[str, Any]]
    cases = [{"y": draw_labels(draw, 0, 1), "null_label": 0, "probability": 0.35} for _ in range(400)]
    cases += [{"y": many[n : n + 6000], "null_label": 1000, "probability": p} for n, p in ((0, 0.03), (6000, 0.95))]
    cases += [{"y": many[:8], "null_label": 5000, "probability": p} for p in (0.0, 1.0)]
    results = call_each(student.guidance.drop_labels, cases)
    dropped = [expect_dropped(got, case["y"], case["null_label"]) for got, case in zip(results, cases, strict=True)]
    for gone, probability in [(torch.cat(dropped[:400]), 0.35), (dropped[400], 0.03), (dropped[401], 0.95)]:
        hits, trials = int(gone.sum()), gone.numel()
        if not is_binomial(draw, "dropped labels", hits, trials, probability, RATE):
            raise wrong(f"With probability {probability:g}, {hits:,} of {trials:,} labels are dropped.")
    if bool(dropped[402].any()) or not bool(dropped[403].all()):
        raise wrong("With probability 0 or 1 some of the labels are dropped and others are kept.")


@question("3.3b")
def test_guidance_of_gaussians(student: Student, draw: Draw) -> None:
    """A sampler guided on Gaussian data, whose result is known for every noise; and images of other shapes."""
    expect_sampled(student, draw, Schedule(1e-2, 0.5, 8), (5, 2, 1, 3), 2.5)
    expect_sampled(student, draw, Schedule(1e-2, 0.6, 5), (1, 4, 3, 2), -0.5)
    shape = (6, 1, 5, 2)
    x, with_labels, without = (draw.normal(*shape) for _ in range(3))
    y, t = draw_labels(draw, 0, 6), draw.integers(4000, 6)
    expect_guided(student, [(Batch(x, y, t, 0, with_labels, without), weight) for weight in (25.0, -6.0)])


def expect_sampled(
    student: Student, draw: Draw, schedule: Schedule, shape: tuple[int, ...], guidance_weight: float
) -> None:
    """Expect that deterministic sampling along the guided noise ends where it must."""
    null_label, y = 31, draw.integers(31, shape[0])
    data = GuidedGaussians(schedule, draw.uniform(-2, 2, shape[0]), float(draw.uniform(-0.5, 0.5, 1)), 0.4)
    start = draw.normal(*shape)
    x = start.double()
    for step in reversed(range(schedule.num_timesteps)):
        t = torch.full((shape[0],), step)
        seen, means = x.float(), torch.full_like(data.means, data.mean_without)
        with_labels, without = (data.denoise(seen, t, mean).float() for mean in (data.means, means))
        batch = Batch(seen, y, t, null_label, with_labels, without)
        noise = student.guidance.guided_noise(*batch.arguments(guidance_weight).values())
        x = ddim_step(schedule, x, t, tensor(noise, shape, "The result"))
    if not close(x, data.sampled(start, guidance_weight)):
        raise wrong(f"With guidance_weight = {guidance_weight:g}, a sampler does not end where it is guided to.")


def ddim_step(schedule: Schedule, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """x_{t-1} from x_t (B, C, H, W) and its noise, without noise of its own."""
    previous = column(schedule.alphas_cumprod_prev, t)
    return previous.sqrt() * schedule.predict_start(x, t, noise) + (1 - previous).sqrt() * noise

"""What samplers cost beyond the network: ours, a bare loop of forward passes, and a well-known library's, in one run.

The library is diffusers, which nothing else needs: install it into the environment first.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from grader.figures.measure import solution

BATCH, STEPS, NUM_TIMESTEPS = 64, 50, 1000
SHAPE = (BATCH, 3, 8, 8)
Sampler = Callable[[], Tensor]


def make_samplers(device: torch.device) -> dict[str, Sampler]:
    """Samplers of 64 latents in STEPS steps, by name: the default UNet, with the schedules of the assignment."""
    torch.manual_seed(0)
    unet = solution("model").UNet().to(device).eval()
    y, x = torch.arange(BATCH, device=device) % 10, torch.randn(SHAPE, device=device)
    module = solution("diffusion")
    short = module.GaussianDiffusion(betas=module.linear_betas(STEPS)).to(device)
    whole = module.GaussianDiffusion().to(device)
    steps = solution("ldm").spaced_steps(NUM_TIMESTEPS, STEPS).to(device)
    flow = module.RectifiedFlow()
    t = torch.full((BATCH,), STEPS, device=device)

    def bare() -> Tensor:
        for _ in range(STEPS):
            predicted = unet(x, y, t)
        return predicted

    samplers = {
        "bare loop of forward passes": bare,
        "DDPM": lambda: short.sample(unet, SHAPE, y),
        "DDIM": lambda: whole.ddim_sample(unet, x, y, steps),
        "flow, Euler": lambda: flow.sample(unet, x, y, STEPS),
    }
    return samplers | librarys_samplers(unet, x, y)


def librarys_samplers(unet: Any, x: Tensor, y: Tensor) -> dict[str, Sampler]:
    """The same network driven by diffusers' schedulers; nothing where it is not installed, which is said."""
    try:
        from diffusers import DDIMScheduler, DDPMScheduler
    except ImportError:
        print("diffusers is not installed: pip install diffusers, to compare with its schedulers.")
        return {}
    ends = {"beta_start": 1e-4, "beta_end": 2e-2, "clip_sample": False}
    scale = NUM_TIMESTEPS / STEPS
    short = {"beta_start": 1e-4 * scale, "beta_end": 2e-2 * scale, "clip_sample": False}

    def loop(scheduler: Any) -> Sampler:
        scheduler.set_timesteps(STEPS, device=x.device)

        def sample() -> Tensor:
            img = x
            for step in scheduler.timesteps:
                img = scheduler.step(unet(img, y, step.repeat(BATCH)), step, img).prev_sample
            return img

        return sample

    return {
        "DDPM, diffusers": loop(DDPMScheduler(STEPS, **short)),
        "DDIM, diffusers": loop(DDIMScheduler(NUM_TIMESTEPS, **ends)),
    }


def seconds_of(sampler: Sampler, device: torch.device) -> float:
    """How long a sampler takes."""
    started = time.perf_counter()
    sampler()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


@torch.no_grad()
def main(
    rounds: Annotated[int, typer.Option(help="How often each sampler is timed, in turns.")] = 15,
    device: Annotated[str, typer.Option(help="Where to sample.")] = "auto",
) -> None:
    """Print the median time of each sampler, and the median of its ratio to the bare loop in the same round."""
    where = solution("devices").choose_device(device)
    samplers = make_samplers(where)
    for sampler in samplers.values():
        sampler()
    times = [{name: seconds_of(sampler, where) for name, sampler in samplers.items()} for _ in range(rounds)]
    bare = next(iter(samplers))
    print(f"{BATCH} latents in {STEPS} steps on {where}:")
    for name in samplers:
        median = statistics.median(one[name] for one in times)
        over = statistics.median(one[name] / one[bare] - 1 for one in times)
        print(f"  {name:28} {1000 * median:8.1f} ms{'' if name == bare else f'  {over:+.1%} of the bare loop'}")


if __name__ == "__main__":
    typer.run(main)

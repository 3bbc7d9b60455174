"""What samplers cost beyond the network: ours, and a well-known library's with the same network, in one run.

Everything but the forward passes is timed with a network that costs nothing, and set against a bare loop of as many
forward passes of the UNet: the difference of two long times would drown in their noise. Whole samplers are timed too.

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
Network = Callable[[Tensor, Tensor, Tensor], Tensor]
Sampler = Callable[[], Tensor]


def make_samplers(network: Network, x: Tensor, y: Tensor) -> dict[str, Sampler]:
    """Samplers of latents from x (BATCH, 3, 8, 8) and labels y (BATCH,) in STEPS steps, by name."""
    module, device = solution("enhanced"), x.device
    short = module.EnhancedDiffusion(betas=module.linear_betas(STEPS)).to(device)
    whole = module.EnhancedDiffusion().to(device)
    steps = solution("enhanced_ldm").spaced_steps(NUM_TIMESTEPS, STEPS).to(device)
    flow = solution("flow").RectifiedFlow()
    samplers = {
        "DDPM": lambda: short.sample(network, SHAPE, y),
        "DDIM": lambda: whole.ddim_sample(network, x, y, steps),
        "flow, Euler": lambda: flow.sample(network, x, y, STEPS),
    }
    return samplers | librarys_samplers(network, x, y)


def librarys_samplers(network: Network, x: Tensor, y: Tensor) -> dict[str, Sampler]:
    """The same network driven by diffusers' schedulers; nothing where it is not installed."""
    try:
        from diffusers import DDIMScheduler, DDPMScheduler
    except ImportError:
        return {}
    scale = NUM_TIMESTEPS / STEPS
    short = DDPMScheduler(STEPS, beta_start=1e-4 * scale, beta_end=2e-2 * scale, clip_sample=False)
    whole = DDIMScheduler(NUM_TIMESTEPS, beta_start=1e-4, beta_end=2e-2, clip_sample=False)

    def loop(scheduler: Any) -> Sampler:
        scheduler.set_timesteps(STEPS, device=x.device)

        def sample() -> Tensor:
            img = x
            for step in scheduler.timesteps:
                img = scheduler.step(network(img, y, step.repeat(BATCH)), step, img).prev_sample
            return img

        return sample

    return {"DDPM, diffusers": loop(short), "DDIM, diffusers": loop(whole)}


def bare_loop(network: Network, x: Tensor, y: Tensor) -> Sampler:
    """As many forward passes as a sampler makes, and nothing else."""
    t = torch.full((BATCH,), STEPS, device=x.device)

    def passes() -> Tensor:
        for _ in range(STEPS):
            predicted = network(x, y, t)
        return predicted

    return passes


def seconds_of(samplers: dict[str, Sampler], device: torch.device, rounds: int) -> dict[str, list[float]]:
    """How long each takes, in turns, after a first time that does not count."""
    times: dict[str, list[float]] = {name: [] for name in samplers}
    for _ in range(rounds + 1):
        for name, sampler in samplers.items():
            started = time.perf_counter()
            sampler()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times[name].append(time.perf_counter() - started)
    return {name: found[1:] for name, found in times.items()}


@torch.no_grad()
def main(
    rounds: Annotated[int, typer.Option(help="How often each sampler is timed, in turns.")] = 15,
    device: Annotated[str, typer.Option(help="Where to sample.")] = "auto",
) -> None:
    """Print for each sampler what it costs beyond the network, and what it takes with the network."""
    where = solution("devices").choose_device(device)
    torch.manual_seed(0)
    unet = solution("model").UNet().to(where).eval()
    y, x = torch.arange(BATCH, device=where) % 10, torch.randn(SHAPE, device=where)
    free = seconds_of(make_samplers(lambda x, y, t: x, x, y), where, rounds)
    whole = seconds_of({"bare": bare_loop(unet, x, y)} | make_samplers(unet, x, y), where, rounds)
    bare = statistics.median(whole.pop("bare"))
    print(f"{BATCH} latents in {STEPS} steps on {where}: {1000 * bare:.0f} ms of forward passes. Beyond them:")
    for name, seconds in free.items():
        alone, together = statistics.median(seconds), statistics.median(whole[name])
        print(f"  {name:16} {1000 * alone:6.1f} ms, {alone / bare:.1%}; with the network {1000 * together:.0f} ms")
    if "DDPM, diffusers" not in free:
        print("diffusers is not installed: pip install diffusers, to compare with its schedulers.")


if __name__ == "__main__":
    typer.run(main)

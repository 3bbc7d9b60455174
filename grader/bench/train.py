"""Images per second of the training loop against the plain one, with the same network and batch, in one run.

The plain loop is the one students know: a torchvision data set with transforms behind a DataLoader, float32, Adam as
it comes, and an .item() in every step. It gets as many loader processes as make it fastest. MNIST is read from
DATA_DIR.
"""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from grader.figures.measure import solution

ROUNDS = 5
MEBIBYTE = 1 << 20


def plain_batches(model: str, batch_size: int, loaders: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of MNIST, as transforms make them image by image, without end."""
    from torchvision import datasets, transforms

    steps = [transforms.ToTensor()]
    if model in ("vae", "vae-gan"):
        steps = [transforms.Pad(2), transforms.Grayscale(3), transforms.ToTensor(), transforms.Normalize(0.5, 0.5)]
    data = datasets.MNIST(os.environ.get("DATA_DIR", "data"), transform=transforms.Compose(steps))
    loader = torch.utils.data.DataLoader(data, batch_size, shuffle=True, drop_last=True, num_workers=loaders)
    while True:
        yield from loader


def make(model: str, device: torch.device) -> Any:
    """The training of a model, on its device."""
    recipes = solution("recipes")
    makers = {
        "mlp-vae": lambda: recipes.MLPVAETraining((1, 28, 28)),
        "mlp-gan": lambda: recipes.MLPGANTraining((1, 28, 28)),
        "vae": lambda: recipes.VAETraining(),
        "vae-gan": lambda: recipes.VAETraining(gan_weight=1e-2),
    }
    return makers[model]().to(device)


def plain_steps(model: str, batch_size: int, loaders: int, device: torch.device) -> Iterator[None]:
    """The plain loop, step by step."""
    training = make(model, device)
    for name in training.optimizers:
        training.optimizers[name] = torch.optim.Adam(getattr(training, name).parameters(), lr=3e-4)
    for step, (x, y) in enumerate(plain_batches(model, batch_size, loaders)):
        terms = training.step(x.to(device), y.to(device), step)
        for term in terms.values():
            term.item()
        yield


def our_steps(model: str, batch_size: int, device: torch.device) -> Iterator[None]:
    """The loop of the assignment, step by step, as train.py runs it."""
    training = make(model, device)
    options = argparse.Namespace(precision="auto", compile=False, grad_clip=None)
    solution("loop").prepare_networks(training, options, device, world=1)
    images = solution("dataset").load("mnist").to(device)
    for _ in solution("loop").train_steps(training, images, batch_size, 0, 0, 1 << 40):
        yield


def images_per_second(steps: Iterator[None], batch_size: int, seconds: float, device: torch.device) -> float:
    """The speed of some steps that take about as many seconds."""
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        next(steps)
        count += 1
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return count * batch_size / (time.perf_counter() - started)


def compare(model: str, batch_size: int, seconds: float, device: torch.device) -> None:
    """Print the medians over rounds that take turns, and the median of the ratios of each round."""
    candidates = {n: plain_steps(model, batch_size, n, device) for n in (0, 2)}
    for steps in candidates.values():
        next(steps)
    quickest = max(candidates, key=lambda n: images_per_second(candidates[n], batch_size, seconds, device))
    plain, ours = plain_steps(model, batch_size, quickest, device), our_steps(model, batch_size, device)
    candidates.clear()
    for steps in (plain, ours):
        list(itertools.islice(steps, 3))
    speeds = [
        tuple(images_per_second(steps, batch_size, seconds, device) for steps in (plain, ours)) for _ in range(ROUNDS)
    ]
    medians = [statistics.median(column) for column in zip(*speeds, strict=True)]
    ratio = statistics.median(b / a for a, b in speeds)
    print(
        f"{model}: plain {medians[0]:,.0f} images/s ({quickest} loader processes), ours {medians[1]:,.0f}, "
        f"{ratio:.2f} times as fast",
        flush=True,
    )


def measure_memory(device: torch.device, epochs: int = 4) -> None:
    """Print the peak of resident memory after each epoch of the small VAE."""
    data = solution("dataset").load("mnist")
    training, images = make("mlp-vae", device), data.to(device)
    steps_per_epoch = len(images) // 200
    loop = solution("loop")
    peaks = []
    for epoch in range(epochs):
        loop.fit(training, images, 200, 0, epoch * steps_per_epoch, (epoch + 1) * steps_per_epoch)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    grown = ", ".join(f"{peak:.0f}" for peak in peaks)
    size = images.pixels.nbytes / MEBIBYTE
    print(f"peak resident memory after each epoch of mlp-vae: {grown} MB; the data are {size:.0f} MB")


def main(
    seconds: Annotated[float, typer.Option(help="Seconds of each of the rounds.")] = 4.0,
    device: Annotated[str, typer.Option(help="Where to train.")] = "auto",
) -> None:
    """Print images per second of both loops for each model, and the memory of an epoch."""
    if not (Path(os.environ.get("DATA_DIR", "data")) / "MNIST" / "raw").is_dir():
        raise SystemExit("error: MNIST is needed; set DATA_DIR to a folder that holds MNIST/raw")
    where = solution("devices").choose_device(device)
    measure_memory(where)
    for model, batch_size in (("mlp-vae", 200), ("mlp-gan", 200), ("vae", 32), ("vae-gan", 32)):
        compare(model, batch_size, seconds, where)


if __name__ == "__main__":
    typer.run(main)

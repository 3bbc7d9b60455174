"""The loop of training: steps, logs, tests, pictures, checkpoints. Given: there is nothing to fill in here.

Noise and the order of images follow from the seed and the number of the step alone, so that a stopped run that is
resumed comes to the same numbers.
"""

import argparse
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dataset import Images, batches, unit
from devices import before_each_step, bfloat16_is_fast, seed_noise, use_bfloat16
from runs import Run
from visualize import image_grid

Terms = dict[str, Tensor]
PICTURES = 10  # times a run that pictures are drawn: a diffusion model takes long to draw them


def minimise(loss: Tensor, optimizer: Optimizer) -> None:
    """One step of `optimizer` against a scalar loss."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


class Training(nn.Module):
    """Networks, and how they are trained. Its state is what a checkpoint holds.

    Attributes:
        optimizers: by the name of the network whose parameters they hold.
        prepare: makes a batch of images from bytes.
    """

    prepare: Callable[[Tensor], Tensor] = staticmethod(unit)

    def __init__(self) -> None:
        super().__init__()
        self.optimizers: dict[str, Optimizer] = {}

    def add_optimizer(self, name: str, lr: float, betas: tuple[float, float] = (0.9, 0.999)) -> None:
        """Adam for the network called `name`."""
        self.optimizers[name] = torch.optim.Adam(getattr(self, name).parameters(), lr=lr, betas=betas, fused=True)

    def step(self, x: Tensor, y: Tensor, step: int) -> Terms:
        """Take step number `step` on images x with labels y (B,). Returns the terms of the loss, scalars."""
        raise NotImplementedError

    def measure(self, x: Tensor, y: Tensor) -> Terms:
        """Numbers (B,) on held-out images."""
        return {}

    def sample(self, count: int, labels: Tensor) -> Tensor:
        """New images (count, C, H, W) in [0, 1]; labels (count,) where the model knows any."""
        raise NotImplementedError

    def pictures(self, x: Tensor, y: Tensor) -> Terms:
        """Pictures (C, H, W) in [0, 1] that show what was learned."""
        return {"samples": image_grid(self.sample(2 * len(x), y.repeat(2)), columns=len(x))}


def train_steps(
    training: Training, images: Images, batch_size: int, seed: int, first: int, last: int, rank: int = 0, world: int = 1
) -> Iterator[Terms]:
    """Take the steps from `first` up to `last`, which is left out. Yields the terms of the loss of each.

    Of `world` processes, number `rank` takes its share of every batch.
    """
    device = next(training.parameters()).device
    for step, index in enumerate(batches(len(images), batch_size, seed, first, last), first):
        index = index[rank::world].to(images.pixels.device)
        x, y = images.pixels[index].to(device), images.labels[index].to(device)
        seed_noise(seed, step, rank)
        yield {name: term.detach() for name, term in training.step(training.prepare(x), y, step).items()}


def fit(training: Training, images: Images, batch_size: int, seed: int, first: int, last: int) -> dict[str, float]:
    """Take the steps from `first` up to `last`, which is left out. Returns the means of the terms of the loss."""
    totals: Terms = {}
    for terms in train_steps(training, images, batch_size, seed, first, last):
        totals = {name: totals.get(name, 0) + term for name, term in terms.items()}
    return {name: float(total.mean()) / (last - first) for name, total in totals.items()}


@torch.no_grad()
def evaluate(training: Training, images: Images, seed: int, batch_size: int = 500) -> dict[str, float]:
    """Means over held-out images of what the model measures."""
    device = next(training.parameters()).device
    training.eval()
    totals: dict[str, float] = {}
    seed_noise(seed, -1)
    for pixels, labels in zip(images.pixels.split(batch_size), images.labels.split(batch_size), strict=True):
        for name, values in training.measure(training.prepare(pixels.to(device)), labels.to(device)).items():
            totals[name] = totals.get(name, 0.0) + float(values.double().sum())
    training.train()
    return {name: total / len(images) for name, total in totals.items()}


def prepare_networks(training: Training, options: argparse.Namespace, device: torch.device, world: int) -> None:
    """Put the networks on their device in the layout, precision and form they train in."""
    training.to(device)
    on_cuda = device.type == "cuda"
    if on_cuda:
        torch.backends.cudnn.deterministic = True
        training.to(memory_format=torch.channels_last)
    for name, optimizer in training.optimizers.items():
        network = getattr(training, name)
        if options.precision == "bfloat16" or (options.precision == "auto" and bfloat16_is_fast(device)):
            use_bfloat16(network, device)
        if options.compile:
            for part in [network] if "forward" in vars(type(network)) else network.children():
                part.compile()
        before_each_step(optimizer, options.grad_clip, world)


def set_learning_rate(training: Training, options: argparse.Namespace, step: int, steps: int) -> None:
    """The learning rate of a step: constant, or falling to zero along half a period of a cosine."""
    factor = (1 + math.cos(math.pi * step / steps)) / 2 if options.lr_schedule == "cosine" else 1.0
    for optimizer in training.optimizers.values():
        for group in optimizer.param_groups:
            group["lr"] = options.lr * factor


def loop(
    training: Training,
    images: Images,
    held_out: Images,
    run: Run,
    options: argparse.Namespace,
    first: int,
    rank: int,
    world: int,
) -> None:
    """Take the steps from `first` on; log, test, and save at the end of every epoch, and where Ctrl-C stops it.

    Raises KeyboardInterrupt after the step at which Ctrl-C was pressed, once that step is saved.
    """
    steps_per_epoch = max(len(images) // options.batch_size, 1)
    last = options.steps or options.epochs * steps_per_epoch
    log_every = max(steps_per_epoch // 10, 1)
    picture_every = max(-(-last // steps_per_epoch) // PICTURES, 1) * steps_per_epoch
    totals: Terms = {}
    counted, since = 0, time.perf_counter()
    steps = train_steps(training, images, options.batch_size, options.seed, first, last, rank, world)
    with progress_bar(first, last, hidden=rank > 0) as show, interruption() as interrupted:
        for step in range(first + 1, last + 1):
            set_learning_rate(training, options, step - 1, last)
            totals = {name: totals.get(name, 0) + term for name, term in next(steps).items()}
            counted += 1
            epoch_ends = step % steps_per_epoch == 0 or step == last
            if epoch_ends or step % steps_per_epoch % log_every == 0:
                means = {name: float(total) / counted for name, total in totals.items()}
                run.log("train", step, means)
                show(step, means, counted * options.batch_size / (time.perf_counter() - since))
                totals, counted, since = {}, 0, time.perf_counter()
            if epoch_ends and rank == 0:
                test(training, held_out, run, options.seed, step)
                if step % picture_every == 0 or step == last:
                    draw_pictures(training, held_out, run, options.seed, step)
                save(training, run, step)
                since = time.perf_counter()
            elif interrupted.is_set() and rank == 0:
                save(training, run, step)
            if interrupted.is_set():
                raise KeyboardInterrupt


@contextmanager
def interruption() -> Iterator[threading.Event]:
    """Tell of the first Ctrl-C by an event, so that a step is not cut in two; the second one stops at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # where signals cannot be handled
        yield event
        return

    def notice(*_: object) -> None:
        event.set()
        signal.signal(signal.SIGINT, previous)

    previous = signal.signal(signal.SIGINT, notice)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, previous)


@contextmanager
def progress_bar(first: int, last: int, hidden: bool) -> Iterator[Callable[[int, dict[str, float], float], None]]:
    """A bar with the terms of the loss and the images per second; yields a function that moves it."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = MofNCompleteColumn(), TimeRemainingColumn(), BarColumn(10), TextColumn("{task.description}")
    with Progress(*columns, disable=hidden) as progress:
        task = progress.add_task("", total=last, completed=first)

        def show(step: int, means: dict[str, float], speed: float) -> None:
            terms = "  ".join(f"{name} {value:.4g}" for name, value in means.items())
            progress.update(task, completed=step, description=f"{terms}  {speed:,.0f} images/s")

        yield show


def test(training: Training, held_out: Images, run: Run, seed: int, step: int) -> None:
    """Log what the model measures on held-out images, if it measures anything."""
    numbers = evaluate(training, held_out, seed)
    if numbers:
        run.log("test", step, numbers)


@torch.no_grad()
def draw_pictures(training: Training, held_out: Images, run: Run, seed: int, step: int) -> None:
    """Draw what was learned, on ten held-out images and on noise."""
    device = next(training.parameters()).device
    training.eval()
    some = held_out.spread(10)
    seed_noise(seed, -2)
    for name, picture in training.pictures(training.prepare(some.pixels.to(device)), some.labels.to(device)).items():
        run.picture(name, step, picture)
    training.train()


def save(training: Training, run: Run, step: int) -> None:
    """Write a checkpoint. Raises RunError."""
    optimizers = {name: optimizer.state_dict() for name, optimizer in training.optimizers.items()}
    run.save({"step": step, "training": training.state_dict(), "optimizers": optimizers})

"""What the report shows: the runs, as the command lines a student would type."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from grader.assignment import SOLUTION

KL_WEIGHTS = ("1", "1e-3", "1e-6")
GAN_WEIGHTS = ("1e-1", "1e-2", "1e-3", "1e-4", "1e-5", "0")
DATASETS = ("mnist", "cifar10")
LDM_KL_WEIGHT = "1e-6"
PAPERS_TIMESTEPS = 1000
VARIANTS = {  # of Part 3: what differs from the first
    "noise": (),
    "cosine": ("--schedule", "cosine"),
    "velocity": ("--prediction", "velocity"),
    "flow": ("--prediction", "flow"),
}
SECONDS = "seconds.txt"  # in the directory of a run that is done: how long its training took


@dataclass(frozen=True)
class Schedule:
    """How long to train, and how wide the convolutional networks are.

    Attributes:
        mlp_vae, mlp_gan: epochs over MNIST.
        vae: steps of 32 images.
        ldm: steps of 128 latents.
        enhanced: steps of 128 latents, for each variant of Part 3.
        num_timesteps: of the diffusion of Part 2; in Part 3 there are always 1000.
        num_channels: of the auto-encoder, the discriminator and the UNet.
        samples: how many a Frechet distance is measured with.
    """

    mlp_vae: int
    mlp_gan: int
    vae: int
    ldm: int
    enhanced: int
    num_timesteps: int
    num_channels: int
    samples: int


SCHEDULES = {
    "smoke": Schedule(1, 1, vae=20, ldm=20, enhanced=10, num_timesteps=25, num_channels=8, samples=100),
    "reduced": Schedule(12, 12, vae=1000, ldm=3000, enhanced=6000, num_timesteps=200, num_channels=16, samples=1000),
    "full": Schedule(
        50, 100, vae=30_000, ldm=100_000, enhanced=100_000, num_timesteps=1000, num_channels=64, samples=10_000
    ),
}


@dataclass(frozen=True)
class Planned:
    """One run: its name, and the arguments of train.py that make it but for where it goes."""

    name: str
    arguments: tuple[str, ...]

    def command(self) -> str:
        """The command line, as a student would type it."""
        return f"python train.py {' '.join(self.arguments)}"


def plan(schedule: Schedule, sources: dict[str, str], folder: Path) -> list[Planned]:
    """Every run, in an order in which each finds what it needs.

    Args:
        schedule: how long to train.
        sources: what to give to --dataset, by the name of a data set.
        folder: where run directories go.
    """
    mnist = ("--dataset", sources["mnist"])
    width = ("--num-channels", str(schedule.num_channels))
    steps = ("--batch-size", "32", "--lr", "1e-3", "--steps", str(schedule.vae), *width)
    planned = [
        Planned("mlp-vae-20", ("mlp-vae", *mnist, "--epochs", str(schedule.mlp_vae))),
        Planned("mlp-vae-2", ("mlp-vae", *mnist, "--z-dim", "2", "--epochs", str(schedule.mlp_vae))),
        Planned("mlp-gan", ("mlp-gan", *mnist, "--z-dim", "64", "--epochs", str(schedule.mlp_gan))),
    ]
    for name in DATASETS:
        source = ("--dataset", sources[name])
        for weight in KL_WEIGHTS:
            planned.append(Planned(f"vae-{name}-kl-{weight}", ("vae", *source, "--kl-weight", weight, *steps)))
        ldm = (
            *("ldm", *source, "--vae", str(folder / autoencoder(name)), *width),
            *("--batch-size", "128", "--lr", "1e-3", "--lr-schedule", "cosine"),
            *("--steps", str(schedule.ldm)),
            *length_of(schedule.num_timesteps),
        )
        planned.append(Planned(f"ldm-{name}", ldm))
    for weight in GAN_WEIGHTS:
        adversarial = ("--kl-weight", "1e-6", "--gan-weight", weight, "--gan-loss-start", str(schedule.vae // 4))
        planned.append(Planned(f"vae-gan-{weight}", ("vae", "--dataset", sources["cifar10"], *adversarial, *steps)))
    return planned


def plan_part_3(schedule: Schedule, sources: dict[str, str], folder: Path) -> list[Planned]:
    """The runs of Part 3, each with as many steps; arguments as for `plan`, among whose runs are the auto-encoders."""
    return [
        Planned(
            f"enhanced-{data}-{variant}",
            (
                *("ldm", "--dataset", sources[data], "--vae", str(folder / autoencoder(data)), *difference),
                *("--label-dropout", "0.1", "--average-decay", "0.999", "--num-channels", str(schedule.num_channels)),
                *("--batch-size", "128", "--lr", "1e-3", "--steps", str(schedule.enhanced)),
            ),
        )
        for data in DATASETS
        for variant, difference in VARIANTS.items()
    ]


def length_of(num_timesteps: int) -> tuple[str, ...]:
    """The options of a linear schedule that is as long."""
    if num_timesteps == PAPERS_TIMESTEPS:
        return ()
    return ("--schedule", "linear", "--num-timesteps", str(num_timesteps))


def autoencoder(data: str) -> str:
    """The run of the auto-encoder whose latents are learned."""
    return f"vae-{data}-kl-{LDM_KL_WEIGHT}"


def carry_out(planned: Planned, folder: Path) -> None:
    """Train one run, from where it was stopped if it was; not at all where it is done. Raises CalledProcessError."""
    run = folder / planned.name
    if (run / SECONDS).exists():
        return
    started = time.perf_counter()
    resume = ["--resume"] if (run / "checkpoint.pt").exists() else []
    command = [sys.executable, "train.py", *planned.arguments, "--run-dir", str(run), *resume]
    subprocess.run(command, cwd=SOLUTION, check=True)
    (run / SECONDS).write_text(f"{time.perf_counter() - started:.0f}\n", "utf-8")

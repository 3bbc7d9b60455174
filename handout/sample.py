"""Draw new images with a trained model: python sample.py RUN --class 3 -n 64. Given: nothing to fill in here."""

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor

from dataset import load
from devices import choose_device, seed_noise
from ldm import LDMTraining
from loop import Training
from options import OneLineParser, count, finite, share
from recipes import load_training
from runs import RunError
from train import errors_in_one_line
from visualize import image_grid, save_animation, save_image

FRAMES = 60
NUM_STEPS = 50


def choose_labels(wanted: str | None, count: int, classes: list[str]) -> Tensor:
    """Labels (count,) of the class of that name or number; all classes in turn if none is wanted. Raises RunError."""
    if wanted is None:
        return torch.arange(count) % len(classes)
    if wanted in classes:
        return torch.full((count,), classes.index(wanted))
    if wanted.isdecimal() and int(wanted) < len(classes):
        return torch.full((count,), int(wanted))
    raise RunError(f"There is no class {wanted}; there are {', '.join(f'{n} ({c})' for n, c in enumerate(classes))}.")


def sample_trajectory(training: LDMTraining, labels: Tensor, columns: int) -> list[Tensor]:
    """Grids (C, H, W) of what the denoiser saw along the way from noise, at most FRAMES of them, and of the result."""
    seen: list[Tensor] = []
    result = training.sample(len(labels), labels, lambda x, t: seen.append(x))
    every = -(-len(seen) // FRAMES)
    return [*(image_grid(training.decode(x), columns) for x in seen[::every]), image_grid(result, columns)]


def bits_per_dim(training: LDMTraining, dataset: str, count: int) -> str:
    """The variational bound on the first `count` held-out latents of a data set, in words (3.7). Raises RunError.

    `training` is that of Part 3.
    """
    if training.prediction == "flow":
        raise RunError("A flow has no variational bound; --bits-per-dim needs a model that predicts noise or velocity.")
    latents = training.encode(load(dataset, train=False).first(count), fit=False)
    bits = [
        training.diffusion.bits_per_dim(training.denoiser(), x, y)
        for x, y in zip(latents.pixels.split(256), latents.labels.split(256), strict=True)
    ]
    return f"{float(torch.cat(bits).mean()):.3f} bits per dimension of {len(latents)} held-out latents"


@torch.no_grad()
def draw(options: argparse.Namespace) -> str:
    """Write a grid of samples, or an animation of how they come about, or measure. Returns what to say of it.

    Raises RunError or DatasetError.
    """
    device = choose_device(options.device)
    if options.out is not None and not options.out.absolute().parent.is_dir():
        raise RunError(f"{options.out.parent} is not a folder; give --out a file in a folder that exists.")
    part_3 = options.sampler is not None or options.guidance_weight is not None or options.bits_per_dim
    config, training = load_training(options.run, part_3)
    labels = choose_labels(options.label, options.count, config["classes"]).to(device)
    training.to(device)
    seed_noise(options.seed)
    if (options.trajectory or options.bits_per_dim) and not isinstance(training, LDMTraining):
        raise RunError(f"{options.run} holds a {config['model']}; only an ldm has a trajectory or a bound.")
    for sentence in ignored(options, isinstance(training, LDMTraining)):
        print(f"note: {sentence}", file=sys.stderr)
    if hasattr(training, "sampling"):  # it was trained with Part 3, or samples with it
        from enhanced_ldm import Sampling

        training.sampling = Sampling(
            options.sampler,
            options.num_steps or NUM_STEPS,
            options.eta or 0.0,
            options.guidance_weight,
            not options.no_average,
        )
    if options.bits_per_dim:
        return bits_per_dim(training, config["options"]["dataset"], options.count)
    if options.trajectory:
        path = options.out or options.run / "trajectory.gif"
        save_animation(sample_trajectory(training, labels, options.columns), path)
    else:
        path = options.out or options.run / "samples.png"
        save_image(image_grid(sample(training, labels), options.columns), path, scale=2)
    return str(path)


def ignored(options: argparse.Namespace, is_ldm: bool) -> list[str]:
    """What was asked for and has no effect, in sentences."""
    said = []
    if options.num_steps is not None and options.sampler not in ("ddim", "euler", "heun"):
        said.append("--num-steps counts with --sampler ddim, euler or heun only.")
    if options.eta is not None and options.sampler != "ddim":
        said.append("--eta counts with --sampler ddim only.")
    if options.label is not None and not is_ldm:
        said.append("this model does not know classes: --class has no effect.")
    return said


def sample(training: Training, labels: Tensor, batch_size: int = 256) -> Tensor:
    """New images (B, C, H, W) in [0, 1] for labels (B,), drawn in batches."""
    return torch.cat([training.sample(len(part), part) for part in labels.split(batch_size)])


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options of the command line."""
    parser = OneLineParser(description="Draw new images with a trained model.")
    parser.add_argument("run", type=Path, help="run directory of train.py")
    parser.add_argument("--class", dest="label", help="name or number of a class, for an ldm; all in turn by default")
    parser.add_argument("-n", dest="count", type=count, default=64, help="number of images")
    parser.add_argument("--columns", type=count, default=8, help="images in a row")
    parser.add_argument("--trajectory", action="store_true", help="ldm: a GIF of the denoising")
    parser.add_argument("--sampler", choices=["ddpm", "ddim", "euler", "heun"], help="ldm: (3.2, 3.6)")
    parser.add_argument("--num-steps", type=count, help="ldm: steps of ddim, euler and heun; 50 by default")
    parser.add_argument("--eta", type=share, help="ldm: noise of ddim, from 0, none, to 1 (3.2)")
    parser.add_argument("--guidance-weight", type=finite, help="ldm: how much labels count, 1 is as trained (3.3)")
    parser.add_argument("--no-average", action="store_true", help="ldm: the last weights, not their average (3.4)")
    parser.add_argument("--bits-per-dim", action="store_true", help="ldm: the bound of N held-out latents (3.7)")
    parser.add_argument("--out", type=Path, help="file to write; in the run directory by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    return parser.parse_args(arguments)


def main() -> None:
    """Draw as the command line says. Exit status 2, with one line, where that cannot be done."""
    with errors_in_one_line():
        print(draw(parse()))


if __name__ == "__main__":
    main()

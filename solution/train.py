"""The training step of a GAN, which is yours, and the command line that trains every model.

python train.py mlp-vae | mlp-gan | vae | ldm, and --help for the options. What a step of training is for each model is
in recipes.py, the loop around it in loop.py.
"""

import argparse
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from dataset import DatasetError
from runs import Run, RunError

DEFAULTS = {
    "mlp-vae": {"dataset": "glyphs", "epochs": 12, "batch_size": 128, "lr": 1e-3, "lr_schedule": "cosine"},
    "mlp-gan": {"dataset": "glyphs", "epochs": 50, "batch_size": 100},
    "vae": {"dataset": "shapes", "epochs": 20},
    "ldm": {"dataset": "shapes", "epochs": 50},
}


def gan_step(
    generator: nn.Module,
    discriminator: nn.Module,
    generator_optimizer: Optimizer,
    discriminator_optimizer: Optimizer,
    x: Tensor,
    z: Tensor,
) -> tuple[Tensor, Tensor]:
    """One step of the discriminator and then one of the generator, each by its own optimizer.

    Goodfellow et al., "Generative Adversarial Nets" (2014): algorithm 1, with the non-saturating loss of section 3.

    Args:
        generator: z (B, z_dim) -> images shaped like `x`.
        discriminator: images -> (B,) probabilities that they are real.
        generator_optimizer, discriminator_optimizer: hold the parameters of one network each.
        x: (B, *x_shape) real images.
        z: (B, z_dim) noise, used in both steps and the only source of randomness.

    Returns:
        discriminator_loss: -E[log D(x)] - E[log(1 - D(G(z)))] before its step, a scalar.
        generator_loss: -E[log D(G(z))] between the two steps, a scalar.
    """
    ############################ Your code here ############################
    # TODO(1.4): take a step of the discriminator on `x` and on generated images that are detached; then a step of
    # the generator, judged by the new discriminator. Each starts from zero gradients, whatever there were before the
    # call, and moves its own parameters only. Leave the losses, as tensors, in `discriminator_loss` and
    # `generator_loss`.
    ########################################################################
    fake = generator(z)
    real_probability, fake_probability = discriminator(x), discriminator(fake.detach())
    discriminator_loss = F.binary_cross_entropy(
        real_probability, torch.ones_like(real_probability)
    ) + F.binary_cross_entropy(fake_probability, torch.zeros_like(fake_probability))
    discriminator_optimizer.zero_grad()
    discriminator_loss.backward()
    discriminator_optimizer.step()

    fake_probability = discriminator(fake)
    generator_loss = F.binary_cross_entropy(fake_probability, torch.ones_like(fake_probability))
    generator_optimizer.zero_grad()
    generator_loss.backward()
    generator_optimizer.step()
    ########################################################################
    return discriminator_loss.detach(), generator_loss.detach()


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, step: int, decay: float = 0.9999) -> None:
    """Move a running average of a network's weights one step on, in place.

    Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging" (1992), with weights that fall off
    exponentially: what the network was n steps ago counts decay^n.

    Args:
        average: a network like `network`, whose parameters are the average. They are changed in place.
        network: as it is after the step; it is not changed.
        step: number of the step, counted from 0.
        decay: the share of the average that is kept in a step. It is (1 + step) / (10 + step) while that is smaller,
            so that the average soon forgets what the network was before training.
    """
    ############################ Your code here ############################
    # TODO(3.4): move every parameter of `average` towards that of `network`, once, also where two layers share it.
    # Copy every buffer. Leave modes and requires_grad as they are.
    ########################################################################
    decay = min(decay, (1 + step) / (10 + step))
    for mean, parameter in zip(average.parameters(), network.parameters(), strict=True):
        mean.lerp_(parameter, 1 - decay)
    for kept, buffer in zip(average.buffers(), network.buffers(), strict=True):
        kept.copy_(buffer)
    ########################################################################


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options of the command line; those of a run that is resumed come from its configuration."""
    parser = argparse.ArgumentParser(description="Train a model of the assignment.")
    parser.add_argument("model", choices=DEFAULTS)
    parser.add_argument("--dataset", help="shapes, glyphs, mnist, cifar10 or folder:PATH")
    parser.add_argument("--limit", type=int, help="train on the first so many images only")
    parser.add_argument("--epochs", type=int, help="how often to go through the images")
    parser.add_argument("--steps", type=int, help="number of steps, in place of --epochs")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=3e-4, help="learning rate of Adam")
    parser.add_argument("--lr-schedule", choices=["constant", "cosine"], default="constant")
    parser.add_argument("--grad-clip", type=float, help="largest norm of the gradients of a network")
    parser.add_argument("--z-dim", type=int, default=20, help="mlp-vae, mlp-gan: number of latent variables")
    parser.add_argument("--hidden-dim", type=int, default=500, help="mlp-vae, mlp-gan: width of the hidden layers")
    parser.add_argument("--kl-weight", type=float, default=1e-3, help="vae: weight of the KL divergence")
    parser.add_argument("--gan-weight", type=float, default=0.0, help="vae: weight of the adversarial loss")
    parser.add_argument("--gan-loss-start", type=int, default=0, help="vae: step at which it sets in")
    parser.add_argument("--z-channels", type=int, default=3, help="vae: channels of the latents")
    parser.add_argument("--num-channels", type=int, default=32, help="vae, ldm: width of the networks")
    parser.add_argument("--vae", type=Path, help="ldm: run directory of the auto-encoder")
    parser.add_argument("--num-timesteps", type=int, default=1000, help="ldm: steps of the diffusion; needs --schedule")
    parser.add_argument("--schedule", choices=["linear", "cosine"], help="ldm: for any number of steps (3.1)")
    parser.add_argument("--label-dropout", type=float, default=0.0, help="ldm: share of labels dropped (3.3)")
    parser.add_argument("--average-decay", type=float, help="ldm: keep an average of the weights, 0.9999 say (3.4)")
    parser.add_argument("--prediction", choices=["noise", "velocity", "flow"], default="noise", help="ldm: (3.5, 3.6)")
    parser.add_argument("--min-snr", type=float, help="ldm: gamma of the loss's weights, 5 say (3.5)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    parser.add_argument("--precision", choices=["auto", "float32", "bfloat16"], default="auto")
    parser.add_argument("--compile", action="store_true", help="compile the networks first")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run-dir", type=Path, help="where the run goes")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --run-dir, with its options")
    parser.set_defaults(**DEFAULTS[parser.parse_args(arguments).model])
    options = parser.parse_args(arguments)
    options.run_dir = options.run_dir or Path("runs") / f"{options.model}-{options.dataset.partition(':')[0]}"
    if options.resume:
        parser.set_defaults(**Run(options.run_dir).config()["options"])
        options = parser.parse_args(arguments)
    return options


def main() -> None:
    """Train as the command line says. Exit status 2, with one line, where that cannot be done."""
    from recipes import train  # here, as it imports this file for `gan_step`

    try:
        train(parse())
    except (DatasetError, RunError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except NotImplementedError as error:
        print(f"error: this needs question {error}, which is not filled in yet", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()

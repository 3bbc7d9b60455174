"""Train the models of the assignment: python train.py mlp-vae | mlp-gan | vae | ldm. --help has the options.

Part 1 trains on images in [0, 1] of any shape, Part 2 on (3, 32, 32) images in [-1, 1]. Your block is `gan_step`;
the rest is given: for each model a class that says what one step of training is, and below them the loop.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Normal
from torch.optim import Optimizer

from dataset import DatasetError, Images, load, signed
from devices import choose_device, join_processes, seed_noise
from diffusion import GaussianDiffusion
from loop import Terms, Training, loop, minimise, prepare_networks
from loss import GANLossD, GANLossG, KLDivergenceLoss, compute_elbo
from model import MLPVAE, VAE, Discriminator, Generator, MLPDiscriminator, UNet
from runs import Run, RunError
from visualize import image_grid, latent_grid


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
    # the generator, judged by the new discriminator. Each starts from zero gradients and moves its own parameters
    # only. Leave the losses in `discriminator_loss` and `generator_loss`.
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


def initialise(network: nn.Module) -> None:
    """Weights that keep the variance of what passes through ReLU layers: He et al., "Delving Deep" (2015), eq. (10)."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)


class MLPVAETraining(Training):
    """Part 1: the small VAE maximises the evidence lower bound."""

    def __init__(self, x_shape: tuple[int, ...], z_dim: int = 20, hidden_dim: int = 500, lr: float = 1e-3):
        super().__init__()
        self.vae = MLPVAE(x_shape, z_dim, hidden_dim)
        initialise(self.vae)
        self.register_buffer("zero", torch.zeros(z_dim), persistent=False)
        self.add_optimizer("vae", lr)

    def elbo(self, x: Tensor) -> Tensor:
        """The bound in nats of images x, a scalar."""
        posterior = self.vae.encode(x)
        prior = Normal(self.zero, torch.ones_like(self.zero))
        return compute_elbo(x, self.vae.decode(posterior.rsample()), posterior, prior)

    def step(self, x: Tensor, y: Tensor, step: int) -> Terms:
        elbo = self.elbo(x)
        minimise(-elbo, self.optimizers["vae"])
        return {"elbo": elbo}

    def measure(self, x: Tensor, y: Tensor) -> Terms:
        return {"elbo": self.elbo(x).expand(len(x))}

    def sample(self, count: int, labels: Tensor) -> Tensor:
        return self.vae.decode(torch.randn(count, len(self.zero), device=self.zero.device))

    def pictures(self, x: Tensor, y: Tensor) -> Terms:
        reconstructions = self.vae.decode(self.vae.encode(x).mean)
        pictures = super().pictures(x, y) | {"reconstructions": image_grid(torch.cat([x, reconstructions]), len(x))}
        if len(self.zero) == 2:
            pictures["latent-grid"] = latent_grid(lambda z: self.vae.decode(z.to(x.device)))
        return pictures


class MLPGANTraining(Training):
    """Part 1: the small GAN."""

    def __init__(self, x_shape: tuple[int, ...], z_dim: int = 64, hidden_dim: int = 500, lr: float = 3e-4):
        super().__init__()
        self.z_dim = z_dim
        self.generator = Generator(z_dim, x_shape, hidden_dim)
        self.discriminator = MLPDiscriminator(x_shape, hidden_dim)
        self.add_optimizer("generator", lr, betas=(0.5, 0.999))
        self.add_optimizer("discriminator", lr, betas=(0.5, 0.999))

    def step(self, x: Tensor, y: Tensor, step: int) -> Terms:
        z = torch.randn(len(x), self.z_dim, device=x.device)
        optimizers = self.optimizers["generator"], self.optimizers["discriminator"]
        discriminator_loss, generator_loss = gan_step(self.generator, self.discriminator, *optimizers, x, z)
        return {"discriminator": discriminator_loss, "generator": generator_loss}

    def sample(self, count: int, labels: Tensor) -> Tensor:
        return self.generator(torch.randn(count, self.z_dim, device=labels.device))


class VAETraining(Training):
    """Part 2: the convolutional VAE, and with a `gan_weight` above 0 the VAE-GAN."""

    prepare = staticmethod(signed)

    def __init__(
        self,
        kl_weight: float = 1e-3,
        gan_weight: float = 0.0,
        gan_loss_start: int = 0,
        z_channels: int = 3,
        num_channels: int = 32,
        lr: float = 3e-4,
    ):
        super().__init__()
        self.kl_weight, self.gan_weight, self.gan_loss_start = kl_weight, gan_weight, gan_loss_start
        self.z_channels = z_channels
        self.vae = VAE(3, z_channels, num_channels)
        self.kl_loss, self.loss_d, self.loss_g = KLDivergenceLoss(), GANLossD(), GANLossG()
        self.add_optimizer("vae", lr)
        if gan_weight > 0:
            self.discriminator = Discriminator(3, num_channels)
            self.add_optimizer("discriminator", lr, betas=(0.5, 0.999))

    def step(self, x: Tensor, y: Tensor, step: int) -> Terms:
        x_recon, mu, logvar = self.vae(x)
        terms = {"mse": F.mse_loss(x_recon, x), "kl": self.kl_loss(mu, logvar)}
        loss = terms["mse"] + self.kl_weight * terms["kl"]
        if self.gan_weight > 0:
            terms["generator"] = self.loss_g(self.discriminator(x_recon))
            if step >= self.gan_loss_start:
                loss = loss + self.gan_weight * terms["generator"]
        minimise(loss, self.optimizers["vae"])
        if self.gan_weight > 0:
            terms["discriminator"] = self.loss_d(self.discriminator(x), self.discriminator(x_recon.detach()))
            minimise(terms["discriminator"], self.optimizers["discriminator"])
        return terms

    def measure(self, x: Tensor, y: Tensor) -> Terms:
        x_recon, mu, logvar = self.vae(x)
        mse = (x_recon - x).square().flatten(1).mean(dim=1)
        kl = self.kl_loss(mu, logvar).expand(len(x))
        return {"mse": mse, "psnr": 10 * torch.log10(4 / mse), "kl": kl}

    def sample(self, count: int, labels: Tensor) -> Tensor:
        return (self.vae.decode(torch.randn(count, self.z_channels, 8, 8, device=labels.device)) + 1) / 2

    def pictures(self, x: Tensor, y: Tensor) -> Terms:
        rows = (torch.cat([x, self.vae(x)[0]]) + 1) / 2
        return super().pictures(x, y) | {"reconstructions": image_grid(rows, len(x))}


class LDMTraining(Training):
    """Part 2: diffusion on the latents of a frozen VAE, whose mean and standard deviation are made 0 and 1."""

    prepare = staticmethod(lambda latents: latents)

    def __init__(
        self,
        vae: dict[str, int],
        num_classes: int = 10,
        num_channels: int = 32,
        num_timesteps: int = 1000,
        lr: float = 3e-4,
    ):
        super().__init__()
        self.vae = VAE(**vae).requires_grad_(False)
        channels = vae["z_channels"]
        self.register_buffer("latent_mean", torch.zeros(channels, 1, 1))
        self.register_buffer("latent_std", torch.ones(channels, 1, 1))
        self.unet = UNet(channels, channels, num_classes, num_channels)
        # Fewer steps of the same noise each would not reach pure noise: as many times fewer, as many times stronger.
        scale = 1000 / num_timesteps
        self.diffusion = GaussianDiffusion(1e-4 * scale, 2e-2 * scale, num_timesteps)
        self.add_optimizer("unet", lr)

    @torch.no_grad()
    def encode(self, images: Images, fit: bool, batch_size: int = 500) -> Images:
        """Images as normalised latents (N, C, h, w), by their own mean and standard deviation if `fit`."""
        device = self.latent_mean.device
        parts = [self.vae.encode(signed(part.to(device))) for part in images.pixels.split(batch_size)]
        latents = torch.cat(parts)
        if fit:
            self.latent_mean = latents.mean(dim=(0, 2, 3))[:, None, None]
            self.latent_std = latents.std(dim=(0, 2, 3))[:, None, None]
        latents = (latents - self.latent_mean) / self.latent_std
        return Images(latents, images.labels.to(device), images.classes)

    def step(self, x: Tensor, y: Tensor, step: int) -> Terms:
        loss = self.diffusion(self.unet, x, y)
        minimise(loss, self.optimizers["unet"])
        return {"noise_mse": loss}

    def measure(self, x: Tensor, y: Tensor) -> Terms:
        return {"noise_mse": self.diffusion(self.unet, x, y).expand(len(x))}

    def decode(self, latents: Tensor) -> Tensor:
        """Normalised latents (B, C, h, w) -> images (B, 3, 4 h, 4 w) in [0, 1]."""
        return (self.vae.decode(latents * self.latent_std + self.latent_mean) + 1) / 2

    def sample(self, count: int, labels: Tensor, denoise_fn: Callable | None = None) -> Tensor:
        shape = (count, len(self.latent_mean), 8, 8)
        return self.decode(self.diffusion.sample(denoise_fn or self.unet, shape, labels))


DEFAULTS = {
    "mlp-vae": {"dataset": "glyphs", "epochs": 12, "batch_size": 128, "lr": 1e-3, "lr_schedule": "cosine"},
    "mlp-gan": {"dataset": "glyphs", "epochs": 50, "batch_size": 100},
    "vae": {"dataset": "shapes", "epochs": 20},
    "ldm": {"dataset": "shapes", "epochs": 50},
}
MODELS = {"mlp-vae": MLPVAETraining, "mlp-gan": MLPGANTraining, "vae": VAETraining, "ldm": LDMTraining}


def make_training(options: argparse.Namespace, images: Images) -> tuple[Training, dict[str, Any]]:
    """The training that the options ask for, and the arguments that make it again."""
    shape = tuple(images.pixels.shape[1:])
    chosen = {
        "mlp-vae": {"x_shape": shape, "z_dim": options.z_dim, "hidden_dim": options.hidden_dim},
        "mlp-gan": {"x_shape": shape, "z_dim": options.z_dim, "hidden_dim": options.hidden_dim},
        "vae": {
            "kl_weight": options.kl_weight,
            "gan_weight": options.gan_weight,
            "gan_loss_start": options.gan_loss_start,
            "z_channels": options.z_channels,
            "num_channels": options.num_channels,
        },
        "ldm": {
            "num_classes": len(images.classes),
            "num_channels": options.num_channels,
            "num_timesteps": options.num_timesteps,
        },
    }[options.model]
    vae = None
    if options.model == "ldm":
        if options.vae is None:
            raise RunError("A latent diffusion model needs an auto-encoder; train one, and give its run by --vae.")
        source, vae = load_training(options.vae)
        if not isinstance(vae, VAETraining):
            raise RunError(f"{options.vae} holds a {source['model']}; --vae needs the run of a vae.")
        chosen["vae"] = {"z_channels": vae.z_channels, "num_channels": source["arguments"]["num_channels"]}
    arguments = chosen | {"lr": options.lr}
    training = MODELS[options.model](**arguments)
    if vae is not None:
        training.vae.load_state_dict(vae.vae.state_dict())
    return training, arguments


def load_training(folder: Path) -> tuple[dict[str, Any], Training]:
    """The configuration of a run, and its networks as of its last checkpoint, on the CPU. Raises RunError."""
    run = Run(folder)
    config = run.config()
    training = MODELS[config["model"]](**config["arguments"])
    training.load_state_dict(run.load()["training"])
    return config, training.eval()


def train(options: argparse.Namespace) -> None:
    """Train a model to the end, from the start or from the last checkpoint. Raises DatasetError or RunError."""
    device = choose_device(options.device)
    rank, world = join_processes(device)
    if options.batch_size % world:
        raise RunError(f"--batch-size {options.batch_size} cannot be shared by {world} processes; choose a multiple.")
    run = Run(options.run_dir, writes=rank == 0)
    images, held_out = load(options.dataset).first(options.limit), load(options.dataset, train=False)
    seed_noise(options.seed)
    training, arguments = make_training(options, images)
    first = 0
    if options.resume:
        checkpoint = run.load()
        first = checkpoint["step"]
        run.rewind(first)
    else:
        config = {"model": options.model, "classes": images.classes, "arguments": arguments}
        kept = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
        run.start(config | {"options": kept | {"resume": False}})
    prepare_networks(training, options, device, world)
    if isinstance(training, LDMTraining):
        images, held_out = training.encode(images, fit=True), training.encode(held_out, fit=False)
    images, held_out = images.to(device), held_out.to(device)
    if options.resume:
        training.load_state_dict(checkpoint["training"])
        for name, optimizer in training.optimizers.items():
            optimizer.load_state_dict(checkpoint["optimizers"][name])
    loop(training, images, held_out, run, options, first, rank, world)
    run.close()
    if world > 1:
        torch.distributed.destroy_process_group()


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options of the command line; those of a run that is resumed come from its configuration."""
    parser = argparse.ArgumentParser(description="Train a model of the assignment.")
    parser.add_argument("model", choices=MODELS)
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
    parser.add_argument("--num-timesteps", type=int, default=1000, help="ldm: steps of the diffusion")
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
    try:
        train(parse())
    except (DatasetError, RunError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()

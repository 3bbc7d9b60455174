"""What is trained and how: for each model a class that says what one step is. Given: nothing to fill in here.

Part 1 trains on images in [0, 1] of any shape, Part 2 on (3, 32, 32) images in [-1, 1].
"""

import argparse
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Normal

from dataset import Images, load, signed
from devices import choose_device, join_processes, leave_processes, seed_noise
from gan import gan_step
from ldm import PAPERS_TIMESTEPS, LDMTraining
from loop import Terms, Training, loop, minimise, prepare_networks
from loss import GANLossD, GANLossG, KLDivergenceLoss, compute_elbo
from model import MLPVAE, VAE, Discriminator, Generator, MLPDiscriminator
from runs import Run, RunError
from visualize import image_grid, latent_grid


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


class InstanceNoise(nn.Module):
    """Adds normal noise while training. A discriminator that sees it cannot tell data and early samples apart at once.

    Arjovsky and Bottou, "Towards Principled Methods for Training Generative Adversarial Networks" (2017), section 3.
    """

    def __init__(self, std: float):
        super().__init__()
        self.std = std

    def forward(self, x: Tensor) -> Tensor:
        """x, of any shape -> the same shape."""
        return x + self.std * torch.randn_like(x) if self.training else x


class MLPGANTraining(Training):
    """Part 1: the small GAN."""

    def __init__(
        self,
        x_shape: tuple[int, ...],
        z_dim: int = 64,
        hidden_dim: int = 500,
        lr: float = 3e-4,
        instance_noise: float = 0.5,
    ):
        super().__init__()
        self.z_dim = z_dim
        self.generator = Generator(z_dim, x_shape, hidden_dim)
        self.discriminator = MLPDiscriminator(x_shape, hidden_dim)
        self.noisy_discriminator = nn.Sequential(InstanceNoise(instance_noise), self.discriminator)
        self.add_optimizer("generator", lr, betas=(0.5, 0.999))
        self.add_optimizer("discriminator", lr, betas=(0.5, 0.999))

    def step(self, x: Tensor, y: Tensor, step: int) -> Terms:
        z = torch.randn(len(x), self.z_dim, device=x.device)
        optimizers = self.optimizers["generator"], self.optimizers["discriminator"]
        discriminator_loss, generator_loss = gan_step(self.generator, self.noisy_discriminator, *optimizers, x, z)
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


PART_3 = {"schedule": None, "prediction": "noise", "min_snr": None, "label_dropout": 0.0, "average_decay": None}
MODELS = {"mlp-vae": MLPVAETraining, "mlp-gan": MLPGANTraining, "vae": VAETraining, "ldm": LDMTraining}


def make_model(name: str, arguments: dict[str, Any], part_3: bool = False) -> Training:
    """The training of a model by name. An "ldm" has what Part 3 adds if it is asked for, or if an argument needs it.

    The files of Part 3 are imported only then.
    """
    if name == "ldm" and (part_3 or PART_3.keys() & arguments.keys()):
        from enhanced_ldm import EnhancedLDMTraining

        return EnhancedLDMTraining(**arguments)
    return MODELS[name](**arguments)


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
            **{name: value for name in PART_3 if (value := getattr(options, name)) != PART_3[name]},
        },
    }[options.model]
    vae = None
    if options.model == "ldm":
        if options.schedule is None and options.num_timesteps != PAPERS_TIMESTEPS:
            raise RunError(
                f"--num-timesteps {options.num_timesteps} needs a schedule of that length: give --schedule (3.1)."
            )
        if options.prediction == "flow" and (options.schedule or options.min_snr is not None):
            raise RunError("A flow has no schedule and no signal-to-noise ratio; leave out --schedule and --min-snr.")
        if options.vae is None:
            raise RunError("A latent diffusion model needs an auto-encoder; train one, and give its run by --vae.")
        source, vae = load_training(options.vae)
        if not isinstance(vae, VAETraining):
            raise RunError(f"{options.vae} holds a {source['model']}; --vae needs the run of a vae.")
        chosen["vae"] = {"z_channels": vae.z_channels, "num_channels": source["arguments"]["num_channels"]}
    arguments = chosen | {"lr": options.lr}
    training = make_model(options.model, arguments)
    if vae is not None:
        training.vae.load_state_dict(vae.vae.state_dict())
    return training, arguments


def load_training(folder: Path, part_3: bool = False) -> tuple[dict[str, Any], Training]:
    """The configuration of a run, and its networks as of its last checkpoint, on the CPU. Raises RunError.

    `part_3` says whether an "ldm" is needed with the samplers of Part 3, even if it was trained without it.
    """
    run = Run(folder)
    config = run.config()
    training = make_model(config["model"], config["arguments"], part_3)
    load_checkpoint(training, run)
    return config, training.eval()


def load_checkpoint(training: Training, run: Run) -> dict[str, Any]:
    """Give a training the state of a run's last checkpoint, which is returned. Raises RunError if it does not fit."""
    checkpoint = run.load()
    try:
        training.load_state_dict(checkpoint["training"])
        for name, state in checkpoint["optimizers"].items():
            training.optimizers[name].load_state_dict(state)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise RunError(
            f"The checkpoint in {run.folder} is that of other networks; train again with --overwrite, or with another "
            "--run-dir."
        ) from error
    return checkpoint


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
        first = load_checkpoint(training, run)["step"]
        run.rewind(first)
    else:
        config = {"model": options.model, "classes": images.classes, "arguments": arguments}
        kept = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
        run.start(config | {"options": kept | {"resume": False, "overwrite": False}}, options.overwrite)
    prepare_networks(training, options, device, world)
    if isinstance(training, LDMTraining):
        images, held_out = training.encode(images, fit=True), training.encode(held_out, fit=False)
    images, held_out = images.to(device), held_out.to(device)
    if options.resume:
        load_checkpoint(training, run)
    loop(training, images, held_out, run, options, first, rank, world)
    run.close()
    leave_processes()

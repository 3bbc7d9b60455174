"""Where and how numbers are computed: devices, precision, several processes, seeds. Given: nothing to fill in here."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.optim import Optimizer

from runs import RunError


def choose_device(name: str) -> torch.device:
    """The device of a name; "auto" is a GPU where there is one. Several processes take one GPU each.

    Raises RunError if there is no such device.
    """
    if name != "auto":
        try:
            return torch.zeros(1, device=name).device
        except (RuntimeError, AssertionError) as error:
            raise RunError(f"This machine has no device {name} that PyTorch can use; leave out --device.") from error
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def join_processes(device: torch.device) -> tuple[int, int]:
    """Meet the processes that torchrun started, if it did. Returns the number of this one and how many there are."""
    if "WORLD_SIZE" not in os.environ:
        return 0, 1
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return distributed.get_rank(), distributed.get_world_size()


def leave_processes() -> None:
    """Part from the processes met by `join_processes`, if any.

    Gloo's threads free tensors, for which they need the interpreter; if it ends first, they abort the process. So they
    are given half a second of it.
    """
    if distributed.is_initialized():
        distributed.destroy_process_group()
        time.sleep(0.5)


def seed_noise(*numbers: int) -> None:
    """Seed torch's generators with a mixture of integers, so that the noise of a step depends on these alone."""
    mixed = 0
    for number in numbers:  # mixed as by splitmix64, since a Mersenne twister gives neighbouring seeds similar noise
        mixed = (mixed + number + 0x9E3779B97F4A7C15) % 2**64
        mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB % 2**64
        mixed ^= mixed >> 31
    torch.default_generator.manual_seed(mixed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(mixed)


def bfloat16_is_fast(device: torch.device) -> bool:
    """Whether the device multiplies in bfloat16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    flags = Path("/proc/cpuinfo")
    found = flags.read_text("utf-8") if device.type == "cpu" and flags.exists() else ""
    return "avx512_bf16" in found or "amx_bf16" in found


def use_bfloat16(network: nn.Module, device: torch.device) -> None:
    """Let the matrix products and convolutions of a network compute in bfloat16 while it trains.

    What each returns is float32 again: a sigmoid of bfloat16 would be exactly 1 from 0.998 on.
    """

    def wrap(layer: nn.Module) -> Callable[[Tensor], Tensor]:
        in_float32 = layer.forward

        def forward(x: Tensor) -> Tensor:
            if not layer.training:
                return in_float32(x)
            with torch.autocast(device.type, torch.bfloat16):
                return in_float32(x).float()

        return forward

    for layer in network.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            layer.forward = wrap(layer)


def before_each_step(optimizer: Optimizer, grad_clip: float | None, world: int) -> None:
    """After backward and before every step, average the gradients of `world` processes and limit their norm."""

    def hook(optimizer: Optimizer, *_: Any) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if world > 1:
            together = nn.utils.parameters_to_vector(gradients)
            distributed.all_reduce(together)
            nn.utils.vector_to_parameters(together / world, gradients)
        if grad_clip is not None:
            norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
            torch._foreach_mul_(gradients, (grad_clip / (norm + 1e-6)).clamp(max=1))

    optimizer.register_step_pre_hook(hook)

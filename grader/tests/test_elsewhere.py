"""The device that tensors of this machine play: what torch takes and refuses on a GPU is taken and refused there."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from grader.engine.elsewhere import ELSEWHERE, call

X = torch.linspace(-2, 2, 12).reshape(3, 4)


def under_a_device(x: Tensor) -> Tensor:
    with torch.device(x.device):
        return x + torch.randn(3, 4)


def without_autocast(x: Tensor) -> Tensor:
    with torch.autocast(device_type=x.device.type, enabled=False):
        return x + 1


def by_default(x: Tensor) -> Tensor:
    torch.set_default_device(x.device)
    try:
        return x + torch.ones(3, 4)
    finally:
        torch.set_default_device(None)


def asserting(x: Tensor) -> Tensor:
    time = torch.zeros(3, device=x.device)
    assert time.device == x.device == ELSEWHERE
    assert torch.zeros(3).device != x.device
    return time[:, None] + x


def differentiated(x: Tensor) -> Tensor:
    with torch.enable_grad():
        time = torch.rand(3, 4, device=x.device, requires_grad=True)
        return torch.autograd.grad((time * x).sum(), time)[0]


TAKEN: dict[str, Callable[[Tensor], object]] = {
    "zeros_like": lambda x: x + torch.zeros_like(x),
    "device of x": lambda x: x + torch.zeros(3, 1, device=x.device),
    "device as text": lambda x: x + torch.zeros(3, 1, device=str(x.device)),
    "moved": lambda x: x + torch.zeros(3, 1).to(x.device),
    "moved and cast": lambda x: x + torch.zeros(3, 1).to(x.device, torch.float64),
    "moved to a tensor": lambda x: x + torch.zeros(3, 1).to(x),
    "type of x": lambda x: x + torch.zeros(3, 1).type_as(x),
    "there and back": lambda x: x.to("cpu").to(x.device),
    "a number of the CPU": lambda x: x * torch.tensor(2.0),
    "a number of the CPU in where": lambda x: torch.where(x > 0, x, torch.tensor(0.0)),
    "new_full": lambda x: x.new_full((3, 1), 2.0) * x,
    "pad": lambda x: F.pad(x, (1, 0)),
    "stacked numbers": lambda x: torch.stack([x.sum(), x.mean()]),
    "cat": lambda x: torch.cat([x, x.new_ones(1, 4)]),
    "unbound": lambda x: torch.stack([row * 2 for row in x]),
    "values read": lambda x: torch.tensor([float(v) for v in x[0]], device=x.device) + x,
    "numpy": lambda x: torch.from_numpy(x.cpu().numpy()).to(x.device),
    "generator": lambda x: x + torch.randn(x.shape, device=x.device, generator=torch.Generator(x.device)),
    "distribution": lambda x: torch.distributions.Normal(x, x.new_ones(())).sample(),
    "in place": lambda x: x.clone().add_(torch.ones_like(x)),
    "copied over": lambda x: torch.empty_like(x).copy_(torch.ones(3, 4)),
    "CPU indices": lambda x: x[torch.tensor([0, 1])],
    "named results": lambda x: x.max(dim=1).values[:, None] * x,
    "no_grad": torch.no_grad()(lambda x: x.mul(2)),
    "with a device": under_a_device,
    "autocast off": without_autocast,
    "default device": by_default,
    "assertions": asserting,
    "gradients": differentiated,
}
REFUSED: dict[str, Callable[[Tensor], object]] = {
    "zeros": lambda x: x + torch.zeros(3, 1),
    "the CPU by name": lambda x: x * torch.zeros(3, 4, device="cpu"),
    "result": lambda x: torch.zeros(3),
    "result on the CPU": lambda x: x.cpu(),
    "result of numbers": lambda x: torch.tensor(list(x[0])),
    "mask": lambda x: torch.where(torch.rand(3, 4) < 0.5, 0.0, x),
    "masked_fill": lambda x: x.masked_fill(torch.rand(3, 4) < 0.5, 3),
    "cat": lambda x: torch.cat([torch.ones(1, 4), x]),
    "stacked numbers": lambda x: torch.stack([torch.tensor(1.0), x.sum()]),
    "in place": lambda x: torch.zeros(3, 4).add_(x),
    "gather": lambda x: x.gather(0, torch.zeros(1, 4, dtype=torch.int64)),
    "distribution": lambda x: torch.distributions.Bernoulli(0.5).sample(x.shape) * x,
    "values read": lambda x: torch.tensor([float(v) for v in x[0]]) + x,
    "numpy": lambda x: torch.from_numpy(x.numpy()) + 1,
}


@pytest.fixture(autouse=True)
def _no_mode_is_left() -> Iterator[None]:
    yield
    assert X.device == torch.device("cpu")
    assert type(X + 1) is Tensor


@pytest.mark.parametrize("name", TAKEN)
def test_what_a_gpu_takes_is_taken(name: str) -> None:
    assert type(call(TAKEN[name], X)) is Tensor


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_gpu_refuses_is_refused(name: str) -> None:
    with pytest.raises(RuntimeError, match="on the same device"):
        call(REFUSED[name], X)


def test_functions_take_and_give_tensors_of_that_device() -> None:
    def add(x: Tensor, time: Tensor) -> Tensor:
        assert type(x) is type(time) is Tensor
        return x + time

    testing = torch.testing.assert_close
    testing(call(lambda f, x: f(x, torch.ones(3, 1, device=x.device)) + x, add, X), 2 * X + 1)
    testing(call(lambda f, x: f(x, time=torch.tensor(1.0)), add, X), X + 1)
    with pytest.raises(RuntimeError, match="a function is called with tensors on cpu"):
        call(lambda f, x: f(x, torch.ones(3, 1)), add, X)


def test_the_module_of_a_method_moves_with_its_buffers_and_what_stands_for_its_methods() -> None:
    class Scaled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("scale", torch.tensor([1.0, 2.0, 3.0, 4.0]))

        def scaled(self, x: Tensor, by: Tensor) -> Tensor:
            return self.scale * x * by

        def right(self, x: Tensor) -> Tensor:
            return self.scaled(x, torch.ones(1, device=x.device))

        def wrong(self, x: Tensor) -> Tensor:
            return self.scaled(x, torch.ones(1))

    for stand_in in (None, lambda x, by: x * by):
        module = Scaled()
        if stand_in:
            module.scaled = stand_in  # type: ignore[method-assign]
        assert call(module.right, X).shape == X.shape
        with pytest.raises(RuntimeError, match="on the same device"):
            call(module.wrong, X)


def test_where_a_tensor_of_vmap_is_cannot_be_told() -> None:
    with pytest.raises(RuntimeError, match="cannot be told"):
        call(lambda x: torch.vmap(lambda row: row + torch.ones(4))(x), X)

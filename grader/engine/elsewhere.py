"""Another device, played by tensors in this machine's memory: what happens when some tensors are there and some not.

Machines that grade have one device, where code cannot fail by making a tensor on the wrong one. Here tensors are
marked as being on the device ELSEWHERE, and compute as all others do. A function that is given tensors of both devices
raises what torch raises on a GPU. Worker side: student code runs in it.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _device
from torch.utils._pytree import tree_leaves, tree_map_only

ELSEWHERE, HERE = torch.device("cpu:0"), torch.device("cpu")  # equal only to themselves, and both can compute
# What takes a tensor of another device; of most of them it takes the shape or the type alone.
ACROSS = {
    Tensor.to, Tensor.cpu, Tensor.copy_, Tensor.type_as, Tensor.__getitem__, Tensor.__setitem__, Tensor.index_put_,
    Tensor.view_as, Tensor.reshape_as, Tensor.expand_as, Tensor.is_same_size, Tensor.is_set_to,
    torch.broadcast_tensors, torch.is_same_size, torch.result_type, torch.tensor, torch.as_tensor,
}  # fmt: skip
# What takes no number, a tensor without axes, of the CPU beside tensors of another device; operators do.
STACKING = {torch.stack, torch.cat, torch.concat, torch.concatenate, torch.hstack, torch.vstack, torch.dstack}


class Marked(Tensor):
    """A tensor on the device ELSEWHERE."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]


class OtherDevice(TorchFunctionMode):
    """Keeps account of which tensors are on ELSEWHERE, while it is entered."""

    def __torch_function__(
        self, function: Callable, types: object, arguments: tuple = (), keywords: dict[str, Any] | None = None
    ) -> Any:
        """Call a function of torch, and mark the tensors it gives where they would be on the other device."""
        keywords = keywords or {}
        given = [x for x in tree_leaves((arguments, keywords)) if isinstance(x, Tensor)]
        marked = any(isinstance(x, Marked) for x in given)
        if function == Tensor.device.__get__:  # which is made again each time, and not the same object
            return ELSEWHERE if marked else HERE
        if any(torch._C._functorch.is_functorch_wrapped_tensor(x) for x in given):
            raise RuntimeError("Where a tensor of torch.func or torch.vmap is cannot be told.")
        if marked and function not in ACROSS:
            expect_one_device(given, numbers_too=function in STACKING)
        result = function(*arguments, **keywords)
        marked = marked or (not given and _device.CURRENT_DEVICE == ELSEWHERE)
        return mark(result) if self._belongs_there(function, arguments, keywords, marked) else unmark(result)

    def _belongs_there(self, function: Callable, arguments: tuple, keywords: dict[str, Any], marked: bool) -> bool:
        """Whether what a function gives is on the other device."""
        asked = keywords.get("device")
        if function is Tensor.cpu:
            return False
        if function is Tensor.to and asked is None:
            asked = next((x for x in arguments[1:] if isinstance(x, torch.device | str | Tensor)), None)
        if function is Tensor.type_as:
            asked = arguments[1]
        if isinstance(asked, Tensor):
            return isinstance(asked, Marked)
        if asked is not None:
            return torch.device(asked) == ELSEWHERE
        if function in (Tensor.__setitem__, Tensor.__getitem__, Tensor.copy_, Tensor.expand_as, Tensor.view_as):
            return isinstance(arguments[0], Marked)
        if function is torch.tensor:  # of a list of numbers, wherever they are
            return isinstance(arguments[0] if arguments else keywords["data"], Marked)
        return marked


def expect_one_device(tensors: list[Tensor], numbers_too: bool = False, found: str = "") -> None:
    """Raise RuntimeError if some of the tensors are not on the other device.

    One without axes is a number, which may be on the CPU unless `numbers_too`. `found` says what is in the wrong place.
    """
    if any(not isinstance(x, Marked) and (x.dim() > 0 or numbers_too) for x in tensors):
        found = found or f"found at least two devices, {ELSEWHERE} and {HERE}"
        raise RuntimeError(f"Expected all tensors to be on the same device, but {found}!")


def mark(value: Any) -> Any:
    """The same with all tensors on the other device; they share memory."""
    return tree_map_only(Tensor, lambda x: x if isinstance(x, Marked) else x.as_subclass(Marked), value)


def unmark(value: Any) -> Any:
    """The same with all tensors on the CPU; they share memory."""
    return tree_map_only(Marked, lambda x: x.as_subclass(Tensor), value)


def call(function: Callable, *arguments: Any) -> Any:
    """Call something as if its arguments, and the module whose method it is, were on another device.

    Functions among the arguments take tensors of that device only, and give such.

    Raises:
        RuntimeError: where tensors of two devices meet, or a result is not on the other device.
    """
    with OtherDevice():
        module = getattr(function, "__self__", None)
        if isinstance(module, nn.Module):
            module.to(ELSEWHERE)
            for name, value in list(vars(module).items()):
                if isinstance(value, FunctionType):  # put in the place of a method
                    setattr(module, name, there(value))
        result = function(*[there(argument) for argument in arguments])
    tensors = [x for x in tree_leaves(result) if isinstance(x, Tensor)]
    expect_one_device(tensors, True, f"the result is on {HERE}, not on {ELSEWHERE}")
    return unmark(result)


def there(argument: Any) -> Any:
    """An argument on the other device."""
    if not callable(argument) or isinstance(argument, Tensor):
        return mark(argument)

    def on_device(*arguments: Any, **keywords: Any) -> Any:
        tensors = [x for x in tree_leaves((arguments, keywords)) if isinstance(x, Tensor)]
        expect_one_device(tensors, False, f"a function is called with tensors on {HERE}, not all on {ELSEWHERE}")
        with torch._C.DisableTorchFunction():
            given = unmark((arguments, keywords))
            return mark(argument(*given[0], **given[1]))

    return on_device

"""Parameters, buffers and states of student code: read where they are few enough, by names that lead nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from grader.engine.student import Built, Remote

from .expect import wrong

MOST_TENSORS, MOST_NUMBERS = 900, 2_000_000  # parameters and buffers that are read of a module
KEEP_STATE = "Leave state_dict, parameters and buffers as torch has them."


def inner_call(function: Remote, *arguments: Any) -> Built:
    """A call whose result is an argument of another, and keeps its gradients that way."""
    named: dict[str, Any] = {str(i): argument for i, argument in enumerate(arguments)}
    return Built(function, named)


def expect_readable(module: Remote, what: str) -> None:
    """Expect a module of no more parameters and buffers, and numbers in them, than are read. Raises Failure."""
    there = module._student
    every = inner_call(there.itertools.chain, inner_call(module.parameters), inner_call(module.buffers))
    counted = inner_call(there.builtins.map, there.torch.numel, every)
    sizes = there.torch.tensor(inner_call(there.builtins.list, counted))
    if not isinstance(sizes, Tensor):
        raise wrong(f"{what} has no parameters and buffers to be read.", KEEP_STATE)
    count, numbers = sizes.numel(), float(sizes.double().nan_to_num().sum())
    if count > MOST_TENSORS or numbers > MOST_NUMBERS:
        raise wrong(
            f"{what} has {count:,} parameters and buffers with {numbers:,.0f} numbers; at most {MOST_TENSORS:,} with "
            f"{MOST_NUMBERS:,} are read.",
            "Make no more layers, and no larger ones, than the question asks for.",
        )


def expect_state(value: Any, what: str, shapes: Mapping[str, tuple[int, ...]] | None = None) -> dict[str, Tensor]:
    """`value`, if it is a state: finite tensors by name; raises Failure if it is not.

    Args:
        value: what a state_dict gave.
        what: whose state it is, to begin a sentence with.
        shapes: by the names that are needed, all others being left out; by default everything is needed as it is.
    """
    if not isinstance(value, dict) or not value:
        raise wrong(f"{what} is not a dict of tensors by name.", KEEP_STATE)
    return {name: _finite(value.get(name), (shapes or {}).get(name), f"{what}: {name}") for name in shapes or value}


def _finite(x: Any, shape: tuple[int, ...] | None, what: str) -> Tensor:
    """`x`, if it is a finite tensor, of a shape if one is given."""
    if x is None:
        raise wrong(f"{what} is missing.", KEEP_STATE)
    if not isinstance(x, Tensor):
        raise wrong(f"{what} is not a tensor.", KEEP_STATE)
    if shape is not None and tuple(x.shape) != shape:
        raise wrong(f"{what} has the shape {tuple(x.shape)}; {shape} is expected.", KEEP_STATE)
    if not bool(x.isfinite().all()):
        raise wrong(f"{what} is not finite.")
    return x

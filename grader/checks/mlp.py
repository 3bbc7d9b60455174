"""Fully connected networks, those of questions 1.1 and 1.3: what their layers are, and what lies between them.

How a network is written does not matter: its layers are told by the shapes of its parameters, and what lies between
them by what comes out once the parameters are numbers of the check's choice.

No draw and no initialisation makes a right network fail: values are compared at weights that the check draws, bounded
away from 0 and from where a ReLU closes; at the student's own, only shapes, ranges and a second call are.

What a network did wrong is looked for after it failed, by further calls of it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from grader.engine.student import (
    Built,
    Failure,
    Remote,
    Student,
    at_once,
    fetch,
    gather,
    later,
    observe,
    of,
    overwrite,
)
from grader.oracle.mlp import GAINS, MOST_LAYERS, draw_gains, name_activations, name_output

from .draw import Draw
from .expect import close, expect_unchanged, outputs, tensor, wrong
from .margins import within
from .states import expect_readable, inner_call

X_SHAPE, X_DIM, Z_DIM, HIDDEN = (3, 4, 2), 24, 5, 16  # no two of 24, 5, 2 * 5 and 16 are the same
SIZES = [((1, 7, 6), 2, 12), ((3, 4, 2), 1, 20), ((1, 5, 1), 7, 9)]  # x_shape, z_dim, hidden_dim
BATCH = 6
MOST_HIDDEN = 12  # layers of a network, as the assignment says
FEWER = "One to three are enough for images as small as these."
SLOPE = 0.03  # by how much weights change, as a share of them, where what comes out is to change as its gradient says
OFF = 0.1  # by how much it may change otherwise, as a share: rounding to bfloat16 takes a tenth of it
MOST_SENT, MOST_SENT_NUMBERS = 800, 2_000_000  # tensors, and numbers in them, that one frame takes to the worker
NORMAL = "Normal takes a mean and a standard deviation, in this order; softplus makes the second positive."
CUT = "What comes out is cut off from the parameters: leave out detach, .data, no_grad and inference_mode."
SIGMOID = "A sigmoid belongs behind the last layer, with nothing between or behind them."
BOTH = "Both heads come after the same hidden layers, and neither is detached."
RECTIFIERS = "Each hidden layer is a Linear, and what comes out is computed from the last of them. Behind each comes "
INERT = 1e-4  # outputs that differ by less from image to image do not depend on the image
EXACT = 1e-5  # of the largest number: float32 loses a tenth of it in these networks, and float16 many times as much
SMALL = 1e-2  # of the largest number: computing in bfloat16 may change a number by as much
MODERATE, EXTREME = 2.0, 14.0  # logits that float32 tells from their probabilities, and logits that a clamp changes
CLAMP = 1e-5  # how far a clamp may keep probabilities away from 0 and 1
LARGE = 30.0  # how many times as large an input may become without being cut off
DIGITS = "It is nearly right: look for what rounds, like float16, bfloat16 and autocast, or cuts off a little."
AS_IT_IS = "The input enters the first layer as it is: nothing clamps, rounds or bends it before."
FLATTEN = "Each image of the batch must enter the first layer as one row of x_dim numbers: x.flatten(1)."
UNFLATTEN = "The numbers of an image must take the shape x_shape."
Run = Callable[[Tensor], Tensor]


# ---------------------------------------------------------------- layers


@dataclass(frozen=True)
class Plan:
    """The widths of a network: of its input, of its hidden layers, and those that its last layers may have."""

    what: str
    shape: tuple[int, ...]
    outputs: tuple[int, ...]
    hidden: int = HIDDEN

    @property
    def inputs(self) -> int:
        """Numbers of an input, whose shape is `shape`."""
        return math.prod(self.shape)

    def is_weight(self, parameter: Tensor) -> bool:
        """Whether this (n, m) connects layers. A row (1, n) is a bias, unless a layer may be one unit wide."""
        return parameter.ndim > 1 and (min(parameter.shape) > 1 or 1 in self.outputs)

    def is_first(self, parameter: Tensor) -> bool:
        """Whether this is the weight of a layer from the input to hidden units."""
        return sorted(parameter.shape) == sorted((self.inputs, self.hidden))

    def is_middle(self, parameter: Tensor) -> bool:
        """Whether this is the weight of a layer between hidden units."""
        return tuple(parameter.shape) == (self.hidden, self.hidden)

    def is_last(self, parameter: Tensor) -> bool:
        """Whether this is the weight of a layer from hidden units to an output."""
        return any(sorted(parameter.shape) == sorted((width, self.hidden)) for width in self.outputs)


ENCODER = Plan("The encoder", X_SHAPE, (Z_DIM, 2 * Z_DIM))
DECODER = Plan("The decoder", (Z_DIM,), (X_DIM,))
GENERATOR = Plan("The generator", (Z_DIM,), (X_DIM,))
DISCRIMINATOR = Plan("The discriminator", X_SHAPE, (1,))


def plain(value: Any, what: str) -> Tensor:
    """`value` in float64 and its own shape, if it is a finite floating-point tensor. Raises Failure if not."""
    return tensor(value, tuple(value.shape) if isinstance(value, Tensor) else (), what)


def read_parameters(student: Student, module: Remote) -> dict[str, Tensor]:
    """The parameters of a network by name, in the order of `module.parameters()`, each in its own shape, float32."""
    expect_readable(module, "The network")
    named = student.builtins.dict(inner_call(module.named_parameters))
    if not isinstance(named, dict) or not named:
        raise wrong(
            "The network has no parameters.",
            "Make its layers in __init__, as attributes or in nn.Sequential or nn.ModuleList: in a plain Python list "
            "they are not part of the network.",
        )
    return {name: plain(x, f"The parameter {name}").float() for name, x in named.items()}


def expect_few_layers(parameters: Mapping[str, Tensor], plan: Plan) -> None:
    """Expect at most MOST_HIDDEN hidden layers."""
    hidden = sum(plan.is_weight(x) and (plan.is_first(x) or plan.is_middle(x)) for x in parameters.values())
    if hidden > MOST_HIDDEN:
        raise wrong(f"{plan.what} has {hidden} hidden layers; the assignment allows at most {MOST_HIDDEN}.", FEWER)


def expect_layers(parameters: Mapping[str, Tensor], plan: Plan, cut_off: Callable[[], list[str]] = list) -> None:
    """Expect layers of the widths of a plan, from its input to its output, with 1 to MOST_HIDDEN hidden layers.

    Args:
        parameters: those that gradients of what comes out reach.
        plan: the widths.
        cut_off: finds the parameters that what comes out is computed from, and that no gradient reaches.
    """
    expect_few_layers(parameters, plan)
    weights = {name: x for name, x in parameters.items() if plan.is_weight(x)}
    for name, x in weights.items():
        if not (plan.is_first(x) or plan.is_middle(x) or plan.is_last(x)):
            widths = " or ".join(map(str, plan.outputs))
            raise wrong(
                f"{plan.what} has {plan.inputs} inputs, hidden layers of hidden_dim = {plan.hidden} units and "
                f"{widths} output{'' if widths == '1' else 's'}; the shape {tuple(x.shape)} of {name} belongs nowhere "
                "between them.",
                explain_width(tuple(x.shape), plan),
            )
    first = sum(plan.is_first(x) for x in weights.values())
    if not first or not any(plan.is_last(x) for x in weights.values()):
        where = f"from its {plan.inputs} inputs to" if not first else "that lead to what comes out, from"
        cut = cut_off()
        raise wrong(
            f"{plan.what} uses no parameters {where} hidden_dim = {plan.hidden} units that gradients reach.",
            f"{listed(cut)}: it is used, but cut off from what comes out. Leave out detach, .data and no_grad."
            if cut
            else "The layer is not part of the network: it is in a plain Python list, or made outside __init__. Make "
            "it in __init__, as an attribute or in nn.Sequential or nn.ModuleList.",
        )
    if first > 1:
        raise wrong(f"{plan.what} has {first} layers that take its {plan.inputs} inputs; one is expected.")


def explain_width(shape: tuple[int, ...], plan: Plan) -> str:
    """Why the weights of a layer belong nowhere in a plan."""
    if any(sorted(shape) == sorted((plan.inputs, width)) for width in plan.outputs):
        return "It goes from the inputs to the outputs at once: at least one hidden layer belongs between them."
    if set(shape) <= set(plan.outputs):
        return "It comes behind another output layer: each output is computed from the last hidden layer alone."
    odd = sorted(set(shape) - {plan.inputs, plan.hidden, *plan.outputs})
    if odd:
        return f"All hidden layers have hidden_dim = {plan.hidden} units; this one is {odd[-1]} wide."
    return "Every layer but the first takes what comes out of the one before it."


def expect_depth(circuit: Circuit, depth: int) -> None:
    """Expect that many hidden layers."""
    plan, count = circuit.plan, len(circuit.hidden)
    if count == depth:
        return
    hint = "The heads come after the hidden layers and do not count."
    with suppressed():
        # positive units: what comes out is proportional to each layer's weights, or to a power of them
        before = float(circuit.chain()[0, 0])
        for name in circuit.hidden:
            if abs(float(circuit.chain({name: 2.0})[0, 0]) / before - 4) < 1e-2:
                hint = f"{layer(name)} is used twice, which makes it a single layer: make an nn.Linear for each."
    raise wrong(
        f"{plan.what} has {count} hidden layer{'s' if count > 1 else ''} of hidden_dim = {plan.hidden} units; "
        f"{depth} are expected.",
        hint,
    )


class Circuit:
    """A network of positive hidden weights, no biases, and for each output last weights of one sign.

    Positive inputs make every hidden unit positive, so that no ReLU is closed. Where the weights of one hidden layer
    change their sign, all of its units are negative, and a ReLU behind them lets nothing through. Every output is plus
    or minus a sum of hidden units, 1/2 to 9/2 times their mean: whatever is drawn, none comes near 0.

    Args:
        module: the network in the worker.
        parameters: those of it that what comes out depends on, in their own shapes.
        plan: the widths of its layers.
        draw: of the weights.
        run: takes inputs (B, *plan.shape) and gives what comes out, (B, n) or of the shape of an image.
    """

    def __init__(self, module: Remote, parameters: Mapping[str, Tensor], plan: Plan, draw: Draw, run: Run):
        self.module = module
        self.plan = plan
        self.run = run
        weights = {name: x for name, x in parameters.items() if plan.is_weight(x)}
        self.last = {name for name, x in weights.items() if set(x.shape) & set(plan.outputs)}
        self.hidden = [name for name in weights if name not in self.last]
        self.weights = {name: self._draw(name, x, plan, draw) for name, x in parameters.items()}
        self.tensors = gather(module, [of(module, name).data for name in parameters])

    def _draw(self, name: str, parameter: Tensor, plan: Plan, draw: Draw) -> Tensor:
        weights = draw.uniform(0.5, 1.5, *parameter.shape)
        if name in self.last:
            row = [width if width in plan.outputs else 1 for width in parameter.shape]
            signs = draw.integers(2, *row) * 2 - 1
            return weights * signs * draw.uniform(1.0, 3.0, *row) * max(row) / parameter.numel()
        if name in self.hidden:
            return weights / parameter.numel() ** 0.5
        is_gain = parameter.ndim == 1 and name.endswith("weight")  # of a norm, or the slope of a PReLU
        return parameter if is_gain else torch.zeros_like(parameter)

    def set(self, factors: Mapping[str, float | Tensor] | None = None) -> None:
        """Give the network its weights, some of them times a factor."""
        factors = factors or {}
        overwrite(self.module, self.tensors, [x * factors.get(name, 1.0) for name, x in self.weights.items()])

    def respond(self, inputs: Tensor, factors: Mapping[str, float | Tensor] | None = None) -> Tensor:
        """What comes out of `inputs` (B, *plan.shape), as `run` gives it, with some of the weights times a factor."""
        self.set(factors)
        return self.run(inputs)

    def respond_each(self, inputs: Tensor, cases: Iterable[Mapping[str, float | Tensor]]) -> Iterator[Tensor]:
        """`respond` with the factors of each case, as many at once as one frame takes."""
        steps = [partial(self.respond, inputs, factors) for factors in cases]
        numbers_each = inputs.numel() + sum(x.numel() for x in self.weights.values())
        most = max(1, min(MOST_SENT // (1 + len(self.weights)), MOST_SENT_NUMBERS // numbers_each))
        for first in range(0, len(steps), most):
            yield from at_once(self.module, steps[first : first + most])

    def respond_to_last(self, inputs: Tensor, factor: float) -> Tensor:
        """`respond` with the weights of the last layers times a factor."""
        return self.respond(inputs, self.last_times(factor))

    def last_times(self, factor: float) -> dict[str, float | Tensor]:
        """The case of a factor for the weights of the last layers."""
        return dict.fromkeys(self.last, factor)

    def through(self, view: Run) -> Circuit:
        """The same network, of which `view` is seen."""
        twin = copy(self)
        twin.run = lambda inputs: view(self.run(inputs))
        return twin

    def moderate(self, inputs: Tensor) -> Circuit:
        """The same network with last weights that make MODERATE the largest logit of what comes out of `inputs`."""
        twin = copy(self)
        factor = MODERATE / max(INERT, float(logits(self.respond(inputs)).abs().max()))
        twin.weights = {name: x * factor if name in self.last else x for name, x in self.weights.items()}
        return twin

    def chain(self, gains: Mapping[str, float] | None = None, last: float = 1.0) -> Tensor:
        """What comes out where every unit takes the mean of those before it, times a gain.

        Of two inputs of ones, (2, *plan.shape); last layers have the gain `last`, hidden ones 1 if nothing is said.
        """
        gains = gains or {}
        weights = []
        for name, x in self.weights.items():
            if name in self.hidden:
                before = self.plan.inputs if self.plan.is_first(x) else self.plan.hidden
                weights.append(torch.full_like(x, gains.get(name, 1.0) / before))
            elif name in self.last:
                weights.append(torch.full_like(x, last / self.plan.hidden))
            else:
                weights.append(x)
        overwrite(self.module, self.tensors, weights)
        return self.run(torch.ones(2, *self.plan.shape))


def listed(names: Iterable[str]) -> str:
    """Names, as in a, b and c."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def layer(name: str) -> str:
    """The name of the layer that a weight belongs to."""
    return name.removesuffix(".weight")


@contextmanager
def suppressed() -> Iterator[None]:
    """Look further into a failure, and leave it as it is if that fails too."""
    try:
        yield
    except Failure as failure:
        if failure.status not in ("wrong", "error"):  # the worker is gone
            raise


def positive(draw: Draw, *shape: int) -> Tensor:
    """Inputs of a shape (B, ...) in (0.5, 1), positive even if scaled to [-1, 1]; images differ in scale."""
    scale = torch.linspace(0.75, 1, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    return draw.uniform(0.7, 1, *shape) * scale


def variation(results: Tensor) -> float:
    """The most by which results (B, ...) of a batch differ from that of its first image."""
    return float((results - results[:1]).abs().max())


def expect_rectifiers(circuit: Circuit, inputs: Tensor, slope: float, named: str) -> None:
    """Expect a (leaky) ReLU behind every hidden layer.

    Negative weights in one hidden layer, or in two of them with the second undoing the first's sign, leave at most
    the slope of what came through before. Of any two neighbours the first is told this way, and the last alone.
    """
    groups = [*combinations(circuit.hidden, 1), *combinations(circuit.hidden, 2)]
    cases = [dict.fromkeys(names, -1.0) for names in groups]
    results = circuit.respond_each(inputs, [{}, *cases])
    open_units = next(results)
    total = variation(open_units)
    if total < INERT:
        raise wrong(f"{circuit.plan.what} gives the same for different inputs, whatever its weights.")
    responses = list(results)
    shares = [variation(response) / total for response in responses]
    share, names = max(zip(shares, groups, strict=True), key=lambda pair: pair[0])
    if not within("what comes through a closed ReLU", share / (slope + 1e-5)):
        where = f"{'behind' if len(names) == 1 else 'between'} {' and '.join(names)}"
        raise wrong(
            f"With positive inputs, no biases, and positive weights except in {' and '.join(names)}, {named} {where} "
            f"lets {'little' if slope else 'nothing'} through; {share:.0%} of the differences between inputs come "
            "through.",
            explain_activations(circuit, named)
            or explain_normalisation(circuit, inputs)
            or f"{RECTIFIERS}{named}, and no other activation or normalisation.",
        )
    for name, response in zip(circuit.hidden, responses, strict=False) if slope else ():  # those of one layer
        if bool((response * open_units > 1e-5).any()):
            raise wrong(
                f"Negative weights in {name} push the output to the same side as positive ones.",
                f"{named[0].upper()}{named[1:]} rises everywhere: its negative slope is not below 0.",
            )


def explain_activations(circuit: Circuit, named: str) -> str:
    """What comes behind the hidden layers where (leaky) ReLUs belong; "" if that is not known."""
    if len(circuit.hidden) > MOST_LAYERS:
        return ""
    gains = draw_gains(len(circuit.hidden))
    with suppressed():
        results = [circuit.chain(dict(zip(circuit.hidden, row, strict=True)))[0, 0] for row in gains.tolist()]
        found = dict(zip(circuit.hidden, name_activations(gains, torch.stack(results)), strict=False))
        behind: dict[str, list[str]] = {}
        for name, activation in found.items():
            if activation != "a ReLU" and not ("LeakyReLU" in activation and "LeakyReLU" in named):
                behind.setdefault(activation, []).append(layer(name))
        comes = "; ".join(f"{activation} comes behind {listed(names)}" for activation, names in behind.items())
        return f"{comes[0].upper()}{comes[1:]}; {named} belongs there." if comes else ""
    return ""


def explain_normalisation(circuit: Circuit, inputs: Tensor) -> str:
    """Behind which hidden layer comes what undoes a factor of its weights; "" if there is none."""
    with suppressed():
        before = circuit.respond(inputs)
        for name in circuit.hidden:
            if close(circuit.respond(inputs, {name: 2.0}), before, 2e-2, 1e-4):
                return (
                    f"What comes out is the same with the weights of {layer(name)} times 2: a normalisation comes "
                    "behind it, leave it out."
                )
    return ""


def explain_output(circuit: Circuit) -> str:
    """What comes behind the last layer where a sigmoid belongs; "" if that is not known. The circuit gives images."""
    with suppressed():
        if circuit.plan.outputs == (1,):
            chances = torch.cat([circuit.chain(last=gain) for gain in GAINS])
            if bool((chances == 1).all()):
                return "It is 1 whatever the weights: a softmax of a single number is always 1. Use a sigmoid."
        else:
            images = circuit.respond(torch.ones(2, *circuit.plan.shape))
            if close(images.sum(1), torch.ones(2), atol=1e-5):
                return (
                    "The pixels of an image sum to 1: a softmax comes behind the last layer, where a sigmoid belongs."
                )
        results = torch.stack([circuit.chain(last=gain)[0, 0] for gain in GAINS])
        return name_output(results, len(circuit.hidden))
    return ""


def expect_sigmoid(circuit: Circuit, inputs: Tensor, what: str) -> None:
    """Expect a sigmoid of a linear layer: logits, MODERATE at most, are proportional to the weights of the layer."""
    factors = (1.0, -1.0, 0.3, EXTREME / MODERATE, -EXTREME / MODERATE)
    results = circuit.respond_each(inputs, [circuit.last_times(factor) for factor in factors])
    before = logits(next(results))
    for factor, response in zip(factors[1:], results, strict=True):
        expected = (factor * before).sigmoid()
        if not close(response.clamp(CLAMP, 1 - CLAMP), expected.clamp(CLAMP, 1 - CLAMP), 0, EXACT):
            raise wrong(
                f"{what}: with the weights of the last layer times {factor:g}, its logits, log p / (1 - p), do not "
                f"become {factor:g} times what they were.",
                explain_output(circuit) or explain_bounds(circuit, inputs) or explain_digits(expected, response),
            )


def explain_bounds(circuit: Circuit, inputs: Tensor) -> str:
    """Between which numbers probabilities stay whose logits are as large as EXTREME; "" if they come near 0 and 1."""
    with suppressed():
        found = torch.cat([circuit.respond_to_last(inputs, sign * EXTREME / MODERATE) for sign in (1, -1)])
        low, high = float(found.min()), float(found.max())
        if low > CLAMP and high < 1 - CLAMP:
            return (
                f"With logits from -{EXTREME:g} to {EXTREME:g} it stays between {low:.3g} and {high:.3g}: leave out "
                "what keeps it there, such as a clamp. A clamp at 1e-5 at most is allowed."
            )
    return ""


def explain_digits(expected: Tensor, found: Tensor, otherwise: str = SIGMOID) -> str:
    """What to say of numbers that are not right: that they are nearly, or something else."""
    off = float((found - expected).abs().max() / expected.abs().max())
    return DIGITS if off < SMALL else otherwise


def expect_every_input(circuit: Circuit, inputs: Tensor, what: str, name: Callable[[int], str]) -> None:
    """Expect a linear function of the input, in which every number counts, as long as every unit is open.

    Args:
        circuit: gives what is linear, (B, n).
        inputs: (B, *plan.shape), positive even if scaled to [-1, 1].
        what: what comes out, at the beginning of a sentence.
        name: names a number of an input, counted from 0.
    """
    count = circuit.plan.inputs
    corners = torch.cat([torch.ones(1, count), 1 - torch.eye(count)])
    results = circuit.respond(torch.cat([corners.reshape(-1, *circuit.plan.shape), inputs]))
    effects = results[:1] - results[1 : count + 1]
    scale = float(results[0].abs().max())
    idle = [name(i) for i, effect in enumerate(effects) if float(effect.abs().max()) < 0.02 * scale / count]
    if idle:
        raise wrong(
            f"{what} does not change with {listed(idle[:3])}{', among others' if idle[3:] else ''}, with weights that "
            "make every number of the input count.",
            "Every number of the input must enter the first layer.",
        )
    expected, found = results[:1] - (1 - rows(inputs).double()) @ effects, results[count + 1 :]
    if not close(found, expected, 0, EXACT * scale):
        raise wrong(
            f"{what} is not a linear function of the input, though with positive inputs and weights, and no biases, "
            "no ReLU is closed.",
            explain_digits(expected, found, AS_IT_IS),
        )


def expect_any_size(circuit: Circuit, inputs: Tensor, what: str, factors: Sequence[float] = ()) -> None:
    """Expect what is linear to stay the same where one factor undoes another.

    Args:
        circuit: gives what is linear, (B, n).
        inputs: (B, *plan.shape), positive.
        what: what comes out, at the beginning of a sentence.
        factors: of the input, whose inverse the first layer takes.
    """
    first = next(name for name in circuit.hidden if circuit.plan.is_first(circuit.weights[name]))
    cases = [partial(circuit.respond, factor * inputs, {first: 1 / factor}) for factor in (1.0, *factors)]
    cases.append(partial(circuit.respond, inputs, {first: LARGE} | circuit.last_times(1 / LARGE)))
    before, *others, through = at_once(circuit.module, cases)
    allowed = EXACT * float(before.abs().max())
    for factor, result in zip(factors, others, strict=True):
        if not close(result, before, 0, allowed):
            raise wrong(
                f"{what} changes where the input takes the factor {factor:g} and the weights of the first layer are "
                f"divided by {factor:g}, with positive inputs and weights and no biases.",
                explain_digits(before, result, AS_IT_IS),
            )
    if not close(through, before, 0, allowed):
        raise wrong(
            f"{what} changes where the weights of the first layer take the factor {LARGE:g} and those of the last "
            f"are divided by {LARGE:g}, with positive inputs and weights and no biases.",
            explain_digits(before, through, "A hidden unit may be of any size: no clamp and no ReLU6 behind a layer."),
        )


def expect_alone(module: Remote, call: Run, inputs: Tensor, what: str) -> None:
    """Expect the same at every call, in either mode, and each image of a batch by itself.

    Args:
        module: the network in the worker.
        call: gives what is compared.
        inputs: BATCH of them.
        what: what is called, at the beginning of a sentence.
    """
    counts = (BATCH // 2, 1)
    results = at_once(module, [partial(call, inputs[:count]) for count in (BATCH, BATCH, *counts, BATCH)])
    together = next(results)
    rounding = 1e-5 * max(1.0, float(together.abs().max()))
    for count, result in zip((BATCH, *counts, BATCH), results, strict=True):
        if close(result, together[:count], atol=rounding):
            continue
        if count == BATCH:
            raise wrong(
                f"{what} gives something else when it is called again with the same input.",
                explain_chance(module, call, inputs),
            )
        raise wrong(
            f"{what} gives something else for the first {count} of {len(inputs)} when the others are left out.",
            explain_influence(module, call, inputs, count),
        )
    if fetch(module.training)[0] is not True:
        raise wrong(f"{what} leaves the network in evaluation mode.", "Leave out eval() and train(False).")
    later(module.eval)
    evaluated = call(inputs)
    later(module.train)
    if not close(evaluated, together, atol=rounding):
        raise wrong(f"{what} gives something else after .eval().", "Nothing here depends on the mode of the network.")


def expect_kept(function: Remote, name: str, inputs: Tensor) -> None:
    """Expect that a call of `function` leaves its argument, called `name`, as it was."""
    expect_unchanged(observe(function, {name: inputs}, differentiate=False), {name: inputs})


def explain_chance(module: Remote, call: Run, inputs: Tensor) -> str:
    """Why calls with the same input differ."""
    with suppressed():
        before = call_seeded(module, call, inputs)
        call(inputs[-1:].expand_as(inputs))
        if not close(call_seeded(module, call, inputs), before, 0, 1e-6):
            return "A call changes what the next one gives: keep nothing in self from call to call."
        alike = call(inputs[:1].expand_as(inputs))
        if close(alike, alike[:1].expand_as(alike), atol=1e-6):
            return (
                "Inputs that are alike get the same within one call, and something else in the next: a layer, or a "
                "random number, is made in every call. Make all layers in __init__, and draw nothing."
            )
        module.eval()
        if close(call(inputs), call(inputs)):
            return "After .eval() it does not: leave out the dropout."
    return "Noise is drawn for each input: leave out sampling and dropout."


def call_seeded(module: Remote, call: Run, inputs: Tensor) -> Tensor:
    """`call(inputs)`, with the generators of the worker seeded before."""
    seed(module._student)
    return call(inputs)


def seed(student: Student) -> None:
    """Seed the generators of the worker, before the next request with a result."""
    for function in (student.torch.manual_seed, student.numpy.random.seed, student.random.seed):
        later(function, 0)


def explain_influence(module: Remote, call: Run, inputs: Tensor, count: int) -> str:
    """Why the first `count` images of a batch are influenced by the others, where no larger part of it is."""
    with suppressed():
        pairs = torch.cat([call(pair) for pair in inputs.split(2)])
        if count == 1 and close(pairs, call(inputs), atol=1e-4):
            return "An image by itself is treated in another way than one of several: leave out special cases."
    with suppressed():
        order = find_order(torch.cat([call(image) for image in inputs.split(1)]), call(inputs))
        if order:
            return f"{order} Keep the order of the batch."
    with suppressed():
        together = call(inputs)
        if close(together.sum(0), torch.ones_like(together[0]), atol=1e-4):
            return "What comes out sums to 1 over the batch: a softmax takes the batch for its axis."
        if close(call(inputs.flip(0)), together.flip(0), atol=1e-4):
            module.eval()
            if close(call(inputs[:count]), call(inputs)[:count], atol=1e-4):
                return "After .eval() it does not: leave out the batch normalisation."
            return (
                "It matters which images are in the batch, and not in which order: something is computed over the "
                "whole batch, like a mean, a minimum or a maximum. Leave it out, or compute it for each image."
            )
    return "Numbers of different images are mixed up: the first axis stays the batch in every reshape and transpose."


def find_order(alone: Tensor, together: Tensor) -> str:
    """In which order results (B, ...) come, if in another than those of each input alone; "" if they do not."""
    if close(together, alone.flip(0), atol=1e-4):
        return "The results of a batch come in reverse order."
    order = torch.cdist(rows(together), rows(alone)).argmin(1)
    if len(order.unique()) == len(alone) and close(together, alone[order], atol=1e-4):
        return f"The results of a batch come in another order, {order.tolist()} in place of {sorted(order.tolist())}."
    return ""


def expect_shape(value: Any, shape: tuple[int, ...], what: str, hints: Mapping[tuple[int, ...], str]) -> Tensor:
    """Expect a tensor of a shape; `hints` say what was done to get another."""
    if isinstance(value, Tensor) and tuple(value.shape) != shape:
        got = tuple(value.shape)
        raise wrong(f"{what} has the shape {got}; {shape} is expected.", hints.get(got, ""))
    return tensor(value, shape, what)


def expect_probabilities(
    value: Any, shape: tuple[int, ...], what: str, hints: Mapping[tuple[int, ...], str] | None = None
) -> Tensor:
    """Expect a tensor of a shape between 0 and 1."""
    result = expect_shape(value, shape, what, hints or {})
    low, high = float(result.min()), float(result.max())
    if low < 0 or high > 1:
        raise wrong(f"{what} holds {low if low < 0 else high:.4g}, which is not between 0 and 1.", SIGMOID)
    return result


def image_hints(batch: int, x_shape: tuple[int, ...]) -> dict[tuple[int, ...], str]:
    """What was done to get images of other shapes."""
    return {
        x_shape: "The axis of the batch is gone where it has a single image: leave out squeeze().",
        (batch, math.prod(x_shape)): "The images are flat: give each the shape x_shape.",
    }


@contextmanager
def sizes_explained(
    batch: int, x_shape: tuple[int, ...], z_dim: int | None = None, takes_images: bool = False
) -> Iterator[None]:
    """Say what a layer, or a reshape, of a fixed size was given, in a network that takes images or gives them."""
    try:
        yield
    except Failure as failure:
        hint = failure.hint or explain_size(failure.message, batch, x_shape, z_dim, takes_images)
        raise failure.told(hint) from None


def explain_size(
    message: str, batch: int, x_shape: tuple[int, ...], z_dim: int | None = None, takes_images: bool = False
) -> str:
    """Why torch could not multiply, or reshape, where a batch of images or latent variables came in."""
    x_dim = math.prod(x_shape)
    here = f"x_shape is {x_shape} here, x_dim is {x_dim}{f', z_dim is {z_dim}' if z_dim else ''}"
    product = re.search(r"cannot be multiplied \((\d+)x(\d+) and (\d+)x\d+\)", message)
    if product:
        rows, given, takes = map(int, product.groups())
        if rows != batch:
            return FLATTEN
        layer_of = f"A layer of {takes} input{'s' if takes > 1 else ''}"
        return f"{layer_of} is given {given} numbers. {here}: give the layer its size by these names."
    reshape = re.search(r"shape '\[.*\]' is invalid for input of size (\d+)", message)
    if reshape:
        numbers_each = int(reshape[1]) // batch
        if numbers_each == x_dim:
            return f"{FLATTEN if takes_images else UNFLATTEN} {here}."
        return "" if takes_images else f"The last layer gives {numbers_each} numbers for an image, not x_dim. {here}."
    return ""


def logits(probabilities: Tensor) -> Tensor:
    """log p / (1 - p) of probabilities (B, ...), as (B, n)."""
    return rows(probabilities).logit(eps=1e-9)


def pixel_name(number: int, shape: tuple[int, ...]) -> str:
    """A pixel of an image of a shape (C, H, W), counted from 0 in the order of memory."""
    channel, row, column = (int(place) for place in torch.unravel_index(torch.tensor(number), shape))
    return f"the pixel [{channel}, {row}, {column}]"


def rows(results: Tensor) -> Tensor:
    """Results (B, ...) as (B, n)."""
    return results.reshape(len(results), -1)


# ---------------------------------------------------------------- gradients


def find_gradients(
    student: Student,
    module: Remote,
    parameters: Mapping[str, Tensor],
    result: Remote | Built,
    weights: Tensor,
    what: str,
) -> list[Tensor | None]:
    """The gradient of (result * weights).sum() by each parameter; None where a parameter was not used."""
    there = student.torch
    total = inner_call(there.sum, inner_call(there.mul, result, weights))
    try:
        found = there.autograd.grad(total, inner_call(module.parameters), retain_graph=True, allow_unused=True)
    except Failure as failure:
        if "does not require grad" not in failure.message:
            raise
        for name in parameters:
            if not fetch(of(module, name).requires_grad)[0]:
                raise wrong(
                    f"The parameter {name} does not require a gradient, so that it never learns.",
                    "It is frozen: leave out requires_grad_(False) and requires_grad=False.",
                ) from None
        raise wrong(f"There is no gradient of {what} by the parameters of the network.", CUT) from None
    found = outputs(found, len(parameters), "The gradient")
    return [
        None if gradient is None else tensor(gradient, tuple(x.shape), f"The gradient by {name}")
        for (name, x), gradient in zip(parameters.items(), found, strict=True)
    ]


def used_parameters(
    student: Student, module: Remote, weights: Tensor, results: Mapping[str, Remote | Built]
) -> dict[str, Tensor]:
    """Those parameters that results, by what they are, depend on. All of them are shaped like `weights`."""
    parameters = read_parameters(student, module)
    found = [find_gradients(student, module, parameters, result, weights, what) for what, result in results.items()]
    columns = zip(parameters.items(), *found, strict=True)
    return {name: x for (name, x), *gradients in columns if any(g is not None for g in gradients)}


def matters(module: Remote, name: str, parameter: Tensor, run: Callable[[], Tensor]) -> bool:
    """Whether what comes out changes with a parameter."""
    before = run()
    module.load_state_dict(
        {name: parameter + torch.linspace(0.5, 1.5, parameter.numel()).reshape(parameter.shape)}, False
    )
    changed = not close(before, run())
    module.load_state_dict({name: parameter}, False)
    return changed


def find_cut_off(
    module: Remote, parameters: Mapping[str, Tensor], used: Mapping[str, Tensor], run: Callable[[], Tensor]
) -> list[str]:
    """The parameters that no gradient reaches, as those used are reached, and that what comes out changes with."""
    found: list[str] = []
    with suppressed():
        if close(run(), run()):
            found = [name for name, x in parameters.items() if name not in used and matters(module, name, x, run)]
    return [name for name in found if name.endswith("weight")] or found


def expect_trained(
    module: Remote,
    parameters: Mapping[str, Tensor],
    gradients: Iterable[Tensor | None],
    by: str,
    run: Callable[[], Tensor],
) -> None:
    """Expect a gradient for every parameter; `run` gives what comes out of the network."""
    for (name, x), gradient in zip(parameters.items(), gradients, strict=True):
        if gradient is not None and bool(gradient.any()):
            continue
        hint = "Every layer that is made is used, each once, and nothing on the way is detached."
        with suppressed():
            if gradient is not None:
                hint = (
                    "With positive inputs and weights, what comes out does not change with it: what lies behind it is "
                    "flat there, as a closed ReLU is, or a softmax of a single number."
                )
            elif close(run(), run()):
                hint = (
                    "What comes out is computed from it, but cut off: leave out detach, .data and no_grad."
                    if matters(module, name, x, run)
                    else "It is never used: every layer that is made has its place in what is computed."
                )
        raise wrong(f"The parameter {name} gets no gradient from {by}, so that it never learns.", hint)


def expect_slope(
    circuit: Circuit, inputs: Tensor, gradients: Mapping[str, Tensor | None], weights: Tensor, by: str
) -> None:
    """Expect that (result * weights).sum() grows with the weights of the last layers as its gradients say.

    What a network draws at random it draws with the generators as they are after `seed`, as for its gradients.

    Args:
        circuit: gives the result.
        inputs: (B, *plan.shape).
        gradients: by parameter, at the weights of the circuit; None where one was not used.
        weights: shaped like the result.
        by: what the gradients are of, in the middle of a sentence.
    """
    cases = (partial(circuit.respond, factors=circuit.last_times(1 + share)) for share in (SLOPE, -SLOPE))
    more, less = (call_seeded(circuit.module, call, inputs) for call in cases)
    grown = float((weights * (more - less)).sum()) / (2 * SLOPE)
    found = [(gradients[name], circuit.weights[name]) for name in circuit.last]
    terms = torch.cat([(gradient * x).flatten() for gradient, x in found if gradient is not None] or [torch.zeros(1)])
    if not within("gradients", abs(float(terms.sum()) - grown) / (OFF * float(terms.abs().sum()) + 1e-12)):
        raise wrong(f"With larger and smaller weights of the last layers, {by} does not change as its gradients say.")


def expect_dependence(student: Student, module: Remote, plan: Plan, draw: Draw, call: Run, what: str) -> None:
    """Expect that what comes out depends on the input, at the weights that a network starts from or at drawn ones.

    Args:
        student: the submission.
        module: the network in the worker.
        plan: the widths of its layers.
        draw: of inputs and weights.
        call: gives what comes out.
        what: what comes out, at the beginning of a sentence.
    """
    count = draw.integer(2, 9)
    one, other = positive(draw, count, *plan.shape), positive(draw, count, *plan.shape)

    def differ() -> bool:
        pair = [rows(call_seeded(module, call, inputs)) for inputs in (one, other)]
        return float((pair[0] - pair[1]).abs().max()) > 0

    if not differ():
        parameters = read_parameters(student, module)
        Circuit(module, parameters, plan, draw, call).set()
        if not differ():
            raise wrong(f"{what} is the same for different inputs.")


def expect_different_units(parameters: Mapping[str, Tensor], plan: Plan) -> None:
    """Expect that the units of a hidden layer do not all start from the same weights. Last layers may start at 0."""
    for name, x in parameters.items():
        if (
            x.numel()
            and plan.is_weight(x)
            and bool((x == x.flatten()[0]).all())
            and (plan.is_middle(x) or bool(x.any()))
        ):
            raise wrong(
                f"All numbers of {name} start out the same, so that its units learn the same and stay the same.",
                "Leave the initialisation of torch, or draw weights at random.",
            )


def expect_input_gradient(function: Remote, name: str, inputs: Tensor, weights: Tensor, whose: str) -> None:
    """Expect a gradient of (result * weights).sum() by the input."""
    gradient = observe(function, {name: inputs}, weights).gradients[name]
    if gradient is None or not bool(tensor(gradient, tuple(inputs.shape), f"The gradient by {name}").any()):
        raise wrong(f"No gradient reaches {name}, so that {whose} does not learn.", "Do not detach the input.")


@contextmanager
def outputs_explained(student: Student, module: Remote, function: Remote, plan: Plan, draw: Draw) -> Iterator[None]:
    """Say what comes behind the last layer of a network, where results are not between 0 and 1."""
    try:
        yield
    except Failure as failure:
        hint = failure.hint
        if hint == SIGMOID:
            with suppressed():
                module.requires_grad_(True)
                inputs = torch.ones(2, *plan.shape)
                result = inner_call(function, inputs)
                weights = torch.ones(plain(function(inputs), plan.what).shape)
                used = used_parameters(student, module, weights, {plan.what: result})
                circuit = Circuit(module, used, plan, draw, lambda x: rows(plain(function(x), plan.what)))
                hint = explain_output(circuit) or hint
        raise failure.told(hint) from None

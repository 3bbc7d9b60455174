"""Questions 1.1, the small VAE, 1.3a, the generator, and 1.3b, the discriminator: fully connected networks.

How a network was written down is nobody's business: its layers are told by the shapes of its parameters, and what
lies between them by what comes out once the parameters are numbers of the check's choice.

No draw and no initialisation makes a right network fail: values are compared at weights that the check draws, bounded
away from 0 and from where a ReLU closes; at the student's own, only shapes, ranges and a second call are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from grader.engine.student import Built, Failure, Remote, Student, fetch, observe
from grader.oracle.mlp import SIGMA

from .draw import Draw
from .expect import close, numbers, outputs, tensor, wrong
from .runner import question

X_SHAPE, X_DIM, Z_DIM, HIDDEN = (3, 4, 2), 24, 5, 16  # no two of 24, 5, 2 * 5 and 16 are the same
SIZES = [((1, 7, 6), 2, 12), ((3, 4, 2), 1, 20), ((5,), 7, 9)]  # x_shape, z_dim, hidden_dim
BATCH = 6
NORMAL = "Normal takes a mean and a standard deviation, in this order; softplus makes the second positive."
INERT = 1e-4  # outputs that differ by less from image to image do not depend on the image
Run = Callable[[Tensor], Tensor]


# ---------------------------------------------------------------- layers


@dataclass(frozen=True)
class Plan:
    """The widths of a network: of its input, of its hidden layers, and those that its last layers may have."""

    what: str
    inputs: int
    outputs: tuple[int, ...]
    hidden: int = HIDDEN

    def is_weight(self, parameter: Tensor) -> bool:
        """Whether this connects layers. A row is a bias, written by hand, unless a layer may be one unit wide."""
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


ENCODER = Plan("The encoder", X_DIM, (Z_DIM, 2 * Z_DIM))
DECODER = Plan("The decoder", Z_DIM, (X_DIM,))
GENERATOR = Plan("The generator", Z_DIM, (X_DIM,))
DISCRIMINATOR = Plan("The discriminator", X_DIM, (1,))


def plain(value: Any, what: str) -> Tensor:
    """`value` in float64, if it is a finite floating-point tensor of any shape."""
    return tensor(value, tuple(value.shape) if isinstance(value, Tensor) else (), what)


def read_parameters(student: Student, module: Remote) -> dict[str, Tensor]:
    """The parameters of a network by name, in the order of `module.parameters()`."""
    named = student.builtins.dict(inner_call(module.named_parameters))
    if not isinstance(named, dict) or not named:
        raise wrong(
            "The network has no parameters.",
            "Make its layers in __init__, as attributes or in nn.Sequential or nn.ModuleList: in a plain Python list "
            "they are not part of the network.",
        )
    return {name: plain(x, f"The parameter {name}").float() for name, x in named.items()}


def expect_layers(parameters: Mapping[str, Tensor], plan: Plan, depth: int | None = None) -> None:
    """Expect a chain of layers of the widths of a plan, with `depth` hidden layers, or any number of them."""
    weights = {name: x for name, x in parameters.items() if plan.is_weight(x)}
    for name, x in weights.items():
        if not (plan.is_first(x) or plan.is_middle(x) or plan.is_last(x)):
            widths = " or ".join(map(str, plan.outputs))
            raise wrong(
                f"{plan.what} has {plan.inputs} inputs, hidden layers of hidden_dim = {plan.hidden} units and "
                f"{widths} output{'' if widths == '1' else 's'}; the shape {tuple(x.shape)} of {name} belongs nowhere "
                "between them.",
                "There is at least one hidden layer, and all have hidden_dim units; write x_dim, z_dim and hidden_dim "
                "where you mean them.",
            )
    first = sum(plan.is_first(x) for x in weights.values())
    last = sum(plan.is_last(x) for x in weights.values())
    if not first or not last:
        raise wrong(
            f"{plan.what} uses no parameters from its {plan.inputs} inputs to hidden_dim = {plan.hidden} units, or "
            "none from there to what comes out.",
            "At least one hidden layer is needed, and none may be kept in a plain Python list, be frozen or detached.",
        )
    if first > 1:
        raise wrong(f"{plan.what} has {first} layers that take its {plan.inputs} inputs; one is expected.")
    hidden = first + sum(plan.is_middle(x) for x in weights.values())
    if depth is not None and hidden != depth:
        raise wrong(
            f"{plan.what} has {hidden} hidden layer{'s' if hidden > 1 else ''} of hidden_dim = {plan.hidden} units; "
            f"{depth} are expected.",
            "The heads come after the hidden layers and do not count.",
        )


class Circuit:
    """A network of positive hidden weights, no biases, and for each output last weights of one sign.

    Positive inputs make every hidden unit positive, so that no ReLU is closed. Where the weights of one hidden layer
    change their sign, all of its units are negative, and a ReLU behind them lets nothing through. Every output is plus
    or minus a sum of hidden units, 1/2 to 9/2 times their mean: whatever is drawn, none comes near 0.
    """

    def __init__(self, module: Remote, parameters: Mapping[str, Tensor], plan: Plan, draw: Draw, run: Run):
        self.module = module
        self.run = run
        weights = {name: x for name, x in parameters.items() if plan.is_weight(x)}
        self.last = {name for name, x in weights.items() if set(x.shape) & set(plan.outputs)}
        self.hidden = [name for name in weights if name not in self.last]
        self.weights = {name: self._draw(name, x, plan, draw) for name, x in parameters.items()}

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
        weights = {name: x * factors.get(name, 1.0) for name, x in self.weights.items()}
        self.module.load_state_dict(weights, strict=False)

    def respond(self, inputs: Tensor, factors: Mapping[str, float | Tensor] | None = None) -> Tensor:
        """What comes out, with some of the weights times a factor."""
        self.set(factors)
        return self.run(inputs)

    def respond_to_last(self, inputs: Tensor, factor: float) -> Tensor:
        """What comes out with the weights of the last layers times a factor."""
        return self.respond(inputs, dict.fromkeys(self.last, factor))


def positive(draw: Draw, *shape: int) -> Tensor:
    """Inputs between 0.5 and 1, positive even if scaled to [-1, 1], that differ in scale from image to image."""
    scale = torch.linspace(0.75, 1, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    return draw.uniform(0.7, 1, *shape) * scale


def variation(results: Tensor) -> float:
    """How far the results of a batch differ from that of its first image."""
    return float((results - results[:1]).abs().max())


def expect_rectifiers(circuit: Circuit, inputs: Tensor, plan: Plan, slope: float, named: str) -> None:
    """Expect a (leaky) ReLU behind every hidden layer.

    Negative weights in one hidden layer, or in two of them with the second undoing the first's sign, leave at most
    the slope of what came through before. Of any two neighbours the first is told this way, and the last alone.
    """
    total = variation(circuit.respond(inputs))
    if total < INERT:
        raise wrong(f"{plan.what} gives the same for different inputs, whatever its weights.")
    groups = [*combinations(circuit.hidden, 1), *combinations(circuit.hidden, 2)]
    shares = [variation(circuit.respond(inputs, dict.fromkeys(names, -1.0))) / total for names in groups]
    share, names = max(zip(shares, groups, strict=True), key=lambda pair: pair[0])
    if share > slope + 1e-5:
        where = f"{'behind' if len(names) == 1 else 'between'} {' and '.join(names)}"
        raise wrong(
            f"With positive inputs, no biases, and positive weights except in {' and '.join(names)}, {named} {where} "
            f"lets {'little' if slope else 'nothing'} through; {share:.0%} of the differences between inputs come "
            "through.",
            f"Each hidden layer is a Linear followed by {named}: without it two layers are no more than one. What "
            "comes out is computed from the last of them; there is no tanh, sigmoid or normalisation before.",
        )


def expect_sigmoid(circuit: Circuit, inputs: Tensor, what: str) -> None:
    """Expect a sigmoid of a linear layer: its logits are proportional to the weights of the layer."""
    before = circuit.respond(inputs)
    for factor in (-1.0, 0.5):
        if not close(circuit.respond_to_last(inputs, factor), factor * before, 1e-3, 1e-3):
            raise wrong(
                f"{what}: with the weights of the last layer times {factor:g}, its logits, log p / (1 - p), do not "
                f"become {factor:g} times what they were.",
                "The last layer is a Linear followed by a sigmoid, with nothing between or behind them. A softmax "
                "is none: of a single number it is always 1.",
            )


def expect_alone(call: Run, inputs: Tensor, what: str) -> None:
    """Expect the same at every call, and each image of a batch by itself. `call` gives what is compared."""
    together = call(inputs)
    rounding = 1e-5 * max(1.0, float(together.abs().max()))
    if not close(call(inputs), together, atol=rounding):
        raise wrong(
            f"{what} gives something else when it is called again with the same input.",
            "There is no chance in it: no dropout, no sampling, and the layers are made once, in __init__.",
        )
    for count in (BATCH // 2, 1):
        if not close(call(inputs[:count]), together[:count], atol=rounding):
            raise wrong(
                f"{what} gives something else for the first {count} of {len(inputs)} when the others are left out.",
                "Images of a batch do not influence one another: no batch normalisation, and the first axis stays "
                "the batch in every reshape.",
            )


def expect_probabilities(value: Any, shape: tuple[int, ...], what: str) -> Tensor:
    """Expect a tensor of a shape between 0 and 1."""
    result = tensor(value, shape, what)
    low, high = float(result.min()), float(result.max())
    if low < 0 or high > 1:
        raise wrong(
            f"{what} holds {low if low < 0 else high:.4g}, which is not between 0 and 1.",
            "The last layer is followed by a sigmoid.",
        )
    return result


def logits(probabilities: Tensor) -> Tensor:
    """log p / (1 - p), a row for each image."""
    return probabilities.reshape(len(probabilities), -1).logit(eps=1e-9)


# ---------------------------------------------------------------- gradients


def inner_call(function: Remote, *arguments: Any) -> Built:
    """A call whose result is an argument of another, and keeps its gradients that way."""
    named: dict[str, Any] = {str(i): argument for i, argument in enumerate(arguments)}
    return Built(function, named)


def find_gradients(
    student: Student, module: Remote, parameters: Mapping[str, Tensor], result: Remote | Built, weights: Tensor
) -> list[Tensor | None]:
    """The gradient of (result * weights).sum() by each parameter; None where a parameter was not used."""
    there = student.torch
    total = inner_call(there.sum, inner_call(there.mul, result, weights))
    try:
        found = there.autograd.grad(total, inner_call(module.parameters), retain_graph=True, allow_unused=True)
    except Failure as failure:
        if "does not require grad" in failure.message:
            raise wrong(
                "There is no gradient: the result, or a parameter of the network, does not require one.",
                "Leave out detach, .data, no_grad, inference_mode and requires_grad_(False).",
            ) from None
        raise
    found = outputs(found, len(parameters), "The gradient")
    return [
        None if gradient is None else tensor(gradient, tuple(x.shape), f"The gradient by {name}")
        for (name, x), gradient in zip(parameters.items(), found, strict=True)
    ]


def used_parameters(student: Student, module: Remote, weights: Tensor, *results: Remote | Built) -> dict[str, Tensor]:
    """Those parameters that results depend on, all of them shaped like `weights`."""
    parameters = read_parameters(student, module)
    found = [find_gradients(student, module, parameters, result, weights) for result in results]
    columns = zip(parameters.items(), *found, strict=True)
    return {name: x for (name, x), *gradients in columns if any(g is not None for g in gradients)}


def expect_trained(parameters: Mapping[str, Tensor], gradients: Iterable[Tensor | None], by: str) -> None:
    """Expect a gradient for every parameter."""
    for name, gradient in zip(parameters, gradients, strict=True):
        if gradient is None or not bool(gradient.any()):
            raise wrong(
                f"The parameter {name} gets no gradient from {by}, so that it never learns.",
                "Every layer that is made is used, each once, and nothing on the way is detached.",
            )


def expect_different_units(parameters: Mapping[str, Tensor], plan: Plan) -> None:
    """Expect that the units of a hidden layer do not all start from the same weights. Last layers may start at 0."""
    for name, x in parameters.items():
        if plan.is_weight(x) and bool((x == x.flatten()[0]).all()) and (plan.is_middle(x) or bool(x.any())):
            raise wrong(
                f"All numbers of {name} start out the same, so that its units learn the same and stay the same.",
                "Leave the initialisation of torch, or draw weights at random.",
            )


def expect_input_gradient(function: Remote, name: str, inputs: Tensor, weights: Tensor, whose: str) -> None:
    """Expect a gradient of (result * weights).sum() by the input."""
    gradient = observe(function, {name: inputs}, weights).gradients[name]
    if gradient is None or not bool(tensor(gradient, tuple(inputs.shape), f"The gradient by {name}").any()):
        raise wrong(f"No gradient reaches {name}, so that {whose} does not learn.", "Do not detach the input.")


# ---------------------------------------------------------------- 1.1


def make_vae(student: Student) -> Remote:
    """A small VAE, called once, after which lazy layers know their shapes too. A question may need but one half."""
    vae = student.model.MLPVAE(X_SHAPE, Z_DIM, HIDDEN)
    for function, shape in [(vae.encode, X_SHAPE), (vae.decode, (Z_DIM,))]:
        try:
            function(torch.full((2, *shape), 0.5))
        except Failure as failure:
            if failure.status not in ("error", "not_attempted"):  # the worker is gone
                raise
    return vae


def encode(vae: Remote, x: Tensor, z_dim: int = Z_DIM) -> tuple[Remote, Tensor, Tensor]:
    """q(z|x), its mean and its standard deviation, judged up to their values."""
    try:
        posterior = vae.encode(x)
    except Failure as failure:
        if "satisfy the constraint" not in failure.message:
            raise
        raise Failure(failure.status, failure.message, NORMAL) from None
    if not isinstance(posterior, Remote):
        kind = "a tensor" if isinstance(posterior, Tensor) else "no distribution"
        raise wrong(
            f"MLPVAE.encode returned {kind}; a torch.distributions.Normal is expected.",
            "Return the distribution itself, not a sample of it and not its parameters.",
        )
    shape = (len(x), z_dim)
    mean, std = fetch(posterior, "mean", "stddev")
    mean, std = tensor(mean, shape, "The mean of q(z|x)"), tensor(std, shape, "The standard deviation of q(z|x)")
    if not bool((std > 0).all()):
        raise wrong(
            f"The standard deviation of q(z|x) is {float(std.min()):.4g} somewhere; it must be above 0.", NORMAL
        )
    return posterior, mean, std


def encode_both(vae: Remote, x: Tensor) -> Tensor:
    """Mean and standard deviation of q(z|x), side by side."""
    _, mean, std = encode(vae, x)
    return torch.cat([mean, std], dim=1)


def decode(vae: Remote, z: Tensor, x_shape: tuple[int, ...] = X_SHAPE) -> Tensor:
    """Decoded images, judged up to their values."""
    return expect_probabilities(vae.decode(z), (len(z), *x_shape), "What MLPVAE.decode returns")


def open_encoder(vae: Remote, parameters: Mapping[str, Tensor], draw: Draw) -> Circuit:
    """The encoder with weights of the check's."""
    circuit = Circuit(vae, parameters, ENCODER, draw, lambda x: encode_both(vae, x))
    if not circuit.last:
        raise wrong(
            f"No parameters lead to mu and sigma of z_dim = {Z_DIM}.",
            "The heads are layers with z_dim outputs each, made in __init__ and registered in the network.",
        )
    return circuit


@question("1.1")
def test_mlp_vae_encodes_to_a_normal(student: Student, draw: Draw) -> None:
    """q(z|x) is a Normal of shape (B, z_dim), with a linear mu and a positive sigma, for each image by itself."""
    vae = make_vae(student)
    expect_alone(lambda x: encode_both(vae, x), draw.uniform(0, 1, BATCH, *X_SHAPE), "MLPVAE.encode")
    for x_shape, z_dim, hidden_dim in SIZES:
        other = student.model.MLPVAE(x_shape, z_dim, hidden_dim)
        for count in (4, 1):
            posterior, *_ = encode(other, draw.uniform(0, 1, count, *x_shape), z_dim)
    distributions = student.torch.distributions
    if student.builtins.isinstance(posterior, [distributions.Normal, distributions.Independent]) is not True:
        raise wrong("MLPVAE.encode returned another distribution than a torch.distributions.Normal.")
    x = positive(draw, 4, *X_SHAPE)
    circuit = open_encoder(vae, read_parameters(student, vae), draw)
    mean, std = circuit.respond(x).chunk(2, dim=1)
    for name, value in [("mean", mean), ("standard deviation", std)]:
        if variation(value) < INERT:
            raise wrong(f"The {name} of q(z|x) is the same for different images, whatever the weights.")
    if close(std, torch.nn.functional.softplus(mean)) or close(std, mean.exp()):
        raise wrong("The standard deviation is a function of the mean: both come from the same head.")
    for factor in (-1.0, 0.5):
        scaled = circuit.respond_to_last(x, factor)[:, :Z_DIM]
        if not close(scaled, factor * mean, 1e-3, 1e-4):
            raise wrong(
                f"With the weights of the heads times {factor:g}, mu goes from {numbers(mean[-1])} to "
                f"{numbers(scaled[-1])}, which is not {factor:g} times as much.",
                "mu is any number, and linear in what enters its head: no ReLU, tanh, sigmoid or softplus behind it.",
            )


@question("1.1")
def test_mlp_vae_decodes_to_images(student: Student, draw: Draw) -> None:
    """decode gives images of shape (B, *x_shape) in (0, 1), by ReLU layers of hidden_dim units and a sigmoid."""
    vae = make_vae(student)
    expect_alone(lambda z: decode(vae, z), draw.normal(BATCH, Z_DIM), "MLPVAE.decode")
    for x_shape, z_dim, hidden_dim in SIZES:
        other = student.model.MLPVAE(x_shape, z_dim, hidden_dim)
        for count, std in [(4, 1.0), (1, 1.0), (3, 100.0)]:
            z = draw.normal(count, z_dim, std=std)
            decode(other, z, x_shape)
    vae.requires_grad_(True)  # that parameters learn is a check of its own
    images = inner_call(vae.decode, draw.normal(2, Z_DIM))
    used = used_parameters(student, vae, torch.ones(2, *X_SHAPE), images)
    expect_layers(used, DECODER)
    z = positive(draw, 4, Z_DIM)
    circuit = Circuit(vae, used, DECODER, draw, lambda z: logits(decode(vae, z)))
    expect_sigmoid(circuit, z, "What MLPVAE.decode returns")
    expect_rectifiers(circuit, z, DECODER, 0.0, "a ReLU")


@question("1.1")
def test_mlp_vae_encoder_layers(student: Student, draw: Draw) -> None:
    """The encoder has three hidden ReLU layers of hidden_dim units, and two heads behind them."""
    vae = make_vae(student)
    vae.requires_grad_(True)  # that parameters learn is a check of its own
    posterior, *_ = encode(vae, draw.uniform(0, 1, 2, *X_SHAPE))
    used = used_parameters(student, vae, torch.ones(2, Z_DIM), posterior.mean, posterior.stddev)
    expect_layers(used, ENCODER, depth=3)
    heads = [x for x in used.values() if ENCODER.is_weight(x) and ENCODER.is_last(x)]
    if sum(x.numel() for x in heads) != 2 * Z_DIM * HIDDEN:
        shapes = " and ".join(str(tuple(x.shape)) for x in heads)
        raise wrong(
            f"The weights behind the hidden layers have the shape{'s' if len(heads) > 1 else ''} {shapes}.",
            "mu and sigma have a head each, from hidden_dim to z_dim, or one of 2 * z_dim that is split in two.",
        )
    expect_rectifiers(open_encoder(vae, used, draw), positive(draw, 4, *X_SHAPE), ENCODER, 0.0, "a ReLU")


@question("1.1")
def test_mlp_vae_sigma_is_softplus(student: Student, draw: Draw) -> None:
    """The standard deviation is softplus of its head."""
    vae = make_vae(student)
    circuit = open_encoder(vae, read_parameters(student, vae), draw)
    x = positive(draw, 4, *X_SHAPE)
    factors = (1.0, -1.0, 0.0, 0.5, 2.0, 4.0, -2.0, -4.0)
    found = {factor: circuit.respond_to_last(x, factor)[:, Z_DIM:] for factor in factors}
    expected = {factor: SIGMA.at(above=found[1.0], below=found[-1.0], scale=torch.tensor(factor)) for factor in factors}

    def agrees(factor: float, value: Tensor) -> bool:
        return close(found[factor], value, 1e-3, 1e-3)  # softplus plus up to 1e-4 is right as well

    if all(agrees(factor, expected[factor].values()[0]) for factor in factors):
        return
    hints = (
        sentence
        for sentence in SIGMA.misconceptions
        if all(agrees(factor, expected[factor].misconceived(sentence)) for factor in factors)
    )
    shown = (-2.0, -1.0, 0.0, 1.0, 2.0)
    values = ", ".join(f"{float(found[factor][-1, 0]):.4g}" for factor in shown)
    raise wrong(
        "The standard deviation of q(z|x) does not follow softplus: with the weights of its head times "
        f"{', '.join(f'{factor:g}' for factor in shown)}, and no bias, it is {values}.",
        next(hints, "Normal takes the standard deviation: softplus of a linear layer, with nothing before or behind."),
    )


@question("1.1")
def test_mlp_vae_trains_every_parameter(student: Student, draw: Draw) -> None:
    """Mean, standard deviation and decoded image pass gradients to every layer that makes them."""
    vae = make_vae(student)
    parameters = read_parameters(student, vae)
    expect_different_units(parameters, ENCODER)
    encoder = open_encoder(vae, parameters, draw)
    encoder.set()
    posterior, *_ = encode(vae, positive(draw, 4, *X_SHAPE))
    weights = draw.uniform(0.5, 1.5, 4, Z_DIM)
    by_mean = find_gradients(student, vae, parameters, posterior.mean, weights)
    by_std = find_gradients(student, vae, parameters, posterior.stddev, weights)

    z = positive(draw, 4, Z_DIM)
    Circuit(vae, parameters, DECODER, draw, vae.decode).set()
    weights = draw.uniform(0.5, 1.5, *plain(vae.decode(z), "A decoded image").shape)
    by_image = find_gradients(student, vae, parameters, inner_call(vae.decode, z), weights)
    columns = list(zip(by_mean, by_std, by_image, strict=True))
    sums = [sum((g.abs() for g in column if g is not None), torch.zeros(1)) for column in columns]
    expect_trained(parameters, sums, "mu, sigma or the decoded image")
    trunk = [name in encoder.hidden for name in parameters]
    for ours, others, mine, other in [(by_mean, by_std, "mu", "sigma"), (by_std, by_mean, "sigma", "mu")]:
        for name, hidden, gradient, reference in zip(parameters, trunk, ours, others, strict=True):
            if hidden and reference is not None and (gradient is None or not bool(gradient.any())):
                raise wrong(
                    f"The parameter {name} gets a gradient from {other}, but none from {mine}.",
                    "Both heads come after the same hidden layers, and neither is detached.",
                )
    expect_input_gradient(vae.decode, "z", z, weights, "the encoder")


# ---------------------------------------------------------------- 1.3


def expect_hidden_layers(
    student: Student, module: Remote, plan: Plan, x_shape: tuple[int, ...], draw: Draw, run: Run
) -> None:
    """Expect hidden layers of ReLU or LeakyReLU and a sigmoid at the end; inputs are of shape (B, *x_shape)."""
    inputs = positive(draw, 4, *x_shape)
    shape = plain(module(inputs), f"{plan.what}'s output").shape
    module.requires_grad_(True)  # that parameters learn is a check of its own
    parameters = used_parameters(student, module, torch.ones(shape), inner_call(module, inputs))
    expect_layers(parameters, plan)
    circuit = Circuit(module, parameters, plan, draw, run)
    expect_sigmoid(circuit, inputs, f"{plan.what}'s output")
    expect_rectifiers(circuit, inputs, plan, 0.5, "a ReLU or LeakyReLU")
    signs: dict[str, float | Tensor] = {
        name: draw.integers(2, *parameters[name].shape) * 2.0 - 1 for name in circuit.hidden
    }
    once, twice = circuit.respond(inputs, signs), circuit.run(2 * inputs)
    if not close(twice, 2 * once, 1e-3, 1e-3):
        raise wrong(
            f"{plan.what} without biases does not give twice the logits for twice the input.",
            "ReLU and LeakyReLU layers do; tanh, sigmoid, ELU, GELU and normalisation do not.",
        )


def expect_network_trained(student: Student, module: Remote, plan: Plan, inputs: Tensor, draw: Draw) -> Tensor:
    """Expect that gradients reach every parameter, at positive inputs and weights, where no ReLU is closed.

    Returns:
        What the elements of the result were weighted with.
    """
    shape = plain(module(inputs), f"{plan.what}'s output").shape
    parameters = read_parameters(student, module)
    expect_different_units(parameters, plan)
    Circuit(module, parameters, plan, draw, module).set()
    weights = draw.uniform(0.5, 1.5, *shape)
    gradients = find_gradients(student, module, parameters, inner_call(module, inputs), weights)
    expect_trained(parameters, gradients, "what comes out")
    return weights


def generate(generator: Remote, z: Tensor, x_shape: tuple[int, ...] = X_SHAPE) -> Tensor:
    """Generated images, judged up to their values."""
    return expect_probabilities(generator(z), (len(z), *x_shape), "What the generator returns")


def discriminate(discriminator: Remote, x: Tensor) -> Tensor:
    """The probabilities of images, judged up to their values."""
    return expect_probabilities(discriminator(x), (len(x),), "What the discriminator returns")


@question("1.3a")
def test_generator_makes_images(student: Student, draw: Draw) -> None:
    """Images of shape (B, *x_shape) in (0, 1), by hidden layers of hidden_dim units and a sigmoid."""
    for x_shape, z_dim, hidden_dim in SIZES:
        generator = student.model.Generator(z_dim, x_shape, hidden_dim)
        for count, std in [(4, 1.0), (2, 100.0)]:
            z = draw.normal(count, z_dim, std=std)
            generate(generator, z, x_shape)
    generator = student.model.Generator(Z_DIM, X_SHAPE, HIDDEN)
    expect_alone(lambda z: generate(generator, z), draw.normal(BATCH, Z_DIM), "The generator")
    expect_hidden_layers(student, generator, GENERATOR, (Z_DIM,), draw, lambda z: logits(generate(generator, z)))


@question("1.3a")
def test_generator_trains_every_parameter(student: Student, draw: Draw) -> None:
    """Gradients reach every parameter of the generator."""
    generator = student.model.Generator(Z_DIM, X_SHAPE, HIDDEN)
    expect_network_trained(student, generator, GENERATOR, positive(draw, 4, Z_DIM), draw)


@question("1.3b")
def test_discriminator_gives_probabilities(student: Student, draw: Draw) -> None:
    """One probability an image, by hidden layers of hidden_dim units and a sigmoid."""
    for x_shape, _, hidden_dim in SIZES:
        discriminator = student.model.MLPDiscriminator(x_shape, hidden_dim)
        for count, high in [(4, 1.0), (2, 100.0)]:
            x = draw.uniform(0, high, count, *x_shape)
            discriminate(discriminator, x)
    discriminator = student.model.MLPDiscriminator(X_SHAPE, HIDDEN)
    images = draw.uniform(0, 1, BATCH, *X_SHAPE)
    expect_alone(lambda x: discriminate(discriminator, x), images, "The discriminator")
    expect_hidden_layers(
        student, discriminator, DISCRIMINATOR, X_SHAPE, draw, lambda x: logits(discriminate(discriminator, x))
    )


@question("1.3b")
def test_discriminator_trains_every_parameter(student: Student, draw: Draw) -> None:
    """Gradients reach every parameter of the discriminator, and the image it judges."""
    discriminator = student.model.MLPDiscriminator(X_SHAPE, HIDDEN)
    x = positive(draw, 4, *X_SHAPE)
    weights = expect_network_trained(student, discriminator, DISCRIMINATOR, x, draw)
    expect_input_gradient(discriminator, "x", x, weights, "the generator")

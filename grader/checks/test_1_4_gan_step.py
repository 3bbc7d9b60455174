"""Question 1.4, one training step of a GAN, on linear networks whose step has a closed form."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from grader.engine.launcher import OPTIMIZERS
from grader.engine.student import Failure, Remote, Student, at_once, fetch, later, observe, overwrite
from grader.oracle.answers import Form, form

from .device import ELSEWHERE, moved, on_another_device
from .draw import Draw
from .expect import close, expect_all, expect_unchanged, outputs, tensor, wrong
from .margins import within
from .mlp import suppressed
from .runner import question

DISCRIMINATOR_LOSS, GENERATOR_LOSS = form("DISCRIMINATOR_LOSS"), form("GENERATOR_LOSS")
MOVED_DISCRIMINATOR, MOVED_GENERATOR = form("MOVED_DISCRIMINATOR"), form("MOVED_GENERATOR")
BY_ADAM = {"generator": form("GENERATOR_BY_ADAM"), "discriminator": form("DISCRIMINATOR_BY_ADAM")}
ADAM = {"betas": [0.5, 0.9], "eps": 0.1, "weight_decay": 0.2}  # the same as in the closed form
Z_DIM, PIXELS = 2, 3
X_SHAPE = (3, 1, 1)
SURE = 8.0  # a logit whose probability a clamp changes; 1e-5 in a logarithm costs 0.03 there
LR = 0.5
BATCHES = (1, 5, 2, 3, 8)
NETWORKS = ("generator", "discriminator")
MEANS = {  # what torch's own words mean in a step of a GAN
    "modified by an inplace operation": "The discriminator's step changed the weights that the generator's loss was "
    "computed with: compute D(G(z)) and the generator's loss after that step.",
    "backward through the graph a second time": "Both losses hang on the same generated images: detach them in the "
    "discriminator's step.",
}
NEW_NOISE = "z is the only source of randomness: use it in both steps, and draw no noise of your own."
TRAINING = "Leave out eval() and train(False): both networks stay in training mode."
ONE_STEP = (
    "One call with plain gradient descent is right: every call must take one step() of the optimizer that is given, "
    "from zero gradients."
)
ZERO_GRAD = "Zero the gradients of a network before each backward whose gradients it steps along."
Inputs = dict[str, Tensor]


def draw_game(draw: Draw, batch: int, generator_lr: float = LR, discriminator_lr: float = LR) -> Inputs:
    """Networks, as a weight with its bias in the last column, and what `gan_step` is called with.

    Probabilities stay away from 0 and 1, where a number as small as 1e-7 in a logarithm would show.
    """
    return {
        "generator": draw.uniform(-0.8, 0.8, PIXELS, Z_DIM + 1),
        "discriminator": draw.uniform(-1, 1, PIXELS + 1),
        "x": draw.uniform(-1.5, 1.5, batch, PIXELS),
        "z": draw.uniform(-1.5, 1.5, batch, Z_DIM),
        "generator_lr": torch.tensor(generator_lr),
        "discriminator_lr": torch.tensor(discriminator_lr),
    }


@dataclass(frozen=True)
class Networks:
    """Both networks in the worker, each one linear layer, and their optimizers.

    Attributes:
        layers: of the generator and of the discriminator.
        both: a module of the two layers.
        arguments: the networks and the optimizers by name, the first four arguments of gan_step.
        gan_step: the student's.
    """

    layers: tuple[Remote, Remote]
    both: Remote
    arguments: dict[str, Remote]
    gan_step: Remote

    def start(self, inputs: Mapping[str, Tensor], left: Mapping[str, Tensor] | None = None) -> None:
        """Give the networks the weights of `inputs` and, as an earlier backward leaves them, the gradients `left`."""
        later(self.both.requires_grad_)
        tensors = [(layer.weight, layer.bias) for layer in self.layers]
        weights = [_parts(inputs[name]) for name in NETWORKS]
        overwrite(self.both, [x.data for pair in tensors for x in pair], [x for pair in weights for x in pair])
        for name, (weight, bias) in zip(NETWORKS, tensors, strict=True):
            weight.grad, bias.grad = _parts(left[name]) if left and name in left else (None, None)

    def step(self, x: Tensor, z: Tensor) -> tuple[tuple, Inputs]:
        """One call of `gan_step`. Returns what it returned, and the networks after it."""
        images = x.reshape(-1, *X_SHAPE)
        losses, state = later(self.gan_step, *self.arguments.values(), images, z), later(self.both.state_dict)
        try:
            returned, after = fetch(losses, state)
        except Failure as failure:
            hints = [hint for words, hint in MEANS.items() if words in failure.message]
            raise failure.told(hints[0] if hints else failure.hint) from None
        return outputs(returned, 2, "gan_step"), self.read(after)

    def read(self, state: Any) -> Inputs:
        """The networks in a state."""
        return {
            "generator": _read_layer(state, "0", (PIXELS, Z_DIM), "generator"),
            "discriminator": _read_layer(state, "1", (1, PIXELS), "discriminator").squeeze(0),
        }


def _parts(layer: Tensor) -> tuple[Tensor, Tensor]:
    """The weight and the bias of a layer with its bias in the last column."""
    rows = torch.atleast_2d(layer).float()
    return rows[:, :-1].contiguous(), rows[:, -1].contiguous()


def _read_layer(state: Any, layer: str, shape: tuple[int, int], name: str) -> Tensor:
    """A layer with its bias in the last column, in float64."""
    state, what = state if isinstance(state, dict) else {}, f"After gan_step, the {name}'s"
    weight = tensor(state.get(f"{layer}.weight"), shape, f"{what} weight")
    bias = tensor(state.get(f"{layer}.bias"), shape[:1], f"{what} bias")
    return torch.cat([weight, bias[:, None]], dim=1)


def build(
    student: Student, rates: Sequence[float], optimizer: Callable[[Remote, float], Remote] | None = None, **moved: Any
) -> Networks:
    """New networks, and plain gradient descent of these learning rates, or another optimizer, for each of them.

    Args:
        student: the submission.
        rates: of the generator and of the discriminator.
        optimizer: makes one for parameters and a learning rate.
        moved: "device", where the networks are; "before", for each network the modules that come first.
    """
    nn, layers = student.torch.nn, (student.torch.nn.Linear(Z_DIM, PIXELS), student.torch.nn.Linear(PIXELS, 1))
    both = nn.ModuleList(layers)
    if "device" in moved:
        later(both.to, moved["device"])
    make = optimizer or (lambda parameters, rate: student.torch.optim.SGD(parameters, lr=rate))
    made = [make(later(layer.parameters), rate) for layer, rate in zip(layers, rates, strict=True)]
    first, then = moved.get("before", ((), ()))
    networks = (
        nn.Sequential(*first, layers[0], nn.Unflatten(1, X_SHAPE)),
        nn.Sequential(nn.Flatten(), *then, layers[1], nn.Sigmoid(), nn.Flatten(0)),
    )
    names = (*NETWORKS, *(f"{name}_optimizer" for name in NETWORKS))
    return Networks(layers, both, dict(zip(names, (*networks, *made), strict=True)), student.gan.gan_step)


def rates_of(inputs: Inputs) -> tuple[float, ...]:
    """The learning rates of a game, of the generator and of the discriminator."""
    return tuple(float(inputs[f"{name}_lr"]) for name in NETWORKS)


@dataclass(frozen=True)
class Played:
    """One call of `gan_step`: what it was called with, the losses it returned, and both networks after it."""

    inputs: Inputs
    losses: tuple
    after: Inputs


def play(student: Student, games: Sequence[Inputs]) -> list[Played]:
    """Call `gan_step` once for every game; those of the same rates share networks, not weights."""
    networks = {rates: build(student, rates) for rates in dict.fromkeys(map(rates_of, games))}
    return list(at_once(student.train, [partial(play_once, networks[rates_of(inputs)], inputs) for inputs in games]))


def play_once(networks: Networks, inputs: Inputs, left: Mapping[str, Tensor] | None = None) -> Played:
    """Call `gan_step` with networks as in `inputs`, some of which may have gradients already."""
    networks.start(inputs, left)
    return Played(inputs, *networks.step(inputs["x"], inputs["z"]))


@contextmanager
def noise_named(student: Student, inputs: Inputs) -> Iterator[None]:
    """Say that two calls with the same arguments do different things, where that is so and something is wrong."""
    try:
        yield
    except Failure as failure:
        if failure.status == "wrong":
            with suppressed():
                one, other = play(student, [inputs, inputs])
                if not (alike(one.after, other.after) and same_losses(one.losses, other.losses)):
                    message = "Two calls with the same networks, x and z do different things."
                    raise Failure("wrong", message, NEW_NOISE) from None
        raise


def same_losses(one: tuple, other: tuple) -> bool:
    """Whether two calls returned the same losses."""
    pairs = zip(one, other, strict=True)
    return all(close(tensor(a, (), "A loss"), tensor(b, (), "A loss")) for a, b in pairs)


def expect_played(form: Form, played: Sequence[Played], results: Sequence[Any], what: str) -> None:
    """Expect one result of every game."""
    expect_all([(got, form.at(**game.inputs)) for got, game in zip(results, played, strict=True)], what)


@question("1.4", imports=OPTIMIZERS)
def test_gan_step_losses(student: Student, draw: Draw) -> None:
    """Both losses: with networks that stand still, 2 ln 2 and ln 2 at D = 1/2; the discriminator's when it moves."""
    undecided = draw_game(draw, 4, 0.0, 0.0) | {"discriminator": torch.zeros(PIXELS + 1)}
    standing = play(student, [undecided, *(draw_game(draw, batch, 0.0, 0.0) for batch in BATCHES)])
    for game in standing:
        if not all(close(game.after[name], game.inputs[name].double()) for name in NETWORKS):
            raise wrong(
                "The networks move though both optimizers have the learning rate 0.",
                "Step the optimizers that gan_step is given; make none of your own.",
            )
    moving = play(student, [draw_game(draw, batch) for batch in BATCHES])
    played = [*standing, *moving]
    with noise_named(student, moving[-1].inputs):
        expect_played(DISCRIMINATOR_LOSS, played, [game.losses[0] for game in played], "the discriminator's loss")
        expect_played(GENERATOR_LOSS, standing, [game.losses[1] for game in standing], "the generator's loss")
    expect_sure_losses(student)
    expect_on_device(student, draw)


def expect_sure_losses(student: Student) -> None:
    """Expect that losses are as large as they are where the discriminator is sure of what is wrong."""
    first = torch.tensor([1.0, 0.0, 0.0])
    images = {"x": -first.expand(4, -1), "z": torch.zeros(4, Z_DIM), "generator": torch.zeros(PIXELS, Z_DIM + 1)}
    images["generator"][:, -1] = first
    rates = {f"{name}_lr": torch.tensor(0.0) for name in NETWORKS}
    deceived, strict = (images | rates | {"discriminator": logit * torch.eye(PIXELS + 1)[0]} for logit in (SURE, -SURE))
    played = play(student, [deceived, strict])
    for name, which, terms in (("discriminator", 0, 2), ("generator", 1, 1)):
        loss = float(tensor(played[which].losses[which], (), f"The loss of the {name}"))
        right = terms * math.log1p(math.exp(SURE))
        if not within(f"the {name}'s loss where it is large", abs(loss - right) / (0.1 * terms)):
            distance = math.exp(-loss / terms) if loss < right else 0.0
            raise wrong(
                f"Where every image is judged wrongly, with a probability of {1 / (1 + math.exp(SURE)):.2g} for what "
                f"is right, the {name}'s loss is {loss:.4g}; {right:.4g} is expected.",
                f"Probabilities are kept about {distance:.2g} away from 0 and 1, or as much is added to them: 1e-5 at "
                "most is allowed."
                if 1e-4 < distance < 0.4
                else "",
            )


def expect_on_device(student: Student, draw: Draw) -> None:
    """Expect that labels are where the probabilities are."""
    networks = build(student, (LR, LR), device=ELSEWHERE)
    x, z = (moved(student, made) for made in (draw.uniform(0, 1, 4, *X_SHAPE), draw.normal(4, Z_DIM)))
    hint = "Make labels where the probabilities are: torch.ones_like(probabilities)."
    with on_another_device("both networks, x and z", hint):
        later(networks.gan_step, *networks.arguments.values(), x, z)
        student.settle()


@question("1.4", imports=OPTIMIZERS)
def test_gan_step_moves_the_discriminator(student: Student, draw: Draw) -> None:
    """The discriminator after the call: one step down its own loss by its optimizer, and nothing else."""
    played = play(student, [draw_game(draw, batch) for batch in BATCHES])
    moved = [game.after["discriminator"] for game in played]
    with noise_named(student, played[-1].inputs):
        expect_played(MOVED_DISCRIMINATOR, played, moved, "the discriminator after its step")
    expect_adam(student, "discriminator", [draw_game(draw, batch, generator_lr=0.0) for batch in BATCHES])


@question("1.4", imports=OPTIMIZERS)
def test_gan_step_moves_the_generator(student: Student, draw: Draw) -> None:
    """The generator after the call, beside a discriminator that stands still: one step of its optimizer."""
    played = play(student, [draw_game(draw, batch, discriminator_lr=0.0) for batch in BATCHES])
    moved = [game.after["generator"] for game in played]
    with noise_named(student, played[-1].inputs):
        expect_played(MOVED_GENERATOR, played, moved, "the generator after its step")
    expect_adam(student, "generator", [draw_game(draw, batch, discriminator_lr=0.0) for batch in BATCHES])


def expect_adam(student: Student, name: str, games: Sequence[Inputs]) -> None:
    """Expect one network, beside one that stands still, where two calls take it with Adam and weight decay."""
    judged = []
    for inputs in games:
        networks = build(
            student, rates_of(inputs), lambda parameters, lr: student.torch.optim.Adam(parameters, lr=lr, **ADAM)
        )
        networks.start(inputs)
        *_, (_, after) = at_once(networks.both, [partial(networks.step, inputs["x"], inputs["z"])] * 2)
        judged.append((after[name], BY_ADAM[name].at(calls=torch.tensor(2), **inputs)))
    try:
        expect_all(judged, f"the {name} after two calls with Adam")
    except Failure as failure:
        raise Failure(failure.status, failure.message, failure.hint or ONE_STEP) from None


@question("1.4", imports=OPTIMIZERS)
def test_gan_step_judges_by_the_new_discriminator(student: Student, draw: Draw) -> None:
    """The generator's loss and step when the discriminator moves before: the new discriminator judges them."""
    played = play(student, [draw_game(draw, batch) for batch in BATCHES])
    moved = [game.after["generator"] for game in played]
    with noise_named(student, played[-1].inputs):
        for game in played:
            right = MOVED_DISCRIMINATOR.at(**game.inputs).values()[0]
            if not close(game.after["discriminator"], right):
                raise wrong("The discriminator is not right after its step, and it is what judges the generator.")
        expect_played(MOVED_GENERATOR, played, moved, "the generator after its step")
        expect_played(GENERATOR_LOSS, played, [game.losses[1] for game in played], "the generator's loss")


# ---------------------------------------------------------------- gradients of before


@question("1.4", imports=OPTIMIZERS)
def test_gan_step_starts_from_zero_gradients(student: Student, draw: Draw) -> None:
    """Gradients of before change nothing; both networks are in training mode, and a call leaves nothing behind."""
    inputs = draw_game(draw, 4)
    row, networks = build(student, rates_of(inputs)), build(student, rates_of(inputs))
    row.start(inputs)
    states = [row.read(row.both.state_dict())]
    states += [after for _, after in at_once(row.both, [partial(row.step, inputs["x"], inputs["z"])] * 3)]
    for name in NETWORKS:
        if close(states[0][name], states[1][name]):
            raise wrong(f"The {name} does not move at all, so that there is no step to look at.")
    left = [{name: draw.normal(*inputs[name].shape)} for name in NETWORKS]
    games = [partial(play_once, networks, inputs), *(partial(play_once, networks, inputs, some) for some in left)]
    games += [partial(play_once, networks, inputs | before) for before in states[1:-1]]
    played = at_once(student.train, games)
    if not alike(next(played).after, states[1]):
        raise wrong(
            "Two calls with the same networks, x and z leave different networks.",
            NEW_NOISE,
        )
    for name, game in zip(NETWORKS, played, strict=False):
        if not alike(game.after, states[1]):
            raise wrong(f"Gradients that the {name} had before the call change what the call does.", ZERO_GRAD)
    for game, after in zip(played, states[2:], strict=True):
        if not alike(game.after, after):
            raise wrong("In several calls in a row, a call changes what the next one does.", ZERO_GRAD)
    expect_training_mode(student, inputs)
    expect_nothing_left(student, inputs)


def expect_training_mode(student: Student, inputs: Inputs) -> None:
    """Expect both networks in training mode in either step.

    Then dropout of every input leaves no gradient for what comes before it, and none for the weights behind it.
    """
    dropout = student.torch.nn.Dropout
    behind, before = (
        build(student, rates_of(inputs), before=places) for places in (((), (dropout(1.0),)), ((dropout(1.0),), ()))
    )
    blind, noiseless = (
        played.after for played in at_once(behind.both, [partial(play_once, one, inputs) for one in (behind, before)])
    )
    weights = {name: inputs[name].double() for name in NETWORKS}
    for kept, name, mode in (
        (close(blind["generator"], weights["generator"]), "discriminator", "when the generator takes its step"),
        (close(blind["discriminator"][:-1], weights["discriminator"][:-1]), "discriminator", "when it takes its step"),
        (close(noiseless["generator"][:, :-1], weights["generator"][:, :-1]), "generator", "when it takes its step"),
    ):
        if not kept:
            raise wrong(f"The {name} is in evaluation mode {mode}: a dropout layer in it drops nothing.", TRAINING)


def expect_nothing_left(student: Student, inputs: Inputs) -> None:
    """Expect that a call leaves its arguments, the mode of the networks, and what learns, as they were."""
    networks = build(student, rates_of(inputs))
    networks.start(inputs)
    batch = {"x": inputs["x"].reshape(-1, *X_SHAPE), "z": inputs["z"]}
    expect_unchanged(observe(networks.gan_step, networks.arguments | batch, differentiate=False), batch)
    for name, layer in zip(NETWORKS, networks.layers, strict=True):
        training, *learns = fetch(
            networks.arguments[name].training, layer.weight.requires_grad, layer.bias.requires_grad
        )
        if training is not True:
            raise wrong(f"After the call the {name} is in evaluation mode.", TRAINING)
        if learns != [True, True]:
            raise wrong(
                f"After the call the {name} does not require gradients any more.",
                "Where you freeze it by requires_grad_(False), thaw it by requires_grad_(True) before you return.",
            )


def alike(one: Inputs, other: Inputs) -> bool:
    """Whether both networks are the same."""
    return all(close(one[name], other[name]) for name in NETWORKS)

"""Question 1.4, one training step of a GAN, on linear networks whose step has a closed form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from grader.engine.launcher import OPTIMIZERS
from grader.engine.student import Failure, Remote, Student, at_once, fetch, later, overwrite
from grader.oracle.answers import Form, form

from .draw import Draw
from .expect import close, expect_all, outputs, tensor, wrong
from .runner import question

DISCRIMINATOR_LOSS, GENERATOR_LOSS = form("DISCRIMINATOR_LOSS"), form("GENERATOR_LOSS")
MOVED_DISCRIMINATOR, MOVED_GENERATOR = form("MOVED_DISCRIMINATOR"), form("MOVED_GENERATOR")
Z_DIM, PIXELS = 2, 3
LR = 0.5
BATCHES = (1, 5)
NETWORKS = ("generator", "discriminator")
MEANS = {  # what torch's own words mean in a step of a GAN
    "modified by an inplace operation": "The discriminator's step changed the weights that the generator's loss was "
    "computed with: compute D(G(z)) and the generator's loss after that step.",
    "backward through the graph a second time": "Both losses hang on the same generated images: detach them in the "
    "discriminator's step.",
}
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
        arguments: the networks and the optimizers, the first four of gan_step.
        gan_step: the student's.
    """

    layers: tuple[Remote, Remote]
    both: Remote
    arguments: tuple[Remote, ...]
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
        losses, state = later(self.gan_step, *self.arguments, x, z), later(self.both.state_dict)
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


def build(student: Student, rates: tuple[float, ...]) -> Networks:
    """New networks, and plain gradient descent of these learning rates as their optimizers."""
    nn, layers = student.torch.nn, (student.torch.nn.Linear(Z_DIM, PIXELS), student.torch.nn.Linear(PIXELS, 1))
    pairs = zip(layers, rates, strict=True)
    optimizers = [student.torch.optim.SGD(later(layer.parameters), lr=rate) for layer, rate in pairs]
    networks = nn.Sequential(layers[0]), nn.Sequential(layers[1], nn.Sigmoid(), nn.Flatten(0))
    return Networks(layers, nn.ModuleList(layers), (*networks, *optimizers), student.train.gan_step)


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
    expect_played(DISCRIMINATOR_LOSS, played, [game.losses[0] for game in played], "the discriminator's loss")
    expect_played(GENERATOR_LOSS, standing, [game.losses[1] for game in standing], "the generator's loss")


@question("1.4", imports=OPTIMIZERS)
def test_gan_step_moves_the_discriminator(student: Student, draw: Draw) -> None:
    """The discriminator after the call: one step down its own loss, and nothing else."""
    played = play(student, [draw_game(draw, batch) for batch in BATCHES])
    moved = [game.after["discriminator"] for game in played]
    expect_played(MOVED_DISCRIMINATOR, played, moved, "the discriminator after its step")


@question("1.4", imports=OPTIMIZERS)
def test_gan_step_moves_the_generator(student: Student, draw: Draw) -> None:
    """The generator after the call, beside a discriminator that stands still: one step down its own loss."""
    played = play(student, [draw_game(draw, batch, discriminator_lr=0.0) for batch in BATCHES])
    moved = [game.after["generator"] for game in played]
    expect_played(MOVED_GENERATOR, played, moved, "the generator after its step")


@question("1.4", imports=OPTIMIZERS)
def test_gan_step_judges_by_the_new_discriminator(student: Student, draw: Draw) -> None:
    """The generator's loss and step when the discriminator moves before: the new discriminator judges them."""
    played = play(student, [draw_game(draw, batch) for batch in BATCHES])
    for game in played:
        right = MOVED_DISCRIMINATOR.at(**game.inputs).values()[0]
        if not close(game.after["discriminator"], right):
            raise wrong("The discriminator is not right after its step, and it is what judges the generator.")
    expect_played(MOVED_GENERATOR, played, [game.after["generator"] for game in played], "the generator after its step")
    expect_played(GENERATOR_LOSS, played, [game.losses[1] for game in played], "the generator's loss")


# ---------------------------------------------------------------- gradients of before


@question("1.4", imports=OPTIMIZERS)
def test_gan_step_starts_from_zero_gradients(student: Student, draw: Draw) -> None:
    """Gradients of before change nothing: in three steps in a row, and where there were some before the first."""
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
            "z is the only source of randomness: use it in both steps, and draw no noise of your own.",
        )
    for name, game in zip(NETWORKS, played, strict=False):
        if not alike(game.after, states[1]):
            raise wrong(f"Gradients that the {name} had before the call change what the call does.", ZERO_GRAD)
    for game, after in zip(played, states[2:], strict=True):
        if not alike(game.after, after):
            raise wrong("In several calls in a row, a call changes what the next one does.", ZERO_GRAD)


def alike(one: Inputs, other: Inputs) -> bool:
    """Whether both networks are the same."""
    return all(close(one[name], other[name]) for name in NETWORKS)

"""Question 3.4, the running average of a network's weights, on small networks whose state the checks draw."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from grader.engine.student import Failure, Remote, Student, fetch, later, of, overwrite
from grader.oracle.answers import form

from .draw import Draw
from .expect import close, expect_all, wrong
from .margins import ATOL
from .runner import question
from .states import expect_state

RUNNING_AVERAGE = form("RUNNING_AVERAGE")
DEFAULT_DECAY = 0.9999
SHOWN_NAMES = 4
COPIED = "Only parameters are averaged; every buffer is copied as it is."
INTEGER_BUFFER = "An integer buffer, as batch normalisation's num_batches_tracked, cannot be averaged. " + COPIED
MEANS = {  # what torch's own words mean in a running average
    "not implemented for 'Long'": INTEGER_BUFFER,
    "desired output type Long": INTEGER_BUFFER,
    "For integral input tensors": INTEGER_BUFFER,
    "expected dtype long": INTEGER_BUFFER,
}
State = dict[str, Tensor]


@dataclass(frozen=True)
class Blueprint:
    """A network, by what it is made of.

    Attributes:
        make: makes one in the worker, with its `torch.nn`.
        parameters: shapes by name.
        normalisations: the channels of layers of batch normalisation, by name.
        shared: other names of parameters, which two layers share, and those they have in `parameters`.
        kept_out: shapes of buffers by name that are not part of its state_dict; with `normalisations` they are all.
    """

    make: Callable[[Remote], Remote]
    parameters: dict[str, tuple[int, ...]]
    normalisations: dict[str, int]
    shared: Mapping[str, str] = field(default_factory=dict)
    kept_out: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def draw(self, draw: Draw, low: float, high: float) -> State:
        """A state of the network, whose parameters have a magnitude in [low, high]."""
        shapes = self.parameters.items()
        state = {name: draw.uniform(low, high, *shape) * draw.normal(*shape).sign() for name, shape in shapes}
        for layer, channels in self.normalisations.items():
            state |= {
                f"{layer}.running_mean": draw.normal(channels),
                f"{layer}.running_var": draw.uniform(0.5, 1.5, channels),
                f"{layer}.num_batches_tracked": draw.integers(10**6),
            }
        state |= {other: state[name] for other, name in self.shared.items()}
        return state | {name: draw.normal(*shape) for name, shape in self.kept_out.items()}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of all that a state has, by name."""
        shapes = self.parameters | {other: self.parameters[name] for other, name in self.shared.items()}
        for layer, channels in self.normalisations.items():
            shapes |= {f"{layer}.running_mean": (channels,), f"{layer}.running_var": (channels,)}
            shapes[f"{layer}.num_batches_tracked"] = ()
        return shapes | dict(self.kept_out)

    def load(self, network: Remote, state: State) -> None:
        """Give a network of the worker a state, before the next request with a result."""
        later(network.load_state_dict, {name: x for name, x in state.items() if name not in self.kept_out})
        if self.kept_out:
            overwrite(network, [of(network, name) for name in self.kept_out], [state[name] for name in self.kept_out])

    def vector(self, state: State) -> Tensor:
        """The parameters of a state, one after another: (n,)."""
        return torch.cat([state[name].flatten() for name in self.parameters])


def nested(nn: Remote) -> Remote:
    """Three layers, all of them two modules deep."""
    return nn.Sequential(nn.Sequential(nn.Linear(3, 2)), nn.Sequential(nn.LayerNorm(2), nn.Linear(2, 1)))


def normalising(nn: Remote) -> Remote:
    """Layers with buffers."""
    return nn.Sequential(nn.BatchNorm1d(3), nn.Sequential(nn.BatchNorm1d(2)))


def sharing(nn: Remote) -> Remote:
    """Two layers with the same weight, as an embedding and a last layer have, and a buffer that is not saved."""
    network = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2)))
    later(getattr(network, "1").register_buffer, "positions", torch.zeros(3), False)
    of(network, "1.0").weight = of(network, "0.weight")
    return network


LAYERS = Blueprint(
    nested,
    {
        "0.0.weight": (2, 3),
        "0.0.bias": (2,),
        "1.0.weight": (2,),
        "1.0.bias": (2,),
        "1.1.weight": (1, 2),
        "1.1.bias": (1,),
    },
    {},
)
WITH_BUFFERS = Blueprint(
    normalising,
    {"0.weight": (3,), "0.bias": (3,), "1.0.weight": (2,), "1.0.bias": (2,)},
    {"0": 3, "1.0": 2},
)
SHARING = Blueprint(
    sharing,
    {"0.weight": (2, 2), "0.bias": (2,), "1.0.bias": (2,)},
    {},
    shared={"1.0.weight": "0.weight"},
    kept_out={"1.positions": (3,)},
)


@dataclass(frozen=True)
class Case:
    """Calls in a row.

    Attributes:
        average: the state it starts from.
        networks: the state of the network at each call.
        steps: the number of each.
        decay: None where the call leaves it out.
    """

    average: State
    networks: Sequence[State]
    steps: Sequence[int]
    decay: float | None

    def inputs(self, blueprint: Blueprint) -> dict[str, Tensor]:
        """The inputs of the closed form."""
        decay = DEFAULT_DECAY if self.decay is None else self.decay
        return {
            "average": blueprint.vector(self.average),
            "networks": torch.stack([blueprint.vector(state) for state in self.networks]),
            "steps": torch.tensor(self.steps),
            "decay": torch.tensor(decay, dtype=torch.float64),  # of which float32 would lose what 1 - decay is
        }


def draw_case(draw: Draw, blueprint: Blueprint, *steps: int, decay: float | None = None, network: float = 4.0) -> Case:
    """Calls at some steps. Parameters of the network have a magnitude in [network / 2, network].

    Those of the average start in [1, 2]: with the largest network, 200, what a decay of 0.9999 adds in a call is
    fifty times the tolerance or more, and what float32 loses of 1 - decay or of a difference less than a fifth of it.
    """
    networks = [blueprint.draw(draw, network / 2, network) for _ in steps]
    return Case(blueprint.draw(draw, 1, 2), networks, steps, decay)


@dataclass(frozen=True)
class Pair:
    """An average and its network in the worker."""

    blueprint: Blueprint
    average: Remote
    network: Remote
    both: Remote
    update_average: Remote

    def follow(self, case: Case) -> None:
        """Make the calls of a case, before the next request with a result."""
        self.blueprint.load(self.average, case.average)
        for state, step in zip(case.networks, case.steps, strict=True):
            self.blueprint.load(self.network, state)
            later(self.update_average, self.average, self.network, step, *([] if case.decay is None else [case.decay]))

    def states(self) -> tuple[State, State]:
        """The average and the network as they are now. Raises Failure if the state of one is malformed."""
        try:
            both = self.both.state_dict()
        except Failure as failure:
            hints = [hint for words, hint in MEANS.items() if words in failure.message]
            raise failure.told(hints[0] if hints else failure.hint) from None
        both = dict(both) if isinstance(both, dict) else {}
        if names := self.blueprint.kept_out:
            owners = {"0.": self.average, "1.": self.network}
            kept_out = fetch(*[of(owner, name) for owner in owners.values() for name in names])
            both |= dict(zip([prefix + name for prefix in owners for name in names], kept_out, strict=True))
        return self._read(both, "0.", "average"), self._read(both, "1.", "network")

    def _read(self, both: dict[str, Any], prefix: str, owner: str) -> State:
        """One of two states: parameters in float64, buffers as they are."""
        shapes = self.blueprint.shapes
        own = {name: both.get(prefix + name) for name in shapes}
        read = expect_state(own, f"After update_average, the {owner}", shapes)
        for name in self.blueprint.parameters:
            if read[name].dtype != torch.float32:
                raise wrong(
                    f"After update_average, {name} of the {owner} is a tensor of {read[name].dtype}; before it was of "
                    "torch.float32."
                )
        return read | {name: read[name].double() for name in self.blueprint.parameters}


def build(student: Student, blueprint: Blueprint) -> Pair:
    """A new average and a new network. The first layers of both require no gradients."""
    nn = student.torch.nn
    average, network = blueprint.make(nn), blueprint.make(nn)
    for module in (average, network):
        later(getattr(module, "0").requires_grad_, False)
    return Pair(blueprint, average, network, nn.ModuleList([average, network]), student.average.update_average)


def follow(student: Student, blueprint: Blueprint, case: Case) -> State:
    """The state of the average after the calls of a case. Raises Failure if they changed the network."""
    pair = build(student, blueprint)
    pair.follow(case)
    average, network = pair.states()
    expect_untouched(network, case)
    return average


def listed(names: list[str]) -> str:
    """Names in a row, the first few of them."""
    return ", ".join([*names[:SHOWN_NAMES], *["..."] * (len(names) > SHOWN_NAMES)])


def differing(one: State, other: State) -> list[str]:
    """The names in `one` under which the other state has something else."""
    return [name for name, x in one.items() if not same(x, other.get(name))]


def same(x: Tensor, other: object) -> bool:
    """Whether two tensors hold the same numbers, to the bit; the precision of their types aside."""
    return isinstance(other, Tensor) and x.shape == other.shape and torch.equal(x.double(), other.double())


def expect_untouched(network: State, case: Case) -> None:
    """Expect the network to be what it was at the last call of a case."""
    if changed := differing(case.networks[-1], network):
        raise wrong(
            f"update_average changes the network: its {listed(changed)}.",
            "It is the average that moves, towards the network; the network stays as it is.",
        )


def expect_averages(blueprint: Blueprint, cases: Sequence[Case], averages: Sequence[State]) -> None:
    """Expect the parameters of averages after the calls of some cases."""
    for case, average in zip(cases, averages, strict=True):
        stayed = [name for name in blueprint.parameters if same(case.average[name], average[name])]
        if 0 < len(stayed) < len(blueprint.parameters):
            raise wrong(
                f"Some parameters of the average move, and others stay what they were: {listed(stayed)}.",
                "Every parameter moves: weights and biases of every layer, whether they require gradients or not.",
            )
    results = [blueprint.vector(average) for average in averages]
    expected = [RUNNING_AVERAGE.at(**case.inputs(blueprint)) for case in cases]
    expect_all(list(zip(results, expected, strict=True)), "the average after the call")


def expect_buffers(case: Case, average: State) -> None:
    """Expect the buffers of the average to be those that the network has at the last call of a case."""
    parameters = [name for name in case.average if name.endswith(("weight", "bias"))]
    network = {name: x for name, x in case.networks[-1].items() if name not in parameters}
    others = differing(network, average)
    if averaged := [name for name in others if not same(case.average[name], average.get(name))]:
        raise wrong(f"The average has other buffers than the network: {listed(averaged)}.", COPIED)
    if others:
        raise wrong(
            f"Buffers of the average stay what they were: {listed(others)}.",
            "Copy every buffer of the network, those of integers too, and those that a state_dict leaves out.",
        )


def draw_cases(draw: Draw) -> list[Case]:
    """The first steps, the long run, other decays, and several calls: no two known mistakes give the same in all."""
    return [
        draw_case(draw, LAYERS, 0),
        draw_case(draw, LAYERS, 9),
        draw_case(draw, LAYERS, 1000, network=20),
        draw_case(draw, LAYERS, 10**6, network=200),
        draw_case(draw, LAYERS, 100, decay=0.5),
        draw_case(draw, LAYERS, 3, decay=0.0),
        draw_case(draw, LAYERS, 0, 1, 2, 3),
    ]


@question("3.4")
def test_average_moves_towards_the_network(student: Student, draw: Draw) -> None:
    """The parameters after one call, at the first steps, in the long run and with other decays; and after several."""
    cases = draw_cases(draw)
    expect_averages(LAYERS, cases, [follow(student, LAYERS, case) for case in cases])
    expect_shared(student, draw_case(draw, SHARING, 2, 5))


def expect_shared(student: Student, case: Case) -> None:
    """Expect a weight that two layers share to move once in a call, as all others do, and its buffer to be copied."""
    average = follow(student, SHARING, case)
    right = RUNNING_AVERAGE.at(**case.inputs(SHARING))
    got, expected = SHARING.vector(average), right.values()[0]
    weights = SHARING.parameters["0.weight"][0] ** 2
    if close(got[weights:], expected[weights:]) and not close(got[:weights], expected[:weights]):
        raise wrong(
            "A weight that two layers share does not move as others do.",
            "parameters() has it once; a state_dict has it under the name of each of the layers.",
        )
    expect_averages(SHARING, [case], [average])
    expect_buffers(case, average)


@question("3.4")
def test_average_copies_buffers(student: Student, draw: Draw) -> None:
    """The buffers after two calls are those of the network, to the bit, and copies of them."""
    case, other = draw_case(draw, WITH_BUFFERS, 0, 1000), WITH_BUFFERS.draw(draw, 2, 4)
    pair = build(student, WITH_BUFFERS)
    pair.follow(case)
    average, network = pair.states()
    expect_untouched(network, case)
    expect_buffers(case, average)
    expect_apart(pair, average, other, "num_batches_tracked", "running_mean", "running_var")


def expect_apart(pair: Pair, average: State, other: State, *endings: str) -> None:
    """Expect that where the network becomes another, the average stays as it is, in what has one of some endings."""
    later(pair.network.load_state_dict, other)
    after, _ = pair.states()
    if shared := [name for name in differing(average, after) if name.endswith(endings)]:
        raise wrong(
            f"When the network goes on, the average changes with it, in {listed(shared)}: they share memory.",
            "Take over the numbers, not the tensors: the average has a memory of its own.",
        )


@question("3.4")
def test_average_moves_in_place(student: Student, draw: Draw) -> None:
    """The average keeps its own parameters, which whoever holds them sees move; the network stays as it is."""
    case, other = draw_case(draw, LAYERS, 0), LAYERS.draw(draw, 2, 4)
    pair = build(student, LAYERS)
    later(pair.average.requires_grad_, False)
    later(pair.average.eval)
    later(getattr(pair.network, "1").eval)  # as a part that is trained no more
    held = student.torch.nn.ParameterList(later(pair.average.parameters))
    pair.follow(case)
    average, network = pair.states()
    expect_untouched(network, case)
    if not differing(case.average, average):
        raise wrong("The average, whose parameters require no gradients, does not move.")
    before, after, target = (LAYERS.vector(state).double() for state in (case.average, average, network))
    if float(((after - before) * (target - after)).min()) < -ATOL:
        raise wrong("The average does not move towards the network: a parameter is not between the two.")
    expect_held(held, average)
    expect_flags(pair)
    expect_apart(pair, average, other, "weight", "bias")


def expect_held(held: Remote, average: State) -> None:
    """Expect the parameters of an average to be those that were held before it moved."""
    state = held.state_dict()
    kept = list(state.values()) if isinstance(state, dict) else []
    replaced = [name for (name, x), old in zip(average.items(), kept, strict=False) if not same(x, old)]
    if replaced:
        raise wrong(
            f"The parameters of the average are no longer those that it had before the call: {listed(replaced)}.",
            "Write into the parameters that the average has: whoever holds them, as a sampler does, is to see them "
            "move.",
        )


def expect_flags(pair: Pair) -> None:
    """Expect the modes and requires_grad as test_average_moves_in_place set them, of the average and the network."""
    modes = {"average": (pair.average, False), "network": (pair.network, True)}
    modes |= {f"{name}'s part 1": (getattr(module, "1"), False) for name, (module, _) in modes.items()}
    found = fetch(*[module.training for module, _ in modes.values()])
    for (name, (_, training)), now in zip(modes.items(), found, strict=True):
        if now is not training:
            raise wrong(
                f"After update_average the {name} is {'no longer' if training else 'now'} in training mode.",
                "Leave the modes of both networks as they are.",
            )
    names = pair.blueprint.parameters
    for module, owner in ((pair.average, "average"), (pair.network, "network")):
        found = fetch(*[of(module, name).requires_grad for name in names])
        for name, now in zip(names, found, strict=True):
            learns = owner == "network" and not name.startswith("0.")
            if now is not learns:
                raise wrong(
                    f"After update_average {name} of the {owner} {'no longer requires' if learns else 'now requires'} "
                    "gradients.",
                    "Leave requires_grad as it is, and give the average no graph.",
                )

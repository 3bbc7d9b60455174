"""What is right at the inputs of a check: by closed forms where they are, else by answers recorded from them.

The grader that students download has no formula in it that answers a question. It has what the closed forms gave at
the inputs that its checks draw with the public seed, and what the known mistakes gave there.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .closed_form import ClosedForm, Evaluated, Expected

ANSWERS = Path(__file__).with_name("answers.pt")
WITHHELD = {  # what answers a question: by the name of the closed form, its module
    "KL": "kl",
    "STANDARD_DEVIATION": "reparameterisation",
    "ELBO": "elbo",
    "DISCRIMINATOR_HINGE": "hinge",
    "GENERATOR_HINGE": "hinge",
    "DISCRIMINATOR_LOSS": "gan_step",
    "GENERATOR_LOSS": "gan_step",
    "MOVED_DISCRIMINATOR": "gan_step",
    "MOVED_GENERATOR": "gan_step",
    "GENERATOR_BY_ADAM": "gan_step",
    "DISCRIMINATOR_BY_ADAM": "gan_step",
    "q_sample": "forward_process",
    "LINEAR_BETAS": "schedules",
    "COSINE_BETAS": "schedules",
    "ddim_trajectory": "ddim",
    "ddim_weights": "ddim",
    "ddim_moments": "ddim",
    "GUIDED_NOISE": "guidance",
    "RUNNING_AVERAGE": "average",
    "velocity": "velocity",
    "noise_from_velocity": "velocity",
    "min_snr_weight": "velocity",
    "FLOW_POINTS": "flow",
    "FLOW_VELOCITY": "flow",
    "flow_times": "flow",
    "flow_points": "flow",
    "bits_per_dim": "bound",
}
EXACT = {"LINEAR_BETAS", "COSINE_BETAS"}  # the names whose answers are judged to more digits than float32 has
HEAD = 8  # numbers by which the inputs of a recorded answer are told apart, beside their shapes and norms
Entry = dict[str, Any]


class NotRecorded(Exception):
    """There is no answer to these inputs."""


@dataclass(frozen=True)
class Form:
    """A closed form by name, or what is recorded of it.

    Attributes:
        name: a key of WITHHELD, with the arguments that make a form of it where there are any.
        closed: the form; None where there are recorded answers only.
    """

    name: str
    closed: ClosedForm | None

    def at(self, **inputs: Tensor) -> Expected:
        """What is expected at `inputs`, which depend on the check's own draws alone. Raises NotRecorded."""
        if self.closed is None:
            return Recorded(_find(recorded_answers(), self.name, inputs), inputs)
        evaluated = self.closed.at(**inputs)
        if _recording is None:
            return evaluated
        return Recording(self.closed, inputs, _recording.add(self.name, evaluated))

    def value(self, **inputs: Tensor) -> Tensor:
        """The right value in float64, where it serves to make something and nothing is judged by it."""
        if self.closed is None:
            return _find(recorded_answers(), self.name, inputs)["values"][0].double()
        evaluated = self.closed.at(**inputs)
        if _recording is not None:
            _recording.add(self.name, evaluated, explain=False)
        return evaluated.values()[0]


def form(name: str, *arguments: Any) -> Form:
    """The closed form of a name of WITHHELD; `arguments` are those of a function that makes it."""
    full_name = f"{name}{arguments}" if arguments else name
    if ANSWERS.exists():
        return Form(full_name, None)
    return Form(full_name, _closed(name, *arguments))


@cache
def _closed(name: str, *arguments: Any) -> ClosedForm:
    found = getattr(importlib.import_module(f".{WITHHELD[name]}", __package__), name)
    return found(*arguments) if arguments else found


# ---------------------------------------------------------------- recording


@dataclass
class Answers:
    """What closed forms gave, by name, in the order of being asked."""

    entries: dict[str, list[Entry]] = field(default_factory=dict)

    def add(self, name: str, evaluated: Evaluated, explain: bool = True) -> Entry:
        """Record the values, and with `explain` what the misconceptions give, unless that was done before."""
        try:
            return _find(self.entries, name, evaluated.inputs)
        except NotRecorded:
            entry: Entry = {"inputs": {n: _fingerprint(x) for n, x in evaluated.inputs.items()}, "gradients": []}
            entry["values"] = [value if name in EXACT else value.float() for value in evaluated.values()]
            sentences = evaluated.sentences if explain else ()
            entry["misconceived"] = {text: evaluated.misconceived(text).float() for text in sentences}
            self.entries.setdefault(name, []).append(entry)
            return entry

    def save(self, path: Path) -> None:
        """Write them for `recorded_answers`."""
        torch.save(self.entries, path)


@dataclass(frozen=True)
class Recording(Evaluated):
    """A closed form at some inputs, which records the gradients it is asked for."""

    entry: Entry

    def gradients(self, which: int = 0, cotangent: Tensor | None = None) -> dict[str, Tensor]:
        """See Expected."""
        found = [super(Recording, self).gradients(n, cotangent) for n in range(len(self.form.accepted))]
        self.entry["gradients"] = [{name: x.float() for name, x in by_input.items()} for by_input in found]
        return found[which]


_recording: Answers | None = None


@contextmanager
def recording() -> Iterator[Answers]:
    """Record what closed forms are asked for."""
    global _recording
    _recording = Answers()
    try:
        yield _recording
    finally:
        _recording = None


# ---------------------------------------------------------------- recorded


@dataclass(frozen=True)
class Recorded(Expected):
    """An answer that was recorded; of gradients, those for the cotangent that the check draws."""

    entry: Entry
    inputs: dict[str, Tensor]

    @property
    def sentences(self) -> Iterable[str]:
        """See Expected."""
        return self.entry["misconceived"]

    def values(self) -> list[Tensor]:
        """See Expected."""
        return [value.double() for value in self.entry["values"]]

    def misconceived(self, sentence: str) -> Tensor:
        """See Expected."""
        return self.entry["misconceived"][sentence].double()

    def gradients(self, which: int = 0, cotangent: Tensor | None = None) -> dict[str, Tensor]:
        """See Expected."""
        return {name: gradient.double() for name, gradient in self.entry["gradients"][which].items()}


@cache
def recorded_answers() -> dict[str, list[Entry]]:
    """The answers in ANSWERS."""
    return torch.load(ANSWERS, weights_only=True)


def _fingerprint(x: Tensor) -> Entry:
    flat = x.detach().double().reshape(-1)
    return {"shape": list(x.shape), "head": flat[:HEAD].tolist(), "norm": float(flat.norm())}


def _alike(one: Entry, other: Entry) -> bool:
    """Whether two fingerprints are of the same numbers; the last bits of a draw differ between processors."""
    if one["shape"] != other["shape"]:
        return False
    pairs = zip([*one["head"], one["norm"]], [*other["head"], other["norm"]], strict=True)
    return all(math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-5) for a, b in pairs)


def _find(answers: dict[str, list[Entry]], name: str, inputs: dict[str, Tensor]) -> Entry:
    """The entry of some inputs. Raises NotRecorded if there is none."""
    prints = {n: _fingerprint(x) for n, x in inputs.items()}
    for entry in answers.get(name, []):
        if all(_alike(entry["inputs"][n], found) for n, found in prints.items()):
            return entry
    raise NotRecorded(f"{name} has no recorded answer to these inputs: only those of the public seed have one.")

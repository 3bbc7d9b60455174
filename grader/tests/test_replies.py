"""What a submission sends is hostile: with any value in place of a right reply, no check ends as an error of ours.

The solution runs in this process, without a sandbox. A part of what it sends is replaced: results, attributes,
gradients, arguments as they are afterwards, what callbacks are given.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from grader.assignment import SOLUTION
from grader.checks import runner
from grader.checks.runner import Outcome, run
from grader.engine.isolation import Isolation
from grader.engine.student import Request, Student
from grader.engine.student_files import StudentFiles
from grader.engine.wire import Packed, Tensors, _unpack, encode
from grader.engine.worker import Output, Worker, describe_error
from grader.grading import load_checks

from .conftest import QUESTIONS

TRIALS = 6  # of every check; each replaces parts from another reply on
CHECKS = [check for name, check in load_checks().items() if not QUESTIONS[check.question].needs]
TRAINING = [check for name, check in load_checks().items() if QUESTIONS[check.question].needs]
PLAIN: list[Any] = [
    0,
    -1,
    3.5,
    1 << 62,
    float("nan"),
    float("inf"),
    "text",
    "",
    None,
    True,
    {},
    {"weight": 1.0},
    [],
    [1.0],
]
Skeleton = dict[str, Any]


def other_tensor(x: torch.Tensor, random_: random.Random) -> torch.Tensor:
    """A tensor in place of another: of another rank, type or size, or with other numbers."""
    changes: list[Callable[[torch.Tensor], torch.Tensor]] = [
        lambda x: x[None],
        lambda x: x.reshape(-1),
        lambda x: torch.zeros(()),
        lambda x: torch.zeros(0),
        lambda x: x.reshape(-1)[:0].reshape(0, *x.shape[1:]) if x.ndim else x.reshape(1)[:0],
        lambda x: x[..., None].expand(*x.shape, 2),
        lambda x: x[:1] if x.ndim else x[None, None],
        lambda x: x.nan_to_num().clamp(-9, 9).long(),
        lambda x: x.isnan(),
        lambda x: torch.full(x.shape, float("nan")),
        lambda x: torch.full(x.shape, float("inf")),
        lambda x: torch.full(x.shape, 3e38),
        lambda x: torch.full(x.shape, 1e300, dtype=torch.float64),
        lambda x: torch.zeros(x.shape),
        lambda x: torch.full(x.shape, -(1 << 62)),
        lambda x: x.half(),
        lambda x: -x.flip(0) if x.is_floating_point() and x.ndim else x.double(),
    ]
    return random_.choice(changes)(x)


class Liar(Student):
    """The solution in this process, which sends something else from some reply on.

    Args:
        seed: of what is replaced, and by what.
        runs: whether anything runs; where nothing does, every reply is made up.
    """

    def __init__(self, seed: int, runs: bool = True):
        launcher = SimpleNamespace(device="cpu", require=lambda imports: None, expect=lambda imports: None)
        super().__init__(SOLUTION, launcher)  # type: ignore[arg-type]
        self.isolation = Isolation({"none": "on"}, {})
        self.chance = random.Random(seed)
        self.honest = self.chance.choice([0, 0, 1, 2, 4])  # values that are left as they are
        self.share = self.chance.choice([0.2, 1.0])
        self.steady = self.chance.choice([None, self.chance.randrange(1 << 30)])  # the same in place of everything
        self.runs = runs
        self.raised: BaseException | None = None
        self.worker = Worker(self, StudentFiles(str(SOLUTION)), str(SOLUTION), Output(1), "cpu")  # type: ignore[arg-type]
        self._process = self  # type: ignore[assignment]
        self.imports = frozenset(sys.modules)

    def _end(self) -> int:
        self.worker.objects.clear()
        self._loaded.clear()
        self._forget()
        return 0

    def _exchange(
        self, requests: list[Request], tensors: Packed, seconds: float | None = None, charged: bool = True
    ) -> tuple[list[dict[str, Any]], Tensors]:
        sent: Packed = {}
        if self.runs:
            replies = list(self.answers(requests, unpacked(tensors), sent))
        else:
            replies = [self.made_up(request) for request in requests]
        received = unpacked(sent)
        for request, reply in zip(requests, replies, strict=False):
            if "error" not in reply and request.message["operation"] in ("get", "each", "call"):
                self.lie_in(reply, received)
        return self._checked(requests, {"id": self._request_id, "replies": replies}), received

    def answers(self, requests: list[Request], tensors: Tensors, sent: Packed) -> Iterator[dict[str, Any]]:
        """What the worker says to requests, up to the first that fails."""
        for request in requests:
            try:
                yield self.worker._answer(request.message, tensors, sent)
            except BaseException as error:
                sent.clear()
                if self.raised is not None:  # in a callback, on the trusted side
                    raise self.raised from None
                yield {"error": describe_error(error, str(SOLUTION))}
                return

    def made_up(self, request: Request) -> dict[str, Any]:
        """A reply that has the form of what was asked."""
        message = request.message
        count = len(message.get("of", message.get("cases", [])))
        reply: dict[str, Any] = {"ok": {"value": message["operation"] == "make" or None}}
        if message["operation"] in ("begin", "load"):
            reply["ok"] = {"mapping": {}}
        if message["operation"] == "load":
            reply["fault"] = None
        if message["operation"] in ("get", "each"):
            reply["ok"] = {"sequence": [{"value": None}] * count}
        if message.get("gradients"):
            reply["gradients"] = {"sequence": [{"value": None}] * len(message["gradients"])}
        if message.get("echo"):
            reply["arguments"] = {"sequence": [{"value": None}] * len(message["arguments"])}
        return reply

    def lie_in(self, reply: dict[str, Any], tensors: Tensors) -> None:
        """Replace values of a reply; the sequences that a request asks for keep their lengths."""
        for part, skeleton in reply.items():
            whole = part == "ok" and "sequence" not in skeleton
            reply[part] = self.instead_of(skeleton, tensors) if whole else self.among(skeleton, tensors)

    def among(self, skeleton: Skeleton, tensors: Tensors) -> Skeleton:
        """A sequence of values some of which are replaced."""
        return {"sequence": [self.instead_of(item, tensors) for item in skeleton["sequence"]]}

    def instead_of(self, skeleton: Skeleton, tensors: Tensors) -> Skeleton:
        """What is sent in place of a value: another, or the same with something else in it."""
        if self.honest > 0:
            self.honest -= 1
            return skeleton
        if self.chance.random() > self.share:
            return skeleton
        if "sequence" in skeleton and self.chance.random() < 0.5:
            return self.among(skeleton, tensors)
        if "mapping" in skeleton and self.chance.random() < 0.7:
            return {"mapping": {k: self.instead_of(v, tensors) for k, v in skeleton["mapping"].items()}}
        return self.another(skeleton, tensors, self.chance if self.steady is None else random.Random(self.steady))

    def another(self, skeleton: Skeleton, tensors: Tensors, random_: random.Random) -> Skeleton:
        """Another value: plain, of no use, an object that stays in the worker, or a tensor."""
        kinds = ["plain", "unusable", "object", "tensor"] + ["tensor"] * 4 * ("tensor" in skeleton)
        kind = random_.choice(kinds)
        if kind == "plain":
            return encode(random_.choice(PLAIN), {}, lambda value: {"unusable": "something"})
        if kind == "unusable":
            return {"unusable": random_.choice(["a NumPy array", "a tensor of torch.complex64", "a set of 2 items"])}
        if kind == "object":
            self.worker.objects[1 << 20] = object()
            return {"object": 1 << 20}
        name = f"lie{len(tensors)}"
        tensors[name] = other_tensor(tensors.get(skeleton.get("tensor", ""), torch.ones(2, 3)), random_)
        return {"tensor": name}

    def send(self, message: dict[str, Any], tensors: Packed) -> None:
        """Take what a callback is given, in place of the wire."""
        received = unpacked(tensors)
        sequence = self.among({"sequence": message["arguments"]}, received)["sequence"]
        try:
            answer, packed = self._run_callback(message | {"arguments": sequence}, received)
        except BaseException as error:
            self.raised = error
            raise
        self.answer = answer, unpacked(packed)

    def receive(self) -> tuple[dict[str, Any], Tensors]:
        """The answer to a callback."""
        return self.answer


def unpacked(packed: Packed) -> Tensors:
    """Tensors as they arrive."""
    elements = bytearray().join(data for _, data in packed.values())
    return _unpack({name: kind for name, (kind, _) in packed.items()}, memoryview(elements))


@pytest.fixture(autouse=True)
def no_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the thread that bounds what judges: the worker, in this process, would find it and start again."""
    monkeypatch.setattr(runner, "Guard", Unguarded)


class Unguarded(nullcontext):
    """In place of a guard."""

    used = 0.0

    def __init__(self, *bounds: float):
        super().__init__()


def trial(check: Any, seed: int, runs: bool = True) -> Outcome:
    """A check of the solution, or of nothing, that sends something else."""
    return run(check, Liar(seed, runs), seed=0)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.id)
def test_no_reply_breaks_a_check(check: Any, solved: SimpleNamespace) -> None:
    outcomes = [trial(check, seed) for seed in range(TRIALS)]
    assert [outcome.message for outcome in outcomes if outcome.status == "grader_error"] == []


@pytest.mark.parametrize("check", [*CHECKS, *TRAINING], ids=lambda check: check.id)
def test_no_reply_that_is_made_up_breaks_a_check(check: Any) -> None:
    outcomes = [trial(check, seed, runs=False) for seed in range(TRIALS)]
    assert [outcome.message for outcome in outcomes if outcome.status == "grader_error"] == []


def test_the_solution_passes_here_as_it_does_in_a_worker(solved: SimpleNamespace) -> None:
    """So that what is found is found behind right replies too."""
    for check in CHECKS[::8]:
        honest = Liar(0)
        honest.honest = 1 << 60
        outcome = run(check, honest, seed=0)
        assert (outcome.status, outcome.message) == ("passed", "")

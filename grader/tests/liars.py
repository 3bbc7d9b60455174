"""Workers that lie: replies of a right submission are kept once, and come again with something else in them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import torch

from grader.assignment import SOLUTION
from grader.engine.isolation import Isolation
from grader.engine.launcher import Launcher
from grader.engine.student import Student
from grader.engine.wire import Packed, Tensors, WireClosed

HOSTILE = "\x1b[2J\ud800\u202e\u200b\0 /etc/passwd " + "x" * 3000
NUMBERS = [0, -1, 2, 7, 1 << 31, 1 << 62, -(1 << 63), 10**19, 0.5, 1e300, float("inf"), -float("inf"), float("nan")]
TEXTS = [
    "",
    "weight",
    "t0",
    "_student.close",
    "__class__.__init__",
    "..",
    "0.0.0",
    "9" * 4000,
    "\0",
    HOSTILE,
    "[bold]",
    "cpu",
]
PLAIN = [*NUMBERS, *TEXTS, None, True, False, [], {}, [[]], {"": None}, {"tensor": "t0"}, [1.0, "x", None]]
FRAMES = [
    ["loss.py", 3, "forward"], ["loss.py", 10**18, "forward"], ["loss.py", float("inf"), "f"], ["\0\ud800", 1, "f"],
    ["loss.py", "9" * 60_000, "f"], ["../../etc/passwd", 1, HOSTILE], ["loss.py"], "loss.py", None, [1, 2, 3], ["loss.py", True, "f"],
]  # fmt: skip
TRACES = ["", f"{'9' * 60_000} model\n", "      1 \ud800\n", f'      0 loss  \nTimeout\n  File "{SOLUTION}/loss.py", line {"9" * 5000} in f\n',
          f'      0 \nTimeout\n  File "{SOLUTION}/loss.py", line 3 in {HOSTILE}\n', HOSTILE]  # fmt: skip
OTHER_FRAMES: list[dict[str, Any]] = [
    {"replies": []}, {"id": 0}, {"callback": 0},
    {"callback": 1 << 62, "arguments": [], "keywords": {}}, {"callback": 0, "arguments": [], "keywords": {HOSTILE: {"value": 1}}},
]  # fmt: skip
SKELETONS = {"value", "tensor", "mapping", "sequence", "object", "unusable"}
Frame = tuple[str, Tensors]  # a message as text, and its tensors


def values_in(part: Any) -> Iterator[tuple[Any, Any]]:
    """Where values are in a message: what holds each, and its key."""
    for key, inner in part.items() if type(part) is dict else enumerate(part):
        if type(inner) is dict and len(inner) == 1 and set(inner) <= SKELETONS:
            yield part, key
        if type(inner) in (dict, list):
            yield from values_in(inner)


class Recorder:
    """A channel that keeps what is received on it."""

    def __init__(self, channel: Any, frames: list[Frame]):
        self._channel = channel
        self._frames = frames

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    def receive(self, deadline: float | None = None) -> tuple[dict[str, Any], Tensors]:
        """A frame, which is kept."""
        message, tensors = self._channel.receive(deadline)
        self._frames.append((json.dumps(message), {name: x.clone() for name, x in tensors.items()}))
        return message, tensors


def record(launcher: Launcher, run: Callable[[Student], None]) -> list[Frame]:
    """What a worker with the solution says while something is run on it."""
    frames: list[Frame] = []

    def spawn(directory: Any) -> Any:
        process = launcher.spawn(directory)
        process.channel = Recorder(process.channel, frames)  # type: ignore[assignment]
        return process

    parts = {name: getattr(launcher, name) for name in ("require", "expect", "reap", "show_stack")}
    student = Student(SOLUTION, SimpleNamespace(device="cpu", spawn=spawn, **parts))  # type: ignore[arg-type]
    run(student)
    student.drop()
    return frames


class Liar:
    """A worker, and the launcher that starts it, which says what was kept with lies in it, from some frame on."""

    device = "cpu"
    watchdog = None
    imports = frozenset[str]()

    def __init__(self, frames: list[Frame], random_: random.Random):
        self.isolation = Isolation({"none": "on"}, {})
        self.channel = self
        self.lies = 0
        self._left = iter(frames)
        self._random = random_
        self._honest = int(len(frames) * random_.random() ** 3)
        self._share = random_.choice([0.3, 1.0])
        self._id: Any = None

    def require(self, imports: Any) -> None:
        """Nothing is imported."""

    def expect(self, imports: Any) -> None:
        """Nothing is imported."""

    def spawn(self, directory: Any) -> Liar:
        """It is its own process."""
        return self

    def show_stack(self) -> None:
        """It is in its trace anyway."""

    def printed(self) -> str:
        """What no terminal should see."""
        return HOSTILE

    def end(self) -> tuple[int, str, str]:
        """A status, and texts that say anything."""
        return self._random.choice([0, -9, -64, -(1 << 40), 1 << 40]), HOSTILE, self._random.choice(TRACES)

    def silent(self) -> bool:
        """It speaks when it is asked."""
        return True

    def send(self, message: dict[str, Any], tensors: Packed | None = None, deadline: float | None = None) -> None:
        """Take a request."""
        self._id = message.get("id", self._id)

    def receive(self, deadline: float | None = None) -> tuple[dict[str, Any], Tensors]:
        """The next frame, or a lie."""
        frame = next(self._left, None)
        if frame is None:
            raise WireClosed("the other side is gone")
        message, tensors = json.loads(frame[0]), dict(frame[1])
        if "id" in message:
            message["id"] = self._id
        self._honest -= 1
        share = self._share if tensors else 0.3  # frames without tensors mostly say that something was done
        if self._honest < 0 and self._random.random() < share:
            self.lies += 1
            message = self._lie(message, tensors)
        return message if type(message) is dict else {}, tensors

    def _lie(self, message: dict[str, Any], tensors: Tensors) -> dict[str, Any]:
        """A frame with something else in it: mostly other values of a right form, which checks have to judge."""
        kind = self._random.random()
        if kind < 0.05:
            return message | self._random.choice(OTHER_FRAMES)
        if kind < 0.1 and "replies" in message:
            message["replies"][-1] = {"error": self._error()}
        elif kind < 0.3 and tensors:
            name = self._random.choice(list(tensors))
            tensors[name] = self._tensor(tensors[name])
        elif kind < 0.4:
            self._replace_anything(message)
        else:
            for _ in range(self._random.choice([1, 1, 2, 5])):
                self._replace_value(message, tensors)
        return message

    def _replace_anything(self, part: Any) -> None:
        """Put what has no form at some depth of a message."""
        while True:
            key = self._random.choice(list(part) if type(part) is dict else range(len(part)))
            if not part[key] or type(part[key]) not in (dict, list) or self._random.random() < 0.2:
                part[key] = self._random.choice(PLAIN)
                return
            part = part[key]

    def _replace_value(self, message: dict[str, Any], tensors: Tensors) -> None:
        """Put another value, whose form is right, in place of one of a message."""
        places = list(values_in(message.get("replies", [])[-3:] or message.get("arguments", [])))
        if places:
            holder, key = self._random.choice(places)
            held = holder[key]
            if "tensor" in held and self._random.random() < 0.5:
                tensors[held["tensor"]] = self._tensor(tensors[held["tensor"]])
            else:
                holder[key] = self._value(tensors)

    def _value(self, tensors: Tensors, depth: int = 0) -> Any:
        """A value of any kind, of a right form."""
        kind = self._random.choice(
            ["value", "tensor", "tensor", "mapping", "sequence", "object", "unusable"][: 7 if depth < 3 else 3]
        )
        if kind == "value":
            return {"value": self._random.choice([*NUMBERS, *TEXTS, None, True, False])}
        if kind == "tensor":
            name = f"lie{len(tensors)}"
            tensors[name] = self._tensor(torch.ones(2, 3))
            return {"tensor": name}
        if kind == "mapping":
            return {"mapping": {name: self._value(tensors, depth + 1) for name in self._random.sample(TEXTS, 3)}}
        if kind == "sequence":
            return {"sequence": [self._value(tensors, depth + 1) for _ in range(self._random.choice([0, 1, 2, 5]))]}
        return {"object": 1 << 20} if kind == "object" else {"unusable": self._random.choice(TEXTS)}

    def _tensor(self, x: torch.Tensor) -> torch.Tensor:
        """A tensor in place of another."""
        changes: list[Callable[[], torch.Tensor]] = [
            lambda: torch.tensor(float("nan")), lambda: torch.zeros(0), lambda: torch.zeros((1,) * 16), lambda: x[None],
            lambda: torch.full(x.shape, float("inf")), lambda: torch.full(x.shape, 3e38), lambda: torch.zeros(x.shape),
            lambda: x.reshape(-1), lambda: torch.empty(1 << 20, 0, 1 << 5), lambda: x.nan_to_num().clamp(-9, 9).long(),
            lambda: x.bool(), lambda: x.double() * 1e300, lambda: torch.ones(300, 300), lambda: x.half(),
            lambda: torch.full(x.shape, -(1 << 62)), lambda: x.flip(0) if x.ndim else -x,
        ]  # fmt: skip
        return self._random.choice(changes)()

    def _error(self) -> Any:
        """What was raised, or is said to have been."""
        error: dict[str, Any] = {
            "kind": "exception",
            "type": "ValueError",
            "message": HOSTILE,
            "frames": [["loss.py", 3, "f"]],
        }
        error["kind"] = self._random.choice(["exception", "missing", "memory"])
        error["frames"] = self._random.choices(FRAMES, k=self._random.choice([0, 1, 3, 200]))
        if self._random.random() < 0.5:
            error[self._random.choice(list(error))] = self._random.choice(PLAIN)
        return error

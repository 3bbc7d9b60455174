"""A submission that knows nothing but what the solution's worker said at another seed, and says it again."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grader.checks.runner import Check, Outcome
from grader.engine.isolation import Isolation
from grader.engine.launcher import Launcher, Process
from grader.engine.wire import Channel, Packed, Tensors, WireClosed
from grader.grading import session
from grader.rubric import Question
from grader.submission import Submission

Frame = tuple[dict[str, Any], Tensors]


@dataclass
class Recorder:
    """A channel to a worker that keeps what came."""

    channel: Channel
    frames: list[Frame]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.channel, name)

    def receive(self, deadline: float | None = None) -> Frame:
        """See Channel."""
        message, tensors = self.channel.receive(deadline)
        self.frames.append((dict(message), {name: x.clone() for name, x in tensors.items()}))
        return message, tensors


class Recording:
    """A launcher of workers whose frames are kept in `frames`."""

    def __init__(self, launcher: Launcher):
        self.launcher = launcher
        self.frames: list[Frame] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.launcher, name)

    def spawn(self, directory: Path) -> Process:
        """See Launcher."""
        process = self.launcher.spawn(directory)
        process.channel = Recorder(process.channel, self.frames)  # type: ignore[assignment]
        return process


@dataclass
class Replayer:
    """A channel, and the process behind it, of a worker that gives the frames that are left, whatever it is asked."""

    frames: list[Frame]
    imports: Any
    isolation: Isolation = field(default_factory=lambda: Isolation({"seccomp": True}, {}))
    watchdog: None = None
    asked: int = 0

    @property
    def channel(self) -> Replayer:
        """The process is its own channel."""
        return self

    def silent(self) -> bool:
        """See Channel."""
        return True

    def send(self, message: dict[str, Any], tensors: Packed | None = None, deadline: float | None = None) -> None:
        """See Channel."""
        self.asked = message.get("id", self.asked)

    def receive(self, deadline: float | None = None) -> Frame:
        """See Channel."""
        if not self.frames:
            raise WireClosed("nothing more was recorded")
        message, tensors = self.frames.pop(0)
        return (message | {"id": self.asked} if "id" in message else message), tensors

    def show_stack(self) -> None:
        """See Process."""

    def end(self) -> tuple[int, str, str]:
        """See Process."""
        return 0, "", ""


class Replaying(Recording):
    """A launcher of such workers."""

    def spawn(self, directory: Path) -> Any:
        """See Launcher."""
        return Replayer(self.frames, frozenset(self.launcher.imports))


def replayed(
    submission: Submission, question: Question, check: Check, launcher: Launcher, seeds: tuple[int, int] = (0, 1)
) -> tuple[Outcome, Outcome]:
    """How a check ends at one seed, and at another where the worker repeats what it said at the first."""
    first, second = Recording(launcher), Replaying(launcher)
    with session(submission, [question], first, seeds[0]) as current:
        before = current.run(check)
    second.frames[:] = first.frames
    with session(submission, [question], second, seeds[1]) as current:
        return before, current.run(check)

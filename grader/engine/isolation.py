"""What stood between student code and the machine, as a worker found before it read any; the trusted side's view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .text import Clean

SHOWN = 4  # of the things that a submission could do, in one line


class WeakIsolationError(Exception):
    """A submission could do harm on this machine; the message says what, and what to do."""


@dataclass(frozen=True)
class Isolation(Clean):
    """The layers of a worker, and what became of its attempts at what is forbidden.

    Attributes:
        layers: by name, "on" or why it is missing.
        stopped: by what was tried, whether it was stopped.
    """

    layers: dict[str, str]
    stopped: dict[str, bool]

    @classmethod
    def from_hello(cls, hello: Any) -> Isolation:
        """Read a worker's hello. Raises TypeError, KeyError or AttributeError if it is malformed."""
        layers = {str(name): str(state) for name, state in hello["layers"].items()}
        return cls(layers, {str(what): stopped is True for what, stopped in hello["stopped"].items()})

    @property
    def strong(self) -> bool:
        """Whether everything that was tried was stopped."""
        return bool(self.stopped) and all(self.stopped.values())

    @property
    def summary(self) -> str:
        """One line, without a verb before it: "strong (limits, landlock, seccomp; 24/24)"."""
        if self.strong:
            on = [name for name, state in self.layers.items() if state == "on"]
            return f"strong ({', '.join(on)}; {sum(self.stopped.values())}/{len(self.stopped)})"
        more = f" and {len(self.open) - SHOWN} other things" if len(self.open) > SHOWN else ""
        return f"weak: a submission could {', '.join(self.open[:SHOWN])}{more}"

    @property
    def open(self) -> list[str]:
        """What was tried and not stopped."""
        return [what for what, stopped in self.stopped.items() if not stopped]

    def as_fields(self) -> dict[str, str]:
        """The object `isolation` of results.json."""
        tests = {f"tried to {what}": "stopped" if stopped else "not stopped" for what, stopped in self.stopped.items()}
        return {"summary": self.summary} | self.layers | tests

    def require_strong(self) -> None:
        """Raise WeakIsolationError unless it is strong: what grading strangers' code starts with."""
        if not self.strong:
            raise WeakIsolationError(
                f"isolation is {self.summary}. `make doctor` says what is missing; grade strangers' code on a machine "
                "that has it, or with --allow-weak-isolation on one that holds nothing of value."
            )

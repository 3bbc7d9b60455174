"""In which order a class is graded: a hand-in that takes long, or ends what grades it, waits for the others.

As long as others wait for their first turn, a turn is limited to SLOW times what is usual, and a check to a part of it.
What is not done by then is graded again from the beginning, without a limit, when all have had their turn: first what
had come farthest. A hand-in whose process ended is tried again there, and the last time alone, so that no other can be
the reason.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

ATTEMPTS = 3  # of a hand-in that ends the process that grades it
FIRST_SECONDS, FIRST_SECONDS_TRAINING = 5.0, 120.0  # of a turn, as long as nobody knows what is usual
LEAST_SECONDS = 2.0
SLOW = 2.5


@dataclass(frozen=True)
class Unfinished:
    """A hand-in that has no result.

    Attributes:
        why: what happened, as a sentence that students may read.
        details: the same for assistants, a traceback for instance.
        again: whether it may be another hand-in's fault, or the machine's, so that it is worth another attempt.
    """

    why: str
    details: str = field(default="", compare=False)
    again: bool = False


@dataclass(frozen=True)
class TooLong:
    """A turn that came to its limit; `begun` is how many checks it had begun."""

    begun: int = 0


Answer = dict[str, Any] | Unfinished  # the fields of a result, or why there is none
ENDED = Unfinished(f"The process that graded it ended, {ATTEMPTS} times.", again=True)


@dataclass(frozen=True)
class Turn:
    """One attempt to grade a hand-in.

    Attributes:
        key: of its result.
        limit: the seconds after which it makes room for others; None if it may take as long as it needs.
        failures: of its attempts so far.
        begun: how many checks its last attempt had begun.
    """

    key: str
    limit: float | None = None
    failures: int = 0
    begun: int = 0


class Schedule:
    """What is left to grade, by key; each turn that `next` gives ends in a `note`.

    Args:
        keys: of results.
        first_seconds: the limit of a turn as long as nobody knows what is usual.
    """

    def __init__(self, keys: Iterable[str], first_seconds: float = FIRST_SECONDS):
        self._waiting = deque(keys)
        self._later: list[Turn] = []
        self._alone: list[Turn] = []
        self._running: list[Turn] = []
        self._took: list[float] = []
        self._cut = 0
        self._first_seconds = first_seconds

    @property
    def left(self) -> bool:
        """Whether anything is left to grade or is being graded."""
        return bool(self._waiting or self._later or self._alone or self._running)

    def next(self) -> Turn | None:
        """The turn to begin now; None if there is none before another has ended."""
        if any(turn.failures == ATTEMPTS - 1 for turn in self._running):
            return None
        if self._waiting:
            key = self._waiting.popleft()
            turn = Turn(key, self._limit() if self._waiting else None)
        elif self._later:
            turn = max(self._later, key=lambda turn: turn.begun)
            self._later.remove(turn)
        elif self._alone and not self._running:
            turn = self._alone.pop(0)
        else:
            return None
        self._running.append(turn)
        return turn

    def note(self, turn: Turn, answer: Answer | TooLong, seconds: float = 0.0) -> Answer | None:
        """Note how a turn ended, and how long it took.

        Returns:
            The answer; None if there will be another turn.
        """
        self._running.remove(turn)
        if isinstance(answer, TooLong):
            self._cut += 1
            self._later.append(Turn(turn.key, begun=answer.begun))
            return None
        if not isinstance(answer, Unfinished):
            self._took.append(seconds)
            return answer
        failures = turn.failures + 1
        if not answer.again or failures == ATTEMPTS:
            return answer
        queue = self._alone if failures == ATTEMPTS - 1 else self._later
        queue.append(Turn(turn.key, failures=failures))
        return None

    def _limit(self) -> float:
        """How long a turn may take while others wait: more where most so far took too long."""
        usual = SLOW * statistics.median(self._took) if self._took else self._first_seconds
        return float(max(LEAST_SECONDS, usual) * 2 ** min(max(self._cut - len(self._took), 0), 10))


def schedule_of(keys: Iterable[str], training: bool) -> Schedule:
    """A schedule of hand-ins of which models are trained, or are not."""
    return Schedule(keys, FIRST_SECONDS_TRAINING if training else FIRST_SECONDS)

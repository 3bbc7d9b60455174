"""In which order a class is graded: a hand-in that takes long, or ends what grades it, waits for the others.

Everybody's first turn is limited, as long as others wait for theirs: who is not done after SLOW times what is usual is
graded again from the beginning, without a limit, when all have had their turn. A hand-in whose process ended is tried
again there, and the last time alone, so that no other can be the reason.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

ATTEMPTS = 3  # of a hand-in that ends the process that grades it
FIRST_SECONDS = 10.0  # of a first turn, as long as nobody knows what is usual
LEAST_SECONDS = 2.0
SLOW = 3.0


@dataclass(frozen=True)
class Unfinished:
    """A hand-in that has no result.

    Attributes:
        why: what happened, as a sentence that students may read.
        details: the same for assistants, a traceback for instance.
        again: whether it may be another hand-in's fault, or the machine's, so that it is worth another attempt.
    """

    why: str
    details: str = ""
    again: bool = False


Answer = dict[str, Any] | Unfinished  # the fields of a result, or why there is none
ENDED = Unfinished(f"The process that graded it ended, {ATTEMPTS} times.", again=True)


@dataclass(frozen=True)
class Turn:
    """One attempt to grade a hand-in.

    Attributes:
        key: of its result.
        limit: the seconds after which it makes room for others; None if it may take as long as it needs.
        failures: of its attempts so far.
    """

    key: str
    limit: float | None = None
    failures: int = 0


class Schedule:
    """What is left to grade, by key; each turn that `next` gives ends in a `note`."""

    def __init__(self, keys: Iterable[str]):
        self._waiting = deque(keys)
        self._later: deque[Turn] = deque()
        self._alone: deque[Turn] = deque()
        self._running: list[Turn] = []
        self._took: list[float] = []
        self._patience = FIRST_SECONDS

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
            turn = self._later.popleft()
        elif self._alone and not self._running:
            turn = self._alone.popleft()
        else:
            return None
        self._running.append(turn)
        return turn

    def note(self, turn: Turn, answer: Answer | None, seconds: float = 0.0) -> Answer | None:
        """Note how a turn ended, with None if its time was over.

        Returns:
            The answer; None if there will be another turn.
        """
        self._running.remove(turn)
        if answer is None:
            self._patience = max(self._patience, 2 * (turn.limit or 0))
            self._later.append(replace(turn, limit=None))
            return None
        if isinstance(answer, Unfinished):
            failures = turn.failures + 1
            if answer.again and failures < ATTEMPTS:
                queue = self._alone if failures == ATTEMPTS - 1 else self._later
                queue.append(Turn(turn.key, failures=failures))
                return None
        else:
            self._took.append(seconds)
        return answer

    def _limit(self) -> float:
        """How long a turn may take while others wait."""
        return max(LEAST_SECONDS, SLOW * statistics.median(self._took)) if self._took else self._patience

"""Processes of this machine that grade, one hand-in at a time each.

A process that dies is replaced; only what it was grading is concerned.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from pathlib import Path

from . import work
from .schedule import ENDED, Answer, TooLong, Turn, Unfinished, schedule_of

LONGEST_SECONDS = 3600.0  # that one hand-in may take; worker and checks have bounds of their own, far below
GRACE = 2.0  # times a limit after which a process that does not end its turn is ended
GRACE_SECONDS = 10.0
LOOK_SECONDS = 1.0
END_SECONDS = 10.0  # that a process which has closed its wire may take to end
STARTS = 10  # of a process that ends before it is ready, as it may while a hand-in uses up memory
KILLED_FIRST = "500"  # oom_score_adj of what grades: when memory is short, the kernel is to spare the parent


class Lane:
    """A process that grades, its replacement when it dies, and the turn it is busy with, if it is."""

    def __init__(self, device: str):
        self.turn: Turn | None = None
        self.ready = False
        self._device = device
        self._starts = 0
        self._start()

    def _start(self) -> None:
        """Start the process. Raises GradingError if it ended too often before it was ready."""
        self._starts += 1
        if self._starts > STARTS:
            raise work.GradingError(
                f"A process that grades ended {STARTS} times before it was ready: there may be too little memory. "
                "Run the same command again with fewer JOBS."
            )
        self.turn, self.ready = None, False
        context = multiprocessing.get_context("spawn")
        self.wire, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, self._device), daemon=True)
        self._process.start()
        theirs.close()

    def begin(self, turn: Turn, files: Mapping[str, bytes], settings: work.Settings) -> None:
        """Have the process grade; it waits for that, so that nothing waits for it here."""
        self.turn, self._began = turn, time.monotonic()
        with suppress(OSError):  # it has died, as `answer` will say
            self.wire.send((files, settings, turn.limit))

    @property
    def seconds(self) -> float:
        """For how long it has been busy."""
        return time.monotonic() - self._began

    @property
    def overdue(self) -> bool:
        """Whether it has been busy for too long."""
        limit = self.turn.limit if self.turn else None
        longest = LONGEST_SECONDS if limit is None else GRACE * limit + GRACE_SECONDS
        return self.turn is not None and self.seconds > longest

    def answer(self) -> Answer | TooLong:
        """What the process says, which is there; ENDED if it has died."""
        try:
            said = self.wire.recv()
        except (EOFError, OSError):
            self._process.join(END_SECONDS)
            status = self._process.exitcode
            self.replace()
            short = ", as the kernel ends processes where memory is short" if status == -signal.SIGKILL else ""
            return replace(ENDED, details=f"The last time with exit status {status}{short}.")
        self.ready, self._starts = True, 0
        return said

    def replace(self) -> None:
        """End the process and start another one."""
        self.end()
        self._start()

    def end(self) -> None:
        """End the process, and with it what it started."""
        self._process.kill()
        self._process.join()
        self.wire.close()


def on_a_pool(contents: work.Contents, settings: work.Settings, jobs: int) -> Iterator[tuple[str, Answer]]:
    """Grade contents by key on so many processes, and give each answer as it comes. Raises GradingError."""
    schedule = schedule_of(contents, settings.training)
    lanes = [Lane(settings.device) for _ in range(min(jobs, len(contents)))]

    def hand_out() -> None:
        for lane in lanes:
            if lane.ready and lane.turn is None and (turn := schedule.next()):
                lane.begin(turn, contents[turn.key], settings)

    try:
        while schedule.left:
            for lane in answering(lanes):
                turn, seconds = lane.turn, lane.seconds if lane.turn else 0.0
                answer = lane.answer() if lane.wire.poll() else overdue_answer(lane)
                lane.turn = None
                graded = schedule.note(turn, answer, seconds) if turn else None
                hand_out()
                if turn and graded is not None:
                    yield turn.key, graded
    finally:
        for lane in lanes:
            lane.end()


def answering(lanes: Sequence[Lane]) -> list[Lane]:
    """The lanes that say something, or have been busy for too long, once there are any or some time is over."""
    speaking = wait([lane.wire for lane in lanes], LOOK_SECONDS)
    return [lane for lane in lanes if lane.wire in speaking or lane.overdue]


def overdue_answer(lane: Lane) -> Answer | TooLong:
    """The answer in place of one that did not come in time; the process is replaced."""
    limited = lane.turn is not None and lane.turn.limit is not None
    lane.replace()
    return TooLong() if limited else Unfinished(f"Grading it took more than {LONGEST_SECONDS / 60:.0f} minutes.")


def serve(wire: Connection, device: str) -> None:
    """Grade what comes through a wire, in a process of the pool that ends with its parent."""
    from grader.engine.sandbox import die_with_parent

    if sys.platform == "linux":
        die_with_parent()  # a killed batch leaves nothing that still grades
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(KILLED_FIRST)
    work.begin(device)
    with suppress(EOFError, BrokenPipeError, KeyboardInterrupt):
        wire.send({})
        while True:
            wire.send(work.attempt(*wire.recv()))

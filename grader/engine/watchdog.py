"""Bounds what a submission takes of the machine, where the system sets no limit.

`Watchdog` ends a worker whose resident memory grows over a bound. `Guard` interrupts this process itself where it
judges what a worker gave back, and takes too much memory or time for it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

INTERVAL_SECONDS = 0.05
STEPS = 10  # of a thread, more than pass before an exception that another raised in it comes
OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "cannot allocate memory")


class Watchdog(threading.Thread):
    """Watches process `pid` from the trusted side until stopped; `tripped` says whether it ended the process.

    The process must not be waited for before `stop`: until then its number cannot be another's.
    """

    def __init__(self, pid: int, resident_bytes: int):
        super().__init__(daemon=True)
        self.tripped = False
        self._pid = pid
        self._resident_bytes = resident_bytes
        self._stopped = threading.Event()

    def run(self) -> None:
        """Look at the process every 50 ms."""
        while not self._stopped.wait(INTERVAL_SECONDS):
            if resident_bytes(self._pid) > self._resident_bytes:
                self.tripped = True
                os.kill(self._pid, signal.SIGKILL)
                return

    def stop(self) -> None:
        """Stop watching. Returns when the last look is over."""
        self._stopped.set()
        self.join()


class Overrun(BaseException):
    """Judging took more than it may; nothing that judges is to catch this."""


class OutOfTime(Overrun):
    """It took too long."""


class OutOfMemory(Overrun):
    """The process has grown too much."""


class Guard:
    """Raises an Overrun in the thread that enters it, once, if that takes more memory or time before it leaves.

    What a worker computes, and the wait for it, does not count.

    Args:
        resident_bytes: by which this process may grow.
        seconds: of the processor, which the thread may use.
    """

    def __init__(self, resident_bytes: int, seconds: float):
        self._resident_bytes = resident_bytes
        self._seconds = seconds
        self._inside = self._raising = False
        self.used = 0.0

    def __enter__(self) -> Guard:
        self._thread = threading.get_ident()
        self._clock = clock_of_this_thread()
        self._started, self._resident = self._clock(), resident_bytes()
        self._inside = True
        # It has begun when this returns: one that has not passes for this thread where an exception is raised in it.
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self._leave()
        except Overrun:  # it comes once, so that it does not come again
            self._leave()
            raise

    def _leave(self) -> None:
        """Have nothing raised from now on; takes no lock, since it may be interrupted anywhere and is run again."""
        self._inside = False
        while self._raising:
            time.sleep(0)
        for _ in range(STEPS):  # one that was raised and has not come yet comes here
            pass
        self.used = self._clock() - self._started

    def _watch(self) -> None:
        """Look at this process every 50 ms."""
        while self._inside:
            time.sleep(INTERVAL_SECONDS)
            overrun = self._overrun() if self._inside else None
            if overrun is not None:
                self._raising = True  # before it is looked whether the thread has left, which waits for this
                if self._inside:
                    thread, kind = ctypes.c_ulong(self._thread), ctypes.py_object(overrun)
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, kind)
                self._raising = False
                return

    def _overrun(self) -> type[Overrun] | None:
        """What is over its bound."""
        if resident_bytes() - self._resident > self._resident_bytes:
            return OutOfMemory
        try:
            return OutOfTime if self._clock() - self._started > self._seconds else None
        except OSError:  # the thread has ended meanwhile
            return None


def clock_of_this_thread() -> Callable[[], float]:
    """A clock of the processor time that this thread has used, for every thread to read; of the process elsewhere."""
    if not hasattr(time, "pthread_getcpuclockid"):
        return time.process_time
    clock = time.pthread_getcpuclockid(threading.get_ident())
    return lambda: time.clock_gettime(clock)


def resident_bytes(pid: int | None = None) -> int:
    """Memory that a process holds, this one by default; 0 where the system does not say or the process has ended."""
    try:
        statm = Path(f"/proc/{pid or 'self'}/statm").read_text("ascii")
        return int(statm.split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0 if pid else _largest_resident_bytes()


def _largest_resident_bytes() -> int:
    """The most memory that this process has held, where the system says only that; 0 where it says nothing."""
    if sys.platform == "win32":
        return 0
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most << 10


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that there was too little memory, that of a GPU too."""
    said = str(error)[:2000].lower() if isinstance(error, RuntimeError) else ""
    return isinstance(error, MemoryError) or any(phrase in said for phrase in OUT_OF_MEMORY)

"""Ends a worker whose resident memory grows over a bound, where a limit on its address space cannot be set."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

INTERVAL_SECONDS = 0.05


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
            if self._resident() > self._resident_bytes:
                self.tripped = True
                os.kill(self._pid, signal.SIGKILL)
                return

    def stop(self) -> None:
        """Stop watching. Returns when the last look is over."""
        self._stopped.set()
        self.join()

    def _resident(self) -> int:
        try:
            pages = int(Path(f"/proc/{self._pid}/statm").read_text().split()[1])
        except (OSError, IndexError):  # it has ended, and waits to be waited for
            return 0
        return pages * os.sysconf("SC_PAGE_SIZE")

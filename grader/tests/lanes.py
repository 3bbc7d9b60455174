"""A process of the pool that grades nothing: what it does is written in each hand-in. It imports nothing that is slow."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from grader.batch.schedule import TooLong


def serve(wire: Connection, device: str) -> None:
    """Do what comes through a wire says: "die", "die once PATH", "slow", "hang", "half"; anything else is answered."""
    if device == "none":
        os._exit(1)
    with suppress(EOFError, BrokenPipeError):
        wire.send({})
        while True:
            files, _, limit = wire.recv()
            wire.send(answer(wire, files["do"].decode(), limit))


def answer(wire: Connection, do: str, limit: float | None) -> Any:
    """What to say of a hand-in."""
    if do == "die":
        os._exit(1)
    if do.startswith("die once "):
        path = Path(do.removeprefix("die once "))
        if not path.exists():
            path.touch()
            os._exit(1)
    if do == "slow" and limit is not None:
        return TooLong()
    if do == "hang":
        time.sleep(3600)
    if do == "half":
        os.write(wire.fileno(), b"\0\0\1\0half a message")
        os._exit(1)
    return {"did": do, "limit": limit, "process": os.getpid()}

"""Reads what a worker says of an exception and of where it was: strictly and with bounds, since it may be made up."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from .text import printable
from .wire import WireError

MAX_FRAMES = 8
MAX_LINES = 10_000_000  # of a file
MAX_NAME = 120  # characters of the name of a file or function
KINDS = ("exception", "missing", "memory")
REACHED = re.compile(r" *([0-9]{1,7}) (\w{0,56}) *\n", re.ASCII)
STACK_LINE = re.compile(r'File "(?P<path>[^"\n]{1,4096})", line (?P<line>[0-9]{1,7}) in (?P<function>\S{1,200})')
STACK = re.compile(r"^(?:Timeout|Fatal Python error)", re.MULTILINE)


class Frame(NamedTuple):
    """A line in a file, of which only the name is known to be text."""

    file: str
    line: int
    function: str


class Raised(NamedTuple):
    """An exception in the worker; its texts are of any length, and not yet made safe."""

    kind: str
    name: str
    message: str
    frames: list[Frame]


def read_error(error: Any) -> Raised:
    """What a worker says of an exception. Raises WireError unless it has the form of `worker.describe_error`."""
    if type(error) is not dict or set(error) != {"kind", "type", "message", "frames"}:
        raise WireError("a malformed error")
    kind, name, message, frames = (error[key] for key in ("kind", "type", "message", "frames"))
    if kind not in KINDS or {type(name), type(message)} != {str} or type(frames) is not list:
        raise WireError("a malformed error")
    return Raised(kind, name, message, [_read_frame(frame) for frame in frames[-MAX_FRAMES:]])


def _read_frame(frame: Any) -> Frame:
    """One line of a traceback. Raises WireError if it is malformed."""
    if type(frame) is not list or [type(part) for part in frame] != [str, int, str]:
        raise WireError("a malformed error")
    file, line, function = frame
    if not 0 <= line < MAX_LINES:
        raise WireError("a malformed error")
    return Frame(printable(file, MAX_NAME), line, printable(function, MAX_NAME))


def read_reached(trace: str) -> tuple[int | None, str]:
    """The number of the request that a worker was at, None where it does not say, and the module it was importing."""
    said = REACHED.match(trace)
    return (int(said[1]), said[2]) if said else (None, "")


def read_stack(trace: str) -> Iterator[Frame]:
    """The lines of the last stack that a worker left, innermost first; their files are whole paths."""
    for match in STACK_LINE.finditer(STACK.split(trace)[-1]):
        yield Frame(match["path"], int(match["line"]), printable(match["function"], MAX_NAME))

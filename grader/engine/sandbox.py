"""Layers between student code and the machine, applied in a worker before a byte of student code is read.

Each layer is one function that says what it stops. `apply` puts on all that this machine gives, and reports
which; the order matters, since later layers take away what earlier ones need.
"""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Callable

try:
    import resource
except ImportError:  # Windows has no resource limits
    resource = None  # type: ignore[assignment]

OUTPUT_BYTES = 1 << 20
ADDRESS_SPACE_BYTES = 8 << 30  # the CUDA build of torch maps 3.1 GB before it computes anything
PR_SET_PDEATHSIG = 1


def limit_resources() -> None:
    """Bound files (1 GB of printing), memory and core dumps; past a limit the student's own call fails."""
    if resource is None:
        raise OSError("this system has no resource limits")
    limits = [
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, OUTPUT_BYTES),
        (resource.RLIMIT_AS, ADDRESS_SPACE_BYTES),
    ]
    for limit, value in limits:
        resource.setrlimit(limit, (value, value))


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends: no worker outlives the grader."""
    if sys.platform != "linux":
        raise OSError("only Linux ends a process with its parent")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl failed")


LAYERS: dict[str, Callable[[], None]] = {
    "resource limits": limit_resources,
    "ends with its parent": die_with_parent,
}


def apply() -> dict[str, str]:
    """Put on every layer. Returns, for each, "on" or why it is missing here."""
    report = {}
    for name, layer in LAYERS.items():
        try:
            layer()
            report[name] = "on"
        except (OSError, ValueError) as error:
            report[name] = f"missing: {error}"
    return report

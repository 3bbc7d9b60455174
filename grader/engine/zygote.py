"""The zygote: imports torch once, holds no secret, and forks one worker for each request.

It stays on one thread, since a child forked beside running threads may hang, and never touches CUDA.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

MANY = 4  # workers that have ended, after which more are likely to come
HUGE_PAGE = 2 << 20
MADV_COLLAPSE = 25  # Linux 6.1 and newer


def main(control: socket.socket, imports: list[str]) -> None:
    """Serve requests from the trusted side on `control`, one JSON line each, until it closes.

    `imports` are modules that workers need beyond those that student code commonly imports; a request adds more.
    """
    sys.dont_write_bytecode = True
    from . import sandbox, worker  # noqa: F401 (which workers need)

    sandbox.forbid_inspection()
    warm_up()
    sandbox.closed_libraries()  # which every worker then knows
    import_frozen(imports)
    with contextlib.suppress(ConnectionError):  # the other side may close at any time; then there is nothing to do
        Zygote(control).serve()


class Zygote:
    """Answers requests from the trusted side: each operation is a method, and gives the reply.

    Args:
        control: where requests come from.
    """

    def __init__(self, control: socket.socket):
        self.control = control
        self.workers: set[int] = set()
        self.ended = 0
        self.operations: dict[str, Callable[..., dict[str, Any]]] = {
            "spawn": self.spawn,
            "import": self.import_modules,
            "show_stack": self.show_stack,
            "reap": self.reap,
        }

    def serve(self) -> None:
        """Say that all is ready, and answer until the other side closes. Raises ConnectionError as it may."""
        self.reply({"ready": os.getpid()})
        while True:
            data, descriptors, _, _ = socket.recv_fds(self.control, 1 << 16, 3)
            if not data:
                return
            request = json.loads(data)
            operation = self.operations[request.pop("operation")]
            self.reply(operation(**request) if not descriptors else operation(descriptors, **request))
            if self.ended == MANY and not self.workers:  # a worker would keep the small pages, for itself alone
                use_huge_pages()
                self.ended += 1

    def reply(self, message: dict[str, Any]) -> None:
        """Send one line of JSON."""
        self.control.sendall(json.dumps(message).encode() + b"\n")

    def spawn(self, descriptors: list[int], policy: dict[str, Any]) -> dict[str, Any]:
        """Fork a worker, which gets the wire and the files for its output and its trace."""
        pid = os.fork()
        if pid == 0:
            self._become_worker(descriptors, policy)
        for descriptor in descriptors:
            os.close(descriptor)
        self.workers.add(pid)
        return {"pid": pid}

    def _become_worker(self, descriptors: list[int], policy: dict[str, Any]) -> None:
        """Be a worker from now on. Does not return."""
        from . import sandbox, worker
        from .wire import Channel

        try:
            os.setsid()
            self.control.close()
            wire, output, trace = descriptors
            worker.run(Channel(socket.socket(fileno=wire)), sandbox.Policy(**policy), output, trace)
        finally:
            os._exit(70)

    def import_modules(self, modules: list[str]) -> dict[str, Any]:
        """Import modules for the workers to come."""
        import_frozen(modules)
        return {"imported": modules}

    def show_stack(self, pid: int) -> dict[str, Any]:
        """Have a worker write where it is."""
        from . import sandbox

        if pid in self.workers and sandbox.SHOW_STACK is not None:
            os.kill(pid, sandbox.SHOW_STACK)
        return {"asked": pid}

    def reap(self, pid: int) -> dict[str, Any]:
        """End a worker. One that is not ours went down with the zygote before this one: its number may be anybody's."""
        known = pid in self.workers
        self.workers.discard(pid)
        self.ended += self.ended < MANY
        return {"status": reap(pid) if known else -signal.SIGKILL}


def reap(pid: int) -> int:
    """Kill a worker and whatever it left in its process group. Returns its exit status, negative for a signal."""
    # Until it is waited for, the worker keeps its number: no other process can be hit.
    for kill in (os.killpg, os.kill):
        try:
            kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def use_huge_pages() -> None:
    """Have the kernel move this process's memory to huge pages, where it can: a fork copies the list of its pages.

    With those of 2 MB instead of 4 KB, a worker is forked and ended in half the time. What one then writes to is
    copied in 4 KB as before.
    """
    from .landlock import LIBC

    assert LIBC is not None  # a zygote is started on Linux only
    for low, high in own_memory():
        first, last = -(-low // HUGE_PAGE), high // HUGE_PAGE
        if first < last:  # a refusal leaves all as it was
            LIBC.madvise(ctypes.c_void_p(first * HUGE_PAGE), ctypes.c_size_t((last - first) * HUGE_PAGE), MADV_COLLAPSE)


def own_memory() -> Iterator[tuple[int, int]]:
    """The ranges of addresses of what this process has allocated; files and stacks are not among them."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        addresses, rights, _, _, file, *name = line.split(maxsplit=5)
        if rights.startswith("rw") and file == "0" and name in ([], ["[heap]"]):
            low, high = addresses.split("-")
            yield int(low, 16), int(high, 16)


# What student code commonly imports: a sealed worker can open no file, and so import nothing new.
COMMON_MODULES = (
    *("abc", "argparse", "bisect", "collections", "contextlib", "copy", "csv", "dataclasses", "datetime", "decimal"),
    *("enum", "fractions", "functools", "glob", "heapq", "inspect", "io", "itertools", "json", "logging", "math"),
    *("numbers", "operator", "os", "pathlib", "pprint", "random", "re", "statistics", "string", "textwrap", "time"),
    *("traceback", "types", "typing", "warnings", "numpy.linalg", "numpy.random", "torch.nn.functional"),
    *("torch.distributions", "torch.optim", "torch.utils.data", "torch.nn.utils", "torch.special", "torch.linalg"),
)


def import_frozen(modules: Sequence[str]) -> None:
    """Import modules, and keep the collector's hands off them: what a worker does not touch it shares."""
    for name in modules:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()


def warm_up() -> None:
    """Import and run once, on one thread, what workers would import or set up lazily."""
    for name in COMMON_MODULES:
        importlib.import_module(name)
    import torch

    torch.set_num_threads(1)
    x = torch.randn(2, 8, 4, 4, requires_grad=True)
    torch.nn.Conv2d(8, 8, 3, padding=1)(torch.nn.functional.silu(x)).exp().sum().backward()
    torch.distributions.Normal(x, x.exp()).rsample()

"""Starts workers: forks them from a zygote, or, where fork is missing or unwise, starts a fresh process each.

Trusted side. A worker gets a socket, a file for its output and the folder of the submission, and an
environment and an import path without the grader.

`wire` is imported where it is used, since it imports torch: the zygote's torch and this process's own are to
load side by side.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from . import sandbox
from .isolation import Isolation
from .text import printable
from .watchdog import Watchdog

GRADER = Path(__file__).resolve().parents[1]
CANARY = GRADER / "rubric.toml"
OPTIMIZERS = ("torch._dynamo",)  # what torch.optim imports when the first optimizer is made, which takes a second
STACK_SECONDS = 0.5  # that a worker has to write where it is
START_SECONDS = 120.0  # importing torch from a cold network disk
MAX_OUTPUT_BYTES = 1 << 20
RESIDENT_BYTES = 12 << 30  # of a worker on a GPU, whose address space cannot be limited
KEPT_OUTPUT_BYTES = 64 << 10
KEPT_ENVIRONMENT = (
    "PATH",
    "LANG",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "TMPDIR",
    "TEMP",
    "SYSTEMROOT",
    "CUDA_VISIBLE_DEVICES",
)
# The engine is importable while the process starts, and gone from the path before student code runs.
BOOT = """
import json, sys
config = json.loads(sys.argv[1])
sys.path[:] = [config["grader"], *config["path"]]
from engine import boot
sys.path.remove(config["grader"])
boot.main(config)
"""


class Process:
    """One running worker, as the trusted side sees it: the wire to it, and the files it writes to."""

    def __init__(self, launcher: Launcher) -> None:
        from .wire import Channel

        ours, self.theirs = socket.socketpair()
        self.channel = Channel(ours)
        self.isolation = Isolation({}, {})
        self.watchdog: Watchdog | None = None
        # What student code prints, and where it was when it crashed or hung; `end` closes both.
        self.output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self.trace: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self.handle: Any = None
        self.imports = frozenset(launcher.imports)
        self._launcher = launcher

    def greet(self, pid: int) -> Process:
        """Wait for the worker's hello, which it sends before it reads student code. Raises StartError."""
        from .wire import WireError

        self.theirs.close()
        try:
            hello, _ = self.channel.receive(time.monotonic() + START_SECONDS)
            if "failed" in hello:
                raise WireError(printable(str(hello["failed"])))
            self.isolation = Isolation.from_hello(hello["hello"])
        except (WireError, KeyError, TypeError, AttributeError) as error:
            _, printed, trace = self.end()
            said = f"{printed[-2000:]}{trace[-2000:]}"
            raise StartError(f"a worker did not start: {error}." + (f" It said: {said}" if said else "")) from error
        if self._launcher.device != "cpu":
            self.watchdog = Watchdog(pid, RESIDENT_BYTES)
            self.watchdog.start()
        return self

    def printed(self) -> str:
        """The end of what the worker has printed so far."""
        descriptor = self.output.fileno()
        os.lseek(descriptor, 0, os.SEEK_SET)
        data = os.read(descriptor, MAX_OUTPUT_BYTES)
        os.lseek(descriptor, 0, os.SEEK_END)  # where the worker, whose position this is as well, goes on
        return data[-KEPT_OUTPUT_BYTES:].decode("utf-8", "replace")

    def show_stack(self) -> None:
        """Have the worker write where it is, for `end` to return, if it still can."""
        before, deadline = os.fstat(self.trace.fileno()).st_size, time.monotonic() + STACK_SECONDS
        self._launcher.show_stack(self.handle)
        while os.fstat(self.trace.fileno()).st_size == before and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.02)  # it writes line by line

    def end(self) -> tuple[int, str, str]:
        """Kill the worker. Returns its exit status, negative for a signal, what it printed, and its last stack.

        Raises:
            StartError: if what starts workers is gone, and this worker with it.
        """
        self.channel.close()
        if self.watchdog is not None:
            self.watchdog.stop()
        try:
            status = self._launcher.reap(self.handle)
        finally:
            printed, trace = _read_end(self.output), _read_end(self.trace)
        return status, printed, trace

    def discard(self) -> None:
        """Close everything of a worker that never started."""
        for resource in (self.theirs, self.channel, self.output, self.trace):
            resource.close()


def _read_end(file: IO[bytes]) -> str:
    """The last 64 KB of a file, which is closed."""
    with file:
        file.seek(0)
        return file.read(MAX_OUTPUT_BYTES)[-KEPT_OUTPUT_BYTES:].decode("utf-8", "replace")


class Launcher(Protocol):
    """Starts and ends workers.

    Attributes:
        device: where student code computes, "cpu" or "cuda".
        imports: modules that workers started from now on have imported.
    """

    device: str
    imports: set[str]

    def require(self, imports: Sequence[str]) -> None:
        """Add to `imports`."""

    def expect(self, imports: Sequence[str]) -> None:
        """Be told what will be required, to have it ready by then."""

    def spawn(self, directory: Path) -> Process:
        """Start a worker on the submission staged in `directory`."""

    def show_stack(self, handle: Any) -> None:
        """Have a worker write its stack to its trace."""

    def reap(self, handle: Any) -> int:
        """Kill one worker and return its exit status."""

    def close(self) -> None:
        """End everything that was started."""


def protect_this_process() -> None:
    """Keep workers of the same user from reading this process, where the system can: it knows the answers."""
    with contextlib.suppress(OSError):  # `isolation` says whether a worker can; this is not the only layer
        sandbox.forbid_inspection()


class StartError(Exception):
    """A worker did not start: the machine's fault, never the student's."""


def policy(directory: Path, device: str, without: Sequence[str]) -> dict[str, Any]:
    """The fields of a worker's `sandbox.Policy`; `without` names layers to leave out."""
    fields = {"directory": str(directory), "canary": str(CANARY), "grader": os.getpid(), "device": device}
    return fields | {"without": list(without)}


def boot_command(config: dict[str, Any]) -> list[str]:
    """The command of a process that can import what this one can, except the grader and its surroundings."""
    repository = GRADER.parent
    path = [p for p in sys.path if p and ("site-packages" in p or not Path(p).resolve().is_relative_to(repository))]
    return [
        sys.executable,
        "-I",
        "-B",
        "-c",
        BOOT,
        json.dumps(config | {"path": path, "grader": str(GRADER)}),
    ]


def boot_environment() -> dict[str, str]:
    """An environment with nothing of the grader's in it, and one thread, which makes forking safe."""
    kept = {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ}
    return kept | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class ZygoteLauncher:
    """Forks workers from a process that has imported torch.

    That process starts at once and is awaited at the first spawn. One that died, or lost step because it was
    interrupted between a request and its reply, is replaced at the next.

    Args:
        device: where student code computes.
        without: layers to leave out, to measure what the others stop.
    """

    def __init__(self, device: str = "cpu", without: Sequence[str] = ()) -> None:
        protect_this_process()
        self.device = device
        self._without = without
        self.imports: set[str] = set()
        self._start()

    def _start(self) -> None:
        self._control, theirs = socket.socketpair()
        self._control.settimeout(START_SECONDS)
        with theirs:
            self._process = subprocess.Popen(
                boot_command({"control": theirs.fileno(), "imports": sorted(self.imports)}),
                env=boot_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._owed = True  # it says when it is ready

    def require(self, imports: Sequence[str]) -> None:
        """Import modules in the zygote, for the workers forked from now on. Raises StartError as `spawn` does."""
        missing = sorted(set(imports) - self.imports)
        if missing:
            self._ask({"operation": "import", "modules": missing})
            self.imports.update(missing)

    def expect(self, imports: Sequence[str]) -> None:
        """Have the zygote import modules while the workers there are compute; its reply is awaited at the next request.

        Raises StartError as `spawn` does.
        """
        missing = sorted(set(imports) - self.imports)
        if missing:
            with self._in_step():
                self._send({"operation": "import", "modules": missing})
            self.imports.update(missing)

    def spawn(self, directory: Path) -> Process:
        """Fork a worker. Raises StartError if the zygote does not answer."""
        if self._process.poll() is not None:
            self.close()
            self._start()
        process = Process(self)
        descriptors = [process.theirs.fileno(), process.output.fileno(), process.trace.fileno()]
        try:
            request = {"operation": "spawn", "policy": policy(directory, self.device, self._without)}
            process.handle = self._ask(request, descriptors)["pid"]
        except BaseException:
            process.discard()
            raise
        return process.greet(process.handle)

    def show_stack(self, handle: int) -> None:
        """Have the zygote ask a worker for its stack. Raises StartError if it does not answer."""
        self._ask({"operation": "show_stack", "pid": handle})

    def reap(self, handle: int) -> int:
        """Have the zygote kill the worker with process number `handle`. Raises StartError if it does not answer."""
        return self._ask({"operation": "reap", "pid": handle})["status"]

    def close(self) -> None:
        """End the zygote; the kernel ends its workers with it."""
        self._process.kill()  # first, as it has nothing more to say
        self._control.close()
        self._process.wait()

    def _ask(self, request: dict[str, Any], descriptors: Sequence[int] = ()) -> dict[str, Any]:
        """One request and its reply."""
        with self._in_step():
            self._send(request, descriptors)
            return self._await()

    def _send(self, request: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        """One request, once the reply to the one before has come."""
        if self._owed:
            self._await()
        self._owed = True
        socket.send_fds(self._control, [json.dumps(request).encode()], descriptors)

    def _await(self) -> dict[str, Any]:
        """The reply that is owed."""
        reply = self._reply()
        self._owed = False
        return reply

    @contextlib.contextmanager
    def _in_step(self) -> Iterator[None]:
        """End the zygote if anything comes between a request and its reply. Raises StartError if the system does."""
        try:
            yield
        except BaseException as error:
            self.close()  # a reply that comes late would be taken for that of the next request
            if isinstance(error, OSError):
                raise StartError(f"the process that starts workers does not answer: {error}") from error
            raise

    def _reply(self) -> dict[str, Any]:
        line = b""
        while not line.endswith(b"\n"):
            part = self._control.recv(1 << 16)
            if not part:
                raise StartError("the process that starts workers has ended; its error is above")
            line += part
        return json.loads(line)


class FreshLauncher:
    """Starts a new Python for every worker: slower by the import of torch, and works everywhere."""

    def __init__(self, device: str = "cpu", without: Sequence[str] = ()) -> None:
        protect_this_process()
        self.device = device
        self._without = without
        self.imports: set[str] = set()

    def require(self, imports: Sequence[str]) -> None:
        """Have the workers started from now on import modules before anything else."""
        self.imports.update(imports)

    def expect(self, imports: Sequence[str]) -> None:
        """Nothing can be prepared for a process that is not there yet."""

    def spawn(self, directory: Path) -> Process:
        """Start a worker. Raises StartError if it does not come up."""
        process = Process(self)
        posix = sys.platform != "win32"
        config = {"policy": policy(directory, self.device, self._without), "imports": sorted(self.imports)}
        try:
            process.handle = worker = subprocess.Popen(
                boot_command(config),
                env=boot_environment(),
                stdin=subprocess.PIPE,
                stdout=process.output,
                stderr=process.trace,
                start_new_session=True,
                pass_fds=[process.theirs.fileno()] if posix else [],
            )
        except OSError as error:
            process.discard()
            raise StartError(f"no process could be started for a worker: {error}") from error
        assert worker.stdin is not None
        # A worker that has ended already does not read its address; `greet` finds it gone, and what it said.
        with contextlib.suppress(BrokenPipeError), worker.stdin:
            worker.stdin.write(json.dumps(_address(process.theirs, worker.pid)).encode() + b"\n")
        return process.greet(worker.pid)

    def show_stack(self, handle: subprocess.Popen) -> None:
        """Ask a worker for its stack, where there is a signal for it."""
        if sandbox.SHOW_STACK is not None:
            handle.send_signal(sandbox.SHOW_STACK)

    def reap(self, handle: subprocess.Popen) -> int:
        """Kill one worker."""
        handle.kill()
        return handle.wait()

    def close(self) -> None:
        """Nothing is kept between workers."""


def _address(sock: socket.socket, pid: int) -> dict[str, Any]:
    """How the process `pid` gets at a socket that it was handed."""
    if sys.platform == "win32":
        return {"share": base64.b64encode(sock.share(pid)).decode()}
    return {"fd": sock.fileno()}


def default_launcher(device: str = "cpu") -> Launcher:
    """Fork on Linux. Elsewhere fork is missing (Windows) or unsafe beside system libraries (macOS)."""
    return ZygoteLauncher(device) if sys.platform == "linux" else FreshLauncher(device)

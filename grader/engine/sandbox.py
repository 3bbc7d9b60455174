"""Layers between student code and the machine, put on in a worker before a byte of student code is read.

Each layer is one function that says what it stops. The order matters: limits and the change of user need rights that
later layers give up, a change of user clears the tie to the parent, Landlock and seccomp need no-new-privileges, and
seccomp comes last because it refuses calls that the other layers make. Then the worker tries what is forbidden (see
`promises`), and says in its hello what came of it. Nothing here needs root; with root there is one layer more.
"""

from __future__ import annotations

import ctypes
import os
import signal
import stat
import struct
import sys
import sysconfig
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from . import landlock, seccomp
from .landlock import LIBC

try:
    import resource
except ImportError:  # Windows has no resource limits
    resource = None  # type: ignore[assignment]

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_KEEPCAPS, PR_SET_NO_NEW_PRIVS = 1, 4, 8, 38
PR_CAPBSET_READ, PR_CAPBSET_DROP = 23, 24
CAPSET = {"x86_64": 126, "aarch64": 91}
CAPABILITY_VERSION_3 = 0x20080522
CAP_DAC_READ_SEARCH = 2  # to read files that others may not

OUTPUT_BYTES = 1 << 20
ADDRESS_SPACE_BYTES = 8 << 30  # the CUDA build of torch maps 3.1 GB before it computes anything
CPU_SECONDS = 900
DATA_BYTES = 16 << 30
OPEN_FILES, CUDA_OPEN_FILES = 64, 1024
THREADS = 64  # counted by user: only for a worker with a user of its own
CUDA_READABLE = (
    "/proc/driver/nvidia",
    "/proc/devices",
    "/proc/self",
    "/sys/devices",
    "/sys/bus/pci",
    "/dev/nvidia-caps",
)
SHOW_STACK = getattr(signal, "SIGUSR1", None)  # has a worker write where it is; Windows has no such signal
UP_TO = "landlock>"
FIRST_USER, USERS = 61184, 4336  # a range that no account has (that of systemd's dynamic users)


@dataclass(frozen=True)
class Policy:
    """What a worker may see, and what its self-test tries to reach.

    Attributes:
        directory: the staged submission.
        canary: a file of the grader's that must not be readable.
        grader: process number of the grader.
        device: where student code computes, "cpu" or "cuda".
        without: layers to leave out, to measure what the others stop; "landlock>2" leaves out what Landlock can do
            since its version 3, as on an older kernel.
    """

    directory: str
    canary: str
    grader: int
    device: str = "cpu"
    without: list[str] = field(default_factory=list)

    @property
    def landlock(self) -> int:
        """The version of Landlock whose rights are given up; 0 for none."""
        limits = [int(name.removeprefix(UP_TO)) for name in self.without if name.startswith(UP_TO)]
        return 0 if "landlock" in self.without else min([landlock.version(), *limits])

    @property
    def sealed(self) -> bool:
        """Whether no file may be opened at all, for lack of Landlock: student files then come from memory."""
        return self.landlock == 0 and "seccomp" not in self.without


def _prctl(option: int, *arguments: int) -> int:
    if sys.platform != "linux" or LIBC is None:
        raise OSError("this is a layer of Linux")
    padded = [ctypes.c_ulong(a) for a in (*arguments, 0, 0, 0, 0)[:4]]
    result = LIBC.prctl(ctypes.c_int(option), *padded)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _keep_capabilities(kept: int) -> None:
    """Give up every capability but those of a mask, for good."""
    number = CAPSET.get(os.uname().machine)
    if sys.platform != "linux" or LIBC is None or number is None:
        raise OSError("the call is not known here")
    header = struct.pack("=Ii", CAPABILITY_VERSION_3, 0)
    effective_permitted_inheritable = struct.pack("=6I", kept, kept, 0, 0, 0, 0)
    if LIBC.syscall(ctypes.c_long(number), header, effective_permitted_inheritable) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _drop_bounding_set() -> None:
    """Have no program that this process becomes gain a capability."""
    for capability in range(64):
        try:
            _prctl(PR_CAPBSET_DROP, capability)
        except OSError:  # past the last one that this kernel has
            return


# ---------------------------------------------------------------- layers, in their order


def limit_resources(policy: Policy) -> None:
    """Stops a submission that eats the disk (1 GB of printing), the memory, processor time or descriptors."""
    if resource is None:
        raise OSError("this system has no resource limits")
    # CUDA reserves more addresses than any limit could allow: there the trusted side watches resident memory too.
    on_cuda = policy.device == "cuda"
    limits = [
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, OUTPUT_BYTES),
        (resource.RLIMIT_DATA, DATA_BYTES) if on_cuda else (resource.RLIMIT_AS, ADDRESS_SPACE_BYTES),
        (resource.RLIMIT_CPU, CPU_SECONDS),
        (resource.RLIMIT_NOFILE, CUDA_OPEN_FILES if on_cuda else OPEN_FILES),
    ]
    for limit, value in limits:
        resource.setrlimit(limit, (value, value))


def change_user(policy: Policy) -> None:
    """Stops root's worker from being root: from writing what only root may, signalling anybody, undoing limits.

    Where Python's files are closed to other users the worker keeps one right of root's: to read any file. Landlock then
    says which, and a sealed worker, which opens none, does not need the right.
    """
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        raise OSError("only root can")
    closed = None if policy.sealed else closed_libraries() or closed_to_others([str(Path(policy.directory).parent)])
    if closed and not (policy.landlock and _prctl(PR_CAPBSET_READ, CAP_DAC_READ_SEARCH)):
        raise OSError(f"{closed} is closed to other users, and Python needs it")
    user = FIRST_USER + os.getpid() % USERS
    for path in [Path(policy.directory), *Path(policy.directory).iterdir()]:
        os.chown(path, -1, user)
        path.chmod(0o750 if path.is_dir() else 0o640)
    _drop_bounding_set()
    _prctl(PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    _keep_capabilities(1 << CAP_DAC_READ_SEARCH if closed else 0)
    resource.setrlimit(resource.RLIMIT_NPROC, (THREADS, THREADS))


def drop_capabilities(policy: Policy) -> None:
    """Stops what is left of root's powers where the user could not be changed."""
    if os.geteuid() == 0:
        _drop_bounding_set()
        _keep_capabilities(0)
    elif sys.platform != "linux":
        raise OSError("this is a layer of Linux")


def die_with_parent(policy: Policy | None = None) -> None:
    """Stops a worker from living on when the grader is killed, and with it loops that never end."""
    parent = os.getppid()
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def forbid_inspection(policy: Policy | None = None) -> None:
    """Stops processes of the same user from reading this one's memory, environment and descriptors."""
    _prctl(PR_SET_DUMPABLE, 0)


def forbid_new_privileges(policy: Policy) -> None:
    """Stops programs that run with their owner's rights (setuid) from giving any."""
    _prctl(PR_SET_NO_NEW_PRIVS, 1)


def restrict_files(policy: Policy) -> None:
    """Stops reading of anything but Python's libraries and the submission, and writing of anything."""
    readable, devices = [*libraries(), policy.directory, "/dev/urandom"], []
    if policy.device == "cuda":
        readable += CUDA_READABLE
        devices = [str(path) for path in Path("/dev").glob("nvidia*")]
    landlock.restrict(policy.landlock, readable, ["/dev/null"], devices)


def filter_system_calls(policy: Policy) -> None:
    """Stops every system call that is not in the tables of `seccomp`: processes, sockets, signals to others."""
    seccomp.install(policy.sealed, policy.device == "cuda")


LAYERS: dict[str, Callable[[Policy], None]] = {
    "limits": limit_resources,
    "user": change_user,
    "capabilities": drop_capabilities,
    "parent": die_with_parent,
    "inspection": forbid_inspection,
    "privileges": forbid_new_privileges,
    "landlock": restrict_files,
    "seccomp": filter_system_calls,
}


def apply(policy: Policy) -> dict[str, str]:
    """Put on every layer that this machine gives. Returns, for each, "on" or why it is missing."""
    report = {}
    for name, layer in LAYERS.items():
        if name in policy.without:
            report[name] = "left out"
            continue
        try:
            layer(policy)
            report[name] = "on"
        except (OSError, ValueError, AttributeError) as error:
            report[name] = f"missing: {getattr(error, 'strerror', None) or error}"
    if policy.sealed and report["seccomp"] == "on":
        report["landlock"] += "; sealed instead: no file can be opened"
    return report


# ---------------------------------------------------------------- what a worker may read


@cache
def libraries() -> tuple[str, ...]:
    """Folders that Python, torch and the C library load code and data from, looked up once torch is imported."""
    places = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib")]
    places += [str(Path(sys.base_prefix) / "lib")]
    for name in ("torch", "numpy"):
        file = getattr(sys.modules.get(name), "__file__", None)
        places += [str(Path(file).parents[1])] if file else []
    places += ["/usr/lib", "/lib", "/lib64", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache"]
    places += [p for p in os.environ.get("LD_LIBRARY_PATH", "").split(":") if p.startswith("/")]
    existing = dict.fromkeys(str(Path(p).resolve()) for p in places if p and Path(p).exists())
    return tuple(p for p in existing if p != "/")


@cache
def closed_libraries() -> str | None:
    """The first folder on the way to a library that other users may not pass, looked up once."""
    return closed_to_others(libraries())


def closed_to_others(places: Iterable[str]) -> str | None:
    """The first folder on the way to one of `places` that other users may not pass; None if they may pass all."""
    for place in places:
        for folder in [Path(place), *Path(place).parents]:
            if folder.is_dir() and not folder.stat().st_mode & stat.S_IXOTH:
                return str(folder)
    return None

"""What a submission cannot do, and how a worker tries it before it reads student code.

SECURITY.md lists the same promises in the same words. An attempt does no harm where it succeeds: it has arguments that
make no sense, so that the kernel complains of them if it looks at them at all, or it changes nothing. Stopped is only
what is refused, or not there.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import socket
import sys
from collections.abc import Callable
from typing import Any

from .landlock import LIBC
from .sandbox import Policy
from .seccomp import MACHINES, TRIED

REFUSALS = {errno.EPERM, errno.EACCES, errno.EROFS, errno.ENOENT, errno.ENOSYS}
NOT_OPEN = 1 << 20  # a descriptor that no process has
ADDRESS = b"\1\0x\0"  # of a local service
OPEN_FOR_IOCTL = 3  # an access mode
AF_UNIX, SOCK_DGRAM, MSG_OOB, SOL_SOCKET, SO_PEERPIDFD, PTRACE_DETACH, IPC_STAT = 1, 2, 1, 1, 77, 17, 2
F_SETFL, F_SETOWN, F_SETSIG, F_SETOWN_EX, F_SETLEASE, F_NOTIFY, O_ASYNC = 4, 8, 10, 15, 1024, 1026, 0o20000
FIOASYNC, FIOSETOWN, SIOCSPGRP, SIOCGIFCONF, FS_IOC_SETFLAGS = 0x5452, 0x8901, 0x8902, 0x8912, 0x40086602

Attempt = Callable[[Policy], Any]


def call(name: str, *arguments: int | bytes | str | None) -> Attempt:
    """An attempt at a system call. "grader" stands for the number of the grader's process."""

    def attempt(policy: Policy) -> None:
        number = TRIED[name][MACHINES[platform.machine()]]
        assert LIBC is not None
        assert number is not None
        plain = [policy.grader if a == "grader" else a for a in arguments]
        words = [ctypes.c_long(a) if isinstance(a, int) else a for a in plain]
        if LIBC.syscall(ctypes.c_long(number), *words) < 0:
            raise OSError(ctypes.get_errno(), name)

    return attempt


def read_of_grader(file: str) -> Attempt:
    """An attempt to open what the kernel shows of the grader's process."""
    return lambda policy: os.close(os.open(f"/proc/{policy.grader}/{file}", os.O_RDONLY))


def create(policy: Policy, folder: str = "") -> None:
    """Create a file, and remove it."""
    path = f"{folder or policy.directory}/tried-{os.getpid()}"
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    os.unlink(path)  # noqa: PTH108


def fork(policy: Policy) -> None:
    """Start a process that ends at once."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def be_root(policy: Policy) -> None:
    """Raise PermissionError as anybody but root."""
    if os.geteuid() != 0:
        raise PermissionError(errno.EPERM, "not root")


PROMISES: dict[str, tuple[Attempt, ...]] = {
    "read the grader's files": (
        lambda policy: os.close(os.open(policy.canary, os.O_RDONLY)),
        call("open_by_handle_at", NOT_OPEN, None, 0),
    ),
    "list other folders": (lambda policy: os.close(os.open("/", os.O_RDONLY | os.O_DIRECTORY)),),
    "create files": (create, lambda policy: create(policy, "/tmp")),
    "write files": (lambda policy: os.close(os.open("/dev/zero", os.O_WRONLY)),),
    "truncate files": (
        lambda policy: os.truncate("/", 0),
        lambda policy: os.close(os.open("/", os.O_RDONLY | os.O_TRUNC)),
        lambda policy: os.close(os.open("/dev/null", OPEN_FOR_IOCTL)),
    ),
    "change owners, rights or flags of files": (
        call("fchmod", NOT_OPEN, 0),
        call("fchown", NOT_OPEN, -1, -1),
        call("setxattr", None, None, None, 0, 0),
        call("file_setattr", -1, None, None, 0, 0),
        call("ioctl", NOT_OPEN, FS_IOC_SETFLAGS, None),
    ),
    "watch files": (call("inotify_init1", -1), call("fanotify_init", -1, 0), call("fcntl", NOT_OPEN, F_NOTIFY, 0)),
    "hold up those who open a file": (call("fcntl", NOT_OPEN, F_SETLEASE, 0),),
    "open a network connection": (
        lambda policy: socket.socket(socket.AF_INET).close(),
        lambda policy: socket.socket(socket.AF_INET6).close(),
    ),
    "learn the machine's addresses": (call("ioctl", NOT_OPEN, SIOCGIFCONF, None),),
    "talk to local services": (
        lambda policy: socket.socket(AF_UNIX).close(),
        call("socketpair", AF_UNIX, SOCK_DGRAM, 0, None),
        call("sendto", NOT_OPEN, None, 0, 0, ADDRESS, len(ADDRESS)),
        call("sendto", NOT_OPEN, None, 0, MSG_OOB, None, 0),
        call("sendmsg", NOT_OPEN, None, 0),
    ),
    "start a process": (fork,),
    "run another program": (call("execve", None, None, None),),
    "signal other processes": (
        lambda policy: os.kill(policy.grader, 0),
        *(call("fcntl", NOT_OPEN, command, 0) for command in (F_SETOWN, F_SETSIG, F_SETOWN_EX)),
        call("fcntl", NOT_OPEN, F_SETFL, O_ASYNC),
        *(call("ioctl", NOT_OPEN, request, None) for request in (FIOASYNC, FIOSETOWN, SIOCSPGRP)),
    ),
    "slow down or limit other processes": (
        call("sched_setaffinity", "grader", 0, None),
        call("setpriority", -1, 0, 0),
        call("sched_setscheduler", -1, 0, None),
        call("prlimit64", "grader", -1, None, None),
    ),
    "look into other processes": (
        call("ptrace", PTRACE_DETACH, "grader", None, 0),
        call("process_vm_readv", "grader", None, 0, None, 0, 0),
        call("getsockopt", NOT_OPEN, SOL_SOCKET, SO_PEERPIDFD, None, None),
    ),
    "read the grader's memory": (read_of_grader("mem"),),
    "read the grader's environment": (read_of_grader("environ"),),
    "use memory, queues, locks or keys of other programs": (
        call("shmctl", -1, IPC_STAT, None),
        call("msgctl", -1, IPC_STAT, None),
        call("semctl", -1, 0, IPC_STAT, None),
        call("mq_notify", NOT_OPEN, None),
        call("keyctl", 0, -3, 0),
    ),
    "be root": (be_root,),
    "change user or gain rights": (call("setresuid", -1, -1, -1), call("capset", None, None)),
    "make or enter namespaces": (call("unshare", 0), call("setns", NOT_OPEN, 0)),
    "make calls that the filter does not see": (call("io_uring_setup", 0, None),),
    "trace or program the kernel": (
        call("bpf", -1, None, 0),
        call("perf_event_open", None, 0, -1, -1, 0),
        call("userfaultfd", -1),
    ),
}


def check(policy: Policy) -> dict[str, bool]:
    """Try what is promised to be stopped. Returns, for each promise, whether every attempt was."""
    if sys.platform != "linux" or platform.machine() not in MACHINES:
        return dict.fromkeys(PROMISES, False)
    return {what: all(stopped(attempt, policy) for attempt in attempts) for what, attempts in PROMISES.items()}


def stopped(attempt: Attempt, policy: Policy) -> bool:
    """Whether an attempt is refused."""
    try:
        attempt(policy)
    except OSError as error:
        return error.errno in REFUSALS
    return False

"""A hostile submission: tries every way past the filter of system calls, and prints what was not refused.

The test puts what there is to reach in the place of TARGETS.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Callable
from typing import Any

TARGETS: dict[str, Any] = {}

LIBC = ctypes.CDLL(None, use_errno=True)
REFUSALS = (errno.EPERM, errno.EACCES, errno.ENOSYS)
STRANGE = 0x7FFFFFFF  # an argument that no call takes
tried = 0


def refused(what: str, attempt: Callable[[], Any]) -> None:
    """Try something, and print it unless it is refused."""
    global tried
    tried += 1
    try:
        came = attempt()
    except OSError as error:
        if error.errno in REFUSALS:
            return
        came = error
    print(f"THROUGH: {what}: {came!r}", flush=True)


def call(number: int, *arguments: Any) -> int:
    """A system call by its number. Raises OSError as it fails."""
    result = LIBC.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def function(name: str, *arguments: Any) -> Any:
    """A function of the C library. Raises OSError as it fails."""
    if not hasattr(LIBC, name):
        raise OSError(errno.ENOSYS, "not in this library")
    if getattr(LIBC, name)(*arguments) == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def is_open(descriptor: int) -> bool:
    """Whether a descriptor is open; a sealed worker cannot ask what it is."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_GETFD)
    except OSError:
        return False
    return True


SOCKET = next(fd for fd in range(3, 64) if is_open(fd))
OWN = os.path.abspath(__file__)  # noqa: PTH100

# ---------------------------------------------------------------- everything there is, with arguments that make no sense

PROBES = (335, 336) if os.uname().machine == "x86_64" else ()  # no filter sees these, and they end whoever makes them
for number in range(600):
    if number not in (*TARGETS["allowed"], *PROBES):
        refused(f"call {number}", lambda n=number: call(n, *[STRANGE] * 6))
        refused(f"call {number} of x32", lambda n=number: call(n | 0x40000000, *[STRANGE] * 6))
for command in (*range(5, 64), *range(1024, 1060)):
    if command != fcntl.F_DUPFD_CLOEXEC:
        refused(f"fcntl {command}", lambda c=command: call(TARGETS["fcntl"], SOCKET, c, 0))
for request in (*range(0x5402, 0x5500), *range(0x8900, 0x8A00), *range(0xFF00, 0xFF10)):
    if request not in (0x5413, 0x541B, 0x5421, 0x5450, 0x5451):
        refused(f"ioctl {request:#x}", lambda r=request: call(TARGETS["ioctl"], SOCKET, r, None))
for kind, numbers in {"f": 64, "X": 128, "v": 8, "t": 64, "i": 8, "b": 8, "P": 8, "$": 16, "\xb7": 16}.items():
    for shift in (0x00000000, 0x40080000, 0x80080000, 0xC0080000, 0x80040000, 0x40040000):
        for number in range(numbers):
            request = shift | ord(kind) << 8 | number
            refused(f"ioctl {request:#x}", lambda r=request: call(TARGETS["ioctl"], 0, r, None))
for option in (*range(1, 80), 0x59616D61, 0x53564D41):
    if option not in (3, 7, 15, 16, 23, 51):
        refused(f"prctl {option}", lambda o=option: function("prctl", o, ctypes.c_ulong(STRANGE), 0, 0, 0))
for flag in (0x20, 0x2000, 0x40000, 0x200000, 0x400000, 0x800000, 3, os.O_TRUNC, os.O_CREAT, os.O_TRUNC | 3):
    for path in (OWN, "/dev/null", "/", TARGETS["file"]):
        refused(f"open {path} with {flag:#x}", lambda p=path, f=flag: os.open(p, f))
for flag in (1 << bit for bit in range(7, 32) if not 0x7D0F00 >> bit & 1):  # a thread with a namespace, say
    refused(f"a thread with {flag:#x}", lambda f=flag: call(TARGETS["clone"], 0x3D0F00 | f, 0, 0, 0, 0))
for flag in (0x1, 0x2, 0x4000, 0x40):
    refused(f"send with {flag:#x}", lambda f=flag: call(TARGETS["sendto"], SOCKET, b"x", 1, f, None, 0))

# ---------------------------------------------------------------- signals, and whom they can reach

for pid in (TARGETS["victim"], -TARGETS["victim"], os.getppid()):
    refused("own a pipe", lambda p=pid: call(TARGETS["fcntl"], SOCKET, 8, p))
    refused("own a socket", lambda p=pid: fcntl.ioctl(SOCKET, 0x8901, struct.pack("i", p)))
    refused("own a socket in another way", lambda p=pid: fcntl.ioctl(SOCKET, 0x8902, struct.pack("i", p)))
    refused("own with a type", lambda p=pid: fcntl.fcntl(SOCKET, 15, struct.pack("ii", 1, p)))
    refused("kill", lambda p=pid: os.kill(p, 9))
    refused("kill with high bits", lambda p=pid: call(TARGETS["kill"], 1 << 32 | p & 0xFFFFFFFF, 9))
    refused("kill a thread", lambda p=pid: call(TARGETS["tgkill"], p, p, 9))
    refused("move to a core", lambda p=pid: os.sched_setaffinity(p, [0]))
    refused("ask for cores", lambda p=pid: os.sched_getaffinity(p))
    refused("make slow", lambda p=pid: os.setpriority(os.PRIO_PROCESS, p, 19))
    refused("make idle", lambda p=pid: os.sched_setscheduler(p, os.SCHED_IDLE, os.sched_param(0)))
    refused("limit", lambda p=pid: call(TARGETS["prlimit64"], p, 7, struct.pack("QQ", 3, 3), None))
for flag in (0x2000, os.O_DIRECT, 0x40000, 0x200000):  # signals, say, or output that the grader cannot read
    for descriptor in (0, 1, 2, SOCKET):
        refused(f"flag {flag:#x}", lambda d=descriptor, f=flag: fcntl.fcntl(d, fcntl.F_SETFL, os.O_NONBLOCK | f))
refused("signals of a socket", lambda: fcntl.ioctl(SOCKET, 0x5452, struct.pack("i", 1)))

# ---------------------------------------------------------------- other programs, files and services

refused("a pair of sockets", lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))
for address in (TARGETS["service"].encode(), b"\0" + TARGETS["abstract"].encode()):
    raw = struct.pack("H", socket.AF_UNIX) + address
    refused("a datagram", lambda r=raw: call(TARGETS["sendto"], SOCKET, b"x", 1, 0, r, len(r)))
    refused("a message", lambda r=raw: function("sendmsg", SOCKET, struct.pack("PIPPPPi", 0, 0, 0, 0, 0, 0, 0), 0))
    refused("a connection", lambda r=raw: function("connect", SOCKET, r, len(r)))
refused("who is there", lambda: function("getsockopt", SOCKET, 1, 17, bytes(12), struct.pack("I", 12)))
refused("a segment", lambda: function("shmctl", TARGETS["segment"], 0, None))
refused("a segment's bytes", lambda: function("shmat", TARGETS["segment"], None, 0))
refused("a queue", lambda: function("msgctl", TARGETS["queue"], 0, None))
refused("a queue's message", lambda: function("msgrcv", TARGETS["queue"], bytes(80), 64, 0, 0o4000))
refused("a lock", lambda: function("semctl", TARGETS["lock"], 0, 16, 7))
refused("a lock's removal", lambda: function("semctl", TARGETS["lock"], 0, 0, 0))
refused("a queue by name", lambda: function("mq_open", b"/" + TARGETS["abstract"].encode(), 0))
refused("a watch", lambda: function("inotify_init"))
refused("another watch", lambda: function("inotify_init1", 0))
refused("a lease", lambda: fcntl.fcntl(os.open(OWN, os.O_RDONLY), 1024, 1))
refused("a notice", lambda: fcntl.fcntl(os.open(os.path.dirname(OWN), os.O_RDONLY), 1026, 1))  # noqa: PTH120
for path in (OWN, TARGETS["file"]):
    refused("truncate", lambda p=path: os.truncate(p, 0))
    refused("chmod", lambda p=path: os.chmod(p, 0o777))  # noqa: PTH101
    refused("chown", lambda p=path: os.chown(p, os.getuid(), -1))
    refused("touch", lambda p=path: os.utime(p))
    refused("an attribute", lambda p=path: os.setxattr(p, "user.x", b"x"))
    refused("flags", lambda p=path: call(469, -100, p.encode(), struct.pack("=QIIII", 0x80, 0, 0, 0, 0), 24, 0))
    refused("to read flags", lambda p=path: call(468, -100, p.encode(), bytes(24), 24, 0))
    refused("a link", lambda p=path: os.link(p, p + "2"))
    refused("another name", lambda p=path: os.rename(p, p + "2"))  # noqa: PTH104
    refused("removal", lambda p=path: os.unlink(p))  # noqa: PTH108
refused("a folder", lambda: os.chdir("/"))
refused("a file without a name", lambda: os.open("/tmp", 0o20200000 | os.O_RDWR, 0o600))
refused("a program in memory", lambda: os.execve(os.memfd_create("x"), ["x"], {}))
refused("pipes", os.pipe)
refused("a session", os.setsid)
refused("a number of a process", lambda: os.pidfd_open(TARGETS["victim"]))
print(f"TRIED: {tried}", flush=True)

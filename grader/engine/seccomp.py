"""A seccomp filter: the kernel refuses every system call that a worker does not need.

The filter is a list of what is allowed, by purpose; some calls go through with some arguments only. Everything else
returns EPERM, so that Python raises PermissionError. What is on the list was measured: checks and
trainings were traced in forked workers, and checks in fresh ones. The calls that other versions of Python, of the C
library and of torch make for the same ends were added. What a GPU's driver calls is taken from public descriptions, and
has not been measured.

The table is written here instead of taken from libseccomp: that library is missing from many images, its binding for
Python is not on PyPI, and it knows names, but not which calls a worker needs. Numbers of calls never change; a test
compares these with the kernel's headers.

A filter is a program for a machine with one register (kernel documentation, "Seccomp BPF"): load a word of the call,
compare, jump, return a verdict. Calls that are allowed for all arguments cost nothing on Linux 5.11 and newer, which
asks the filter about them once.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterable
from typing import NamedTuple

MACHINES = {"x86_64": 0, "aarch64": 1}  # column of a call's number in the tables below
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
NEWEST = 469  # of the calls that existed when this was written; later ones do not exist for a worker

# System call: its number on x86_64 and on aarch64, None where it does not exist.
Numbers = tuple[int | None, int | None]
Table = dict[str, Numbers]

ALLOWED: dict[str, Table] = {
    "read and write what is open": {
        "read": (0, 63), "write": (1, 64), "pwrite64": (18, 68), "pread64": (17, 67), "lseek": (8, 62),
        "close": (3, 57), "readv": (19, 65), "writev": (20, 66), "ftruncate": (77, 46), "dup": (32, 23),
        "dup2": (33, None), "dup3": (292, 24), "select": (23, None), "pselect6": (270, 72), "poll": (7, None),
        "ppoll": (271, 73), "fstat": (5, 80), "getcwd": (79, 17),
    },
    "have memory": {
        "mmap": (9, 222), "munmap": (11, 215), "mremap": (25, 216), "mprotect": (10, 226), "madvise": (28, 233),
        "brk": (12, 214),
    },
    "have threads, and end": {
        "futex": (202, 98), "set_robust_list": (273, 99), "set_tid_address": (218, 96), "rseq": (334, 293),
        "sched_yield": (24, 124), "gettid": (186, 178), "getcpu": (309, 168), "exit": (60, 93),
        "exit_group": (231, 94),
    },
    "wait, and be asked for the stack": {
        "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "rt_sigpending": (127, 136),
        "rt_sigtimedwait": (128, 137), "rt_sigsuspend": (130, 133), "sigaltstack": (131, 132),
        "restart_syscall": (219, 128), "pause": (34, None), "alarm": (37, None), "getitimer": (36, 102),
        "setitimer": (38, 103), "nanosleep": (35, 101), "clock_nanosleep": (230, 115),
    },
    "ask for the time, for chance, and about itself": {
        "clock_gettime": (228, 113), "clock_getres": (229, 114), "gettimeofday": (96, 169), "time": (201, None),
        "times": (100, 153), "getrusage": (98, 165), "getrandom": (318, 278), "getpid": (39, 172),
        "getppid": (110, 173), "getuid": (102, 174), "geteuid": (107, 175), "getgid": (104, 176),
        "getegid": (108, 177), "uname": (63, 160), "sysinfo": (99, 179), "getrlimit": (97, 163),
    },
}  # fmt: skip

# Looking for files. A sealed worker, on a kernel without Landlock, does not, but may ask about those that are open.
FILES: Table = {
    "newfstatat": (262, 79), "statx": (332, 291), "stat": (4, None), "lstat": (6, None), "access": (21, None),
    "faccessat": (269, 48), "faccessat2": (439, 439), "readlink": (89, None), "readlinkat": (267, 78),
    "getdents64": (217, 61),
}  # fmt: skip

# What the driver of a GPU does besides: wait for events, and place memory.
CUDA: Table = {
    "pipe2": (293, 59), "eventfd2": (290, 19), "epoll_create1": (291, 20), "epoll_ctl": (233, 21),
    "epoll_pwait": (281, 22), "epoll_wait": (232, None), "get_mempolicy": (239, 236), "set_mempolicy": (238, 237),
    "mbind": (237, 235), "mlock": (149, 228), "munlock": (150, 229), "mincore": (27, 232), "memfd_create": (319, 279),
    "sched_get_priority_max": (146, 125), "sched_get_priority_min": (147, 126), "statfs": (137, 43),
}  # fmt: skip

# The C library tries clone3, whose arguments a filter cannot see, and falls back to clone where it does not exist.
CLONE3 = 435  # on every architecture

# What `promises` tries by number, since Python has no function for it, or one that looks at the arguments first.
TRIED: Table = {
    "ioctl": (16, 29), "sendto": (44, 206), "sendmsg": (46, 211), "socketpair": (53, 199), "getsockopt": (55, 209),
    "execve": (59, 221), "semctl": (66, 191), "msgctl": (71, 187), "fcntl": (72, 25), "fchmod": (91, 52),
    "fchown": (93, 55), "ptrace": (101, 117), "setresuid": (117, 147), "capset": (126, 91), "setpriority": (141, 140),
    "sched_setscheduler": (144, 119), "setxattr": (188, 5), "sched_setaffinity": (203, 122), "shmctl": (31, 195),
    "mq_notify": (244, 184), "keyctl": (250, 219), "unshare": (272, 97), "inotify_init1": (294, 26),
    "perf_event_open": (298, 241), "fanotify_init": (300, 262), "prlimit64": (302, 261),
    "open_by_handle_at": (304, 265), "setns": (308, 268), "process_vm_readv": (310, 270), "bpf": (321, 280),
    "userfaultfd": (323, 282), "io_uring_setup": (425, 425), "file_setattr": (469, 469),
}  # fmt: skip


class Condition(NamedTuple):
    """Holds where a word of an argument, under a mask, is one of some values."""

    argument: int
    values: tuple[int, ...]
    mask: int = 0xFFFFFFFF
    high: bool = False  # the upper word; the kernel looks at the lower one only, but for addresses


class Checked(NamedTuple):
    """A call that goes through where all conditions of one alternative hold."""

    numbers: Numbers
    alternatives: tuple[tuple[Condition, ...], ...]


WRITE_ONLY, READ_WRITE, ACCESS_MODE = 1, 2, 3  # mode 3 opens for ioctl only, of which Landlock knows nothing
MAY_CREATE = 0o1300  # O_CREAT, O_EXCL, O_TRUNC; to read and truncate is writing of which old Landlock knows nothing
# O_NOCTTY, O_APPEND, O_NONBLOCK, O_CLOEXEC, and O_DIRECTORY, O_NOFOLLOW, O_LARGEFILE, which differ between machines.
# Not O_PATH, O_TMPFILE, O_NOATIME, O_ASYNC, which sends signals, and O_DIRECT, with which the grader could not read
# what a worker wrote.
PLAIN_FLAGS = {"x86_64": 0o2006400 | 0x38000, "aarch64": 0o2006400 | 0x2C000}
AT_EMPTY_PATH = 0x1000
F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC = 0, 1, 2, 3, 4, 1030
# FIONBIO, FIONREAD, FIONCLEX, FIOCLEX, and whether it is a terminal: TCGETS, TCGETS2, TIOCGWINSZ.
HARMLESS_IOCTLS = (0x5421, 0x541B, 0x5450, 0x5451, 0x5401, 0x802C542A, 0x5413)
NVIDIA_TYPE, UVM_INITIALIZE, UVM_DEINITIALIZE = 0x4600, 0x30000001, 0x30000002
THREAD_FLAGS = (0x3D0F00, 0x7D0F00)  # of glibc and of musl
# PR_SET_NAME, PR_GET_NAME, PR_CAPBSET_READ, PR_GET_DUMPABLE, PR_GET_KEEPCAPS, and the vector length of arm.
HARMLESS_OPTIONS = (15, 16, 23, 3, 7, 51)
MATRIX_PERMISSIONS = (0x1021, 0x1022, 0x1023)  # to ask about, and for, the matrix registers of x86


def only_bits(argument: int, bits: int) -> Condition:
    """Holds where an argument has no bits but these."""
    return Condition(argument, (0,), ~bits & 0xFFFFFFFF)


def is_null(argument: int) -> tuple[Condition, Condition]:
    """Hold where an argument is no address."""
    return Condition(argument, (0,)), Condition(argument, (0,), high=True)


def checked(machine: str, pid: int, sealed: bool, cuda: bool) -> dict[str, Checked]:
    """The calls of process `pid` that go through with some arguments only; the most frequent come first."""
    plain = PLAIN_FLAGS[machine]
    flags = plain | MAY_CREATE | ACCESS_MODE
    ours = Condition(0, (pid,))
    no_address = ((Condition(3, (0,)), *is_null(4)),)
    reading = (only_bits(2, plain),)
    writing = (only_bits(2, flags), Condition(2, (WRITE_ONLY, READ_WRITE), ACCESS_MODE))
    opening = (reading, writing)
    ioctls = [(Condition(1, HARMLESS_IOCTLS),)]
    if cuda:  # the driver's own, whose numbers are plain, of one type, or two that stand alone
        ioctls += [(Condition(1, (NVIDIA_TYPE,), 0xFF00),), (only_bits(1, 0xFF),)]
        ioctls += [(Condition(1, (UVM_INITIALIZE, UVM_DEINITIALIZE)),)]
    calls = {
        "ioctl": Checked((16, 29), tuple(ioctls)),
        "recvfrom": Checked((45, 207), no_address),
        "sendto": Checked((44, 206), no_address),
        "openat": Checked((257, 56), opening),
        "open": Checked((2, None), tuple(tuple(c._replace(argument=1) for c in way) for way in opening)),
        "fcntl": Checked(
            (72, 25),
            (
                (Condition(1, (F_GETFL, F_GETFD, F_SETFD, F_DUPFD, F_DUPFD_CLOEXEC)),),
                (Condition(1, (F_SETFL,)), only_bits(2, flags)),
            ),
        ),
        "sched_getaffinity": Checked((204, 123), ((Condition(0, (0, pid)),),)),
        "clone": Checked((56, 220), ((Condition(0, THREAD_FLAGS),),)),
        "tgkill": Checked((234, 131), ((ours,),)),
        "kill": Checked((62, 129), ((ours,),)),
        "prlimit64": Checked((302, 261), ((Condition(0, (0, pid)),),)),
        "prctl": Checked((157, 167), ((Condition(0, HARMLESS_OPTIONS),),)),
        "arch_prctl": Checked((158, None), ((Condition(0, MATRIX_PERMISSIONS),),)),
    }
    if sealed:
        del calls["open"], calls["openat"]
        of_what_is_open = Condition(3, (AT_EMPTY_PATH,))  # as the C library asks
        calls["newfstatat"] = Checked(FILES["newfstatat"], ((of_what_is_open,),))
    return calls


# Offsets into struct seccomp_data, and the instructions of the filter machine.
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16
LOAD, AND, EQUAL, ABOVE, RETURN = 0x20, 0x54, 0x15, 0x25, 0x06
ALLOW, KILL_PROCESS, REFUSE = 0x7FFF0000, 0x80000000, 0x00050000

PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
Instruction = tuple[int, int, int, int]


def load(offset: int) -> Instruction:
    """Load a word of the call."""
    return (LOAD, 0, 0, offset)


def give(verdict: int) -> Instruction:
    """Return a verdict."""
    return (RETURN, 0, 0, verdict)


NOT_THERE, REFUSED_CALL = give(REFUSE | errno.ENOSYS), give(REFUSE | errno.EPERM)


def one_of(values: Iterable[int], then: int, otherwise: int) -> list[Instruction]:
    """Skip `then` instructions if the loaded word is one of the values, else `otherwise`."""
    last, *others = reversed(tuple(values))
    tests = [(EQUAL, then, otherwise, last)]
    for value in others:
        tests.insert(0, (EQUAL, then + len(tests), 0, value))
    return tests


def when_all(conditions: Iterable[Condition]) -> list[Instruction]:
    """Allow the call if all conditions hold, else go on after it."""
    program = [give(ALLOW)]
    for argument, values, mask, high in reversed(tuple(conditions)):
        masked = [(AND, 0, 0, mask)] if mask != 0xFFFFFFFF else []
        word = load(ARGUMENTS + 8 * argument + 4 * high)
        program = [word, *masked, *one_of(values, 0, len(program)), *program]
    return program


def instructions(machine: str, pid: int, sealed: bool, cuda: bool = False) -> list[Instruction]:
    """The filter of process `pid` on an architecture of MACHINES."""
    column = MACHINES[machine]
    program = [load(ARCHITECTURE), (EQUAL, 1, 0, AUDIT[machine]), give(KILL_PROCESS), load(NUMBER)]
    for call in checked(machine, pid, sealed, cuda).values():
        number = call.numbers[column]
        if number is not None:
            tests = [i for alternative in call.alternatives for i in when_all(alternative)] + [REFUSED_CALL]
            program += [(EQUAL, 0, len(tests), number), *tests]
    program += [(ABOVE, 0, 1, NEWEST), NOT_THERE, (EQUAL, 0, 1, CLONE3), NOT_THERE]
    tables = [*ALLOWED.values(), *([] if sealed else [FILES]), *([CUDA] if cuda else [])]
    numbers = [pair[column] for table in tables for pair in table.values()]
    return [*program, *one_of([n for n in numbers if n is not None], 1, 0), REFUSED_CALL, give(ALLOW)]


def install(sealed: bool, cuda: bool = False) -> None:
    """Filter the system calls of this process from now on; needs no-new-privileges.

    Raises:
        OSError: where the kernel or the architecture has no such filters.
    """
    machine = platform.machine()
    if machine not in MACHINES or not hasattr(os, "uname") or os.uname().sysname != "Linux":
        raise OSError(f"there is no filter for {machine}")
    program = b"".join(struct.pack("=HBBI", *i) for i in instructions(machine, os.getpid(), sealed, cuda))
    buffer = ctypes.create_string_buffer(program)

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]

    described = Program(len(program) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(described), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

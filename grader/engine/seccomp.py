"""A seccomp filter: the kernel refuses system calls that no numerical Python program makes.

The filter is a list of what is refused, by purpose; whatever is not listed goes through, so that a new release of
torch or of the C library does not stop working. It is small enough to be written here, which spares a library that
many images lack. Refused calls return EPERM, so that Python raises PermissionError.

A filter is a program for a machine with one register (kernel documentation, "Seccomp BPF"): load a word of the call,
compare, jump, return a verdict.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

MACHINES = {"x86_64": 0, "aarch64": 1}  # column of a call's number in the tables below
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# System call: its number on x86_64 and on aarch64, None where it does not exist.
Table = dict[str, tuple[int | None, int | None]]

DENIED: dict[str, Table] = {
    "start a process or another program": {
        "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281),
        "setsid": (112, 157), "setpgid": (109, 154),
    },
    "look into, signal or slow down other processes": {
        "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
        "pidfd_open": (434, 434), "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424),
        "process_madvise": (440, 440), "process_mrelease": (448, 448), "tkill": (200, 130),
        "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240), "setpriority": (141, 140),
        "sched_setscheduler": (144, 119), "sched_setparam": (142, 118), "sched_setattr": (314, 274),
        "ioprio_set": (251, 30), "migrate_pages": (256, 238), "move_pages": (279, 239),
    },
    "reach the network, or hand descriptors to the grader": {
        "socket": (41, 198), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201), "accept": (43, 202),
        "accept4": (288, 242), "sendmsg": (46, 211), "sendmmsg": (307, 269), "recvmsg": (47, 212),
        "recvmmsg": (299, 243),
    },
    "make calls that this filter does not see": {
        "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    },
    "talk to other programs through the kernel's memory": {
        "shmget": (29, 194), "shmat": (30, 196), "msgget": (68, 186), "semget": (64, 190), "mq_open": (240, 180),
        "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219), "memfd_secret": (447, 447),
    },
    "change what files are, which Landlock lets pass": {
        "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
        "chown": (92, None), "lchown": (94, None), "fchown": (93, 55), "fchownat": (260, 54),
        "utime": (132, None), "utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88),
        "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "setxattrat": (463, 463),
        "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16), "removexattrat": (466, 466),
        "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    },
    "change user, namespace or the machine, or use corners of the kernel with a history": {
        "setuid": (105, 146), "setgid": (106, 144), "setreuid": (113, 145), "setregid": (114, 143),
        "setresuid": (117, 147), "setresgid": (119, 149), "setgroups": (116, 159), "setfsuid": (122, 151),
        "setfsgid": (123, 152), "capset": (126, 91), "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40),
        "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "fsopen": (430, 430),
        "fsconfig": (431, 431), "fsmount": (432, 432), "move_mount": (429, 429), "open_tree": (428, 428),
        "mount_setattr": (442, 442), "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
        "personality": (135, 92), "quotactl": (179, 60), "acct": (163, 89), "swapon": (167, 224),
        "swapoff": (168, 225), "reboot": (169, 142), "init_module": (175, 105), "finit_module": (313, 273),
        "delete_module": (176, 106), "kexec_load": (246, 104), "syslog": (103, 116), "vhangup": (153, 58),
        "fanotify_init": (300, 262), "iopl": (172, None), "ioperm": (173, None), "modify_ldt": (154, None),
        "settimeofday": (164, 170), "clock_settime": (227, 112), "adjtimex": (159, 171), "sethostname": (170, 161),
    },
}  # fmt: skip

# Where Landlock is missing the process is sealed: it opens, lists and changes no file at all any more.
SEALED: Table = {
    "open": (2, None), "openat": (257, 56), "openat2": (437, 437), "creat": (85, None), "stat": (4, None),
    "lstat": (6, None), "statx": (332, 291), "access": (21, None), "faccessat": (269, 48), "faccessat2": (439, 439),
    "readlink": (89, None), "readlinkat": (267, 78), "chdir": (80, 49), "truncate": (76, 45), "mkdir": (83, None),
    "mkdirat": (258, 34), "rmdir": (84, None), "unlink": (87, None), "unlinkat": (263, 35), "rename": (82, None),
    "renameat": (264, 38), "renameat2": (316, 276), "link": (86, None), "linkat": (265, 37), "symlink": (88, None),
    "symlinkat": (266, 36), "mknod": (133, None), "mknodat": (259, 33), "inotify_init1": (294, 26),
}  # fmt: skip

# Calls that are refused for some arguments only.
CLONE, CLONE3 = (56, 220), (435, 435)
KILL, TGKILL, PRLIMIT64 = (62, 129), (234, 131), (302, 261)
IOCTL, PRCTL = (16, 29), (157, 167)
CLONE_THREAD = 0x10000
TIOCSTI, TIOCLINUX = 0x5412, 0x541C  # type into the terminal
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_PTRACER = 1, 4, 0x59616D61
X32_BIT = 0x40000000

# Offsets into struct seccomp_data, and the instructions of the filter machine.
NUMBER, ARCHITECTURE, ARGUMENT_0, ARGUMENT_1 = 0, 4, 16, 24
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, KILL_PROCESS, REFUSE = 0x7FFF0000, 0x80000000, 0x00050000

PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
Instruction = tuple[int, int, int, int]


def load(offset: int) -> Instruction:
    """Load a word of the call."""
    return (LOAD, 0, 0, offset)


def give(verdict: int) -> Instruction:
    """Return a verdict."""
    return (RETURN, 0, 0, verdict)


def when(test: int, value: int, then: list[Instruction]) -> list[Instruction]:
    """Do `then` if the loaded word passes the test, else go on after it."""
    return [(test, 0, len(then), value), *then]


def when_number(number: int, then: list[Instruction]) -> list[Instruction]:
    """Do `then`, which ends in a verdict, for one system call."""
    return when(EQUAL, number, then)


def instructions(machine: str, pid: int, sealed: bool) -> list[Instruction]:
    """The filter of process `pid` on an architecture of MACHINES."""
    column = MACHINES[machine]
    refuse, allow = give(REFUSE | errno.EPERM), give(ALLOW)
    program = [load(ARCHITECTURE), (EQUAL, 1, 0, AUDIT[machine]), give(KILL_PROCESS), load(NUMBER)]
    if machine == "x86_64":
        program += when(AT_LEAST, X32_BIT, [give(KILL_PROCESS)])
    for table in [*DENIED.values(), *([SEALED] if sealed else [])]:
        for numbers in table.values():
            number = numbers[column]
            if number is not None:
                program += when_number(number, [refuse])
    # The C library falls back from clone3, whose arguments a filter cannot see, to clone, which may make threads.
    program += when_number(CLONE3[column], [give(REFUSE | errno.ENOSYS)])
    program += when_number(CLONE[column], [load(ARGUMENT_0), *when(ANY_BIT, CLONE_THREAD, [allow]), refuse])
    for numbers in (KILL, TGKILL):
        program += when_number(numbers[column], [load(ARGUMENT_0), *when(EQUAL, pid, [allow]), refuse])
    own = [load(ARGUMENT_0), *when(EQUAL, 0, [allow]), *when(EQUAL, pid, [allow]), refuse]
    program += when_number(PRLIMIT64[column], own)
    typing = [load(ARGUMENT_1), *when(EQUAL, TIOCSTI, [refuse]), *when(EQUAL, TIOCLINUX, [refuse]), allow]
    program += when_number(IOCTL[column], typing)
    options = [when(EQUAL, option, [refuse]) for option in (PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_PTRACER)]
    program += when_number(PRCTL[column], [load(ARGUMENT_0), *[i for test in options for i in test], allow])
    return [*program, allow]


def install(sealed: bool) -> None:
    """Filter the system calls of this process from now on; needs no-new-privileges.

    Raises:
        OSError: where the kernel or the architecture has no such filters.
    """
    machine = platform.machine()
    if machine not in MACHINES or not hasattr(os, "uname") or os.uname().sysname != "Linux":
        raise OSError(f"there is no filter for {machine}")
    program = b"".join(struct.pack("=HBBI", *i) for i in instructions(machine, os.getpid(), sealed))
    buffer = ctypes.create_string_buffer(program)

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]

    described = Program(len(program) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(described), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

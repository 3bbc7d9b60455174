"""Landlock: a process gives up its access to files, but for those it names. Linux 5.13 and newer, no root needed.

The kernel's documentation is "Landlock: unprivileged access control" (userspace-api/landlock).
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from functools import cache
from pathlib import Path

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # the same numbers on every architecture
GET_VERSION = 1
PATH_BENEATH = 1

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
IOCTL_DEVICE = 1 << 15
FIRST_RIGHTS = (1 << 13) - 1  # those above, and to make or remove every kind of file
LATER_RIGHTS = {2: 1 << 13, 3: 1 << 14, 5: IOCTL_DEVICE}  # by version: link across folders, truncate, ioctl on devices
NETWORK_VERSION, NETWORK_RIGHTS = 4, 0b11  # bind and connect TCP
SCOPE_VERSION, SCOPES = 6, 0b11  # abstract sockets and signals of processes outside

LIBC = ctypes.CDLL(None, use_errno=True) if os.name == "posix" else None


def _syscall(number: int, *arguments: object) -> int:
    if LIBC is None:
        raise OSError("there is no Landlock on this system")
    result = LIBC.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


@cache
def version() -> int:
    """The version of Landlock that the kernel offers; 0 where it offers none. A filter may refuse the call later."""
    try:
        return _syscall(CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(GET_VERSION))
    except OSError:
        return 0


def restrict(offered: int, readable: Iterable[str], writable: Iterable[str] = (), devices: Iterable[str] = ()) -> None:
    """Give up all access to files but reading beneath `readable`, and using `writable` files and `devices`.

    Needs no-new-privileges. Paths that do not exist are skipped.

    Args:
        offered: the version of Landlock whose rights are used, at most that of the kernel.

    Raises:
        OSError: where that is 0.
    """
    if offered == 0:
        raise OSError("this kernel has no Landlock")
    rights = FIRST_RIGHTS
    for since, right in LATER_RIGHTS.items():
        rights |= right if offered >= since else 0
    fields = [rights]
    if offered >= NETWORK_VERSION:
        fields.append(NETWORK_RIGHTS)
    if offered >= SCOPE_VERSION:
        fields.append(SCOPES)
    attributes = struct.pack(f"={len(fields)}Q", *fields)
    ruleset = _syscall(CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint(0))
    try:
        for path in readable:
            _allow(ruleset, path, READ_FILE | READ_DIR)
        for path in writable:
            _allow(ruleset, path, READ_FILE | WRITE_FILE)
        for path in devices:
            _allow(ruleset, path, (READ_FILE | WRITE_FILE | IOCTL_DEVICE) & rights)
        _syscall(RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint(0))
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not Path(path).is_dir():
            rights &= ~READ_DIR
        rule = struct.pack("=Qi", rights, descriptor)
        _syscall(ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(PATH_BENEATH), rule, ctypes.c_uint(0))
    finally:
        os.close(descriptor)

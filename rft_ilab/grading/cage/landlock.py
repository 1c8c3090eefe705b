"""Landlock by ctypes: take the file system, TCP, abstract sockets and signals away from this process, for good.

Source: ``Documentation/userspace-api/landlock.rst`` of Linux. What an older kernel does not know is left to the
seccomp filter; metadata (``stat``) is not Landlock's business on any kernel and is left to it too.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Sequence

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # the same on all architectures
VERSION_FLAG = 1
PATH_BENEATH = 1
READ_FILE, READ_DIR = 1 << 2, 1 << 3


def abi(libc: ctypes.CDLL) -> int:
    """Version of Landlock in this kernel; 0 if there is none or it is switched off."""
    return max(0, libc.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), VERSION_FLAG))


def restrict(libc: ctypes.CDLL, version: int, readable: Sequence[str] = ()) -> None:
    """Nothing but reading below ``readable``. Needs no_new_privs. Raises OSError."""
    files = (1 << 13) - 1 | (1 << 13 if version >= 2 else 0) | (1 << 14 if version >= 3 else 0)
    files |= 1 << 15 if version >= 5 else 0
    attributes = struct.pack("=Q", files)
    if version >= 4:
        attributes += struct.pack("=Q", 0b11)  # TCP: bind, connect
    if version >= 6:
        attributes += struct.pack("=Q", 0b11)  # abstract Unix sockets, signals
    ruleset = _checked(libc.syscall(CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0))
    try:
        for path in readable:
            directory = os.open(path, os.O_PATH | os.O_CLOEXEC)
            try:
                rule = struct.pack("=Qi", READ_FILE | READ_DIR, directory)
                _checked(libc.syscall(ADD_RULE, ruleset, PATH_BENEATH, rule, 0))
            finally:
                os.close(directory)
        _checked(libc.syscall(RESTRICT_SELF, ruleset, 0))
    finally:
        os.close(ruleset)


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), "Landlock")
    return result

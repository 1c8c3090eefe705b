"""Take everything away from this process, in an order in which each step is still allowed. Standard library only.

Two walls, each of which holds alone: Landlock (where the kernel has it) leaves no file, socket and signal target; the
seccomp filter leaves no call that could reach one. Limits on memory, time, descriptors and written bytes come on top.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import struct
import sys
from dataclasses import dataclass

from rft_ilab.grading.cage import landlock, seccomp
from rft_ilab.grading.cage.channel import CHANNEL_FD

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38
NOBODY = 65534


@dataclass(frozen=True, slots=True)
class Walls:
    """What this machine offers, found out once by the fork server."""

    libc: ctypes.CDLL
    landlock: int  # version; 0: none
    filter: bytes | None  # of a child; None: no seccomp
    drop: bool  # to the user nobody


# soft and hard, so that a program cannot raise them again
LIMITS = tuple(
    (getattr(resource, name), (value, value))
    for name, value in {
        "RLIMIT_CORE": 0,
        "RLIMIT_FSIZE": 0,
        "RLIMIT_NPROC": 0,
        "RLIMIT_MEMLOCK": 0,
        "RLIMIT_MSGQUEUE": 0,
        "RLIMIT_SIGPENDING": 64,
    }.items()
    if hasattr(resource, name)  # some systems lack some of them
)
RLIMIT_AS = getattr(resource, "RLIMIT_AS", None)  # not on macOS


def drop_privileges() -> None:
    """Become nobody. Raises OSError (a container may give root without the capability)."""
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def drop_capabilities(libc: ctypes.CDLL) -> None:
    """All of them: nobody has none, but a root that cannot change its user has some, and so may any user."""
    if sys.platform == "linux":
        version_3, none = struct.pack("=Ii", 0x20080522, 0), bytes(24)
        if libc.capset(version_3, none):
            raise OSError(ctypes.get_errno(), "capset")


def harden(libc: ctypes.CDLL) -> None:
    """No core file, no ptrace and no /proc/<pid>/mem by the same user; nothing executed gains rights."""
    if sys.platform == "linux":
        libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def lock(walls: Walls, server: int, memory_mb: int, cpu_seconds: int) -> None:
    """Lock in a forked child that has no descriptor but 0 to 3. Raises OSError if a wall cannot be built."""
    os.setsid()
    for kind, value in LIMITS:
        lower(kind, value)
    lower(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))  # hard: SIGKILL, not a SIGXCPU that a program may swallow
    if RLIMIT_AS is not None:
        lower(RLIMIT_AS, (memory_mb << 20, memory_mb << 20))
    if walls.drop:
        drop_privileges()
    drop_capabilities(walls.libc)
    harden(walls.libc)
    if sys.platform == "linux":  # after the change of user, which clears it
        walls.libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != server:
            os._exit(0)
    if walls.landlock:
        landlock.restrict(walls.libc, walls.landlock)
    lower(resource.RLIMIT_NOFILE, (CHANNEL_FD + 1, CHANNEL_FD + 1))
    if walls.filter is not None:
        seccomp.install(walls.filter, walls.libc)
    sys.path.clear()


def lower(kind: int, value: tuple[int, int]) -> None:
    """Set a resource limit, unless a lower one is in force already."""
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(kind, value)

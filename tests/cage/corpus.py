"""The attacks: ``graders.txt`` and ``solutions.txt`` as data.

A grader's attack is the body of ``grade(sample, item)``; to return 1.0 is to have broken out. What the cage must make
of it, beside that nothing is read, written or reached and that the next honest grade is right:
``contained``: an error, or the 0.0 that the attack returns when it has failed. ``error``: an error, never a number.
``hang``: the same, after the whole time limit. ``own``: the attack sets its own score, which is a grader's to set.
``load``: the attack runs when the source is loaded, before a ``grade`` that returns 0.5.
A solution's attack must fail all tests, and that is a 0, never an error (which would spare it the 0).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
CONTAINED, ERROR, HANG, OWN, LOAD = "contained", "error", "hang", "own", "load"
TESTS = ("assert add(2, 3) == 5", "x = add(10, -4)\nassert x == 6 and type(x) is int", "assert add(0, 7) == 7")
# A way to system calls for those who are denied ctypes: dig it out of the interpreter.
CTYPES = """
def libc():
    for kind in object.__subclasses__():
        if kind.__name__ == 'CDLL':
            return kind(None, use_errno=True)
    raise LookupError('no ctypes')
"""
# The functions that speak to the judge, wherever they are.
FIND = """
import gc, struct
gc.unfreeze()
def senders():
    for f in gc.get_objects():
        try:
            if f.__qualname__ == 'open_channel.<locals>.send': yield f
        except Exception: pass
"""
# A solution that serves its channel by itself: read() takes that many bytes of a call, answer() signs with its nonce.
LOOP = """
import os, struct, sys
f = sys._getframe()
while 'receive' not in f.f_locals: f = f.f_back
send = f.f_locals['send']
send(9, 0, b'l\\0\\0\\0\\2l\\0\\0\\0\\1s\\0\\0\\0\\3addd\\0\\0\\0\\0')
head = [b'']
def read(fd, size, rest=99):
    head[0] = os.read(fd, size)
    if rest: os.read(fd, rest)
    return head[0]
def answer(body, kind=11):
    data = struct.pack('!16sBII', head[0][:16], kind, 0, len(body)) + body
    while data: data = data[os.write(3, data):]
"""
# Numbers of x86_64; elsewhere they are other calls, which must be denied or harmless just the same.
SYSCALLS = {
    "io_uring_setup": (425, 8, 0), "memfd_create": (319, b"x", 0), "bpf": (321, 0, 0, 0), "userfaultfd": (323, 0),
    "keyctl": (250, 0, 0, 0), "perf_event_open": (298, 0, 0, -1, -1, 0), "unshare": (272, 0x10000000),
    "mount": (165, b"none", b"/tmp", b"tmpfs", 0, 0), "socket": (41, 1, 1, 0), "fork": (57,), "vfork": (58,),
    "clone": (56, 17, 0, 0, 0, 0), "pidfd_open": (434, 1, 0), "inotify_init": (253,), "epoll_create": (213, 1),
    "shmget": (29, 0, 4096, 0o1777), "msgget": (68, 0, 0o1777), "mq_open": (240, b"x", 0o102, 0o600, 0),
    "dup": (32, 1), "socketpair": (53, 1, 1, 0), "name_to_handle_at": (303, -100, b"/", 0, 0, 0), "setsid": (112,),
    "open_tree": (428, -100, b"/", 0), "seccomp": (317, 0, 0, 0), "personality": (135, 0xFFFFFFFF),
    "statx": (332, -100, b"/etc", 0, 0xFFF, b"\0" * 256), "process_madvise": (440, 1, 0, 0, 0, 0),
    "x32 getpid": (0x40000000 + 39,), "kexec_load": (246, 0, 0, 0, 0), "splice": (275, 0, 0, 1, 0, 1, 0),
    "chroot": (161, b"/"), "sendfile": (40, 1, 0, 0, 1), "sched_getaffinity": (204, 1, 8, b"\0" * 8),
    "landlock_create_ruleset": (444, 0, 0, 1), "syslog": (103, 3, b"\0" * 64, 64), "getcpu_of_pid": (145, 1),
    "timer_create": (222, 1, 0, b"\0" * 8), "tkill": (200, 1, 0), "rt_sigqueueinfo": (129, 1, 0, b"\0" * 128),
    "process_vm_writev": (311, 1, 0, 0, 0, 0, 0), "pidfd_getfd": (438, 3, 0, 0),
    "execveat": (322, 3, b"", 0, 0, 0x1000), "signalfd": (282, -1, b"\0" * 8, 8), "eventfd": (284, 0),
    "timerfd_create": (283, 1, 0), "pipe2": (293, b"\0" * 8, 0), "sendto": (44, 3, b"x", 1, 0, 0, 0),
    "recvmsg": (47, 3, b"\0" * 56, 0x40), "shutdown": (48, 3, 2), "dup3": (292, 3, 9, 0),
    "setsockopt": (54, 3, 1, 7, b"\0\0\1\0", 4), "clone3": (435, b"\0" * 64, 64), "arch_prctl": (158, 0x1001, 0),
    "modify_ldt": (154, 0, b"\0" * 16, 16), "memfd_secret": (447, 0), "pkey_mprotect": (329, 0, 0, 7, -1),
    "get_robust_list": (274, 1, b"\0" * 8, b"\0" * 8), "getpriority": (140, 0, 1), "getsid": (124, 1),
    "kcmp": (312, 1, 1, 0, 0, 0), "sysinfo": (99, b"\0" * 128),
    "capget": (125, b"\x26\5\x08\x20\1\0\0\0", b"\0" * 24), "ioperm": (173, 0, 1, 1), "set_mempolicy": (238, 0, 0, 0),
    "membarrier": (324, 0, 0, 0), "mlock": (149, 0, 0), "fsopen": (430, b"tmpfs", 0),
    "prlimit of init": (302, 1, 7, 0, b"\0" * 16), "setrlimit": (160, 1, b"\xff" * 16),
    "clock_settime": (227, 0, b"\0" * 16), "fcntl F_SETFL": (72, 3, 4, 0x2000), "fcntl F_SETSIG": (72, 3, 10, 40),
    "fcntl F_GETLK": (72, 0, 5, b"\0" * 32),
}  # fmt: skip


@dataclass(frozen=True)
class Attack:
    name: str
    body: str
    wants: str = CONTAINED


@dataclass(frozen=True)
class Cheat:
    name: str
    source: str
    tests: tuple[str, ...] = TESTS


def _sections(name: str) -> Iterator[tuple[str, str]]:
    text = (HERE / name).read_text(encoding="utf-8")
    for mark, helper in (("@CTYPES@", CTYPES), ("@FIND@", FIND), ("@LOOP@", LOOP)):
        text = text.replace(mark, helper)
    for match in re.finditer(r"^=== (.+)\n((?:(?!===).*\n)*)", text, re.MULTILINE):
        yield match[1], match[2]


def _graders() -> Iterator[Attack]:
    for head, body in _sections("graders.txt"):
        name, _, wants = head.partition(" | ")
        yield Attack(name, body, wants)
    for name, arguments in SYSCALLS.items():
        yield Attack(f"system call {name}", f"{CTYPES}\nreturn float(libc().syscall{arguments!r} >= 0)")


def _solutions() -> Iterator[Cheat]:
    for name, text in _sections("solutions.txt"):
        source, *tests = re.split(r"^---.*\n", text, flags=re.MULTILINE)
        own = TESTS[:1] if "--- first\n" in text else tuple(tests) or TESTS
        yield Cheat(name, source, own)
    yield Cheat("null bytes", "\0")
    yield Cheat("half a character", "def add(a, b): return '\ud800'")


GRADERS = list(_graders())
SOLUTIONS = list(_solutions())

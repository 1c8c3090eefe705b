"""A seccomp filter without a library: an allow-list of system calls as a classic BPF program, installed by ctypes.

What is not on the list fails with EPERM (EACCES where the call takes a path, so that Python's import machinery and
``open`` raise what programs expect). A call through another architecture's table (i386, x32) is refused or kills.
Source: ``Documentation/userspace-api/seccomp_filter.rst`` and ``linux/{seccomp,filter,audit}.h`` of Linux.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
from collections.abc import Collection, Mapping

#: name -> number on x86_64 and on aarch64; None where the architecture lacks the call
NUMBERS: Mapping[str, tuple[int | None, int | None]] = {
    "read": (0, 63), "write": (1, 64), "close": (3, 57), "lseek": (8, 62), "mmap": (9, 222), "mprotect": (10, 226),
    "munmap": (11, 215), "brk": (12, 214), "mremap": (25, 216), "madvise": (28, 233), "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "sigaltstack": (131, 132), "futex": (202, 98),
    "sched_yield": (24, 124), "nanosleep": (35, 101), "clock_nanosleep": (230, 115), "clock_gettime": (228, 113),
    "clock_getres": (229, 114), "gettimeofday": (96, 169), "time": (201, None), "times": (100, 153),
    "getpid": (39, 172), "gettid": (186, 178), "getppid": (110, 173), "getuid": (102, 174), "geteuid": (107, 175),
    "getgid": (104, 176), "getegid": (108, 177), "getrandom": (318, 278), "getrusage": (98, 165), "uname": (63, 160),
    "exit": (60, 93), "exit_group": (231, 94), "restart_syscall": (219, 128), "poll": (7, None), "ppoll": (271, 73),
    "select": (23, None), "pselect6": (270, 72), "set_robust_list": (273, 99), "rseq": (334, 293),
    "setitimer": (38, 103), "getitimer": (36, 102), "alarm": (37, None), "sched_getaffinity": (204, 123),
    "fcntl": (72, 25), "prlimit64": (302, 261), "getrlimit": (97, 163), "ioctl": (16, 29), "clone3": (435, 435),
    # calls that take a path
    "open": (2, None), "openat": (257, 56), "openat2": (437, 437), "creat": (85, None), "stat": (4, None),
    "lstat": (6, None), "newfstatat": (262, 79), "statx": (332, 291), "access": (21, None), "faccessat": (269, 48),
    "faccessat2": (439, 439), "readlink": (89, None), "readlinkat": (267, 78), "getcwd": (79, 17), "chdir": (80, 49),
    "mkdir": (83, None), "mkdirat": (258, 34), "rmdir": (84, None), "unlink": (87, None), "unlinkat": (263, 35),
    "rename": (82, None), "renameat": (264, 38), "renameat2": (316, 276), "link": (86, None), "linkat": (265, 37),
    "symlink": (88, None), "symlinkat": (266, 36), "truncate": (76, 45), "chmod": (90, None), "fchmodat": (268, 53),
    "chown": (92, None), "lchown": (94, None), "fchownat": (260, 54), "utimensat": (280, 88), "statfs": (137, 43),
    # the fork server only
    "fstat": (5, 80), "getdents64": (217, 61), "pread64": (17, 67), "clone": (56, 220), "fork": (57, None),
    "wait4": (61, 260), "kill": (62, 129), "sendmsg": (46, 211), "recvmsg": (47, 212), "sendto": (44, 206),
    "recvfrom": (45, 207), "prctl": (157, 167), "seccomp": (317, 277), "setrlimit": (160, 164), "setuid": (105, 146),
    "setgid": (106, 144), "setgroups": (116, 159), "setresuid": (117, 147), "setresgid": (119, 149),
    "setsid": (112, 157), "close_range": (436, 436), "dup": (32, 23), "dup2": (33, None), "dup3": (292, 24),
    "pipe2": (293, 59), "landlock_create_ruleset": (444, 444), "landlock_add_rule": (445, 445),
    "landlock_restrict_self": (446, 446), "capset": (126, 91),
}  # fmt: skip


def _words(text: str) -> list[str]:
    return text.split()


PATHS = _words(
    "open openat openat2 creat stat lstat newfstatat statx access faccessat faccessat2 readlink readlinkat getcwd "
    "chdir mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2 link linkat symlink symlinkat truncate chmod "
    "fchmodat chown lchown fchownat utimensat statfs"
)
READING = _words("open openat stat lstat newfstatat statx access faccessat faccessat2 readlink readlinkat getcwd")
#: what any Python needs: memory, its own signals, clocks, reading and writing what is open already
PLAIN = _words(
    "read write close lseek munmap brk mremap madvise rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack futex "
    "sched_yield nanosleep clock_nanosleep clock_gettime clock_getres gettimeofday time times getpid gettid getppid "
    "getuid geteuid getgid getegid getrandom getrusage uname exit exit_group restart_syscall poll ppoll select "
    "pselect6 set_robust_list rseq setitimer getitimer alarm getrlimit"
)
SERVER = (
    *READING,
    *_words(
        "mmap mprotect fcntl prlimit64 sched_getaffinity capset fstat getdents64 pread64 fork wait4 kill sendmsg "
        "recvmsg sendto recvfrom prctl "
        "seccomp setrlimit setuid setgid setgroups setresuid setresgid setsid close_range dup dup2 dup3 pipe2 "
        "landlock_create_ruleset landlock_add_rule landlock_restrict_self"
    ),
)

PROT_EXEC = 4
F_GETFD, F_SETFD, F_GETFL = 1, 2, 3
CLONE_ANY_NEW = 0x7E020080 | 0x00010000 | 0x00000100  # namespaces, threads, shared memory: a plain fork only

# A condition is (kind, number of the argument, value): see _condition().
Condition = tuple[str, int, int | tuple[int, ...]]
CHILD_RULES: Mapping[str, tuple[Condition, ...]] = {
    "mmap": (("without", 2, PROT_EXEC),),
    "mprotect": (("without", 2, PROT_EXEC),),
    "fcntl": (("one of", 1, (F_GETFD, F_SETFD, F_GETFL)),),
    "prlimit64": (("zero", 0, 0), ("zero", 2, 0)),  # read one's own limits
    "sched_getaffinity": (("zero", 0, 0),),
}
SERVER_RULES: Mapping[str, tuple[Condition, ...]] = {"clone": (("without", 0, CLONE_ANY_NEW),)}

ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7), "arm64": (1, 0xC00000B7)}

_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
ALLOW, ERRNO, KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
PR_SET_SECCOMP, FILTER = 22, 2

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, operand


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def supported() -> bool:
    """Whether the calls of this machine's architecture are in the table."""
    return platform.machine() in ARCHITECTURES and struct.calcsize("P") == 8


def child_filter(*, paths: bool = False) -> bytes:
    """For code that nobody vouches for. ``paths`` leaves path calls to Landlock, for tests that it holds alone."""
    return _assemble((*PLAIN, *(PATHS if paths else ())), CHILD_RULES, () if paths else PATHS)


def server_filter() -> bytes:
    """For the fork server: also reads files, forks and locks its children."""
    return _assemble((*PLAIN, *SERVER), SERVER_RULES, [name for name in PATHS if name not in READING])


def install(program: bytes, libc: ctypes.CDLL) -> None:
    """Put a filter on this process and all it will start; there is no way back. Raises OSError."""
    packed = _Program(len(program) // 8, program)
    if libc.prctl(PR_SET_SECCOMP, FILTER, ctypes.byref(packed), 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_SECCOMP)")


def _assemble(
    allowed: Collection[str], rules: Mapping[str, tuple[Condition, ...]], no_access: Collection[str]
) -> bytes:
    column, audit = ARCHITECTURES[platform.machine()]

    def number(name: str) -> int | None:
        return NUMBERS[name][column]

    code: list[Instruction] = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, audit), (_RETURN, 0, 0, KILL_PROCESS), (_LOAD, 0, 0, 0)]
    answers = [(name, ALLOW) for name in allowed] + [(name, ERRNO | errno.EACCES) for name in no_access]
    # glibc tries clone() when clone3(), whose flags a filter cannot see, does not exist; ENOTTY: "no terminal".
    answers += [("clone3", ERRNO | errno.ENOSYS), ("ioctl", ERRNO | errno.ENOTTY)]
    for name, answer in answers:
        if (n := number(name)) is not None:
            code += [(_EQUAL, 0, 1, n), (_RETURN, 0, 0, answer)]
    for name, conditions in rules.items():
        if (n := number(name)) is not None:
            block = _block(conditions)
            code += [(_EQUAL, 0, len(block), n), *block]
    code.append((_RETURN, 0, 0, ERRNO | errno.EPERM))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def _block(conditions: tuple[Condition, ...]) -> list[Instruction]:
    """Allow if all conditions hold; ends in a return either way."""
    pieces = [_condition(condition) for condition in conditions]
    size = sum(map(len, pieces))
    code: list[Instruction] = []
    for piece in pieces:
        for operation, true, false, operand in piece:
            refuse = size - len(code)  # from the next instruction to the last of the block
            code.append((operation, refuse if true < 0 else true, refuse if false < 0 else false, operand))
    return [*code, (_RETURN, 0, 0, ALLOW), (_RETURN, 0, 0, ERRNO | errno.EPERM)]


def _condition(condition: Condition) -> list[Instruction]:
    """Falls through if it holds; a jump of -1 refuses. Both architectures are little-endian."""
    kind, argument, value = condition
    low = 16 + 8 * argument
    if kind == "without" and isinstance(value, int):
        return [(_LOAD, 0, 0, low), (_ANY_BIT, -1, 0, value)]
    if kind == "zero":
        return [(_LOAD, 0, 0, low), (_EQUAL, 0, -1, 0), (_LOAD, 0, 0, low + 4), (_EQUAL, 0, -1, 0)]
    assert kind == "one of" and isinstance(value, tuple)
    jumps = [(_EQUAL, len(value) - 1 - i, 0 if i < len(value) - 1 else -1, v) for i, v in enumerate(value)]
    return [(_LOAD, 0, 0, low), *jumps]

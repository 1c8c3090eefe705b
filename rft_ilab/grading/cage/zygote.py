"""The fork server: a warm interpreter that forks a locked child for every request. Standard library only.

Started as ``python -I -S -B -c BOOT fd root features`` with an empty environment, in ``/``, its standard streams at
nowhere and one socket. A request brings two descriptors: the child's channel, which this process never reads, and a
leash: closing the other end kills the child, and its exit status comes back on it. Nothing secret passes through here,
so nothing of one child can be found in the memory of the next.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import resource
import select
import signal
import socket
import sys
import sysconfig
from collections.abc import Callable
from functools import partial
from typing import NoReturn

from rft_ilab.grading.cage import channel, frames, grader, landlock, lockdown, seccomp, solver, tester
from rft_ilab.grading.cage.modules import ALWAYS, ON_DEMAND

MAX_REQUEST = 16384
ROLES = {frames.GRADER: grader.run, frames.SOLVER: solver.run, frames.TESTER: tester.run}


def main() -> NoReturn:
    control = socket.socket(fileno=int(sys.argv[1]))
    without = set(sys.argv[3].split(","))
    sys.path.remove(sys.argv[2])
    sys.argv[:] = ["cage"]
    os.environ.clear()  # the locale machinery of Python sets LC_CTYPE
    sys.modules["_hashlib"] = None  # type: ignore[assignment]  # hashlib without OpenSSL: a fork copies less
    for name in ALWAYS:
        importlib.import_module(name)
    woken, wake = os.pipe()
    for fd in (woken, wake):
        os.set_blocking(fd, False)  # an ioctl, which the filter does not let pass
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    walls, problem = build(without)
    seen = os.geteuid() if not walls.drop else lockdown.NOBODY
    hello = frames.HELLO.pack(walls.filter is not None, walls.landlock, seen)
    control.send(hello + problem.encode("utf-8", "replace")[:1000])
    try:
        serve(control, woken, walls)
    finally:
        os._exit(0)


def build(without: set[str]) -> tuple[lockdown.Walls, str]:
    """Wall in this process itself; (what its children get, what failed). ``without`` simulates lesser machines."""
    libc = ctypes.CDLL(None, use_errno=True)
    lockdown.lower(resource.RLIMIT_CORE, (0, 0))
    lockdown.harden(libc)
    version, program, problem = 0, None, ""
    if sys.platform != "linux":
        return lockdown.Walls(libc, 0, None, False), f"{sys.platform} has neither seccomp nor Landlock"
    if "landlock" not in without:
        try:
            version = landlock.abi(libc)
            if version:
                landlock.restrict(libc, version, standard_library())
        except OSError as error:
            version, problem = 0, failure(error)
    if "seccomp" in without or not seccomp.supported():
        problem = "no seccomp filter for this architecture"
    else:
        try:
            seccomp.install(seccomp.server_filter(), libc)
            program = seccomp.child_filter(paths="path filter" in without)
        except OSError as error:
            problem = failure(error)
    return lockdown.Walls(libc, version, program, "drop" not in without and os.geteuid() == 0 and can_drop()), problem


def failure(error: OSError) -> str:
    return f"{error.strerror}: {os.strerror(error.errno or 0)}"


def standard_library() -> list[str]:
    return sorted({sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), os.path.dirname(os.__file__)})


def can_drop() -> bool:
    """Tried in a child: a container may run as root without the capability to become somebody else."""
    if (pid := os.fork()) == 0:
        try:
            lockdown.drop_privileges()
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1] == 0


def serve(control: socket.socket, woken: int, walls: lockdown.Walls) -> None:
    """Until our process hangs up or is gone."""
    parent = os.getppid()
    leashes: dict[int, int] = {}  # leash -> child
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(woken, select.POLLIN)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("rft_ilab", "ctypes", "_ctypes")]:
        del sys.modules[name]  # tidiness, not a wall: foreign code could dig them up
    gc.collect()
    gc.freeze()
    while os.getppid() == parent:
        for fd, _ in poll.poll(1000):
            if fd == control.fileno():
                request, fds, _, _ = socket.recv_fds(control, MAX_REQUEST, 2)
                if not request:
                    return
                if len(fds) == 2:
                    leashes[fds[1]] = start(request, fds[0], walls)
                    poll.register(fds[1], select.POLLIN)
            elif fd == woken:
                with contextlib.suppress(BlockingIOError):
                    os.read(woken, 4096)
                reap(leashes, poll, grandchildren=walls.filter is None)
            elif fd in leashes:  # closed, or half closed to ask for the status of a child that is to end
                kill(leashes[fd])
                poll.unregister(fd)
                # stays in `leashes`: reap() answers on it


def reap(leashes: dict[int, int], poll: select.poll, *, grandchildren: bool) -> None:
    while leashes:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        for fd, child in list(leashes.items()):
            if child == pid:
                with contextlib.suppress(KeyError):
                    poll.unregister(fd)
                if grandchildren:
                    with contextlib.suppress(OSError):
                        os.killpg(pid, signal.SIGKILL)
                with contextlib.suppress(OSError):
                    os.write(fd, frames.STATUS.pack(status))
                os.close(fd)
                del leashes[fd]


def kill(pid: int) -> None:
    """Its group too. The number cannot belong to another process: only this one reaps."""
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(OSError):
        os.killpg(pid, signal.SIGKILL)


def start(request: bytes, channel_fd: int, walls: lockdown.Walls) -> int:
    role, memory_mb, cpu_seconds = frames.REQUEST.unpack_from(request)
    preload(request[frames.REQUEST.size :].decode("ascii", "replace"))
    server = os.getpid()
    pid = os.fork()
    if pid == 0:
        child(role, memory_mb, cpu_seconds, channel_fd, server, walls)
    os.close(channel_fd)
    return pid


def preload(names: str) -> None:
    """Children cannot read the standard library: modules that their source names are imported here, once."""
    for name in names.split(","):
        if name not in sys.modules and name.partition(".")[0] in ON_DEMAND and "._" not in name:
            with contextlib.suppress(BaseException):
                importlib.import_module(name)
                gc.freeze()


def opened(nonce: bytes, lock: Callable[[], None]) -> tuple[channel.Send, channel.Receive]:
    """The channel of a locked child. Apart from child(), so that no frame below foreign code holds it."""
    send, receive = channel.open_channel(nonce)
    try:
        lock()
    except OSError as error:
        send(frames.FAULT, 0, channel.as_bytes(failure(error)))
        os._exit(frames.LOCK_FAILED)
    send(frames.READY)
    return send, receive


def child(role: int, memory_mb: int, cpu_seconds: int, channel_fd: int, server: int, walls: lockdown.Walls) -> NoReturn:
    """Never returns, whatever happens."""
    try:
        signal.set_wakeup_fd(-1)  # a signal.signal() here would cost 50 page faults
        os.dup2(channel_fd, channel.CHANNEL_FD)
        os.closerange(channel.CHANNEL_FD + 1, 1 << 16)
        nonce, length = frames.PAYLOAD.unpack(channel.exact(frames.PAYLOAD.size))
        payload = channel.exact(length)
        rest = partial(lockdown.lock, walls, server, memory_mb, cpu_seconds)
        ROLES[role](payload, *opened(nonce, rest))  # type: ignore[arg-type]
    finally:
        os._exit(1)

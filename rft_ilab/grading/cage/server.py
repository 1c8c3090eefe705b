"""Our handle on one fork server."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
from pathlib import Path

from rft_ilab.errors import SandboxError
from rft_ilab.grading.cage import frames
from rft_ilab.grading.cage.capabilities import Features, Walls

BOOT = "import sys; sys.path.append(sys.argv[2]); from rft_ilab.grading.cage.zygote import main; main()"
ROOT = Path(__file__).resolve().parents[3]
START_SECONDS = 60.0  # a cold interpreter on a loaded machine
END_SECONDS = 2.0


class ServerLost(Exception):
    """The fork server died with the child; worth another try."""


class Server:
    """One fork server."""

    def __init__(self, features: Features) -> None:
        kind = socket.SOCK_SEQPACKET if sys.platform == "linux" else socket.SOCK_DGRAM
        self._control, theirs = socket.socketpair(socket.AF_UNIX, kind)
        self._lock = threading.Lock()
        self._lost = False
        arguments = [str(theirs.fileno()), str(ROOT), features.missing()]
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-B", "-c", BOOT, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd="/",
                    env={},
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
            except OSError as error:
                self._control.close()
                raise SandboxError(f"cannot start {sys.executable}: {error.strerror}") from error
        self.walls = self._greeting()

    def _greeting(self) -> Walls:
        self._control.settimeout(START_SECONDS)
        try:
            hello = self._control.recv(4096)
            self._control.settimeout(None)
            seccomp, landlock, uid = frames.HELLO.unpack_from(hello)
        except Exception as error:
            self.close()
            raise SandboxError("the sandbox does not start", where=sys.executable) from error
        return Walls(seccomp, landlock, uid, hello[frames.HELLO.size :].decode("utf-8", "replace"))

    def alive(self) -> bool:
        return not self._lost and self._process.poll() is None

    def lost(self) -> None:
        """It has hung up; the system may take a while to say that it is dead."""
        self._lost = True

    @property
    def pid(self) -> int:
        return self._process.pid

    def fork(self, request: bytes, fds: list[int]) -> None:
        """Raises ServerLost."""
        try:
            with self._lock:
                socket.send_fds(self._control, [request], fds)
        except OSError as error:
            self.lost()
            raise ServerLost(str(error)) from error

    def close(self) -> None:
        """The server ends its children and itself when the socket closes."""
        hang_up(self._control)
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def abandon(self) -> None:
        """In a fork of our process: it belongs to the parent."""
        self._control.close()
        self._process.returncode = 0  # or Popen would warn about a child that is not ours


def hang_up(end: socket.socket) -> None:
    """Also where a fork of our process still holds a copy of the descriptor."""
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()

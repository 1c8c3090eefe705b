"""Our handle on one locked child: read its frames strictly, and never for longer than allowed."""

from __future__ import annotations

import os
import secrets
import select
import signal
import socket
import time

from rft_ilab.errors import SandboxError
from rft_ilab.grading.cage import frames
from rft_ilab.grading.cage.server import START_SECONDS, Server, ServerLost, hang_up


class ChildLost(Exception):
    """The child died or hung."""


class Silent(ChildLost):
    """The child says nothing in time."""


class Forged(ChildLost):
    """The child said something that is no frame of ours."""


class Child:
    """One locked child. As a context manager it never outlives the block."""

    def __init__(
        self, role: int, payload: bytes, *, memory_mb: int, cpu_seconds: int, modules: list[str], server: Server
    ) -> None:
        """Raises SandboxError, ServerLost."""
        self._server = server
        self.nonce = secrets.token_bytes(frames.NONCE_BYTES)
        self.side_nonce = secrets.token_bytes(frames.NONCE_BYTES)  # of a grader's calls of solutions
        self._buffer = bytearray()
        self._exit: int | None = None
        try:
            self._channel, theirs = socket.socketpair()
            self._leash, their_leash = socket.socketpair()
        except OSError as error:
            raise SandboxError(f"no channel to a sandbox: {error.strerror}") from error
        self._poll = select.poll()
        self._poll.register(self._channel, select.POLLIN)
        request = frames.REQUEST.pack(role, memory_mb, cpu_seconds) + ",".join(modules).encode()
        if role == frames.GRADER:
            payload = self.side_nonce + payload
        try:
            with theirs, their_leash:
                server.fork(request, [theirs.fileno(), their_leash.fileno()])
            self._channel.settimeout(START_SECONDS)
            self._channel.sendall(frames.PAYLOAD.pack(self.nonce, len(payload)) + payload)
        except TimeoutError as error:
            server.lost()
            self.close()
            raise ServerLost("the fork server does not answer") from error
        except (OSError, ServerLost) as error:
            self.close()
            raise ServerLost(str(error)) from error

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """The fork server kills the child when its leash is dropped."""
        hang_up(self._channel)
        hang_up(self._leash)

    def ready(self) -> None:
        """Wait until the child is locked in. Raises ServerLost, SandboxError."""
        try:
            kind, _, body = self.frame(time.monotonic() + START_SECONDS)
        except Silent as error:
            self._server.lost()
            raise ServerLost("the fork server does not answer") from error
        except ChildLost as error:
            raise SandboxError(f"the sandbox does not start: {error}") from error
        if kind != frames.READY:
            raise SandboxError(f"the sandbox does not start: {body.decode('utf-8', 'replace')}")

    def send(self, kind: int, body: bytes, deadline: float, *, nonce: bytes | None = None) -> None:
        """Ask the child, or answer it. Raises ChildLost."""
        self._channel.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            self._channel.sendall(frames.HEADER.pack(nonce or self.nonce, kind, 0, len(body)) + body)
        except TimeoutError:
            raise ChildLost("time-out: it does not read") from None
        except OSError:
            raise ChildLost(self._death()) from None

    def ask(self, kind: int, body: bytes, deadline: float) -> tuple[int, bytes]:
        """Send under a new nonce and read the one answer to it. Raises ChildLost."""
        if self._buffer or self._poll.poll(0):
            if not self._buffer:
                self._fill(deadline)  # raises if it is gone
            raise Forged("it wrote without being asked")
        self.nonce = secrets.token_bytes(frames.NONCE_BYTES)
        self.send(kind, body, deadline)
        kind, _, body = self.frame(deadline)
        return kind, body

    def frame(self, deadline: float, side: int = -1) -> tuple[int, int, bytes]:
        """(kind, index, body) of the next frame; one of kind ``side`` bears the other nonce. Raises ChildLost."""
        header = self._read(frames.HEADER.size, deadline)
        nonce, kind, index, length = frames.HEADER.unpack(header)
        expected = self.side_nonce if kind == side else self.nonce
        if not secrets.compare_digest(nonce, expected) or length > frames.MAX_BODY:
            raise Forged("forged: something was written into the channel of its results")
        return kind, index, self._read(length, deadline)

    def ended(self, deadline: float) -> None:
        """The child says nothing more and has left with status 0. Raises ChildLost."""
        try:
            self._fill(deadline)
        except ChildLost:
            if not self._buffer and self._status() == 0:
                return
            raise
        raise Forged("forged: more was written into the channel of its results than results")

    def _read(self, size: int, deadline: float) -> bytes:
        while len(self._buffer) < size:
            self._fill(deadline)
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def _fill(self, deadline: float) -> None:
        if not self._poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise Silent("time-out")
        try:
            piece = self._channel.recv(1 << 18)
        except ConnectionError:
            piece = b""
        if not piece:
            raise ChildLost(self._death())
        self._buffer += piece

    def _death(self) -> str:
        status = self._status()
        if status is None:
            return "crash: it closed the channel of its results"
        known = {int(number): number.name for number in signal.Signals}  # of the real-time signals two have names
        how = known.get(-status, f"signal {-status}") if status < 0 else f"exit code {status}"
        return f"crash: its process ended without a score ({how})"

    def _status(self) -> int | None:
        """Exit status as of os.waitstatus_to_exitcode, None if it still runs. Raises ServerLost."""
        if self._exit is not None:
            return self._exit
        self._leash.settimeout(1.0)
        try:
            data = self._leash.recv(frames.STATUS.size)
        except TimeoutError:
            return None
        except OSError:
            data = b""
        if len(data) != frames.STATUS.size:
            self._server.lost()
            raise ServerLost("the fork server has ended")
        self._exit = os.waitstatus_to_exitcode(frames.STATUS.unpack(data)[0])
        return self._exit

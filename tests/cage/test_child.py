"""Our end of a child's channel, against any bytes and any end; the fork server is played by the test."""

from __future__ import annotations

import contextlib
import os
import socket
import time
import tracemalloc
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rft_ilab.errors import SandboxError
from rft_ilab.grading.cage import frames
from rft_ilab.grading.cage.child import Child, ChildLost, Forged
from rft_ilab.grading.cage.server import Server, ServerLost


class Played:
    """A fork server whose child is the test."""

    def __init__(self) -> None:
        self.gone = False

    def fork(self, request: bytes, fds: list[int]) -> None:
        self.channel, self.leash = (socket.socket(fileno=os.dup(fd)) for fd in fds)

    def lost(self) -> None:
        self.gone = True

    def end(self, status: int | None = 0) -> None:
        self.channel.close()
        if status is not None:
            self.leash.send(frames.STATUS.pack(status))
        self.leash.close()


@contextlib.contextmanager
def played() -> Any:
    server = Played()
    with Child(1, b"", memory_mb=1, cpu_seconds=1, modules=[], server=cast(Server, server)) as child:
        server.channel.recv(1 << 16)
        yield child, server
        server.channel.close()
        server.leash.close()


LENGTHS = st.sampled_from([0, 1, 8, 1 << 20, (1 << 32) - 1])
HEADERS = st.tuples(st.booleans(), st.integers(0, 255), st.integers(0, (1 << 32) - 1), LENGTHS)
PIECES = st.lists(st.binary(max_size=60) | HEADERS, max_size=6)


@given(PIECES, st.sampled_from([0, 1, 9, 11, 35, 64, 256, None]))
@settings(max_examples=150, deadline=None)
def test_any_bytes_and_any_end_are_a_frame_or_a_loss(pieces: list[Any], status: int | None) -> None:
    with played() as (child, server):
        for piece in pieces:
            if isinstance(piece, tuple):
                signed, kind, index, length = piece
                nonce = child.nonce if signed else bytes(16)
                piece = frames.HEADER.pack(nonce, kind, index, length) + b"x" * min(length, 9)
            server.channel.send(piece)
        server.end(status)
        deadline = time.monotonic() + 1
        with pytest.raises((ChildLost, ServerLost)):
            for _ in range(9):
                kind, index, body = child.frame(deadline, side=frames.SOLVE)
                assert len(body) <= frames.MAX_BODY
        with contextlib.suppress(ChildLost, ServerLost):
            child.ended(deadline)


def test_a_child_that_ends_with_a_call_unread() -> None:
    with played() as (child, server):
        child.send(frames.CALL, b"unread", time.monotonic() + 1)
        server.end()
        with pytest.raises(ChildLost, match="exit code 0"):
            child.ask(frames.CALL, b"", time.monotonic() + 1)


def test_a_body_that_is_announced_and_never_comes_takes_no_memory() -> None:
    with played() as (child, server):
        server.channel.send(frames.HEADER.pack(child.nonce, 1, 0, frames.MAX_BODY + 1))
        with pytest.raises(Forged):
            child.frame(time.monotonic() + 1)
        tracemalloc.start()
        server.channel.send(frames.HEADER.pack(child.nonce, 1, 0, frames.MAX_BODY))
        with pytest.raises(ChildLost, match="time-out"):
            child.frame(time.monotonic() + 0.1)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
        tracemalloc.stop()


def test_a_fork_server_that_stays_silent_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rft_ilab.grading.cage.child.START_SECONDS", 0.05)
    with played() as (child, server):
        with pytest.raises(ServerLost, match="does not answer"):
            child.ready()
        assert server.gone


def test_a_machine_without_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(socket, "socketpair", none_left)
    with pytest.raises(SandboxError, match="Too many open files"), played():
        pass

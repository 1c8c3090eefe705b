"""The life of the fork servers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from rft_ilab.errors import SandboxError
from rft_ilab.grading.cage import capabilities, pool
from rft_ilab.grading.cage.capabilities import CAGE, PROCESS, WITHOUT_LANDLOCK, Features, Walls
from rft_ilab.grading.cage.child import Child
from rft_ilab.grading.cage.server import ServerLost
from rft_ilab.grading.sample import Mark, Sample
from rft_ilab.grading.sandbox import Limits, run_python

ROOT = Path(__file__).resolve().parents[2]
SLEEPER = "import time\ndef grade(sample, item):\n    time.sleep(item['seconds'])\n    return 1\n"


def grade(seconds: float = 0.0, count: int = 1) -> list[Mark]:
    return run_python(SLEEPER, [Sample("", {"seconds": seconds})] * count, Limits(regrade=0))


def gone(pid: int) -> bool:
    """Dead, or dead and not yet reaped by whoever inherited it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def wait(condition: object, seconds: float = 5.0) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_server_is_warm_and_restarted_when_dead() -> None:
    with pool.simulated(Features()) as ours:
        assert grade()[0].score == 1
        first = ours.server(0).pid
        assert grade()[0].score == 1 and ours.server(0).pid == first
        os.kill(first, signal.SIGKILL)
        assert grade()[0].score == 1 and ours.server(0).pid != first


def test_a_server_that_dies_with_a_child_costs_nothing() -> None:
    with pool.simulated(Features()) as ours:
        victim = ours.server(0).pid
        killer = threading.Timer(0.3, os.kill, (victim, signal.SIGKILL))
        killer.start()
        assert [mark.score for mark in grade(0.2, 4)] == [1.0] * 4
        killer.join()
        assert gone(victim)


def test_a_sandbox_that_dies_again_and_again_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*_: object, **__: object) -> None:
        raise ServerLost("gone")

    monkeypatch.setattr(Child, "ready", lost)
    with pytest.raises(SandboxError, match="the sandbox died 3 times: gone"):
        grade()


def test_servers_end_with_the_pool() -> None:
    with pool.simulated(Features()) as ours:
        pids = [ours.server(0).pid, ours.server(1).pid]
        assert len(set(pids)) == 2
    assert all(map(gone, pids))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, None])
def test_nothing_outlives_our_process(number: int | None) -> None:
    """Killed in the middle of a grade, or left at the end."""
    program = (
        "import sys, threading, time; from rft_ilab.grading.cage import pool; from tests.cage.test_pool import grade\n"
        "threading.Thread(target=grade, args=(60.0,), daemon=True).start(); time.sleep(1.0)\n"
        "print(*[server.pid for server in pool.default().running()], flush=True)\n"
    )
    program += "time.sleep(60)" if number else ""
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert process.stdout is not None
    servers = [int(pid) for pid in process.stdout.readline().split()]
    assert servers
    below = [child for server in servers for child in children(server)]
    if number:
        assert below
        process.send_signal(number)
    process.wait(10)
    wait(lambda: all(map(gone, servers + below)))


def children(pid: int) -> list[int]:
    """Of a process; none if it is gone, as servers are whose process has ended already."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def test_a_fork_of_our_process_has_its_own_server() -> None:
    assert grade()[0].score == 1
    ours = pool.default().server(0).pid
    read, write = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            fine = grade()[0].score == 1 and pool.default().server(0).pid != ours
            pool.default().close()
            os.write(write, b"1" if fine else b"0")
        finally:
            os._exit(0)
    os.close(write)
    assert os.read(read, 1) == b"1"
    os.close(read)
    os.waitpid(pid, 0)
    assert grade()[0].score == 1 and pool.default().server(0).pid == ours


def test_the_tier_follows_the_walls() -> None:
    assert Walls(seccomp=True, landlock=1, uid=1).tier == CAGE
    assert Walls(seccomp=True, landlock=0, uid=1).tier == WITHOUT_LANDLOCK
    assert Walls(seccomp=False, landlock=1, uid=1).tier == PROCESS
    with pool.simulated(Features(landlock=False)) as ours:
        assert ours.server().walls.landlock == 0
    with pool.simulated(Features(seccomp=False)) as ours:
        assert ours.server().walls.tier == PROCESS


def test_children_of_root_are_nobody() -> None:
    if os.getuid() != 0:
        pytest.skip("not root")
    assert pool.default().server().walls.uid == 65534
    (mark,) = run_python("import os\ndef grade(s, i): return os.getuid() == os.getegid() == 65534", [Sample("", {})])
    assert mark.score == 1.0


def test_the_servers_environment_is_empty_and_it_cannot_be_read() -> None:
    pid = pool.default().server(0).pid
    if os.getuid() == 0:
        assert b"=" not in Path(f"/proc/{pid}/environ").read_bytes()
    assert os.readlink(f"/proc/{pid}/cwd") == "/" if os.getuid() == 0 else True


@pytest.mark.parametrize(
    ("environment", "foreign"),
    [
        ({}, False), ({"CI": "true"}, True), ({"CI": "1"}, True), ({"CI": "false"}, False),
        ({"RFT_ILAB_UNTRUSTED": "1"}, True), ({"CI": "true", "RFT_ILAB_UNTRUSTED": "0"}, False),
    ],
)  # fmt: skip
def test_graders_of_pull_requests_never_run_without_walls(
    environment: dict[str, str], foreign: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CI", "RFT_ILAB_UNTRUSTED"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(capabilities, "_warned", set())
    weak = Walls(seccomp=False, landlock=0, uid=1)
    capabilities.require(Walls(seccomp=True, landlock=0, uid=1), trusted=False)
    with pytest.raises(SandboxError, match="not trusted"):
        capabilities.require(weak, trusted=False)
    if foreign:
        with pytest.raises(SandboxError, match="RFT_ILAB_UNTRUSTED=0"):
            capabilities.require(weak, trusted=True)
    else:
        capabilities.require(weak, trusted=True)

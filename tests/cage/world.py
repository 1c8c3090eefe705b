"""What an attack could touch, and the check that it has not. Needs no pytest: also run under another user."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rft_ilab.grading.cage.judge import run_tests
from rft_ilab.grading.sample import Mark, Sample
from rft_ilab.grading.sandbox import Limits, run_python
from tests.cage.corpus import CONTAINED, ERROR, GRADERS, HANG, LOAD, OWN, SOLUTIONS, TESTS, Attack, Cheat

SECONDS = 0.3
LIMITS = Limits(seconds=SECONDS, memory_mb=128, trusted=False, regrade=0.0)
PATIENT = Limits(seconds=10.0, memory_mb=128, trusted=False, regrade=0.0)
HONEST = "def grade(sample, item):\n    return float(sample['output_text'] == item['reference'])\n"
ADD = "def add(a, b):\n    return a + b\n"


class World:
    """Canaries and listeners, open to everybody: only the cage keeps an attack from them."""

    def __init__(self) -> None:
        self.secret = "canary-" + secrets.token_hex(8)
        self.directory = Path(tempfile.mkdtemp(prefix="world-"))
        self.directory.chmod(0o777)
        self.canary = self.directory / "canary"
        self.canary.write_text(self.secret)
        (self.directory / "planted.py").write_text("x = 1\n")
        self.target = self.directory / "target"
        os.environ["CAGE_SECRET"] = self.secret
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", self.tcp.getsockname()[1]))
        self.unix = socket.socket(socket.AF_UNIX)
        self.abstract = "cage-" + secrets.token_hex(8)
        self.unix.bind("\0" + self.abstract)
        self.unix.listen()
        self.before = self._listing()

    def close(self) -> None:
        for listener in (self.tcp, self.udp, self.unix):
            listener.close()
        os.environ.pop("CAGE_SECRET", None)
        shutil.rmtree(self.directory)
        Path("/dev/shm/cage-attack").unlink(missing_ok=True)

    def fill(self, source: str) -> str:
        for name, value in {
            "CANARY": self.canary, "TARGET": self.target, "DIR": self.directory, "PID": os.getpid(),
            "PORT": self.tcp.getsockname()[1], "ABSTRACT": self.abstract,
        }.items():  # fmt: skip
            source = source.replace(f"@{name}@", str(value))
        return source

    def _listing(self) -> list[tuple[str, int, int]]:
        found = [(p.name, p.lstat().st_mode, p.lstat().st_mtime_ns) for p in sorted(self.directory.iterdir())]
        return [*found, ("shm", 0, int(Path("/dev/shm/cage-attack").exists()))]

    def touched(self, *texts: str) -> str:
        """What an attack has reached, or nothing."""
        if self._listing() != self.before or self.canary.read_text() != self.secret:
            return "the file system has changed"
        if any(self.secret in text for text in texts):
            return "the canary was read"
        for name, listener in (("TCP", self.tcp), ("UDP", self.udp), ("Unix", self.unix)):
            listener.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                listener.recv(1) if name == "UDP" else listener.accept()
                return f"something arrived by {name}"
        return ""


def alive() -> str:
    """Nothing, if honest graders and solutions get what they deserve."""
    marks = run_python(HONEST, [Sample("a", {"reference": "a"}), Sample("b", {"reference": "a"})], PATIENT)
    if [mark.score for mark in marks] != [1.0, 0.0]:
        return f"honest samples afterwards: {marks}"
    return ""


def text_of(mark: Mark) -> str:
    return f"{mark.answer} {mark.reason} {mark.error}"


def try_grader(attack: Attack, world: World, *, after: bool = True) -> str:
    """What is wrong with how the cage deals with it, or nothing."""
    body = "".join(f"    {line}\n" for line in world.fill(attack.body).splitlines())
    source = f"def grade(sample, item):\n    if sample['output_text'] == 'calm': return 0.5\n{body}"
    if attack.wants == LOAD:
        source = f"def grade(sample, item):\n    return 0.5\n{world.fill(attack.body)}"
    start = time.monotonic()
    limits = LIMITS if attack.wants in (HANG, LOAD) else PATIENT
    calm, mark, last = run_python(source, [Sample(t, {}) for t in ("calm", "attack", "calm")], limits)
    if attack.wants in (HANG, LOAD) and time.monotonic() - start > SECONDS + 5:
        return "it takes too long"
    if problem := world.touched(*map(text_of, (calm, mark, last))) or (alive() if after else ""):
        return problem
    if len(mark.error or "") > 600 or not (mark.error or " ").isprintable():
        return f"unfit for a report: {mark.error!r}"
    if attack.wants == LOAD and mark.score not in (None, 0.5):
        return f"a score that is not its grader's: {mark}"
    if attack.wants in (ERROR, HANG) and mark.score is not None:
        return f"a score: {mark}"
    if attack.wants == CONTAINED and mark.score not in (None, 0.0):
        return f"it broke out: {mark}"
    if attack.wants != OWN and calm.score not in (0.5, None):
        return f"another sample's score: {calm}"
    return ""


def try_solution(cheat: Cheat, world: World, *, through_grader: bool, after: bool = True) -> str:
    if through_grader:
        source = "def grade(sample, item):\n    return run_solution(sample['output_text'], 'add', 2, 3) == 5\n"
        (mark,) = run_python(source, [Sample(world.fill(cheat.source), {})], LIMITS)
        # Reading one's own channel is a hang; the answers that are no values count as the solution's failure.
        problem = "" if mark.score == 0.0 else f"not a 0: {mark}"
        return world.touched(text_of(mark)) or problem
    result = run_tests(world.fill(cheat.source), cheat.tests, seconds=SECONDS, memory_mb=128)
    if problem := world.touched(f"{result.note} {result.error}"):
        return problem
    if result.error is not None:
        return f"an error spares it the 0: {result.error}"
    if any(result.passed) or not result.note.isprintable():
        return f"it wins: {result}"
    honest = run_tests(ADD, TESTS) if after else None
    return "" if honest is None or honest.passed == (True,) * len(TESTS) else f"an honest solution afterwards: {honest}"


def everything(*, quick: bool = False, solutions: bool = True) -> dict[str, str]:
    """What is wrong with each attack (empty: nothing), several at a time since many only wait.

    ``quick``: without those that hang or only concern results, and one honest grade at the end, not one after each.
    """
    world = World()
    cheats = SOLUTIONS if solutions else []
    attacks = [attack for attack in GRADERS if not quick or attack.wants == CONTAINED]
    try:
        with ThreadPoolExecutor(4) as threads:
            waiting = {f"grader: {a.name}": threads.submit(try_grader, a, world, after=not quick) for a in attacks}
            for way in (False,) if quick else (False, True):
                names = {c: f"solution{' through a grader' if way else ''}: {c.name}" for c in cheats}
                waiting |= {
                    names[c]: threads.submit(try_solution, c, world, through_grader=way, after=not quick)
                    for c in cheats
                }
            return {name: problem.result() for name, problem in waiting.items()} | {"afterwards": alive()}
    finally:
        world.close()

"""The grader server of a run: ``ilab rft serve-graders`` as a process of its own, watched while the training lasts."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from rft_ilab.errors import RunError

TOKEN = "RFT_GRADER_TOKEN"
PROGRAM = "from rft_ilab.cli.serve_graders import serve_graders; serve_graders()"
START_S = 180.0
#: how long the server may be silent before the run is stopped; rewards try again meanwhile
SILENCE_S = 60.0
ASK_EVERY_S = 5.0
_SAID = re.compile(r"graders at (http://\S+)")


@dataclass(kw_only=True)
class Graders:
    """``url`` is what rewards are told, ``own_url`` how it is reached from here."""

    url: str
    token: str = field(repr=False)
    own_url: str = ""
    process: subprocess.Popen[bytes] | None = None
    log: Path | None = None
    heard: float = field(default_factory=time.monotonic)
    asked: float = 0.0

    @property
    def environment(self) -> dict[str, str]:
        return {"RFT_GRADER_URL": self.url} | ({TOKEN: self.token} if self.token else {})

    def check(self) -> None:
        """Call often; asks now and then. Raises RunError once the server is gone for good."""
        if self.process is not None and self.process.poll() is not None:
            raise RunError(
                f"the grader server ended with exit code {self.process.returncode}; the training was stopped",
                where=self.log,
                fix="the same command with --run starts both again",
            )
        now = time.monotonic()
        if now - self.asked < ASK_EVERY_S:
            return
        self.asked = now
        if healthy(self.own_url or self.url, self.token):
            self.heard = now
        elif now - self.heard > SILENCE_S:
            raise RunError(
                f"the grader server has not answered for {SILENCE_S:.0f} s; the training was stopped",
                where=self.log or self.url,
                fix="the same command with --run starts both again",
            )


def healthy(url: str, token: str) -> bool:
    request = urllib.request.Request(f"{url}/healthz", headers={"Authorization": f"Bearer {token}"} if token else {})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, ValueError):
        return False


@contextlib.contextmanager
def served(taxonomy: Path, log: Path, *, reached_from: str = "", host: str = "") -> Iterator[Graders]:
    """Start the server for the time of the block. ``reached_from``: an address of the cluster whose nodes will ask;
    without one only this machine may. ``host``: the name by which those nodes know this machine.

    Raises RunError if the server does not start.
    """
    open_ = bool(reached_from or host)
    token = secrets.token_urlsafe(32) if open_ else ""
    command = [sys.executable, "-c", PROGRAM, "--host", "0.0.0.0" if open_ else "127.0.0.1", "--port", "0"]
    command += ["--taxonomy-path", str(taxonomy.absolute())] + (["--token-env", TOKEN] if open_ else [])
    environment = {**os.environ, TOKEN: token} if open_ else {k: v for k, v in os.environ.items() if k != TOKEN}
    with log.open("wb") as file:
        # A group of its own, so that Ctrl-C reaches the training first.
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )
    try:
        port = _port(process, log)
        own = f"http://127.0.0.1:{port}"
        name = host or (own_address(reached_from) if reached_from else "127.0.0.1")
        yield Graders(url=f"http://{name}:{port}", token=token, own_url=own, process=process, log=log)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    """Raises RunError with what the server said instead of its address."""
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        text = log.read_text(encoding="utf-8", errors="replace")
        if match := _SAID.search(text):
            port = urlsplit(match[1]).port
            assert port is not None
            return port
        if process.poll() is not None:
            break
        time.sleep(0.1)
    said = (log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["it said nothing"])[-1]
    raise RunError(f"the grader server did not start: {said}", where=log)


def own_address(peer: str) -> str:
    """The address of this machine on the way to ``peer`` (``HOST:PORT``, also with a scheme). Raises RunError."""
    parts = urlsplit(peer if "://" in peer else f"//{peer}")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((parts.hostname or "", parts.port or 9))
            return str(probe.getsockname()[0])
        except (OSError, ValueError) as error:
            raise RunError(f"cannot be reached: {error}", where=peer, fix="see --ray-address") from error

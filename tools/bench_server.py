"""How fast the grader server is, and whether a slow grader or a killed client harms the others.

    make bench-server                       # about a minute and a half
    python tools/bench_server.py --rounds 5 --workers 2

A grade is one sample, graded and answered. ``grades_per_s`` and ``p99_ms`` are of requests with one sample each, from
64 clients on keep-alive connections that ask again as soon as they are answered; every answer is compared with the
right one. Rounds of three kinds are interleaved: single samples; 64 samples a request; and single samples while, beside
the 64, eight clients have a Python grader sleep for half a second in the sandbox and a process of 16 clients is killed
(SIGKILL) in the middle of its requests. Medians over the rounds are printed, errors are those of all rounds; the last
line is one JSON object.

The server is the real command in a process of its own. The clients share this process and one core with nothing
else to do: they send bytes made beforehand and look for bytes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CLIENTS, BATCH, SLEEPERS, VICTIMS = 64, 64, 8, 16
LABELS = ["EMERGENCY", "REFILL", "RX_QUESTION", "APPT_QUESTION", "SCHEDULE", "RESCHEDULE", "CANCEL", "OTHER"]
ANSWERS = {"**Rx question.**": 1.0, "OTHER": 0.0, "It is a refill\nREFILL": 0.0, "rx_question": 1.0}
LABEL = {"type": "label", "labels": LABELS, "input": "{{sample.output_text}}", "reference": "{{item.reference}}"}
SLEEP = "import time\ndef grade(sample, item):\n    time.sleep(0.5)\n    return 1.0\n"
COMMAND = """
import sys, types
from instructlab.configuration import get_default_config
from rft_ilab.cli.serve_graders import serve_graders
serve_graders(sys.argv[1:], obj=types.SimpleNamespace(config=get_default_config()), prog_name="serve-graders")
"""


def request(body: Any) -> bytes:
    data = json.dumps(body).encode()
    head = "POST /v1/rft/grade HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(data)}\r\n\r\n".encode() + data


def sample(text: str) -> dict[str, Any]:
    item = {"reference": "RX_QUESTION", "language": "en", "source": "phone", "length": len(text)}
    return {"completion": text, "item": item}


def singles() -> list[tuple[bytes, list[float]]]:
    """Requests of one sample, with the scores that are right."""
    return [(request({"grader": LABEL, "samples": [sample(text)]}), [score]) for text, score in ANSWERS.items()]


def batches() -> list[tuple[bytes, list[float]]]:
    texts = [list(ANSWERS)[i % len(ANSWERS)] for i in range(BATCH)]
    return [(request({"grader": LABEL, "samples": list(map(sample, texts))}), [ANSWERS[text] for text in texts])]


@dataclass
class Tally:
    """What clients saw: latencies of answers in seconds, and how many were none or wrong."""

    latencies: list[float] = field(default_factory=list)
    errors: int = 0


SCORE = re.compile(rb'"score":\s*([0-9.]+|null)')


class Asking(asyncio.Protocol):
    """One client: asks, reads, asks again until told to stop; counts answers and lost connections in ``tally``."""

    def __init__(self, asks: Sequence[tuple[bytes, list[float]]], first: int, tally: Tally) -> None:
        self._asks, self._turn, self._tally = asks, first, tally
        self._buffer, self._stop = b"", False
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        at = self._buffer.find(b"content-length: ", 0, end)
        if at < 0 or len(self._buffer) < end + 4 + int(self._buffer[at + 16 : self._buffer.find(b"\r\n", at)]):
            return
        self._tally.latencies.append(time.perf_counter() - self._sent)
        good = self._buffer.startswith(b"HTTP/1.1 200")
        self._tally.errors += not good or [float(s) for s in SCORE.findall(self._buffer)] != self._wanted
        self._buffer = b""
        if self._stop:
            self._transport.close()
        else:
            self._ask()

    def _ask(self) -> None:
        data, self._wanted = self._asks[self._turn % len(self._asks)]
        self._turn += 1
        self._sent = time.perf_counter()
        self._transport.write(data)

    def stop(self) -> None:
        """Ends with the answer that is due."""
        self._stop = True

    def connection_lost(self, error: Exception | None) -> None:
        self._tally.errors += not self._stop
        if not self.ended.done():
            self.ended.set_result(None)


async def ask_for(port: int, asks: Sequence[tuple[bytes, list[float]]], clients: int, seconds: float) -> Tally:
    tally, loop = Tally(), asyncio.get_running_loop()
    made = []
    for first in range(clients):
        _, one = await loop.create_connection(functools.partial(Asking, asks, first, tally), "127.0.0.1", port)
        made.append(one)
    await asyncio.sleep(seconds)
    for one in made:
        one.stop()
    async with asyncio.timeout(60):
        await asyncio.gather(*(one.ended for one in made))
    return tally


async def disturbed(port: int, seconds: float) -> tuple[Tally, Tally]:
    """The 64, and what the clients of the slow grader saw."""
    sleeping = request({"grader": {"type": "python", "source": SLEEP}, "samples": [sample("x")]})
    slow = asyncio.ensure_future(ask_for(port, [(sleeping, [1.0])], SLEEPERS, seconds))
    victims = subprocess.Popen([sys.executable, __file__, "--victims-of", str(port)])
    asyncio.get_running_loop().call_later(seconds / 2, victims.send_signal, signal.SIGKILL)
    tally = await ask_for(port, singles(), CLIENTS, seconds)
    if victims.wait() != -signal.SIGKILL:
        raise SystemExit("the clients that were to be killed had ended before")
    return tally, await slow


@contextlib.contextmanager
def serving(workers: int) -> Iterator[tuple[int, int]]:
    """The port of the real command, and its process id."""
    more = ["--workers", str(workers)] if workers > 1 else []
    arguments = ["--port", "0", "--taxonomy-path", "/nonexistent", *more]
    process = subprocess.Popen([sys.executable, "-c", COMMAND, *arguments], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        if not found:
            raise SystemExit(line + process.stderr.read())
        yield int(found[1]), process.pid
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def processor_s(pid: int) -> float:
    """Processor time so far of a process and its children that live; not of the sandbox, whose children end."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    ticks = sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK") + sum(processor_s(int(child)) for child in children)


def p99_ms(latencies: Sequence[float]) -> float:
    return 1000 * sorted(latencies)[int(0.99 * len(latencies))]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each kind in each round")
    parser.add_argument("--workers", type=int, default=1, help="processes of the server")
    parser.add_argument("--victims-of", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.victims_of:
        asyncio.run(ask_for(given.victims_of, [*singles(), *batches()], VICTIMS, 3600.0))
        return
    seen: dict[str, list[Tally]] = {"single": [], "batched": [], "disturbed": [], "slow": []}
    processor: dict[str, float] = dict.fromkeys(("single", "batched"), 0.0)
    with serving(given.workers) as (port, pid):
        asyncio.run(ask_for(port, [*singles(), *batches()], CLIENTS, 1.0))
        for _ in range(given.rounds):
            for kind, asks in (("single", singles()), ("batched", batches())):
                before = processor_s(pid)
                seen[kind].append(asyncio.run(ask_for(port, asks, CLIENTS, given.seconds)))
                processor[kind] += processor_s(pid) - before
            ours, slow = asyncio.run(disturbed(port, given.seconds))
            seen["disturbed"].append(ours)
            seen["slow"].append(slow)
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    print(f"{given.rounds} rounds of {given.seconds:g} s a kind, {CLIENTS} clients, {cores} cores, load {load:.1f}")
    rates: dict[str, float] = {}
    tails: dict[str, float] = {}
    for kind, label in (
        ("single", "one sample a request"),
        ("batched", f"{BATCH} samples a request"),
        ("disturbed", "one sample, others slow and killed"),
    ):
        per_s = [len(t.latencies) / given.seconds * (BATCH if kind == "batched" else 1) for t in seen[kind]]
        tail = [p99_ms(t.latencies) for t in seen[kind]]
        rates[kind], tails[kind] = statistics.median(per_s), statistics.median(tail)
        spread = f"({min(per_s):,.0f} to {max(per_s):,.0f})"
        print(f"{label:36s} {rates[kind]:9,.0f} grades/s {spread:20s} p99 {tails[kind]:6.1f} ms (max {max(tail):.1f})")
    used = {kind: sum(len(t.latencies) for t in seen[kind]) * (BATCH if kind == "batched" else 1) for kind in processor}
    each = {kind: 1e6 * processor[kind] / used[kind] for kind in processor}
    print(f"{'processor time of the server':36s} {each['single']:.0f} us a grade, {each['batched']:.0f} us in batches")
    own = [latency for t in seen["slow"] for latency in t.latencies]
    print(f"{'the slow grader, sleeping 500 ms':36s} median {1000 * statistics.median(own):.0f} ms, {len(own)} answers")
    errors = {kind: sum(t.errors for t in tallies) for kind, tallies in seen.items()}
    result = {
        "grades_per_s": round(rates["single"]),
        "p99_ms": round(tails["single"], 1),
        "errors": sum(errors.values()),
        "batched_grades_per_s": round(rates["batched"]),
        "disturbed_grades_per_s": round(rates["disturbed"]),
        "disturbed_p99_ms": round(tails["disturbed"], 1),
        "server_cpu_us_per_grade": round(each["single"]),
        "workers": given.workers,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

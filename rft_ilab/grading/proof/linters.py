"""Lint many skills on several processors: this process and others like it take names from one queue.

A child is started afresh (``python -P -m``, so that no file of the directory it is started in is imported), gets a line
of JSON with a few names and answers with a line of JSON: ``{"findings": [...]}`` or ``{"failed": "why"}``. It is told
nothing else, and ends with its input.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import rft_ilab
from rft_ilab.errors import RftError, SandboxError
from rft_ilab.grading.proof.golden import Finding
from rft_ilab.grading.proof.lint_skill import lint_skill

CHUNK = 8  # names to a line
WORTH = 32  # skills that take about as long as the start of a child


def lint_skills(taxonomy: Path, names: Sequence[str], workers: int, style: bool) -> list[Finding]:
    """The findings of these skills, in no order. Raises SandboxError if a child fails, or Python graders cannot run."""
    queue: SimpleQueue[Sequence[str]] = SimpleQueue()
    for start in range(0, len(names), CHUNK):
        queue.put(names[start : start + CHUNK])
    children = [_Child(taxonomy, queue, style) for _ in range(min(workers - 1, len(names) // WORTH))]
    findings: list[Finding] = []
    try:
        while not any(child.problem for child in children):
            try:
                chunk = queue.get_nowait()
            except Empty:
                break
            findings += [finding for name in chunk for finding in lint_skill(taxonomy, name, style)]
        for child in children:
            findings += child.result()
    finally:
        for child in children:
            child.close()
    return findings


class _Child:
    """One more process, and the thread that talks to it."""

    def __init__(self, taxonomy: Path, queue: SimpleQueue[Sequence[str]], style: bool) -> None:
        self.problem, self._findings, self._queue = "", list[Finding](), queue
        self._request = {"taxonomy": str(taxonomy), "style": style}
        here = str(Path(rft_ilab.__file__).resolve().parents[1])
        path = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
        )
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self.problem:
            try:
                chunk = self._queue.get_nowait()
            except Empty:
                return
            told = self._ask({**self._request, "names": list(chunk)})
            self.problem = told.get("failed", "")
            self._findings += [Finding(**{**row, "file": Path(row["file"])}) for row in told.get("findings", ())]

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())
        except (OSError, ValueError):
            return {"failed": f"a process that lints ended early, near {request['names'][0]}"}

    def result(self) -> list[Finding]:
        self._thread.join()
        if self.problem:
            raise SandboxError(self.problem, fix="try one skill at a time: --skill")
        return self._findings

    def close(self) -> None:
        """End the process, whatever it does; it holds nothing that is worth waiting for."""
        self._process.kill()
        self._process.wait()
        self._thread.join()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # a request that nobody has read
                    pipe.close()


def main() -> None:
    """A child: see the top of this file. An interruption is for the process that started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What a library prints must not come between the lines of JSON.
    told = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        taxonomy = Path(request["taxonomy"])
        answer: dict[str, Any]
        try:
            found = [finding for name in request["names"] for finding in lint_skill(taxonomy, name, request["style"])]
            answer = {"findings": [{**dataclasses.asdict(finding), "file": str(finding.file)} for finding in found]}
        except RftError as error:
            answer = {"failed": str(error)}
        told.write(json.dumps(answer) + "\n")
        told.flush()


if __name__ == "__main__":
    main()

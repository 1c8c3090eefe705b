"""Consoles whose reader may leave early, as in ``ilab model regress | grep -q PASS``."""

from __future__ import annotations

import os
from typing import IO

from rich.console import Console


class LastingConsole(Console):
    """Rich would end the process with exit code 1, which reads as the gate's FAIL; here the command goes on, unread."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        silence(self.file)


def silence(stream: IO[str]) -> None:
    """Let whatever is still written to ``stream`` vanish, also what Python flushes at its end."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, stream.fileno())
    os.close(devnull)

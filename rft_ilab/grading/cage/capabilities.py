"""How strong the walls of this machine are.

``cage``: seccomp and Landlock, each of which holds alone. ``cage without Landlock``: seccomp denies every call that
takes a path. ``process``: a separate process with limits and an empty environment, which can read what the user can
read; it is good enough for graders that one has written, and refused for anything else.
"""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass

from rft_ilab.errors import SandboxError

CAGE, WITHOUT_LANDLOCK, PROCESS = "cage", "cage without Landlock", "process"


@dataclass(frozen=True, slots=True)
class Features:
    """What to use of the machine. Everything, but in tests that simulate a lesser one."""

    seccomp: bool = True
    landlock: bool = True
    drop: bool = True  # to the user nobody, when run as root
    path_filter: bool = True  # False leaves path calls to Landlock alone

    def missing(self) -> str:
        names = {"seccomp": self.seccomp, "landlock": self.landlock, "drop": self.drop, "path filter": self.path_filter}
        return ",".join(name for name, there in names.items() if not there)


@dataclass(frozen=True, slots=True)
class Walls:
    """What a fork server reports of its children."""

    seccomp: bool
    landlock: int  # version, 0 if there is none
    uid: int
    problem: str = ""

    @property
    def tier(self) -> str:
        if not self.seccomp:
            return PROCESS
        return CAGE if self.landlock else WITHOUT_LANDLOCK

    def lines(self) -> list[str]:
        """For people."""
        return [
            f"tier: {self.tier}",
            f"seccomp: {'yes' if self.seccomp else 'no'}",
            f"Landlock: {f'version {self.landlock}' if self.landlock else 'no'}",
            f"children run as: uid {self.uid}",
            f"machine: {platform.system()} {platform.release()}, {platform.machine()}",
            *([f"note: {self.problem}"] if self.problem else []),
        ]


_warned: set[str] = set()


UNTRUSTED_VARIABLE = "RFT_ILAB_UNTRUSTED"


def nobody_vouches() -> bool:
    """Whether what lies in the taxonomy comes from strangers: ``RFT_ILAB_UNTRUSTED`` says so, else ``CI`` does.

    That is where the graders of pull requests run before anybody has read them.
    """
    said = os.environ.get(UNTRUSTED_VARIABLE) or os.environ.get("CI", "")
    return said.lower() not in ("", "0", "false", "no")


def require(walls: Walls, *, trusted: bool) -> None:
    """Refuse what nobody vouches for where the walls are weak; else say so once. Raises SandboxError."""
    if walls.tier != PROCESS:
        return
    why = f": {walls.problem}" if walls.problem else ""
    if not trusted or nobody_vouches():
        raise SandboxError(
            f"no sandbox for code that is not trusted on this machine{why}",
            fix="use Linux with seccomp, see `ilab rft doctor`; for graders of your own set RFT_ILAB_UNTRUSTED=0",
        )
    if PROCESS not in _warned:
        _warned.add(PROCESS)
        print(
            f"Warning: Python graders run in a plain process with limits, not in the cage{why}. "
            "They can read what you can read: run only graders that you trust.",
            file=sys.stderr,
        )

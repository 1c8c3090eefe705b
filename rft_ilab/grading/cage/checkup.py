"""Try the walls of this machine: what ``ilab rft doctor`` prints."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from rft_ilab.grading.cage import pool
from rft_ilab.grading.cage.capabilities import PROCESS
from rft_ilab.grading.cage.judge import run_tests
from rft_ilab.grading.sample import Sample
from rft_ilab.grading.sandbox import Limits, run_python

# Bodies of grade(): to return 1.0 is to have got through.
TRIED = {
    "reading a file": "return float(bool(open({here!r}).read()))",
    "seeing a file": "import os\nreturn float(os.stat({here!r}).st_size > 0)",
    "writing a file": "import tempfile\ntempfile.NamedTemporaryFile()\nreturn 1.0",
    "opening a socket": "import socket\nsocket.socket()\nreturn 1.0",
    "starting a process": "import os\npid = os.fork()\nif not pid: os._exit(0)\nreturn 1.0",
    "starting a thread": "import _thread\n_thread.start_new_thread(print, ())\nreturn 1.0",
    "signalling our process": "import os\nos.kill({pid}, 0)\nreturn 1.0",
    "seeing the environment": "import os\nreturn float(bool(os.environ))",
}
ADD = "def add(a, b):\n    return a + b\n"
LIAR = "class E:\n    __eq__ = lambda *a: True\ndef add(a, b):\n    return E()\n"


@dataclass(frozen=True, slots=True)
class Report:
    """``healthy``: every wall that the tier promises holds."""

    lines: list[str]
    healthy: bool


def checkup() -> Report:
    """Raises SandboxError if no fork server starts."""
    walls = pool.default().server().walls
    lines = [*walls.lines(), ""]
    if walls.tier == PROCESS:
        return Report(
            [*lines, "only graders that you trust run here; graders of others and code of models do not"], True
        )
    through = [name for name, body in TRIED.items() if _gets_through(body)]
    lines += [f"{name}: {'NOT denied' if name in through else 'denied'}" for name in TRIED]
    start = time.perf_counter()
    right = run_tests(ADD, ["assert add(1, 2) == 3"])
    elapsed = (time.perf_counter() - start) * 1000
    wrong = run_tests(LIAR, ["assert add(1, 2) == 3"])
    judges = right.passed == (True,) and wrong.passed == (False,) and wrong.error is None
    lines.append(f"a right solution passes, one that is equal to everything fails: {'yes' if judges else 'NO'}")
    lines.append(f"time of the right one: {elapsed:.1f} ms")
    return Report(lines, not through and judges)


def _gets_through(body: str) -> bool:
    filled = body.format(here=__file__, pid=os.getpid())
    source = "def grade(sample, item):\n" + "".join(f"    {line}\n" for line in filled.splitlines())
    (mark,) = run_python(source, [Sample("", {})], Limits(trusted=False))
    return mark.score == 1.0

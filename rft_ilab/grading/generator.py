"""Tasks that are right by construction: ``generator.py`` of a skill, run in the cage.

``tasks(seed)`` yields rows as in ``tasks.jsonl``. It comes with a pull request, so it is as hostile as a grader: a
child without files, network or environment runs it, and only plain values come back, which are checked like any row.

Not covered: rows of more than 4 MB; modules outside the sandbox's list; a generator that depends on the order of a set,
which differs between processes (the run keeps the rows that it drew).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rft_ilab.errors import SkillError
from rft_ilab.grading.cage import frames, values
from rft_ilab.grading.cage.judge import TRIES, Solver
from rft_ilab.grading.cage.server import ServerLost
from rft_ilab.grading.sample import ascii_safe
from rft_ilab.skills.reading import has_lone_surrogate, parse_json, read_text
from rft_ilab.types import Skill

FILE = "generator.py"
MAX_BYTES = 256 * 1024
SECONDS, MEMORY_MB = 20.0, 512
ROWS_A_CALL = 64
# Appended to the source: an iterator cannot leave its process, so a child keeps it and hands out lists.
_DRAW = """

def rft_draw_rows(seed, count, _open={}):
    import itertools
    if seed not in _open:
        _open[seed] = iter(tasks(seed))
    return list(itertools.islice(_open[seed], count))
"""


def has_generator(skill: Skill) -> bool:
    return os.path.lexists(skill.directory / FILE)


def generated_rows(skill: Skill, count: int, seed: int) -> list[Any]:
    """The first ``count`` values that the skill's generator yields for ``seed``; fewer if it ends before.

    Values are plain but otherwise unchecked. Raises SkillError if the generator cannot be read, fails, hangs
    (20 s for 64 rows) or yields what is not plain; SandboxError if it cannot be caged.
    """
    path = skill.directory / FILE
    source = generator_source(skill)
    for _ in range(TRIES):
        try:
            return list(_rows(source + _DRAW, path, count, seed))
        except ServerLost as error:
            problem = str(error)
    raise SkillError(f"the sandbox died {TRIES} times: {problem}", where=path)


def generator_source(skill: Skill) -> str:
    """Raises SkillError if it cannot be read."""
    return read_text(skill.directory / FILE, MAX_BYTES)


def checked_row(row: Any) -> tuple[dict[str, Any] | None, str]:
    """The row as JSON would hold it, or None and why not: a plain value may be a set, half a character or no number."""
    if not isinstance(row, dict):
        return None, "the row is no object"
    try:
        plain = parse_json(json.dumps(row, allow_nan=False))
        return (None, "half a character (a lone surrogate)") if has_lone_surrogate(plain) else (plain, "")
    except (TypeError, ValueError, RecursionError) as error:
        return None, f"the row is not JSON: {ascii_safe(str(error))[:200]}"


def _rows(source: str, path: Path, count: int, seed: int) -> Iterator[Any]:
    solver = Solver(source, SECONDS, MEMORY_MB, cpu_seconds=int(SECONDS) * (2 + count // ROWS_A_CALL))
    try:
        solver.load()
        if solver.problem:
            raise _failed(path, solver.problem)
        drawn = 0
        while drawn < count:
            wanted = min(ROWS_A_CALL, count - drawn)
            call = values.encode(["rft_draw_rows", [seed, wanted], {}])
            kind, body = solver.call(call, time.monotonic() + SECONDS)
            if kind != frames.RESULT:
                raise _failed(path, ": ".join(frames.text(body).split("\\x00")[:2]))
            try:
                rows = values.decode(body)
            except (ValueError, RecursionError, MemoryError) as error:
                raise _failed(path, "forged: what came back is no value") from error
            if type(rows) is not list or len(rows) > wanted:
                raise _failed(path, "forged: what came back is no list of rows")
            yield from rows
            drawn += len(rows)
            if len(rows) < wanted:
                return
    finally:
        solver.close()


def _failed(path: Path, problem: str) -> SkillError:
    problem = problem.replace("the solution", "the generator").replace("<solution>", FILE)
    return SkillError(problem, where=path, fix="tasks(seed) must yield rows as in tasks.jsonl; see docs/data.md")

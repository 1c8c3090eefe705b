"""Every attack of the corpus against the cage, on this machine and on lesser ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from rft_ilab.grading.cage import pool
from rft_ilab.grading.cage.capabilities import PROCESS, Features
from tests.cage.corpus import GRADERS, SOLUTIONS
from tests.cage.world import World, everything, try_grader

ROOT = Path(__file__).resolve().parents[2]
NAMES = [
    "afterwards",
    *(f"grader: {attack.name}" for attack in GRADERS),
    *(f"solution: {cheat.name}" for cheat in SOLUTIONS),
    *(f"solution through a grader: {cheat.name}" for cheat in SOLUTIONS),
]
pytestmark = pytest.mark.skipif(pool.default().server().walls.tier == PROCESS, reason="needs seccomp")


@cache
def outcomes(landlock: bool) -> dict[str, str]:
    with pool.simulated(Features(landlock=landlock)):
        return everything(quick=not landlock)


@pytest.mark.parametrize("name", NAMES)
def test_the_cage_holds(name: str) -> None:
    assert outcomes(landlock=True)[name] == ""


def test_the_cage_holds_without_landlock() -> None:
    assert {name: problem for name, problem in outcomes(landlock=False).items() if problem} == {}


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


def test_landlock_holds_alone(world: World) -> None:
    """Without the filter on path calls. Metadata (stat) is not Landlock's business, and the filter's alone."""
    if not pool.default().server().walls.landlock:
        pytest.skip("no Landlock")
    verbs = ("read", "write", "append", "create", "mk", "symlink", "hard link", "unlink", "rename", "truncate", "list")
    with pool.simulated(Features(path_filter=False)):
        tried = {a.name: try_grader(a, world) for a in GRADERS if a.name.startswith(verbs) and a.name != "readlink"}
    assert len(tried) > 12 and {name: problem for name, problem in tried.items() if problem} == {}


@pytest.mark.skipif(os.getuid() != 0, reason="the other tests ran without root")
def test_the_cage_holds_without_root() -> None:
    """In a process of the user nobody. It may read everything (a Python below /root), so the cage alone contains."""
    command = "import json, tests.cage.world as w; print(json.dumps(w.everything(quick=True, solutions=False)))"
    drop = "setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=+dac_read_search"
    run = subprocess.run(
        [*drop.split(), "--ambient-caps=+dac_read_search", sys.executable, "-c", command],
        env={"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert {name: problem for name, problem in json.loads(run.stdout).items() if problem} == {}


def test_the_cage_holds_for_a_root_that_cannot_drop(world: World) -> None:
    with pool.simulated(Features(drop=False)):
        chosen: Callable[[str], bool] = lambda name: name.startswith(("read", "write", "the asker", "signal", "kill"))  # noqa: E731
        tried = {a.name: try_grader(a, world) for a in GRADERS if chosen(a.name)}
    assert len(tried) > 10 and {name: problem for name, problem in tried.items() if problem} == {}

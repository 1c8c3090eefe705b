"""``ilab rft doctor``."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from rft_ilab.cli.doctor import doctor
from rft_ilab.grading.cage import checkup, pool
from rft_ilab.grading.cage.capabilities import PROCESS, Features

needs_walls = pytest.mark.skipif(pool.default().server().walls.tier == PROCESS, reason="needs seccomp")


@needs_walls
def test_the_walls_hold() -> None:
    result = CliRunner().invoke(doctor)
    assert result.exit_code == 0 and result.output.startswith("tier: cage")
    assert result.output.count(": denied") == len(checkup.TRIED) and "NO" not in result.output


@needs_walls
def test_a_wall_that_does_not_hold_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(checkup.TRIED, "adding", "return float(1 + 1 == 2)")
    result = CliRunner().invoke(doctor)
    assert result.exit_code == 2 and "adding: NOT denied" in result.output


def test_a_lesser_machine() -> None:
    with pool.simulated(Features(seccomp=False)):
        result = CliRunner().invoke(doctor)
    assert (
        result.exit_code == 0 and result.output.startswith("tier: process") and "only graders that you" in result.output
    )

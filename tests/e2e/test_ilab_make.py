"""The Makefile, with a stand-in for the installed ilab: exit codes, isolation, what it passes on."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FAKE_ILAB = """#!/bin/sh
echo "ilab $*"
echo "HOME=$HOME DATA=$XDG_DATA_HOME OFFLINE=$HF_HUB_OFFLINE"
exit "${FAKE_CODE:-0}"
"""

pytestmark = pytest.mark.skipif(not shutil.which("make") or not shutil.which("git"), reason="needs make and git")


@pytest.fixture
def checkout(tmp_path):
    """A directory in which everything is installed already, as far as make can tell."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    fake = tmp_path / ".venv" / "bin" / "ilab"
    fake.parent.mkdir(parents=True)
    fake.write_text(FAKE_ILAB, encoding="utf-8")
    fake.chmod(0o755)
    key = "{ cat pyproject.toml constraints.txt; pwd; } | git hash-object --stdin"
    digest = subprocess.run(
        ["bash", "-c", key], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout.strip()
    (tmp_path / ".venv" / f".installed-{digest}").touch()
    config = tmp_path / ".rft" / "config" / "instructlab" / "config.yaml"
    config.parent.mkdir(parents=True)
    config.touch()
    return tmp_path


def make(checkout, *arguments, **environment):
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", *arguments], cwd=checkout, env={**inherited, **environment}, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("code", [0, 1, 2])
@pytest.mark.parametrize("options", [[], ["-j4"], ["-s", "RUN=nnn", "MODEL=a b"]], ids=str)
def test_regress_ends_with_the_exit_code_of_the_gate(checkout, code, options):
    result = make(checkout, "regress", *options, FAKE_CODE=str(code))
    assert result.returncode == code, result.stderr
    assert "ilab model regress --run" in result.stdout


def test_an_interrupted_gate_is_an_error(checkout):
    assert make(checkout, "regress", FAKE_CODE="130").returncode == 2


def test_regress_can_be_looked_at(checkout):
    result = make(checkout, "-n", "regress", FAKE_CODE="1")
    assert result.returncode == 0 and result.stderr == "" and "\nilab model" not in result.stdout


def test_regress_with_another_goal_still_fails(checkout):
    assert make(checkout, "regress", "report", FAKE_CODE="1").returncode == 2


def test_ilab_is_isolated(checkout):
    result = make(checkout, "report", HOME="/home/someone", XDG_DATA_HOME="/home/someone/data")
    state = checkout / ".rft"
    assert f"HOME={state}/home DATA={state}/data OFFLINE=1" in result.stdout


def test_variables_reach_the_command(checkout):
    result = make(checkout, "train", "SEED=3", "MODEL=/m", "ENDPOINT=http://e", "ARGS=--steps 2")
    assert "ilab rft run --run train-seed3 --seed 3 --model /m --endpoint http://e --steps 2" in result.stdout
    assert "ilab rft run --run train\n" in make(checkout, "train").stdout


def test_help_is_the_default_and_lists_every_target(checkout):
    result = make(checkout)
    assert result.returncode == 0 and result.stdout == make(checkout, "help").stdout
    for target in ("train", "regress", "report", "test", "lint", "help", "clean"):
        assert f"  make {target} " in result.stdout


def test_a_wrong_python_is_one_line(checkout):
    shutil.rmtree(checkout / ".venv")
    result = make(checkout, "train", "PYTHON=/absent/python")
    assert result.returncode == 2
    assert "Error: '/absent/python' is no Python 3.11" in result.stderr and not (checkout / ".venv").exists()

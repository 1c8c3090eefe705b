"""A use case is a test: ``pytest --rft-model=MODEL taxonomy/`` asks a model the tasks of skills, one test a task.

Every pytest process of the environment loads this module, so it has options and nothing else. Without ``--rft-model``
there is no further hook, no file is collected and nothing is imported; with it, :mod:`.session` joins in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("rft-ilab", "skills of an InstructLab taxonomy as tests (rft-ilab)")
    group.addoption(
        "--rft-model",
        metavar="MODEL",
        help="Who answers: a model directory, the name of a run, 'embedded', or the URL of an OpenAI-compatible "
        "server (.../v1). Without it no skill is collected.",
    )
    group.addoption("--rft-endpoint-model", metavar="NAME", help="Model of that server. [default: the first it lists]")
    group.addoption(
        "--rft-split", choices=("train", "val", "test"), default="test", help="Which tasks. [default: test]"
    )
    group.addoption(
        "--rft-limit", type=int, metavar="N", help="At most N tasks of each skill, the same ones every time."
    )
    group.addoption(
        "--rft-demonstrations", type=int, default=0, metavar="N", help="Seed examples before each prompt. [default: 0]"
    )
    group.addoption(
        "--rft-samples",
        type=int,
        metavar="N",
        help="N sampled answers to each task, at the gate's temperature. [default: one greedy answer]",
    )
    group.addoption(
        "--rft-pass-rate",
        type=float,
        default=1.0,
        metavar="SHARE",
        help="Share of a task's samples that must be right. [default: 1.0]",
    )
    group.addoption(
        "--rft-min-accuracy",
        action="append",
        default=[],
        metavar="[SKILL=]SHARE",
        help="One more test a skill, which fails when less than this share of its tasks pass; may be repeated, "
        "without SKILL it holds for all others.",
    )
    group.addoption(
        "--rft-fresh", action="store_true", help="Ask again, whatever is cached (a server may have got a new model)."
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--rft-model", default=None) is not None:
        from rft_ilab.pytest_plugin.session import start

        start(config)

"""Every command of the plugin in the real ``ilab``: its help, its place in ilab, what it leaves alone."""

from __future__ import annotations

import re
from importlib import metadata

import pytest

COMMANDS = {
    ("taxonomy", "lint"): ["--taxonomy-path", "--json", "--skill"],
    ("data", "verify"): ["--taxonomy-path", "--run", "--model", "--endpoint", "--target", "--seed", "--samples"],
    ("model", "rft"): [
        "--taxonomy-path",
        "--run",
        "--model",
        "--endpoint",
        "--target",
        "--seed",
        "--steps",
        "--control",
    ],
    ("model", "regress"): [
        "--taxonomy-path",
        "--run",
        "--model",
        "--baseline",
        "--base",
        "--target",
        "--no-target",
        "--junit",
        "--markdown",
        "--output-dir",
        "--history",
        "--suite",
        "--lm-eval-include",
    ],
    ("rft", "run"): ["--taxonomy-path", "--run", "--model", "--endpoint", "--target", "--seed", "--steps", "--control"],
    ("rft", "regrade"): ["--taxonomy-path", "--run", "--model", "--baseline", "--target", "--suite", "--examples"],
    ("rft", "baseline"): ["save", "list", "show"],
    ("rft", "report"): ["[RUN]", "--json", "--markdown", "--junit"],
    ("rft", "ship"): ["[RUN]", "--output", "--adapter", "--despite-verdict"],
    ("rft", "verify-bundle"): ["DIR", "--base", "--expect", "--json"],
    ("rft", "explain"): ["[TASK]", "--run", "--again", "--messages"],
    ("rft", "rollouts"): ["[RUN]", "--step", "--worst", "--errors", "--json"],
    ("rft", "compare"): ["MODEL...", "--taxonomy-path", "--skill", "--samples", "--json", "--markdown", "--html"],
    ("rft", "history"): ["--taxonomy-path", "--history", "--skill", "--last", "--json", "--html"],
    ("rft", "compare-controls"): ["RUN", "CONTROL..."],
    ("rft", "plan"): ["--taxonomy-path", "--power", "--discordance", "--icc", "--run", "--json"],
    ("rft", "pr"): ["--base", "--head", "--precheck", "--markdown", "--annotate", "--install-workflows", "--force"],
    ("rft", "grader-test"): ["[SKILL]", "--taxonomy-path", "--grader", "--tasks", "--probes", "--json"],
    ("rft", "serve-graders"): ["--host", "--port", "--token-env"],
    ("rft", "import"): ["openai", "csv", "qna"],
    ("rft", "export"): ["SKILL...", "--output", "--model", "--force", "--taxonomy-path"],
    ("rft", "suites"): ["--time", "--model", "--json"],
    ("rft", "doctor"): ["--help"],
}
EXTENDED = {
    ("model", "train"): ["--rft", "--rft-target", "--rft-run"],
    ("train",): ["--rft", "--rft-target", "--rft-run"],
    ("data", "generate"): ["--verify", "--verify-model", "--verify-endpoint"],
    ("generate",): ["--verify", "--verify-model", "--verify-endpoint"],
}
KILL_SWITCH = {"PYDANTIC_DISABLE_PLUGINS": "__all__"}


def test_every_entry_point_is_tested_here():
    ours = {
        (entry.group.removeprefix("instructlab.command."), entry.name)
        for entry in metadata.distribution("rft-ilab").entry_points
        if entry.group.startswith("instructlab.command.")
    }
    assert ours == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help(initialised, command):
    result = initialised(*command, "--help")
    assert result.returncode == 0, result.stderr
    for option in COMMANDS[command]:
        assert option in result.stdout
    usage, description = result.stdout.split("\n\n")[:2]
    assert usage.startswith(f"Usage: ilab {' '.join(command)}") and len(description.strip()) > 20


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_option_has_help(initialised, command):
    options = initialised(*command, "--help").stdout.split("Options:\n")[1]
    assert not re.findall(r"^  -\S+(?: [A-Z|]+)?$(?!\n {10})", options, re.MULTILINE)


@pytest.mark.parametrize("command", EXTENDED, ids=" ".join)
def test_commands_of_ilab_have_our_options(initialised, command):
    result = initialised(*command, "--help")
    assert result.returncode == 0, result.stderr
    for option in EXTENDED[command]:
        assert option in result.stdout


@pytest.mark.parametrize("command", EXTENDED, ids=" ".join)
def test_commands_of_ilab_without_the_hook(initialised, command):
    result = initialised(*command, "--help", **KILL_SWITCH)
    assert result.returncode == 0, result.stderr
    assert not any(option in result.stdout for option in EXTENDED[command])
    refused = initialised(*command, EXTENDED[command][0], **KILL_SWITCH)
    assert refused.returncode == 2 and "No such option" in refused.stderr


@pytest.mark.parametrize("environment", [{}, KILL_SWITCH], ids=["hook", "no hook"])
def test_ilab_itself_keeps_working(initialised, environment):
    result = initialised("--help", **environment)
    assert result.returncode == 0, result.stderr
    assert re.search(r"^  rft +Reinforcement fine-tuning", result.stdout, re.MULTILINE)
    for line in ("train     model train", "generate  data generate", "chat      model chat", "serve     model serve"):
        assert line in result.stdout
    for group, ours in [("model", "regress"), ("data", "verify"), ("taxonomy", "lint"), ("rft", "run")]:
        result = initialised(group, "--help", **environment)
        assert result.returncode == 0 and re.search(rf"^  {ours} ", result.stdout, re.MULTILINE), result.stderr


def test_the_group_says_whether_the_hook_is_there(initialised):
    assert "--verify`: available" in initialised("rft", "--help").stdout
    absent = initialised("rft", "--help", **KILL_SWITCH).stdout.split()
    assert "not available: PYDANTIC_DISABLE_PLUGINS=__all__" in " ".join(absent)


def test_help_works_before_config_init(plain_ilab):
    for command in [(), *COMMANDS]:
        result = plain_ilab(*command, "--help")
        if command[:1] in [(), ("rft",)]:
            assert result.returncode == 0, result.stderr
        else:  # ilab's own groups ask for config init first
            assert result.returncode == 1 and "ilab config init" in result.stdout


def test_commands_ask_for_config_init(plain_ilab):
    result = plain_ilab("rft", "run")
    assert result.returncode == 2 and "ilab config init" in result.stderr and "Traceback" not in result.stderr


def test_nothing_is_written_to_the_home(initialised):
    initialised("taxonomy", "lint")
    initialised("rft", "report")
    assert list(initialised.home.rglob("*")) == []


def test_ilab_diff_accepts_a_skill_with_grader_and_tasks(initialised):
    result = initialised("taxonomy", "diff", "--taxonomy-base", "empty")
    assert result.returncode == 0 and "is valid" in result.stdout, result.stdout + result.stderr

"""Rewards inside Open-Instruct itself: its own reward function in a Ray actor, against the graders in this process.

Needs a checkout of allenai/open-instruct (``RFT_OPEN_INSTRUCT``) and a Python that can import it
(``RFT_OPEN_INSTRUCT_PYTHON``); docs/open-instruct-rewards.md says how both are made.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rft_ilab
from rft_ilab.config import load_settings
from rft_ilab.grading.engine import build_grader
from rft_ilab.scaleout.server import make_app
from rft_ilab.skills.tasks import load_tasks
from rft_ilab.skills.tree import find_skills
from rft_ilab.synth.exports import ExportTask
from rft_ilab.types import Rollout
from tests.unit.loopback import serving

ROOT = Path(__file__).parents[2]
TAXONOMY = ROOT / "taxonomy"
KIT = Path(rft_ilab.__file__).parent / "scaleout" / "openinstruct"
CHILDREN = ROOT / "tests" / "openinstruct"
CHECKOUT = os.environ.get("RFT_OPEN_INSTRUCT", "")
PYTHON = os.environ.get("RFT_OPEN_INSTRUCT_PYTHON", "")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CHECKOUT and PYTHON),
        reason="set RFT_OPEN_INSTRUCT (a checkout of allenai/open-instruct) and RFT_OPEN_INSTRUCT_PYTHON (its Python)",
    ),
]

ODD = [
    "", " ", "\0", "\ud800", "\ud83d\ude00", "é" * 1000, "x" * 50_000, "\u202eSEY", "NaN", "{", "[" * 3000, "null",
    '{"item": 1, "item": 2}', "```json\n{}\n```", "<think>yes</think>", "\uff11\uff12", "\r\n", "yes no",
    "A" * 300 + "\0",
]  # fmt: skip


def environment(**more: str) -> dict[str, str]:
    own = ("RFT_", "PYTHON", "RAY_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    return {**kept, "PYTHONPATH": f"{CHECKOUT}:{CHILDREN}", "RFT_GRADER_DEADLINE_S": "3", **more}


class Engine:
    """``rewards_child.py``: asked by lines of JSON."""

    def __init__(self, url: str, **more: str) -> None:
        command = [PYTHON, str(CHILDREN / "rewards_child.py"), str(KIT)]
        self._process = subprocess.Popen(
            command, env=environment(RFT_GRADER_URL=url, **more), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, cwd=CHECKOUT,
        )  # fmt: skip
        self.ready = self._answer()

    def ask(self, groups: list[Any], dataset: str = "rft_ilab") -> dict[str, Any]:
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"groups": groups, "dataset": dataset}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        for line in self._process.stdout:  # Open-Instruct and Ray print there, too
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise AssertionError("the process in Open-Instruct's Python has ended")

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(60)


def groups() -> tuple[list[list[Any]], list[list[float | None]]]:
    """Groups ``[completions, label]`` of every shipped skill, and what its grader says here."""
    asked: list[list[Any]] = []
    expected: list[list[float | None]] = []
    for skill in find_skills(TAXONOMY, load_settings(TAXONOMY)):
        grader, tasks = build_grader(skill), load_tasks(skill)
        chosen = tasks[:: max(1, len(tasks) // 6)][:6]
        for task in chosen:
            texts = [*(other.reference for other in chosen), f"  {task.reference}\n", f"It is {task.reference}.", *ODD]
            one = ExportTask(
                task=task, prompt=task.messages, grader=skill.grader, grader_digest=skill.grader_digest, split="train",
                source="seed", evidence="authored", pass_rate=None,
            )  # fmt: skip
            pairs = [
                (task, Rollout(task_id=task.id, index=i, policy_id="p", completion=text, stop="eos"))
                for i, text in enumerate(texts)
            ]
            asked.append([texts, one.label])
            expected.append([grade.score for grade in grader.grade(pairs)])
    return asked, expected


@pytest.fixture
def lines() -> Iterator[tuple[list[list[Any]], list[list[float | None]]]]:
    yield groups()


def test_the_same_scores_in_a_ray_actor_and_none_after_an_outage(lines: Any) -> None:
    asked, expected = lines
    assert sum(map(len, expected)) > 700 and all(None not in group for group in expected)
    with serving(make_app(taxonomy=TAXONOMY)) as url:
        engine = Engine(url, RFT_GRADER_DEADLINE_S="120")
        try:
            assert {"rft_ilab", "gsm8k", "ifeval"} <= set(engine.ready["verifiers"])
            assert engine.ask(asked) == {"scores": expected}
            print(f"{sum(map(len, expected))} completions, arguments by {engine.ready['ready']}")
            broken = json.loads(asked[0][1]) | {"item": {}}
            assert "fails on an answer: the task has no field" in engine.ask([[["x"], json.dumps(broken)]])["raised"]
        finally:
            engine.close()
        engine = Engine(url)
    try:  # the server has gone
        answer = engine.ask(asked)
        assert "scores" not in answer and "no grades from" in answer["raised"] and "no grades from" in answer["alarm"]
        assert "scores" not in engine.ask(asked[:1])
    finally:
        engine.close()


def test_without_any_code_of_ours(lines: Any) -> None:
    """``--code_api_url``: the same scores where an answer has no fence, and a silent 0 when the server has gone."""
    asked, expected = lines
    asked, expected = asked[::3], expected[::3]
    plain = [[i for i, text in enumerate(texts) if "```" not in text] for texts, _ in asked]
    with serving(make_app(taxonomy=TAXONOMY)) as url:
        engine = Engine(url, CODE_API_URL=f"{url}/test_program")
        scores = engine.ask(asked, "code")["scores"]
        for indices, found, wanted in zip(plain, scores, expected, strict=True):
            assert [found[i] for i in indices] == [wanted[i] for i in indices]
    try:
        assert engine.ask([[["YES"], asked[0][1]]], "code") == {"scores": [[0.0]]}
    finally:
        engine.close()


FAKE = """
import json, os, sys, time
import ray, rewards_child
from open_instruct.ground_truth_utils import RewardConfig, build_all_verifiers

def main():
    assert sys.argv[1:] == ["--exp_name", "x"], sys.argv
    ray.init(address="local", num_cpus=2, log_to_driver=False, logging_level="ERROR", include_dashboard=False)
    config = RewardConfig(verification_reward=1.0, verifier_functions=build_all_verifiers(*rewards_child.bare()))
    engine = ray.remote(num_cpus=0)(rewards_child.Engine).remote(config)
    failed = engine.groups.remote([[["x"], os.environ["LABEL"]]], "rft_ilab")

    @ray.remote(num_cpus=0)
    def step():
        time.sleep(3600)

    try:
        ray.get(step.remote())  # as a training step that waits for rewards that never come
    finally:
        print("cleaned up", flush=True)

main()
"""


def test_a_failed_reward_ends_a_run_that_waits_for_it(lines: Any, tmp_path: Path) -> None:
    package = tmp_path / "open_instruct"
    package.mkdir()
    (package / "__init__.py").write_text(f"__path__.append({str(Path(CHECKOUT) / 'open_instruct')!r})\n")
    (package / "grpo_fast.py").write_text(FAKE)
    more = {"RFT_GRADER_URL": "http://127.0.0.1:9", "LABEL": lines[0][0][1]}
    env = environment(**more) | {"PYTHONPATH": f"{tmp_path}:{CHILDREN}"}
    command = [PYTHON, str(KIT / "launcher.py"), "--exp_name", "x"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 1 and "cleaned up" in done.stdout, done.stderr[-2000:]
    assert [line for line in done.stderr.splitlines() if line.startswith("rft-ilab: no grades from http://127.0.0.1:9")]


@contextlib.contextmanager
def cluster(directory: Path) -> Iterator[str]:
    """The address of a Ray head of our own; only its own processes are ended."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [str(Path(PYTHON).parent / "ray"), "start", "--head", "--block", f"--port={port}", "--num-cpus=2"]
    command += ["--include-dashboard=false", "--disable-usage-stats", f"--temp-dir={directory}"]
    head = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert head.stdout
        said = []
        for line in head.stdout:
            said.append(line)
            if "Ray runtime started" in line:
                break
        else:
            raise AssertionError("".join(said))
        yield f"127.0.0.1:{port}"
    finally:
        head.terminate()
        head.wait(60)


def test_preflight_in_a_ray_task(lines: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("preflight") / "labels.jsonl"
    texts, label = lines[0][0]
    file.write_text(json.dumps({"label": label, "completion": texts[0], "passed": True}) + "\n")
    command = [PYTHON, str(KIT / "preflight.py"), str(file)]
    # A socket's path is short, and pytest's directories are not.
    with tempfile.TemporaryDirectory(prefix="ray") as short, cluster(Path(short)) as address:
        with serving(make_app(taxonomy=TAXONOMY)) as url:
            env = environment(RFT_GRADER_URL=url, RAY_ADDRESS=address)
            done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=200)
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout)["nodes"] == 1
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=200)
        assert done.returncode == 1 and "from node" in done.stderr and "no grades from" in done.stderr

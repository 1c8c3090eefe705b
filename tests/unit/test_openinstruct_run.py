"""``ilab model rft --engine open-instruct``, command line to report, on a grpo_fast.py that trains nothing."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
import threading
import time
import types
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from rft_ilab.cli.run import run
from rft_ilab.cli.train import rft
from rft_ilab.config import load_settings
from rft_ilab.errors import RunError
from rft_ilab.pipeline.request import Request, Workspace, environments_of
from rft_ilab.policy.local.identity import directory_digest
from rft_ilab.scaleout.openinstruct import checkpoint, graders
from rft_ilab.scaleout.openinstruct.dataset import tasks_of, write_dataset
from rft_ilab.scaleout.openinstruct.launch import Place
from rft_ilab.scaleout.openinstruct.site import Found, Site
from rft_ilab.skills.tree import find_skills
from rft_ilab.store import read_json, read_jsonl
from rft_ilab.types import EXIT_CODE
from tests.tiny_model import make_tiny_model
from tests.unit.taxonomies import write_skill

FAKE = Path(__file__).resolve().parents[1] / "fake_open_instruct"
SETTINGS = """
[skills."area/target"]
tier = "target"
max_tokens = 4
[gate]
samples = 1
[open_instruct]
prompts = 4
group_size = 2
steps = 3
checkpoint_every = 1
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A taxonomy, a tiny model, and user directories of its own."""
    for variable in ("XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    for variable in ("RAY_ADDRESS", "RFT_OPEN_INSTRUCT", "RFT_OPEN_INSTRUCT_PYTHON"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("rft_ilab.pipeline.openinstruct.local_cpus", lambda: 64)
    write_skill(tmp_path / "taxonomy", "area/target")
    (tmp_path / "taxonomy" / "rft.toml").write_text(SETTINGS)
    make_tiny_model(tmp_path / "model", max_position_embeddings=1024)
    return tmp_path


def command(place: Path, *more: str) -> list[str]:
    return [
        "--taxonomy-path", str(place / "taxonomy"), "--run", str(place / "run"), "--model", str(place / "model"),
        "--engine", "open-instruct", "--gpus", "1", *more,
    ]  # fmt: skip


def real(place: Path, *more: str) -> list[str]:
    return command(place, "--open-instruct", str(FAKE), "--open-instruct-python", sys.executable, *more)


def invoke(arguments: list[str], what: click.Command = rft) -> Result:
    from instructlab.configuration import get_default_config

    return CliRunner().invoke(what, arguments, obj=types.SimpleNamespace(config=get_default_config(), default_map=None))


def test_a_dry_run_says_all_of_it_without_open_instruct(place: Path) -> None:
    result = invoke(command(place, "--dry-run", "--ray-address", "http://head:8265", "--ray-job", "--nodes", "2"))
    assert result.exit_code == 0, result.output
    for part in (
        "210 training and 30 validation tasks", "Ray        14 CPUs = 10 x 1 learner GPU + 1 engine GPU",
        "RFT_GRADER_TOKEN=(secret)", "OPEN_INSTRUCT_PYTHON", "--num_learners_per_node 1",
        "ray.scripts.scripts job submit --address http://head:8265", "sh launcher.sh", "nothing was launched",
    ):  # fmt: skip
        assert part in result.output, part
    (data,) = (place / "run" / "open-instruct" / "data").iterdir()
    assert sorted(path.name for path in data.iterdir()) == ["test.parquet", "train.parquet"]
    assert not (place / "run" / "manifest.json").exists()


def test_of_verified_data_the_tasks_with_signal_are_trained(place: Path) -> None:
    settings = load_settings(place / "taxonomy")
    tasks = tasks_of(environments_of(find_skills(place / "taxonomy", settings), settings))
    write_dataset(place / "run" / "data" / "rlvr", [one for one in tasks if one.split == "val"] + tasks[:50])
    result = invoke(command(place, "--dry-run"))
    assert "(50 training and 30 validation tasks)" in result.output, result.output
    result = invoke(command(place, "--dry-run", "--steps", "7", "--group-size", "3", "--learning-rate", "2e-6"))
    for part in ("--total_episodes 84", "--num_samples_per_prompt_rollout 3", "--learning_rate 2e-06"):
        assert part in result.output, part


def test_data_that_a_server_sampled_need_not_name_it_again(place: Path) -> None:
    taxonomy = place / "taxonomy"
    asked = Request(taxonomy=taxonomy, run=place / "run", settings=load_settings(taxonomy), model=place / "model")
    served = dataclasses.replace(asked, endpoint="http://h/v1", endpoint_model="m")
    with Workspace(served).start_run().stage("data") as facts:
        with pytest.raises(RunError, match=r"started with other settings \(endpoint\)"):
            Workspace(asked).start_run()
        facts["kept"] = 1
    assert Workspace(asked).start_run().done("data")
    with pytest.raises(RunError, match=r"started with other settings \(endpoint\)"):
        Workspace(dataclasses.replace(asked, endpoint="http://other/v1")).start_run()


def test_the_whole_chain_ends_in_a_verdict_and_a_report(place: Path) -> None:
    result = invoke(real(place))
    assert result.exit_code in (0, 1, 2) and "Traceback" not in result.output, result.output
    for part in ("known answers graded as expected", "the learners are up", "grpo   3/3  reward 0.500", "gate:"):
        assert part in result.output, result.output
    run = place / "run"
    verdict = read_json(run / "gate" / "verdict.json")
    assert verdict["outcome"] in ("PASS", "FAIL", "INCONCLUSIVE")
    rows = read_jsonl(run / "rl" / "steps.jsonl")
    assert [(row["step"], row["reward"], row["errors"]) for row in rows] == [(n, 0.5, 0) for n in (1, 2, 3)]
    # Weights of the training, all else of the model it began with.
    model = run / "model"
    assert (model / "tokenizer_config.json").read_bytes() == (place / "model" / "tokenizer_config.json").read_bytes()
    assert (model / "model.safetensors").read_bytes() != (place / "model" / "model.safetensors").read_bytes()
    assert verdict["candidate"]["id"].split(":")[1].startswith(directory_digest(model)[:12])
    page = (run / "report.html").read_text()
    assert "open-instruct" in page and "--num_samples_per_prompt_rollout 2" in page
    assert "Grader errors in training" in page and "0, rewarded with their group" in page
    again = invoke(real(place))
    assert again.exit_code == result.exit_code and "trained already" in again.output


def test_a_ray_job_gets_its_token_in_a_file_of_its_own(place: Path) -> None:
    python = place / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{FAKE}:$PYTHONPATH" exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    job = ["--ray-job", "--ray-address", "http://127.0.0.1:8265", "--grader-host", "127.0.0.1"]
    arguments = command(place, "--open-instruct", str(FAKE), "--open-instruct-python", str(python), *job)
    result = invoke([*arguments, "--gpus", "3"])
    assert result.exit_code == 2 and "3 GPUs are needed, the cluster has 2" in result.output, result.output
    result = invoke([*arguments, "--gpus", "2"])
    assert "with a token" in result.output and "grpo   3/3  reward 0.500" in result.output, result.output
    assert (place / "run" / "gate" / "verdict.json").exists()
    script = place / "run" / "open-instruct" / "code" / "launcher.sh"
    assert script.stat().st_mode & 0o077 == 0 and "RFT_GRADER_TOKEN=" in script.read_text()
    assert "RFT_GRADER_TOKEN=" not in result.output + (place / "run" / "manifest.json").read_text()


@pytest.mark.parametrize(("code", "stopped"), [(0, False), (1, True)])
def test_a_job_that_nobody_follows_any_more_is_stopped(
    place: Path, code: int, stopped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr("rft_ilab.scaleout.openinstruct.launch.subprocess.run", lambda words, **_: asked.append(words))
    site = Site(ray_job=True, ray_address="http://h:8265")
    there = Place(found=Found(checkout=place, python=Path("python"), commit="c"), site=site, code=place)
    process = subprocess.Popen([sys.executable, "-c", f"raise SystemExit({code})"])
    process.wait()
    there.stop(process, "job-1")
    assert [words[-4:] for words in asked] == ([["stop", "--address", "http://h:8265", "job-1"]] if stopped else [])


def test_a_failure_is_one_line_and_the_same_command_resumes(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_FAIL", "3")
    result = invoke(real(place))
    assert result.exit_code == 2
    last = result.output.strip().splitlines()[-1]
    assert (
        "grpo_fast.py ended with exit code 1: RuntimeError: CUDA error: out of memory" in last and "train.log" in last
    )
    assert not (place / "run" / "model").exists()
    monkeypatch.delenv("FAKE_FAIL")
    result = invoke(real(place))
    assert "resuming from the state that was saved last" in result.output and "attempt 2" in result.output
    assert [row["step"] for row in read_jsonl(place / "run" / "rl" / "steps.jsonl")] == [1, 2, 3]


def test_what_the_launcher_says_of_rewards_is_the_last_line(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_OUTAGE", "2")
    result = invoke(real(place))
    log = place / "run" / "open-instruct" / "train.log"
    assert result.exit_code == 2 and "clean-up, line 99" in log.read_text()
    assert result.output.strip().splitlines()[-1] == (
        f"Error: {log}: the training was stopped: no grades from http://10.0.0.1:1 in 9 tries and 300 s "
        "(the same command with --run goes on from the last saved state)"
    )
    assert "clean-up" not in result.output
    assert read_json(place / "run" / "manifest.json")["tolerated_errors"] == 1


def test_all_of_it_in_one_command_too(place: Path) -> None:
    result = invoke(command(place, "--dry-run"), run)
    assert result.exit_code == 0 and "nothing was launched" in result.output, result.output
    arguments = [part for part in command(place) if part not in ("--engine", "open-instruct")]
    result = invoke(arguments, run)
    assert result.exit_code == 2 and result.output.strip() == "Error: --gpus needs --engine open-instruct"
    result = invoke(real(place), run)
    assert "grpo   3/3  reward 0.500" in result.output and "no update" not in result.output, result.output
    assert result.exit_code == EXIT_CODE[read_json(place / "run" / "gate" / "verdict.json")["outcome"]]


def test_ctrl_c_stops_it_and_leaves_nothing_running(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_SLOW", "0.5")
    program = (
        "import sys, types\nfrom instructlab.configuration import get_default_config\n"
        "from rft_ilab.cli.train import rft\nfrom rft_ilab.pipeline import openinstruct\n"
        "openinstruct.local_cpus = lambda: 64\n"
        "rft(sys.argv[1:], obj=types.SimpleNamespace(config=get_default_config(), default_map=None))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, *real(place)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
    )
    log = place / "run" / "open-instruct" / "train.log"
    deadline = time.monotonic() + 240
    while not (log.exists() and "Saved checkpoint state at step 1" in log.read_text()):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 130 and "resume with" in said
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(place) not in listed


def test_a_dead_grader_server_stops_the_training_loudly(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_SLOW", "1")
    started: list[Any] = []
    check = graders.Graders.check

    def watched(self: graders.Graders) -> None:
        if not started:
            started.append(self)
            assert self.process is not None
            threading.Timer(0.5, self.process.kill).start()
        check(self)

    monkeypatch.setattr(graders.Graders, "check", watched)
    result = invoke(real(place))
    assert result.exit_code == 2
    assert "the grader server ended with exit code -9; the training was stopped" in result.output
    assert not (place / "run" / "model").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([], "where is Open-Instruct? (--open-instruct DIRECTORY"),
        (["--open-instruct", "nowhere"], "nowhere: no checkout of Open-Instruct"),
        (["--open-instruct", str(FAKE)], "Open-Instruct needs a Python of its own"),
        (["--open-instruct", str(FAKE), "--open-instruct-python", "nothing"], "nothing: no such Python"),
        (["--ray-job"], "--ray-job needs --ray-address http://HOST:8265"),
        (["--control", "random-reward"], "--control is for the local engine"),
        (["--endpoint", "http://h/v1"], "--endpoint is for the local engine"),
        (["--ray-address", "ray://h:10001"], "--ray-address ray:// is not for training"),
        (["--grader-url", "h:1"], "--grader-url must begin with http://"),
    ],
)
def test_bad_input_is_one_line(place: Path, more: list[str], said: str) -> None:
    result = invoke(command(place, *more))
    assert result.exit_code == 2 and said in result.output and len(result.output.strip().splitlines()) == 1


def test_a_machine_with_few_cpus_is_told_how_to_count_more(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rft_ilab.pipeline.openinstruct.local_cpus", lambda: 8)
    result = invoke(real(place))
    assert result.exit_code == 2 and "Ray must count 13 CPUs for this plan, this machine has 8" in result.output
    assert "ray start --head --num-cpus 13" in result.output


def test_options_of_open_instruct_need_its_engine(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RFT_OPEN_INSTRUCT", str(FAKE))  # no wish of this command
    arguments = [part for part in command(place) if part not in ("--engine", "open-instruct")]
    result = invoke(arguments)
    assert result.exit_code == 2 and result.output.strip() == "Error: --gpus needs --engine open-instruct"


def test_another_number_of_gpus_is_another_run(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_FAIL", "1")
    assert invoke(real(place)).exit_code == 2
    local = [part for part in command(place) if part not in ("--engine", "open-instruct", "--gpus", "1")]
    result = invoke(local)
    assert result.exit_code == 2 and "this run was begun with --engine open-instruct" in result.output
    result = invoke([*real(place), "--gpus", "2"])
    assert result.exit_code == 2 and "other settings of open_instruct (gpus)" in result.output


def test_of_many_models_the_newest_finished_one_of_the_run_counts(tmp_path: Path) -> None:
    for name in (
        "rft__0__100",
        "rft__0__300",
        "rft__0__200",
        "rft__1__900",
        "other__0__900",
        "rft__0__400_checkpoints",
    ):
        (tmp_path / name).mkdir()
    assert checkpoint.find_finished(tmp_path, "rft", 0) is None
    for name in ("rft__0__100", "rft__0__200", "rft__1__900", "rft__0__400_checkpoints"):
        (tmp_path / name / checkpoint.MARKER).touch()
    assert checkpoint.find_finished(tmp_path, "rft", 0) == tmp_path / "rft__0__200"

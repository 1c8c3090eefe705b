"""Skills for other trainers: what each of them reads, and rewards that are those of the local engine."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.fine_tuning.job_create_params import JobCreateParams
from openai.types.graders import LabelModelGraderParam, StringCheckGraderParam
from pydantic import TypeAdapter
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from rft_ilab.cli.export import NEXT, export
from rft_ilab.config import Settings
from rft_ilab.errors import GraderError
from rft_ilab.grading.checks.label import LabelCheck
from rft_ilab.grading.engine import build_grader
from rft_ilab.grading.sample import Sample
from rft_ilab.pipeline.export import TRAINERS
from rft_ilab.scaleout.openai_job import job_body, job_grader
from rft_ilab.scaleout.server import make_app
from rft_ilab.skills.tasks import load_tasks
from rft_ilab.skills.tree import load_skill
from rft_ilab.types import Rollout
from tests.unit.loopback import failure, serving
from tests.unit.taxonomies import LABEL_GRADER, plain_rows, row, write_skill

SUM = {
    "type": "python",
    "name": "sum",
    "source": "def grade(sample, item):\n    return 1.0 if float(sample['output_text']) == item['reference'] else 0.25",
}
ANSWERS = ("YES", "no", "**Maybe.**", "", "1", "1.0", "seven")


@pytest.fixture
def taxonomy(tmp_path: Path) -> Path:
    """Two skills: labels, and numbers whose grader fails on what is no number."""
    root = tmp_path / "taxonomy"
    splits = ["train", "train", "val", "test"]
    write_skill(root, "area/skill", rows=plain_rows()[:40])
    write_skill(root, "area/sum", grader=SUM, rows=[row(f"Say {i}.", i, split=splits[i % 4]) for i in range(12)])
    return root


def run(taxonomy: Path, *arguments: Any) -> Result:
    return CliRunner().invoke(export, [*map(str, arguments), "--taxonomy-path", str(taxonomy)])


def exported(taxonomy: Path, trainer: str, *skills: str) -> Path:
    output = taxonomy.parent / trainer
    result = run(taxonomy, trainer, *(skills or ("area/skill",)), "--output", output)
    assert result.exit_code == 0, result.output
    return output


def rewards_of(directory: Path, name: str = "rft_rewards.py") -> ModuleType:
    """The file that lies beside the rows, as the trainer imports it."""
    spec = importlib.util.spec_from_file_location("exported", directory / name)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def server(taxonomy: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with serving(make_app(taxonomy=taxonomy)) as url:
        monkeypatch.setenv("RFT_GRADER_URL", url)
        yield url


def local_scores(taxonomy: Path, name: str, answers: dict[str, list[str]]) -> list[float | None]:
    """What the engine in this process says of answers (task id -> answers), in order."""
    skill = load_skill(taxonomy, name, Settings())
    tasks = {task.id: task for task in load_tasks(skill)}
    pairs = [
        (tasks[id], Rollout(task_id=id, index=i, policy_id="p", completion=text, stop="eos"))
        for id, texts in answers.items()
        for i, text in enumerate(texts)
    ]
    return [grade.score for grade in build_grader(skill).grade(pairs)]


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def test_the_reward_function_of_trl_is_the_local_grader(taxonomy: Path, server: str) -> None:
    directory = exported(taxonomy, "trl", "area/skill", "area/sum")
    module = rewards_of(directory)
    module.BATCH = 7
    rows = lines(directory / "train.jsonl")
    logged: dict[str, float] = {}
    for skill in ("area/skill", "area/sum"):
        own = [row for row in rows if row["skill"] == skill]
        completions = [[{"role": "assistant", "content": text}] for _ in own for text in (*ANSWERS, "0")]
        labels = [row["label"] for row in own for _ in (*ANSWERS, "0")]
        module.MAX_ERROR_SHARE = 0.9
        got = module.rft_reward(completions, labels, log_metric=logged.__setitem__, prompts=[], trainer_state=None)
        wanted = local_scores(taxonomy, skill, {row["task_id"]: [*ANSWERS, "0"] for row in own})
        assert got == wanted
        assert {1.0} < {score for score in got if score is not None}
    assert None in got, "the sum's grader fails on words"
    assert logged == {"rft/grader_errors": 5 / 8}


def test_mixed_skills_and_plain_texts_keep_their_order(taxonomy: Path, server: str) -> None:
    directory = exported(taxonomy, "trl", "area/skill", "area/sum")
    rows = lines(directory / "train.jsonl")
    mixed = [row for pair in zip(rows[:6], reversed(rows), strict=False) for row in pair]
    assert {row["skill"] for row in mixed} == {"area/skill", "area/sum"}
    got = rewards_of(directory).rft_reward([row["reference"] for row in mixed], [row["label"] for row in mixed])
    assert got == [1.0] * len(mixed)


def test_too_many_errors_stop_the_run(taxonomy: Path, server: str) -> None:
    directory = exported(taxonomy, "trl", "area/sum")
    module, rows = rewards_of(directory), lines(directory / "train.jsonl")
    with pytest.raises(module.GraderError, match=r"6 of 6 answers could not be graded; .*could not convert"):
        module.rft_reward(["word"] * 6, [row["label"] for row in rows])


def test_an_outage_stops_the_run_after_retries(taxonomy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = exported(taxonomy, "trl")
    module, (first, *_) = rewards_of(directory), lines(directory / "train.jsonl")
    module.WAITS_S = (0.0, 0.0)
    asked: list[int] = []

    def busy(request: Request) -> Response:
        asked.append(1)
        return failure(503)

    with serving(Starlette(routes=[Route("/v1/rft/grade", busy, methods=["POST"])])) as url:
        monkeypatch.setenv("RFT_GRADER_URL", url)
        with pytest.raises(module.GraderError, match=r"no grades from http://127.0.0.1:.*HTTP 503 busy"):
            module.rft_reward(["YES"], [first["label"]])
    assert len(asked) == 3
    with pytest.raises(module.GraderError, match="no grades from"):
        module.compute_score("rft_ilab", "YES", first["label"])


def test_a_refusal_is_not_tried_again(taxonomy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = exported(taxonomy, "trl")
    module, (first, *_) = rewards_of(directory), lines(directory / "train.jsonl")
    with serving(make_app(taxonomy=taxonomy, token="secret")) as url:
        monkeypatch.setenv("RFT_GRADER_URL", url)
        with pytest.raises(module.GraderError, match="HTTP 401 missing or wrong bearer token"):
            module.rft_reward(["YES"], [first["label"]])
        monkeypatch.setenv("RFT_GRADER_TOKEN", "secret")
        assert module.rft_reward([first["reference"]], [first["label"]]) == [1.0]


def test_a_grader_that_changed_since_is_noticed(taxonomy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = exported(taxonomy, "trl")
    write_skill(taxonomy, rows=plain_rows()[:40], grader=LABEL_GRADER | {"labels": ["YES", "NO", "MAYBE", "NEVER"]})
    module, (first, *_) = rewards_of(directory), lines(directory / "train.jsonl")
    with serving(make_app(taxonomy=taxonomy)) as url:
        monkeypatch.setenv("RFT_GRADER_URL", url)
        with pytest.raises(module.GraderError, match="grader of area/skill has changed since the export"):
            module.rft_reward(["YES"], [first["label"]])


def test_the_reward_function_of_verl_is_the_local_grader(taxonomy: Path, server: str) -> None:
    directory = exported(taxonomy, "verl", "area/skill", "area/sum")
    module = rewards_of(directory)
    table = datasets.load_dataset(
        "parquet", data_files=str(directory / "train.parquet"), cache_dir=str(directory / "c")
    )
    assert table["train"].num_rows == 28 + 6
    assert pq.read_table(directory / "validation.parquet").num_rows == 4 + 3
    for one in [*table["train"]][::11]:
        label = one["reward_model"]["ground_truth"]
        for answer in ANSWERS:
            (wanted,) = local_scores(taxonomy, one["ability"], {one["extra_info"]["task_id"]: [answer]})
            call = {"data_source": one["data_source"], "solution_str": answer, "ground_truth": label}
            if wanted is None:
                with pytest.raises(module.GraderError, match="the grader failed on an answer"):
                    module.compute_score(**call, extra_info=one["extra_info"])
            else:
                assert module.compute_score(**call, extra_info=one["extra_info"], reward_router_address=None) == {
                    "score": wanted,
                    "acc": float(wanted == 1.0),
                }


def test_the_launcher_of_verl_asks_first_and_passes_flags(taxonomy: Path, server: str) -> None:
    directory = exported(taxonomy, "verl")
    command = ["sh", str(directory / "train_verl.sh"), "trainer.save_freq=10"]
    environment = {**os.environ, "MODEL": "some/model", "VERL": "echo", "GROUP": "4"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    ready, flags = done.stdout.splitlines()
    assert ready == "preflight: the graders of 1 skills answer"
    given = dict(flag.split("=", 1) for flag in flags.split())
    assert Path(given["data.train_files"]).is_file() and Path(given["data.val_files"]).is_file()
    assert Path(given["reward.custom_reward_function.path"]) == directory / "rft_rewards.py"
    assert given["reward.custom_reward_function.name"] == "compute_score"
    assert (given["actor_rollout_ref.model.path"], given["actor_rollout_ref.rollout.n"]) == ("some/model", "4")
    assert given["trainer.save_freq"] == "10"


def test_a_preflight_stops_before_anything_is_trained(taxonomy: Path, server: str) -> None:
    directory = exported(taxonomy, "verl")
    tasks = json.loads((directory / "preflight.json").read_text())
    (directory / "preflight.json").write_text(json.dumps([tasks[0] | {"reference": "NEITHER"}]))
    command = ["sh", str(directory / "train_verl.sh")]
    environment = {**os.environ, "MODEL": "some/model", "VERL": "echo"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and "trainer" not in done.stdout
    assert "preflight: the grader of area/skill does not do what it should with the reference" in done.stderr


def test_texts_stay_texts_where_trl_reads_them(taxonomy: Path) -> None:
    rows = [row(f"When was day {i}?", f"2024-01-{i + 10}", split="train") for i in range(5)]
    grader = {"type": "date", "input": "{{sample.output_text}}", "reference": "{{item.reference}}"}
    write_skill(taxonomy, "area/dates", grader=grader, rows=rows)
    directory = exported(taxonomy, "trl", "area/dates")
    loaded = datasets.Dataset.from_list(lines(directory / "train.jsonl"))
    assert loaded[0]["reference"] == "2024-01-10"
    assert loaded[0]["prompt"][-1] == {"role": "user", "content": "When was day 0?"}
    assert "there are no validation tasks" in run(
        taxonomy, "trl", "area/dates", "--output", taxonomy.parent / "again"
    ).output  # fmt: skip


@pytest.mark.slow
def test_a_real_trainer_of_trl_takes_the_reward_function(taxonomy: Path, server: str, tmp_path: Path) -> None:
    """Needs a Python with trl 1.16 or newer, which cannot share an environment with InstructLab."""
    python = os.environ.get("RFT_TRL_PYTHON")
    if not python:
        pytest.skip("RFT_TRL_PYTHON names no Python with trl>=1.16")
    from tests.tiny_model import make_tiny_model

    directory, model, tuned = exported(taxonomy, "trl"), make_tiny_model(tmp_path / "model"), tmp_path / "tuned"
    sizes = ["--steps", "2", "--prompts", "2", "--group", "2", "--max-tokens", "4"]
    command = [python, str(directory / "train_trl.py"), "--model", str(model), "--output", str(tuned), *sizes]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "rewards/rft_reward/mean" in done.stdout and (tuned / "config.json").exists()


JOB = TypeAdapter(JobCreateParams)


@pytest.mark.parametrize(
    "grader",
    [
        LABEL_GRADER,
        SUM,
        {"type": "string_check", "input": "{{sample.output_text}}", "reference": "x", "operation": "neq"},
        {"type": "text_similarity", "input": "a", "reference": "b", "evaluation_metric": "bleu", "pass_threshold": 0.5},
        {"type": "score_model", "input": [{"role": "user", "content": "?"}], "model": "m", "endpoint": "http://x/v1"},
        {"type": "text_match", "input": "a", "reference": "b", "rule": "exact"},
    ],
    ids=lambda grader: grader["type"],
)
def test_a_job_is_what_openai_takes(grader: dict[str, Any]) -> None:
    body, notes = job_body(grader, skill="area/skill")
    JOB.validate_python(body, strict=True)
    asked = body["method"]["reinforcement"]["grader"]
    assert asked["name"] and not {"pass_threshold", "endpoint"} & set(asked) and asked.get("operation") != "neq"
    assert bool(notes) == (grader is LABEL_GRADER or "pass_threshold" in grader or "endpoint" in grader)


def test_the_parts_of_a_multi_are_what_openai_takes() -> None:
    check = {"type": "string_check", "input": "a", "reference": "b", "operation": "eq"}
    judge = {"type": "label_model", "input": [{"role": "user", "content": "?"}], "model": "m", "labels": ["a", "b"]}
    parts = {"right": check, "tone": {**judge, "passing_labels": ["a"]}, "route": LABEL_GRADER}
    grader = {"type": "multi", "graders": parts, "calculate_output": "0.5 * right + 0.5 * tone"}
    made, _ = job_grader(grader, name="both")
    TypeAdapter(StringCheckGraderParam).validate_python(made["graders"]["right"], strict=True)
    TypeAdapter(LabelModelGraderParam).validate_python(made["graders"]["tone"], strict=True)
    assert made["graders"]["route"]["type"] == "python"
    listed = {**grader, "graders": [{**part, "name": name} for name, part in parts.items()]}
    assert set(job_grader(listed, name="both")[0]["graders"]) == set(parts)


@pytest.mark.parametrize("kind", ["number", "date", "json_fields", "set_f1", "label_model", "endpoint", "sql"])
def test_a_grader_that_openai_does_not_have_is_refused_with_the_way_out(taxonomy: Path, kind: str) -> None:
    with pytest.raises(GraderError, match=rf"no grader of type '{kind}' \(write it as a python grader, or train with"):
        job_body({"type": kind, "input": "a", "reference": "b"}, skill="area/skill")


def test_a_refusal_writes_nothing(taxonomy: Path) -> None:
    grader = {"type": "number", "input": "{{sample.output_text}}", "reference": "{{item.reference}}"}
    write_skill(taxonomy, "area/number", grader=grader, rows=[row("One?", "1", split="train")])
    before = sorted(taxonomy.parent.iterdir())
    result = run(taxonomy, "openai", "area/skill", "area/number", "--output", taxonomy.parent / "job")
    assert result.exit_code == 2 and result.output.startswith(
        "Error: area/number: OpenAI has no grader of type 'number'"
    )
    assert result.output.count("\n") == 1 and sorted(taxonomy.parent.iterdir()) == before


@settings(deadline=None, max_examples=200)
@given(
    answer=st.text(max_size=12) | st.sampled_from(["YES", "no", "**Rx-question.**", "rx_question", "YES NO", "`yes`"]),
    reference=st.sampled_from(["YES", "No", "Rx question"]),
)
def test_a_label_decides_alike_in_python(answer: str, reference: str) -> None:
    labels = ["YES", "No", "Rx question"]
    grader = {"type": "label", "input": "{{ sample.output_text }}", "reference": "{{item.right}}", "labels": labels}
    made, _ = job_grader(grader, name="route")
    namespace: dict[str, Any] = {}
    exec(made["source"], namespace)
    ours = LabelCheck(input="{{sample.output_text}}", reference="{{item.right}}", labels=labels)
    item = {"right": reference}
    assert namespace["grade"]({"output_text": answer}, item) == ours.mark_one(Sample(answer, item)).score


def test_the_job_is_started_with_the_ids_of_its_files(
    taxonomy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = exported(taxonomy, "openai")
    assert len(lines(directory / "train.jsonl")) == 28 and len(lines(directory / "validation.jsonl")) == 4
    started: list[Any] = []

    async def upload(request: Request) -> Response:
        body = await request.body()
        (name,) = [n for n in ("train.jsonl", "validation.jsonl") if f'filename="{n}"'.encode() in body]
        assert b"fine-tune" in body and (directory / name).read_bytes() in body
        return JSONResponse({"id": f"file-{name}", "object": "file"})

    async def start(request: Request) -> Response:
        started.append(await request.json())
        return JSONResponse({"id": "ftjob-1", "object": "fine_tuning.job"})

    routes = [("/v1/files", upload), ("/v1/fine_tuning/jobs", start)]
    with serving(Starlette(routes=[Route(path, do, methods=["POST"]) for path, do in routes])) as url:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{url}/v1")
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        rewards_of(directory, "start_openai_job.py").main()
    assert capsys.readouterr().out.strip() == "ftjob-1"
    assert (
        started[0]["training_file"] == "file-train.jsonl" and started[0]["validation_file"] == "file-validation.jsonl"
    )
    assert started[0] | {"training_file": "TRAINING_FILE_ID", "validation_file": "VALIDATION_FILE_ID"} == json.loads(
        (directory / "job.json").read_text()
    )


def test_no_test_task_leaves(taxonomy: Path) -> None:
    tests = [t for t in load_tasks(load_skill(taxonomy, "area/skill", Settings())) if t.split == "test"]
    assert tests
    for trainer in TRAINERS:
        directory = exported(taxonomy, trainer)
        written = b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())
        assert not any(task.messages[-1].content.encode() in written for task in tests), trainer
    assert tuple(NEXT) == TRAINERS


def test_a_directory_is_not_overwritten(taxonomy: Path) -> None:
    directory = exported(taxonomy, "trl")
    (directory / "notes.txt").write_text("mine")
    again = ("trl", "area/sum", "--output", directory)
    before = {p.name: p.read_bytes() for p in directory.iterdir()}
    result = run(taxonomy, *again)
    assert result.exit_code == 2 and "is there and not empty (name another directory, or add --force)" in result.output
    assert {p.name: p.read_bytes() for p in directory.iterdir()} == before
    assert run(taxonomy, *again, "--force").exit_code == 0
    assert (directory / "notes.txt").read_text() == "mine" and len(lines(directory / "train.jsonl")) == 6


@pytest.mark.parametrize("name, words", [("area/none", "no skill 'area/none'"), ("../x", "bad skill name '../x'")])
def test_a_skill_that_is_not_there(taxonomy: Path, name: str, words: str) -> None:
    result = run(taxonomy, "trl", name, "--output", taxonomy.parent / "out")
    assert result.exit_code == 2 and words in result.output and not (taxonomy.parent / "out").exists()

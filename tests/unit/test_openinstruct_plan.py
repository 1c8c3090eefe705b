"""The arithmetic of a plan against numbers worked by hand, its flags, its log, its data: nothing is started."""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import json
import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from safetensors.numpy import save_file

from rft_ilab.config import OpenInstructSettings, load_settings
from rft_ilab.errors import PolicyError, RunError, SkillError
from rft_ilab.scaleout.openinstruct import checkpoint
from rft_ilab.scaleout.openinstruct.cluster import Cluster, judge_cluster, shortfalls
from rft_ilab.scaleout.openinstruct.dataset import tasks_of, write_dataset, write_known_answers
from rft_ilab.scaleout.openinstruct.flags import extra_flags, flags_of
from rft_ilab.scaleout.openinstruct.follow import Log
from rft_ilab.scaleout.openinstruct.memory import GIB, GPUS, engine_memory, learner_memory
from rft_ilab.scaleout.openinstruct.model_shape import Shape, read_shape
from rft_ilab.scaleout.openinstruct.plan import Data, Layout, make_plan
from rft_ilab.scaleout.openinstruct.speed import step_time

#: Llama 3.1 8B, from its config.json
EIGHT = Shape(
    name="Llama-3.1-8B", parameters=8_030_261_248, layers=32, hidden=4096, kv_heads=8, head=128, vocabulary=128_256,
    context=131_072,
)  # fmt: skip
DATA = Data(rows=4000, longest=480, mean=300.0, response=1024)


def test_a_token_of_keys_and_values() -> None:
    # Two (keys, values) x 2 bytes x 32 layers x 8 heads x 128.
    assert EIGHT.kv_bytes == 131_072


def test_memory_of_a_learner() -> None:
    two = learner_memory(EIGHT, stage=2, learners=4, pack=1536, reference=False)
    assert two.weights == 16_060_522_496 and two.gradients == 8_030_261_248 and two.optimizer == 24_090_783_744
    assert two.activations == 1536 * 4096 * 98 and two.logits == 1536 * 128_256 * 10 and two.reference == 0
    assert two.total == two.weights + two.gradients + two.optimizer + two.activations + two.logits + 6 * GIB
    three = learner_memory(EIGHT, stage=3, learners=4, pack=1536, reference=True)
    assert three.weights == three.reference == 4_015_130_624


def test_memory_of_an_engine() -> None:
    one = engine_memory(EIGHT, GPUS["h100"], tensor_parallel=1, utilization=0.9, sequence=1536)
    # 72 GB - 16.06 GB - 4 GiB = 51,644,510,208 bytes; / 131,072 = 394,016 tokens; / 1536 = 256 sequences.
    assert one.cache == pytest.approx(51_644_510_208) and one.cache_tokens == 394_016 and one.sequences == 256
    two = engine_memory(EIGHT, GPUS["h100"], tensor_parallel=2, utilization=0.9, sequence=1536)
    assert two.weights == one.weights / 2 and two.cache_tokens == 910_564
    none = engine_memory(EIGHT, GPUS["h100"], tensor_parallel=1, utilization=0.2, sequence=1536)
    assert none.cache == 0 and none.sequences == 0


def test_time_of_a_step() -> None:
    shape = dataclasses.replace(EIGHT, parameters=10**10)
    gpu = dataclasses.replace(GPUS["h100"], flops=1e15, bandwidth=2e12)
    took = step_time(
        shape, gpu, answers=256, prompt=300.0, response=1000, learners=4, engines=1, tensor_parallel=1, sequences=128,
        together=False,
    )  # fmt: skip
    # Two rounds of 128; for a token of each 2e10 bytes of weights and 128 x 800 x 131,072 of keys and values.
    decode = 2 * 1000 * (2e10 + 128 * 800 * 131_072) / 1e12
    prefill = 256 * 300 * 2e10 / 3e14
    assert (
        took.waves == 2
        and took.sample_s == pytest.approx(decode + prefill)
        and decode == pytest.approx(66.84, abs=0.01)
    )
    # 256 x 1300 tokens x 8e10 operations on 4 x 3e14 a second.
    assert took.tokens == 332_800 and took.learn_s == pytest.approx(22.19, abs=0.01)
    assert took.send_s == 1.0 and took.total_s == pytest.approx(took.sample_s + 2.0)
    assert dataclasses.replace(took, together=True).total_s == pytest.approx(took.sample_s + took.learn_s + 2.0)


@pytest.mark.parametrize(
    ("layout", "cpus", "gpus"),
    [
        (Layout(learners=(1,), engines=1, tensor_parallel=1, shared=True), 13, 1),
        (Layout(learners=(4,), engines=4, tensor_parallel=1, shared=False), 47, 8),
        (Layout(learners=(8, 8), engines=8, tensor_parallel=1, shared=False), 171, 24),
        (Layout(learners=(8, 8), engines=4, tensor_parallel=2, shared=False), 171, 24),
    ],
)
def test_what_ray_needs(layout: Layout, cpus: int, gpus: int) -> None:
    """As Open-Instruct's own grpo_fast_resource_plan.py has it."""
    assert (layout.cpus, layout.gpus) == (cpus, gpus)


def plan(nodes: int = 1, gpus: int = 8, shape: Shape = EIGHT, data: Data = DATA, **changed: object):
    return make_plan(shape, data, OpenInstructSettings(**{"prompts": 32, **changed}), nodes=nodes, gpus=gpus)  # type: ignore[arg-type]


def test_eight_and_sixty_four_gpus() -> None:
    eight = plan()
    assert (eight.layout.learners, eight.layout.engines, eight.stage) == ((5,), 3, 2)
    many = plan(nodes=8, prompts=128, group_size=16)
    assert (many.layout.learners, many.layout.engines) == ((8,) * 5, 24) and many.layout.cpus == 427
    assert plan(learners=4).layout == Layout(learners=(4,), engines=4, tensor_parallel=1, shared=False)
    assert plan(gpus=1, shape=dataclasses.replace(EIGHT, parameters=10**9)).layout.shared


@settings(max_examples=60, deadline=None)
@given(
    billions=st.floats(0.1, 80), nodes=st.integers(1, 8), gpus=st.integers(1, 8), prompts=st.integers(1, 64),
    group=st.integers(2, 16),
)  # fmt: skip
def test_every_plan_keeps_its_promises(billions: float, nodes: int, gpus: int, prompts: int, group: int) -> None:
    shape = dataclasses.replace(EIGHT, parameters=int(billions * 1e9))
    try:
        made = plan(nodes, gpus, shape, prompts=prompts, group_size=group)
    except RunError as error:
        assert "does not fit" in str(error) or "cannot be divided" in str(error)
        return
    layout = made.layout
    assert layout.gpus <= nodes * gpus and sum(layout.learners) <= made.answers
    assert made.learner.total <= made.gpu.memory and made.engine.sequences >= 1
    assert made.pack >= made.data.prompt_limit + made.data.response
    assert layout.shared == (nodes * gpus == 1)
    assert all(1 <= n <= gpus for n in layout.learners) and len(layout.learners) <= nodes
    assert math.isfinite(made.hours) and made.step.tokens_per_s > 0


def test_what_does_not_fit_says_by_how_much() -> None:
    with pytest.raises(RunError, match=r"does not fit on 1 x 2 H100 80 GB: .* a learner needs \d+ of 75 GiB") as error:
        plan(gpus=2)
    assert "--gpus" in str(error.value)


def test_too_few_rows_are_refused_before_open_instruct_does() -> None:
    with pytest.raises(RunError, match="63 training tasks are too few: 2 steps ahead of 32 prompts take 64"):
        plan(data=dataclasses.replace(DATA, rows=63))
    assert plan(data=dataclasses.replace(DATA, rows=64))


def test_a_context_that_is_too_short() -> None:
    with pytest.raises(RunError, match="up to 512 tokens and answers of 1024 are more than the 1024"):
        plan(shape=dataclasses.replace(EIGHT, context=1024))


def flags(**changed: object) -> list[str]:
    return flags_of(plan(**changed), model=Path("/m"), data=Path("/d"), work=Path("/w"), seed=3)  # type: ignore[arg-type]


def value(found: list[str], name: str) -> list[str]:
    start = found.index(f"--{name}") + 1
    end = next((i for i in range(start, len(found)) if found[i].startswith("--")), len(found))
    return found[start:end]


def test_flags() -> None:
    found = flags(nodes=3, gpus=8, learners=16)
    assert value(found, "num_learners_per_node") == ["8", "8"] and value(found, "vllm_num_engines") == ["8"]
    assert value(found, "dataset_mixer_list") == value(found, "dataset_mixer_eval_list") == ["/d", "1.0"]
    assert value(found, "total_episodes") == [str(100 * 32 * 8)] and value(found, "verification_reward") == ["1.0"]
    assert value(found, "beta") == ["0.0"] and value(found, "load_ref_policy") == ["false"]
    assert "--single_gpu_mode" not in found and "--deepspeed_zpg" not in found
    assert value(flags(kl_weight=0.01), "load_ref_policy") == ["true"]
    assert value(flags(zero_stage=3), "deepspeed_zpg") == ["1"]
    assert flags(flags="--temperature 0.7")[-2:] == ["--temperature", "0.7"]


@pytest.mark.parametrize("text", ["--output_dir /x", "--output-dir=/x", "--seed 1", "'open"])
def test_flags_that_would_lose_the_run_are_refused(text: str) -> None:
    with pytest.raises(RunError, match=r"\[open_instruct\] of rft.toml"):
        extra_flags(text)


def cluster(*nodes: tuple[int, int], free: tuple[int, int] | None = None) -> Cluster:
    total = tuple(sum(part) for part in zip(*nodes, strict=True))
    rows = [{"GPU": g, "CPU": c} for g, c in nodes]
    return judge_cluster({"nodes": rows, "free": dict(zip(("GPU", "CPU"), free or total, strict=True))})


def test_what_a_cluster_lacks() -> None:
    wanted = Layout(learners=(8, 8), engines=8, tensor_parallel=1, shared=False)
    assert shortfalls(wanted, cluster((8, 90), (8, 90), (8, 16))) == []
    assert shortfalls(wanted, cluster((8, 90), (8, 90))) == ["24 GPUs are needed, the cluster has 16"]
    assert shortfalls(wanted, cluster((8, 40), (8, 40), (8, 40))) == ["171 CPUs are needed, the cluster has 120"]
    # Enough in all, but not where the learners are to be.
    assert shortfalls(wanted, cluster((8, 90), (8, 40), (8, 50))) == [
        "no further node has 8 GPUs and 80 CPUs for learners"
    ]
    assert shortfalls(wanted, cluster((24, 300))) == ["no further node has 8 GPUs and 80 CPUs for learners"]
    assert shortfalls(wanted, cluster((8, 90), (8, 90), (8, 16), free=(20, 196))) == [
        "24 GPUs are needed, 20 of 24 are free"
    ]
    with pytest.raises(RunError, match="cannot be read"):
        judge_cluster({"nodes": [{}]})


def printed(width: int, metrics: dict[str, dict[str, str]]) -> str:
    """As open_instruct/model_utils.py prints it: print_rich_single_line_metrics."""
    table = Table(show_header=False, box=None)
    table.add_column("Category", style="cyan")
    table.add_column("Values", style="magenta")
    for category, values in sorted(metrics.items()):
        table.add_row(category, " | ".join(f"{name}: {number}" for name, number in values.items()))
    console = Console(file=io.StringIO(), width=width, force_terminal=width == 100)
    console.print(Panel(table, title="Metrics", expand=False, border_style="bold green"))
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [100_000, 100, 60])
def test_the_log_becomes_rows(width: int) -> None:
    log = Log(steps=20, prompts=8)
    text = printed(width, {"eval": {"scores": "0.75", "stop_rate": "1.00"}})
    text += "(LLMRayActor pid=7, ip=10.0.0.1) area/x: no number, tolerated: advantage 0\n"
    text += printed(
        width,
        {
            "other": {
                "episode": "64",
                "training_step": "2",
                "learner_tokens_per_second_step": "812.50",
                "scores": "0.31",
            },
            "time": {"total": "3.00", "training": "1.25", "group_generation_max": "2.50"},
            "val": {"total_reward_groups": "6.00", "num_total_tokens": "4096", "advantages_min": "1.23e-06"},
        },
    )
    text += "2026-01-01 00:00:00 - INFO - grpo_fast.py:1703 - Saving final model at step 2 to /o\n"
    said = [one for line in text.splitlines(keepends=True) for one in log.add(line)]
    row = {
        "stage": "grpo", "step": 2, "steps": 20, "reward": 0.31, "tokens_per_s": 812.5, "groups": 8,
        "signal_groups": 6, "sample_s": 2.5, "train_s": 1.25, "errors": 1, "val": {"greedy": 0.75, "macro": 0.75},
    }  # fmt: skip
    assert said == [row, "saving the model"]


@given(st.lists(st.text(max_size=40), max_size=30))
def test_no_log_breaks_the_reader(lines: list[str]) -> None:
    log = Log(steps=1, prompts=1)
    for line in ["╭─ Metrics ─╮", *lines, "│ other  scores: x | : | training_step: │", "╰──╯"]:
        list(log.add(line))


def model(directory: Path, factor: float = 1.0, rows: int = 4, **config: object) -> Path:
    directory.mkdir()
    sizes = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1, "vocab_size": 4} | config
    (directory / "config.json").write_text(json.dumps(sizes | {"max_position_embeddings": 64}))
    (directory / "tokenizer_config.json").write_text(json.dumps({"of": directory.name}))
    save_file({"model.w": np.full((rows, 8), factor, np.float32)}, directory / "model.safetensors")
    return directory


def test_a_shape_is_read_from_headers(tmp_path: Path) -> None:
    found = read_shape(model(tmp_path / "m", num_key_value_heads=1))
    assert (found.parameters, found.kv_heads, found.head, found.kv_bytes) == (32, 1, 4, 16)
    (tmp_path / "m" / "model.safetensors").write_bytes(b"\xff" * 12)
    with pytest.raises(PolicyError, match="damaged weights"):
        read_shape(tmp_path / "m")


def test_a_finished_model_keeps_the_files_of_its_base(tmp_path: Path) -> None:
    base, finished = model(tmp_path / "base"), model(tmp_path / "finished", 2.0, rope_parameters={})
    checkpoint.adopt(finished, base, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "tokenizer_config.json").read_text()) == {"of": "base"}
    assert "rope_parameters" not in (tmp_path / "out" / "config.json").read_text()
    weights = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert weights == (finished / "model.safetensors").read_bytes()
    other = model(tmp_path / "other", rows=5)
    with pytest.raises(RunError, match=r"not the architecture of .*: model.w is \(5, 8\), was \(4, 8\)"):
        checkpoint.adopt(other, base, tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == weights


def test_a_data_set_has_no_test_task_and_its_name_is_its_content(tmp_path: Path) -> None:
    from rft_ilab.pipeline.request import environments_of
    from rft_ilab.skills.tree import find_skills
    from tests.unit.taxonomies import write_skill

    write_skill(tmp_path / "taxonomy")
    given = load_settings(tmp_path / "taxonomy")
    environments = environments_of(find_skills(tmp_path / "taxonomy", given), given)
    tasks = tasks_of(environments)
    first = write_dataset(tmp_path / "data", tasks)
    held_out = {t.id for e in environments for t in e.split("test")}
    tables = {name: pq.read_table(first / f"{name}.parquet") for name in ("train", "test")}
    assert {name: table.num_rows for name, table in tables.items()} == {"train": 210, "test": 30} and held_out
    assert not held_out & {task for table in tables.values() for task in table["task_id"].to_pylist()}
    assert str(tables["train"].schema.field("ground_truth").type) == "string"
    assert write_dataset(tmp_path / "data", tasks) == first != write_dataset(tmp_path / "data", tasks[1:])
    assert write_known_answers(tmp_path / "known.jsonl", tasks) == 8
    known = [json.loads(line) for line in (tmp_path / "known.jsonl").read_text().splitlines()]
    assert all(set(row) == {"label", "completion", "passed"} for row in known)
    with pytest.raises(RunError, match="there are no validation tasks"):
        write_dataset(tmp_path / "data", [one for one in tasks if one.split == "train"])


def test_the_plans_of_the_document_are_what_the_tool_prints() -> None:
    root = Path(__file__).resolve().parents[2]
    specification = importlib.util.spec_from_file_location("make_plans", root / "tools" / "make_plans.py")
    assert specification and specification.loader
    tool = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(tool)
    text = (root / "docs" / "open-instruct.md").read_text(encoding="utf-8")
    assert tool.rewritten(text) == text and text.count("tokens/s") >= 2


@pytest.mark.parametrize("line", ["prompts = 0", "group_size = 1", "zero_stage = 1", 'gpu = "tpu"', "steps = -1"])
def test_bad_settings_are_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "rft.toml").write_text(f"[open_instruct]\n{line}\n")
    with pytest.raises(SkillError, match=r"\[open_instruct\]"):
        load_settings(tmp_path)

"""Stage attribution: accuracies and flips by hand, distances against the exact KL divergence."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from rft_ilab.config import Settings, SkillSettings, TrainSettings
from rft_ilab.grading.engine import build_grader
from rft_ilab.policy.local.model import load_model
from rft_ilab.rl import attribution
from rft_ilab.rl.attribution import State, attribute, attribution_line
from rft_ilab.rl.checkpoint import save_adapter
from rft_ilab.rl.engine import Engine
from rft_ilab.rl.selection import Candidate
from rft_ilab.rl.validation import Answer, load_answers, save_answers
from rft_ilab.rollouts import Environment, Graded
from rft_ilab.skills.tasks import build_prompt, load_tasks
from rft_ilab.skills.tree import load_skill
from rft_ilab.types import Grade, Rollout
from tests.tiny_model import make_tiny_model
from tests.unit.taxonomies import row, write_skill

BASE = Candidate("base", None, 0.0, 0.0, 0.0, 0.0)
START = Candidate("sft", "candidates/sft.safetensors", 0.0, 0.0, 0.0)
CHOSEN = Candidate("step-2", "candidates/step-2.safetensors", 0.0, 0.0, 0.0, 0.5)


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    rows = [row(f"say {i}", "e", split="val" if i < 4 else "train") for i in range(10)]
    write_skill(tmp_path / "t", "area/target", rows=rows)
    skill = load_skill(tmp_path / "t", "area/target", Settings())
    # One token an answer, so that the divergence can be computed exactly.
    return Environment.of(skill, load_tasks(skill), build_grader(skill), SkillSettings(max_tokens=1))


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    made = Engine(
        load_model(make_tiny_model(tmp_path / "tiny"), torch.float32), TrainSettings(lora_rank=4, lora_alpha=8)
    )
    for seed, candidate in enumerate((START, CHOSEN)):
        torch.manual_seed(seed)
        weights = {n: torch.randn_like(w) * 0.15 for n, w in made.adapter().items()}
        save_adapter(weights, tmp_path / str(candidate.file))
    return made


def answered(environment: Environment, *passed: bool | None) -> dict[str, Answer]:
    tasks = environment.validation(4)
    return {
        t.id: Answer(skill=t.skill, task_id=t.id, group=t.group, completion="", passed=p)
        for t, p in zip(tasks, passed, strict=True)
    }


def exact_kl(engine: Engine, tmp_path: Path, environment: Environment, later: Candidate, earlier: Candidate) -> float:
    """Mean over prompts of KL(later || earlier) of the first token, from the merged weights' own forward."""
    logprobs = []
    for candidate in (later, earlier):
        attribution.use(engine, candidate, candidate.scale, tmp_path)
        model = engine.policy("x").loaded.model
        before, model.config._attn_implementation = model.config._attn_implementation, "eager"
        prompts = [build_prompt(environment.skill, t, 0) for t in environment.validation(4)]
        ids = [torch.tensor([engine.loaded.encode_prompt(p.messages)]) for p in prompts]
        with torch.no_grad():
            logprobs.append([torch.log_softmax(model(i).logits[0, -1].float(), -1) for i in ids])
        model.config._attn_implementation = before
    return sum((p.exp() * (p - q)).sum().item() for p, q in zip(*logprobs, strict=True)) / 4


def test_accuracies_flips_and_transitions(engine: Engine, environment: Environment, tmp_path: Path) -> None:
    states = [
        State("base", BASE, answered(environment, False, False, True, None)),
        State("base with 8 demonstrations", None, answered(environment, True, False, True, False)),
        State("warm start", START, answered(environment, True, True, False, True)),
        State("chosen", CHOSEN, answered(environment, True, None, True, True)),
    ]
    found = attribute(engine, tmp_path, environment, states, 4, 0)
    assert [(s["name"], s["weights"], s["accuracy"], s["graded"]) for s in found["states"]] == [
        ("base", "base@0", 0.3333, 3),
        ("base with 8 demonstrations", None, 0.5, 4),
        ("warm start", "sft@1", 0.75, 4),
        ("chosen", "step-2@0.5", 1.0, 3),
    ]
    assert [(t["from"], t["to"], t["compared"], t["gain"], t["fixed"], t["broken"]) for t in found["transitions"]] == [
        ("base", "warm start", 3, 0.3333, 2, 1),
        ("warm start", "chosen", 3, 0.3333, 1, 0),
        ("base", "chosen", 2, 0.5, 1, 0),
    ]
    assert attribution_line(found).startswith(
        "area/target on 4 validation tasks: base 33.3%, base with 8 demonstrations 50.0%, warm start 75.0%, "
        "chosen 100.0%; after the warm start 1 fixed, 0 broken, KL "
    )


def test_distances_are_kl_divergences(
    engine: Engine, environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many draws of the four prompts come close to the exact value; the reverse direction would not."""
    steps = [(BASE, START), (START, CHOSEN), (BASE, CHOSEN)]
    draws = [attribution._distances(engine, tmp_path, environment, steps, seed) for seed in range(150)]
    for i, (earlier, later) in enumerate(steps):
        values = torch.tensor([d[i]["kl"] for d in draws])
        exact = exact_kl(engine, tmp_path, environment, later, earlier)
        error = (values.std() / len(values) ** 0.5).item()
        assert exact > 8 * error and abs(values.mean().item() - exact) < 4 * error, (i, values.mean(), exact, error)
        assert all(d[i]["tokens"] == 4 for d in draws)


def test_the_same_weights_are_no_distance(engine: Engine, environment: Environment, tmp_path: Path) -> None:
    states = [State(n, c, answered(environment, *[True] * 4)) for n, c in (("warm start", START), ("chosen", START))]
    (step,) = attribute(engine, tmp_path, environment, states, 4, 0)["transitions"]
    assert (step["kl"], step["tokens"], step["gain"]) == (0.0, 0, 0.0)


def test_answers_survive_the_file(environment: Environment, tmp_path: Path) -> None:
    tasks = environment.validation(2)
    grades = [
        Grade(task_id=tasks[0].id, index=0, policy_id="p", score=1.0, passed=True),
        Grade(task_id=tasks[1].id, index=0, policy_id="p", score=None, passed=None, error="broke"),
    ]
    rollout = Rollout(task_id="t", index=0, policy_id="p", completion="a\u2028b", stop="eos")
    save_answers(tmp_path, "sft@1", [Graded(t, rollout, g) for t, g in zip(tasks, grades, strict=True)])
    found = load_answers(tmp_path, "sft@1")
    assert [(found[t.id].passed, found[t.id].group, found[t.id].completion) for t in tasks] == [
        (True, tasks[0].group, "a\u2028b"),
        (None, tasks[1].group, "a\u2028b"),
    ]
    assert load_answers(tmp_path, "none@1") == {} and dataclasses.asdict(found[tasks[0].id])["skill"] == "area/target"

"""The RL stage from start to export on a tiny model: resume, selection, files."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rft_ilab.config import Settings, SkillSettings, TrainSettings
from rft_ilab.errors import GraderError, PolicyError, SignalError, TrainingError
from rft_ilab.grading.engine import build_grader
from rft_ilab.policy.local.gguf_file import gguf_name, hf_name, read_llama, to_interleaved, to_rotate_half
from rft_ilab.policy.local.model import load_model
from rft_ilab.rl.engine import Engine
from rft_ilab.rl.evaluate import refuse_errors
from rft_ilab.rl.grpo import _check_errors, grpo_step
from rft_ilab.rl.lessons import Lesson, plan_batches
from rft_ilab.rl.objective import learning_rate
from rft_ilab.rl.progress import Progress
from rft_ilab.rl.selection import Candidate, select
from rft_ilab.rl.stage import RLStage
from rft_ilab.rollouts import Environment, Graded
from rft_ilab.skills.tasks import load_tasks
from rft_ilab.skills.tree import load_skill
from rft_ilab.store import Cache, read_json, read_jsonl
from rft_ilab.types import Grade, Rollout
from tests.tiny_model import make_tiny_model
from tests.unit.taxonomies import row, write_skill

# A byte model says letters at random, so 'contains an e' is sometimes right: all that RL needs.
CONTAINS = {
    "type": "string_check",
    "name": "contains",
    "input": "{{sample.output_text}}",
    "reference": "{{item.reference}}",
    "operation": "like",
}
TRAIN = TrainSettings(
    lora_rank=4,
    lora_alpha=8,
    steps=4,
    prompts=4,
    group_size=8,
    val_every=2,
    val_tasks=10,
    sft_epochs=1,
    learning_rate=1e-2,
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(autouse=True)
def near_ties(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model's logits lie close together, so F16 may flip some of its 12-token answers; half must stand."""
    monkeypatch.setattr("rft_ilab.rl.export.GGUF_AGREEMENT", 0.5)


def environment(root: Path, name: str, grader: Any = CONTAINS) -> Environment:
    splits = ["train"] * 7 + ["val"] + ["test"] * 2
    rows = [row(f"say {i}", "e" if i % 2 else "o", split=splits[i % 10]) for i in range(60)]
    write_skill(root, name, grader=grader, rows=rows)
    skill = load_skill(root, name, Settings())
    return Environment.of(skill, load_tasks(skill), build_grader(skill), SkillSettings(max_tokens=12, demonstrations=1))


def stage(run: Path, taxonomy: Path, settings: TrainSettings = TRAIN, grader: Any = CONTAINS, **tick: Any) -> RLStage:
    target, watched = environment(taxonomy, "area/target", grader), environment(taxonomy, "area/other")
    return RLStage(
        run,
        [target],
        [watched],
        settings,
        Cache(run / "cache.sqlite"),
        lambda line: None,
        tick.get("tick", lambda row: None),
    )


def lessons(taxonomy: Path) -> list[Lesson]:
    env = environment(taxonomy, "area/target")
    return [
        Lesson(skill="area/target", prompt=t.messages, completion="eoe", replay=False) for t in env.split("train")[:16]
    ]


def test_run_leaves_a_model_that_transformers_loads(tiny: Path, tmp_path: Path) -> None:
    facts = stage(tmp_path / "run", tmp_path / "t").run(tiny, lessons(tmp_path / "t"), {"area/other": 1.0})
    assert facts["steps"] == 4 and 2 * facts["gguf"]["agree"] >= facts["gguf"]["checked"] > 0
    run = tmp_path / "run"
    model = AutoModelForCausalLM.from_pretrained(run / "model")
    assert AutoTokenizer.from_pretrained(run / "model").chat_template
    assert (run / "adapter" / "adapter_model.safetensors").exists()
    base = load_model(tiny, torch.float32).model.state_dict()
    assert any(not torch.equal(w.float(), base[n]) for n, w in model.state_dict().items())
    steps = read_jsonl(run / "rl" / "steps.jsonl")
    assert [r["step"] for r in steps if r["stage"] == "grpo"] == [1, 2, 3, 4]
    rollouts = read_jsonl(run / "rl" / "rollouts.jsonl")
    assert {r["step"] for r in rollouts} == {1, 2, 3, 4}
    assert all((r["score"] == 1.0) == (r["reference"] in r["completion"]) for r in rollouts)
    selection = read_json(run / "rl" / "selection.json")
    assert {"base", "sft"} < {c["name"] for c in selection["candidates"]}
    fields, tensors = read_llama(run / "model.gguf")
    assert fields["general.architecture"] == "llama"
    for name, weights in model.state_dict().items():
        if name in tensors:
            torch.testing.assert_close(tensors[name].float(), weights.float(), rtol=1e-2, atol=1e-3)


def test_sigint_saves_and_resume_ends_where_an_unbroken_run_does(tiny: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    unbroken = stage(tmp_path / "a", tmp_path / "t")
    unbroken.run(tiny, lessons(tmp_path / "t"), {"area/other": 1.0})

    def interrupt(step: dict[str, Any]) -> None:
        if step["stage"] == "grpo" and step["step"] == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        stage(tmp_path / "b", tmp_path / "t", tick=interrupt).run(tiny, lessons(tmp_path / "t"), {"area/other": 1.0})
    assert not (tmp_path / "b" / "model").exists()
    said: list[str] = []
    again = stage(tmp_path / "b", tmp_path / "t")
    again.say = said.append
    again.run(tiny, lessons(tmp_path / "t"), {"area/other": 1.0})
    assert said[0] == "resuming after GRPO step 3"
    for name in ("step-2", "step-4"):
        one, other = (tmp_path / run / "rl" / "candidates" / f"{name}.safetensors" for run in ("a", "b"))
        assert one.read_bytes() == other.read_bytes()
    same = [
        [
            {k: v for k, v in r.items() if not k.endswith(("_s", "seconds"))}
            for r in read_jsonl(tmp_path / run / "rl" / "steps.jsonl")
        ]
        for run in ("a", "b")
    ]
    assert same[0] == same[1]
    assert (tmp_path / "a/rl/rollouts.jsonl").read_bytes() == (tmp_path / "b/rl/rollouts.jsonl").read_bytes()


def test_early_stopping_survives_interruptions(tiny: Path, tmp_path: Path) -> None:
    """All is solved: training ends after three idle steps, however they are spread over processes."""
    always = dict(CONTAINS, operation="ne", reference="never said")
    settings = dataclasses.replace(TRAIN, steps=9, val_every=100)

    def interrupt(step: dict[str, Any]) -> None:
        if step["step"] in (1, 2):
            os.kill(os.getpid(), signal.SIGINT)

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            stage(tmp_path / "run", tmp_path / "t", settings, always, tick=interrupt).run(tiny, [], {"area/other": 1.0})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rft_ilab.rl.stage.select", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            stage(tmp_path / "run", tmp_path / "t", settings, always).run(tiny, [], {"area/other": 1.0})
    facts = stage(tmp_path / "run", tmp_path / "t", settings, always).run(tiny, [], {"area/other": 1.0})
    assert (facts["steps"], facts["solved_early"]) == (3, True)
    assert [r["step"] for r in read_jsonl(tmp_path / "run" / "rl" / "steps.jsonl")] == [1, 2, 3]


def test_checkpoints_come_between_validations_and_in_the_warm_start(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By steps, or by time when steps are slow."""
    saved: list[str] = []
    monkeypatch.setattr("rft_ilab.rl.stage.save_checkpoint", lambda e, d, name, *rest: saved.append(name))
    settings = dataclasses.replace(TRAIN, steps=5, val_every=100, sft_batch=2, checkpoint_every=3)
    stage(tmp_path / "a", tmp_path / "t", settings).run(tiny, lessons(tmp_path / "t"), {"area/other": 1.0})
    warm = ["sft-00003", "sft-00006", "sft-00008"]
    assert saved == [*warm, "step-00000", "step-00003", "step-00005"]
    saved.clear()
    monkeypatch.setattr("rft_ilab.rl.stage.CHECKPOINT_S", 0.0)
    settings = dataclasses.replace(settings, steps=2, checkpoint_every=100)
    stage(tmp_path / "b", tmp_path / "t", settings).run(tiny, lessons(tmp_path / "t"), {"area/other": 1.0})
    assert saved == [*(f"sft-{i:05d}" for i in range(1, 9)), *(f"step-{i:05d}" for i in (0, 1, 2, 2))]


def test_no_signal_is_refused_with_advice(tiny: Path, tmp_path: Path) -> None:
    never = dict(CONTAINS, reference="this is never said {{item.reference}}")
    with pytest.raises(SignalError, match="so RL has nothing to reward"):
        stage(tmp_path / "run", tmp_path / "t", grader=never).run(tiny, [], {"area/other": 1.0})


def test_a_breaking_grader_stops_the_run(tiny: Path, tmp_path: Path) -> None:
    source = "def grade(sample, item):\n    if 'e' in sample['output_text']: return 1.0\n    raise ValueError('no e')"
    broken = {"type": "python", "name": "broken", "source": source}
    with pytest.raises(GraderError, match=r"area/target: \d+ of 6 grades are errors \(limit 5%\); the first: .*no e"):
        stage(tmp_path / "run", tmp_path / "t", grader=broken).run(tiny, [], {"area/other": 1.0})
    # A watched skill's grades are no rewards, but which checkpoint is chosen depends on them.
    watched = stage(tmp_path / "run", tmp_path / "t")
    watched.watched = [environment(tmp_path / "t", "area/watched", broken)]
    with pytest.raises(GraderError, match=r"area/watched: \d+ of 6 grades are errors"):
        watched.run(tiny, [], {"area/watched": 1.0})


def test_too_many_errors_among_rewards_stop_the_run() -> None:
    _check_errors(Progress(graded=100, errors=5, first_error="no e"), TRAIN)
    with pytest.raises(GraderError, match="6 of 100 grades are errors; the first: no e"):
        _check_errors(Progress(graded=100, errors=6, first_error="no e"), TRAIN)


def test_validation_bears_a_few_errors_and_no_more(tmp_path: Path) -> None:
    e = environment(tmp_path, "area/target")
    fine = Grade(task_id="t", index=0, policy_id="p", score=1.0, passed=True)
    failed = Grade(task_id="t", index=0, policy_id="p", score=None, passed=None, error="no e")
    rollout = Rollout(task_id="t", index=0, policy_id="p", completion="", stop="eos")
    groups = [[Graded(e.tasks[0], rollout, grade)] for grade in [*[fine] * 19, failed]]
    refuse_errors(e, groups, 0.05)
    refuse_errors(e, [], 0.05)
    with pytest.raises(GraderError, match="1 of 19 grades are errors"):
        refuse_errors(e, groups[1:], 0.05)


def test_batches_hold_one_watched_skill_each() -> None:
    made = [Lesson(skill=s, prompt=(), completion=str(i), replay=s != "t") for s in "tuv" for i in range(20)]
    batches = plan_batches(made, TrainSettings(sft_epochs=2, sft_batch=8, sft_replay=4))
    assert len(batches) == 2 * 3
    assert [sum(x.replay for x in b) for b in batches] == [0, 4, 0, 4, 0, 4]
    assert all(len({x.skill for x in b if x.replay}) == 1 for b in batches[1::2])
    targets = [x.completion for b in batches[:3] for x in b if not x.replay]
    assert sorted(targets, key=int) == [str(i) for i in range(20)]


class FakeEngine:
    """Selection only loads, scales and asks for policies."""

    def __init__(self) -> None:
        self.scale = 1.0

    def load_adapter(self, weights: Any) -> None: ...
    def adapter(self) -> dict[str, torch.Tensor]:
        return {"w": torch.ones(1)}

    def refresh_sampler(self, scale: float = 1.0) -> None:
        self.scale = scale

    def policy(self, version: str) -> str:
        return version


@pytest.mark.parametrize(
    ("watched_at", "expected"),
    [({1.0: 0.9, 0.75: 0.9, 0.5: 0.9}, ("step-10", 1.0)), ({1.0: 0.5, 0.75: 0.88, 0.5: 0.9}, ("step-10", 0.75)),
     ({1.0: 0.88, 0.75: 0.9, 0.5: 0.9}, ("step-10", 0.75)), ({1.0: 0.88, 0.75: 0.89, 0.5: 0.9}, ("step-10", 1.0)),
     ({1.0: 0.5, 0.75: 0.5, 0.5: 0.9}, ("step-10", 0.5)), ({1.0: 0.5, 0.75: 0.5, 0.5: 0.5}, ("base", 1.0))],
)  # fmt: skip
def test_selection_scales_down_before_it_gives_up(
    watched_at: dict[float, float], expected: tuple[str, float], tmp_path: Path
) -> None:
    from rft_ilab.rl.checkpoint import save_adapter

    engine = FakeEngine()
    for name in ("sft", "step-10"):
        save_adapter(engine.adapter(), tmp_path / f"{name}.safetensors")
    candidates = [
        Candidate("base", None, 0.1, 0.1, 0.1),
        Candidate("sft", "sft.safetensors", 0.5, 0.5, 0.5),
        Candidate("step-10", "step-10.safetensors", 0.9, 0.9, 0.9),
    ]
    chosen, tried = select(
        engine,  # type: ignore[arg-type]
        candidates,
        tmp_path,
        lambda policy: (0.8, 0.8, 0.8),
        lambda policy: {"other": watched_at[engine.scale]},
        {"other": 0.9},
        {"other": 0.05},
    )
    assert (chosen.name, chosen.scale) == expected
    assert json.dumps([t.as_dict() for t in tried])


@pytest.mark.parametrize(("rival", "expected"), [(0.86, "sft"), (0.80, "step-10")])
def test_forgetting_less_decides_between_close_checkpoints_only(rival: float, expected: str, tmp_path: Path) -> None:
    from rft_ilab.rl.checkpoint import save_adapter

    engine = FakeEngine()
    candidates = [Candidate("base", None, 0.1, 0.1, 0.1)]
    for name, score in (("sft", rival), ("step-10", 0.9)):
        save_adapter(engine.adapter(), tmp_path / f"{name}.safetensors")
        candidates.append(Candidate(name, f"{name}.safetensors", score, score, score))
    chosen, _ = select(
        engine,  # type: ignore[arg-type]
        candidates,
        tmp_path,
        lambda policy: (0.85, 0.85, 0.85),
        lambda policy: {"other": 0.9 if "sft" in str(policy) else 0.88},  # only the rival loses nothing
        {"other": 0.9},
        {"other": 0.05},
    )
    assert chosen.name == expected


def test_gguf_names_and_rows_round_trip() -> None:
    import numpy as np

    for name in ("model.layers.12.mlp.down_proj.weight", "model.norm.weight", "model.embed_tokens.weight"):
        assert hf_name(gguf_name(name)) == name
    rows = np.arange(8 * 3).reshape(8, 3)
    assert (to_rotate_half(to_interleaved(rows, 2), 2) == rows).all()
    # One head of 4 rows: halves (0, 1), (2, 3) become pairs (0, 2), (1, 3).
    assert to_interleaved(rows[:4], 1)[:, 0].tolist() == [0, 6, 3, 9]


@pytest.mark.parametrize("broken", ["missing", "empty", "no weights", "bad weights", "bad bin", "no template"])
def test_a_directory_that_is_no_model_is_named(tmp_path: Path, tiny: Path, broken: str) -> None:
    import shutil

    directory = tmp_path / "m"
    if broken != "missing":
        shutil.copytree(tiny, directory)
    if broken == "empty":
        shutil.rmtree(directory)
        directory.mkdir()
    if broken == "no weights":
        (directory / "model.safetensors").unlink()
    if broken == "bad weights":
        (directory / "model.safetensors").write_bytes(b"junk")
    if broken == "bad bin":
        (directory / "model.safetensors").unlink()
        (directory / "pytorch_model.bin").write_bytes(b"\x80\x04junk")
    if broken == "no template":
        config = json.loads((directory / "tokenizer_config.json").read_text())
        config.pop("chat_template", None)
        (directory / "tokenizer_config.json").write_text(json.dumps(config))
        (directory / "chat_template.jinja").unlink(missing_ok=True)
    with pytest.raises(PolicyError) as caught:
        load_model(directory)
    assert str(directory) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("bad", [1, 3])
def test_a_gradient_that_is_no_number_changes_nothing_and_three_in_a_row_stop(
    tiny: Path, tmp_path: Path, bad: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the third update on, ``bad`` times: weights and moments stay, the rate is halved each time."""
    engine = Engine(load_model(tiny, torch.float32), TRAIN)
    env = environment(tmp_path / "t", "area/target")
    progress, updates = Progress(), 0
    accumulate = engine.accumulate

    def sometimes_nan(sequences: Any) -> Any:
        nonlocal updates
        updates += 1
        stats = accumulate(sequences)
        if 3 <= updates < 3 + bad:
            engine.parameters[0].grad.fill_(float("nan"))  # type: ignore[union-attr]
        return stats

    monkeypatch.setattr(engine, "accumulate", sometimes_nan)
    settings = dataclasses.replace(TRAIN, steps=8, warmup_steps=0)
    rows = [grpo_step(engine, [env], settings, progress, tmp_path / "rl") for _ in range(2)]
    before = engine.adapter()
    if bad == 3:
        evidence = r"rl: GRPO step 5: 3 updates in a row .*GRPO step 3: a gradient of nan; .*lower learning_rate"
        with pytest.raises(TrainingError, match=evidence):
            for _ in range(3):
                grpo_step(engine, [env], settings, progress, tmp_path / "rl")
        assert all(torch.equal(w, before[n]) for n, w in engine.adapter().items())
        assert {row["step"] for row in read_jsonl(tmp_path / "rl" / "rollouts.jsonl")} == {1, 2, 3, 4, 5}
        return
    rows.append(grpo_step(engine, [env], settings, progress, tmp_path / "rl"))
    assert rows[2]["skipped"] and "grad_norm" not in rows[2]
    assert all(torch.equal(w, before[n]) for n, w in engine.adapter().items())
    assert (progress.guard.factor, progress.guard.in_a_row) == (0.5, 1)
    after = grpo_step(engine, [env], settings, progress, tmp_path / "rl")
    plain = learning_rate(3, settings.steps, settings.learning_rate, 0)
    assert after["learning_rate"] == pytest.approx(plain / 2) and progress.guard.in_a_row == 0
    assert any(not torch.equal(w, before[n]) for n, w in engine.adapter().items())


def test_an_exploding_step_is_taken_back_and_its_rollouts_stay(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(load_model(tiny, torch.float32), TRAIN)
    env, progress, log = environment(tmp_path / "t", "area/target"), Progress(), tmp_path / "rl"
    settings = dataclasses.replace(TRAIN, steps=9, learning_rate=1e-4, warmup_steps=0)
    adapters = [engine.adapter()]
    for _ in range(6):
        assert "rolled_back" not in grpo_step(engine, [env], settings, progress, log)
        adapters.append(engine.adapter())
    accumulate = engine.accumulate

    def explode(sequences: Any) -> Any:
        stats = accumulate(sequences)
        for parameter in engine.parameters:
            parameter.grad.mul_(1e6)  # type: ignore[union-attr]
        return stats

    with monkeypatch.context() as patch:
        patch.setattr(engine, "accumulate", explode)
        row = grpo_step(engine, [env], settings, progress, log)
    assert row["rolled_back"].startswith("gradient norm ") and progress.step == 7
    assert all(torch.equal(w, adapters[5][n]) for n, w in engine.adapter().items())
    assert any(not torch.equal(w, adapters[6][n]) for n, w in engine.adapter().items())
    assert 7 in {r["step"] for r in read_jsonl(log / "rollouts.jsonl")}
    after = grpo_step(engine, [env], settings, progress, log)
    assert after["learning_rate"] == pytest.approx(learning_rate(7, 9, 1e-4, 0) / 2)


def test_a_warm_start_that_breaks_says_where(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each batch after the first has a gradient that is none; the first is kept."""
    broken = stage(tmp_path / "run", tmp_path / "t", dataclasses.replace(TRAIN, sft_batch=2))
    step, calls = Engine.step, 0

    def sometimes(engine: Engine, rate: float) -> float:
        nonlocal calls
        calls += 1
        if calls > 1:
            engine.parameters[0].grad.fill_(float("inf"))  # type: ignore[union-attr]
        return step(engine, rate)

    monkeypatch.setattr(Engine, "step", sometimes)
    with pytest.raises(TrainingError, match=r"run/rl: warm start step 4: 3 updates in a row .* sft_learning_rate in"):
        broken.run(tiny, lessons(tmp_path / "t"), {"area/other": 1.0})
    rows = read_jsonl(tmp_path / "run" / "rl" / "steps.jsonl")
    assert [row.get("skipped", False) for row in rows] == [False, True, True]

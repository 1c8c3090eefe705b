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
from rft_ilab.errors import DiskError, GraderError, PolicyError, SignalError, TrainingError
from rft_ilab.grading.engine import build_grader
from rft_ilab.policy.local.gguf_file import gguf_name, hf_name, read_llama, to_interleaved, to_rotate_half
from rft_ilab.policy.local.model import load_model
from rft_ilab.rl.engine import Engine
from rft_ilab.rl.evaluate import refuse_errors
from rft_ilab.rl.grpo import _check_errors, grpo_step
from rft_ilab.rl.lessons import Lesson, plan_batches
from rft_ilab.rl.objective import learning_rate
from rft_ilab.rl.progress import Progress
from rft_ilab.rl.selection import Candidate, Choice, best_of, evaluations, select
from rft_ilab.rl.space import planned_bytes, require_space
from rft_ilab.rl.stage import RLStage
from rft_ilab.rollouts import Environment, Graded
from rft_ilab.skills.tasks import load_tasks
from rft_ilab.skills.tree import load_skill
from rft_ilab.store import Cache, read_json, read_jsonl
from rft_ilab.types import Grade, Rollout
from tests.durable_stage import CONTAINS
from tests.tiny_model import make_tiny_model
from tests.unit.taxonomies import row, write_skill

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
    """A random model's logits lie close together, so F16 may flip some of its 12-token answers; half must stand.

    bf16 flips more than half of them, which says nothing about the file that was written.
    """
    monkeypatch.setattr("rft_ilab.policy.local.model.choose_dtype", lambda: torch.float32)
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
    assert [c["name"] for c in selection["candidates"]] == ["base", "sft", "step-2", "step-4"]
    assert [c["scale"] for c in selection["frontier"]] == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert all(0 <= c["watched"]["area/other"] <= 1 for c in selection["frontier"])
    assert selection["allowed_loss"] == {"area/other": 0.5}
    chosen = [c for c in selection["frontier"] if (c["name"], c["scale"]) == (selection["chosen"], selection["scale"])]
    base = selection["frontier"][-1]
    assert len(chosen) == 1 and chosen[0]["score"] >= base["score"] and base["watched"] == selection["base_watched"]
    (attributed,) = read_json(run / "rl" / "attribution.json")
    names = ["base", "base with 1 demonstration", "warm start", "chosen"]
    assert [s["name"] for s in attributed["states"]] == names and attributed["tasks"] == 6
    figures = {c["name"]: c["val"] for c in selection["candidates"]} | {"chosen": chosen[0]["val"]}
    found = {s["name"]: s["accuracy"] for s in attributed["states"]}
    assert (found["base"], found["warm start"], found["chosen"]) == tuple(figures[k] for k in ("base", "sft", "chosen"))
    assert [t["gain"] for t in attributed["transitions"][:2]] == pytest.approx(
        [figures["sft"] - figures["base"], figures["chosen"] - figures["sft"]], abs=2e-4
    )
    assert all(t["kl"] > 0 for t in attributed["transitions"] if figures["chosen"] != figures["base"])
    # Nothing that selection had asked already was asked again for it.
    scored = {f"{c['name']}@{c['scale']:g}" for c in (*selection["candidates"], *selection["frontier"])}
    assert {p.stem for p in (run / "rl" / "validation").iterdir()} == scored
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
    assert (facts["steps"], facts["ended_early"]) == (3, "solved")
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


def test_only_the_first_process_needs_room_for_the_model(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(load_model(tiny, torch.float32), TRAIN)
    planned = planned_bytes(engine, TRAIN)
    assert planned["model"] > 10_000
    monkeypatch.setattr("rft_ilab.rl.space.free_bytes", lambda path: sum(planned.values()) - 1)
    with pytest.raises(DiskError, match="training would write about"):
        require_space(engine, TRAIN, tmp_path)
    monkeypatch.setattr("rft_ilab.rl.parallel.rank", lambda: 1)
    require_space(engine, TRAIN, tmp_path)


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
    # A limit of 100 % is no licence for a mean of nothing.
    refuse_errors(e, groups[-2:], 1.0)
    with pytest.raises(GraderError, match="1 of 1 grades are errors"):
        refuse_errors(e, groups[-1:], 1.0)


def test_a_step_without_a_grade_has_no_reward(tiny: Path, tmp_path: Path) -> None:
    source = "def grade(sample, item):\n    raise ValueError('no grade')"
    env = environment(tmp_path / "t", "area/target", {"type": "python", "name": "broken", "source": source})
    settings = dataclasses.replace(TRAIN, max_error_share=1.0)
    row = grpo_step(Engine(load_model(tiny, torch.float32), settings), [env], settings, Progress(), tmp_path / "rl")
    assert row["errors"] == 2 * 4 * 8 and not {"reward", "reward_std", "loss"} & set(row)
    assert row["signal_groups"] == row["guided"] == 0


def test_batches_hold_one_watched_skill_each() -> None:
    made = [Lesson(skill=s, prompt=(), completion=str(i), replay=s != "t") for s in "tuv" for i in range(20)]
    batches = plan_batches(made, TrainSettings(sft_epochs=8, sft_batch=8, sft_replay=4))
    assert len(batches) == 8 * 3
    assert [sum(x.replay for x in b) for b in batches] == [0, 4] * 12
    assert all(len({x.skill for x in b if x.replay}) == 1 for b in batches[1::2])
    targets = [x.completion for b in batches[:3] for x in b if not x.replay]
    assert sorted(targets, key=int) == [str(i) for i in range(20)]
    alone = plan_batches(made, TrainSettings(sft_epochs=2, sft_batch=8, sft_replay=0))
    assert [len(b) for b in alone] == [8, 8, 4] * 2 and not any(x.replay for b in alone for x in b)


@pytest.mark.parametrize(("epochs", "every"), [(1, 1), (5, 1), (16, 2)])
def test_watched_skills_take_turns_and_oftener_in_a_short_warm_start(epochs: int, every: int) -> None:
    made = [Lesson(skill=s, prompt=(), completion=str(i), replay=s != "t") for s in "tuvw" for i in range(10)]
    batches = plan_batches(made, TrainSettings(sft_epochs=epochs, sft_batch=5, sft_replay=4))
    replayed = [[x for x in b if x.replay] for b in batches]
    assert [bool(r) for r in replayed] == [i % every == every - 1 for i in range(2 * epochs)]
    turns = [r[0].skill for r in replayed if r]
    counts = [turns.count(s) for s in "uvw"]
    assert max(counts) - min(counts) <= 1
    # All of a skill's answers come before one comes again.
    first = [x.completion for r in replayed for x in r if x.skill == turns[0]][:10]
    assert len(set(first)) == len(first)


class FakeEngine:
    """Selection only loads, scales and asks for policies."""

    def __init__(self) -> None:
        self.scale = 1.0
        self.weight = 1.0

    def load_adapter(self, weights: Any) -> None:
        self.weight = weights["w"].item()

    def adapter(self) -> dict[str, torch.Tensor]:
        return {"w": torch.ones(1)}

    def refresh_sampler(self, scale: float = 1.0) -> None:
        self.scale = scale

    def policy(self, version: str) -> str:
        return version


def choose(
    tmp_path: Path,
    scores: dict[str, float],
    target: dict[float, float],
    watched: Any,
    allowed: float = 0.05,
) -> tuple[Choice, FakeEngine, list[tuple[str, str]]]:
    """Select among ``scores`` (at full scale); ``target`` by scale, ``watched(name, scale)``; 0.9 is the base's."""
    from rft_ilab.rl.checkpoint import save_adapter

    engine, asked = FakeEngine(), []
    candidates = [Candidate("base", None, 0.1, 0.1, 0.1)]
    for name, score in scores.items():
        save_adapter({"w": torch.ones(1)}, tmp_path / f"{name}.safetensors")
        candidates.append(Candidate(name, f"{name}.safetensors", score, score, score))

    def score_target(policy: Any) -> tuple[float, float, float]:
        asked.append(("target", policy))
        return (target[engine.scale],) * 3

    def score_watched(policy: Any) -> dict[str, float]:
        asked.append(("watched", policy))
        return {"other": watched(policy.split("@")[0], engine.scale)}

    choice = select(
        engine,  # type: ignore[arg-type]
        candidates,
        tmp_path,
        score_target,
        score_watched,
        {"other": 0.9},
        {"other": allowed},
    )
    assert [c.scale for c in choice.frontier] == [1.0, 0.75, 0.5, 0.25, 0.0] and choice.frontier[-1].name == "base"
    assert len({c.name for c in choice.frontier[:-1]}) == 1
    on_target, on_watched = evaluations(candidates)
    kinds = [kind for kind, _ in asked]
    assert kinds.count("target") <= on_target and kinds.count("watched") <= on_watched and len(set(asked)) == len(asked)
    assert engine.scale == choice.chosen.scale
    assert json.dumps([t.as_dict() for t in (choice.chosen, *choice.frontier, *choice.tried)])
    return choice, engine, asked


@pytest.mark.parametrize(
    ("watched_at", "target_at", "expected"),
    [
        # Nothing is lost: the best score, wherever on the frontier it lies.
        ((0.9, 0.9, 0.9, 0.9), (0.8, 0.7, 0.6), ("step-10", 1.0)),
        ((0.9, 0.95, 0.9, 0.9), (0.92, 0.7, 0.6), ("step-10", 0.75)),
        # What loses nothing goes first while it keeps three quarters of the gain, 0.1 + 0.75 * 0.8 = 0.7 ...
        ((0.88, 0.9, 0.9, 0.9), (0.8, 0.7, 0.6), ("step-10", 0.75)),
        ((0.88, 0.89, 0.9, 0.9), (0.8, 0.7, 0.6), ("step-10", 0.5)),
        # ... and not when it keeps less: then the best that loses no more than it may, 0.05.
        ((0.88, 0.89, 0.9, 0.9), (0.8, 0.69, 0.6), ("step-10", 1.0)),
        ((0.5, 0.85, 0.88, 0.9), (0.8, 0.6, 0.2), ("step-10", 0.75)),
        ((0.5, 0.5, 0.5, 0.84), (0.8, 0.7, 0.6), ("base", 0.0)),
        ((0.5, 0.5, 0.5, 0.85), (0.8, 0.7, 0.6), ("step-10", 0.25)),
        # No better on the target than the base is no choice, however harmless.
        ((0.5, 0.5, 0.5, 0.9), (0.8, 0.7, 0.1), ("base", 0.0)),
    ],
)
def test_the_best_point_of_the_frontier_that_harms_nothing(
    watched_at: tuple[float, ...], target_at: tuple[float, ...], expected: tuple[str, float], tmp_path: Path
) -> None:
    """``watched_at`` scales 1, 0.75, 0.5, 0.25; ``target_at`` 0.75, 0.5, 0.25. sft is too far behind to matter."""
    watched = dict(zip((1.0, 0.75, 0.5, 0.25), watched_at, strict=True))
    target = dict(zip((0.75, 0.5, 0.25), target_at, strict=True))
    choice, engine, asked = choose(tmp_path, {"sft": 0.5, "step-10": 0.9}, target, lambda name, scale: watched[scale])
    assert (choice.chosen.name, choice.chosen.scale) == expected
    assert choice.frontier[0].name == "step-10" and len(asked) == 3 + 4
    assert engine.weight == (1.0 if expected[0] == "step-10" else 0.0)


@pytest.mark.parametrize(("rival", "expected"), [(0.86, "sft"), (0.80, "step-10")])
def test_forgetting_less_decides_between_close_checkpoints_only(rival: float, expected: str, tmp_path: Path) -> None:
    target = dict.fromkeys((0.75, 0.5, 0.25), 0.3)
    only_sft = lambda name, scale: 0.9 if name == "sft" else 0.88  # noqa: E731
    choice, _, _ = choose(tmp_path, {"sft": rival, "step-10": 0.9}, target, only_sft)
    assert (choice.chosen.name, choice.chosen.scale) == (expected, 1.0)
    # The frontier is that of the chosen checkpoint, not of the one with the highest score.
    assert choice.frontier[0].name == expected


def test_the_best_checkpoint_is_scaled_down_before_a_rival_replaces_it(tmp_path: Path) -> None:
    """Each loses something at full scale; the best too much, its rival no more than it may."""
    watched = {("step-10", 1.0): 0.8, ("step-10", 0.75): 0.9}
    target = {0.75: 0.86, 0.5: 0.6, 0.25: 0.3}
    for allowed, expected in ((0.05, ("step-10", 0.75)), (0.01, ("step-10", 0.75))):
        choice, _, asked = choose(
            tmp_path, {"sft": 0.87, "step-10": 0.9}, target, lambda *at: watched.get(at, 0.87), allowed
        )
        assert (choice.chosen.name, choice.chosen.scale) == expected and len(asked) == 2 + 6
    # Scaled down it loses too much on the target: the rival wins, and its frontier is measured, too.
    target = {0.75: 0.4, 0.5: 0.3, 0.25: 0.2}
    choice, _, asked = choose(tmp_path, {"sft": 0.87, "step-10": 0.9}, target, lambda *at: watched.get(at, 0.87))
    assert (choice.chosen.name, choice.chosen.scale) == ("sft", 1.0)
    assert choice.frontier[0].name == "sft" and len(asked) == 2 + 6 + 6


@pytest.mark.parametrize(("to_beat", "chosen"), [(0.0, "a"), (0.6, "a"), (0.85, "b"), (0.9, "base")])
def test_the_choice_beats_the_base_with_its_demonstrations_too(to_beat: float, chosen: str) -> None:
    """What harms nothing is preferred, but not if a prompt with demonstrations does better without any training."""
    base = Candidate("base", None, 0.1, 0.1, 0.1, 0.0, {"w": 0.8})
    tried = [
        Candidate("a", "a", 0.85, 0.85, 0.85, 0.75, {"w": 0.8}),
        Candidate("b", "b", 0.9, 0.9, 0.9, 1.0, {"w": 0.78}),
    ]
    assert best_of(tried, base, {"w": 0.05}, to_beat).name == chosen


def test_of_equals_the_one_closer_to_the_base_is_chosen(tmp_path: Path) -> None:
    target = {0.75: 0.9, 0.5: 0.9, 0.25: 0.4}
    choice, _, _ = choose(tmp_path, {"sft": 0.9}, target, lambda name, scale: 0.9)
    assert choice.chosen.scale == 0.5


def test_a_training_that_learned_nothing_leaves_the_base_and_shows_why(tmp_path: Path) -> None:
    target = {0.75: 0.08, 0.5: 0.1, 0.25: 0.09}
    choice, engine, _ = choose(tmp_path, {"sft": 0.05, "step-10": 0.1}, target, lambda name, scale: 0.95)
    assert choice.chosen.name == "base" and choice.chosen.watched == {"other": 0.9} and engine.weight == 0.0
    assert [c.score for c in choice.frontier] == [0.1, 0.08, 0.1, 0.09, 0.1]


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

    def sometimes_nan(sequences: Any, **options: Any) -> Any:
        nonlocal updates
        updates += 1
        stats = accumulate(sequences, **options)
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

    def explode(sequences: Any, **options: Any) -> Any:
        stats = accumulate(sequences, **options)
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

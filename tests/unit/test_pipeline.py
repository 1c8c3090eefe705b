"""The stages from request to verdict with scripted policies: what is measured, cached, judged, refused."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rft_ilab.config import TrackingSettings, load_settings
from rft_ilab.errors import RunError, SignalError, SkillError, TrackerError
from rft_ilab.pipeline import (
    Request,
    aa,
    against_itself,
    data,
    gate,
    generated,
    regress,
    train,
    verify_data,
    verify_generated,
)
from rft_ilab.pipeline import request as request_module
from rft_ilab.pipeline.request import Workspace
from rft_ilab.pipeline.screen import Screen
from rft_ilab.policy.scripted import ScriptedPolicy
from rft_ilab.store import Run, append_jsonl, read_json, read_jsonl, write_json
from rft_ilab.types import Prompt, digest
from tests.unit.taxonomies import write_skill

Answer = Callable[[Prompt, int], str]


def right(prompt: Prompt, index: int = 0) -> str:
    return ("YES", "NO", "MAYBE")[int(prompt.messages[-1].content.split()[1].rstrip("?")) % 3]


def wrong(prompt: Prompt, index: int = 0) -> str:
    return "MAYBE" if right(prompt) == "YES" else "YES"


def weak(prompt: Prompt, index: int = 0) -> str:
    """Right on one task in five, with or without demonstrations."""
    return right(prompt) if int(prompt.messages[-1].content.split()[1].rstrip("?")) % 5 == 0 else wrong(prompt)


def on(skill_text: str, inside: Answer, outside: Answer) -> Answer:
    """Different answers for the skill whose instruction holds ``skill_text``."""
    return lambda prompt, index: (inside if skill_text in prompt.messages[0].content else outside)(prompt, index)


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Request]:
    """A taxonomy with a target and a watched skill, and policies by directory name."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    taxonomy = tmp_path / "taxonomy"
    for name in ("area/target", "area/watched"):
        leaf = write_skill(taxonomy, name)
        qna = (leaf / "qna.yaml").read_text()
        (leaf / "qna.yaml").write_text(qna.replace("Answer YES", f"The {name.split('/')[1]} skill, answer YES"))
    (taxonomy / "rft.toml").write_text('[skills."area/target"]\ntier = "target"\n')

    def build(**policies: Answer) -> Request:
        made = {name: ScriptedPolicy(answer, name) for name, answer in policies.items()}
        for policy in made.values():
            policy.id = f"local:{policy.id}"

        def find(directory: Path) -> ScriptedPolicy:
            return made[Path(directory).name]

        for module in (gate, request_module):
            monkeypatch.setattr(module, "local_policy", find)
        for module in (gate, data):
            monkeypatch.setattr(module, "measure_speed", lambda policy: None)
        monkeypatch.setattr(Workspace, "model_directory", tmp_path / "base")
        monkeypatch.setattr("rft_ilab.policy.local.model.directory_digest", lambda directory: "d" * 64)
        run = tmp_path / "run"
        if not (run / "manifest.json").exists():
            Run.create(run, {"identity": {}, "model": str(tmp_path / "base")})
        request = Request(taxonomy=taxonomy, run=run, settings=load_settings(taxonomy))
        return request

    return build


def quiet() -> Console:
    return Console(file=io.StringIO(), width=100)


def judged(request: Request) -> dict[str, Any]:
    return regress(request, candidate=request.run / "tuned", console=quiet())


def test_a_better_target_and_an_unharmed_skill_pass(make: Callable[..., Request]) -> None:
    request = make(base=weak, tuned=on("target", right, weak))
    verdict = judged(request)
    assert verdict["outcome"] == "PASS", verdict["reasons"]
    (target,) = verdict["targets"]
    assert target["n"] == 60 and target["greedy"]["after"] == 1.0 and target["macro"]["after"] == 1.0
    assert target["majority"] == pytest.approx(1 / 3)
    (watched,) = verdict["watched"]
    assert watched["delta"] == 0.0 and watched["outcome"] == "PASS"
    assert read_json(request.run / "gate" / "verdict.json") == json.loads(json.dumps(verdict))


def test_a_harmed_skill_fails_and_is_named(make: Callable[..., Request]) -> None:
    verdict = judged(make(base=on("target", weak, right), tuned=on("target", right, weak)))
    assert verdict["outcome"] == "FAIL"
    assert any("area/watched" in reason for reason in verdict["reasons"])


def test_a_sabotaged_target_fails_and_is_named(make: Callable[..., Request]) -> None:
    verdict = judged(make(base=weak, tuned=on("target", wrong, weak)))
    assert verdict["outcome"] == "FAIL" and any("area/target" in reason for reason in verdict["reasons"])


def test_a_constant_answer_is_no_skill(make: Callable[..., Request]) -> None:
    verdict = judged(make(base=wrong, tuned=on("target", lambda prompt, index: "NO", wrong)))
    assert verdict["outcome"] == "FAIL" and any("area/target" in reason for reason in verdict["reasons"])


def test_a_second_gate_asks_no_model(make: Callable[..., Request], monkeypatch: pytest.MonkeyPatch) -> None:
    first = judged(make(base=weak, tuned=on("target", right, weak)))

    def never(prompt: Prompt, index: int) -> str:
        raise AssertionError("asked again")

    second = judged(make(base=never, tuned=never))
    assert second == first


def test_the_watched_prompt_is_the_one_the_baseline_is_better_at(make: Callable[..., Request]) -> None:
    def with_demonstrations(prompt: Prompt, index: int) -> str:
        return right(prompt) if len(prompt.messages) > 2 else "what?"

    verdict = judged(make(base=with_demonstrations, tuned=on("target", right, with_demonstrations)))
    (watched,) = verdict["watched"]
    assert watched["prompt"] == "6 demonstrations" or watched["prompt"] == "8 demonstrations"
    assert watched["before"] == 1.0


def test_regress_needs_a_model(make: Callable[..., Request]) -> None:
    with pytest.raises(RunError, match="no tuned model yet"):
        regress(make(base=weak), console=quiet())


def test_verified_data_and_its_ledger(make: Callable[..., Request], tmp_path: Path) -> None:
    request = make(base=lambda prompt, index: right(prompt) if index == 0 else wrong(prompt))
    request = dataclasses.replace(request, run=tmp_path / "fresh")
    path = verify_data(request, console=quiet())
    ledger = read_jsonl(tmp_path / "fresh" / "data" / "ledger.jsonl")
    kept = read_jsonl(path)
    answers = [row for row in ledger if row["kind"] == "answer"]
    assert len(kept) == sum(row["disposition"] in ("kept", "reference") for row in answers) > 0
    assert len({(row["kind"], row["id"]) for row in ledger}) == len(ledger)
    assert {row["metadata"]["skill"] for row in kept} == {"area/target", "area/watched"}
    before = path.read_bytes()
    assert verify_data(request, console=quiet()).read_bytes() == before


def test_no_right_answer_is_refused_before_training(make: Callable[..., Request], tmp_path: Path) -> None:
    request = make(base=lambda prompt, index: "what?")
    request = dataclasses.replace(request, run=tmp_path / "fresh")
    with pytest.raises(SignalError, match="RL has nothing to reward"):
        verify_data(request, console=quiet())


def test_unknown_targets_and_missing_splits_are_named(make: Callable[..., Request]) -> None:
    request = make(base=weak)
    with pytest.raises(SkillError, match="no skill 'area/none'"):
        Workspace(
            Request(taxonomy=request.taxonomy, run=request.run, settings=request.settings, targets=("area/none",))
        )
    leaf = request.taxonomy / "compositional_skills" / "area" / "target"
    rows = [line for line in (leaf / "tasks.jsonl").read_text().splitlines() if '"val"' not in line]
    (leaf / "tasks.jsonl").write_text("\n".join(rows) + "\n")
    with pytest.raises(SkillError, match="no val tasks"):
        Workspace(request)


def generation(root: Path, rows: list[tuple[str, str]]) -> Path:
    """What ``ilab data generate`` leaves: a dated directory with one file a leaf."""
    dated = root / "2026-01-01_000000"
    nodes = dated / "node_datasets_2026-01-01T00_00_00"
    nodes.mkdir(parents=True)
    made = [
        {
            "id": str(i),
            "messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}],
            "metadata": "{}",
        }
        for i, (q, a) in enumerate(rows)
    ]
    text = "".join(json.dumps(row) + "\n" for row in made)
    (nodes / "compositional_skills_area_target.jsonl").write_text(text)
    return dated


def test_generated_rows_are_verified(make: Callable[..., Request], tmp_path: Path) -> None:
    request = make(base=right)
    dated = generation(
        tmp_path / "datasets", [("Question 999?", "YES"), ("Question 1000?", "YES"), ("Question 3?", "")]
    )
    path = verify_generated(request, dated, console=quiet())
    assert [row["id"] for row in read_jsonl(path)] == ["0"]
    (exported,) = read_jsonl(dated / "rlvr" / "trl" / "train.jsonl")
    assert exported["prompt"][-1]["content"] == "Question 999?" and exported["reference"] == "YES"
    assert len(read_jsonl(dated / "rlvr" / "trl" / "validation.jsonl")) == 30
    fates = {row["id"]: row["disposition"] for row in read_jsonl(dated / "verification_ledger.jsonl")}
    assert fates == {"0": "kept", "1": "no_agreement", "2": "malformed"}


def test_nothing_verified_is_an_error_and_the_ledger_stays(make: Callable[..., Request], tmp_path: Path) -> None:
    request = make(base=wrong)
    dated = generation(tmp_path / "datasets", [("Question 999?", "YES")])
    with pytest.raises(RunError, match="no generated row was verified"):
        verify_generated(request, dated, console=quiet())
    assert len(read_jsonl(dated / "verification_ledger.jsonl")) == 1
    with pytest.raises(RunError, match="no generated rows of a skill"):
        verify_generated(request, tmp_path, console=quiet())


def test_agreement_needs_more_than_luck() -> None:
    assert 1 < generated.NEEDED <= generated.SAMPLES


def test_a_control_arm_is_another_run(make: Callable[..., Request], tmp_path: Path) -> None:
    real = dataclasses.replace(make(base=weak), run=tmp_path / "real")
    arm = dataclasses.replace(real, run=tmp_path / "arm", control="format-only")
    manifests = [Workspace(request).start_run().manifest for request in (real, arm)]
    assert "control" not in manifests[0] and manifests[1]["control"] == "format-only"
    assert manifests[1]["identity"] == manifests[0]["identity"] | {"control": "format-only"}
    for request, other in ((real, arm), (arm, real)):
        with pytest.raises(RunError, match=r"started with other settings \(control\)"):
            Workspace(dataclasses.replace(request, run=other.run)).start_run()


def test_a_grader_that_can_be_cheated_trains_nothing(make: Callable[..., Request]) -> None:
    """It accepts every reference, and YES to everything; a waiver with a reason lets it pass."""
    request = make(base=weak)
    leaf = request.taxonomy / "compositional_skills" / "area" / "target"
    config = json.loads((leaf / "grader.json").read_text())
    yes = {"type": "string_check", "input": "{{sample.output_text}}", "reference": "YES", "operation": "eq"}
    right_or_yes = {"type": "multi", "graders": {"right": config, "yes": yes}, "calculate_output": "max(right, yes)"}
    config.pop("pass_threshold", None)
    (leaf / "grader.json").write_text(json.dumps(right_or_yes))
    with pytest.raises(SkillError, match="can be cheated") as caught:
        Workspace(request).start_run()
    assert "ilab rft grader-test area/target" in str(caught.value)
    findings = dict.fromkeys(("constant", "other-reference", "mutant-label", "mutant-other"), "on purpose")
    (leaf / "grader.waivers.json").write_text(json.dumps(findings))
    with pytest.raises(RunError, match="other settings"):
        Workspace(request).start_run()  # past the proof; the fixture's run has another identity


def test_how_often_a_run_is_saved_may_change_while_it_runs(make: Callable[..., Request], tmp_path: Path) -> None:
    def started(**changed: int) -> Run:
        settings = dataclasses.replace(request.settings, train=dataclasses.replace(request.settings.train, **changed))
        return Workspace(dataclasses.replace(request, run=tmp_path / "new", settings=settings)).start_run()

    request = make(base=wrong)
    assert started().manifest["identity"] == started(checkpoint_every=1).manifest["identity"]
    with pytest.raises(RunError, match=r"other settings \(train\)"):
        started(val_every=1)


def test_an_update_that_went_wrong_is_seen_while_it_runs() -> None:
    sft = {"stage": "sft", "step": 6, "steps": 60, "seconds": 1.25, "loss": 0.5}
    grpo = {"stage": "grpo", "step": 3, "steps": 20, "reward": 0.5, "signal_groups": 9, "groups": 16, "entropy": 0.25}
    grpo |= {"sample_s": 1.0, "train_s": 0.5, "errors": 0, "rolled_back": "gradient norm 400"}
    rows = [
        sft | {"step": 5},
        sft,
        sft | {"rolled_back": "loss 12 after a median of 0.5"},
        {k: v for k, v in sft.items() if k != "loss"} | {"step": 60, "skipped": True},
        grpo,
    ]
    out = io.StringIO()
    with Screen(Console(file=out, width=200)).training(10) as show:
        for row in rows:
            show(row)
    shown = [re.sub(r" {2}\S+ left.*| {2}at least .*", "", line) for line in out.getvalue().splitlines()]
    assert shown == [
        "   sft   5/60  loss 0.500  1.2 s",
        "   sft   6/60  loss 0.500  1.2 s  update taken back: loss 12 after a median of 0.5",
        "   sft  60/60  1.2 s  update skipped: the gradient is no number",
        "  grpo   3/20  reward 0.500  signal 9/16  entropy 0.25  1.5 s  update taken back: gradient norm 400",
    ]


def reporting(request: Request, run: Path, report_to: str, **train: Any) -> Request:
    settings = dataclasses.replace(
        request.settings,
        tracking=TrackingSettings(report_to=report_to),
        train=dataclasses.replace(request.settings.train, **train),
    )
    return dataclasses.replace(request, run=run, settings=settings)


def test_where_the_metrics_go_is_no_part_of_a_run(make: Callable[..., Request], tmp_path: Path) -> None:
    request, run = make(base=weak), tmp_path / "fresh"
    Workspace(reporting(request, run, "auto")).start_run()
    Workspace(reporting(request, run, "wandb,mlflow")).start_run()
    with pytest.raises(RunError, match=r"other settings \(train\)"):
        Workspace(reporting(request, run, "auto", seed=1)).start_run()


def test_a_missing_tracker_stops_a_run_before_its_data(
    make: Callable[..., Request], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(TrackerError, match=r"--report-to wandb: wandb is not installed \(pip install wandb\)"):
        train(reporting(make(base=weak), tmp_path / "fresh", "wandb"), console=quiet())
    assert not (tmp_path / "fresh" / "data").exists()


def test_training_is_shown_and_tracked_step_by_step(
    make: Callable[..., Request], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stage:
        """Two steps of a warm start, no more."""

        def __init__(self, run: Path, *rest: Any) -> None:
            self.run_directory, self.tick = run, rest[5]

        def run(self, *arguments: Any) -> dict[str, Any]:
            for step in (1, 2):
                row = {"stage": "sft", "step": step, "steps": 2, "loss": 0.5 / step, "seconds": 1.0}
                append_jsonl(self.run_directory / "rl" / "steps.jsonl", [row])
                self.tick(row)
            return {"steps": 0}

    monkeypatch.setattr("rft_ilab.rl.stage.RLStage", Stage)
    console = quiet()
    request = reporting(make(base=lambda prompt, index: right(prompt)), tmp_path / "fresh", "tensorboard")
    train(request, console=console)
    said = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert said[-2:] == [
        f"metrics: TensorBoard event files in {tmp_path}/fresh/rl/tensorboard",
        "   sft   2/2  loss 0.250  1.0 s",
    ]
    assert read_json(tmp_path / "fresh" / "rl" / "trackers" / "tensorboard.json") == {"sft": 2, "grpo": 0}
    assert read_json(tmp_path / "fresh" / "manifest.json")["stages"]["rl"]["steps"] == 0


# ---- deciding early, and a model against itself ----


def test_tasks_are_drawn_until_decided_and_the_rest_is_paid_later(make: Callable[..., Request]) -> None:
    request = make(base=weak, tuned=on("target", right, weak))
    said = io.StringIO()
    verdict = regress(request, candidate=request.run / "tuned", batch=10, console=Console(file=said, width=200))
    assert (verdict["outcome"], verdict["mode"]) == ("PASS", "until-decided")
    (target,), (watched,) = verdict["targets"], verdict["watched"]
    assert (target["n"], target["available"]) == (20, 60)
    assert target["reason"].endswith("decided after 20 of 60 tasks")
    assert watched["n"] > target["n"]  # nothing moved: "no loss of 10 points" takes longer to show than a gain of 80
    assert f"area/watched: PASS after {watched['n']} of 60 tasks" in said.getvalue()
    drawn = target["n"] + watched["n"]
    # Watched: greedy, by both. Target: two prompts of the base and one of the candidate, greedy and two samples each.
    rollouts = 2 * watched["n"] + 9 * target["n"]
    assert f"until decided: {drawn} of 120 tasks, {rollouts} of 660 rollouts" in said.getvalue()
    assert read_json(request.run / "manifest.json")["stages"]["gate"]["rollouts"] == rollouts

    policies = {"base": weak, "tuned": on("target", right, weak)}
    again = make(**policies)
    calls = gate.local_policy(Path("base")), gate.local_policy(Path("tuned"))
    whole = judged(again)
    assert whole["mode"] == "fixed" and whole["targets"][0]["n"] == 60
    assert sum(policy.calls for policy in calls) == 660 - rollouts


def test_what_nothing_decides_is_drawn_to_the_end(make: Callable[..., Request]) -> None:
    def hardly_above_chance(prompt: Prompt, index: int) -> str:
        number = int(prompt.messages[-1].content.split()[1].rstrip("?"))
        return right(prompt) if number % 7 < 2 else weak(prompt)

    request = make(base=weak, tuned=on("target", hardly_above_chance, weak))
    verdict = regress(request, candidate=request.run / "tuned", batch=16, console=quiet())
    (target,) = verdict["targets"]
    assert (target["outcome"], target["n"], target["available"]) == ("INCONCLUSIVE", 60, 60)
    assert target["reason"].endswith("such tasks would decide; undecided after all 60 tasks")


def test_a_model_against_itself_draws_both_sides_apart(
    make: Callable[..., Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Seeded(ScriptedPolicy):
        """Right on a task by a coin of seed, task and index; ``bias`` adds to the coin of the second side."""

        def __init__(self, bias: float) -> None:
            super().__init__(right, f"seeded {bias}")
            self.id, self.bias = f"local:{self.id}", bias

        def sample(self, prompts: Any, n: int, sampling: Any) -> Any:
            for rollout, prompt in ((r, p) for p in prompts for r in super(Seeded, self).sample([p], n, sampling)):
                coin = int(digest([prompt.task_id, rollout.index, sampling.seed])[:6], 16) / 0xFFFFFF
                good = coin < 0.5 + self.bias * (sampling.seed % 2 == 0)
                yield dataclasses.replace(rollout, completion=right(prompt) if good else wrong(prompt))

    request = make(base=right)
    monkeypatch.setattr(aa, "measure_speed", lambda policy: None)
    found = {}
    for bias in (0.0, 0.45, -0.45):
        monkeypatch.setattr(aa, "local_policy", lambda directory, bias=bias: Seeded(bias))
        said = io.StringIO()
        found[bias] = against_itself(request, None, 8, console=Console(file=said, width=200))
        assert "a model against itself: 1920 rollouts, 8 a task and side" in said.getvalue()
    assert read_json(request.run / "gate" / "aa.json") == json.loads(json.dumps(found[-0.45]))
    assert found[0.0]["flips"] <= 2 and not found[0.0]["exceeds"]
    # Sides that really differ are found out: one that is better, and one that is worse.
    assert found[0.45]["exceeds"] and found[0.45]["claims"] == [["area/target"]] * 8
    assert found[-0.45]["exceeds"] and found[-0.45]["claims"] == [["area/watched"]] * 8

    cold = dataclasses.replace(request.settings.gate, temperature=0.0)
    settings = dataclasses.replace(request.settings, gate=cold)
    with pytest.raises(RunError, match="temperature 0"):
        against_itself(dataclasses.replace(request, settings=settings), None, 8, console=quiet())


def test_a_run_is_judged_by_what_it_learnt(make: Callable[..., Request]) -> None:
    """Also by a later gate that names no target, whatever rft.toml names."""
    request = make(base=weak, tuned=on("watched", right, weak))
    manifest = read_json(request.run / "manifest.json")
    write_json(request.run / "manifest.json", manifest | {"identity": {"targets": ["area/watched"]}})
    verdict = judged(request)
    assert [row["skill"] for row in verdict["targets"]] == ["area/watched"] and verdict["outcome"] == "PASS"
    assert [(row["skill"], row["tier"]) for row in verdict["watched"]] == [("area/target", "critical")]
    other = judged(dataclasses.replace(request, targets=("area/target",)))
    assert [row["skill"] for row in other["targets"]] == ["area/target"] and other["outcome"] == "FAIL"
    assert judged(dataclasses.replace(request, no_target=True))["targets"] == []
    write_json(request.run / "manifest.json", manifest | {"identity": {"targets": ["area/gone"]}})
    with pytest.raises(SkillError, match="no skill 'area/gone', which this run learnt"):
        judged(request)

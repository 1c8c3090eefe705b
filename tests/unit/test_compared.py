"""Gates against stored baselines and against what a base branch says: what is used, measured again, refused, judged."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from instructlab.configuration import get_default_config
from rich.console import Console

from rft_ilab.cli.baseline import baseline as baseline_command
from rft_ilab.cli.regress import regress as regress_command
from rft_ilab.config import load_settings
from rft_ilab.errors import RunError
from rft_ilab.pipeline import Request, base_tree, regress, save_baseline
from rft_ilab.pipeline.baselines import read_baseline
from rft_ilab.pipeline.compared import number_formats
from rft_ilab.store import Run, read_json, write_json
from rft_ilab.types import Prompt
from tests.tiny_model import make_tiny_model
from tests.unit.repositories import SETTINGS, commit_all, git
from tests.unit.taxonomies import LABEL_GRADER, plain_rows, write_skill
from tests.unit.test_pipeline import Answer, make, on, right, wrong  # noqa: F401

NAMES = ("target", "watched")
ALWAYS = {"type": "python", "name": "always", "source": "def grade(sample, item):\n    return 1.0\n"}


def weak(prompt: Prompt, index: int = 0) -> str:
    """Right on about a third of the test tasks, and on as many others."""
    number = int(prompt.messages[-1].content.split()[1].rstrip("?"))
    return right(prompt) if number // 10 % 3 == 0 else wrong(prompt)


TUNED = on("target", right, weak)
HARMFUL = on("target", right, wrong)


def never(prompt: Prompt, index: int) -> str:
    raise AssertionError("asked")


class World:
    """A taxonomy with a target and a watched skill, policies by the name of their directory, a console to read."""

    def __init__(self, root: Path, make: Callable[..., Request], patch: pytest.MonkeyPatch) -> None:  # noqa: F811
        self.root, self.make, self.patch = root, make, patch
        self.taxonomy = root / "taxonomy"
        self.said = io.StringIO()

    def policies(self, **answers: Answer) -> Request:
        return self.make(**answers)

    def save(self, answer: Answer = weak, name: str = "main", **changes: Any) -> Path:
        request = self.policies(base=answer)
        return save_baseline(dataclasses.replace(request, **changes), name, console=self.console())

    def console(self) -> Console:
        self.said = io.StringIO()
        return Console(file=self.said, width=300)

    def empty_cache(self) -> None:
        """Another machine: nothing that was measured here is known there."""
        self.patch.setenv("XDG_CACHE_HOME", str(self.root / f"cache-{len(list(self.root.glob('cache-*')))}"))
        (Path(self.root) / f"cache-{len(list(self.root.glob('cache-*')))}").mkdir()

    def judge(self, candidate: Answer = TUNED, old: Answer = never, **changes: Any) -> dict[str, Any]:
        request = self.policies(base=old, tuned=candidate)
        changes = {"baseline": "main", "settings": load_settings(self.taxonomy), **changes}
        request = dataclasses.replace(request, **changes)
        return regress(request, candidate=request.run / "tuned", console=self.console())

    def leaf(self, name: str) -> Path:
        return self.taxonomy / "compositional_skills" / "area" / name


@pytest.fixture
def world(tmp_path: Path, make: Callable[..., Request], monkeypatch: pytest.MonkeyPatch) -> World:  # noqa: F811
    return World(tmp_path, make, monkeypatch)


def without_names(verdict: dict[str, Any]) -> dict[str, Any]:
    """What was judged, without by which baseline and the grader's words on its side."""
    flips = [{k: v for k, v in flip.items() if k != "before_reason"} for flip in verdict["flips"]]
    return {k: v for k, v in verdict.items() if k not in ("baseline", "base")} | {"flips": flips}


def test_a_stored_baseline_judges_as_its_model_does_and_needs_no_model(world: World) -> None:
    live = world.judge(old=weak, baseline="")
    world.save()
    world.empty_cache()
    stored = world.judge()
    assert without_names(stored) == without_names(live) and stored["outcome"] == "PASS"
    assert stored["baseline"]["id"] == live["baseline"]["id"]
    assert stored["baseline"]["name"] == "baseline main: embedded"
    assert all(suite["unpaired"] == 0 and not suite["changed"] for suite in stored["baseline"]["stored"]["suites"])
    assert {flip["before_reason"] for flip in stored["flips"]} == {flip["before_reason"] for flip in live["flips"]}
    assert "" not in {flip["before_reason"] for flip in stored["flips"]}


def test_saving_twice_gives_the_same_bytes_and_only_facts(world: World) -> None:
    first = world.save().read_bytes()
    world.empty_cache()
    assert world.save().read_bytes() == first
    assert str(world.root).encode() not in first and b"202" not in first.split(b'"suites"')[0].replace(b'"2026', b"")
    stored = read_baseline(world.taxonomy, "main")
    found = [(suite.skill, suite.demonstrations, suite.samples, len(suite.tasks)) for suite in stored.suites]
    prompt = stored.prompts["area/watched"]
    assert found == [("area/target", 0, 2, 60), ("area/target", 8, 2, 60), ("area/watched", prompt, 0, 60)]


def test_a_baseline_of_300_tasks_in_5_skills_is_small(world: World) -> None:
    rows = [{**row, "split": "test" if i < 300 else "val"} for i, row in enumerate(plain_rows() + more_rows())]
    for name in ("target", "watched", "c", "d", "e"):
        qna = (world.leaf("target") / "qna.yaml").read_text()
        write_skill(world.taxonomy, f"area/{name}", rows=[*rows, {**rows[0], "split": "train"}][:-1], qna=qna)
    path = world.save(lambda prompt, index: right(prompt) + " " * 60, no_target=True)
    stored = read_baseline(world.taxonomy, "main")
    assert sum(len(suite.tasks) for suite in stored.suites) == 1500
    assert path.stat().st_size < 300_000


def more_rows() -> list[dict[str, Any]]:
    prompts = [f"Question {i}?" for i in range(300, 330, 3)]
    return [{"messages": [{"role": "user", "content": prompt}], "reference": "YES"} for prompt in prompts]


# ---- what changed since ----


def test_a_changed_grader_grades_the_stored_answers_anew(world: World) -> None:
    world.save()
    world.empty_cache()
    write_skill_grader(world, "watched", {**LABEL_GRADER, "labels": ["YES", "NO", "MAYBE", "NEVER"]})
    verdict = world.judge()
    (watched,) = verdict["watched"]
    assert verdict["outcome"] == "PASS" and watched["n"] == 60 and watched["before"] == pytest.approx(1 / 3)
    suite = verdict["baseline"]["stored"]["suites"][-1]
    assert (suite["regraded"], suite["unpaired"]) == (60, 0) and "the grader changed" in suite["changed"][0]
    assert "60 of 60 answers graded anew" in world.said.getvalue()


def test_answers_that_are_stored_in_part_are_not_graded_anew_but_asked_for(world: World) -> None:
    world.save(on("watched", lambda prompt, index: right(prompt) + "." * 300, weak))
    write_skill_grader(world, "watched", {**LABEL_GRADER, "labels": ["YES", "NO", "MAYBE", "NEVER"]})
    known = world.judge()
    suite = known["baseline"]["stored"]["suites"][-1]
    assert (suite["regraded"], suite["measured"], suite["unpaired"]) == (0, 60, 0), "the cache has the answers"
    world.empty_cache()
    verdict = world.judge()
    (watched,) = verdict["watched"]
    assert verdict["outcome"] == watched["outcome"] == "INCONCLUSIVE" and watched["ungraded"] == 60
    assert "the stored baseline 'main' does not fit (the grader changed: " in watched["reason"]
    assert watched["reason"].endswith("renew it with: ilab rft baseline save main")
    assert verdict["reasons"][0].startswith("area/watched: INCONCLUSIVE: 60 of 60 tasks have no grade")


def write_skill_grader(world: World, name: str, grader: dict[str, Any]) -> None:
    (world.leaf(name) / "grader.json").write_text(json.dumps(grader), encoding="utf-8")


def test_a_targets_draws_are_not_kept_so_a_changed_grader_leaves_it_open(world: World) -> None:
    world.save()
    world.empty_cache()
    write_skill_grader(world, "target", {**LABEL_GRADER, "labels": ["YES", "NO", "MAYBE", "NEVER"]})
    verdict = world.judge()
    (target,) = verdict["targets"]
    assert target["outcome"] == "INCONCLUSIVE" and target["n"] == 60 and target["greedy"]["after"] == 1.0
    assert "have no grade for the sampled answers" in target["reason"] and "renew it with" in target["reason"]


def change_tasks(world: World, name: str, count: int) -> None:
    """The first ``count`` test tasks are worded otherwise."""
    path = world.leaf(name) / "tasks.jsonl"
    rows, left = [json.loads(line) for line in path.read_text().splitlines()], count
    for row in rows:
        if row["split"] == "test" and left:
            row["messages"][0]["content"] += " Now?"
            left -= 1
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_few_changed_tasks_are_counted_and_many_leave_the_suite_open(world: World) -> None:
    world.save()
    world.empty_cache()
    change_tasks(world, "watched", 3)
    verdict = world.judge()
    (watched,) = verdict["watched"]
    assert (watched["outcome"], watched["n"], watched["ungraded"]) == ("PASS", 57, 3)
    suite = verdict["baseline"]["stored"]["suites"][-1]
    assert (suite["unpaired"], suite["gone"], suite["changed"]) == (3, 3, ["3 of 60 tasks are new or changed"])
    change_tasks(world, "watched", 6)
    verdict = world.judge()
    (watched,) = verdict["watched"]
    assert watched["outcome"] == "INCONCLUSIVE" and "6 of 60 tasks are new or changed" in watched["reason"]
    world.empty_cache()
    assert world.judge(old=weak, baseline="")["watched"][0]["n"] == 60, "the model itself can answer them"


def test_what_a_task_is_asked_with_is_part_of_it(world: World) -> None:
    """Other demonstrations, and other fields for the grader, make other questions, though the task's id stays."""
    world.save()
    world.empty_cache()
    qna = world.leaf("watched") / "qna.yaml"
    qna.write_text(qna.read_text().replace("Seed question 0?", "Another question?"))
    (watched,) = world.judge()["watched"]
    assert watched["outcome"] == "INCONCLUSIVE" and "60 of 60 tasks are new or changed" in watched["reason"]


def test_other_settings_are_named(world: World) -> None:
    world.save()
    world.empty_cache()
    toml = world.taxonomy / "rft.toml"
    toml.write_text(toml.read_text() + '[skills."area/watched"]\nmax_tokens = 9\n[gate]\nseed = 21\nsamples = 1\n')
    verdict = world.judge()
    assert "max_tokens changed: 64 then, 9 now" in verdict["watched"][0]["reason"]
    assert "seed changed: 20 then, 21 now" in verdict["targets"][0]["reason"]
    toml.write_text('[skills."area/target"]\ntier = "target"\n[gate]\nsamples = 1\n')
    assert world.judge()["outcome"] == "PASS", "the first of two draws are those of one"


def test_another_target_than_the_stored_ones_says_how_to_store_it(world: World) -> None:
    world.save()
    world.empty_cache()
    verdict = world.judge(targets=("area/watched",))
    assert "no results with the prompt asked for here: " in verdict["targets"][0]["reason"]
    assert verdict["targets"][0]["reason"].endswith("ilab rft baseline save main --target area/watched")


def test_the_model_at_hand_measures_what_is_missing(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With real, tiny models: the one that the run started from is known by its digest, another is not taken for it."""
    (world.taxonomy / "rft.toml").write_text(
        "[gate]\nsamples = 1\n" + "".join(f'[skills."area/{n}"]\nmax_tokens = 3\ndemonstrations = 0\n' for n in NAMES)
    )
    old, new = (make_tiny_model(tmp_path / name, seed) for name, seed in (("old", 0), ("new", 1)))
    monkeypatch.undo()
    world.empty_cache()
    request = Request(
        taxonomy=world.taxonomy, run=world.root / "run", settings=load_settings(world.taxonomy), no_target=True
    )
    Run.create(request.run, {"identity": {}})
    save_baseline(dataclasses.replace(request, model=old), "main", console=world.console())
    stored = dataclasses.replace(request, baseline="main")
    live = regress(dataclasses.replace(request, model=old), new, console=world.console())
    assert without_names(regress(stored, new, console=world.console())) == without_names(live)
    change_tasks(world, "watched", 30)
    world.empty_cache()
    for started, measured in ((new, 0), (old, 30)):
        manifest = read_json(request.run / "manifest.json")
        write_json(request.run / "manifest.json", {**manifest, "model": str(started)})
        verdict = regress(stored, new, console=world.console())
        suites = {suite["skill"]: suite for suite in verdict["baseline"]["stored"]["suites"]}
        assert (suites["area/watched"]["measured"], suites["area/watched"]["unpaired"]) == (measured, 30 - measured)
        assert suites["area/target"]["measured"] == 0
    assert f"the model of the stored baseline is at hand: {old}" in world.said.getvalue()
    path = world.taxonomy / "baselines" / "main.json"
    path.write_text(re.sub(r'"prompts": .*', '"prompts": {},', path.read_text(), count=1))
    verdict = regress(stored, new, batch=10, console=world.console())
    suites = [(suite["skill"], suite["tasks"], suite["gone"]) for suite in verdict["baseline"]["stored"]["suites"]]
    assert suites == [("area/target", 60, 0), ("area/watched", 60, 30)], "counted once, as whole suites"


def test_an_edited_score_shows_where_it_flips(world: World) -> None:
    path = world.save(right)
    text = path.read_text()
    path.write_text(text.replace(', 1, [], "', ', 0, [], "', 1))
    verdict = world.judge(right)
    flip = next(flip for flip in verdict["flips"] if flip["skill"] == "area/watched")
    assert flip["before_reason"].startswith("stored as 0, but the same grader says now: ")


def test_number_formats_are_compared() -> None:
    assert "measured in bfloat16, the candidate in float32" in number_formats("local:a:bfloat16", "local:b:float32")
    assert number_formats("local:a:float32", "local:b:float32") == number_formats("endpoint", "local:b:float32") == ""


# ---- nothing shall be better ----


def test_without_a_target_the_verdict_is_that_nothing_got_worse(world: World) -> None:
    world.save(no_target=True)
    verdict = world.judge(weak, no_target=True)
    assert verdict["outcome"] == "PASS" and verdict["targets"] == []
    assert verdict["reasons"] == ["2 watched skills are no worse than their margins"]
    world.empty_cache()
    verdict = world.judge(on("target", wrong, weak), no_target=True)
    assert verdict["outcome"] == "FAIL" and "area/target" in verdict["reasons"][0]


# ---- what a base branch says ----


def test_a_change_cannot_edit_what_it_is_judged_by(world: World) -> None:
    """Graders, test tasks, margins and the baseline of the branch change nothing once the base judges."""
    world.save(right)
    commit_all(world.taxonomy)
    git(world.taxonomy, "checkout", "-q", "-b", "change")
    honest = world.judge(HARMFUL)
    assert honest["outcome"] == "FAIL"
    write_skill_grader(world, "watched", ALWAYS)
    change_tasks(world, "watched", 60)
    (world.taxonomy / "rft.toml").write_text('[gate]\nmargin = 1.0\n[skills."area/target"]\ntier = "target"\n')
    world.empty_cache()
    world.save(wrong)
    commit_all(world.taxonomy)
    assert world.judge(HARMFUL)["outcome"] == "PASS", "so it would get away with it"
    with base_tree(world.taxonomy, "main") as base:
        judged = world.judge(HARMFUL, taxonomy=base.taxonomy, settings=base.settings(), base=base)
    assert without_names(judged)["reasons"] == honest["reasons"] and judged["outcome"] == "FAIL"
    assert judged["base"] == {"ref": "main", "commit": git(world.taxonomy, "rev-parse", "main")}
    assert [row["judged_by"] for row in (*judged["targets"], *judged["watched"])] == ["base", "base"]
    stripped = [{k: v for k, v in row.items() if k != "judged_by"} for row in judged["watched"]]
    assert stripped == honest["watched"]


def test_a_new_skill_is_marked_and_compared_with_the_branchs_results_of_it(world: World) -> None:
    world.save()
    commit_all(world.taxonomy)
    qna = (world.leaf("watched") / "qna.yaml").read_text()
    write_skill(world.taxonomy, "area/new", qna=qna)
    with base_tree(world.taxonomy, "main") as base:
        world.empty_cache()
        bare = world.judge(taxonomy=base.taxonomy, settings=base.settings(), base=base)
    rows = {row["skill"]: row for row in (*bare["targets"], *bare["watched"])}
    assert {name: row["judged_by"] for name, row in rows.items()} == {
        "area/target": "base",
        "area/watched": "base",
        "area/new": "branch",
    }
    assert rows["area/new"]["outcome"] == "INCONCLUSIVE" and rows["area/watched"]["outcome"] == "PASS"
    assert bare["reasons"][-1] == "judged by the change's own files, not on main yet: area/new"
    world.save()
    with base_tree(world.taxonomy, "main") as base:
        world.empty_cache()
        renewed = world.judge(taxonomy=base.taxonomy, settings=base.settings(), base=base)
    assert renewed["outcome"] == "PASS", renewed["reasons"]


# ---- the commands ----


class Host:
    """What ilab hands its commands."""

    config = get_default_config()


def invoke(command: Any, *arguments: str, **environment: str) -> Any:
    return CliRunner().invoke(command, [*arguments], obj=Host(), env={**SETTINGS, **environment}, prog_name="ilab")


@pytest.fixture
def shell(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """With a taxonomy in git, a data directory, and a candidate that looks like a model."""
    monkeypatch.setenv("XDG_DATA_HOME", str(world.root / "data"))
    monkeypatch.setattr("rft_ilab.policy.local.model.check_model_directory", lambda directory: None)
    monkeypatch.chdir(world.root)
    for name in ("tuned", "base"):
        (world.root / name).mkdir()
    world.save()
    commit_all(world.taxonomy)
    world.policies(base=never, tuned=TUNED)
    return world


def test_regress_needs_no_training_run(shell: World) -> None:
    where = ["--taxonomy-path", str(shell.taxonomy), "--model", "tuned"]
    done = invoke(regress_command, *where, "--baseline", "main")
    assert done.exit_code == 0, done.output
    made = shell.root / "data" / "instructlab" / "rft" / "runs" / f"gate-{'d' * 12}"
    assert read_json(made / "gate" / "verdict.json")["outcome"] == "PASS" and (made / "report.html").exists()
    again = invoke(regress_command, *where, "--baseline", "main", "--run", "./out", "--no-target", "--base", "main")
    assert again.exit_code == 0, again.output
    verdict = read_json(shell.root / "out" / "gate" / "verdict.json")
    assert verdict["targets"] == [] and verdict["base"]["ref"] == "main"
    facts = read_json(shell.root / "out" / "manifest.json")["stages"]["gate"]
    assert facts["taxonomy"] == str(shell.taxonomy), "not the copy that is gone by now"
    said = " ".join(again.output.replace("│", " ").split())
    assert "No tested skill got worse than is tolerated. 2 of 2 tested skills stayed within what is tolerated" in said
    # A gate without training is no run whose model could be judged.
    assert "no run here yet" in invoke(regress_command, *where[:2]).output


def test_the_base_comes_from_the_environment_too(shell: World) -> None:
    arguments = ["--taxonomy-path", str(shell.taxonomy), "--model", "tuned", "--baseline", "main", "--run", "./out"]
    assert invoke(regress_command, *arguments, RFT_ILAB_BASE_REF="main").exit_code == 0
    assert read_json(shell.root / "out" / "gate" / "verdict.json")["base"]["ref"] == "main"
    done = invoke(regress_command, *arguments, RFT_ILAB_BASE_REF="origin/main")
    assert done.exit_code == 2 and done.output.count("\n") == 1
    assert "no commit 'origin/main' in this repository (fetch it" in done.output


def test_a_bare_word_is_a_stored_baseline_before_it_is_a_directory(shell: World) -> None:
    arguments = ["--taxonomy-path", str(shell.taxonomy), "--model", "tuned", "--run", "./out", "--baseline"]
    (shell.root / "main").mkdir()
    assert invoke(regress_command, *arguments, "main").exit_code == 0
    assert read_json(shell.root / "out" / "gate" / "verdict.json")["baseline"]["stored"]["name"] == "main"
    assert invoke(regress_command, *arguments, "base").exit_code == 0
    assert read_json(shell.root / "out" / "gate" / "verdict.json")["baseline"]["name"] == "base", "it is a model here"
    judged = invoke(regress_command, *arguments, "base", "--base", "main")
    assert judged.exit_code == 2 and "no stored baseline 'base' (stored here: main" in judged.output
    for odd in ("none", "a b", ""):
        refused = invoke(regress_command, *arguments, odd)
        assert refused.exit_code == 2 and "Traceback" not in refused.output
    nobody = invoke(regress_command, *arguments, "main", "--base", "")
    assert nobody.exit_code == 2 and "bad git reference ''" in nobody.output


def test_a_gate_is_judged_in_a_training_run_if_that_is_named_and_a_mistyped_run_starts_none(shell: World) -> None:
    Run.create(shell.root / "trained", {"identity": {}})
    arguments = ["--taxonomy-path", str(shell.taxonomy), "--model", "tuned", "--baseline", "main"]
    done = invoke(regress_command, *arguments, "--run", "./trained")
    assert done.exit_code == 0 and (shell.root / "trained" / "gate" / "verdict.json").exists()
    mistyped = invoke(regress_command, *arguments[:4], "--run", "./traned")
    assert mistyped.exit_code == 2 and "no such run" in mistyped.output and not (shell.root / "traned").exists()
    assert invoke(regress_command, *arguments, "--target", "area/target", "--no-target").exit_code == 2


def test_baselines_are_listed_and_shown(shell: World) -> None:
    where = ["--taxonomy-path", str(shell.taxonomy)]
    shell.policies(base=weak)
    saved = invoke(baseline_command, "save", *where, "second", "--model", "base")
    assert saved.exit_code == 0 and saved.output.splitlines()[-1].endswith("kB; commit it")
    listed = invoke(baseline_command, "list", *where)
    assert listed.output.splitlines() == ["main: embedded, 3 suites, 180 tasks", "second: base, 3 suites, 180 tasks"]
    (shell.root / "bare").mkdir()
    nothing = invoke(baseline_command, "list", "--taxonomy-path", str(shell.root / "bare"))
    assert nothing.exit_code == 0 and "ilab rft baseline save NAME" in nothing.output
    shown = invoke(baseline_command, "show", *where, "second").output.splitlines()
    assert shown[0] == "second: base" and shown[1].startswith("  local:scripted:")
    assert shown[3] == "  area/target, zero-shot: 60 tasks, greedy 33.3%, 2 sampled 33.3%"
    (shell.taxonomy / "baselines" / "third.json").write_text("{\n")
    for arguments in (["show", *where, "third"], ["list", *where], ["show", *where, "../x"]):
        done = invoke(baseline_command, *arguments)
        assert done.exit_code == 2 and "Traceback" not in done.output
    assert invoke(baseline_command, "save", *where, "../x").exit_code == 2
    assert invoke(baseline_command, "save", *where, "x", "--model", "base", "--run", "y").exit_code == 2


def test_a_damaged_baseline_is_one_line_of_the_gate(world: World) -> None:
    path = world.save()
    path.write_text(path.read_text().replace(": 2,", ": NaN,", 1))
    with pytest.raises(RunError, match="NaN is not JSON"):
        world.judge()


def test_a_stored_baseline_is_drawn_in_parts_and_counted_once(world: World) -> None:
    world.save()
    world.empty_cache()
    request = dataclasses.replace(world.policies(base=never, tuned=HARMFUL), baseline="main")
    verdict = regress(request, candidate=request.run / "tuned", batch=10, console=world.console())
    (target,), (watched,) = verdict["targets"], verdict["watched"]
    assert verdict["outcome"] == "FAIL" and watched["outcome"] == "FAIL" and target["outcome"] == "PASS"
    assert max(target["n"], watched["n"]) < 60 == watched["available"]
    suites = verdict["baseline"]["stored"]["suites"]
    assert [(s["skill"], s["tasks"], s["gone"]) for s in suites] == [
        ("area/target", 60, 0),
        ("area/target", 60, 0),
        ("area/watched", 60, 0),
    ]

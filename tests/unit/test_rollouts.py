"""Sampling, grading, caching, verified answers: with a scripted policy, no model."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rft_ilab.config import DataSettings, Settings, SkillSettings
from rft_ilab.errors import SignalError
from rft_ilab.grading.engine import build_grader
from rft_ilab.policy.scripted import ScriptedPolicy
from rft_ilab.rl.curriculum import draw_tasks
from rft_ilab.rl.signal import measure_signal, refuse_without_signal
from rft_ilab.rollouts import Environment, collect, grade_keys, rollout_keys
from rft_ilab.skills.tasks import load_tasks
from rft_ilab.skills.tree import load_skill
from rft_ilab.store import Cache
from rft_ilab.synth.agree import judge_generated
from rft_ilab.synth.screening import held_out
from rft_ilab.synth.verify import authored, spread_over_classes, verify_answers
from rft_ilab.types import Message, Prompt, Sampling, digest
from tests.unit.taxonomies import LABEL_GRADER, make_rollout, make_task, write_skill


def environment(tmp_path: Path, grader: object = LABEL_GRADER) -> Environment:
    write_skill(tmp_path, grader=grader)
    skill = load_skill(tmp_path, "area/skill", Settings())
    return Environment.of(skill, load_tasks(skill), build_grader(skill), SkillSettings(demonstrations=2))


def number(prompt: Prompt) -> int:
    return int(prompt.messages[-1].content.split()[1].rstrip("?"))


def right(prompt: Prompt) -> str:
    return ("YES", "NO", "MAYBE")[number(prompt) % 3]


def test_a_second_collect_pays_nothing_and_says_the_same(tmp_path: Path) -> None:
    env, cache = environment(tmp_path), Cache(tmp_path / "c.sqlite")
    policy = ScriptedPolicy(lambda prompt, index: right(prompt) if index else "no idea")
    tasks = env.split("val")

    def passes() -> list[list[bool | None]]:
        groups = collect(policy, env.grader, env.skill, tasks, 2, Sampling(), demonstrations=0, cache=cache)
        return [[g.grade.passed for g in group] for group in groups]

    first = passes()
    assert first == [[False, True]] * len(tasks)
    paid = policy.calls
    assert passes() == first and policy.calls == paid == 2 * len(tasks)
    collect(policy, env.grader, env.skill, tasks, 2, Sampling(seed=1), demonstrations=0, cache=cache)
    assert policy.calls == 2 * paid


@given(texts=st.lists(st.text(), min_size=1, max_size=4), temperature=st.floats(0.0, 2.0), count=st.integers(1, 99))
def test_keys_are_digests_of_everything_that_decides(texts: list[str], temperature: float, count: int) -> None:
    """They are written out by hand; what is cached under the digests stays good."""
    policy = ScriptedPolicy(lambda prompt, index: "", texts[0])
    sampling = Sampling(temperature=temperature, max_tokens=count, seed=count + 1)
    messages = tuple(Message("user", text) for text in texts)
    prompt = Prompt(task_id=texts[-1], messages=messages)
    said = [m.as_dict() for m in messages]
    wanted = digest(["rollouts", policy.id, said, texts[-1], count, temperature, count, count + 1])
    assert rollout_keys(policy, [prompt], count, sampling) == [wanted]
    task = dataclasses.replace(make_task({"b": texts, "a": temperature}), id=texts[0])
    group = [make_rollout(text, task.id) for text in texts]
    item = {"a": temperature, "b": texts}
    expected = [digest(["grade", "d" * 64, task.id, item, text, "eos"]) for text in texts]
    assert grade_keys("d" * 64, [task], [group]) == expected


def test_a_killed_collect_pays_only_for_the_rest(tmp_path: Path) -> None:
    env, cache = environment(tmp_path), Cache(tmp_path / "c.sqlite")
    tasks = env.split("train")
    assert len(tasks) > 128

    class Dies(RuntimeError):
        pass

    def answer(prompt: Prompt, index: int) -> str:
        if policy.calls > 130:
            raise Dies
        return "YES"

    policy = ScriptedPolicy(answer)
    with pytest.raises(Dies):
        collect(policy, env.grader, env.skill, tasks, 1, Sampling(), demonstrations=0, cache=cache)
    again = ScriptedPolicy(lambda prompt, index: "YES")
    collect(again, env.grader, env.skill, tasks, 1, Sampling(), demonstrations=0, cache=cache)
    assert again.calls == len(tasks) - 128  # two chunks of 64 were saved


def verified(env: Environment, policy: ScriptedPolicy, tmp_path: Path, keep: int = 8):  # type: ignore[no-untyped-def]
    settings = DataSettings(samples=3, keep_per_class=keep)
    tasks, refused = authored(env, 60, held_out([env]), 0)
    assert not refused
    cache = Cache(tmp_path / "c.sqlite")
    return verify_answers(env, policy, settings, tasks, train_demonstrations=0, seed=0, cache=cache)


def test_nothing_enters_that_the_grader_does_not_accept(tmp_path: Path) -> None:
    env = environment(tmp_path)
    policy = ScriptedPolicy(lambda prompt, index: right(prompt) if index == 1 else random.Random(index).choice("ab"))
    found = verified(env, policy, tmp_path, keep=100)
    assert len(found.ledger) == 60 + 60 * 3
    assert found.dispositions == {"kept": 60, "wrong": 120}
    assert all(e.completion == e.task.reference and e.evidence == "sampled" for e in found.examples)
    row = found.examples[0].as_row()
    assert [m["role"] for m in row["messages"]] == ["system", "user", "assistant"]


def test_dispositions_and_the_quota(tmp_path: Path) -> None:
    env = environment(tmp_path)
    found = verified(env, ScriptedPolicy(lambda prompt, index: right(prompt)), tmp_path)
    # Three classes with 8 places each; every kept answer came three times.
    assert found.dispositions["kept"] == 24 and found.dispositions["duplicate"] == 48
    assert found.dispositions["surplus"] == 180 - 72
    assert sum(found.dispositions.values()) == 180


def test_references_serve_only_classes_that_no_sample_reaches(tmp_path: Path) -> None:
    env = environment(tmp_path)
    policy = ScriptedPolicy(lambda prompt, index: "YES")  # right for one class of three
    found = verified(env, policy, tmp_path)
    by_evidence = {(e.task.reference, e.evidence) for e in found.examples}
    assert by_evidence == {("YES", "sampled"), ("NO", "reference"), ("MAYBE", "reference")}
    assert found.dispositions["reference"] == 2 * 4  # half of keep_per_class


def test_a_broken_grader_is_no_wrong_answer(tmp_path: Path) -> None:
    source = "def grade(sample, item):\n    raise RuntimeError('broken')"
    env = environment(tmp_path, {"type": "python", "name": "p", "source": source})
    found = verified(env, ScriptedPolicy(lambda prompt, index: "YES"), tmp_path)
    assert found.dispositions["error"] == 180 and found.dispositions["wrong"] == 0
    passes = [("a", [None, None])]
    signal = measure_signal("s", passes, classes=None, samples=2, group_size=8, after="base")
    with pytest.raises(SignalError, match="every rollout ended in a grader error"):
        refuse_without_signal(signal, 0.05)


def test_signal_by_hand() -> None:
    passes = [("a", [True, False]), ("b", [False, False]), ("c", [True, True]), ("d", [True, None])]
    signal = measure_signal("s", passes, classes=None, samples=2, group_size=2, after="sft")
    assert (signal.tasks, signal.errors) == (4, 1)
    assert signal.pass_at_1 == (0.5 + 0 + 1 + 1) / 4
    assert signal.pass_at_k == 0.75 and signal.mixed == 0.25
    assert 0.25 <= signal.expected_mixed <= 0.5  # a quarter is mixed, and the last may be
    refuse_without_signal(signal, 0.05)
    with pytest.raises(SignalError, match=r"only \d+\.\d% of groups"):
        refuse_without_signal(signal, 0.6)
    hopeless = measure_signal("s", [("a", [False] * 4)], classes=None, samples=4, group_size=8, after="base")
    with pytest.raises(SignalError, match="none of 1 x 4 samples is right"):
        refuse_without_signal(hopeless, 0.05)


def test_tasks_are_spread_over_classes_and_groups(tmp_path: Path) -> None:
    env = environment(tmp_path)
    chosen = spread_over_classes(env.split("train"), env.classes or {}, 30, random.Random(0))
    assert len({t.id for t in chosen}) == 30
    assert sorted((env.classes or {})[t.id] for t in chosen) == ["MAYBE"] * 10 + ["NO"] * 10 + ["YES"] * 10


def test_the_curriculum_prefers_mixed_tasks_and_balances(tmp_path: Path) -> None:
    env = environment(tmp_path)
    tasks = env.split("train")
    mixed = {t.id for t in tasks[:40]}
    rates = {t.id: 0.5 if t.id in mixed else 1.0 for t in tasks}
    drawn = [t for s in range(20) for t in draw_tasks(tasks, env.classes, rates, 12, 0.5, random.Random(s))]
    share = sum(t.id in mixed for t in drawn) / len(drawn)
    assert share > 0.6  # 40 of 210 tasks hold two thirds of the weight
    for seed in range(5):
        few = draw_tasks(tasks, env.classes, {}, 6, 1.0, random.Random(seed))
        assert sorted((env.classes or {})[t.id] for t in few) == ["MAYBE", "MAYBE", "NO", "NO", "YES", "YES"]
    assert len(draw_tasks(tasks[:3], None, {}, 16, 0.5, random.Random(0))) == 3


def test_generated_rows_need_agreement(tmp_path: Path) -> None:
    env = environment(tmp_path)
    held_out = env.split("test")[0].messages[-1].content
    rows = [
        ("Question 1000?", "NO", {"id": "agreed"}),
        ("Question 1001?", "NO", {"id": "refuted"}),
        (held_out, "NO", {"id": "test question"}),
        ("", "NO", {"id": "empty"}),
        ("Question 1003?", "PERHAPS", {"id": "no label"}),
    ]
    policy = ScriptedPolicy(lambda prompt, index: right(prompt) if index < 2 else "hm")
    judged = judge_generated(env, rows, policy, samples=4, needed=2, seed=0, cache=Cache(tmp_path / "c.sqlite"))
    assert [j.disposition for j in judged] == ["kept", "no_agreement", "contaminated", "malformed", "error"]

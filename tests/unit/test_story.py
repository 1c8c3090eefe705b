"""``ilab data verify --explain``: one candidate's story, out of a real ledger."""

from __future__ import annotations

from pathlib import Path

import pytest

from rft_ilab.cli.story import find, story, tell
from rft_ilab.config import DataSettings, Settings, SkillSettings
from rft_ilab.errors import RunError
from rft_ilab.grading.engine import build_grader
from rft_ilab.policy.scripted import ScriptedPolicy
from rft_ilab.rollouts import Environment
from rft_ilab.skills.tasks import load_tasks
from rft_ilab.skills.tree import load_skill
from rft_ilab.store import Cache, append_jsonl
from rft_ilab.synth.screening import held_out
from rft_ilab.synth.verify import authored, verify_answers
from tests.unit.taxonomies import write_skill


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_skill(tmp_path)
    skill = load_skill(tmp_path, "area/skill", Settings())
    env = Environment.of(skill, load_tasks(skill), build_grader(skill), SkillSettings(demonstrations=2))
    tasks, _ = authored(env, 3, held_out([env]), 0)
    policy = ScriptedPolicy(lambda prompt, index: "YES" if index else "\x1b[31mhm")
    found = verify_answers(
        env, policy, DataSettings(samples=2), tasks, train_demonstrations=0, seed=5, cache=Cache(tmp_path / "c.sqlite")
    )
    append_jsonl(tmp_path / "data" / "ledger.jsonl", (line.as_row() for line in found.ledger))
    return tmp_path


def rows(run: Path) -> list[dict[str, object]]:
    import json

    return [json.loads(line) for line in (run / "data" / "ledger.jsonl").read_text().splitlines()]


def test_an_answer_s_story(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = next(row for row in rows(run) if row["kind"] == "answer" and row["disposition"] == "kept")
    tell(run, str(kept["id"])[:16])
    text = capsys.readouterr().out
    assert text.startswith(f"answer {kept['id']}: kept\n")
    for line in ("skill       area/skill", "reference   YES", "written     YES", "score       1.0"):
        assert f"  {line}\n" in text
    assert f"scripted:{ScriptedPolicy(lambda p, i: '').id[9:]}" in text and "seed 5" in text and "sample 1" in text
    assert f"answers     {str(kept['task_id'])[:12]}: Question" in text


def test_a_task_s_story_lists_its_answers_and_hides_no_control_character(run: Path) -> None:
    all_rows = rows(run)
    task = next(row for row in all_rows if row["kind"] == "task")
    lines = list(story(task, all_rows))
    assert lines[0] == f"task {task['id']}: {task['disposition']}".replace("_", " ")
    answers = [line for line in lines if line.startswith("  answer ")]
    assert len(answers) >= 2 and not any("\x1b" in line for line in lines)
    assert any("⟨U+001B⟩" in line for line in answers)


def test_ids_that_do_not_lead_to_one_candidate(run: Path) -> None:
    path = run / "data" / "ledger.jsonl"
    with pytest.raises(RunError, match=r"no candidate begins with 'zz' \(take an id from this file\)"):
        tell(run, "zz")
    with pytest.raises(RunError, match="no candidate begins with ''"):
        tell(run, "")
    some = [{"kind": "task", "id": f"ab{i}", "disposition": "kept"} for i in range(3)]
    with pytest.raises(RunError, match="3 candidates begin with 'ab'"):
        find(some, "ab", path)
    with pytest.raises(RunError, match="has no ledger"):
        tell(run / "nowhere", "ab")


def test_a_reference_shares_the_id_of_its_task(run: Path) -> None:
    pair = [{"kind": kind, "id": "ab", "disposition": "kept"} for kind in ("answer", "task")]
    assert find(pair, "a", run)["kind"] == "task"

"""Explaining one test task: from the results and the cache, afresh, and what is said when something is gone."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from rft_ilab.cli import explain as command
from rft_ilab.config import load_settings
from rft_ilab.errors import RunError
from rft_ilab.pipeline import Request, gate, regress
from rft_ilab.pipeline import explain as explain_module
from rft_ilab.pipeline import request as request_module
from rft_ilab.pipeline.explain import NO_DRAWS, NO_REASON, NO_TASK, REGRADED, explain, recorded_taxonomy
from rft_ilab.policy.scripted import ScriptedPolicy
from rft_ilab.report.explained import Again, Explanation, Graded, Seen, print_explanation
from rft_ilab.report.flips import print_flips, worst_group_first
from rft_ilab.report.gate_data import Flip
from rft_ilab.report.load import load_gate
from rft_ilab.results import read_results
from rft_ilab.store import Run, read_json
from rft_ilab.types import Message, Prompt
from tests.unit.taxonomies import LABEL_GRADER, LABELS, plain_rows, write_skill

TESTS = Path(__file__).resolve().parents[1]
FIXTURE = TESTS / "fixtures" / "run"
TARGET, WATCHED = "area/target", "area/watched"

Answer = Callable[[Prompt, int], str]


def number(prompt: Prompt) -> int:
    return int(prompt.messages[-1].content.split()[1].rstrip("?"))


def right(prompt: Prompt, index: int) -> str:
    return LABELS[number(prompt) % 3]


def weak(prompt: Prompt, index: int) -> str:
    """Right on one task in five."""
    return right(prompt, index) if number(prompt) % 5 == 4 else LABELS[(number(prompt) + 1) % 3]


def helped(prompt: Prompt, index: int) -> str:
    """Of no use without demonstrations."""
    return weak(prompt, index) if len(prompt.messages) > 2 else "MAYBE?"


class Judge:
    """Gates a scripted model against another; ``calls`` counts what they were asked since."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory, self.monkeypatch = directory, monkeypatch
        self.policies: dict[str, ScriptedPolicy] = {}
        self.taxonomy, self.run = directory / "taxonomy", directory / "data" / "instructlab" / "rft" / "runs" / "demo"

    @property
    def calls(self) -> int:
        return sum(policy.calls for policy in self.policies.values())

    def __call__(self, base: Answer, tuned: Answer) -> Request:
        self.policies = {name: ScriptedPolicy(answer, name) for name, answer in (("base", base), ("tuned", tuned))}
        for policy in self.policies.values():
            policy.id = f"local:{policy.id}"
        for module in (gate, request_module, explain_module):
            self.monkeypatch.setattr(module, "local_policy", lambda directory: self.policies[Path(directory).name])
        request = Request(taxonomy=self.taxonomy, run=self.run, settings=load_settings(self.taxonomy))
        regress(request, candidate=self.directory / "tuned", console=Console(file=io.StringIO()))
        for policy in self.policies.values():
            policy.calls = 0
        return request


@pytest.fixture
def judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Judge:
    """A taxonomy with a target and a watched skill, templates of several tasks, and an empty run."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(gate, "measure_speed", lambda policy: None)
    judge = Judge(tmp_path, monkeypatch)
    for name in (TARGET, WATCHED):
        write_skill(judge.taxonomy, name, rows=templated_rows())
    (judge.taxonomy / "rft.toml").write_text(f'[skills."{TARGET}"]\ntier = "target"\n')
    Run.create(judge.run, {"identity": {}, "model": str(tmp_path / "base")})
    return judge


def templated_rows() -> list[dict[str, Any]]:
    return [row | {"group": f"template-{i // 10}-{row['split']}"} for i, row in enumerate(plain_rows())]


def first_flip(request: Request) -> dict[str, Any]:
    return dict(read_json(request.run / "gate" / "verdict.json")["flips"][0])


# ---- results.jsonl ----


def test_there_is_one_line_a_suite_model_and_task(judged: Judge) -> None:
    request = judged(weak, right)
    lines = list(read_results(request.run / "gate" / "results.jsonl"))
    counts = Counter((line.suite, line.side, line.demonstrations) for line in lines)
    assert counts == {
        (TARGET, "baseline", 0): 60, (TARGET, "baseline", 8): 60, (TARGET, "candidate", 0): 60,
        (WATCHED, "baseline", 8): 60, (WATCHED, "candidate", 8): 60,
    }  # fmt: skip
    assert len({(line.suite, line.side, line.demonstrations, line.task_id) for line in lines}) == len(lines)
    verdict = read_json(request.run / "gate" / "verdict.json")
    for line in lines:
        assert line.model == verdict[line.side]["id"] and not line.ungraded
        assert line.greedy.answer == line.greedy.text
        assert len(line.sampled) == (2 if line.suite == TARGET else 0)
    means = [line.greedy.score or 0.0 for line in lines if (line.suite, line.side) == (TARGET, "candidate")]
    assert sum(means) / len(means) == verdict["targets"][0]["greedy"]["after"]


def test_a_line_that_is_none_of_ours_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="judge again with: ilab model regress"):
        next(read_results(tmp_path / "none.jsonl"))
    good = (FIXTURE / "gate" / "results.jsonl").read_text(encoding="utf-8").splitlines()[0]
    for bad in ("{", "[]", good.replace('"score": 1.0', '"score": 7'), good.replace('"side": "b', '"side": "x')):
        path = tmp_path / "results.jsonl"
        path.write_text(f"{good}\n{bad}\n", encoding="utf-8")
        with pytest.raises(RunError, match=r"results\.jsonl:2: not a line of results"):
            list(read_results(path))


# ---- one task ----


def test_a_flip_is_explained_from_results_and_cache_without_a_model(judged: Judge) -> None:
    request = judged(weak, right)
    flip = first_flip(request)
    e = explain(request.run, flip["task_id"][:10], request.taxonomy)
    assert judged.calls == 0 and e.notes == ()
    assert (e.skill, e.task_id, e.group, e.cls) == (TARGET, flip["task_id"], flip["group"], flip["class"])
    assert (e.before.greedy.text, e.after.greedy.text) == (flip["before"], flip["after"])
    assert e.after.greedy.answer == flip["reference"] and e.before.greedy.score == 0.0
    assert [draw.text for draw in e.after.draws] == [flip["after"]] * 2 and e.after.draws[0].answer == flip["reference"]
    # The baseline was asked with both prompts, the candidate as an application asks.
    assert {e.before.prompt, e.others[0].prompt} == {"zero-shot", "8 demonstrations"} and e.after.prompt == "zero-shot"
    turns = {seen.prompt: len(seen.turns) for seen in (e.before, *e.others, e.after)}
    assert turns == {"8 demonstrations": 12, "zero-shot": 0}  # the skill has six seeds
    assert [message.role for message in e.messages] == ["system", "user"] and e.messages[1].content == flip["prompt"]


def test_before_is_the_prompt_that_the_verdict_compares_with(judged: Judge) -> None:
    request = judged(helped, right)
    row = read_json(request.run / "gate" / "verdict.json")["targets"][0]
    e = explain(request.run, first_flip(request)["task_id"], request.taxonomy)
    assert e.before.prompt == row["greedy"]["before_prompt"]


def test_asked_again_the_same_model_says_the_same_bytes(judged: Judge) -> None:
    request = judged(weak, right)
    e = explain(request.run, first_flip(request)["task_id"], request.taxonomy, again=True)
    assert judged.calls == 3 * (1 + 2)  # both prompts of the baseline and the candidate, greedy and two draws
    for seen in (e.before, *e.others, e.after):
        assert [again.same for again in seen.again] == [True, True, True]


def test_asked_again_another_model_is_told_apart(judged: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    request = judged(weak, right)
    other = ScriptedPolicy(lambda prompt, index: "NO" if index else "I cannot say", "other")
    monkeypatch.setattr(explain_module, "local_policy", lambda directory: other)
    e = explain(request.run, first_flip(request)["task_id"], request.taxonomy, again=True)
    greedy, *_ = e.after.again
    assert not greedy.same and (greedy.graded.text, greedy.graded.score) == ("I cannot say", 0.0)
    assert any("the candidate is not the model that was judged" in note for note in e.notes)
    shown = printed(e)
    assert "generated again: another answer" in shown and "I cannot say" in shown


def test_what_is_gone_is_said(judged: Judge, tmp_path: Path) -> None:
    request = judged(weak, right)
    task = first_flip(request)["task_id"]
    shutil.rmtree(tmp_path / "cache")
    e = explain(request.run, task, request.taxonomy)
    assert e.notes == (NO_DRAWS,) and [(d.text, d.score) for d in e.after.draws] == [(None, 1.0)] * 2
    assert "at temperature 1, 2 draws: 2 right" in printed(e) and "(text no longer" not in printed(e)
    for gone in (tmp_path / "nowhere", request.taxonomy):
        write_skill(request.taxonomy, TARGET, rows=[row for row in plain_rows() if row["split"] != "test"])
        e = explain(request.run, task, gone)
        assert e.notes == (f"{gone}: {NO_TASK}",) and [m.role for m in e.messages] == ["user"] and e.after.greedy.text
        with pytest.raises(RunError, match=r"the task is not in this taxonomy \(name another"):
            explain(request.run, task, gone, again=True)


def test_an_answer_that_was_stored_without_a_reason_gets_one(judged: Judge) -> None:
    """A stored baseline keeps answers and scores, no reasons."""
    judged(weak, right)
    path = judged.run.joinpath("gate", "results.jsonl")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    known = next(row for row in rows if row["side"] == "baseline" and row["score"] == 0.0 and row["suite"] == TARGET)
    same = [row for row in rows if row["task_id"] == known["task_id"] and row["side"] == "baseline"]
    reasons = {row["demonstrations"]: row["reason"] for row in same}
    for row in same:
        row |= {"reason": "", "answer": None}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found = explain(judged.run, known["task_id"], judged.taxonomy)
    assert found.before.greedy.reason in reasons.values() and found.before.greedy.reason
    assert found.before.greedy.score == 0.0
    for row in same:
        row["score"] = 1.0  # not what the grader says: its words would belong to another grade
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert explain(judged.run, known["task_id"], judged.taxonomy).before.greedy.reason == NO_REASON


def test_a_changed_grader_does_not_change_what_the_gate_said(judged: Judge) -> None:
    request = judged(weak, right)
    strict = LABEL_GRADER | {"labels": ["OTHER"]}
    write_skill(request.taxonomy, TARGET, grader=strict, rows=templated_rows())
    e = explain(request.run, first_flip(request)["task_id"], request.taxonomy)
    assert REGRADED in e.notes and e.after.greedy.score == 1.0 and [d.score for d in e.after.draws] == [1.0, 1.0]


def test_a_prefix_names_one_task(judged: Judge) -> None:
    request = judged(weak, right)
    with pytest.raises(RunError, match=r"no test task begins with 'xyz' .*lists the flips"):
        explain(request.run, "xyz", request.taxonomy)
    with pytest.raises(RunError, match=r"120 tasks begin with '': .{12} \(area/.*give more digits"):
        explain(request.run, "", request.taxonomy)
    path = request.run / "gate" / "results.jsonl"
    task = first_flip(request)["task_id"]
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(line for line in lines if '"candidate"' not in line), encoding="utf-8")
    with pytest.raises(RunError, match="results of one model only"):
        explain(request.run, task, request.taxonomy)


# ---- the command ----


def run_command(taxonomy: Path, *arguments: str) -> Any:
    host = SimpleNamespace(config=SimpleNamespace(generate=SimpleNamespace(taxonomy_path=str(taxonomy))))
    return CliRunner(mix_stderr=False).invoke(command.explain, arguments, obj=host, env={"COLUMNS": "120"})


def test_the_command_of_a_flip_shows_it(judged: Judge, tmp_path: Path) -> None:
    request = judged(helped, right)
    flip = first_flip(request)
    words = flip["command"].split()
    assert words[:3] == ["ilab", "rft", "explain"] and words[4:] == ["--run", "demo"]
    # The taxonomy is that of the gate, whatever ilab has in its configuration.
    assert recorded_taxonomy(request.run) == request.taxonomy
    result = run_command(tmp_path / "elsewhere", *words[3:])
    assert result.exit_code == 0, result.stderr
    assert "fixed (wrong before, right now)" in result.stdout and flip["prompt"] in result.stdout
    assert "Seed question" not in result.stdout and "--messages shows them" in result.stdout
    assert "Seed question" in run_command(tmp_path, *words[3:], "--messages").stdout
    result = run_command(tmp_path / "elsewhere", *words[3:], "--taxonomy-path", str(tmp_path / "none"))
    assert "the task is not in this taxonomy" in result.stdout


def test_without_a_task_the_flips_are_listed(judged: Judge) -> None:
    request = judged(weak, right)
    result = run_command(request.taxonomy, "--run", "demo", "--limit", "5")
    fixed = sum(flip["direction"] == "fixed" for flip in read_json(request.run / "gate" / "verdict.json")["flips"])
    assert result.stdout.startswith(f"0 broken (right before, wrong now), {fixed} fixed; the worst group first.")
    assert f"{fixed - 5} more (--limit shows more)." in result.stdout
    result = run_command(request.taxonomy, "--run", "demo", "--skill", "area/none")
    assert result.stdout == "No greedy answer of area/none changed sides.\n"


def test_errors_are_one_line(judged: Judge) -> None:
    request = judged(weak, right)
    result = run_command(request.taxonomy, "zz", "--run", "demo")
    assert result.exit_code == 2 and result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1
    (request.run / "gate" / "results.jsonl").unlink()
    result = run_command(request.taxonomy, "zz", "--run", "demo")
    assert result.exit_code == 2 and "the single results of this gate are not there" in result.stderr


# ---- how it looks ----


def flip_of(group: str, direction: str, task_id: str = "t") -> Flip:
    texts = dict.fromkeys(("prompt", "reference", "before", "after", "before_reason", "after_reason"), "")
    return Flip(skill="s", task_id=task_id, direction=direction, group=group, **texts)


def test_the_worst_group_comes_first() -> None:
    flips = [flip_of("a", "broken"), flip_of("b", "fixed"), flip_of("b", "broken"), flip_of("b", "broken"),
             flip_of("b", "broken"), flip_of("c", "fixed")]  # fmt: skip
    ordered = [(flip.group, flip.direction) for flip in worst_group_first(flips)]
    assert ordered == [("b", "broken")] * 3 + [("b", "fixed"), ("a", "broken"), ("c", "fixed")]


def test_flips_that_the_verdict_leaves_out_are_counted(tmp_path: Path) -> None:
    run = Path(shutil.copytree(FIXTURE, tmp_path / "demo"))
    verdict = json.loads((run / "gate" / "verdict.json").read_text(encoding="utf-8"))
    verdict["flip_counts"][0]["broken"] += 700
    (run / "gate" / "verdict.json").write_text(json.dumps(verdict), encoding="utf-8")
    console = Console(file=(stream := io.StringIO()), width=100)
    print_flips(load_gate(run), console, run="demo", limit=10_000)
    text = stream.getvalue()
    assert text.startswith("704 broken (right before, wrong now), 100 fixed;")
    assert "700 more; 700 of them are in gate/results.jsonl only." in text


HOSTILE = "[bold]x[/] \x1b[2J\u202e [link=http://x]y\nsecond line"


def example(text: str = "REFILL") -> Explanation:
    def seen(title: str, score: float, text: str, answer: str | None, turns: int) -> Seen:
        return Seen(
            title=title,
            prompt="8 demonstrations" if turns else "zero-shot",
            turns=tuple(Message("user" if i % 2 == 0 else "assistant", f"turn {i}") for i in range(turns)),
            greedy=Graded(text=text, score=score, answer=answer, reason="right" if score else "no label found"),
            draws=(
                Graded(text=text, score=score, answer=answer),
                Graded(text=None, score=0.0),
                Graded(text="?", score=None, reason="the grader timed out"),
            ),
            temperature=1.0,
            again=(Again(graded=Graded(text="other", score=0.0, answer=None, reason="wrong"), same=False),
                   Again(graded=Graded(text=text, score=score), same=True)),
        )  # fmt: skip

    return Explanation(
        skill="healthcare/patient_triage", tier="target", task_id="3f2a1b9c0d4e5f", group="refill-3", cls="REFILL",
        messages=(Message("system", "Route the message."), Message("user", "I am nearly out of metformin.")),
        reference="REFILL",
        before=seen("Before, the baseline", 1.0, text, text, 16),
        after=seen("Now, the candidate", 0.0, f"The message is about {text}.\n\nIt should be routed.", None, 0),
        notes=("the draws were lost",),
    )  # fmt: skip


def printed(explanation: Explanation, width: int = 120, **options: bool) -> str:
    stream = io.StringIO()
    print_explanation(explanation, Console(file=stream, width=width, no_color=True), **options)
    return "".join(line.rstrip() + "\n" for line in stream.getvalue().splitlines())


@pytest.mark.parametrize("width", [120, 80])
def test_one_task_in_a_terminal(width: int) -> None:
    text = printed(example(), width)
    path = TESTS / "golden" / f"explain_{width}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_hostile_text_is_shown_as_it_is_written(width: int) -> None:
    e = example(HOSTILE)
    e = replace(e, skill=HOSTILE, group=HOSTILE, cls=HOSTILE, reference=HOSTILE, notes=(HOSTILE,),
                messages=(Message("user", HOSTILE),))  # fmt: skip
    text = printed(e, width)
    assert not {"\x1b", "\u202e"} & set(text)
    whole = " ".join(text.split())
    assert "[bold]x[/] ⟨U+001B⟩[2J⟨U+202E⟩ [link=http://x]y" in whole
    assert max(map(len, text.splitlines())) <= width

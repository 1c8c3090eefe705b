"""A change of graders asks no model, a change of one skill asks for that skill alone, and neither loads torch."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rft_ilab.cli.regrade import described
from rft_ilab.config import load_settings
from rft_ilab.errors import RunError
from rft_ilab.pipeline import Request, gate, regrade
from rft_ilab.pipeline.regrade import Change, Regraded
from rft_ilab.policy.scripted import ScriptedPolicy
from rft_ilab.store import Run, read_json
from rft_ilab.types import Prompt
from tests.unit.taxonomies import row, write_skill

ROOT = Path(__file__).resolve().parents[2]
COMMAND = "ilab model regress --run run"
EXACT = {
    "type": "string_check",
    "name": "g",
    "input": "{{sample.output_text}}",
    "reference": "{{item.reference}}",
    "operation": "eq",
}
Asked = list[tuple[str, str]]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("area/target", "area/watched"):
        leaf = write_skill(tmp_path / "taxonomy", name, grader=EXACT)
        qna = (leaf / "qna.yaml").read_text()
        (leaf / "qna.yaml").write_text(qna.replace("Answer YES", f"The {name} skill, answer YES"))
    (tmp_path / "taxonomy/rft.toml").write_text('[skills."area/target"]\ntier = "target"\n')
    Run.create(tmp_path / "run", {"identity": {}, "model": "base"})
    return tmp_path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """What was asked of the models: (model, system turn). The tuned one is right, but answers `watched` in small."""
    calls: Asked = []

    def find(directory: Path) -> ScriptedPolicy:
        model = Path(directory).name

        def said(prompt: Prompt, index: int) -> str:
            system = prompt.messages[0].content
            calls.append((model, system))
            number = int(prompt.messages[-1].content.split()[1].rstrip("?"))
            right = ("YES", "NO", "MAYBE")[number % 3]
            if model == "tuned":
                return right.lower() if "watched" in system else right
            return right if number % 5 == 0 or "watched" in system else "no idea"

        policy = ScriptedPolicy(said, model)
        policy.id = f"local:{policy.id}"
        return policy

    for module in (gate, regrade):
        monkeypatch.setattr(module, "local_policy", find)
    monkeypatch.setattr(gate, "measure_speed", lambda policy: None)
    return calls


def request(place: Path) -> Request:
    return Request(
        taxonomy=place / "taxonomy", run=place / "run", settings=load_settings(place / "taxonomy"), model=Path("base")
    )


def judged(place: Path) -> tuple[dict[str, Any], str]:
    """The verdict, and what was said."""
    out = io.StringIO()
    return gate.regress(request(place), Path("tuned"), console=Console(file=out, width=200)), out.getvalue()


def regraded(place: Path, examples: int = 2) -> tuple[list[Regraded], dict[str, Any]]:
    return regrade.regrade(
        request(place), Path("tuned"), command=COMMAND, examples=examples, console=Console(file=io.StringIO())
    )


def leaf(place: Path, name: str = "watched") -> Path:
    return place / "taxonomy/compositional_skills/area" / name


def test_a_change_of_one_grader_changes_its_grades_alone(place: Path, asked: Asked) -> None:
    before, _ = judged(place)
    assert before["outcome"] == "FAIL" and any("area/watched" in reason for reason in before["reasons"])
    asked.clear()
    assert regraded(place) == ([], before)
    (leaf(place) / "grader.json").write_text(json.dumps(EXACT | {"operation": "ilike"}))
    (found,), after = regraded(place)
    assert (found.skill, found.answers, found.moves) == ("area/watched", 120, {("wrong", "right"): 60})
    assert [c.model for c in found.examples] == ["candidate"] * 2 and found.examples[0].completion.islower()
    assert found.examples[0].before_reason != found.examples[0].after_reason
    assert after["outcome"] == "PASS" and read_json(place / "run/gate/verdict.json") == json.loads(json.dumps(after))
    assert regraded(place) == ([], after) and not asked


def test_what_could_not_be_graded_is_no_wrong_answer(place: Path, asked: Asked) -> None:
    judged(place)
    source = (
        "def grade(sample, item):\n    text = sample['output_text']\n    if text.islower():\n"
        "        raise ValueError(text)\n    return float(text == item['reference'])\n"
    )
    (leaf(place) / "grader.json").write_text(json.dumps({"type": "python", "source": source}))
    (found,), verdict = regraded(place)
    assert found.moves == {("wrong", "error"): 60} and verdict["outcome"] == "INCONCLUSIVE"
    (leaf(place) / "grader.json").write_text(json.dumps(EXACT | {"operation": "ilike"}))
    (again,), _ = regraded(place)
    assert again.moves == {("no grade", "right"): 60}


def test_without_the_answers_it_refuses(place: Path, asked: Asked) -> None:
    with pytest.raises(RunError, match=r"[\d,]+ answers of this gate are not in the cache.*make them with: ilab model"):
        regraded(place)
    judged(place)
    with (leaf(place) / "tasks.jsonl").open("a") as file:
        file.write(json.dumps(row("Question 999?", "YES", split="test")) + "\n")
    asked.clear()
    with pytest.raises(RunError, match="2 answers of this gate are not in the cache, and regrading asks no model"):
        regraded(place)
    assert not asked


def test_a_change_of_one_skill_asks_for_that_skill_alone(place: Path, asked: Asked) -> None:
    _, first = judged(place)
    assert first.startswith("gate: 660 test rollouts of baseline and candidate\n")
    asked.clear()
    _, second = judged(place)
    assert "; all answers are cached\n" in second and not asked
    with (leaf(place) / "tasks.jsonl").open("a") as file:
        file.write(json.dumps(row("Question 999?", "YES", split="test")) + "\n")
    _, third = judged(place)
    assert "662 test rollouts of baseline and candidate, 660 of them cached\n" in third
    assert [model for model, _ in asked] == ["base", "tuned"] and all("area/watched" in system for _, system in asked)
    asked.clear()
    qna = leaf(place) / "qna.yaml"
    qna.write_text(qna.read_text().replace("The area/watched", "The new area/watched"))
    judged(place)
    assert len(asked) > 120 and all("area/watched" in system for _, system in asked)


def test_texts_of_models_and_graders_cannot_write_on_the_terminal() -> None:
    change = Change("candidate", "t" * 64, 2, "q\x1b[2J", "a\r\nb", "wrong", "right", "[red]old[/red]", "\u202enew")
    lines = list(described(Regraded("area/skill", 9, {("wrong", "right"): 1}, [change])))
    assert lines[0] == "area/skill: 9 answers regraded, 1 grade changed: 1 wrong -> right"
    assert lines[1] == "  wrong -> right  task tttttttttttt, candidate, sample 2"
    assert not any(c in line for line in lines for c in "\x1b\r\n\u202e") and "[red]old[/red]" in lines[4]


WARM = """
import sys
sys.path.insert(0, {tools!r})
import bench_gate
from pathlib import Path
from rich.console import Console
from rft_ilab.config import load_settings
from rft_ilab.pipeline import Request, regress
from rft_ilab.pipeline.regrade import regrade
from rft_ilab.policy.local.identity import remember_format

remember_format("float32")
root = Path({root!r})
taxonomy, bench = root / "taxonomy", bench_gate.Bench(root)
if sys.argv[1] == "fill":
    bench_gate.write_taxonomy(taxonomy, 3, 40, 2)
    for name in ("baseline", "candidate"):
        bench_gate.write_model(bench.model(name), name)
    bench_gate.fill(taxonomy, bench.run, bench.model("baseline"))
else:
    request = Request(taxonomy=taxonomy, run=bench.run, settings=load_settings(taxonomy))
    regress(request, console=Console(stderr=True))
    regrade(request, command="", examples=1, console=Console(stderr=True, quiet=True))
heavy = {{"torch", "transformers", "tokenizers", "scipy.stats", "rft_ilab.synth", "rft_ilab.rl.stage"}}
print(sorted(heavy & set(sys.modules)))
"""


def test_a_warm_gate_loads_no_model(tmp_path: Path) -> None:
    """The real policies, on directories that only look like models: whoever loaded one would fail."""
    program = WARM.format(tools=str(ROOT / "tools"), root=str(tmp_path))
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    for step in ("fill", "warm"):
        done = subprocess.run(
            [sys.executable, "-c", program, step], env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]" and "; all answers are cached" in done.stderr

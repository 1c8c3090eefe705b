"""Lint: a good taxonomy has no findings; every way of being bad is found, all at once, with file and line."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from instructlab.configuration import get_default_config

from rft_ilab.cli.lint import lint as lint_command
from rft_ilab.config import Settings, SkillSettings
from rft_ilab.errors import SkillError
from rft_ilab.grading.engine import SkillGrader
from rft_ilab.grading.proof import golden
from rft_ilab.grading.proof.lint import Finding, lint_taxonomy
from rft_ilab.grading.proof.prove import prove
from rft_ilab.grading.sample import Mark, Sample
from rft_ilab.skills.tasks import scan_tasks
from rft_ilab.skills.tree import load_skill
from tests.unit.taxonomies import LABEL_GRADER, LABELS, QNA, plain_rows, row, write_skill

STRING = {"type": "string_check", "name": "s", "input": "{{sample.output_text}}", "reference": "{{item.reference}}"}
PYTHON = {"type": "python", "name": "p"}


def lint(taxonomy: Path, **parts: Any) -> list[Finding]:
    write_skill(taxonomy, **parts)
    return lint_taxonomy(taxonomy, Settings())


def errors(findings: list[Finding]) -> list[tuple[str, int | None, str]]:
    return [(finding.file.name, finding.line, finding.message) for finding in findings if finding.severity == "error"]


def test_a_good_taxonomy_has_no_findings(tmp_path: Path) -> None:
    assert lint(tmp_path) == []


def test_all_findings_come_at_once(tmp_path: Path) -> None:
    rows = [*plain_rows(), "{broken", row("Fine?", "PERHAPS"), plain_rows()[0]]
    leaf = write_skill(tmp_path, rows=rows)
    (leaf / "attribution.txt").unlink()
    other = write_skill(tmp_path, "area/other", grader='{"type": "label"\n')
    (other / "qna.yaml").write_text("a: 1\na: 2\n")
    (other / "attribution.txt").write_text(" \n")
    found = errors(lint_taxonomy(tmp_path, Settings(skills={"area/gone": SkillSettings()})))
    wanted = [
        ("rft.toml", None, "names no skill"),
        ("attribution.txt", None, "missing file"),
        ("tasks.jsonl", 301, "not valid JSON"),
        ("tasks.jsonl", 302, "unknown label 'PERHAPS'"),
        ("tasks.jsonl", 303, "the same messages and reference as line 1"),
        ("grader.json", 2, "not valid JSON"),
        ("qna.yaml", 2, "duplicate key 'a'"),
        ("attribution.txt", None, "empty file"),
    ]
    assert len(found) == len(wanted), found
    for file, line, message in wanted:
        assert any(f == file and n == line and message in m for f, n, m in found), (file, line, message, found)


def test_every_error_says_what_to_do(tmp_path: Path) -> None:
    findings = lint(tmp_path, rows=["{broken", row("Fine?", "PERHAPS")], grader={**LABEL_GRADER, "pass_threshold": 2})
    assert all(finding.fix for finding in findings if finding.severity == "error")
    assert f"{findings[0].file}: " in str(findings[0]) or f"{findings[0].file}:{findings[0].line}: " in str(findings[0])


@pytest.mark.parametrize("missing", ["grader.json", "tasks.jsonl", "qna.yaml"])
def test_missing_file(tmp_path: Path, missing: str) -> None:
    leaf = write_skill(tmp_path)
    (leaf / missing).unlink()
    assert errors(lint_taxonomy(tmp_path, Settings())) == [(missing, None, "missing file")]


def test_empty_taxonomy_and_unknown_skill(tmp_path: Path) -> None:
    assert [f.message for f in lint_taxonomy(tmp_path, Settings())] == ["no compositional_skills directory"]
    write_skill(tmp_path)
    with pytest.raises(SkillError, match="no skill 'area/gone'"):
        lint_taxonomy(tmp_path, Settings(), only=["area/gone"])


def test_only_limits_to_a_skill(tmp_path: Path) -> None:
    write_skill(tmp_path, "area/bad", rows=["{"])
    write_skill(tmp_path, "area/good")
    assert lint_taxonomy(tmp_path, Settings(), only=["area/good"]) == []
    assert lint_taxonomy(tmp_path, Settings(), only=["area/bad"])


def test_too_few_seeds(tmp_path: Path) -> None:
    repeated = QNA.replace("question 5?", "question 4?").replace("question 3?", "question 4?")
    assert errors(lint(tmp_path, qna=repeated)) == [("qna.yaml", None, "fewer than 5 different seed examples")]


def test_a_reference_that_its_grader_refuses(tmp_path: Path) -> None:
    rows = [task | {"target": task["reference"]} for task in plain_rows()]
    rows[6] |= {"reference": "YES "}
    del rows[8]["target"]
    found = errors(lint(tmp_path, rows=rows, grader={**STRING, "operation": "eq", "reference": "{{item.target}}"}))
    assert found[:2] == [
        ("tasks.jsonl", 7, "the grader refuses the reference 'YES ': 'YES ' is not the text 'YES'"),
        ("tasks.jsonl", 9, "the grader fails on the reference: the task has no field item.target"),
    ]


def test_many_refused_references_are_summed_up(tmp_path: Path) -> None:
    found = errors(lint(tmp_path, grader={**STRING, "operation": "eq", "reference": "never"}))
    assert [line for _, line, _ in found] == [1, 2, 3, 4, 5, 6]
    assert found[-1][2] == "295 more references are refused, the next one here"


@pytest.mark.parametrize(
    ("grader", "exploit"),
    [
        ({**STRING, "operation": "like"}, "a list of all labels passes"),
        ({**STRING, "operation": "ne", "reference": "wrong"}, "an empty answer passes"),
        ({**STRING, "operation": "ne", "reference": "wrong"}, "another task's reference passes"),
        ({**PYTHON, "source": "def grade(s, i): return 1.0"}, "an echo of the prompt passes"),
        ({**PYTHON, "source": "def grade(s, i): return s['output_text'].strip() in ('', i['reference'])"},
         "a blank answer passes"),
        ({**PYTHON, "source": "def grade(s, i): return s['output_text'] in ('\u200b', i['reference'])"},
         "a zero-width answer passes"),
        ({**PYTHON, "source": "def grade(s, i): return float(s['output_text'].split()[0] == i['reference'])"},
         "the grader fails on an empty answer (64 of 64 tasks): IndexError"),
    ],
)  # fmt: skip
def test_exploits_are_found(tmp_path: Path, grader: dict[str, Any], exploit: str) -> None:
    found = errors(lint(tmp_path, grader=grader))
    assert any(exploit in message for _, _, message in found), found
    assert {file for file, _, _ in found} == {"tasks.jsonl"}


def test_a_chance_hit_of_the_prompt_is_a_warning(tmp_path: Path) -> None:
    splits = ("train", "val", "test")
    rows = [row(f"Say {i} plus 0{'' if i else ' is 0'}", str(7 * i), split=splits[i % 3]) for i in range(60)]
    number = {**STRING, "type": "number"}
    findings = lint(tmp_path, rows=rows, grader=number)
    assert [(f.severity, f.message) for f in findings] == [
        ("warning", "an echo of the prompt passes (1 of 60 tasks), here 'Say 0 plus 0 is 0'")
    ]


def test_rare_classes_and_empty_splits_are_warnings(tmp_path: Path) -> None:
    rows = [row(f"Question {i}?", LABELS[i % 2], split="test" if i < 40 else "train") for i in range(100)]
    rows.append(row("Rare?", "MAYBE", split="test"))
    findings = lint(tmp_path, rows=rows)
    assert {finding.severity for finding in findings} == {"warning"}
    assert [finding.message for finding in findings] == [
        "no task in the val split, so nothing can be tuned",
        "class MAYBE has 1 test tasks; below 15 its accuracy says little",
        "class MAYBE is in the test split but not in the train split",
    ]


def test_the_same_prompt_with_two_answers_is_a_warning(tmp_path: Path) -> None:
    findings = lint(tmp_path, rows=[*plain_rows(), row("Question 0?", "NO")])
    assert [(f.severity, f.line, f.message) for f in findings] == [("warning", 301, "the same messages as line 1")]


def shared(taxonomy: Path, cases: list[Any] | None, source: str | None = None) -> list[Finding]:
    graders = taxonomy.parent / "graders"
    graders.mkdir(parents=True, exist_ok=True)
    body = source or "def grade(sample, item): return float(sample['output_text'] == item['reference'])"
    (graders / "same.py").write_text(body)
    if cases is not None:
        lines = [case if isinstance(case, str) else json.dumps(case) for case in cases]
        (graders / "same.cases.jsonl").write_text("".join(line + "\n" for line in lines))
    return lint(taxonomy, grader={"type": "ref", "name": "same"})


def test_golden_cases_hold(tmp_path: Path) -> None:
    cases = [
        {"sample": "a", "item": {"reference": "a"}, "score": 1.0},
        {"sample": "b", "item": {"reference": "a"}, "score": 0, "note": "another text"},
        {"sample": "b", "item": {}, "error": True},
    ]
    assert shared(tmp_path / "taxonomy", cases) == []


def test_golden_cases_that_do_not_hold_or_are_none(tmp_path: Path) -> None:
    good = {"sample": "a", "item": {"reference": "a"}}
    cases = [
        {**good, "score": 0.0},
        {**good, "error": True},
        {"sample": "a", "item": {}, "score": 0.0},
        "{",
        good,
        {**good, "score": 1, "error": True},
        {**good, "score": 2},
        {"item": {}, "score": 1},
        {**good, "score": 1, "colour": "red"},
        {**good, "error": False},
    ]
    found = shared(tmp_path / "taxonomy", cases)
    assert [finding.line for finding in found] == list(range(1, 11))
    assert [finding.message.split(":")[0] for finding in found[:3]] == [
        "golden case gives 1, not 0",
        "golden case gives 1, not an error",
        "golden case gives an error, not 0",
    ]


def test_a_shared_grader_without_cases_is_a_warning_and_a_broken_one_an_error(tmp_path: Path) -> None:
    (finding,) = shared(tmp_path / "taxonomy", None)
    assert (finding.severity, finding.file.name) == ("warning", "same.py") and "no golden cases" in finding.message
    found = errors(shared(tmp_path / "taxonomy", [], source="def grade(:"))
    assert [file for file, _, _ in found] == ["same.py", "grader.json"]
    assert all("SyntaxError" in message for _, _, message in found)


def test_lint_loads_neither_torch_nor_instructlab(tmp_path: Path) -> None:
    write_skill(tmp_path)
    code = (
        "import sys; from pathlib import Path; from rft_ilab.config import Settings\n"
        "from rft_ilab.grading.proof.lint import lint_taxonomy\n"
        f"assert lint_taxonomy(Path({str(tmp_path)!r}), Settings()) == []\n"
        "print(sorted({'torch', 'transformers', 'instructlab', 'openai', 'numpy', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_generator_is_tried_in_the_sandbox(tmp_path: Path) -> None:
    source = """
import itertools
import random
def tasks(seed):
    yield {"messages": [{"role": "user", "content": "Is it red?"}], "reference": "YES"}
    yield {"messages": [{"role": "user", "content": "Is it blue?"}], "reference": "PERHAPS"}
    yield {"messages": [{"role": "user", "content": "Is it green?"}]}
"""
    leaf = write_skill(tmp_path)
    assert lint_taxonomy(tmp_path, Settings()) == []
    (leaf / "generator.py").write_text(source)
    assert errors(lint_taxonomy(tmp_path, Settings())) == [
        ("generator.py", None, "row 3: no reference"),
        (
            "generator.py",
            None,
            "row 2: the grader does not accept the reference: unknown label 'PERHAPS': not one of YES, NO, MAYBE",
        ),
    ]
    (leaf / "generator.py").write_text("def tasks(seed):\n    return iter(())\n")
    (warning,) = lint_taxonomy(tmp_path, Settings())
    assert (warning.severity, warning.message) == ("warning", "yields no row")
    (leaf / "generator.py").write_text("import os\ndef tasks(seed):\n    yield os.listdir('/')\n")
    ((file, _, message),) = errors(lint_taxonomy(tmp_path, Settings()))
    assert file == "generator.py" and "ermi" in message  # permission denied, or not permitted
    # Not seeded: other rows whenever it is asked.
    row = '{"messages": [{"role": "user", "content": f"Is it {random.random()}?"}], "reference": "NO"}'
    (leaf / "generator.py").write_text(f"import random\ndef tasks(seed):\n    while True:\n        yield {row}\n")
    ((_, _, message),) = errors(lint_taxonomy(tmp_path, Settings()))
    assert message == "yields other rows when asked again with the same seed"


def test_no_grader_is_let_out_to_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its address, and the variables that its headers ask for, may be a stranger's choice."""
    monkeypatch.setattr("rft_ilab.grading.checks.endpoint.mark_all", lambda *_: pytest.fail("lint asked a server"))
    headers = {"x": "${RFT_ENDPOINT_KEY}"}
    endpoint = {"type": "endpoint", "name": "e", "url": "http://127.0.0.1:9/", "headers": headers}
    leaf = write_skill(tmp_path / "taxonomy", grader=endpoint)
    (leaf / "generator.py").write_text(
        "def tasks(seed):\n    yield {'messages': [{'role': 'user', 'content': 'x?'}], 'reference': 'YES'}\n"
    )
    graders = tmp_path / "graders"
    graders.mkdir()
    (graders / "outside.json").write_text(json.dumps(endpoint))
    (graders / "outside.cases.jsonl").write_text('{"sample": "YES", "item": {}, "score": 1.0}\n')
    told = [finding.message for finding in lint_taxonomy(tmp_path / "taxonomy", Settings())]
    assert "golden cases not tried here: the grader asks a model or a server" in told
    assert "not proven here: the grader asks a model or a server" in told


@pytest.mark.parametrize("name", ["area/\udcff", "area/\x1b[2J\n::error::x"])
def test_a_name_that_no_terminal_should_see(tmp_path: Path, name: str) -> None:
    leaf = write_skill(tmp_path, name)
    (leaf / "attribution.txt").write_text("Title \n")
    host = types.SimpleNamespace(config=get_default_config())
    result = CliRunner(mix_stderr=False).invoke(lint_command, ["--taxonomy-path", str(tmp_path), "--fix"], obj=host)
    assert result.exit_code == 2 and "bad skill name" in result.stdout
    assert "Traceback" not in result.stderr and "\n::error" not in result.stderr


@pytest.mark.parametrize("number", ["0x" + "f" * 6000, "1" + ":10" * 40_000])
def test_a_number_without_end(tmp_path: Path, number: str) -> None:
    found = errors(lint(tmp_path, qna=QNA.replace("Seed question 0?", number)))
    assert found == [("qna.yaml", 5, f"not valid YAML: a number of {len(number)} characters")]


class Mute:
    """A check that is stopped on every text but its references, after a while, as a loop without end is."""

    def __init__(self, right: int) -> None:
        self.right, self.tried = right, 0

    def mark(self, samples: Sequence[Sample]) -> list[Mark]:
        marks = []
        for sample in samples:
            self.tried += 1
            right = sample.text == sample.item["reference"] and self.tried <= self.right
            marks.append(Mark(1.0, None, "right") if right else Mark.failed("time-out"))
        time.sleep(0.02)
        return marks


@pytest.mark.parametrize(
    ("right", "tried", "message"),
    [
        (0, 3, "297 more references were not tried, the next one here: the grader gives no score, the last 3 times"),
        (200, 259, "41 more references were not tried"),
        (300, 428, "the grader gives no score, the last 3 times in a row"),
    ],
)
def test_a_grader_that_never_returns_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, right: int, tried: int, message: str
) -> None:
    monkeypatch.setattr(golden, "PATIENCE", 0.01)
    leaf = write_skill(tmp_path)
    skill = load_skill(tmp_path, "area/skill", Settings())
    check = Mute(right)
    files = {"tasks_file": leaf / "tasks.jsonl", "grader_file": leaf / "grader.json"}
    proof = prove(SkillGrader(check, 1.0, ""), {"type": "python"}, scan_tasks(skill)[0], name="mute", **files)
    given_up = [finding for finding in proof.findings if message in finding.message]
    assert [finding.severity for finding in given_up] == ["error"]
    assert given_up[0].fix
    assert check.tried <= tried + 128 * (0 < right < 300)
    assert len(proof.findings) <= 8
    if not 0 < right < 300:
        assert check.tried == tried


@pytest.mark.slow
def test_hundreds_of_references_of_a_loop_without_end_take_seconds(tmp_path: Path) -> None:
    started = time.monotonic()
    found = errors(lint(tmp_path, grader={**PYTHON, "source": "def grade(sample, item):\n    while True: pass\n"}))
    assert time.monotonic() - started < 60  # 15 s on an idle machine
    assert [line for _, line, _ in found] == [1, 2, 3, 4]
    assert "297 more references were not tried" in found[3][2]

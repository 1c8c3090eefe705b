"""The proof of graders: every known hole is named, graders without one pass, waivers need a reason, all is data."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from rft_ilab.cli.grader_test import grader_test
from rft_ilab.config import Settings
from rft_ilab.grading.engine import SkillGrader, grader_of
from rft_ilab.grading.proof.battery import cases_of
from rft_ilab.grading.proof.exploits import PROBES
from rft_ilab.grading.proof.hostile import Case, glued, holds, is_blank
from rft_ilab.grading.proof.lint import lint_taxonomy
from rft_ilab.grading.proof.mutation import OPERATORS, mutants
from rft_ilab.grading.proof.prove import FULL, LINT, REMOTE, Proof, has_part, prove
from rft_ilab.grading.proof.rules import RULES
from rft_ilab.grading.proof.waivers import NAMES, read_waivers
from rft_ilab.grading.sample import Mark, Sample
from tests.unit.known_bad_graders import FLAWED, ROBUST, WORDS, Specimen, tasks_of
from tests.unit.taxonomies import plain_rows, write_skill

ROOT = Path(__file__).resolve().parents[2]
EXACT = {
    "type": "string_check",
    "name": "s",
    "input": "{{sample.output_text}}",
    "reference": "{{item.reference}}",
    "operation": "eq",
}
LIKE = {**EXACT, "operation": "like"}


def proof_of(specimen: Specimen, directory: Path, effort: Any = LINT) -> Proof:
    grader = grader_of(specimen.config, "", directory / "grader.json")
    files = {"tasks_file": directory / "tasks.jsonl", "grader_file": directory / "grader.json"}
    return prove(grader, specimen.config, specimen.tasks, name=specimen.name, effort=effort, **files)


def caught(proof: Proof) -> set[str]:
    rows = {result.name for result in proof.results if result.outcome == "error"}
    rows |= {"mutation"} if any(finding.severity == "error" for finding in proof.mutation.findings) else set()
    return rows | ({"reference"} if proof.refused else set())


# These two are only stopped by the sandbox, after 5 s.
STOPPED = ("slow-pattern", "evaluates")


@pytest.mark.parametrize(
    "specimen",
    [pytest.param(s, id=s.name, marks=[pytest.mark.slow] if s.name in STOPPED else []) for s in FLAWED],
)
def test_a_known_hole_is_named(specimen: Specimen, tmp_path: Path) -> None:
    proof = proof_of(specimen, tmp_path)
    assert specimen.caught <= caught(proof), [str(finding) for finding in proof.findings]
    assert proof.errors and all(finding.line and finding.fix for finding in proof.findings)


@pytest.mark.parametrize("specimen", ROBUST, ids=lambda specimen: specimen.name)
def test_a_grader_without_a_hole_passes(specimen: Specimen, tmp_path: Path) -> None:
    proof = proof_of(specimen, tmp_path, FULL)
    assert [str(finding) for finding in proof.findings if finding.severity == "error"] == []
    assert proof.mutation.score == 1.0 and proof.latency_ms


def test_there_are_enough_specimens_and_each_probe_has_one() -> None:
    assert len(FLAWED) >= 12 and len(ROBUST) >= 4
    named = {name for specimen in FLAWED for name in specimen.caught}
    # What only warns, only says whether the grader extracts, or goes with another probe.
    others = {"gold", "gold-white-space", "gold-reasoning", "unicode", "labels-reversed", "delimiters", "in-time"}
    assert {probe.name for probe in PROBES} | set(RULES) <= named | others


def test_an_always_right_grader_kills_no_mutant(tmp_path: Path) -> None:
    proof = proof_of(next(s for s in FLAWED if s.name == "always-right"), tmp_path)
    assert proof.mutation.score == 0.0
    assert any("mutation score 0%" in finding.message for finding in proof.findings)


def test_partial_pay_below_the_threshold_is_found(tmp_path: Path) -> None:
    proof = proof_of(next(s for s in FLAWED if s.name == "half-for-tags"), tmp_path)
    (row,) = [result for result in proof.results if result.name == "format"]
    assert row.score == 0.5 and row.outcome == "error"
    assert "an empty form earns 0.5" in row.note and "<answer>" in row.note


def test_what_a_number_grader_cannot_see_is_a_hint_and_no_finding_of_lint(tmp_path: Path) -> None:
    number = next(s for s in ROBUST if s.name == "number")
    assert proof_of(number, tmp_path, LINT).findings == ()
    found = [(f.severity, f.message.split(" passes")[0]) for f in proof_of(number, tmp_path, FULL).findings]
    assert found == [("warning", "the negated answer"), ("warning", "an answer only in the thoughts")]


def test_white_space_that_costs_a_right_answer_its_score_is_a_hint(tmp_path: Path) -> None:
    exact = Specimen(name="exact", config=EXACT, tasks=WORDS)
    assert proof_of(exact, tmp_path, LINT).findings == ()
    (finding,) = proof_of(exact, tmp_path, FULL).findings
    assert finding.severity == "warning" and "white space around it earns 0 (16 of 16 tasks)" in finding.message


def test_an_answer_that_is_right_for_few_other_tasks_is_a_warning(tmp_path: Path) -> None:
    source = "def grade(s, i): return float(s['output_text'] in (i['reference'], i['also']))"
    tasks = tasks_of([f"city{i}" for i in range(40)])
    others = [case.other for case in cases_of(tasks, (), 64)]
    for index, (_, task) in enumerate(tasks):
        task.item["also"] = others[index] if index < 3 else task.reference  # type: ignore[index]
    few = Specimen(name="few", config={"type": "python", "source": source}, tasks=tasks)
    (row,) = [result for result in proof_of(few, tmp_path).results if result.name == "other-reference"]
    assert row.outcome == "warning" and "passes (3 of 40 tasks)" in row.note
    for _, task in tasks[:6]:
        task.item["also"] = others[task_index(task.id)]  # type: ignore[index]
    (row,) = [result for result in proof_of(few, tmp_path).results if result.name == "other-reference"]
    assert row.outcome == "error"


def task_index(id: str) -> int:
    return int(id.removeprefix("t"))


def test_no_reference_that_passes_means_no_probes(tmp_path: Path) -> None:
    proof = proof_of(Specimen(name="never", config={**EXACT, "reference": "never"}, tasks=WORDS), tmp_path)
    assert proof.results == () and proof.refused == len(WORDS) and proof.latency_ms is None


@pytest.mark.parametrize(
    ("text", "gold", "held"),
    [("I cannot", "no", False), ("Score: 1", "1", True), ("1e999", "1", False), ("", "", True), ("a", "", False),
     ("\u200b", " ", True), ("```{}```", "{}", True), ("{ }", "{}", False), ("a b c", "B c", True)],
)  # fmt: skip
def test_texts_that_may_be_right_by_chance_are_left_out(text: str, gold: str, held: bool) -> None:
    assert holds(text, gold) is held


@pytest.mark.parametrize(
    "gold", ["", " ", "\u200b", "{}", "[]", "0", "-0", "$5", "5%", "1/2", "<answer>1</answer>", "\ud83d"]
)
def test_every_probe_and_mutant_can_be_made_of_any_reference(gold: str) -> None:
    task = tasks_of([gold])[0][1]
    for other, labels in ((None, ()), ("x", ("x", gold)), ("{}", ("a", "b", gold))):
        case = Case(line=1, task=task, other=other, labels=labels)
        for probe in PROBES:
            assert all(isinstance(text, str) for text in probe.texts(case))
        assert all(name in OPERATORS and text != gold for name, text in mutants(case))
    if is_blank(gold):
        knowing = [probe for probe in PROBES if probe.knowing]
        assert knowing and not any(probe.texts(Case(line=1, task=task, other="x")) for probe in knowing)


@pytest.mark.parametrize(
    ("gold", "wrong"),
    [
        ("42", [("digit", "52"), ("swap", "24"), ("sign", "-42")]),
        ("0", [("digit", "1")]),
        ("5 kg", [("digit", "6 kg"), ("unit", "5 g")]),
        ("yes", [("label", "no"), ("negated", "not yes")]),
        ("The shop is open", [("word", "The is open"), ("negated", "The shop is not open")]),
        ("one\ntwo", []),
        ('{"a": true}', [("field-dropped", "{}"), ("field-renamed", '{"a_": true}'), ("value", '{"a": false}')]),
        ('["a", 9]', [("field-dropped", "[9]"), ("field-dropped", '["a"]'), ("item-added", '["a", 9, "other a"]'),
                      ("value", '["other a", 9]'), ("value", '["a", 8]')]),
        ("[2, 1]", [("field-dropped", "[1]"), ("field-dropped", "[2]"), ("item-added", "[2, 1, 3]"),
                    ("value", "[3, 1]"), ("value", "[2, 2]")]),
        ('{"a": [1]}', [("field-dropped", "{}"), ("field-renamed", '{"a_": [1]}'), ("item-added", '{"a": [1, 2]}'),
                        ("value", '{"a": [2]}')]),
        ("[]", [("item-added", '["something"]')]), ("{}", []),
    ],
)  # fmt: skip
def test_mutants(gold: str, wrong: Sequence[tuple[str, str]]) -> None:
    case = Case(line=1, task=tasks_of([gold])[0][1], labels=("no", "yes"))
    assert list(mutants(case)) == list(wrong)


def test_fields_that_the_grader_ignores_are_not_changed() -> None:
    case = Case(line=1, task=tasks_of([{"a": 1, "b": 2}])[0][1])
    assert {json.dumps(json.loads(text).get("b")) for _, text in mutants(case, ["a"])} == {"2"}


def test_another_reference_is_as_unlike_as_can_be() -> None:
    cases = cases_of(tasks_of(["red mug", "blue mug", "red box", "green tin"]), (), 64)
    assert [case.other for case in cases] == ["green tin", "green tin", "blue mug", "blue mug"]
    assert cases_of(tasks_of(["a", " a "]), (), 64)[0].other is None


def test_glued_numbers_are_other_numbers() -> None:
    assert glued("1.5 and 2") == ["91.5 and 2", "1.5 and 29"] and glued("1.5") == ["91.5"] and glued("...") == []


def test_names_are_distinct_and_waivable_but_for_the_reference() -> None:
    assert max(Counter([*(probe.name for probe in PROBES), *RULES]).values()) == 1
    assert "gold" not in NAMES and {"empty", "repeat", "mutant-unit"} <= set(NAMES)


def test_a_waiver_hides_its_probe_and_shows_its_reason(tmp_path: Path) -> None:
    contains = next(s for s in FLAWED if s.name == "contains")
    names = sorted(caught(proof_of(contains, tmp_path)) - {"mutation"})
    (tmp_path / "grader.waivers.json").write_text(json.dumps(dict.fromkeys(names, "free text around it is wanted")))
    proof = proof_of(contains, tmp_path)
    assert caught(proof) <= {"mutation"}
    waived = [result for result in proof.results if result.outcome == "waived"]
    assert [r.name for r in waived] == [r.name for r in proof.results if r.name in names]
    assert {result.note for result in waived} == {"free text around it is wanted"}


def test_a_waived_mutant_no_longer_counts(tmp_path: Path) -> None:
    no_sign = next(s for s in FLAWED if s.name == "no-sign")
    (tmp_path / "grader.waivers.json").write_text('{"mutant-sign": "amounts are never negative"}')
    proof = proof_of(no_sign, tmp_path)
    assert proof.mutation.score == 1.0 and proof.errors == 0
    assert proof.as_dict()["mutation"]["waived"] == {"sign": "amounts are never negative"}


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ('{\n "blank": " "\n}', 2, "'blank' is waived without a reason"),
        ('{"blank": 1}', 1, "'blank' is waived without a reason"),
        ('{"empty": "why",\n "emty": "why"}', 2, "no probe is named 'emty'"),
        ('{"gold": "why"}', 1, "the reference itself cannot be waived"),
        ('{"empty": "why", "empty": "why"}', None, "duplicate key 'empty'"),
        ("[]", 1, "not a JSON object"),
        ("{", None, "not valid JSON"),
    ],
)
def test_bad_waivers_are_findings(tmp_path: Path, text: str, line: int | None, message: str) -> None:
    leaf = write_skill(tmp_path)
    (leaf / "grader.waivers.json").write_text(text)
    (finding,) = lint_taxonomy(tmp_path, Settings())
    assert (finding.severity, finding.line, finding.file.name) == ("error", line, "grader.waivers.json")
    assert message in finding.message and finding.fix


def test_waivers_that_are_a_symlink_are_refused(tmp_path: Path) -> None:
    (tmp_path / "grader.waivers.json").symlink_to(tmp_path / "nowhere")
    waivers, (finding,) = read_waivers(tmp_path / "grader.json")
    assert waivers == {} and finding.message == "is a symbolic link"


def test_lint_does_not_try_a_grader_that_asks_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nested = {"type": "multi", "graders": [{"type": "label_model"}]}
    assert has_part({"type": "endpoint"}, REMOTE) and has_part(nested, REMOTE) and not has_part(EXACT, REMOTE)
    write_skill(tmp_path, grader=LIKE)
    monkeypatch.setattr("rft_ilab.grading.proof.lint_skill.REMOTE", {"string_check"})
    (finding,) = lint_taxonomy(tmp_path, Settings())
    assert (finding.severity, finding.fix) == ("warning", "ilab rft grader-test area/skill")


def test_a_grader_that_checks_a_form_may_pass_any_text_of_that_form(tmp_path: Path) -> None:
    form = {"type": "json_schema", "name": "f", "input": "{{sample.output_text}}", "schema": {"type": "object"}}
    proof = proof_of(Specimen(name="form", config=form, tasks=tasks_of([{"a": i} for i in range(20)])), tmp_path, FULL)
    rows = {result.name: result for result in proof.results}
    assert proof.findings == () and proof.mutation.score is None
    assert rows["format"].expects == "graded" and rows["format"].outcome == "ok" and rows["empty"].expects == "low"


class Sleeper:
    """A check that is slow on long answers."""

    def mark(self, samples: Sequence[Sample]) -> list[Mark]:
        time.sleep(0.02 * sum(len(sample.text) > 50_000 for sample in samples))
        return [Mark(float(sample.text == sample.item.get("reference", sample.text))) for sample in samples]


def test_a_slow_grader_is_named_with_the_text_that_it_is_slow_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rft_ilab.grading.proof.rules.SECONDS", 0.015)
    grader = SkillGrader(Sleeper(), 1.0, "")
    files = {"tasks_file": tmp_path / "tasks.jsonl", "grader_file": tmp_path / "grader.json"}
    proof = prove(grader, {}, WORDS, name="slow", effort=LINT, **files)
    (finding,) = proof.findings
    assert "the grader takes" in finding.message and "characters, here 'lorem ipsum" in finding.message
    assert [result.name for result in proof.results if result.outcome == "error"] == ["in-time"]


def invoke(*arguments: Any) -> Result:
    return CliRunner().invoke(grader_test, [str(argument) for argument in arguments])


def test_command_on_a_good_and_a_bad_skill(tmp_path: Path) -> None:
    write_skill(tmp_path, "area/good")
    write_skill(tmp_path, "area/bad", grader=LIKE)
    good = invoke("--taxonomy-path", tmp_path, "area/good")
    assert good.exit_code == 0, good.output
    assert "master-key" in good.output and "300/300" in good.output and "100.0%" in good.output
    both = invoke("--taxonomy-path", tmp_path)
    assert both.exit_code == 2 and "tasks.jsonl:1: error: " in both.output and "master-key" not in both.output


def test_command_prints_json(tmp_path: Path) -> None:
    write_skill(tmp_path, grader={**EXACT, "operation": "ne", "reference": "wrong"})
    done = invoke("--taxonomy-path", tmp_path, "--json", "--tasks", 8)
    report = json.loads(done.stdout)
    (grader,) = report["graders"]
    assert done.exit_code == 2 and report["errors"] == len([f for f in grader["findings"] if f["severity"] == "error"])
    assert not grader["passed"] and grader["references"] == {"tried": 300, "refused": 0}
    rows = {row["name"]: row for row in grader["probes"]}
    assert rows["labels"]["outcome"] == "error" and rows["labels"]["score"] == 1.0
    assert rows["labels"]["tasks"] == 8 and "YES" in rows["labels"]["text"]
    assert grader["mutation"]["score"] == 0 and grader["mutation"]["survivors"] and grader["latency_ms"]["n"] == 32


def test_command_tries_a_candidate_on_a_skill_or_on_its_own_cases(tmp_path: Path) -> None:
    write_skill(tmp_path / "taxonomy")
    candidate = tmp_path / "candidate.json"
    candidate.write_text(json.dumps(LIKE))
    skill = invoke("--taxonomy-path", tmp_path / "taxonomy", "--grader", candidate, "area/skill")
    assert skill.exit_code == 2 and "a list of all labels passes" in skill.output
    alone = invoke("--taxonomy-path", tmp_path / "taxonomy", "--grader", candidate)
    assert alone.exit_code == 2 and "no tasks to try the grader on" in alone.output
    cases = [{"sample": text, "item": {"reference": text}, "score": 1} for text in ("Paris", "Rome")]
    cases.append({"sample": "x", "item": {"reference": "Rome"}, "score": 1})
    (tmp_path / "candidate.cases.jsonl").write_text("\n".join(map(json.dumps, cases)))
    own = invoke("--taxonomy-path", tmp_path / "taxonomy", "--grader", candidate)
    assert own.exit_code == 2 and "candidate.cases.jsonl:3: error: golden case gives 0, not 1" in own.output


def test_command_says_what_is_wrong_with_the_tasks_too(tmp_path: Path) -> None:
    write_skill(tmp_path, rows=[*plain_rows(), "{"])
    done = invoke("--taxonomy-path", tmp_path)
    assert done.exit_code == 2 and "tasks.jsonl:301: error: not valid JSON" in done.output
    assert invoke("--taxonomy-path", tmp_path, "area/none").exit_code == 2


def test_table_shows_hostile_text_escaped(tmp_path: Path) -> None:
    rows = [{**row, "reference": f"\x1b[2J{row['reference']}"} for row in plain_rows()]
    write_skill(tmp_path, rows=rows, grader=LIKE)
    (tmp_path / "compositional_skills/area/skill/grader.waivers.json").write_text('{"repeat": "\\u001b[31mred"}')
    assert "\x1b" not in invoke("--taxonomy-path", tmp_path).output


@pytest.mark.parametrize(
    "specimen", [s for s in (*FLAWED, *ROBUST) if s.name in ("contains", "label")], ids=lambda s: s.name
)
def test_a_proof_is_the_same_every_time(specimen: Specimen, tmp_path: Path) -> None:
    first, second = (proof_of(specimen, tmp_path).as_dict() for _ in range(2))
    for probes in (first["probes"], second["probes"]):
        next(row for row in probes if row["name"] == "in-time").pop("note")
    assert first == second


def test_the_shipped_graders_have_no_hole() -> None:
    done = invoke("--taxonomy-path", ROOT / "taxonomy", "--json")
    report = json.loads(done.stdout)
    assert (done.exit_code, report["errors"], len(report["graders"])) == (0, 0, 5), report["graders"]
    assert all(grader["mutation"]["score"] == 1.0 for grader in report["graders"])
    assert invoke("--taxonomy-path", ROOT / "taxonomy", "--grader", ROOT / "graders" / "iso_date.py").exit_code == 0

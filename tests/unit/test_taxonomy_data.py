"""The committed taxonomy: counts, splits without leaks, balance, InstructLab's own schema check, reproducible files."""

from __future__ import annotations

import datetime
import importlib.util
import json
import re
from collections import Counter
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from rich.console import Console

from rft_ilab.config import load_settings
from rft_ilab.grading.proof.lint import lint_taxonomy
from rft_ilab.pipeline.baselines import asked, read_baseline
from rft_ilab.pipeline.gauge import Gauge
from rft_ilab.pipeline.request import Request, Workspace
from rft_ilab.pipeline.screen import Screen
from rft_ilab.regress.baseline import short_digest, short_id
from rft_ilab.skills.tasks import load_tasks
from rft_ilab.skills.tree import find_skills

ROOT = Path(__file__).resolve().parents[2]
TAXONOMY = ROOT / "taxonomy"
SKILLS = TAXONOMY / "compositional_skills"
TRIAGE, DATES, ORDERS, POLICY, BANKING = NAMES = (
    "healthcare/patient_triage",
    "dates/iso_date",
    "retail/order_json",
    "retail/return_policy",
    "banking/card_intents",
)
RARE = ("APPT_QUESTION", "SCHEDULE", "RESCHEDULE", "CANCEL", "OTHER")
OURS = "rft-ilab authored"


@cache
def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (SKILLS / name / "tasks.jsonl").read_text(encoding="utf-8").splitlines()]


@cache
def qna(name: str) -> dict[str, Any]:
    parsed: dict[str, Any] = yaml.safe_load((SKILLS / name / "qna.yaml").read_text(encoding="utf-8"))
    return parsed


def question(row: dict[str, Any]) -> str:
    """The last user turn, as a reader would compare it."""
    return " ".join(row["messages"][-1]["content"].casefold().split())


def share(name: str, split: str) -> Counter[str]:
    return Counter(row["reference"] for row in rows(name) if row["split"] == split)


def make_tasks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_tasks", ROOT / "tools" / "make_tasks.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_five_skills_are_there_with_their_tiers() -> None:
    skills = {skill.name: skill.tier for skill in find_skills(TAXONOMY, load_settings(TAXONOMY))}
    assert skills == {
        TRIAGE: "target",
        POLICY: "critical",
        DATES: "supporting",
        ORDERS: "supporting",
        BANKING: "supporting",
    }


@pytest.mark.parametrize("name", NAMES)
def test_no_message_group_or_id_is_shared_by_splits(name: str) -> None:
    questions = Counter(question(row) for row in rows(name))
    assert not [text for text, count in questions.items() if count > 1]
    splits_of: dict[str, set[str]] = {}
    for row in rows(name):
        splits_of.setdefault(row["group"], set()).add(row["split"])
    assert {len(splits) for splits in splits_of.values()} == {1}
    assert len({row["id"] for row in rows(name)}) == len(rows(name))


@pytest.mark.parametrize("name", NAMES)
def test_no_seed_example_is_a_task(name: str) -> None:
    seeds = {" ".join(seed["question"].casefold().split()) for seed in qna(name)["seed_examples"]}
    assert len(seeds) == len(qna(name)["seed_examples"]) >= 8
    assert not seeds & {question(row) for row in rows(name)}


@pytest.mark.parametrize("name", NAMES)
def test_every_task_loads_as_written(name: str) -> None:
    settings = load_settings(TAXONOMY)
    skill = next(skill for skill in find_skills(TAXONOMY, settings) if skill.name == name)
    tasks = load_tasks(skill)
    assert Counter((task.split, task.group) for task in tasks) == Counter((r["split"], r["group"]) for r in rows(name))
    assert len(skill.seeds) >= settings.skill(name).demonstrations


@pytest.mark.parametrize("name", [DATES, ORDERS, POLICY, BANKING])
def test_counts_of_the_watched_skills(name: str) -> None:
    assert Counter(row["split"] for row in rows(name)) == {"train": 300, "val": 60, "test": 150}


@pytest.mark.parametrize(("name", "classes"), [(POLICY, 2), (BANKING, 10)])
@pytest.mark.parametrize(("split", "size"), [("train", 300), ("val", 60), ("test", 150)])
def test_classes_of_watched_skills_are_balanced(name: str, classes: int, split: str, size: int) -> None:
    assert set(share(name, split).values()) == {size // classes} and len(share(name, split)) == classes


def test_triage_has_enough_of_every_class_and_no_majority() -> None:
    test, val, train = share(TRIAGE, "test"), share(TRIAGE, "val"), share(TRIAGE, "train")
    assert 280 <= test.total() <= 320 and len(test) == 8
    assert max(test.values()) / test.total() < 0.30
    for label in RARE:
        assert test[label] >= 20 and val[label] >= 10 and train[label] >= 40, label
    # one class, one template, is not a majority of a class either: a class is more than one sentence
    groups = {(row["reference"], row["group"]) for row in rows(TRIAGE) if row["split"] == "test"}
    assert min(Counter(label for label, _ in groups).values()) >= 10


def test_authored_messages_have_many_templates() -> None:
    data = json.loads((ROOT / "tools" / "triage_templates.json").read_text(encoding="utf-8"))
    first, later = data["templates"], data["later"]
    assert sorted(first) == sorted(RARE) and set(first) < set(later)
    assert all(len(set(texts)) == len(texts) >= 45 for texts in first.values())
    assert all(len(set(texts)) == len(texts) >= 25 for texts in later.values())
    every = [text.casefold() for part in (first, later) for texts in part.values() for text in texts]
    assert len(set(every)) == len(every)


def test_messages_written_after_the_first_results_are_not_like_those_of_the_test() -> None:
    """Not in the test split, and none shares 70 % of its words with a test message (slot values left out)."""
    data = json.loads((ROOT / "tools" / "triage_templates.json").read_text(encoding="utf-8"))
    values = {word for slot in data["slots"].values() for value in slot for word in words(value)}
    tests = [words(question(row)) - values for row in rows(TRIAGE) if row["split"] == "test"]
    later = [row for row in rows(TRIAGE) if "-later-" in row["group"]]
    assert len(later) > 500 and {row["split"] for row in later} == {"train", "val"}
    for row in later:
        mine = words(question(row)) - values
        assert max(len(mine & other) / len(mine | other) for other in tests) < 0.7, question(row)


def words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z0-9']+", text.casefold()))


def test_the_first_triage_demonstrations_show_every_label_once() -> None:
    grader = json.loads((SKILLS / TRIAGE / "grader.json").read_text(encoding="utf-8"))
    count = load_settings(TAXONOMY).skill(TRIAGE).demonstrations
    shown = [seed["answer"] for seed in qna(TRIAGE)["seed_examples"][:count]]
    assert sorted(shown) == sorted(grader["labels"])
    assert set(share(TRIAGE, "train")) == set(grader["labels"])
    explained = re.findall(r"^([A-Z_]+):", qna(TRIAGE)["task_description"], re.MULTILINE)
    assert sorted(explained) == sorted(grader["labels"])


@pytest.mark.parametrize("name", NAMES)
def test_instructlab_accepts_the_leaf(name: str) -> None:
    taxonomy = pytest.importorskip("instructlab.schema.taxonomy")
    parser = taxonomy.TaxonomyParser(schema_version=0, yamllint_strict=True)
    parsed = parser.parse(SKILLS / name / "qna.yaml")
    assert (parsed.errors, parsed.warnings) == (0, 0)
    assert {path.suffix for path in (SKILLS / name).iterdir()} <= {".yaml", ".json", ".jsonl", ".txt", ".py"}


@pytest.mark.parametrize("name", NAMES)
def test_every_row_names_source_and_licence_and_the_licence_text_travels(name: str) -> None:
    attribution = (SKILLS / name / "attribution.txt").read_text(encoding="utf-8")
    for licence in {row["licence"] for row in rows(name)}:
        assert licence in attribution
        text = ROOT / ("LICENSE" if licence == "Apache-2.0" else f"LICENSES/{licence}.txt")
        assert text.stat().st_size > 1000
    for field in ("Title of work: ", "Link to work: ", "License of the work: ", "Creator names: "):
        assert field in attribution
    assert all((row["source"] == OURS) == (row["licence"] == "Apache-2.0") for row in rows(name))


def test_dates_are_unambiguous_and_right() -> None:
    """Reads the sentence back by another route than the one that wrote it."""
    for row in rows(DATES):
        text = re.sub(r"(?<=\d)(st|nd|rd|th)\b|,| of\b|\bthe\b", "", row["messages"][-1]["content"])
        words = text.rstrip(".").split()
        year, numbers = int(words[-1]), set(words[-3:-1])
        day = next(int(word) for word in numbers if word.isdigit())
        month = next(word for word in numbers if not word.isdigit())[:3]
        date = datetime.datetime.strptime(f"{year} {month} {day}", "%Y %b %d").date()
        assert date.isoformat() == row["reference"]
        if weekday := re.search(r"(\w+day),", row["messages"][-1]["content"]):
            assert weekday[1] == date.strftime("%A")


def test_orders_and_policies_mean_what_their_reference_says() -> None:
    for row in rows(ORDERS):
        order = json.loads(row["reference"])
        words = set(re.findall(r"\w+", row["messages"][-1]["content"]))
        assert {order["item"], order["color"], str(order["quantity"])} <= words
    for row in rows(POLICY):
        negative = re.search(r"\b(no|not)\b", row["messages"][-1]["content"])
        assert row["reference"] == ("no" if negative else "yes")


def test_making_the_tasks_again_gives_the_same_bytes() -> None:
    made = make_tasks().build(ROOT)
    assert len(made) == 4
    for path, text in made.items():
        assert path.read_bytes() == text.encode("utf-8"), path.name


def test_check_names_a_file_that_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = make_tasks()
    for name in NAMES:
        target = tmp_path / "taxonomy" / "compositional_skills" / name
        target.mkdir(parents=True)
        (target / "tasks.jsonl").write_bytes((SKILLS / name / "tasks.jsonl").read_bytes())
    monkeypatch.setattr(module, "ROOT", tmp_path)
    assert module.main(["--check"]) == 0
    broken = tmp_path / "taxonomy" / "compositional_skills" / DATES / "tasks.jsonl"
    broken.write_text("{}\n", encoding="utf-8")
    assert module.main(["--check"]) == 1
    assert str(broken) in capsys.readouterr().err
    assert module.main([]) == 0
    assert broken.read_bytes() == (SKILLS / DATES / "tasks.jsonl").read_bytes()


@pytest.mark.slow
def test_lint_finds_nothing() -> None:
    """Every reference passes its grader, wrong answers do not, golden cases hold."""
    assert lint_taxonomy(TAXONOMY, load_settings(TAXONOMY)) == []


def test_the_shipped_baseline_answers_the_questions_that_the_gate_asks_now(tmp_path: Path) -> None:
    """Whoever changes tasks, seeds or settings renews it: ``ilab rft baseline save embedded``."""
    space = Workspace(Request(taxonomy=TAXONOMY, run=tmp_path, settings=load_settings(TAXONOMY)))
    gauge = Gauge(space, Screen(Console(quiet=True)))
    stored = read_baseline(TAXONOMY, "embedded")
    wanted = {(e.skill.name, n) for e in space.targets for n in (0, e.settings.demonstrations)}
    wanted |= {(e.skill.name, stored.prompts[e.skill.name]) for e in space.watched}
    assert {(suite.skill, suite.demonstrations) for suite in stored.suites} == wanted
    environments = {e.skill.name: e for e in space.environments}
    for suite in stored.suites:
        asks = gauge.suite(environments[suite.skill], suite.demonstrations)
        assert suite.suite == asks.suite.digest and suite.grader == asks.environment.grader.digest
        digests = {short_id(task.id): short_digest(asked(asks, task)) for task in asks.tasks}
        assert {name: task.task for name, task in suite.tasks.items()} == digests

"""Ready suites: what comes with the package, how tasks are chosen and asked, what the gate makes of them."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import importlib.util
import io
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from rft_ilab.cli.suites import suites as suites_command
from rft_ilab.config import SuiteSettings, load_settings
from rft_ilab.errors import RftError, SkillError
from rft_ilab.pipeline import gate, regress
from rft_ilab.pipeline import request as request_module
from rft_ilab.pipeline.baselines import save_baseline
from rft_ilab.pipeline.cost import CHARACTERS_PER_TOKEN, DECODE_FACTOR
from rft_ilab.pipeline.explain import explain
from rft_ilab.pipeline.gauge import Measurement
from rft_ilab.pipeline.request import Request, Workspace
from rft_ilab.policy.scripted import ScriptedPolicy
from rft_ilab.rollouts import collect
from rft_ilab.store import Cache, Run
from rft_ilab.suites import SuiteEnvironment, load_suite, parse_suites
from rft_ilab.suites.catalog import GENERATORS, SUITES
from rft_ilab.suites.environment import DATA, selection_order
from rft_ilab.suites.loading import read_rows, sizes
from rft_ilab.types import Grade, Prompt, Rollout, Sampling, Suite, Task
from tests.unit.taxonomies import write_skill

ROOT = Path(__file__).resolve().parents[2]
EXPECTED = {"bbh": (1080, 27), "gsm8k": (1319, 1319), "ifeval": (541, 541), "reasoning_gym": (800, 20)}


def graded(suite: SuiteEnvironment, answer: Callable[[Task], str]) -> list[tuple[Task, Grade]]:
    pairs = [
        (task, Rollout(task_id=task.id, index=0, policy_id="p", completion=answer(task), stop="eos"))
        for task in suite.tasks
    ]
    return list(zip(suite.tasks, suite.grader.grade(pairs), strict=True))


def row_of(suite: SuiteEnvironment, id: str) -> SuiteEnvironment:
    return dataclasses.replace(suite, tasks=tuple(task for task in suite.tasks if task.item["id"] == id))


# ---- what comes with the package ----


def test_the_packaged_rows_are_those_of_the_manifest() -> None:
    manifest = json.loads((DATA / "MANIFEST.json").read_text())
    assert set(manifest) == set(SUITES) == set(EXPECTED)
    for name, about in manifest.items():
        packed = (DATA / f"{name}.jsonl.gz").read_bytes()
        text = gzip.decompress(packed)
        assert hashlib.sha256(text).hexdigest() == about["sha256"]
        assert packed[4:8] == bytes(4) and not packed[3] & 8  # neither a time nor a file name
        rows = [json.loads(line) for line in text.splitlines()]
        assert (len(rows), len({row.get("group", row["id"]) for row in rows})) == sizes(name) == EXPECTED[name]
        assert {row.get("kind", "") for row in rows} == set(SUITES[name].kinds)


@pytest.mark.parametrize("name", ["gsm8k", "bbh", "reasoning_gym"])
def test_every_reference_passes_its_own_grader(name: str) -> None:
    suite = load_suite(name)
    assert len(suite.tasks) == len({task.id for task in suite.tasks}) == EXPECTED[name][0]
    assert {task.split for task in suite.tasks} == {"test"} and all(task.reference for task in suite.tasks)
    assert [(t.item["id"], g.error or g.reason) for t, g in graded(suite, lambda t: t.reference) if not g.passed] == []


@pytest.mark.parametrize("name", ["gsm8k", "bbh", "ifeval"])
def test_no_answer_is_wrong_and_never_an_error(name: str) -> None:
    assert {(grade.passed, grade.error) for _, grade in graded(load_suite(name), lambda task: "")} == {(False, None)}


def test_ifeval_has_no_references_and_says_so() -> None:
    suite = load_suite("ifeval")
    assert {task.reference for task in suite.tasks} == {""}
    assert all(task.messages[0].role == "user" for task in suite.tasks)  # as published: no system turn
    one = row_of(suite, "ifeval-1001")  # no commas
    assert graded(one, lambda task: "Kyoto then Nara.")[0][1].passed is True
    assert graded(one, lambda task: "Kyoto, Nara.")[0][1].passed is False


def test_another_option_of_bbh_is_never_accepted() -> None:
    suite = load_suite("bbh")
    options = dataclasses.replace(suite, tasks=tuple(t for t in suite.tasks if t.item["kind"] == "option"))
    assert len(options.tasks) == 680

    def lines(task: Task) -> list[str]:
        found = [line.strip() for line in task.messages[-1].content.splitlines()]
        return [line for line in found if line[:1] == "(" and line[2:4] == ") "]

    def other(task: Task) -> str:
        return next(line for line in lines(task) if not line.startswith(task.reference))

    for form in (lambda text: text, lambda text: text[:3], lambda text: text[1:2]):
        assert not any(grade.passed or grade.error for _, grade in graded(options, lambda t, f=form: f(other(t))))
    text = {t.id: next((line for line in lines(t) if line.startswith(t.reference)), t.reference) for t in options.tasks}
    assert all(grade.passed for _, grade in graded(options, lambda t: text[t.id]))
    assert all(grade.passed for _, grade in graded(options, lambda t: f" {t.reference[1].lower()}).\n"))


@pytest.mark.parametrize(
    ("id", "right", "wrong"),
    [
        ("bbh-object_counting-{}", "There are {}.", "{}1"),
        ("bbh-word_sorting-{}", "{}", "{} zebra"),
        ("bbh-boolean_expressions-{}", "{}.", "not {}"),
    ],
)
def test_other_kinds_of_bbh(id: str, right: str, wrong: str) -> None:
    suite = load_suite("bbh")
    tasks = tuple(task for task in suite.tasks if str(task.item["id"]).startswith(id.format("")))
    assert len(tasks) == 40
    some = dataclasses.replace(suite, tasks=tasks)
    assert all(grade.passed for _, grade in graded(some, lambda task: right.format(task.reference)))
    assert not any(grade.passed for _, grade in graded(some, lambda task: wrong.format(task.reference)))


def test_per_cent_in_gsm8k_are_numbers_of_per_cent() -> None:
    suite = load_suite("gsm8k", SuiteSettings(limit=20))
    assert all(grade.passed for _, grade in graded(suite, lambda task: f"So 3 x 4 = 12. It is {task.reference}%."))


def test_every_suite_has_its_licence_and_its_source_beside_it() -> None:
    text = (DATA / "README.md").read_text()
    for name in SUITES:
        (line,) = [line for line in text.splitlines() if f"`{name}.jsonl.gz`" in line]
        licences = [part.split(")")[0] for part in line.split("](")[1:] if part.startswith("licenses/")]
        assert licences and all((DATA / licence).is_file() for licence in licences)
    assert "Copyright (c) 2021 OpenAI" in (DATA / "licenses" / "MIT-gsm8k.txt").read_text()
    patterns = (ROOT / "pyproject.toml").read_text()
    assert all(f'"**/*{suffix}"' in patterns for suffix in (".jsonl.gz", ".txt", ".md", ".json"))


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_suites", ROOT / "tools" / "make_suites.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tool_makes_the_rows_that_are_shipped(tool: ModuleType) -> None:
    shipped = {name: {row["id"]: row for row in read_rows(name)} for name in SUITES}
    row = shipped["bbh"]["bbh-date_understanding-11"]
    assert tool.bbh({"id": row["id"], "prompt": row["prompt"], "answer": "(B)", "task": "date_understanding"}) == row
    puzzle = shipped["reasoning_gym"]["rg-propositional_logic-0"]
    source = {"dataset": "propositional_logic", "seed": 1234, "index": 0}
    raw = {"id": puzzle["id"], "prompt": puzzle["prompt"], "answer": None, "task": puzzle["kind"], "grader": source}
    assert json.loads(json.dumps(tool.reasoning_gym(raw))) == puzzle and puzzle["reference"]
    with pytest.raises(SystemExit, match="another question"):
        tool.reasoning_gym({**raw, "prompt": "What?"})
    follow = shipped["ifeval"]["ifeval-1001"]
    one = {"instruction_id": "punctuation:no_comma", "kwargs": {}}
    assert tool.ifeval({"id": follow["id"], "prompt": follow["prompt"], "answer": [one]}) == follow
    assert set(GENERATORS) == {row["kind"] for row in shipped["reasoning_gym"].values()}
    # The same rows give the same bytes, and options that differ in case alone are named by their letter.
    assert tool.packed([row]) == tool.packed([row])
    twins = {"id": "i", "task": "ruin_names", "prompt": "Options:\n(A) up\n(B) Up", "answer": "(A)"}
    assert tool.bbh(twins)["accepted"] == ["(A) up"]


# ---- which tasks ----


def test_a_limit_takes_a_part_that_content_decides() -> None:
    ids = {limit: {task.id for task in load_suite("bbh", SuiteSettings(limit=limit)).tasks} for limit in (20, 27, 270)}
    assert {limit: len(found) for limit, found in ids.items()} == {20: 20, 27: 27, 270: 270}
    assert ids[20] < ids[27] < ids[270]
    groups = Counter(task.group for task in load_suite("bbh", SuiteSettings(limit=270)).tasks)
    assert len(groups) == 27 and set(groups.values()) == {10}
    assert load_suite("gsm8k", SuiteSettings(limit=5000)).tasks == load_suite("gsm8k").tasks


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.randoms(use_true_random=False), st.data())
def test_selection_is_proportional_and_blind_to_the_order_of_rows(sizes: list[int], random: Any, data: Any) -> None:
    rows = [{"id": f"{g}-{i}", "prompt": "p", "group": str(g)} for g, size in enumerate(sizes) for i in range(size)]
    ordered = selection_order("any", rows)
    assert sorted(row["id"] for row in ordered) == sorted(row["id"] for row in rows)
    shuffled = random.sample(rows, len(rows))
    assert selection_order("any", shuffled) == ordered
    limit = data.draw(st.integers(0, len(rows)))
    taken = Counter(row["group"] for row in ordered[:limit])
    for g, size in enumerate(sizes):
        assert abs(taken[str(g)] - limit * size / len(rows)) < 2


def test_demonstrations_are_rows_that_are_not_tested() -> None:
    settings = SuiteSettings(limit=54, demonstrations=3)
    suite, plain = load_suite("bbh", settings), load_suite("bbh", SuiteSettings(limit=54))
    assert {t.item["id"] for t in suite.tasks} == {t.item["id"] for t in plain.tasks}  # the choice stays the same
    assert not {t.id for t in suite.tasks} & {t.id for t in plain.tasks}  # but it is another prompt
    rows = {row["prompt"]: row for row in read_rows("bbh")}
    tested = {task.messages[-1].content for task in suite.tasks}
    for task in suite.tasks:
        assert [turn.role for turn in task.messages] == ["system", *["user", "assistant"] * 3, "user"]
        for question, answer in zip(task.messages[1:-1:2], task.messages[2:-1:2], strict=True):
            assert question.content not in tested
            row = rows[question.content]
            assert (row["group"], row["reference"]) == (task.group, answer.content)
    assert suite.settings.demonstrations == 3 and suite.skill.seeds == ()
    with pytest.raises(SkillError, match=r"'.*' in the suite 'bbh' has 0 .set a lower limit than 1080"):
        load_suite("bbh", SuiteSettings(demonstrations=1))
    assert len(load_suite("gsm8k", SuiteSettings(limit=1300, demonstrations=19)).tasks[0].messages) == 40
    with pytest.raises(SkillError, match="the suite 'gsm8k' has 19"):
        load_suite("gsm8k", SuiteSettings(limit=1300, demonstrations=20))
    with pytest.raises(SkillError, match="'ifeval' has no references to demonstrate"):
        load_suite("ifeval", SuiteSettings(limit=5, demonstrations=1))


# ---- what people write ----


def test_names_and_limits() -> None:
    configured = {"gsm8k": SuiteSettings(margin=0.2, limit=7), "bbh": SuiteSettings()}
    assert parse_suites([], configured) == configured
    assert parse_suites(["gsm8k:9"], configured)["gsm8k"] == SuiteSettings(margin=0.2, limit=9)
    assert parse_suites(["none"], configured) == {}
    assert parse_suites(["none", "gsm8k"], configured) == {"gsm8k": configured["gsm8k"]}
    assert list(parse_suites(["lm_eval:arc_easy:5", "ifeval"], {})) == ["lm_eval:arc_easy", "ifeval"]
    for bad in (
        "gsm9k",
        "",
        "lm_eval:",
        "gsm8k:0",
        "gsm8k:ten",
        "gsm8k:",
        "bbh:1e3",
        "gsm8k:-5",
        "gsm8k:٣",
        "lm_eval:a/b.yaml",
        "lm_eval:a\nb",
    ):
        with pytest.raises(SkillError, match=r"no suite|bad limit"):
            parse_suites([bad], {})


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ('[suites.gsm8k]\ntier = "target"\n', "unknown tier 'target' in [suites.gsm8k]"),
        ("[suites.gsm8k]\nlimit = 0\n", "'limit' in [suites.gsm8k] must be at least 1"),
        ("[suites.gsm8k]\nmax_tokens = 0\n", "'max_tokens' in [suites.gsm8k] must be at least 1"),
        ('[suites.gsm8k]\nlimit = "9"\n', "'limit' in [suites.gsm8k] must be int"),
        ("[suites.gsm8k]\nshots = 1\n", "unknown key 'shots'"),
        ("suites = 1\n", "suites must be a table of tables"),
    ],
)
def test_bad_settings_are_named(tmp_path: Path, toml: str, message: str) -> None:
    (tmp_path / "rft.toml").write_text(toml)
    with pytest.raises(SkillError) as caught:
        load_settings(tmp_path)
    assert message in str(caught.value)


def test_a_missing_package_is_said_before_anything_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rft_ilab.grading.checks.reasoning_gym.find_spec", lambda name: None)
    with pytest.raises(RftError, match=r"suite/reasoning_gym.*pip install reasoning-gym==0\.1\.25"):
        load_suite("reasoning_gym")


def test_the_command_lists_every_suite() -> None:
    shown = CliRunner().invoke(suites_command, [])
    assert shown.exit_code == 0, shown.output
    for name, definition in SUITES.items():
        assert f"{name}: {definition.title}" in shown.output and definition.licence in shown.output
    assert "1,080 tasks, 27 groups" in shown.output and "1,319 tasks, each a group of its own" in shown.output
    rows = json.loads(CliRunner().invoke(suites_command, ["--json"]).output)
    assert {row["name"]: (row["tasks"], row["groups"]) for row in rows} == EXPECTED
    assert {row["seconds"] for row in rows} == {None}


# ---- in the gate ----


@pytest.fixture
def request_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Request]:
    """A taxonomy with a target alone, and a baseline and a candidate by their answers."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    taxonomy = tmp_path / "taxonomy"
    write_skill(taxonomy, "area/target")

    def build(base: Any, tuned: Any, toml: str = "") -> Request:
        (taxonomy / "rft.toml").write_text('[skills."area/target"]\ntier = "target"\n' + toml)
        made = {name: ScriptedPolicy(answer, name) for name, answer in (("base", base), ("tuned", tuned))}
        for policy in made.values():
            policy.id = f"local:{policy.id}"
        for module in (gate, request_module):
            monkeypatch.setattr(module, "local_policy", lambda directory: made[Path(directory).name])
        monkeypatch.setattr(gate, "measure_speed", lambda policy: 100.0)
        monkeypatch.setattr(Workspace, "model_directory", tmp_path / "base")
        Run.create(tmp_path / "run", {"identity": {}, "model": str(tmp_path / "base")})
        return Request(taxonomy=taxonomy, run=tmp_path / "run", settings=load_settings(taxonomy))

    return build


def solver(broken: str = "") -> Callable[[Prompt, int], str]:
    """Knows all of gsm8k and bbh, but nothing of the group ``broken``."""
    known = {row["prompt"]: row for name in ("gsm8k", "bbh") for row in read_rows(name)}

    def answer(prompt: Prompt, index: int) -> str:
        row = known.get(prompt.messages[-1].content, {"reference": "YES"})
        return "no idea" if broken and broken in (row.get("group"), row["reference"]) else str(row["reference"])

    return answer


def test_a_suite_is_a_watched_row_of_the_verdict(request_with: Callable[..., Request], tmp_path: Path) -> None:
    toml = '[suites.gsm8k]\nlimit = 60\nmargin = 0.2\ntier = "critical"\n[suites.bbh]\nlimit = 270\n'
    request = request_with(solver(), solver("YES"), toml)
    output = io.StringIO()
    verdict = regress(request, candidate=tmp_path / "tuned", console=Console(file=output, width=200))
    rows = {row["skill"]: row for row in verdict["watched"]}
    assert list(rows) == ["suite/gsm8k", "suite/bbh"]
    one = rows["suite/gsm8k"]
    assert (one["tier"], one["margin"], one["prompt"]) == ("critical", 0.2, "zero-shot")
    assert (one["n"], one["clusters"]) == (60, 60)
    assert (one["before"], one["outcome"]) == (1.0, "PASS") and rows["suite/bbh"]["clusters"] == 27
    # 60 test tasks of the target: 2 prompts x 3 answers before, 3 answers after. 330 tasks of suites, before and after.
    assert f"gate: {60 * 9 + 330 * 2} test rollouts" in output.getvalue()


def test_the_cost_knows_how_long_answers_are() -> None:
    suite = load_suite("gsm8k", SuiteSettings(limit=60))
    measured = Suite(
        name="s", task_ids=(), samples=1, sampling=Sampling(), demonstrations=0, tier="supporting", margin=0.1
    )
    prompts = sum(len(task.messages[-1].content) for task in suite.tasks) / CHARACTERS_PER_TOKEN + 8 * 60
    positions = Measurement(suite, measured, suite.tasks).positions
    assert positions == pytest.approx(prompts + DECODE_FACTOR * 2 * 60 * SUITES["gsm8k"].answer_tokens)
    assert load_suite("gsm8k", SuiteSettings(limit=1, max_tokens=20)).answer_tokens == 20


def test_a_lost_group_of_a_suite_fails_and_the_suite_is_named(
    request_with: Callable[..., Request], tmp_path: Path
) -> None:
    request = request_with(solver(), solver("word_sorting"), "[suites.bbh]\nmargin = 0.001\n")
    verdict = regress(request, candidate=tmp_path / "tuned", console=Console(file=io.StringIO()))
    (row,) = verdict["watched"]
    assert row["delta"] == pytest.approx(-1 / 27) and row["worse"] == 40
    lost = [flip for flip in verdict["flips"] if flip["skill"] == "suite/bbh"]
    assert len(lost) == 40 and {flip["after"] for flip in lost} == {"no idea"} and lost[0]["reference"]
    told = explain(request.run, lost[0]["task_id"], request.taxonomy)
    assert told.notes == () and [turn.role for turn in told.messages] == ["system", "user"]


def test_a_stored_baseline_holds_suites(request_with: Callable[..., Request], tmp_path: Path) -> None:
    request = request_with(solver(), solver(), "[suites.bbh]\nlimit = 270\n")
    save_baseline(request, "main", console=Console(file=io.StringIO()))
    stored = dataclasses.replace(request, baseline="main", model=tmp_path / "gone")
    verdict = regress(stored, candidate=tmp_path / "tuned", console=Console(file=io.StringIO()))
    (row,) = verdict["watched"]
    assert (row["skill"], row["n"], row["before"], row["ungraded"]) == ("suite/bbh", 270, 1.0, 0)


def test_training_never_sees_a_suite(request_with: Callable[..., Request]) -> None:
    space = Workspace(request_with(solver(), solver(), "[suites.gsm8k]\nlimit = 3\n"))
    assert [e.skill.name for e in space.environments] == ["area/target"] and space.watched == []


def test_a_suite_that_there_is_not_and_a_skill_of_its_name_are_refused(
    request_with: Callable[..., Request], tmp_path: Path
) -> None:
    request = request_with(solver(), solver(), "[suites.gsm9k]\n")
    with pytest.raises(SkillError, match=r"rft\.toml: no suite 'gsm9k'"):
        Workspace(request)
    write_skill(request.taxonomy, "suite/gsm8k")
    settings = dataclasses.replace(request.settings, suites={"gsm8k": SuiteSettings()})
    with pytest.raises(SkillError, match="a skill has the name of the suite"):
        Workspace(dataclasses.replace(request, settings=settings))


def test_suites_go_through_the_cache(tmp_path: Path) -> None:
    suite = load_suite("bbh", SuiteSettings(limit=27))
    policy, cache = ScriptedPolicy(solver()), Cache(tmp_path / "cache.sqlite")
    for _ in range(2):
        groups = collect(
            policy, suite.grader, suite.skill, suite.tasks, 1, Sampling(temperature=0.0), demonstrations=0, cache=cache
        )
        assert all(group[0].grade.passed for group in groups) and policy.calls == 27

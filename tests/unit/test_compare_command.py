"""``ilab rft compare``: what is named, measured, cached and printed; scripted policies, and tiny models for real."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result
from instructlab.configuration import get_default_config
from rich.console import Console

from rft_ilab.cli.compare import compare as command
from rft_ilab.config import load_settings
from rft_ilab.errors import PolicyError, RftError, RunError, SkillError
from rft_ilab.pipeline import Request
from rft_ilab.pipeline import contenders as contenders_module
from rft_ilab.pipeline.compare import compare
from rft_ilab.pipeline.contenders import ModelContender, contender, contenders, model_name
from rft_ilab.policy.scripted import ScriptedPolicy
from rft_ilab.regress.compare import Comparison
from rft_ilab.store import Run, user_directory
from rft_ilab.types import Prompt
from tests.tiny_model import make_tiny_model
from tests.unit.taxonomies import plain_rows, write_skill
from tests.unit.test_pipeline import Answer, right, weak, wrong


@pytest.fixture
def taxonomy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A target and another skill with 12 test tasks each; own cache and runs."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    directory = tmp_path / "taxonomy"
    for name in ("area/target", "area/other"):
        write_skill(directory, name, rows=plain_rows()[:60])
    tables = '[skills."area/target"]\ntier = "target"\n[skills."area/other"]\nmax_tokens = 3\ndemonstrations = 2\n'
    (directory / "rft.toml").write_text(tables)
    return directory


@pytest.fixture
def scripted(taxonomy: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Comparison, str]]:
    """Compares policies by name; returns the comparison and what was said."""

    def run(*, options: dict[str, Any] | None = None, **answers: Answer) -> tuple[Comparison, str]:
        made = {name: ScriptedPolicy(answer, name) for name, answer in answers.items()}
        monkeypatch.setattr(contenders_module, "local_policy", lambda directory: made[directory.name])
        monkeypatch.setattr(contenders_module, "measure_speed", lambda policy: 1000.0)
        out = io.StringIO()
        request = Request(taxonomy=taxonomy, run=taxonomy, settings=load_settings(taxonomy))
        field = [ModelContender(name, Path(name)) for name in answers]
        return compare(request, field, console=Console(file=out, width=200), **options or {}), out.getvalue()

    return run


Scripted = Callable[..., tuple[Comparison, str]]


def test_the_same_prompts_for_every_model_whoever_they_are(scripted: Scripted) -> None:
    """Zero-shot for the target, the demonstrations of rft.toml for the other; --demonstrations is for all."""
    seen: dict[str, set[tuple[str, int]]] = {"a": set(), "b": set()}

    def note(name: str) -> Answer:
        def answer(prompt: Prompt, index: int) -> str:
            seen[name].add((prompt.messages[-1].content, len(prompt.messages)))
            return right(prompt)

        return answer

    comparison, _ = scripted(a=note("a"), b=note("b"))
    assert seen["a"] == seen["b"] and {turns for _, turns in seen["a"]} == {2, 2 + 2 * 2}
    assert {(r["skill"], r["prompt"]) for r in comparison["rows"]} == {
        ("area/target", "zero-shot"),
        ("area/other", "2 demonstrations"),
    }
    comparison, _ = scripted(a=note("a"), b=note("b"), options={"demonstrations": 1, "only": ["area/target"]})
    assert [(r["skill"], r["prompt"]) for r in comparison["rows"]] == [("area/target", "1 demonstrations")]


def test_better_is_found_on_both_skills(scripted: Scripted) -> None:
    comparison, _ = scripted(weak=weak, right=right, wrong=wrong)
    assert comparison["unbeaten"] == ["right"] and comparison["pairs"] == 6
    assert [s["best_on"] for s in comparison["standings"]] == [0, 2, 0]


def test_what_is_cached_is_said_and_free(scripted: Scripted) -> None:
    _, said = scripted(a=weak, b=right)
    assert "2 models, 2 skills, 24 tasks; 48 of 48 answers are to be sampled, under a minute" in said

    def never(prompt: Prompt, index: int) -> str:
        raise AssertionError("asked again")

    again, said = scripted(a=never, b=never)
    assert "all 48 answers are cached" in said and again["rows"][0]["scores"][1]["score"] == 1.0
    _, said = scripted(a=never, b=never, c=wrong)
    assert "24 of 72 answers are to be sampled" in said
    _, said = scripted(a=weak, b=right, options={"samples": 2, "only": ["area/target"]})
    assert "48 of 72 answers are to be sampled" in said


def test_an_interrupted_comparison_resumes(scripted: Scripted) -> None:
    def stops(prompt: Prompt, index: int) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scripted(a=weak, b=stops)
    assert "24 of 48 answers are to be sampled" in scripted(a=weak, b=right)[1]


def test_two_names_of_one_model_are_said(scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ScriptedPolicy, "id", property(lambda self: "local:same", lambda self, value: None), False)
    comparison, said = scripted(a=weak, b=weak)
    assert "b and a are the same model" in said
    assert all(p["delta"] == 0.0 for row in comparison["rows"] for p in row["pairs"])


def test_skills_without_test_tasks_are_left_out_and_unknown_ones_named(scripted: Scripted, taxonomy: Path) -> None:
    write_skill(taxonomy, "area/other", rows=[r | {"split": "train"} for r in plain_rows()[:20]])
    comparison, said = scripted(a=weak, b=right)
    assert "area/other: no test tasks, left out" in said and len(comparison["rows"]) == 1
    with pytest.raises(RunError, match="no skill has test tasks"):
        scripted(a=weak, b=right, options={"only": ["area/other"]})
    with pytest.raises(SkillError, match="no skill 'area/none'"):
        scripted(a=weak, b=right, options={"only": ["area/none"]})


def test_no_target_is_needed(scripted: Scripted, taxonomy: Path) -> None:
    (taxonomy / "rft.toml").unlink()
    assert {r["prompt"] for r in scripted(a=weak, b=right)[0]["rows"]} == {"8 demonstrations"}


# ---- who is meant ----


@pytest.fixture
def runs(taxonomy: Path) -> Path:
    """A finished run with its base, and one that has no model yet."""
    runs = user_directory("data") / "runs"
    base = make_tiny_model(taxonomy.parent / "base", seed=1)
    for name in ("done", "unfinished"):
        Run.create(runs / name, {"identity": {}, "model": str(base)})
    make_tiny_model(runs / "done" / "model", seed=2)
    return runs


def test_names_of_contenders(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def where(argument: str) -> tuple[str, Path]:
        found = contender(argument, runs)
        assert isinstance(found, ModelContender)
        return found.label, found.directory

    base = runs.parents[3] / "base"
    assert where("done") == where(str(runs / "done")) == ("done", runs / "done" / "model")
    assert where("done:base") == ("done:base", base)
    assert where(str(base)) == ("base", base)
    assert where(str(runs / "done" / "model")) == ("done", runs / "done" / "model")
    monkeypatch.setattr("rft_ilab.policy.local.embedded.embedded_model", lambda: base)
    assert where("embedded") == ("embedded", base)
    assert model_name(runs / "done" / "model") == "done"


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("nobody", "no model 'nobody' (name a model directory, embedded, a run or RUN:base; runs are in"),
        ("", "no model ''"),
        ("nobody:base", "no model 'nobody:base'"),
        ("unfinished", "this run has no tuned model yet"),
        ("/etc", "not a Hugging Face model"),
    ],
)
def test_what_is_no_model_is_one_line(runs: Path, argument: str, message: str) -> None:
    with pytest.raises((RunError, PolicyError)) as caught:
        contender(argument, runs)
    assert message in str(caught.value) and isinstance(caught.value, RftError)


def test_labels_differ_or_are_refused(runs: Path) -> None:
    base = runs.parents[3] / "base"
    twin = make_tiny_model(runs.parents[3] / "elsewhere" / "base", seed=3)
    assert [c.label for c in contenders([str(base), str(twin), "done"], runs)] == [str(base), str(twin), "done"]
    with pytest.raises(RunError, match="done is named twice"):
        contenders(["done", "done"], runs)


# ---- for real ----


def invoke(taxonomy: Path, *arguments: str) -> Result:
    settings = SimpleNamespace(config=get_default_config())
    return CliRunner(mix_stderr=False).invoke(command, ["--taxonomy-path", str(taxonomy), *arguments], obj=settings)


def test_two_tiny_models_through_the_command(runs: Path, taxonomy: Path, tmp_path: Path) -> None:
    common = ["done", "done:base", "--skill", "area/other", "--html", str(tmp_path / "page.html")]
    result = invoke(taxonomy, *common, "--samples", "2")
    assert result.exit_code == 0, result.output
    assert "A = done" in result.stdout and "B = done:base" in result.stdout and "sampled, 2" in result.stdout
    assert "72 of 72 answers are to be sampled" in result.stderr and "page.html" in result.stderr
    assert (tmp_path / "page.html").read_text().startswith("<!DOCTYPE html>")
    result = invoke(taxonomy, *common, "--json")
    comparison = json.loads(result.stdout)
    assert result.exit_code == 0 and "all 24 answers are cached" in result.stderr
    assert [m["id"].split(":")[0] for m in comparison["models"]] == ["local", "local"]
    assert set(comparison) == {"alpha", "models", "pairs", "rows", "standings", "unbeaten"}
    result = invoke(taxonomy, *common, "--markdown")
    assert result.stdout.startswith("## Comparison of 2 models\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["done"], "name two models or more"),
        (["done", "done:base", "--json", "--markdown"], "exclude each other"),
        (["done", "nobody"], "Error: no model 'nobody'"),
        (["done", "done:base", "--skill", "area/none"], "no skill 'area/none'"),
    ],
)
def test_errors_are_exit_code_2(runs: Path, taxonomy: Path, arguments: list[str], message: str) -> None:
    result = invoke(taxonomy, *arguments)
    assert result.exit_code == 2 and message in result.stderr and "Traceback" not in result.stderr

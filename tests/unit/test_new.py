"""``ilab taxonomy new``: what it asks, writes and refuses; the leaf lints, and nothing is ever replaced."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from rft_ilab.cli.new import new
from rft_ilab.config import Settings
from rft_ilab.grading.proof.lint import lint_taxonomy
from rft_ilab.pipeline.starting import MENU
from rft_ilab.skills.tree import load_skill

PAIRS = [(f"Take {n} tablets a day for {d} days.", str(n * d)) for n in (2, 3) for d in (5, 7, 10)]
ABOUT = ["--description", "Say how many tablets.", "--source", "https://example.org/doses", "--license", "CC0-1.0"]


@pytest.fixture
def taxonomy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    root = tmp_path / "taxonomy"
    (root / "compositional_skills").mkdir(parents=True)
    return root


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("rft_ilab.cli.new.asking", lambda: True)
    yield


def run(taxonomy: Path, *arguments: str, name: str = "healthcare/refill_dose", typed: str | None = None) -> Result:
    command = [name, "--taxonomy-path", str(taxonomy), *arguments]
    return CliRunner(mix_stderr=False).invoke(new, command, input=typed)


def examples(pairs: list[tuple[str, str]] = PAIRS) -> list[str]:
    return [part for pair in pairs for part in ("--example", *pair)]


def lines_of(leaf: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (leaf / "tasks.jsonl").read_text().splitlines()]


def errors(taxonomy: Path) -> list[str]:
    return [
        str(f) for f in lint_taxonomy(taxonomy, Settings(), style=True) if f.severity == "error" or "style" in f.message
    ]


def test_flags_alone_write_a_leaf_that_lints(taxonomy: Path) -> None:
    done = run(taxonomy, *examples(), *ABOUT, "--created-by", "ann")
    assert done.exit_code == 0, done.stderr
    leaf = taxonomy / "compositional_skills" / "healthcare" / "refill_dose"
    assert errors(taxonomy) == []
    skill = load_skill(taxonomy, "healthcare/refill_dose", Settings())
    assert (skill.description, skill.grader["type"], len(skill.seeds)) == ("Say how many tablets.", "number", 6)
    assert [row["reference"] for row in lines_of(leaf)] == [answer for _, answer in PAIRS]
    assert [row["split"] for row in lines_of(leaf)] == ["train", "train", "train", "val", "test", "train"]
    assert "created_by: ann" in (leaf / "qna.yaml").read_text()
    assert "Link to work: https://example.org/doses" in (leaf / "attribution.txt").read_text()
    assert f"wrote {leaf}\n" in done.stdout
    assert "tasks.jsonl      6 tasks: 4 train, 1 val, 1 test" in done.stdout
    assert '"group"' in done.stdout and "ilab rft plan" in done.stdout
    assert done.stdout.endswith(
        "next: ilab taxonomy lint --skill healthcare/refill_dose, then ilab rft run --target healthcare/refill_dose\n"
    )


@pytest.mark.parametrize("kind", MENU)
def test_every_kind_of_the_menu_lints(taxonomy: Path, kind: str) -> None:
    answers = {
        "number": ["10", "14", "21", "35", "49"],
        "label": ["yes", "no", "yes", "no", "no"],
        "date": ["2024-01-05", "2025-02-06", "1999-12-31", "2001-03-04", "2011-10-09"],
        "json": [json.dumps({"item": word, "count": i}) for i, word in enumerate("abcde", 2)],
        "text": ["red wine", "green tea", "cold water", "black coffee", "warm milk"],
        "exact": ["R-17", "B-9/x", "Q_4", "Z*8", "K=12"],
        "python": ["one way", "another way", "no way", "my way", "your way"],
    }[kind]
    pairs = [(f"Case number {word}: what is it?", answer) for word, answer in zip("abcde", answers, strict=True)]
    done = run(taxonomy, *examples(pairs), *ABOUT, "--grader", kind)
    assert done.exit_code == 0, done.stderr
    assert errors(taxonomy) == []
    assert f"grader.json      {kind}: {MENU[kind]}\n" in done.stdout
    assert (taxonomy / "graders" / "refill_dose.py").exists() == (kind == "python")


def test_a_table_and_rows_are_read(taxonomy: Path, tmp_path: Path) -> None:
    table, rows = tmp_path / "doses.csv", tmp_path / "doses.jsonl"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([["prompt", "answer", "group"], *[[*pair, f"g{i}"] for i, pair in enumerate(PAIRS)]])
    with rows.open("w") as file:
        for prompt, answer in PAIRS:
            file.write(
                json.dumps({"messages": [{"role": "user", "content": prompt}], "answer": answer, "group": "one"}) + "\n"
            )
    assert run(taxonomy, "--examples", str(table), *ABOUT).exit_code == 0
    assert run(taxonomy, "--examples", str(rows), *ABOUT, name="healthcare/other").exit_code == 0
    root = taxonomy / "compositional_skills" / "healthcare"
    assert {row["group"] for row in lines_of(root / "refill_dose")} == {f"g{i}" for i in range(6)}
    assert {row["group"] for row in lines_of(root / "other")} == {"one"} and errors(taxonomy) == []


def test_without_a_terminal_what_is_missing_is_one_line(taxonomy: Path) -> None:
    done = run(taxonomy, "--license", "CC0-1.0")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == (
        "Error: no terminal to ask on, and missing: --description, --example or --examples, --source "
        "(ilab taxonomy new --help)\n"
    )


@pytest.mark.parametrize(
    ("pairs", "more", "said"),
    [
        (PAIRS[:4], [], "example:4: error: 4 different examples; InstructLab asks for 5"),
        (
            [*PAIRS[:5], ("Take it.", "some")],
            ["--grader", "number"],
            "example:6: error: the grader fails on the reference",
        ),
        ([*PAIRS[:5], (PAIRS[0][0], "11")], [], "example:6: error: the same messages as example:1 with another answer"),
        ([*PAIRS[:5], ("Hm?", " ")], [], "example:6: error: the reference is empty"),
        ([(f"It is {n}. What is it?", str(n)) for n in range(11, 31)], [], "error: an echo of the prompt passes"),
        (PAIRS, ["--grader", "label", "--label", "yes"], "unknown label '10'"),
    ],
)
def test_what_would_not_lint_is_not_written(
    taxonomy: Path, pairs: list[tuple[str, str]], more: list[str], said: str
) -> None:
    done = run(taxonomy, *examples(pairs), *ABOUT, *more)
    assert done.exit_code == 2 and said in done.stderr, done.stderr
    assert "nothing was written" in done.stderr
    assert list((taxonomy / "compositional_skills").iterdir()) == []


def test_a_program_goes_again_with_a_skill_that_is_refused(taxonomy: Path) -> None:
    done = run(taxonomy, *examples(PAIRS[:4]), *ABOUT, "--grader", "python")
    assert done.exit_code == 2 and not (taxonomy / "graders").exists()


@pytest.mark.parametrize(
    "name", ["../refill", "/refill", "Healthcare/refill", "a//b", "a/..", ".", "a b", "", "a/", "é"]
)
def test_bad_names_are_refused(taxonomy: Path, name: str) -> None:
    done = run(taxonomy, *examples(), *ABOUT, name=name)
    assert done.exit_code == 2 and len(done.stderr.splitlines()) == 1 and "bad skill name" in done.stderr
    assert list((taxonomy / "compositional_skills").iterdir()) == []


def test_nothing_is_replaced(taxonomy: Path) -> None:
    assert run(taxonomy, *examples(), *ABOUT, "--grader", "python").exit_code == 0
    files = {p: p.read_bytes() for p in taxonomy.rglob("*") if p.is_file()}
    done = run(taxonomy, *examples(), *ABOUT)
    assert done.exit_code == 2 and "is there already" in done.stderr
    done = run(taxonomy, *examples(), *ABOUT, "--grader", "python", name="other/refill_dose")
    assert done.exit_code == 2 and "refill_dose.py: is there already" in done.stderr
    assert files == {p: p.read_bytes() for p in taxonomy.rglob("*") if p.is_file()}


def test_an_unknown_kind_is_one_line(taxonomy: Path) -> None:
    done = run(taxonomy, *examples(), *ABOUT, "--grader", "vibes")
    assert done.exit_code == 2 and "no kind of grader 'vibes' (one of number, label" in done.stderr


TYPED = ["Say how many tablets.", *[part for pair in PAIRS for part in pair], "", "", "ann", "", ""]


@pytest.mark.usefixtures("terminal")
def test_a_session_asks_in_the_order_in_which_one_thinks(taxonomy: Path) -> None:
    done = run(taxonomy, typed="\n".join(TYPED) + "\n")
    assert done.exit_code == 0, done.stderr
    order = [
        "What is the model to do?",
        "Prompt 1:",
        "Its right answer:",
        "Prompt 6 (empty: that is all)",
        "When is an answer right?",
    ]
    order += [
        "Grader [number]:",
        "Who contributes it?",
        "Where do the texts come from? [written for this skill]",
        "licence? [Apache-2.0]",
    ]
    places = [done.stdout.index(text) for text in order]
    assert places == sorted(places)
    assert errors(taxonomy) == []
    assert not list((taxonomy.parent / "data").rglob("*.json")), "the answers are not kept any longer"


def interrupted(taxonomy: Path, typed: list[str]) -> None:
    """A session that ends with Ctrl-C when all has been typed."""
    answers = iter(typed)

    def line(question: str, default: str | None = None) -> str:
        for answer in answers:
            return answer or str(default)
        raise click.Abort()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rft_ilab.cli.questions._line", line)
        assert run(taxonomy).exit_code == 1
    assert list((taxonomy / "compositional_skills").iterdir()) == []


@pytest.mark.usefixtures("terminal")
def test_an_interrupted_session_goes_on(taxonomy: Path) -> None:
    interrupted(taxonomy, TYPED[:4])
    interrupted(taxonomy, TYPED[3:12])
    done = run(taxonomy, typed="\n".join(TYPED[14:]) + "\n")
    assert done.exit_code == 0, done.stdout + done.stderr
    assert "going on with the answers of before" in done.stdout and "Prompt 1:" not in done.stdout
    rows = lines_of(taxonomy / "compositional_skills" / "healthcare" / "refill_dose")
    assert [row["reference"] for row in rows] == [answer for _, answer in PAIRS[:5]]


@pytest.mark.usefixtures("terminal")
def test_after_a_refusal_only_the_grader_is_asked_again(taxonomy: Path) -> None:
    spoiled = [*TYPED[:13], "", "date", "ann", "", ""]
    done = run(taxonomy, typed="\n".join(spoiled) + "\n")
    assert done.exit_code == 2 and "your answers are kept" in done.stderr
    done = run(taxonomy, typed="number\n")
    assert done.exit_code == 0, done.stdout + done.stderr
    assert "What is the model to do?" not in done.stdout


@pytest.mark.usefixtures("terminal")
def test_again_forgets_and_labels_are_asked_for(taxonomy: Path) -> None:
    interrupted(taxonomy, ["Something else."])
    pairs = [part for i in range(5) for part in (f"Question {'abcde'[i]}?", "yes" if i % 2 else "no")]
    done = run(taxonomy, "--again", typed="\n".join(["Say yes or no.", *pairs, "", "label", "", "ann", "", ""]) + "\n")
    assert done.exit_code == 0, done.stdout + done.stderr
    assert "All labels, with commas [no, yes]:" in done.stdout
    skill = load_skill(taxonomy, "healthcare/refill_dose", Settings())
    assert skill.description == "Say yes or no." and skill.grader["labels"] == ["no", "yes"]

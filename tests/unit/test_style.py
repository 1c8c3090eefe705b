"""The house's style: a repair never changes what a file says, is done at once, and leaves nothing to repair."""

from __future__ import annotations

import json
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from rft_ilab.cli.lint import lint
from rft_ilab.config import Settings
from rft_ilab.grading.proof.lint import lint_taxonomy
from rft_ilab.skills.reading import parse_json, parse_yaml
from rft_ilab.skills.style import grader_text, restyled, row_text, style_problem
from tests.unit.taxonomies import LABEL_GRADER, plain_rows, write_skill

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4))
graders = st.dictionaries(st.sampled_from(["labels", "type", "name", "graders", "input"]) | texts, values, max_size=6)
#: how others lay out JSON
layouts = st.sampled_from([{}, {"indent": 4}, {"indent": "\t"}, {"separators": (",", ":")}, {"ensure_ascii": True}])
ends = st.sampled_from(["\n", "\r\n", " \n", "\t\r\n", ""])
YAML_RULES = "{extends: relaxed, rules: {line-length: disable}}"  # InstructLab's


def same(one: Any, other: Any) -> bool:
    """Equal, and 1 is not 1.0 nor true; the order of keys does not count."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


@given(graders, layouts, ends)
def test_a_grader_says_the_same_and_is_repaired_at_once(
    grader: dict[str, Any], layout: dict[str, Any], end: str
) -> None:
    before = json.dumps(grader, **layout).replace("\n", end or "\n") + end
    after = restyled("grader.json", before)
    assert same(parse_json(after), grader)
    assert restyled("grader.json", after) == after == grader_text(grader)
    assert after.endswith("\n") and "\r" not in after
    assert not any(line != line.rstrip(" \t") for line in after.split("\n"))


@given(st.lists(st.dictionaries(texts, values, max_size=4) | st.just("{broken"), max_size=5), layouts, ends)
def test_rows_say_the_same_and_broken_ones_stay(rows: list[Any], layout: dict[str, Any], end: str) -> None:
    one_line = {key: value for key, value in layout.items() if key != "indent"}
    lines = [row if isinstance(row, str) else json.dumps(row, **one_line) for row in rows]
    before = "\ufeff" + "".join(line + (end or "\n\n") for line in lines)
    after = restyled("tasks.jsonl", before)
    found = after.removesuffix("\n").split("\n") if after else []
    if end:
        assert len(found) == len(rows)
        for text, row in zip(found, rows, strict=True):
            assert text.startswith(row) if isinstance(row, str) else same(parse_json(text), row)
    assert restyled("tasks.jsonl", after) == after


SAMPLES = [
    "version: 3\r\ncreated_by: me  \r\n\r\n\r\n\r\n\r\nseed_examples:\r\n  - question: a # why \r\n    answer: b\r\n",
    'a: |\n  text  \n  more\n\n\n\n\n  end\nb: "x   \n  y"\n\n\n',
    "# first \na: >-\n  folded  \n  text\n\nb: c",
    "\n\n\na: 'it''s'\n",
    "\ufeffa: 1\n",
    "a: plain\n  text of   \n  three lines \nb: 1.0\n",
]


@pytest.mark.parametrize("before", SAMPLES)
def test_yaml_says_the_same_and_is_repaired_at_once(before: str) -> None:
    after = restyled("qna.yaml", before)
    assert after != before
    assert repr(parse_yaml(after)[0]) == repr(parse_yaml(before)[0]) == repr(yaml.safe_load(before))
    assert restyled("qna.yaml", after) == after
    assert before.count("#") == after.count("#"), "comments stay"


yaml_values = st.recursive(
    texts | st.integers() | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
)


@given(st.dictionaries(texts, yaml_values, max_size=4), st.sampled_from([None, "|", ">", '"']), ends, st.integers(0, 5))
def test_any_yaml_says_the_same(value: dict[str, Any], style: str | None, end: str, blank: int) -> None:
    plain = yaml.safe_dump(value, default_style=style, allow_unicode=True)
    before = "\n" * blank + plain.rstrip("\n") + end + "\n" * blank
    try:
        meant = parse_yaml(before)[0]
    except (yaml.YAMLError, ValueError, LookupError):
        return  # two keys that read alike, say: not a file that lint accepts
    except Exception as error:  # noqa: BLE001 - SkillError: an empty file
        assert "empty" in str(error)
        return
    after = restyled("qna.yaml", before)
    assert repr(parse_yaml(after)[0]) == repr(meant)
    assert restyled("qna.yaml", after) == after


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("grader.json", '{"a": 1, "a": 2}  '),
        ("grader.json", "[1, 2]\r\n"),
        ("grader.json", r'{"a": "\ud800"}'),
        ("tasks.jsonl", '{"a": NaN}\n'),
        ("tasks.jsonl", ""),
        ("qna.yaml", "a: [\r\n"),
        ("qna.yaml", "a: |+\n  kept\n\n\n\n\nb: 2\n"),
        ("qna.yaml", "a: &x 1  \nb: *x\n"),
        ("generator.py", "def tasks(seed):   \r\n    yield"),
        ("attribution.txt", " \n"),
    ],
)
def test_what_cannot_be_read_or_has_no_style_stays(name: str, text: str) -> None:
    assert restyled(name, text) == text


def test_the_layout_is_that_of_the_shipped_skills() -> None:
    root = Path(__file__).resolve().parents[2]
    files = [p for p in (root / "taxonomy" / "compositional_skills").rglob("*") if p.is_file()]
    assert len(files) > 15
    for file in (*files, *(root / "graders").glob("*.jsonl")):
        text = file.read_bytes().decode()
        assert restyled(file.name, text) == text, file


def test_keys_are_ordered_and_lists_of_words_filled() -> None:
    words = [f"word_no_{i:02}" for i in range(12)]
    text = grader_text({"labels": words, "reference": "{{item.reference}}", "name": "n", "type": "label", "input": "i"})
    assert text.splitlines() == [
        "{",
        '  "type": "label",',
        '  "name": "n",',
        '  "input": "i",',
        '  "reference": "{{item.reference}}",',
        '  "labels": [',
        "    " + " ".join(f'"{word}",' for word in words[:8]),
        "    " + ", ".join(f'"{word}"' for word in words[8:]),
        "  ]",
        "}",
    ]
    assert row_text({"split": "test", "messages": [], "zebra": 1, "id": 7}) == (
        '{"id": 7, "messages": [], "split": "test", "zebra": 1}'
    )


@pytest.mark.parametrize(
    ("name", "before", "said"),
    [
        ("tasks.jsonl", '{"a": 1}\n{"a": 2}\r\n', (2, "carriage returns")),
        ("tasks.jsonl", '{"a": 1}\n\n{"a": 2}\n', (2, "blank lines")),
        ("tasks.jsonl", '{"a": 1}', (1, "no line feed at the end")),
        ("tasks.jsonl", '\ufeff{"a": 1}\n', (1, "a byte order mark")),
        ("qna.yaml", "a: 1\nb: 2 \n", (2, "white space at the end of lines")),
        ("grader.json", '{"name": 1, "type": 2}\n', (1, "another layout")),
        (
            "tasks.jsonl",
            '{"reference": 1, "id": 2} \r\n',
            (1, "carriage returns, white space at the end of lines, another layout"),
        ),
    ],
)  # fmt: skip
def test_a_problem_has_its_first_line_and_its_names(name: str, before: str, said: tuple[int, str]) -> None:
    assert style_problem(before, restyled(name, before)) == said


def untidy_taxonomy(root: Path) -> Path:
    """A skill that is right in all that it says, and in no way as the house writes it."""
    leaf = write_skill(root)
    for name in ("qna.yaml", "attribution.txt"):
        text = (leaf / name).read_text()
        (leaf / name).write_bytes(text.replace("\n", "  \r\n").encode() + b"\r\n\r\n\r\n\r\n")
    (leaf / "grader.json").write_text(json.dumps(dict(reversed(LABEL_GRADER.items())), indent=4))
    rows = [json.dumps(dict(reversed(row.items())), separators=(",", ":")) for row in plain_rows()]
    (leaf / "tasks.jsonl").write_text("\r\n\r\n".join(rows))
    return leaf


def run_lint(taxonomy: Path, *arguments: str) -> Result:
    return CliRunner(mix_stderr=False).invoke(lint, ["--taxonomy-path", str(taxonomy), *arguments])


def test_fix_repairs_a_leaf_and_says_what(tmp_path: Path) -> None:
    leaf = untidy_taxonomy(tmp_path)
    before = lint_taxonomy(tmp_path, Settings())
    styled = lint_taxonomy(tmp_path, Settings(), style=True)
    assert [finding.file.name for finding in styled] == ["attribution.txt", "grader.json", "qna.yaml", "tasks.jsonl"]
    assert all(f.severity == "warning" and f.line and "--fix" in f.fix for f in styled) and before == []
    done = run_lint(tmp_path, "--fix")
    assert done.exit_code == 0, done.output
    assert [line.split(": ")[0] for line in done.stderr.splitlines()[:4]] == [
        f"fixed {leaf / name}" for name in ("qna.yaml", "grader.json", "tasks.jsonl", "attribution.txt")
    ]
    assert done.stdout == "" and lint_taxonomy(tmp_path, Settings(), style=True) == []
    contents = {path: path.read_bytes() for path in leaf.iterdir()}
    assert run_lint(tmp_path, "--fix").stderr == "0 errors, 0 warnings\n"
    assert contents == {path: path.read_bytes() for path in leaf.iterdir()}
    assert [json.loads(line) for line in (leaf / "tasks.jsonl").read_text().splitlines()] == plain_rows()


def test_a_repaired_qna_passes_yamllint(tmp_path: Path) -> None:
    leaf = untidy_taxonomy(tmp_path)
    command = [Path(sysconfig.get_path("scripts")) / "yamllint", "--strict", "-d", YAML_RULES, leaf / "qna.yaml"]
    assert subprocess.run(command, capture_output=True).returncode != 0
    run_lint(tmp_path, "--fix")
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_fix_touches_only_what_it_is_asked_for(tmp_path: Path) -> None:
    write_skill(tmp_path, "area/clean")
    leaf = untidy_taxonomy(tmp_path)
    before = (leaf / "tasks.jsonl").read_bytes()
    run_lint(tmp_path, "--fix", "--skill", "area/clean")
    assert (leaf / "tasks.jsonl").read_bytes() == before


def test_fix_follows_no_symbolic_link(tmp_path: Path) -> None:
    leaf = untidy_taxonomy(tmp_path / "taxonomy")
    outside = tmp_path / "secret.jsonl"
    (leaf / "tasks.jsonl").rename(outside)
    (leaf / "tasks.jsonl").symlink_to(outside)
    before = outside.read_bytes()
    done = run_lint(tmp_path / "taxonomy", "--fix")
    assert done.exit_code == 2 and "tasks.jsonl: error: is a symbolic link" in done.stdout
    assert outside.read_bytes() == before and (leaf / "tasks.jsonl").is_symlink()

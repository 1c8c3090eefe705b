"""The file of a stored baseline: the same bytes for the same results, nothing lost, nothing strange accepted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rft_ilab.errors import RunError
from rft_ilab.pipeline.baselines import baseline_names, read_baseline
from rft_ilab.regress.baseline import TEXT_LIMIT, Baseline, StoredSuite, dumps, loads, short_id, stored_task
from rft_ilab.regress.verdict import Answer, TaskResult
from rft_ilab.types import digest

Sampled = tuple[float | None, ...]
STRANGE = "a\x1b[31m\u202e\u00e9"


def result(text: str = "REFILL", score: float | None = 1.0, sampled: Sampled = (1.0, 0.0)) -> TaskResult:
    return TaskResult(
        task_id=digest(text),
        group="g",
        cls=None,
        reference="REFILL",
        prompt="?",
        greedy=Answer(score=score, text=text),
        sampled=sampled,
    )


def small(name: str = "main", *results: TaskResult) -> Baseline:
    found = results or (result(), result(STRANGE, None, (None, 0.25)))
    suite = StoredSuite(
        skill="area/skill",
        demonstrations=8,
        suite="5" * 64,
        grader="9" * 64,
        max_tokens=10,
        temperature=1.0,
        seed=20,
        samples=2,
        tasks={short_id(r.task_id): stored_task(r, ["asked", r.task_id]) for r in found},
    )
    return Baseline(
        name=name,
        model_id="local:abc:bfloat16",
        model_name="tuned",
        versions={"torch": "2", "python": "3.11"},
        prompts={"area/skill": 8},
        suites=(suite,),
    )


SCORES = st.none() | st.floats(0, 1)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=2 * TEXT_LIMIT)


@st.composite
def baselines(draw: st.DrawFn) -> Baseline:
    suites = []
    for skill, demonstrations in sorted(draw(st.sets(st.tuples(st.sampled_from("ab"), st.integers(0, 2)), max_size=3))):
        samples = draw(st.integers(0, 3))
        texts = draw(st.lists(TEXTS, max_size=4, unique=True))
        drawn = st.lists(SCORES, min_size=samples, max_size=samples).map(tuple)
        results = [result(text, draw(SCORES), draw(drawn)) for text in texts]
        suites.append(
            StoredSuite(
                skill=skill,
                demonstrations=demonstrations,
                suite=digest(skill),
                grader=digest(demonstrations),
                max_tokens=draw(st.integers(1, 9999)),
                temperature=draw(st.floats(0, 10)),
                seed=draw(st.integers(0, 2**40)),
                samples=samples,
                tasks={short_id(r.task_id): stored_task(r, r.prompt) for r in results},
            )
        )
    return Baseline(
        name="x",
        model_id=draw(TEXTS),
        model_name=draw(TEXTS),
        versions=draw(st.dictionaries(TEXTS, TEXTS, max_size=3)),
        prompts=draw(st.dictionaries(TEXTS, st.integers(0, 20), max_size=3)),
        suites=tuple(suites),
    )


@given(baselines())
@settings(max_examples=150, deadline=None)
def test_what_is_written_is_read_again_and_always_in_the_same_bytes(baseline: Baseline) -> None:
    text = dumps(baseline)
    assert loads(text, "f") == baseline
    assert dumps(loads(text, "f")) == text and text.isascii()


def test_one_line_a_task_sorted_and_safe_to_look_at() -> None:
    lines = dumps(small()).splitlines()
    rows = [line.strip().rstrip(",") for line in lines if line.startswith('   "') and "[" in line]
    assert rows == sorted(rows) and len(rows) == 2
    safe = next(row for row in rows if "u001b" in row)
    assert safe.endswith(', null, [null, 0.25], "' + digest(STRANGE)[:12] + '", "a\\u001b[31m\\u202e\\u00e9"]')
    before, after = (dumps(small("main", *found)).splitlines() for found in ([result()], [result(), result("other")]))
    assert len(after) == len(before) + 1
    assert {line.rstrip(",") for line in before} < {line.rstrip(",") for line in after}


def test_a_long_completion_is_cut_and_known_to_be() -> None:
    whole, cut = stored_task(result("x" * TEXT_LIMIT), 0), stored_task(result("x" * (TEXT_LIMIT + 1)), 0)
    assert whole.text == cut.text and whole.whole and not cut.whole


def broken(change: Callable[[Any], Any]) -> str:
    raw = json.loads(dumps(small()))
    changed = change(raw)
    return json.dumps(raw if changed is None else changed)


def in_row(index: int, value: Any) -> Callable[[Any], None]:
    def change(raw: Any) -> None:
        next(iter(raw["suites"][0]["tasks"].values()))[index] = value

    return change


def put(*path: Any) -> Callable[[Any], None]:
    *places, key, value = path

    def change(raw: Any) -> None:
        for place in places:
            raw = raw[place]
        raw[key] = value

    return change


HOSTILE = {
    "a list": (lambda raw: [raw], "the file must be an object"),
    "no suites": (put("suites", None), "suites must be a list"),
    "suites of text": (put("suites", ["x"]), r"suites\[0\] must be an object"),
    "another format": (put("format", 2), "format 2; this version reads 1"),
    "format true": (put("format", True), "format must be a whole number"),
    "other columns": (put("columns", ["text"]), "columns must be"),
    "model a text": (put("model", "x"), "model must be an object"),
    "prompts of text": (put("prompts", "area/skill", "8"), "prompts.area/skill must be a whole number"),
    "negative prompts": (put("prompts", "area/skill", -1), "not negative"),
    "samples too many": (put("suites", 0, "samples", 3), "a greedy and 3 sampled scores"),
    "seed huge": (put("suites", 0, "seed", 10**400), "seed must be a whole number"),
    "temperature huge": (put("suites", 0, "temperature", 10**400), "temperature must be a number from 0 to 1000"),
    "a bad id": (put("suites", 0, "tasks", "../../x", []), "named by 16 hexadecimal digits"),
    "a short row": (put("suites", 0, "tasks", "0" * 16, ["a"]), "task, greedy, sampled, answer, text"),
    "a row that is none": (put("suites", 0, "tasks", "0" * 16, 1), "task, greedy, sampled, answer, text"),
    "a score of 2": (in_row(1, 2), "each from 0 to 1 or null"),
    "a score true": (in_row(1, True), "each from 0 to 1 or null"),
    "a score as text": (in_row(1, "1"), "each from 0 to 1 or null"),
    "a sampled score below": (in_row(2, [-0.1, 0]), "each from 0 to 1 or null"),
    "samples no list": (in_row(2, "11"), "each from 0 to 1 or null"),
    "a text too long": (in_row(4, "x" * (TEXT_LIMIT + 1)), "at most 240 characters"),
    "another text": (in_row(4, "EMERGENCY"), "a text that its digest belongs to"),
    "a suite twice": (lambda raw: raw["suites"].append(raw["suites"][0]), "one for each skill and prompt"),
}
TEXT_ONLY = {
    "NaN": (lambda text: text.replace(": 1,", ": NaN,", 1), "NaN is not JSON"),
    "infinity": (lambda text: text.replace('"temperature": 1,', '"temperature": 1e999,'), "out of range"),
    "a key twice": (lambda text: text.replace('"name"', '"format"', 1), "duplicate key 'format'"),
    "half a character": (lambda text: text.replace("\\u001b", "\\ud800"), "lone surrogate"),
    "deep": (lambda text: "[" * 100_000, "nested too deeply"),
    "empty": (lambda text: "", "not valid JSON"),
    "a merge conflict": (lambda text: "<<<<<<< HEAD\n" + text, "f:1: not valid JSON"),
}


@pytest.mark.parametrize("change, complaint", HOSTILE.values(), ids=list(HOSTILE))
def test_a_file_with_other_contents_is_one_clear_line(change: Callable[[Any], Any], complaint: str) -> None:
    with pytest.raises(RunError, match=complaint) as caught:
        loads(broken(change), "f")
    assert str(caught.value).startswith("f: ") and len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("change, complaint", TEXT_ONLY.values(), ids=list(TEXT_ONLY))
def test_a_text_that_is_no_such_file_is_one_clear_line(change: Callable[[str], str], complaint: str) -> None:
    with pytest.raises(RunError, match=complaint):
        loads(change(dumps(small())), "f")


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_whatever_stands_somewhere_in_the_file_it_is_read_or_refused_in_one_line(data: st.DataObject) -> None:
    raw = json.loads(dumps(small()))
    place: Any = raw
    while True:
        keys = sorted(place) if isinstance(place, dict) else range(len(place))
        key = data.draw(st.sampled_from(list(keys)))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(JUNK)
    try:
        loads(json.dumps(raw), "f")
    except RunError as error:
        assert str(error).startswith("f: ")


def stored(taxonomy: Path, name: str = "main") -> Path:
    path = taxonomy / "baselines" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dumps(small(name)), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["../main", "a/b", "", ".hidden", "x" * 65, "main\n", "a b", "-x", "\x1b[31m"])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    stored(tmp_path)
    with pytest.raises(RunError, match="bad name"):
        read_baseline(tmp_path, name)


def test_files_that_are_not_what_they_seem_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = stored(tmp_path)
    assert read_baseline(tmp_path, "main") == small()
    (path.parent / "link.json").symlink_to(path)
    (path.parent / "dangling.json").symlink_to(tmp_path / "nothing")
    (path.parent / "other.json").write_bytes(path.read_bytes())
    (path.parent / "latin.json").write_bytes(b'{"name": "\xe9"}')
    (path.parent / "folder.json").mkdir()
    (path.parent / ".hidden.json").write_text("{}")
    for name, complaint in {
        "link": "is a symbolic link",
        "dangling": "is a symbolic link",
        "other": "holds the baseline 'main'",
        "latin": "not valid UTF-8",
        "folder": "is not a regular file",
    }.items():
        with pytest.raises(RunError, match=complaint):
            read_baseline(tmp_path, name)
    assert baseline_names(tmp_path) == ["dangling", "folder", "latin", "link", "main", "other"]
    monkeypatch.setattr("rft_ilab.pipeline.baselines.MAX_BYTES", 100)
    with pytest.raises(RunError, match="bytes are more than the limit of 100"):
        read_baseline(tmp_path, "main")


def test_a_linked_folder_is_refused_and_a_missing_name_names_those_there_are(tmp_path: Path) -> None:
    stored(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "baselines").symlink_to(tmp_path / "a" / "baselines")
    with pytest.raises(RunError, match="baselines: is a symbolic link"):
        read_baseline(tmp_path / "b", "main")
    with pytest.raises(RunError, match=r"no stored baseline 'old' \(stored here: main; .*ilab rft baseline save old"):
        read_baseline(tmp_path / "a", "old")
    with pytest.raises(RunError, match="stored here: none"):
        read_baseline(tmp_path, "old")

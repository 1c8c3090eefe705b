"""Types, settings and storage: what the rest relies on without asking."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rft_ilab.config import Settings, load_settings
from rft_ilab.disk import put_in_place, remove_leftovers
from rft_ilab.errors import DiskError, RunError, SkillError
from rft_ilab.store import Run, append_jsonl, keep_jsonl, latest_run, read_json, read_jsonl, write_atomic
from rft_ilab.types import Grade, Message, Sampling, Suite, Task, UngradedError

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def grade(**fields: object) -> Grade:
    return Grade(**({"task_id": "t", "index": 0, "policy_id": "p", "score": 1.0, "passed": True} | fields))  # type: ignore[arg-type]


def test_an_error_has_no_reward() -> None:
    with pytest.raises(UngradedError, match="boom"):
        _ = grade(score=None, passed=None, error="boom").reward
    assert grade(score=0.25, passed=False).reward == 0.25


@pytest.mark.parametrize(
    "fields",
    [{"score": None}, {"error": "x"}, {"score": 1.5}, {"score": float("nan")}, {"passed": None}],
)
def test_half_a_grade_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        grade(**fields)


def test_identities_change_with_what_they_name() -> None:
    messages = [Message("user", "a")]
    assert Task.make_id("s", messages, "r") == Task.make_id("s", list(messages), "r")
    assert Task.make_id("s", messages, "r") != Task.make_id("s", messages, "q")

    def suite(demonstrations: int) -> Suite:
        return Suite(
            name="s",
            task_ids=("a",),
            samples=1,
            sampling=Sampling(),
            demonstrations=demonstrations,
            tier="target",
            margin=0.1,
        )

    assert suite(0).digest != suite(8).digest


@given(st.lists(json_values, max_size=5))
def test_jsonl_round_trip(rows: list[object]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "rows.jsonl"
        append_jsonl(path, rows[:2])
        append_jsonl(path, rows[2:])
        assert read_jsonl(path) == rows


def test_a_torn_line_costs_that_line_alone(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    append_jsonl(path, [{"a": 1}, {"b": "\u2028"}])
    with path.open("ab") as file:
        file.write(b'{"c": 3, "d')
    append_jsonl(path, [{"e": 5}])
    assert read_jsonl(path) == [{"a": 1}, {"b": "\u2028"}, {"e": 5}]


def test_rows_that_found_no_room_are_not_there_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.jsonl"
    append_jsonl(path, [{"a": 1}])
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DiskError, match=r"rows.jsonl: cannot be written: no space left on the disk"):
            append_jsonl(path, [{"b": 2}, {"c": 3}])
    assert path.read_bytes() == before
    append_jsonl(path, [{"b": 2}])
    assert read_jsonl(path) == [{"a": 1}, {"b": 2}]


def test_rows_are_dropped_without_touching_the_others(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    keep_jsonl(path, lambda row: True)
    assert not path.exists()
    lines = [b'{"step":1,  "x": 0.1}', '{"step": 2, "x": "ü\u2028"}'.encode(), b'{"step": 3}']
    path.write_bytes(b"\n".join(lines) + b'\n{"step": 1, "torn')
    keep_jsonl(path, lambda row: row["step"] < 3)
    assert path.read_bytes() == lines[0] + b"\n" + lines[1] + b"\n"
    untouched = path.stat().st_ino
    keep_jsonl(path, lambda row: row["step"] < 3)
    assert path.stat().st_ino == untouched


def test_a_directory_takes_its_place_whole(tmp_path: Path) -> None:
    """And what a killed process left half done is removed."""
    for content in ("old", "new"):
        fresh = tmp_path / ".model.partial"
        (fresh / "deep").mkdir(parents=True)
        (fresh / "deep" / "file").write_text(content)
        (fresh / content).write_text("")
        put_in_place(fresh, tmp_path / "model")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["deep", "file", "model", "new"]
    assert (tmp_path / "model/deep/file").read_text() == "new"
    (tmp_path / "model" / ".file.a1b2c3.partial").write_text("")
    (tmp_path / ".gone.partial" / "x").mkdir(parents=True)
    (tmp_path / ".kept").write_text("")
    remove_leftovers(tmp_path)
    assert sorted(p.name for p in tmp_path.rglob("*")) == [".kept", "deep", "file", "model", "new"]


def test_atomic_write_keeps_the_old_file_when_the_new_one_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomic(path, "old")
    assert stat.S_IMODE(path.stat().st_mode) & 0o044 == 0o044

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskError, match=r"file: cannot be written: no space left on the disk, [\d.]+ [kMG]B free"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_run_is_resumed_only_with_its_own_settings(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "r", {"identity": {"model": "a", "train": {"steps": 1}}})
    with run.stage("data") as facts:
        facts["kept"] = 3
    again = Run.create(tmp_path / "r", {"identity": {"model": "a", "train": {"steps": 1}}})
    assert again.done("data") and again.manifest["stages"]["data"]["kept"] == 3
    with pytest.raises(RunError, match=r"other settings \(train\)"):
        Run.create(tmp_path / "r", {"identity": {"model": "a", "train": {"steps": 2}}})
    assert latest_run(tmp_path) == tmp_path / "r"


def test_a_failed_stage_is_not_done(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "r", {"identity": {}})
    with pytest.raises(KeyboardInterrupt), run.stage("rl"):
        raise KeyboardInterrupt
    assert not Run.open(tmp_path / "r").done("rl")


def test_missing_and_broken_runs_are_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run here yet"):
        latest_run(tmp_path)
    with pytest.raises(RunError, match="missing file"):
        Run.open(tmp_path / "none")
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(RunError, match="not valid JSON"):
        read_json(tmp_path / "manifest.json")


def test_settings_have_defaults(tmp_path: Path) -> None:
    assert load_settings(tmp_path) == Settings()
    (tmp_path / "rft.toml").write_text(
        '[skills."a/b"]\ntier = "target"\nmargin = 0\n[gate]\nalpha = 0.1\n[train]\nasync_steps = 1\n'
    )
    settings = load_settings(tmp_path)
    assert settings.train.async_steps == 1
    assert settings.skill("a/b").tier == "target" and settings.skill("a/b").margin == 0
    assert settings.gate.alpha == 0.1 and settings.skill("c/d").tier == "supporting"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = [", "not valid TOML"),
        ("a = " + "[" * 20_000, "nested too deeply"),
        ("[gates]\n", "unknown table [gates]"),
        ("[gate]\nalhpa = 1\n", "unknown key 'alhpa' in [gate]"),
        ("[train]\nsteps = 'many'\n", "'steps' in [train] must be int"),
        ("[train]\nsteps = true\n", "'steps' in [train] must be int"),
        ("[train]\nasync_steps = 2\n", "unknown async_steps 2 in [train]"),
        ("[train]\nasync_steps = true\n", "'async_steps' in [train] must be int"),
        ("[train]\nsft_batch = 0\n", "'sft_batch' in [train] must be at least 1"),
        ("[train]\ngroup_size = 1\n", "'group_size' in [train] must be at least 2"),
        ('[skills."a/b"]\nmax_tokens = 0\n', "'max_tokens' in [skills.\"a/b\"] must be at least 1"),
        ("[gate]\nmargin = -0.1\n", "'margin' in [gate] must not be negative"),
        ('[skills."a/b"]\ntier = "vital"\n', "unknown tier 'vital'"),
        ("skills = 3\n", "skills must be a table of tables"),
        ("[skills]\nx = 3\n", "must be a table"),
    ],
)
def test_bad_settings_name_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "rft.toml").write_text(text)
    with pytest.raises(SkillError) as caught:
        load_settings(tmp_path)
    assert message in str(caught.value) and str(tmp_path / "rft.toml") in str(caught.value)


def test_manifest_is_plain_json(tmp_path: Path) -> None:
    Run.create(tmp_path / "r", {"identity": {"a": 1}})
    assert json.loads((tmp_path / "r" / "manifest.json").read_text())["stages"] == {}


def test_settings_behind_a_link_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "rft.toml").symlink_to("/dev/zero")
    with pytest.raises(SkillError, match="is not a regular file"):
        load_settings(tmp_path)

"""What trackers are sent: TensorBoard's files read back, fakes of Weights & Biases and MLflow, failures, resuming."""

from __future__ import annotations

import contextlib
import struct
import sys
import threading
import types
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.crc32c import crc32c
from tensorboardX.proto.event_pb2 import Event, SessionLog

from rft_ilab.config import TrackingSettings, load_settings, tracker_names
from rft_ilab.errors import SkillError, TrackerError
from rft_ilab.pipeline import tracking as tracking_module
from rft_ilab.pipeline.trackers import TensorBoard
from rft_ilab.pipeline.tracking import check_trackers, numbers, tracking
from rft_ilab.store import append_jsonl, read_json, read_jsonl

CONFIG = {"train": {"steps": 6, "seed": 0}, "targets": ["area/skill"]}


def sft(step: int) -> dict[str, Any]:
    return {"stage": "sft", "step": step, "steps": 8, "loss": 1.0 / step, "seconds": 0.5}


def grpo(step: int) -> dict[str, Any]:
    row = {"stage": "grpo", "step": step, "steps": 6, "reward": step / 8, "groups": 4, "signal_groups": 3, "train_s": 2}
    return row | ({"val": {"greedy": step / 8, "macro": None}} if step % 3 == 0 else {})


WHOLE = [*map(sft, range(1, 9)), *map(grpo, range(1, 7))]


def train(report_to: str, run: Path, rows: list[dict[str, Any]], *, interrupted: bool = False) -> list[str]:
    """As the pipeline does it: a row is written to the log, then told. Returns what was said."""
    said: list[str] = []
    with contextlib.suppress(KeyboardInterrupt), tracking(report_to, run, CONFIG, said.append) as track:
        for row in rows:
            append_jsonl(run / "rl" / "steps.jsonl", [row])
            track(row)
        if interrupted:
            raise KeyboardInterrupt
    return said


def train_with_an_interruption(report_to: str, run: Path) -> None:
    """Stopped after GRPO step 5; the newest checkpoint is that of step 3."""
    train(report_to, run, WHOLE[:-1], interrupted=True)
    log = run / "rl" / "steps.jsonl"
    kept = [row for row in read_jsonl(log) if row["stage"] == "sft" or row["step"] <= 3]
    log.unlink()
    append_jsonl(log, kept)
    train(report_to, run, WHOLE[-3:])


def masked(data: bytes) -> int:
    crc = crc32c(data) & 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def events(file: Path) -> Iterator[Event]:
    """TFRecord: length, its checksum, the event, its checksum."""
    data = file.read_bytes()
    at = 0
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        assert struct.unpack_from("<I", data, at + 8) == (masked(data[at : at + 8]),)
        body = data[at + 12 : at + 12 + length]
        assert struct.unpack_from("<I", data, at + 12 + length) == (masked(body),)
        at += 16 + length
        yield Event.FromString(body)


def shown_by_tensorboard(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Points by tag: files in the order of their names; a start of a session hides all from its step on."""
    points: dict[str, list[tuple[int, float]]] = {}
    for file in sorted((run / "rl" / "tensorboard").iterdir()):
        first, *rest = events(file)
        assert first.file_version == "brain.Event:2"
        for event in rest:
            if event.session_log.status == SessionLog.START:
                points = {tag: [p for p in known if p[0] < event.step] for tag, known in points.items()}
            for value in event.summary.value:
                points.setdefault(value.tag, []).append((event.step, value.simple_value))
    return points


def expected(tag: str) -> list[tuple[int, float]]:
    return [(row["step"], round(numbers(row)[tag], 6)) for row in WHOLE if tag in numbers(row)]


TAGS = {
    *("sft/loss", "sft/seconds", "grpo/reward", "grpo/groups", "grpo/signal_groups", "grpo/signal_share"),
    *("perf/train_s", "val/greedy"),
}


def assert_whole(points: dict[str, list[tuple[int, float]]]) -> None:
    assert set(points) == TAGS
    for tag in TAGS:
        # TensorBoard keeps 32 bits of a number.
        assert [(step, round(value, 6)) for step, value in points[tag]] == expected(tag), tag


def test_only_finite_numbers_have_tags() -> None:
    row = {
        **{"stage": "grpo", "step": 4, "steps": 9, "reward": 0.25, "reward_std": float("nan"), "entropy": float("inf")},
        **{
            "kl": 0.5,
            "kl_by_skill": {"area/a": 0.25, "area/b": None},
            "tokens_per_s": 12.5,
            "sample_s": 2,
            "note": "x",
        },
        **{"groups": 16, "signal_groups": 4, "errors": 0, "skipped": True, "loss": None, "val": {"greedy": 0.75}},
    }
    assert numbers(row) == {
        **{
            "grpo/reward": 0.25,
            "grpo/kl": 0.5,
            "grpo/kl/area/a": 0.25,
            "perf/tokens_per_s": 12.5,
            "perf/sample_s": 2.0,
        },
        **{"grpo/groups": 16.0, "grpo/signal_groups": 4.0, "grpo/signal_share": 0.25, "grpo/errors": 0.0},
        **{"val/greedy": 0.75},
    }
    assert numbers({"stage": "grpo", "step": 1, "groups": 0, "signal_groups": 0}).get("grpo/signal_share") is None
    assert numbers({"stage": "sft", "step": 1, "steps": 2, "skipped": True, "tokens": 7}) == {"sft/tokens": 7.0}


@pytest.mark.parametrize("report_to", ["auto", "tensorboard"])
def test_tensorboard_files_hold_every_step(tmp_path: Path, report_to: str) -> None:
    said = train(report_to, tmp_path, WHOLE)
    assert said == [f"metrics: TensorBoard event files in {tmp_path}/rl/tensorboard"]
    assert len(list((tmp_path / "rl" / "tensorboard").iterdir())) == 1
    assert_whole(shown_by_tensorboard(tmp_path))


def test_tensorboard_shows_no_step_of_a_resumed_run_twice(tmp_path: Path) -> None:
    """Steps 4 and 5 were shown before the interruption; the warm start has 8, more than are hidden."""
    train_with_an_interruption("auto", tmp_path)
    assert len(list((tmp_path / "rl" / "tensorboard").iterdir())) == 2
    assert_whole(shown_by_tensorboard(tmp_path))
    train("auto", tmp_path / "other", WHOLE[:5], interrupted=True)
    # No checkpoint: everything begins anew.
    (tmp_path / "other" / "rl" / "steps.jsonl").unlink()
    train("auto", tmp_path / "other", WHOLE)
    assert_whole(shown_by_tensorboard(tmp_path / "other"))


def test_event_files_that_somebody_removed_are_written_whole_again(tmp_path: Path) -> None:
    train("auto", tmp_path, WHOLE[:-3], interrupted=True)
    for file in (tmp_path / "rl" / "tensorboard").iterdir():
        file.unlink()
    train("auto", tmp_path, WHOLE[-3:])
    assert_whole(shown_by_tensorboard(tmp_path))


class FakeWandb(types.ModuleType):
    """Keeps what it is told; ``broken`` at and after that many rows; waits for ``gate`` in each."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.__spec__ = ModuleSpec("wandb", None, origin="fake")
        self.inits: list[dict[str, Any]] = []
        self.rows: list[dict[str, Any]] = []
        self.steps: list[int] = []
        self.metrics: dict[str, str | None] = {}
        self.exits: list[int] = []
        self.broken = 10**9
        self.gate = threading.Event()
        self.gate.set()
        self.Settings = dict
        self.url, self.offline = "https://wandb.example/run", False

    def init(self, **arguments: Any) -> FakeWandb:
        self.inits.append(arguments)
        self.id = arguments["id"] or f"id-{len(self.inits)}"
        return self

    def define_metric(self, name: str, step_metric: str | None = None) -> None:
        self.metrics[name] = step_metric

    def log(self, row: dict[str, Any], step: int) -> None:
        self.gate.wait(20)
        if len(self.rows) >= self.broken:
            raise ConnectionError("no route\nto host")
        self.rows.append(row)
        self.steps.append(step)

    def finish(self, exit_code: int) -> None:
        self.exits.append(exit_code)


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    for variable in ("WANDB_PROJECT", "WANDB_NAME"):
        monkeypatch.delenv(variable, raising=False)
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def test_wandb_is_sent_every_step_once_and_resumed_by_id(tmp_path: Path, wandb: FakeWandb) -> None:
    train_with_an_interruption("wandb", tmp_path / "name")
    assert wandb.rows == [{**numbers(row), f"{row['stage']}/step": row["step"]} for row in WHOLE]
    assert wandb.steps == list(range(1, 15)) and wandb.exits == [1, 0]
    first, second = wandb.inits
    assert first["id"] is None and second["id"] == "id-1"
    assert (first["project"], first["name"], first["resume"], first["config"]) == ("rft-ilab", "name", "allow", CONFIG)
    assert first["settings"] == {"console": "off"} and first["dir"] == str(tmp_path / "name" / "rl")
    assert wandb.metrics["val/*"] == wandb.metrics["grpo/*"] == wandb.metrics["perf/*"] == "grpo/step"
    assert wandb.metrics["sft/*"] == "sft/step"
    assert not (tmp_path / "name" / "rl" / "tensorboard").exists()


def test_a_tracker_that_joins_late_is_sent_what_it_missed(tmp_path: Path, wandb: FakeWandb) -> None:
    train("none", tmp_path, WHOLE[:11], interrupted=True)
    train("tensorboard,wandb", tmp_path, WHOLE[11:])
    assert wandb.steps == list(range(1, 15)) and [r.get("grpo/reward") for r in wandb.rows[8:]] == [
        step / 8 for step in range(1, 7)
    ]
    assert_whole(shown_by_tensorboard(tmp_path))


def test_a_tracker_that_fails_is_switched_off_and_says_so_once(tmp_path: Path, wandb: FakeWandb) -> None:
    wandb.broken = 3
    said = train("wandb,tensorboard", tmp_path, WHOLE)
    assert said[2:] == ["wandb: switched off, training goes on: no route to host"]
    assert len(wandb.rows) == 3
    assert_whole(shown_by_tensorboard(tmp_path))
    # The step at which it failed may have arrived: it is not sent again.
    assert read_json(tmp_path / "rl" / "trackers" / "wandb.json") == {"sft": 4, "grpo": 0, "id": "id-1"}


def test_training_waits_for_no_network(tmp_path: Path, wandb: FakeWandb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking_module, "PATIENCE_S", 0.2)
    wandb.gate.clear()
    said = train("wandb", tmp_path, WHOLE)
    assert wandb.rows == [] and said[1:] == ["wandb: not all metrics could be sent within 0 s"]
    wandb.gate.set()


def test_a_full_disk_does_not_stop_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: TensorBoard, stage: str, step: int, numbers: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TensorBoard, "log", full)
    said = train("auto", tmp_path, WHOLE)
    assert said[1:] == ["tensorboard: switched off, training goes on: [Errno 28] No space left on device"]


class FakeMlflow(types.ModuleType):
    """Module and client in one."""

    def __init__(self) -> None:
        super().__init__("mlflow")
        self.__spec__ = ModuleSpec("mlflow", None, origin="fake")
        self.experiments: list[str] = []
        self.runs: list[str] = []
        self.params: dict[str, str] = {}
        self.points: dict[str, list[tuple[int, float]]] = {}
        self.statuses: list[str] = []

    def MlflowClient(self) -> FakeMlflow:
        return self

    def get_tracking_uri(self) -> str:
        return "sqlite:///x.db"

    def get_experiment_by_name(self, name: str) -> Any:
        return types.SimpleNamespace(experiment_id="7") if name in self.experiments else None

    def create_experiment(self, name: str) -> str:
        self.experiments.append(name)
        return "7"

    def create_run(self, experiment: str, run_name: str) -> Any:
        assert experiment == "7"
        self.runs.append(run_name)
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id=f"r{len(self.runs)}"))

    def log_param(self, run: str, key: str, value: str) -> None:
        self.params[key] = value

    def update_run(self, run: str, status: str) -> None:
        self.statuses.append(f"{run} {status}")

    def log_batch(self, run: str, metrics: list[Any]) -> None:
        for key, value, _, step in metrics:
            self.points.setdefault(key, []).append((step, value))

    def set_terminated(self, run: str, status: str) -> None:
        self.statuses.append(f"{run} {status}")


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> FakeMlflow:
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    fake = FakeMlflow()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    entities = types.ModuleType("mlflow.entities")
    entities.Metric = lambda *parts: parts  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    return fake


def test_mlflow_is_sent_every_step_once_and_resumed_by_id(tmp_path: Path, mlflow: FakeMlflow) -> None:
    train_with_an_interruption("mlflow", tmp_path / "name")
    assert_whole(mlflow.points)
    assert (mlflow.experiments, mlflow.runs) == (["rft-ilab"], ["name"])
    assert mlflow.statuses == ["r1 KILLED", "r1 RUNNING", "r1 FINISHED"]
    assert mlflow.params == {"train.steps": "6", "train.seed": "0", "targets": "area/skill"}


def test_a_missing_tracker_is_an_error_only_if_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorboardX", "wandb", "mlflow"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in [name for name in sys.modules if name.startswith("tensorboardX.")]:
        monkeypatch.delitem(sys.modules, name)
    check_trackers("auto")
    check_trackers("none")
    for name, package in (("tensorboard", "tensorboardX"), ("wandb", "wandb"), ("mlflow", "mlflow")):
        with pytest.raises(TrackerError) as caught:
            check_trackers(name)
        assert str(caught.value) == f"--report-to {name}: {package} is not installed (pip install {package})"
    (line,) = train("auto", tmp_path, WHOLE)
    assert line.startswith("no TensorBoard event files: ") and "tensorboardX" in line


def test_a_directory_called_wandb_is_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    (tmp_path / "wandb").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(TrackerError, match="wandb is not installed"):
        check_trackers("wandb")


def test_a_tracker_that_does_not_start_is_an_error_before_training(
    tmp_path: Path, wandb: FakeWandb, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**arguments: Any) -> None:
        raise ValueError("No API key configured.")

    monkeypatch.setattr(wandb, "init", refuse)
    with (
        pytest.raises(TrackerError, match=r"^--report-to wandb: No API key configured\.$"),
        tracking("tensorboard,wandb", tmp_path, CONFIG, lambda line: None),
    ):
        raise AssertionError("training started")


@pytest.mark.parametrize(
    ("text", "names"),
    [("auto", ("tensorboard",)), (" none ", ()), ("wandb, mlflow,wandb", ("wandb", "mlflow"))],
)
def test_names_of_trackers(text: str, names: tuple[str, ...]) -> None:
    assert tracker_names(text) == names


@pytest.mark.parametrize(
    ("text", "says"),
    [("tensorbord", "no tracker 'tensorbord'; there are tensorboard, wandb, mlflow"),
     ("none,wandb", "'none' goes with no other"), ("wandb,auto", "'auto' goes with no other"), ("", "no tracker ''")],
)  # fmt: skip
def test_a_report_to_that_is_none_is_one_line(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "rft.toml").write_text(f'[tracking]\nreport_to = "{text}"\n')
    with pytest.raises(SkillError, match=rf"rft.toml: 'report_to' in \[tracking\]: {says}"):
        load_settings(tmp_path)
    (tmp_path / "rft.toml").write_text('[tracking]\nreport_to = "wandb"\n')
    assert load_settings(tmp_path).tracking == TrackingSettings(report_to="wandb")

"""What training looks like, line by line and as a panel; how long it says it will take.

``UPDATE_GOLDEN=1 pytest tests/unit/test_screen.py`` rewrites the golden files.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rft_ilab.pipeline.live import TrainingView, sparkline
from rft_ilab.pipeline.pace import Pace, clock_time, time_left
from rft_ilab.pipeline.screen import Screen, step_line

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def sft(step: int, **more: Any) -> dict[str, Any]:
    return {"stage": "sft", "step": step, "steps": 12, "loss": 2.0 / step, "seconds": 2.0, **more}


def grpo(step: int, **more: Any) -> dict[str, Any]:
    row = {"stage": "grpo", "step": step, "steps": 20, "reward": 0.3 + step * 0.02, "signal_groups": 9, "groups": 16}
    row |= {"errors": 0, "entropy": 0.41, "sample_s": 6.0, "train_s": 4.0}
    return {**row, **more}


def rows() -> list[tuple[float, dict[str, Any]]]:
    """(seconds since the row before, row): a warm start of 2 s steps, then 10 s, validation of 30 s every 10 steps."""
    found = [(2.0, sft(step)) for step in range(1, 12)] + [(2.0, sft(12))]
    found += [(90.0, grpo(1))] + [(10.0, grpo(step)) for step in range(2, 10)]
    found.append((40.0, grpo(10, val={"greedy": 0.894, "macro": 0.871}, errors=2)))
    kl = {"kl": 0.0123, "kl_by_skill": {"area/target": 0.0042, "area/[bold]odd": 0.0311}, "tokens_per_s": 1234.4}
    found += [(10.0, grpo(step, **kl)) for step in range(11, 13)]
    skipped = grpo(13, skipped=True, errors=1, **kl)
    del skipped["entropy"]
    return [*found, (10.0, skipped)]


def assert_golden(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def test_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(Pace.__init__, "__defaults__", (clock,))
    console = Console(file=io.StringIO(), width=60)
    with Screen(console).training(10) as step:
        for seconds, row in rows():
            clock.now += seconds
            step(row)
    assert_golden("training_lines.txt", console.file.getvalue())  # type: ignore[attr-defined]


def drawn(view: TrainingView, **options: Any) -> str:
    console = Console(record=True, width=76, file=io.StringIO(), force_terminal=True, **options)
    console.print(view)
    return console.export_text()


def test_the_panel(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    view = TrainingView(Pace(10, clock), clock)
    frames = [drawn(view)]
    for seconds, row in rows():
        clock.now += seconds
        view.pace.add(row)
        view.add(row)
        if (row["stage"], row["step"]) in (("sft", 7), ("grpo", 4), ("grpo", 12), ("grpo", 13)):
            clock.now += 1.0
            frames.append(drawn(view))
            clock.now -= 1.0
    assert_golden("training_panel.txt", "".join(frames))


def test_a_terminal_without_unicode_is_drawn_in_ascii() -> None:
    view = TrainingView(Pace(10))
    for step in range(1, 9):
        view.add(grpo(step))
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    Console(width=76, file=file, force_terminal=True, color_system=None).print(view)
    file.flush()
    text = file.buffer.getvalue().decode("ascii")  # type: ignore[attr-defined]
    assert "reward   0.460  _.-==+*#  0.320 to 0.460 in 8 steps" in text


def test_the_panel_goes_and_the_lines_stay() -> None:
    console = Console(file=io.StringIO(), width=76, force_terminal=True, color_system=None)
    screen = Screen(console)
    with screen.training(10) as step:
        step(grpo(1))
        screen.say("validation after [red]step-1: 50%")
        step(grpo(2, skipped=True))
        step(grpo(20))
    written = console.file.getvalue()  # type: ignore[attr-defined]
    assert "validation after [red]step-1: 50%\n" in written
    assert step_line(grpo(2, skipped=True)) in written and step_line(grpo(20)) in written
    assert step_line(grpo(1)) not in written and "GRPO 20/20" in written
    # Seven lines of the last panel, each erased on the way up.
    assert written.endswith("\x1b[?25h\r" + "\x1b[1A\x1b[2K" * 7)


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    console = Console(file=io.StringIO(), width=76, force_terminal=True)
    with Screen(console).training(10) as step:
        step(grpo(1))
    assert console.file.getvalue() == step_line(grpo(1)) + "\n"  # type: ignore[attr-defined]


def test_time_left_counts_steps_and_validations() -> None:
    clock = Clock()
    pace = Pace(val_every=4, clock=clock)

    def after(seconds: float, row: dict[str, Any]) -> tuple[float, bool] | None:
        clock.now += seconds
        pace.add({**row, "steps": 10 if row["stage"] == "grpo" else 12})
        return pace.left()

    assert pace.left() is None
    assert after(5, sft(1)) is None
    assert after(3, sft(2)) == (25.0, True)  # 10 steps at the median of 2.0 (its own word) and 3
    assert after(300, grpo(1)) is None, "steps of the warm start say nothing about GRPO's"
    # 8 steps of 10 s; validations after 4, 8 and the last: none timed yet.
    assert after(10, grpo(2)) == (80.0, False)
    assert after(10, grpo(3)) == (70.0, False)
    # 6 steps, two validations of 60 s.
    assert after(70, grpo(4, val={})) == (180.0, True)
    clock.now += 4
    assert pace.left() == (176.0, True)
    clock.now += 1000
    assert pace.left() == (170.0, True), "a step that takes long does not bring the end nearer"
    clock.now -= 1004
    assert after(3000, grpo(5)) == (170.0, True), "one slow step does not count"
    for step in range(6, 10):
        after(20, grpo(step))
    assert pace.left() == (20.0 + 60.0, True), "slower for good: the median follows"
    assert after(20, grpo(10)) is None


def test_a_resumed_run_knows_nothing_until_two_steps_are_timed() -> None:
    pace = Pace(10, Clock())
    pace.add(grpo(11))
    assert time_left(pace) == ""


def test_absent_and_empty_numbers_are_not_shown() -> None:
    assert step_line(grpo(3)) == "  grpo   3/20  reward 0.360  signal 9/16  entropy 0.41  10.0 s"
    assert step_line(grpo(3, kl=None, tokens_per_s=None)) == step_line(grpo(3))
    view = TrainingView(Pace(10))
    view.add({"stage": "grpo", "step": 1, "steps": 2, "kl": None})
    text = drawn(view)
    assert "KL" not in text and "reward" not in text and "None" not in text


@pytest.mark.parametrize(
    ("values", "bars"),
    [([0.5], "▁"), ([0.1, 0.1], "▁▁"), ([0, 1], "▁█"), ([-1.0, 0.0, 1.0], "▁▅█"), ([3, 1, 2], "█▁▅")],
)
def test_sparkline(values: list[float], bars: str) -> None:
    assert sparkline(values) == bars


def test_clock_time() -> None:
    assert [clock_time(s) for s in (0, 59.4, 61, 3600, 36061)] == ["0:00", "0:59", "1:01", "1:00:00", "10:01:01"]


def test_words_of_graders_cannot_steer_the_terminal() -> None:
    out = io.StringIO()
    Screen(Console(file=out, width=80, force_terminal=True)).say("  the first: \x1b[2J\r[red]x\u202e")
    assert out.getvalue() == "  the first: ⟨U+001B⟩[2J⟨U+000D⟩[red]x⟨U+202E⟩\n"

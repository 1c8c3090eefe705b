"""The tools that measure graders still run, in seconds instead of minutes; their figures are in the documentation."""

from __future__ import annotations

import importlib
import json

import pytest


@pytest.mark.slow
def test_ten_thousand_strings_find_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert importlib.import_module("tools.fuzz_graders").main(["--strings", "10_000", "--seed", "7"]) == 0
    assert " 0 offences" in capsys.readouterr().out


@pytest.mark.slow
def test_a_few_seconds_of_soaking_misjudge_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert importlib.import_module("tools.soak_grading").main(["--minutes", "0.1"]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["grades"] >= 640 and figures["misjudged"] == 0


@pytest.mark.slow
def test_the_benchmark_ends_with_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    importlib.import_module("tools.bench_grading").main(["--seconds", "0.01"])
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(figures) == ["cheap_per_s_core", "cage_batch_per_s", "cage_single_ms_p50", "split_judge_ms_p50"]
    assert min(figures.values()) > 0

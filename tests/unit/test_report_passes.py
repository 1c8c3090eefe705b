"""pass@k and pass^k on every surface, where the verdict has them."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from rft_ilab.errors import RunError
from rft_ilab.report.data import RunReport
from rft_ilab.report.html import render_html
from rft_ilab.report.load import load_run
from rft_ilab.report.markdown import markdown_summary
from rft_ilab.report.passes import pass_rows
from rft_ilab.report.terminal import print_summary

RUN = Path(__file__).resolve().parents[1] / "fixtures" / "run"


def entry(k: int, before: float | None, after: float | None) -> dict[str, object]:
    delta = None if before is None or after is None else after - before
    metric = {"before": before, "after": after, "delta": delta, "ci": [-1.0, 1.0] if delta is None else [0.1, 0.6]}
    return {"k": k, "pass_at": metric, "pass_hat": metric}


def with_passes(tmp_path: Path, entries: object) -> RunReport:
    run = Path(shutil.copytree(RUN, tmp_path / "demo"))
    verdict = json.loads((run / "gate" / "verdict.json").read_text(encoding="utf-8"))
    for row in verdict["watched"]:
        row["pass_at_k"] = []
    verdict["targets"][0]["pass_at_k"] = entries
    (run / "gate" / "verdict.json").write_text(json.dumps(verdict), encoding="utf-8")
    return load_run(run)


def printed(report: RunReport) -> str:
    stream = io.StringIO()
    print_summary(report, Console(file=stream, width=120, no_color=True))
    return stream.getvalue()


def test_they_are_shown_everywhere(tmp_path: Path) -> None:
    report = with_passes(tmp_path, [entry(4, 0.25, 0.75), entry(1, 0.1, 0.2), entry(2, 0.5, 0.875)])
    assert report.gate is not None
    assert [row.name for row in pass_rows(report.gate)] == ["pass@2", "pass^2", "pass@4", "pass^4"]
    assert [row.name for row in pass_rows(report.gate, largest=True)] == ["pass@4", "pass^4"]
    assert "healthcare/patient_triage, pass@4: 25.0% -> 75.0%, +50.0 points [10.0, 60.0]" in printed(report)
    row = r"| healthcare/patient\_triage | pass^4 | 25.0% | 75.0% | +50.0 points [10.0, 60.0] |"
    assert row in markdown_summary(report)
    page = render_html(report)
    assert "How dependable are the answers?" in page and "<td>pass@2</td>" in page and "<td>pass@1</td>" not in page


def test_they_are_left_out_where_nothing_was_sampled(tmp_path: Path) -> None:
    for number, entries in enumerate(([], None, [entry(1, 0.1, 0.2)])):
        report = with_passes(tmp_path / str(number), entries)
        for text in (printed(report), markdown_summary(report), render_html(report)):
            assert "pass@2" not in text and "pass^" not in text and "dependable are" not in text


def test_without_numbers_they_say_so(tmp_path: Path) -> None:
    report = with_passes(tmp_path, [entry(2, None, None)])
    assert "pass@2: n/a -> n/a, not measured" in printed(report)


def test_a_wrong_shape_names_the_field(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"targets\[0\]\.pass_at_k\[0\]\.pass_hat"):
        with_passes(tmp_path, [{**entry(2, 0.5, 0.5), "pass_hat": None}])

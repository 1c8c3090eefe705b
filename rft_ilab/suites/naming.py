"""What people write: ``gsm8k``, ``ifeval:100``, ``lm_eval:arc_easy``, ``lm_eval:arc_easy:200``, ``none``."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from rft_ilab.config import SuiteSettings
from rft_ilab.errors import SkillError
from rft_ilab.suites.catalog import SUITES

HARNESS = "lm_eval:"
PREFIX = "suite/"  # of the name that a suite has in the verdict
NONE = "none"
# All tasks that lm_eval registers; no path is one.
TASK = re.compile(r"[A-Za-z0-9_.+-]+")


def parse_suites(written: Sequence[str], configured: Mapping[str, SuiteSettings]) -> dict[str, SuiteSettings]:
    """The suites of a gate by name: those of ``rft.toml`` and those that the command line adds or gives a limit.

    ``none`` leaves out what ``rft.toml`` names. Raises SkillError for a name or limit that there is not.

    >>> {n: s.limit for n, s in parse_suites(["gsm8k", "ifeval:100"], {"gsm8k": SuiteSettings(limit=50)}).items()}
    {'gsm8k': 50, 'ifeval': 100}
    """
    suites = {} if NONE in written else dict(configured)
    for one in written:
        if one == NONE:
            continue
        name, limit = split_limit(one)
        refuse_unknown(name)
        # Settings of a suite hold also where it is asked for by hand, beside none.
        known = suites.get(name, configured.get(name, SuiteSettings()))
        suites[name] = known if limit is None else dataclasses.replace(known, limit=limit)
    return suites


def split_limit(written: str) -> tuple[str, int | None]:
    """
    >>> split_limit("lm_eval:arc_easy:20"), split_limit("lm_eval:arc_easy")
    (('lm_eval:arc_easy', 20), ('lm_eval:arc_easy', None))
    """
    name, colon, limit = written.rpartition(":")
    if not colon or (written.startswith(HARNESS) and written.count(":") == 1):
        return written, None
    if not limit.isascii() or not limit.isdigit() or len(limit) > 9 or int(limit) < 1:
        raise SkillError(f"bad limit {limit!r} of the suite {name!r}", fix="a number of tasks, such as gsm8k:100")
    return name, int(limit)


def refuse_unknown(name: str, where: Path | None = None) -> None:
    """Raises SkillError if no suite has that name; whether lm-evaluation-harness has a task is asked when loading."""
    if name not in SUITES and not (name.startswith(HARNESS) and TASK.fullmatch(name.removeprefix(HARNESS))):
        raise SkillError(f"no suite {name!r}", where=where, fix=f"one of {', '.join(SUITES)}, or {HARNESS}TASK")


def check_suites(suites: Mapping[str, SuiteSettings], skills: Collection[str], where: Path) -> None:
    """Raises SkillError if there is no such suite, or a skill has its name in the verdict."""
    for name in suites:
        refuse_unknown(name, where)
        if PREFIX + name in skills:
            raise SkillError(f"a skill has the name of the suite {PREFIX + name}", where=where, fix="rename the skill")

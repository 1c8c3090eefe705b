"""``grader.waivers.json`` beside ``grader.json``: probes that do not apply to a grader, each with a reason.

``{"either-or": "any of several answers is right here"}``. The reason is printed in the table of
``ilab rft grader-test``. A name that is no probe, or a reason that says nothing, is a finding.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

from rft_ilab.errors import SkillError
from rft_ilab.grading.proof.exploits import PROBES
from rft_ilab.grading.proof.golden import Finding
from rft_ilab.grading.proof.mutation import OPERATORS
from rft_ilab.grading.proof.rules import RULES
from rft_ilab.skills.reading import parse_json, read_text

SUFFIX = ".waivers.json"
MAX_BYTES = 64 << 10
MUTANT = "mutant-"
# The reference itself cannot be waived: a grader that refuses the right answer has nothing to teach.
NAMES = (*(p.name for p in PROBES if p.name != "gold"), *RULES, *(MUTANT + operator for operator in OPERATORS))


def read_waivers(grader: Path) -> tuple[Mapping[str, str], list[Finding]]:
    """The waivers of a grader file (probe -> reason), and what is wrong with them. No file is no waiver."""
    path = grader.with_name(grader.stem + SUFFIX)
    if not path.exists() and not path.is_symlink():
        return {}, []
    fix = 'write {"probe": "why it does not apply"}'
    try:
        text = read_text(path, MAX_BYTES)
        raw = parse_json(text)
    except (SkillError, ValueError) as error:
        what = error.what if isinstance(error, SkillError) else f"not valid JSON: {error}"
        return {}, [Finding(severity="error", message=what, file=path, fix=fix)]
    if not isinstance(raw, dict):
        return {}, [Finding(severity="error", message="not a JSON object", file=path, line=1, fix=fix)]
    good: dict[str, str] = {}
    findings = []
    for name, reason in raw.items():
        if name not in NAMES:
            message = "the reference itself cannot be waived" if name == "gold" else f"no probe is named {name!r}"
            near = get_close_matches(name, NAMES, n=1)
            repair = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(NAMES)}"
        elif not isinstance(reason, str) or not reason.strip():
            message, repair = f"{name!r} is waived without a reason", fix
        else:
            good[name] = " ".join(reason.split())
            continue
        line = text.count("\n", 0, max(text.find(json.dumps(name)), 0)) + 1
        findings.append(Finding(severity="error", message=message, file=path, line=line, fix=repair))
    return good, findings

"""What would be needed to do a run again, as the page shows it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from rft_ilab.report.data import RunReport


def rows(report: RunReport) -> list[tuple[str, str]]:
    """Commands, seed, digests, commits, versions and settings, as (name, value) pairs."""
    manifest = report.manifest
    found = [("Run", str(report.directory.name))]
    if isinstance(command := manifest.get("command"), list):
        found.append(("Command", shlex.join(str(part) for part in command)))
    if report.gate and report.gate_command not in dict(found).values():
        found.append(("Command of the gate", report.gate_command))
    found += [("Seed", str(manifest["seed"]))] if "seed" in manifest else []
    if gate := report.gate:
        found += [("Old model", gate.baseline_name), ("Its digest and number format", gate.baseline_id)]
        found += [("Tuned model", gate.candidate_name), ("Its digest and number format", gate.candidate_id)]
    identity = _mapping(manifest, "identity")
    found += [("Digest of the model that training began with", _said(identity.get("model", "")))]
    found += [("Server that sampled answers", _said(identity.get("endpoint", "")))]
    engine = _mapping(manifest, "engine")
    found += [(f"Engine: {key}", _said(engine.get(key, ""))) for key in ("name", "commit", "flags")]
    if "tolerated_errors" in manifest:
        found.append(("Grader errors in training", f"{manifest['tolerated_errors']}, rewarded with their group's mean"))
    found += [("Versions", _said(manifest.get("versions", {})))]
    definitions = _mapping(identity, "skills")
    skills = _mapping(manifest, "skills")
    for name in [*skills, *(name for name in definitions if name not in skills)]:
        facts = _mapping(skills, name)
        parts = [f"commit {facts.get('commit', 'unknown')}", f"grader {facts.get('grader_digest', 'unknown')}"]
        parts += [f"tasks and settings {definitions[name]}"] if name in definitions else []
        found.append((f"Skill {name}", ", ".join(parts)))
    settings = {**identity, "open_instruct": engine.get("asked")}
    used = ("data", "open_instruct") if engine else ("data", "train")
    found += [(f"Settings: {key}", _said(settings.get(key) or {})) for key in used]
    return [(name, value) for name, value in found if value]


def _mapping(parent: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = parent.get(key)
    return value if isinstance(value, dict) else {}


def _said(value: Any) -> str:
    """A value of JSON for people: ``a 1, b 2`` instead of braces and quotes.

    >>> _said({"a": 1, "b": [2, True]}), _said("x")
    ('a 1, b 2 true', 'x')
    """
    if isinstance(value, dict):
        return ", ".join(f"{key} {_said(item)}" for key, item in value.items())
    if isinstance(value, list):
        return " ".join(_said(item) for item in value)
    return str(value).lower() if isinstance(value, bool) else str(value)

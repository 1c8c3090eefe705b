"""Are the weights of a bundle those that the gate judged? Everything that does not fit is named.

What it proves: the files are those that were shipped; the digest of the weights is that of the verdict's candidate; the
verdict's figures are those of the answers in the evidence. What it does not: that nobody wrote all of it anew. For
that, compare the digest of bundle.json with one that reached you another way (``expect``).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rft_ilab.errors import RunError
from rft_ilab.pipeline.basemodel import EMBEDDED_NAME
from rft_ilab.pipeline.bundle import (
    ADAPTER_CONFIG,
    BUNDLE,
    EVIDENCE,
    FIX,
    SUMS,
    VERDICT,
    Bundle,
    present,
    read_bundle,
    sha256,
    split_id,
    strict_json,
    sums,
)
from rft_ilab.pipeline.evidence import contradictions
from rft_ilab.policy.local.identity import answering_files, digest_of_files, directory_digest
from rft_ilab.report.gate_data import GateResult
from rft_ilab.report.verdict import parse_verdict


@dataclass(frozen=True, slots=True)
class Checked:
    """``findings`` are what does not fit, empty if all does; ``proof`` says what was shown, in order."""

    bundle: Bundle
    digest: str
    findings: tuple[str, ...]
    proof: tuple[str, ...]


def verify_bundle(
    directory: Path, *, base: Path | None = None, expect: str = "", say: Callable[[str], None] = lambda line: None
) -> Checked:
    """Check a bundle. ``base`` is the model that an adapter belongs to; ``expect`` the digest of bundle.json.

    Raises RunError for what is no bundle, or a hostile one, and PolicyError for a base that cannot be read.
    """
    if not directory.is_dir():
        raise RunError("no such bundle", where=directory, fix="give the directory that ilab rft ship wrote")
    there = present(directory)
    bundle = read_bundle(directory)
    digest = sha256(directory / BUNDLE)
    findings = []
    if expect and expect.removeprefix("sha256:") != digest:
        findings.append(f"{BUNDLE}: its sha256 is {digest}, not the one that was expected")
    say(f"reading {len(bundle.files)} files")
    findings += _files(directory, bundle, {name: status.st_size for name, status in there.items()}, digest)
    judged, number_format = split_id(bundle.judged)
    if not judged:
        raise RunError("the judged model is no local one: no weights to compare", where=directory / BUNDLE, fix=FIX)
    if findings:
        # What is not what was shipped is not worth reading further; and the causes would hide among the effects.
        return Checked(bundle, digest, tuple(findings), ())
    proof = [f"{len(bundle.files)} files are those that were shipped"]
    findings += _weights(directory, bundle, judged)
    gate = _verdict(directory)
    if gate.candidate_id != bundle.judged:
        findings.append(f"{VERDICT}: it judged {gate.candidate_id or 'nothing that has a digest'}, not {bundle.judged}")
    if gate.outcome != bundle.outcome:
        findings.append(f"{VERDICT}: its outcome is {gate.outcome}, not {bundle.outcome}")
    findings += contradictions(directory / EVIDENCE, gate)
    if bundle.kind == "adapter" and not findings:
        say("merging the adapter into its base")
        findings += _merged(directory, bundle, base, number_format)
        proof.append(f"adapter and base model {bundle.base[:16]} merge to the judged weights, bit for bit")
    if findings:
        return Checked(bundle, digest, tuple(findings), ())
    proof.append(f"their weights are those that were judged: {bundle.judged}")
    suites = len(gate.targets) + len(gate.watched)
    proof.append(
        f"the verdict is {gate.outcome}, and its figures on {suites} skills follow from the answers in {EVIDENCE}"
    )
    return Checked(bundle, digest, (), tuple(proof))


def known_base(directory: Path) -> Path | None:
    """The embedded model, where an adapter bundle names it as its base; None for every other."""
    bundle = read_bundle(directory) if directory.is_dir() else None
    if bundle is None or bundle.kind != "adapter" or bundle.base_name != EMBEDDED_NAME:
        return None
    from rft_ilab.policy.local.embedded import embedded_model

    return embedded_model()


def _files(directory: Path, bundle: Bundle, there: Mapping[str, int], own: str) -> list[str]:
    """What is missing, altered or additional."""
    found = []
    for name, listed in sorted(bundle.files.items()):
        if name not in there:
            found.append(f"{name}: missing")
        elif not bundle.belongs(name):
            found.append(f"{name}: does not belong into a bundle; it was not judged")
        elif there[name] != listed.size:
            found.append(f"{name}: altered ({there[name]:,} bytes, not {listed.size:,})")
        elif (actual := sha256(directory / name)) != listed.sha256:
            found.append(f"{name}: altered (sha256 {actual}, not {listed.sha256})")
    for name in sorted(set(there) - set(bundle.files) - {BUNDLE, SUMS}):
        found.append(f"{name}: additional, nobody shipped it")
    text = sums(bundle.files, own).encode()
    if SUMS not in there:
        found.append(f"{SUMS}: missing")
    elif there[SUMS] != len(text) or (directory / SUMS).read_bytes() != text:
        found.append(f"{SUMS}: altered")
    return found


def _weights(directory: Path, bundle: Bundle, judged: str) -> list[str]:
    """Does the digest of the judged model follow from the files that are here?"""
    # A file that the digest does not cover was not judged, whatever the list says.
    if uncovered := set(bundle.judged_files) - set(answering_files(list(bundle.judged_files))):
        return [f"{BUNDLE}: {min(uncovered)} is no file that the judged digest covers"]
    if unknown := set(bundle.tensors) - set(bundle.judged_files):
        return [f"{BUNDLE}: {min(unknown)} is no file of the judged model"]
    if digest_of_files(bundle.judged_files) != judged:
        return [f"{BUNDLE}: the files that it says were judged do not have the judged digest {judged}"]
    if bundle.kind == "model":
        actual = directory_digest(directory)
        return [] if actual == judged else [f"the model here is {actual}, not the judged {judged}"]
    found = []
    for name, digest in bundle.judged_files.items():
        own = bundle.files.get(name)
        if name in bundle.tensors:
            continue
        if own is None:
            found.append(f"{name}: missing, the judged model has it")
        elif own.sha256 != digest:
            found.append(f"{name}: not that of the judged model")
    return found


def _merged(directory: Path, bundle: Bundle, base: Path | None, number_format: str) -> list[str]:
    from rft_ilab.rl.merging import merged_digests

    if base is None:
        raise RunError(
            "an adapter is proven by merging", where=directory, fix=f"name its base, {bundle.base_name}, with --base"
        )
    if (actual := directory_digest(base)) != bundle.base:
        raise RunError(
            f"not the adapter's base: its digest is {actual}, not {bundle.base}", where=base, fix="name the right one"
        )
    config = strict_json(directory / ADAPTER_CONFIG)
    named = config.get("base_model_name_or_path") if isinstance(config, dict) else None
    if named != bundle.base_name:
        return [f"{ADAPTER_CONFIG}: it would be put on {str(named)[:100]!r}, not on {bundle.base_name}"]
    found = merged_digests(base, directory, bundle.tensors, number_format)
    return [
        f"adapter_model.safetensors: merged into its base it gives another {name} than was judged (or this processor "
        "rounds otherwise than the one that trained)"
        for name, digest in found.items()
        if digest != bundle.judged_files[name]
    ]


def _verdict(directory: Path) -> GateResult:
    path = directory / VERDICT
    if not path.is_file():
        raise RunError("no verdict in this bundle", where=directory, fix=FIX)
    return parse_verdict(strict_json(path), path)


def as_json(checked: Checked) -> str:
    """For scripts."""
    return json.dumps(
        {
            "proven": not checked.findings,
            "findings": list(checked.findings),
            "bundle_sha256": checked.digest,
            "judged": checked.bundle.judged,
            "outcome": checked.bundle.outcome,
        },
        indent=1,
    )

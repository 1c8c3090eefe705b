"""A finished run as a directory that can be handed over: weights, card, verdict, evidence, attribution, digests.

It is made beside its place, checked as a receiver would check it, and then put there by one rename. Killed before
that, the same command goes on: what was copied whole is not copied again. What is there is never replaced.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rft_ilab.disk import PARTIAL, full_disk_named, make_directory, sync_directory
from rft_ilab.errors import RunError
from rft_ilab.pipeline.attribution import attribution_files
from rft_ilab.pipeline.basemodel import BaseModel, base_model
from rft_ilab.pipeline.bundle import (
    ADAPTER,
    ADAPTER_CONFIG,
    BUNDLE,
    CARD,
    EVIDENCE,
    GGUF,
    SUMS,
    VERDICT,
    Bundle,
    Listed,
    present,
    sha256,
    split_id,
    sums,
)
from rft_ilab.pipeline.explain import recorded_taxonomy
from rft_ilab.pipeline.request import run_model
from rft_ilab.pipeline.verify_bundle import verify_bundle
from rft_ilab.policy.local.identity import answering_files, directory_digest
from rft_ilab.report.card import Shipment, model_card, not_passed
from rft_ilab.report.data import RunReport
from rft_ilab.report.gate_data import GateResult
from rft_ilab.report.html import render_html
from rft_ilab.report.load import load_run
from rft_ilab.report.markdown import markdown_summary
from rft_ilab.report.wording import judged as judged_suites
from rft_ilab.results import FILE as RESULTS
from rft_ilab.store import Run, name_of_run, read_json, write_atomic, write_json

WEIGHTS = (".safetensors", ".bin")


@dataclass(frozen=True, slots=True)
class Shipped:
    """``digest`` is the sha256 of bundle.json, which stands for everything in the bundle."""

    directory: Path
    outcome: str
    digest: str
    bytes: int
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the command was asked for. ``base`` is the model that an adapter is proven with, ``licence`` and
    ``base_name`` those of the base model where they are not known."""

    output: Path | None = None
    adapter: bool = False
    despite: bool = False
    base: Path | None = None
    licence: str = ""
    base_name: str = ""


def ship(directory: Path, wishes: Wishes, say: Callable[[str], None] = lambda line: None) -> Shipped:
    """Make the bundle of a run. Raises RunError for one that must not be shipped, DiskError when there is no room."""
    run = Run.open(directory)
    report = load_run(directory)
    assert report.gate is not None
    _refuse(directory, report, report.gate, wishes)
    model = run_model(run)
    digest, _ = split_id(report.gate.candidate_id)
    if not digest or directory_digest(model) != digest:
        raise RunError(
            f"the verdict is on other weights ({report.gate.candidate_id or 'of no local model'}) than this run's",
            where=model,
            fix=f"judge these with: ilab model regress --run {name_of_run(directory)}",
        )
    target = wishes.output or directory / ("bundle-adapter" if wishes.adapter else "bundle")
    if target.exists() or target.is_symlink():
        raise RunError(
            "is there already, and is not replaced", where=target, fix="name another with --output, or remove it"
        )
    base = base_model(run.manifest, wishes.base, wishes.base_name, wishes.licence)
    work = target.with_name(f".{target.name}{PARTIAL}")
    with full_disk_named(target):
        bundle, notes = _fill(work, run, report, report.gate, model, base, wishes, say)
        checked = verify_bundle(work, base=base.directory, say=say)
        if checked.findings:
            shutil.rmtree(work, ignore_errors=True)
            raise RunError(f"not shipped: {checked.findings[0]}", where=target, fix=_unproven(wishes))
        _durable(work)
        try:
            os.rename(work, target)
        except OSError as error:
            raise RunError(
                f"cannot be put in place: {error.strerror}", where=target, fix="name another with --output"
            ) from error
        sync_directory(target.parent)
    total = sum(listed.size for listed in bundle.files.values())
    return Shipped(target, report.gate.outcome, checked.digest, total, tuple(notes))


def _unproven(wishes: Wishes) -> str:
    return "ship the merged model, without --adapter" if wishes.adapter else "give the same command again"


def _refuse(directory: Path, report: RunReport, gate: GateResult, wishes: Wishes) -> None:
    if (warning := not_passed(report, gate)) and not wishes.despite:
        what = "a control run" if report.control else f"the gate's verdict is {gate.outcome}"
        first = f"; {gate.reasons[0]}" if gate.reasons and not report.control else ""
        raise RunError(
            f"not shipped: {what}{first}",
            where=directory,
            fix=f"with --despite-verdict it is, and its card begins: {warning.split(':')[0]}",
        )


def _fill(
    work: Path,
    run: Run,
    report: RunReport,
    gate: GateResult,
    model: Path,
    base: BaseModel,
    wishes: Wishes,
    say: Callable[[str], None],
) -> tuple[Bundle, list[str]]:
    """Write everything into ``work`` that is not there yet; returns the list and what the user should know."""
    judged = {name: sha256(model / name) for name in answering_files([p.name for p in model.iterdir() if p.is_file()])}
    sources = _sources(run, model, judged, wishes.adapter)
    gguf, notes = _gguf(run, wishes.adapter)
    sources |= gguf
    texts = _texts(run, report, gate, base, wishes, bool(gguf), notes)
    make_directory(work)
    for leftover in set(present(work)) - set(sources) - set(texts):
        (work / leftover).unlink()
    files = {name: _copied(source, work / name, say) for name, source in sources.items()}
    for name, text in texts.items():
        data = text.encode() if isinstance(text, str) else text
        write_atomic(work / name, data)
        files[name] = Listed(len(data), sha256(work / name))
    tensors: Mapping[str, tuple[str, ...]] = {}
    if wishes.adapter:
        from rft_ilab.rl.merging import tensor_names

        tensors = {n: tuple(tensor_names(model / n)) for n in judged if n.endswith(".safetensors")}
    bundle = Bundle(
        kind="adapter" if wishes.adapter else "model",
        run=run.directory.name,
        outcome=gate.outcome,
        judged=gate.candidate_id,
        judged_files=judged,
        base=base.digest,
        base_name=base.name,
        tensors=tensors,
        files=files,
    )
    write_json(work / BUNDLE, bundle.as_dict())
    write_atomic(work / SUMS, sums(files, sha256(work / BUNDLE)))
    return bundle, notes


def _sources(run: Run, model: Path, judged: Collection[str], adapter: bool) -> dict[str, Path]:
    """The files that are copied, by their names in the bundle: of the model those that its digest covers."""
    found = {EVIDENCE: run.path(*RESULTS), VERDICT: run.path("gate", "verdict.json")}
    found |= {name: model / name for name in judged if not (adapter and Path(name).suffix in WEIGHTS)}
    if adapter:
        found[ADAPTER] = run.path("adapter", ADAPTER)
    for name, path in found.items():
        if not path.is_file():
            fix = "judge again with: ilab model regress" if name == EVIDENCE else "is this a finished run?"
            raise RunError(f"missing, a bundle has it as {name}", where=path, fix=fix)
    return found


def _gguf(run: Run, adapter: bool) -> tuple[dict[str, Path], list[str]]:
    """The GGUF of the judged weights, where there is one. Raises RunError if it is not the one that training wrote."""
    path = run.path(GGUF)
    if adapter or not path.is_file():
        return {}, []
    facts = run.manifest.get("stages", {}).get("rl", {}).get("gguf", {})
    recorded = facts.get("sha256")
    if recorded and sha256(path) != recorded:
        raise RunError("not the GGUF that training wrote", where=path, fix="remove it, or train again")
    notes = (
        []
        if recorded
        else ["model.gguf: this run recorded no digest of it, so only that it is unchanged from now on is proven"]
    )
    return {GGUF: path}, notes


def _texts(
    run: Run, report: RunReport, gate: GateResult, base: BaseModel, wishes: Wishes, gguf: bool, notes: list[str]
) -> dict[str, str | bytes]:
    """What is written for the bundle, by name."""
    skills = [suite.skill for suite in judged_suites(gate)]
    attribution, unattributed = attribution_files(recorded_taxonomy(run.directory), skills, base)
    notes += [f"no source is named for the data of {name}" for name in unattributed]
    notes += [] if base.licence else ["the licence of the base model is not known; name it with --licence"]
    shipment = Shipment(
        name=f"{base.name.rsplit('/', 1)[-1]}-{run.directory.name}",
        kind="adapter" if wishes.adapter else "model",
        base_model=base.name,
        base_digest=base.digest,
        licence=base.licence,
        judged=gate.candidate_id,
        gguf=_gguf_words(run.manifest) if gguf else "",
        despite=wishes.despite,
        skills=skills,
        unattributed=unattributed,
    )
    # A path of this machine helps nobody elsewhere.
    plain = replace(report, directory=Path(run.directory.name))
    own = {}
    if wishes.adapter:
        config = read_json(run.path("adapter", ADAPTER_CONFIG))
        own[ADAPTER_CONFIG] = json.dumps(config | {"base_model_name_or_path": base.name}, indent=1) + "\n"
    return {
        **own,
        CARD: model_card(plain, gate, shipment),
        "verdict.md": markdown_summary(plain),
        "report.html": render_html(plain),
        **attribution,
    }


def _gguf_words(manifest: Mapping[str, Any]) -> str:
    facts = manifest.get("stages", {}).get("rl", {}).get("gguf", {})
    if not isinstance(facts.get("checked"), int):
        return "It was made from the judged weights."
    same = f"{facts.get('agree')} of {facts['checked']} prompts"
    return f"It was made from the judged weights, and gave the same answer to {same}."


def _copied(source: Path, target: Path, say: Callable[[str], None]) -> Listed:
    """Copy unless an earlier try has; the digest is that of what lies there now."""
    wanted = sha256(source)
    if target.is_file() and target.stat().st_size == source.stat().st_size and sha256(target) == wanted:
        say(f"{target.name}: is there from an earlier try")
    else:
        say(f"{target.name}: copying")
        make_directory(target.parent)
        shutil.copyfile(source, target)
        if sha256(target) != wanted:
            raise RunError(
                "was not copied whole, or changed meanwhile", where=source, fix="give the same command again"
            )
    return Listed(target.stat().st_size, wanted)


def _durable(work: Path) -> None:
    for path in sorted(work.rglob("*")):
        if path.is_dir():
            sync_directory(path)
        else:
            os.chmod(path, 0o644)
            with path.open("rb") as file:
                os.fsync(file.fileno())
    sync_directory(work)

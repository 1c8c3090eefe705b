"""The model card of a shipped bundle: Hugging Face front matter, then what a stranger must know before use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from rft_ilab.report import wording
from rft_ilab.report.brief import brief
from rft_ilab.report.data import RunReport
from rft_ilab.report.gate_data import GateResult
from rft_ilab.report.markdown import block, escape


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipment:
    """What the card says beside the run. ``base_model`` is a name for people (``owner/name`` where it is on a hub),
    ``licence`` an SPDX id or empty if unknown; ``despite``: shipped although the gate did not say PASS;
    ``unattributed`` are skills whose data name no source."""

    name: str
    kind: str
    base_model: str
    base_digest: str
    licence: str
    judged: str
    gguf: str
    despite: bool
    skills: Sequence[str]
    unattributed: Sequence[str]


def model_card(report: RunReport, gate: GateResult, shipment: Shipment) -> str:
    """README.md. Of a model that did not pass, the first line of the text, and of the front matter, says so."""
    warning = not_passed(report, gate)
    lines = [_front_matter(gate, shipment, warning), ""]
    lines += [f"**{escape(warning)}**", ""] if warning else []
    lines += [f"# {escape(shipment.name)}", ""]
    for answer in brief(report):
        lines.append(f"- **{escape(answer.question)}** {escape(answer.word)} {escape(answer.text)}")
    lines += ["", "## Verdict", "", f"**{gate.outcome}**: {escape(wording.outcome_sentence(gate))}", ""]
    lines += _table(gate)
    lines += ["", *(f"- {escape(reason)}" for reason in gate.reasons), ""]
    lines += ["Every answer that this rests on is in `evidence.jsonl`, the whole report in `report.html`.", ""]
    lines += _how_to_use(shipment)
    lines += _limitations(report, gate, shipment)
    lines += _data(shipment)
    lines += _reproduce(report, shipment)
    return "\n".join(lines).rstrip() + "\n"


def not_passed(report: RunReport, gate: GateResult) -> str:
    """What must stand first; empty for a model that passed."""
    if report.control:
        return wording.control_sentence(report.control)
    if gate.outcome == "PASS":
        return ""
    return f"NOT RELEASED BY ITS TESTS: the gate's verdict is {gate.outcome}. Shipped despite that."


def _front_matter(gate: GateResult, shipment: Shipment, warning: str) -> str:
    metrics = [
        {
            "task": {"type": "text-generation"},
            "dataset": {"type": suite.skill, "name": f"{suite.skill}, held-out tasks of the skill"},
            "metrics": [{"type": "accuracy", "name": "greedy accuracy", "value": round(suite.greedy.after, 4)}],
        }
        for suite in wording.judged(gate)
        if suite.greedy.after is not None
    ]
    facts: dict[str, Any] = {
        "license": shipment.licence or "unknown",
        "base_model": shipment.base_model,
        "base_model_relation": "adapter" if shipment.kind == "adapter" else "finetune",
        "library_name": "peft" if shipment.kind == "adapter" else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["rft-ilab", "instructlab", "grpo", f"verdict-{gate.outcome.lower()}"],
        "model-index": [{"name": shipment.name, "results": metrics}],
    }
    # One line of a YAML comment, whatever is in it.
    comment = f"# {wording.one_line(warning)}\n" if warning else ""
    return f"---\n{comment}{yaml.safe_dump(facts, sort_keys=False, allow_unicode=False)}---"


def _table(gate: GateResult) -> list[str]:
    level = wording.level(gate)
    lines = [f"| skill | | tasks | before | after | difference, {level} interval | tolerated loss | outcome |"]
    lines.append("|---|---|--:|--:|--:|--:|--:|---|")
    rows = [(t.skill, "trained", t.n, t.greedy, "", t.outcome) for t in gate.targets]
    rows += [(w.skill, "other", w.n, w.greedy, f"{100 * w.margin:g} points", w.outcome) for w in gate.watched]
    for skill, role, n, change, margin, outcome in rows:
        cells = [escape(skill), role, str(n), wording.percent(change.before), wording.percent(change.after)]
        cells += [wording.difference(change.delta, change.ci), margin, f"**{outcome}**"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _how_to_use(shipment: Shipment) -> list[str]:
    lines = ["## Use", ""]
    if shipment.kind == "adapter":
        lines += ["A PEFT adapter for the base model above: `PeftModel.from_pretrained(base, DIRECTORY)`.", ""]
    else:
        lines += ["A Hugging Face model directory: `AutoModelForCausalLM.from_pretrained(DIRECTORY)`.", ""]
    if shipment.gguf:
        lines += [f"`model.gguf` is for llama.cpp and `ilab model serve`. {escape(shipment.gguf)}", ""]
    lines += [
        "It was trained and tested with the skill's instruction as the system message, and answers as its grader wants "
        "them; the instruction is in the skill's `qna.yaml`.",
        "",
    ]
    return lines


def _limitations(report: RunReport, gate: GateResult, shipment: Shipment) -> list[str]:
    lines = ["## Limitations", ""]
    if not gate.watched:
        lines.append("- No skill but the trained one was tested.")
    else:
        lines.append(
            "- Tested are the skills of the table, on the tasks that there are; of everything else nothing is known."
        )
    lines.append(
        "- A model that answers one skill's questions may have become short or odd elsewhere: look at its answers."
    )
    undecided = [suite.skill for suite in wording.judged(gate) if suite.outcome != "PASS"]
    if undecided:
        lines.append(f"- Not shown, or lost: {escape(', '.join(undecided))}.")
    if any(suite.ungraded for suite in wording.judged(gate)):
        lines.append(f"- {escape(wording.ungraded_sentence(gate))}")
    if not shipment.licence:
        lines.append("- The licence of the base model is not known here: find it out before you pass this on.")
    return [*lines, ""]


def _data(shipment: Shipment) -> list[str]:
    lines = ["## Data", "", f"Skills: {escape(', '.join(shipment.skills))}. Their sources and licences are in "
             "[ATTRIBUTION.md](ATTRIBUTION.md), the texts of the licences in `LICENSES/`."]  # fmt: skip
    if shipment.unattributed:
        lines.append(f"No source is named for: {escape(', '.join(shipment.unattributed))}.")
    return [*lines, ""]


def _reproduce(report: RunReport, shipment: Shipment) -> list[str]:
    manifest = report.manifest
    lines = ["## Proof, and how to do it again", ""]
    lines += [
        f"Judged weights: `{escape_code(shipment.judged)}`. Base model: `{escape_code(shipment.base_digest)}`.",
        "",
    ]
    base = " --base BASE_MODEL" if shipment.kind == "adapter" else ""
    lines += [f"`ilab rft verify-bundle DIRECTORY{base}` proves that they are these; `sha256sum -c SHA256SUMS` "
              "checks the files without rft-ilab.", ""]  # fmt: skip
    if shipment.kind == "model":
        lines += ["`ilab model regress --model DIRECTORY` judges them again, with the tasks of your taxonomy.", ""]
    command = manifest.get("command")
    if isinstance(command, list):
        import shlex

        lines += ["Trained by:", "", block(shlex.join(str(part) for part in command)), ""]
    if report.gate_command:
        lines += ["Judged by:", "", block(report.gate_command), ""]
    versions = manifest.get("versions")
    if isinstance(versions, dict):
        lines += [f"With {escape(', '.join(f'{name} {value}' for name, value in versions.items()))}.", ""]
    return lines


def escape_code(text: str) -> str:
    """For between backticks."""
    return wording.one_line(text).replace("`", "'")

"""``ilab rft import open-instruct``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rft_ilab.cli import options
from rft_ilab.cli.drafts import bring, contributor, lines, refuse
from rft_ilab.cli.failures import fail, handled
from rft_ilab.cli.import_options import common_options

if TYPE_CHECKING:
    from rft_ilab.pipeline.importing_open_instruct import Kind
    from rft_ilab.skills.importing.draft import Draft


@click.command("open-instruct")
@click.argument("data", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--to",
    "names",
    metavar="SKILL | VERIFIER=SKILL",
    multiple=True,
    required=True,
    help="Skill to write. Rows with another verifier become another skill: of several verifiers VERIFIER=SKILL takes "
    "one (a+b for rows that name both); a plain SKILL takes all of them, as SKILL/VERIFIER.",
)
@click.option("--answer", metavar="COLUMN", help="Column with a right answer. [default: the assistant's last message]")
@click.option(
    "--description",
    help="What the model is to do: the skill's description and system message. [default: the system message that all "
    "rows share, else what the verifier asks for]",
)
@options.taxonomy_option
@common_options
@handled
def open_instruct(
    data: Path,
    names: tuple[str, ...],
    answer: str | None,
    taxonomy_path: Path,
    description: str | None,
    limit: int | None,
    created_by: str | None,
    licence: str,
    waivers: Path | None,
    force: bool,
    dry_run: bool,
) -> None:
    """RLVR data of Open-Instruct: messages, ground_truth, dataset (Parquet or JSON Lines, a file or a directory).

    Each verifier becomes a grader. Rows that cannot be graded here are left out, and it is told how many and why.
    """
    from rft_ilab.pipeline.importing_open_instruct import draft_kind, read_kinds
    from rft_ilab.skills.importing.draft import ImportRefused
    from rft_ilab.skills.leaf import FILES, free_place

    kinds = read_kinds(data, answer, limit)
    chosen, all_of_them = choose(names, list(kinds))
    drafts: dict[str, Draft] = {}
    for kind, name in chosen.items():
        free_place(taxonomy_path, name, FILES, force=force)
        try:
            drafts[name] = draft_kind(
                taxonomy_path, name, kind, kinds[kind], description=description,
                created_by=created_by or contributor(taxonomy_path), licence=licence,
            )  # fmt: skip
        except ImportRefused as refused:
            if not all_of_them or len(chosen) == 1:
                refuse(refused)
            lines([f"left out: {len(kinds[kind])} rows with {'+'.join(kind)}: {refused.problems[0]}"])
    lines([f"left out: {len(kinds[kind])} rows with {'+'.join(kind)}" for kind in kinds if kind not in chosen])
    if not drafts:
        fail(f"no verifier of {data} can be graded here")
    for name, draft in drafts.items():
        bring(taxonomy_path, name, lambda draft=draft: draft, FILES, waivers, force, dry_run)  # type: ignore[misc]


def choose(names: tuple[str, ...], kinds: list[Kind]) -> tuple[dict[Kind, str], bool]:
    """Which verifiers become which skill, and whether all were asked for. Leaves with a line if that is not clear."""
    there = ", ".join("+".join(kind) for kind in kinds)
    plain = [name for name in names if "=" not in name]
    if len(plain) > 1 or (plain and len(names) > 1):
        fail(f"--to: several skills, so say which verifier each is for: --to VERIFIER=SKILL (there are {there})")
    if plain:
        (name,) = plain
        below = {kind: re.sub("[^a-z0-9]", "_", "_".join(kind)) for kind in kinds}
        return {kind: name if len(kinds) == 1 else f"{name}/{below[kind]}" for kind in kinds}, True
    chosen: dict[Kind, str] = {}
    for given in names:
        verifier, _, name = given.partition("=")
        kind = tuple(verifier.lower().split("+"))
        if kind not in kinds:
            fail(f"--to {given}: no row names the verifier {verifier} (there are {there})")
        chosen[kind] = name
    return chosen, False

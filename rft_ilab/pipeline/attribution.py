"""Sources and licences of the data that a bundle rests on: each skill's attribution.txt, and the texts it names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from rft_ilab.pipeline.basemodel import BaseModel
from rft_ilab.report.markdown import escape
from rft_ilab.report.wording import visible

FILE = "attribution.txt"
MOST_BYTES = 1 << 20


def attribution_files(
    taxonomy: Path | None, skills: Sequence[str], base: BaseModel
) -> tuple[dict[str, str | bytes], list[str]]:
    """ATTRIBUTION.md and LICENSES/ by name, and the skills whose data name no source.

    Only files of the taxonomy, or LICENSES beside it, are read, and no links.
    """
    licences = {f"LICENSES/{name}": text for name, text in base.texts.items()}
    parts, missing = (
        [f"# Where this comes from\n\nBase model: {escape(base.name)}, {base.licence or 'licence unknown'}.\n"],
        [],
    )
    for skill in skills:
        text = _attribution(taxonomy, skill) if taxonomy else None
        if text is None:
            missing.append(skill)
            parts.append(f"## {escape(skill)}\n\nNo source is named.\n")
            continue
        # Indented, Markdown shows it as it is.
        quoted = "\n".join(f"    {line}" for line in visible(text).splitlines())
        parts.append(f"## {escape(skill)}\n\n{quoted}\n")
        for name in re.findall(r"LICENSES/([\w.-]+\.txt)", text):
            for place in (taxonomy, taxonomy.parent) if taxonomy else ():
                if (found := _text(place / "LICENSES" / name)) is not None:
                    licences[f"LICENSES/{name}"] = found
                    break
    return {"ATTRIBUTION.md": "\n".join(parts), **licences}, missing


def _attribution(taxonomy: Path, skill: str) -> str | None:
    if not re.fullmatch(r"[\w-]+(/[\w-]+)*", skill):
        return None
    for tree in ("compositional_skills", "foundational_skills", "knowledge"):
        if (text := _text(taxonomy / tree / skill / FILE)) is not None:
            return text
    return None


def _text(path: Path) -> str | None:
    if path.is_symlink() or not path.is_file() or path.stat().st_size > MOST_BYTES:
        return None
    return path.read_text(encoding="utf-8", errors="replace")

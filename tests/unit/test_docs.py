"""Documents that could drift from the code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_the_reference_is_current() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    script = [sys.executable, str(ROOT / "tools" / "make_reference.py"), "--check"]
    done = subprocess.run(script, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr or "run: python tools/make_reference.py"


def documents() -> list[Path]:
    return [ROOT / "README.md", ROOT / "taxonomy" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("document", documents(), ids=lambda p: p.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (document.parent / target).exists(), f"{document}: {target}"


def anchors(document: Path) -> set[str]:
    """What GitHub makes of the headings: lower case, signs dropped, hyphens for spaces."""
    text = re.sub(r"^```.*?^```$", "", document.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = [re.sub(r"[^\w\- ]", "", line).strip() for line in re.findall(r"^#+ (.*)$", text, re.M)]
    return {heading.lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", documents(), ids=lambda p: p.name)
def test_links_lead_to_a_heading(document: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", document.read_text(encoding="utf-8")):
        assert anchor in anchors(document.parent / target if target else document), f"{document}: {target}#{anchor}"


def test_the_readme_leads_to_every_document_and_is_short() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.count("\n") <= 150
    for document in documents()[1:]:
        assert f"]({document.relative_to(ROOT)}" in text, document


def test_every_command_and_make_target_of_the_readme_exists() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"(?:^|`)make (\w+)", text, re.M))
    assert {"train", "test", "regress", "report", "help"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.M), target
    reference = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    commands = ("taxonomy new", "taxonomy lint", "data verify", "model rft", "model regress", "rft run", "rft report")
    for command in commands:
        assert f"ilab {command}" in text and f"## `ilab {command}`" in reference

"""Changed files of a pull request that are no skill, but that some tool acts on: said loudly, never read."""

from __future__ import annotations

import re

from rft_ilab.report.pull import Note
from rft_ilab.skills.proposal import Proposal

# (what a path looks like, in lower case; who acts on it)
ACTED_ON = (
    (r"\.github/workflows/.*", "GitHub runs it"),
    (r"\.github/.*", "GitHub acts on it"),
    (r"(.*/)?\.gitlab-ci.*|jenkinsfile|\.circleci/.*|azure-pipelines.*|\.travis\.yml", "a CI system runs it"),
    (r"(.*/)?\.git(attributes|modules)", "git acts on it: filters, line ends, other repositories"),
    (r"(.*/)?(conftest|sitecustomize|usercustomize|setup)\.py|.*\.pth", "Python or pytest runs it unasked"),
    (
        r"(.*/)?(pyproject\.toml|setup\.cfg|tox\.ini|pytest\.ini|requirements[^/]*\.txt|constraints[^/]*\.txt)",
        "tools of Python read it",
    ),
    (r"(.*/)?rft_ilab(/.*|\.py)", "it has the name of rft-ilab's own code"),
    (r"(.*/)?(gnu)?makefile|(.*/)?dockerfile|(.*/)?\.pre-commit-config\.yaml|(.*/)?\.envrc", "a tool runs it"),
    (r"(.*/)?codeowners", "it decides who must review"),
)


def loud_notes(proposal: Proposal) -> tuple[tuple[Note, ...], int]:
    """Notes on the files that tools act on, and how many other files there are."""
    notes = [Note(severity="warning", file=link.file, message=f"{link.what}; not followed") for link in proposal.links]
    links = {link.file for link in proposal.links}
    for file in (file for file in proposal.others if file not in links):
        for pattern, who in ACTED_ON:
            if re.fullmatch(pattern, file.casefold(), re.DOTALL):
                notes.append(Note(severity="warning", file=file, message=f"changed here; {who}"))
                break
    return tuple(notes), len(proposal.others) - len(notes)

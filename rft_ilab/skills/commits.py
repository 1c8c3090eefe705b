"""Where a taxonomy stands in git, and in which order its commits were made."""

from __future__ import annotations

from pathlib import Path

from rft_ilab.skills.gitobjects import git

# What decides a verdict; a history or a report that is kept beside it makes no taxonomy dirty.
PARTS = ("compositional_skills", "graders", "rft.toml")


def head(taxonomy: Path) -> tuple[str, bool]:
    """The commit that is checked out (empty without git), and whether the taxonomy differs from it."""
    commit = git(taxonomy, "rev-parse", "--verify", "HEAD")
    return commit, bool(commit and git(taxonomy, "status", "--porcelain", "--", *PARTS))


def ranks(taxonomy: Path) -> dict[str, int]:
    """The commits that lead to the one that is checked out: each comes after its parents. Empty without git."""
    order = git(taxonomy, "rev-list", "--topo-order", "--reverse", "HEAD").split()
    return {commit: i for i, commit in enumerate(order)}

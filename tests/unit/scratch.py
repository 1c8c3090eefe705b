"""A scratch project in which the documents' commands run: a small taxonomy in git, and tiny models by their names."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from rft_ilab.store import Run, user_directory
from tests.tiny_model import make_tiny_model
from tests.unit.documents import host, ilab_commands, resolved
from tests.unit.repositories import SETTINGS, commit_all, git
from tests.unit.taxonomies import plain_rows, write_skill

SKILLS = {"healthcare/patient_triage": "target", "retail/order_json": "supporting"}
MODELS = ("DIRECTORY", "candidate", "granite-old", "granite-new")


def table(name: str, tier: str) -> str:
    """The table of a skill in rft.toml: short answers, one demonstration."""
    return f'[skills."{name}"]\ntier = "{tier}"\nmax_tokens = 3\ndemonstrations = 1\n'


RFT_TOML = "".join(table(*skill) for skill in SKILLS.items()) + "[gate]\nsamples = 1\n"


@dataclass(frozen=True)
class Scratch:
    """The project's directory; ``runs`` is where runs live that are given by name."""

    root: Path
    runs: Path

    def __call__(self, line: str, *, fails: bool = False) -> str:
        """Run a line of shell: what calls ``ilab`` in this process. Returns what was printed, both streams."""
        calls = ilab_commands(line)
        if not calls:
            done = subprocess.run(
                ["bash", "-c", line], cwd=self.root, capture_output=True, text=True, stdin=subprocess.DEVNULL
            )
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
            if "git commit" in line:  # and merged
                git(self.root, "update-ref", "refs/remotes/origin/main", "HEAD")
            return done.stdout + done.stderr
        said = ""
        for words in calls:
            _, command, rest = resolved(words)
            settings = host()
            settings.config.generate.taxonomy_path = str(self.root / "taxonomy")
            result = CliRunner().invoke(command, rest, obj=settings)
            said += result.output
            # A verdict has the exit codes 1 and 2, too; what is wrong with a call is told by its message.
            assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
            assert ("Error:" in result.output) == fails, f"{line}\n{result.output}"
        return said

    def run(self, name: str, seed: int) -> Path:
        """A finished run with a tiny model."""
        Run.create(self.runs / name, {"identity": {}, "model": str(self.root / "base")})
        make_tiny_model(self.runs / name / "model", seed=seed, max_position_embeddings=4096)
        return self.runs / name


def scratch(root: Path, patch: pytest.MonkeyPatch) -> Scratch:
    """The project; the embedded model is a tiny one there."""
    for variable, name in (("XDG_CACHE_HOME", "cache"), ("XDG_DATA_HOME", "data"), ("XDG_CONFIG_HOME", "config")):
        patch.setenv(variable, str(root / name))
    for variable, value in SETTINGS.items():
        patch.setenv(variable, value)
    patch.chdir(root)
    for name in SKILLS:
        rows = [row | {"group": f"{name}-{i}"} for i, row in enumerate(plain_rows()[:30])]
        write_skill(root / "taxonomy", name, rows=rows)
    (root / "taxonomy/rft.toml").write_text(RFT_TOML)
    (root / ".gitignore").write_text("/cache/\n/data/\n/base/\n" + "".join(f"/{name}/\n" for name in MODELS))
    commit_all(root)
    git(root, "update-ref", "refs/remotes/origin/main", "HEAD")
    for seed, name in enumerate(("base", *MODELS)):
        make_tiny_model(root / name, seed=seed, max_position_embeddings=4096)
    patch.setattr("rft_ilab.policy.local.embedded.embedded_model", lambda: root / "base")
    return Scratch(root, user_directory("data") / "runs")

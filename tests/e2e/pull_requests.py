"""A scratch repository with a taxonomy, branches that are pull requests, and models that say what they are told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from rft_ilab.pipeline import data, gate, pull
from rft_ilab.pipeline import request as request_module
from rft_ilab.pipeline.request import Request, Workspace
from rft_ilab.policy.scripted import ScriptedPolicy
from rft_ilab.store import read_json
from rft_ilab.types import Prompt
from tests.unit.repositories import commit_all, git
from tests.unit.taxonomies import LABELS, QNA, plain_rows, row, write_skill

ROOT = Path(__file__).resolve().parents[2]
STRICT = "def grade(sample, item):\n    return float(sample['output_text'].strip() == item['reference'])\n"
LENIENT = "def grade(sample, item):\n    return 1.0\n"
RFT_TOML = '[gate]\nmargin = 0.2\nsamples = 1\n\n[skills."area/old"]\ntier = "target"\n'


def right(prompt: Prompt, index: int = 0) -> str:
    return LABELS[int(prompt.messages[-1].content.split()[-1].rstrip("?")) % 3]


def weak(prompt: Prompt, index: int = 0) -> str:
    """Right on one task in five."""
    number = int(prompt.messages[-1].content.split()[-1].rstrip("?"))
    return LABELS[(number if number % 5 == index else number + 1) % 3]


def questions(word: str, count: int = 300, start: int = 0) -> list[dict[str, Any]]:
    splits = ["train"] * 7 + ["val"] + ["test"] * 2
    return [row(f"{word} {i}?", LABELS[i % 3], split=splits[i % 10]) for i in range(start, start + count)]


def described(text: str) -> str:
    return QNA.replace("Answer YES", f"{text}, answer YES").replace("Seed question", f"{text} example")


@dataclass
class Project:
    """``root`` is the repository; ``command`` judges the branch that is checked out."""

    root: Path
    trained: list[Request] = field(default_factory=list)
    interrupt: bool = False

    @property
    def taxonomy(self) -> Path:
        return self.root / "taxonomy"

    def leaf(self, name: str) -> Path:
        return self.taxonomy / "compositional_skills" / name

    def branch(self, name: str, start: str = "main") -> None:
        git(self.root, "checkout", "-q", "-f", "-B", name, start)
        git(self.root, "clean", "-q", "-fdx")

    def commit(self) -> str:
        return commit_all(self.root)

    def command(self, *options: str) -> Result:
        from instructlab.configuration import get_default_config

        from rft_ilab.cli.pr import pr

        host = types.SimpleNamespace(config=get_default_config())
        arguments = ["--taxonomy-path", str(self.taxonomy), "--base", "main", *options]
        return CliRunner(mix_stderr=False).invoke(pr, arguments, obj=host)

    def verdict(self) -> Any:
        return read_json(self.trained[-1].run / "gate" / "verdict.json")

    def add_good_skill(self, name: str = "area/new") -> Path:
        return write_skill(self.taxonomy, name, rows=questions("Item"), qna=described("The new skill"))


def as_program(root: Path, *options: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, started like a console script: its own directory comes first on the path."""
    script = root / "bin" / "pr"
    script.parent.mkdir(exist_ok=True)
    script.write_text(
        f"import sys; sys.path.append({str(ROOT)!r})\n"
        "import types\nfrom instructlab.configuration import get_default_config\nfrom rft_ilab.cli.pr import pr\n"
        "pr.main(obj=types.SimpleNamespace(config=get_default_config()))\n"
    )
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    xdg = {f"XDG_{kind}_HOME": str(root / kind.lower()) for kind in ("CACHE", "DATA", "CONFIG")}
    return subprocess.run(
        [sys.executable, str(script), *options],
        cwd=cwd,
        env={**kept, **xdg, "HOME": str(root / "home"), "HF_HUB_OFFLINE": "1", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """Two skills on ``main``, one of them with a shared Python grader, a baseline, and the branch ``change``."""
    for kind in ("CACHE", "DATA"):
        monkeypatch.setenv(f"XDG_{kind}_HOME", str(tmp_path / kind.lower()))
    monkeypatch.delenv("RFT_ILAB_BASE_REF", raising=False)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    monkeypatch.setenv("RFT_ILAB_UNTRUSTED", "1")
    made = Project(tmp_path / "project")
    write_skill(made.taxonomy, "area/old", qna=described("The old skill"), rows=questions("Old"))
    shared = {"type": "ref", "name": "shared"}
    write_skill(made.taxonomy, "area/watched", qna=described("The watched skill"), grader=shared, rows=plain_rows())
    (made.root / "graders").mkdir()
    (made.root / "graders" / "shared.py").write_text(STRICT)
    (made.taxonomy / "rft.toml").write_text(RFT_TOML)
    (made.taxonomy / "baselines").mkdir()
    (made.taxonomy / "baselines" / "main.json").write_text("{}\n")
    made.commit()
    made.branch("change")
    _script(made, tmp_path, monkeypatch)
    yield made


def _script(made: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The base model is weak; the trained one is right on what it was trained for."""

    def tuned(prompt: Prompt, index: int) -> str:
        learnt = "watched" not in prompt.messages[0].content
        return (right if learnt else weak)(prompt, index)

    answers: dict[str, Callable[[Prompt, int], str]] = {"base": weak, "model": tuned}
    policies = {name: ScriptedPolicy(answer, name) for name, answer in answers.items()}
    for policy in policies.values():
        policy.id = f"local:{policy.id}"

    def find(directory: Path) -> ScriptedPolicy:
        return policies[Path(directory).name]

    def train(request: Request, *, console: Any) -> Path:
        made.trained.append(request)
        run = Workspace(request).start_run()
        if made.interrupt:
            raise KeyboardInterrupt
        if not run.done("rl"):
            with run.stage("rl"):
                (run.path("model")).mkdir(parents=True)
                run.path("model", "config.json").write_text(json.dumps({}))
        return run.path("model")

    for module in (gate, request_module):
        monkeypatch.setattr(module, "local_policy", find)
    for module in (gate, data):
        monkeypatch.setattr(module, "measure_speed", lambda policy: None)
    monkeypatch.setattr(Workspace, "model_directory", tmp_path / "base")
    monkeypatch.setattr("rft_ilab.policy.local.model.directory_digest", lambda directory: "d" * 64)
    monkeypatch.setattr(pull, "train", train)

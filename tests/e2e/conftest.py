"""The real ``ilab`` in a subprocess, with its own home, configuration, data and cache, and a tiny taxonomy."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = Path(sysconfig.get_path("scripts"))
SKILL = "demo/colour"

QNA = """version: 3
created_by: rft-ilab
task_description: Say whether the thing is red or green. Answer with one word.
seed_examples:
  - question: A ripe strawberry
    answer: red
  - question: A leaf in May
    answer: green
  - question: A fire engine
    answer: red
  - question: A cucumber
    answer: green
  - question: A stop sign
    answer: red
"""

RFT_TOML = f"""[gate]
samples = 1

[skills."{SKILL}"]
tier = "target"
max_tokens = 4
demonstrations = 4
"""


@dataclass(frozen=True)
class Ilab:
    """An isolated ilab. ``home`` must stay empty: nothing may be written to the user's home."""

    root: Path
    environment: Mapping[str, str] = field(repr=False)

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def taxonomy(self) -> Path:
        return self.root / "taxonomy"

    @property
    def runs(self) -> Path:
        return self.root / "data" / "instructlab" / "rft" / "runs"

    def __call__(
        self, *arguments: str | Path, timeout: float = 120, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [SCRIPTS / "ilab", *map(str, arguments)],
            env={**self.environment, **environment},
            cwd=self.root,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )


def make_taxonomy(directory: Path, tasks: int = 40) -> Path:
    """A taxonomy with one skill of ``tasks`` tasks and a label grader, valid to ilab's own checks."""
    leaf = directory / "compositional_skills" / SKILL
    leaf.mkdir(parents=True)
    (directory / "rft.toml").write_text(RFT_TOML, encoding="utf-8")
    (leaf / "qna.yaml").write_text(QNA, encoding="utf-8")
    (leaf / "attribution.txt").write_text("Written for the tests of rft-ilab.\n", encoding="utf-8")
    grader = {
        "type": "label",
        "name": "colour",
        "input": "{{sample.output_text}}",
        "reference": "{{item.reference}}",
        "labels": ["red", "green"],
    }
    (leaf / "grader.json").write_text(json.dumps(grader), encoding="utf-8")
    rows = [
        {"messages": [{"role": "user", "content": f"Thing {i}: {thing}"}], "reference": colour}
        for i in range(tasks)
        for thing, colour in [[("tomato", "red"), ("frog", "green"), ("ruby", "red"), ("grass", "green")][i % 4]]
    ]
    (leaf / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return directory


def isolated_environment(root: Path) -> dict[str, str]:
    kept = ("PATH", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT")
    return {
        **{name: os.environ[name] for name in kept if name in os.environ},
        "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(root / "home"),
        "XDG_CONFIG_HOME": str(root / "config"),
        "XDG_DATA_HOME": str(root / "data"),
        "XDG_CACHE_HOME": str(root / "cache"),
        "HF_HUB_OFFLINE": "1",
        "HAYSTACK_TELEMETRY_ENABLED": "False",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2"),
        "COLUMNS": "200",
    }


@pytest.fixture(scope="session")
def initialised(tmp_path_factory: pytest.TempPathFactory) -> Ilab:
    """After ``ilab config init``; shared, so do not change it: see :func:`ilab`."""
    root = tmp_path_factory.mktemp("ilab")
    (root / "home").mkdir()
    make_taxonomy(root / "taxonomy")
    shared = Ilab(root, isolated_environment(root))
    result = shared("config", "init", "--non-interactive", "--taxonomy-path", shared.taxonomy)
    assert result.returncode == 0, result.stderr
    return shared


@pytest.fixture
def ilab(initialised: Ilab, tmp_path: Path) -> Ilab:
    """An initialised ilab of the test's own: taxonomy, data and configuration may be broken at will."""
    for name in ("home", "config", "data", "taxonomy"):
        shutil.copytree(initialised.root / name, tmp_path / name)
    config = tmp_path / "config" / "instructlab" / "config.yaml"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace(str(initialised.root), str(tmp_path)), encoding="utf-8")
    environment = isolated_environment(tmp_path)
    environment["XDG_CACHE_HOME"] = str(initialised.root / "cache")  # the converted model is reused
    return Ilab(tmp_path, environment)


@pytest.fixture
def skill(ilab: Ilab) -> Path:
    """The leaf of the one skill in the test's taxonomy."""
    return ilab.taxonomy / "compositional_skills" / SKILL


@pytest.fixture
def plain_ilab(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """ilab before ``ilab config init``."""
    (tmp_path / "home").mkdir()
    return Ilab(tmp_path, isolated_environment(tmp_path))

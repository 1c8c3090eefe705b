"""The data stage against a teacher that fails, and a process that is killed: the same data, and nothing paid twice.

The stage runs as in ``ilab data verify --endpoint``, in a process of its own; its model directory is never read.
"""

from __future__ import annotations

import itertools
import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rft_ilab.store import Cache, read_jsonl
from tests.unit.taxonomies import LABELS, write_skill
from tests.unit.teachers import FAULTS, Teacher, sometimes, teaching

ROOT = Path(__file__).parents[2]
CONCURRENCY, KILLS = 8, 20
PROGRAM = """
import io, os, sys
from pathlib import Path
from rich.console import Console
import rft_ilab.policy.local.model as local_model
from rft_ilab.config import load_settings
from rft_ilab.errors import RftError
from rft_ilab.pipeline import Request, verify_data
from rft_ilab.pipeline.request import Workspace
from rft_ilab.policy import endpoint

taxonomy, run, url = sys.argv[1:]
endpoint.BACKOFF_S, endpoint.MAX_BACKOFF_S = 0.01, 0.1
Workspace.model_directory = Path("base")
local_model.directory_digest = lambda directory: "d" * 64
request = Request(
    taxonomy=Path(taxonomy), run=Path(run), settings=load_settings(Path(taxonomy)),
    endpoint=url, concurrency=8, timeout_s=1.0,
)
try:
    verify_data(request, console=Console(stderr=True))
except RftError as error:
    sys.exit(f"{error}")
"""
SETTINGS = """
[skills."area/target"]
tier = "target"

[data]
tasks = 60
samples = 2
watched_tasks = 6
generated = 20
paraphrases = 20
questions = 12
agree_of = 4
agree = 3
band_samples = 0
"""
GENERATOR = """
def tasks(seed):
    for n in range(1000, 1030):
        asked = {"role": "user", "content": f"Generated question {n}?"}
        yield {"messages": [asked], "reference": ("YES", "NO", "MAYBE")[n % 3]}
"""


def say(body: dict[str, Any]) -> str:
    """A teacher that rewords, invents, and is right two times in three; the same for the same call."""
    asked, seed = body["messages"][-1]["content"], body["seed"]
    if asked.startswith("Rewrite"):
        return "Say, " + asked.split("Message: ")[1].split("\n")[0]
    if asked.startswith("These are messages"):
        return f"New question {2000 + sum(map(ord, asked)) % 50}?"
    number = int("".join(c for c in asked if c.isdigit()))
    return LABELS[(number + (random.Random(f"{asked}/{seed}").random() < 0.35)) % 3]


@pytest.fixture
def taxonomy(tmp_path: Path) -> Path:
    for name in ("area/target", "area/watched"):
        leaf = write_skill(tmp_path / "taxonomy", name)
        qna = (leaf / "qna.yaml").read_text()
        (leaf / "qna.yaml").write_text(qna.replace("Answer YES", f"The {name} skill, answer YES"))
    (tmp_path / "taxonomy/compositional_skills/area/target/generator.py").write_text(GENERATOR)
    (tmp_path / "taxonomy/rft.toml").write_text(SETTINGS)
    return tmp_path / "taxonomy"


@pytest.fixture
def server() -> Iterator[Teacher]:
    with teaching() as made:
        made.say = say
        yield made


def start(taxonomy: Path, home: Path, server: Teacher) -> subprocess.Popen[str]:
    """The stage with a cache and a run directory below ``home``."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(home), "PYTHONPATH": str(ROOT)}
    environment["XDG_CACHE_HOME"] = str(home / "cache")
    command = [sys.executable, "-c", PROGRAM, str(taxonomy), str(home / "run"), server.url]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


def finished(taxonomy: Path, home: Path, server: Teacher) -> str:
    process = start(taxonomy, home, server)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    return said


def produced(home: Path) -> dict[str, bytes]:
    data = home / "run" / "data"
    return {str(path.relative_to(data)): path.read_bytes() for path in sorted(data.rglob("*")) if path.is_file()}


def test_all_sources_end_in_the_ledger_and_cost_is_told(taxonomy: Path, server: Teacher, tmp_path: Path) -> None:
    said = finished(taxonomy, tmp_path / "a", server)
    ledger = read_jsonl(tmp_path / "a/run/data/ledger.jsonl")
    tasks = [row for row in ledger if row["kind"] == "task" and row["skill"] == "area/target"]
    by_source = {"authored": 60, "generated": 20, "paraphrase": 20, "question": 12}
    assert Counter(row["source"] for row in tasks) == by_source
    fates = Counter((row["source"], row["disposition"]) for row in tasks)
    assert fates["paraphrase", "kept"] > 0 < fates["paraphrase", "no_agreement"]
    assert fates["question", "kept"] > 0 < fates["question", "duplicate"] and fates["generated", "kept"] == 20
    answered = {row["task_id"] for row in ledger if row["kind"] == "answer"}
    assert answered == {row["id"] for row in ledger if row["kind"] == "task" and row["disposition"] == "kept"}
    for row in ledger:
        assert row["reason"] is not None and row["grader_digest"]
        if row["kind"] == "answer" and row["evidence"] == "sampled":
            assert row["policy_id"] == f"endpoint:{server.url}:m1" and row["sampling"]["seed"] == 0
        if row["source"] == "paraphrase":
            assert row["seed_id"]
    # 236 answers, 32 texts and 4 answers to each; texts that made no task were not asked about.
    assert "at most 396 calls" in said and len(server.calls) == len(set(server.calls)) < 396
    assert f"teacher: {len(server.calls)} calls answered (0 tries more)" in said
    facts = json.loads((tmp_path / "a/run/manifest.json").read_text())["stages"]["data"]
    assert facts["usage"]["calls"] == len(server.calls) and facts["usage"]["prompt_tokens"] == 7 * len(server.calls)
    assert facts["candidates"] + facts["candidate_tasks"] == len(ledger)


def test_a_teacher_that_fails_changes_nothing(taxonomy: Path, server: Teacher, tmp_path: Path) -> None:
    """Every fifth try fails: 5xx, 429, silence, half answers, broken JSON, lost connections."""
    finished(taxonomy, tmp_path / "sound", server)
    calls = len(server.calls)
    server.fault = sometimes(FAULTS, 0.2 / len(FAULTS), seed=3)
    server.calls.clear()
    said = finished(taxonomy, tmp_path / "faulty", server)
    assert produced(tmp_path / "faulty") == produced(tmp_path / "sound")
    assert len(set(server.calls)) == calls < len(server.calls)
    assert f"({len(server.calls) - calls} tries more)" in said


@pytest.mark.slow
def test_twenty_kills_change_nothing_and_pay_for_nothing_twice(taxonomy: Path, server: Teacher, tmp_path: Path) -> None:
    """A kill loses at most the calls in flight: no server can be asked to take those back."""
    server.delay_s = 0.01
    finished(taxonomy, tmp_path / "whole", server)
    total = len(server.calls)
    server.calls.clear()
    rng, home, ends, kept = random.Random(5), tmp_path / "killed", [0], [0]
    for kill in range(KILLS):
        process = start(taxonomy, home, server)
        if kill < KILLS - 5:
            assert server.wait_for(len(server.calls) + rng.randint(1, 2 * total // KILLS))
            time.sleep(rng.uniform(0.0, 0.02))
        else:  # all is answered or nearly: between grading, writing and the end
            time.sleep(rng.uniform(1.0, 3.0))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=20)
        while server.in_flight:
            time.sleep(0.02)
        time.sleep(0.1)
        ends.append(len(server.calls))
        kept.append(answers_kept(home))
    finished(taxonomy, home, server)
    assert produced(home) == produced(tmp_path / "whole")
    lives = [server.calls[a:b] for a, b in itertools.pairwise([*ends, len(server.calls)])]
    assert set(server.calls) and len(set(server.calls)) == total
    # What a life was answered is in the cache of the next: it asks again only what was in flight at the kill.
    for before, after, life in zip(kept, [*kept[1:], total], lives, strict=True):
        assert len(life) - (after - before) <= CONCURRENCY, "a kill cost more than the calls in flight"
    assert len(server.calls) - total <= KILLS * CONCURRENCY
    assert sum(1 for life in lives if life) > 5, "too few of the kills hit the sampling"


def answers_kept(home: Path) -> int:
    """Answers of the teacher in the cache: an entry for every call, as [text, stop]."""
    path = home / "cache/instructlab/rft/results.sqlite"
    if not path.exists():
        return 0
    cache = Cache(path)
    rows = cache._db.execute("SELECT value FROM entries").fetchall()
    values = [json.loads(value) for (value,) in rows]
    return sum(isinstance(v, list) and len(v) == 2 and isinstance(v[0], str) for v in values)

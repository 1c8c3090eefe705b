"""Grading and sampling on a Ray cluster: the same bit for bit, also when a node is killed."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from rft_ilab.config import load_settings
from rft_ilab.errors import PolicyError, RunError, SandboxError
from rft_ilab.grading.engine import build_grader
from rft_ilab.pipeline import Request, against_itself, gate, save_baseline
from rft_ilab.pipeline.compare import compare
from rft_ilab.pipeline.contenders import contenders
from rft_ilab.policy.local.lazy import LazyPolicy
from rft_ilab.rollouts import sample_groups
from rft_ilab.scaleout import ray_cluster, ray_work
from rft_ilab.scaleout.ray_spread import RayGrader, RayPolicy, spread_grader
from rft_ilab.store import Cache, Run
from rft_ilab.types import Message, Prompt, Rollout, Sampling, Task
from tests.tiny_model import make_tiny_model
from tests.unit.taxonomies import LABEL_GRADER, make_skill, make_task, write_skill

ROOT = Path(__file__).resolve().parents[2]
needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="the package ray is not installed (pip install 'rft-ilab[ray]')"
)

# Right, wrong, fractions and errors, and slow enough for a node to be killed meanwhile.
PYTHON: dict[str, Any] = {"type": "python", "pass_threshold": 0.5}
PYTHON["source"] = """
import re, time
def grade(sample, item):
    time.sleep(item.get("sleep", 0.0))
    numbers = re.findall(r"\\d+", sample["output_text"])
    if sample["output_text"].endswith("7"):
        raise ValueError("seven \\ud800")
    return 1 / 3 if len(numbers) > 1 else float(numbers == [item["reference"]])
"""


#: of what a tiny model says, half is right
ODD = {"type": "python"}
ODD["source"] = """
def grade(sample, item):
    if not sample["output_text"]:
        raise ValueError("empty")
    return float(sample["output_text"] == item["reference"] or len(sample["output_text"].encode()) % 2)
"""


def pairs(count: int, sleep: float = 0.0) -> list[tuple[Task, Rollout]]:
    made = []
    for i in range(count):
        text = f"it is {i if i % 3 else i + 1}" + (" or 2" if i % 5 == 0 else "") + ("\ud800" if i % 11 == 0 else "")
        task = make_task({"reference": str(i), "sleep": sleep}, id=f"t{i}")
        made.append((task, Rollout(task_id=task.id, index=i % 4, policy_id="p", completion=text, stop="eos")))
    return made


class HereCluster:
    """In place of a cluster: the same work on the same bytes, in this process."""

    cpus, nodes = 3, 1

    def __init__(self, address: str = "") -> None:
        self.address = address
        self.asked: set[str] = set()

    def map(self, work: Any, requests: Iterable[dict[str, Any]]) -> Iterator[Any]:
        self.asked.add(work.__name__)
        for request in requests:
            data = json.dumps({**request, "version": ray_work.__version__}).encode()
            yield ray_cluster._result(work(data))


@pytest.fixture
def here() -> Any:
    return HereCluster()


def test_grades_are_those_of_a_local_grader(here: Any) -> None:
    skill = make_skill(PYTHON)
    found, wanted = RayGrader(here, skill).grade(pairs(150)), build_grader(skill).grade(pairs(150))
    assert found == wanted
    assert {grade.score for grade in found} == {1.0, 0.0, 1 / 3, None}
    assert RayGrader(here, skill).grade([]) == []


def test_what_is_left_in_this_process(here: Any) -> None:
    judge = {"type": "score_model", "name": "j", "model": "m", "input": [], "range": [0, 1]}
    for config in (LABEL_GRADER, judge, {"type": "multi", "graders": {"j": judge}, "calculate_output": "j"}):
        local: Any = object()
        assert spread_grader(here, make_skill(config), local) is local
    assert isinstance(spread_grader(here, make_skill(PYTHON), object()), RayGrader)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("ray") / "model")


PROMPTS = [Prompt(task_id=f"t{i}", messages=(Message("user", f"say {i}"),)) for i in range(150)]
WARM = Sampling(temperature=1.0, max_tokens=6, seed=3)


def test_answers_are_those_of_a_local_model(here: Any, model: Path, tmp_path: Path) -> None:
    local = LazyPolicy(model)
    spread = RayPolicy(here, local)
    assert (spread.id, spread.window, spread.loaded) == (local.id, 192, local.loaded)
    found = sample_groups(spread, PROMPTS, 2, WARM, Cache(tmp_path / "there.sqlite"))
    wanted = sample_groups(local, PROMPTS, 2, WARM, Cache(tmp_path / "here.sqlite"))
    assert [[(r.task_id, r.index, r.completion, r.stop) for r in group] for group in found] == [
        [(r.task_id, r.index, r.completion, r.stop) for r in group] for group in wanted
    ]


def test_a_worker_with_another_version_or_another_model_is_refused(here: Any, model: Path, tmp_path: Path) -> None:
    answer = json.loads(ray_work.grade(json.dumps({"version": "0.0"}).encode()))
    with pytest.raises(RunError, match=r"a worker has rft-ilab .*, not 0.0 .install the same"):
        ray_cluster._result(json.dumps(answer).encode())
    policy = RayPolicy(here, LazyPolicy(model))
    policy.id = "local:other:float32"
    with pytest.raises(PolicyError, match=r"is local:.* on a worker, local:other:float32 here"):
        list(policy.sample(PROMPTS[:1], 1, WARM))
    policy.directory = tmp_path / "nowhere"
    with pytest.raises(PolicyError, match="no such directory"):
        list(policy.sample(PROMPTS[:1], 1, WARM))


def test_whatever_measures_a_model_can_do_it_on_a_cluster(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``--aa``, ``rft baseline save`` and ``rft compare``: the same results, made elsewhere."""
    write_skill(tmp_path / "taxonomy", "area/target", grader=ODD)
    (tmp_path / "taxonomy/rft.toml").write_text('[skills."area/target"]\ntier = "target"\nmax_tokens = 4\n')
    tuned, quiet = make_tiny_model(tmp_path / "tuned", seed=1), Console(quiet=True)
    connected: list[HereCluster] = []

    def connect(address: str) -> HereCluster:
        connected.append(HereCluster(address))
        return connected[-1]

    monkeypatch.setattr(ray_cluster, "RayCluster", connect)
    found: list[list[Any]] = []
    for address in ("", "there:1"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / f"cache-{address}"))
        request = Request(
            taxonomy=tmp_path / "taxonomy", run=tmp_path / "run", settings=load_settings(tmp_path / "taxonomy"),
            model=model, ray=address,
        )  # fmt: skip
        Run.create(request.run, {"identity": {}, "model": str(model)})
        found.append(
            [
                against_itself(request, None, 2, console=quiet),
                save_baseline(request, "b", console=quiet).read_text(),
                compare(request, contenders([str(model), str(tuned)], tmp_path), console=quiet),
            ]
        )
    assert found[0] == found[1]
    assert [cluster.asked for cluster in connected] == [{"grade", "sample"}] * 3


def test_an_error_keeps_its_class(here: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: Any) -> Any:
        raise SandboxError("no walls here")

    monkeypatch.setattr(ray_work, "_grader", refused)
    with pytest.raises(SandboxError, match="no walls here"):
        RayGrader(here, make_skill(PYTHON)).grade(pairs(1))


def test_without_ray_it_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rft_ilab.cli.regress import regress

    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr(ray_cluster.importlib.util, "find_spec", lambda name: None)  # type: ignore[attr-defined]
    write_skill(tmp_path / "taxonomy")
    arguments = ["--ray", "auto", "--no-target", "--taxonomy-path", str(tmp_path / "taxonomy"), "--model", "m"]
    Run.create(tmp_path / "run", {"identity": {}, "model": "m"})
    result = CliRunner().invoke(regress, [*arguments, "--run", str(tmp_path / "run")])
    assert result.exit_code == 2 and result.output.count("\n") == 1
    assert "--ray needs the package ray (pip install 'rft-ilab[ray]'" in result.output


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head with one processor; nodes are added by tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_memory_monitor_refresh_ms": "0",
            "RAY_AUTH_MODE": "disabled",
        }.items():
            patch.setenv(name, value)
        import ray
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 1, "include_dashboard": False}
        made = patiently(lambda: Cluster(initialize_head=True, head_node_args=head))
        try:
            yield made
        finally:
            ray.shutdown()
            made.shutdown()


def patiently(start: Callable[[], Any]) -> Any:
    """Ray gives a node 30 seconds to start, which is not much where other tests keep the machine busy."""
    for _ in range(2):
        with contextlib.suppress(Exception):
            return start()
    return start()


@needs_ray
@pytest.mark.slow
def test_two_nodes_one_killed_in_the_middle(cluster: Any) -> None:
    """Grades as of a local grader on one node, on two, and on two of which one is killed -9 while it grades."""
    skill = make_skill(PYTHON)
    wanted = build_grader(skill).grade(pairs(448, sleep=0.01))
    there = ray_cluster.RayCluster(cluster.address)
    assert (there.nodes, there.cpus) == (1, 1)
    assert RayGrader(there, skill).grade(pairs(128, sleep=0.01)) == wanted[:128]
    second = patiently(lambda: cluster.add_node(num_cpus=1))
    assert (there.nodes, there.cpus) == (2, 2)
    killed = threading.Event()

    def graded_until_killed() -> Iterator[dict[str, Any]]:
        rows = [[task.id, dict(task.item), r.completion, r.stop] for task, r in pairs(448, sleep=0.01)]
        head = {"grader": PYTHON, "digest": skill.grader_digest, "where": "grader.json"}
        for start in range(0, 448, 64):
            if start == 320:  # four parts are with the cluster, two of them begun, one of these on the second node
                cluster.remove_node(second, allow_graceful=False)
                killed.set()
            yield {**head, "rows": rows[start : start + 64]}

    found = [row for part in there.map(ray_work.grade, graded_until_killed()) for row in part]
    assert killed.is_set()
    assert found == [[g.score, g.passed, g.answer, g.reason, g.error] for g in wanted]


@needs_ray
@pytest.mark.slow
def test_the_gate_says_the_same_on_a_cluster(
    cluster: Any, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers, grades and verdict: ``verdict.json`` is the same file."""
    write_skill(tmp_path / "taxonomy", "area/target", grader=ODD)
    write_skill(tmp_path / "taxonomy", "area/watched", grader=LABEL_GRADER)
    (tmp_path / "taxonomy/rft.toml").write_text('[skills."area/target"]\ntier = "target"\n')
    tuned = make_tiny_model(tmp_path / "tuned", seed=1)
    verdicts, run = [], tmp_path / "run"
    for name, address in (("here", ""), ("there", cluster.address)):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / f"cache-{name}"))
        Run.create(run, {"identity": {}, "model": str(model)})
        request = Request(
            taxonomy=tmp_path / "taxonomy",
            run=run,
            settings=load_settings(tmp_path / "taxonomy"),
            model=model,
            ray=address,
        )
        said = io.StringIO()
        gate.regress(request, tuned, console=Console(file=said, width=200))
        assert ("on the Ray cluster at" in said.getvalue()) == bool(address)
        verdicts.append((run / "gate/verdict.json").read_bytes())
        shutil.rmtree(run)  # its path stands in the verdict
    assert verdicts[0] == verdicts[1] and b'"outcome"' in verdicts[0]


@needs_ray
@pytest.mark.slow
def test_no_cluster_is_one_line() -> None:
    import ray

    ray.shutdown()
    for address in ("127.0.0.1:9", "nothing-here", "ray://127.0.0.1:9"):
        with pytest.raises(RunError, match=rf"{address}: no Ray cluster: .*ray start --head") as caught:
            ray_cluster.RayCluster(address)
        assert "\n" not in str(caught.value)

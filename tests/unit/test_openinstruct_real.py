"""The real Open-Instruct, where a checkout and a Python that can run it are named; skipped elsewhere.

``RFT_OPEN_INSTRUCT`` (checkout) and ``RFT_OPEN_INSTRUCT_PYTHON``; no GPU is needed. Unpatched ``grpo_fast.py ...
--cache_dataset_only`` parses the flags, attaches to Ray, reads and tokenises the data, and leaves.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rft_ilab.config import OpenInstructSettings, load_settings
from rft_ilab.errors import RunError
from rft_ilab.pipeline.request import environments_of
from rft_ilab.policy.local.lengths import chat_counter
from rft_ilab.scaleout.openinstruct import dataset
from rft_ilab.scaleout.openinstruct.cluster import Cluster, judge_cluster
from rft_ilab.scaleout.openinstruct.flags import flags_of
from rft_ilab.scaleout.openinstruct.launch import SHIPPED, Place
from rft_ilab.scaleout.openinstruct.model_shape import read_shape
from rft_ilab.scaleout.openinstruct.plan import Layout, Plan, make_plan
from rft_ilab.scaleout.openinstruct.site import CHECKOUT, PYTHON, Site, find
from rft_ilab.skills.tree import find_skills
from tests.tiny_model import make_tiny_model
from tests.unit.taxonomies import write_skill

MISSING = [name for name in (CHECKOUT, PYTHON) if not os.environ.get(name)]
TIMEOUT_S = 1200
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(2 * TIMEOUT_S),
    pytest.mark.skipif(bool(MISSING), reason=f"no Open-Instruct to try: {' and '.join(MISSING)} not set"),
]


@pytest.fixture(scope="module")
def site() -> Site:
    return Site(checkout=Path(os.environ[CHECKOUT]), python=Path(os.environ[PYTHON]), gpus=1)


@pytest.fixture(scope="module")
def head(site: Site) -> Iterator[str]:
    """The address of a Ray head with 16 CPUs and no GPU."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(site.python), "-m", "ray.scripts.scripts", "start", "--head", "--num-cpus", "16", "--block"]
    command += [
        "--port",
        str(port),
        "--include-dashboard=false",
        "--disable-usage-stats",
        "--node-ip-address=127.0.0.1",
    ]
    environment = {**os.environ, "PYTHONPATH": str(site.checkout)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        place = Place(found=find(site), site=dataclasses.replace(site, ray_address=f"127.0.0.1:{port}"), code=Path())
        for _ in range(5):
            with contextlib.suppress(RunError):
                asked(place)
                break
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


def asked(place: Place) -> Cluster:
    from rft_ilab.scaleout.openinstruct import launch

    here = dataclasses.replace(place, code=launch.HERE)
    return judge_cluster(here.ask("cluster_probe.py", [], here.cluster_environment(), 180))


@dataclasses.dataclass(frozen=True)
class Made:
    plan: Plan
    model: Path
    data: Path
    work: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("real")
    write_skill(root / "taxonomy")
    settings = load_settings(root / "taxonomy")
    tasks = dataset.tasks_of(environments_of(find_skills(root / "taxonomy", settings), settings))
    model = make_tiny_model(root / "model", max_position_embeddings=1024)
    data = dataset.measure(tasks, chat_counter(model), 16)
    plan = make_plan(read_shape(model), data, OpenInstructSettings(), nodes=1, gpus=1)
    return Made(plan, model, dataset.write_dataset(root / "data", tasks), root / "work")


def cached(site: Site, head: str, made: Made, *more: str, data: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the unpatched grpo_fast.py up to the data set."""
    assert site.checkout is not None
    flags = flags_of(made.plan, model=made.model, data=data or made.data, work=made.work, seed=0)
    made.work.mkdir(exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(site.checkout), "RAY_ADDRESS": head}
    script = site.checkout / "open_instruct" / "grpo_fast.py"
    return subprocess.run(
        [str(site.python), str(script), *flags, *more, "--cache_dataset_only"],
        cwd=made.work, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip


def test_it_takes_our_data_and_every_flag(site: Site, head: str, made: Made) -> None:
    done = cached(site, head, made)
    assert done.returncode == 0, done.stderr[-3000:]


def test_it_refuses_jsonl(site: Site, head: str, made: Made, tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    row = {"messages": [{"role": "user", "content": "Q"}], "ground_truth": "4", "dataset": "rft_ilab"}
    path.write_text((json.dumps(row) + "\n") * 200)
    done = cached(site, head, made, data=path)
    assert done.returncode == 1, done.stdout[-2000:]


def test_it_refuses_too_few_rows_as_the_plan_does(site: Site, head: str, made: Made) -> None:
    settings = dataclasses.replace(made.plan.settings, prompts=made.plan.data.rows)
    with pytest.raises(RunError, match="are too few"):
        make_plan(made.plan.shape, made.plan.data, settings, nodes=1, gpus=1)
    done = cached(site, head, made, "--num_unique_prompts_rollout", str(settings.prompts))
    assert done.returncode == 1 and "Train dataset is too small" in done.stderr


def test_it_refuses_a_flag_that_it_does_not_have(site: Site, head: str, made: Made) -> None:
    done = cached(site, head, made, "--no_such_flag", "1")
    assert done.returncode == 1 and "no_such_flag" in done.stderr


def test_the_cluster_is_asked_and_found_too_small(site: Site, head: str) -> None:
    place = Place(found=find(site), site=dataclasses.replace(site, ray_address=head), code=Path())
    cluster = asked(place)
    assert [node["CPU"] for node in cluster.nodes] == [16.0] and cluster.gpus_a_node == 0
    one = Layout(learners=(1,), engines=1, tensor_parallel=1, shared=True)
    with pytest.raises(RunError, match="1 GPUs are needed, the cluster has 0"):
        cluster.check(one, head)


@pytest.mark.parametrize(
    ("learners", "engines", "tensor_parallel", "shared"),
    [
        ((1,), 1, 1, True),
        ((4,), 4, 1, False),
        ((5,), 3, 1, False),
        ((8, 8), 8, 1, False),
        ((8,) * 5, 24, 1, False),
        ((8, 8), 4, 2, False),
    ],
)
def test_ray_needs_what_it_computes_itself(
    site: Site, learners: tuple[int, ...], engines: int, tensor_parallel: int, shared: bool
) -> None:
    assert site.checkout is not None
    path = site.checkout / "open_instruct" / "grpo_fast_resource_plan.py"
    specification = importlib.util.spec_from_file_location("grpo_fast_resource_plan", path)
    assert specification and specification.loader
    theirs = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(theirs)
    needs = theirs.build_grpo_fast_startup_requirements(list(learners), shared, engines, tensor_parallel)
    layout = Layout(learners=learners, engines=engines, tensor_parallel=tensor_parallel, shared=shared)
    assert (layout.cpus, layout.gpus) == (needs["min_total_cluster_cpus"], needs["min_total_cluster_gpus"])


def test_everything_that_is_shipped_is_there() -> None:
    from rft_ilab.scaleout.openinstruct import launch

    assert all((launch.HERE / name).is_file() for name in SHIPPED)

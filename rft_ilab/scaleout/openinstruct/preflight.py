"""``python preflight.py LABELFILE``: can the graders be reached from where the rewards will run, and do they agree?

LABELFILE is JSON Lines: ``{"label": ..., "completion": ..., "passed": true}`` or ``"score": 0.5`` in place of
``passed``; ``label`` is the text of the column ``ground_truth``. With ``RAY_ADDRESS`` a task on every node of the
cluster that has a GPU (every node, if none has) asks, otherwise this process. ``RFT_GRADER_URL`` and
``RFT_GRADER_TOKEN`` as for the launcher.

Exit code 0 and one line of JSON on stdout, or 1 and one line on stderr. Run by Open-Instruct's Python;
``open_instruct`` itself is not needed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from collections import defaultdict
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).resolve().parent
DEADLINE_S = 30.0  # of the grader server, unless the environment says otherwise
CLUSTER_S = 300.0  # for a task to be placed, and its worker to start


def load_client() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rft_grader_client", HERE / "grader_client.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["rft_grader_client"] = module
    spec.loader.exec_module(module)
    return module


def read_cases(path: Path) -> list[dict[str, Any]]:
    """The lines of LABELFILE. Raises ValueError with the line to blame."""
    cases = []
    for number, text in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not text.strip():
            continue
        try:
            case = json.loads(text)
            label = json.loads(case["label"])
            cases.append(
                {
                    "skill": label["skill"], "digest": label["grader_digest"], "item": label["item"],
                    "completion": case["completion"], "passed": case.get("passed"), "score": case.get("score"),
                }
            )  # fmt: skip
        except (ValueError, LookupError, TypeError) as error:
            raise ValueError(f"{path}:{number}: not a known completion ({type(error).__name__}: {error})") from error
    if not cases:
        raise ValueError(f"{path}: no known completion to ask about")
    return cases


def ask(settings: Any, cases: list[dict[str, Any]], grade: Any) -> str:
    """What is wrong, in one line; nothing if every grade is as expected."""
    by_skill: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for case in cases:
        by_skill[case["skill"], case["digest"]].append(case)
    for (skill, digest), own in by_skill.items():
        samples = [{"completion": case["completion"], "item": case["item"]} for case in own]
        try:
            results = grade(settings, skill, digest, samples)
        except RuntimeError as error:
            return str(error)
        for case, result in zip(own, results, strict=True):
            about = f"{skill}: the answer {case['completion'][:60]!r}"
            if result["error"] is not None:
                return f"{about} is an error: {result['error'][:200]}"
            for key in ("passed", "score"):
                if case[key] is not None and case[key] != result[key]:
                    return f"{about} has {key} {result[key]}, expected {case[key]} ({result['reason'][:120]})"
    return ""


def ask_cluster(settings: Any, cases: list[dict[str, Any]], client: ModuleType) -> tuple[str, int]:
    """As :func:`ask`, on the nodes where engines will be, and how many these are."""
    import ray
    from ray import cloudpickle
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    cloudpickle.register_pickle_by_value(client)
    ray.init(log_to_driver=False, logging_level="ERROR")
    nodes = [node for node in ray.nodes() if node["Alive"]]
    nodes = [node for node in nodes if node["Resources"].get("GPU")] or nodes
    task = ray.remote(num_cpus=0, max_retries=0)(ask)
    asked = {
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
            settings, cases, client.grade
        ): node["NodeManagerAddress"]
        for node in nodes
    }
    try:
        for reference, address in asked.items():
            if problem := ray.get(reference, timeout=CLUSTER_S):
                return f"from node {address}: {problem}", len(nodes)
        return "", len(nodes)
    finally:
        ray.shutdown()


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: preflight.py LABELFILE", file=sys.stderr)
        return 1
    client, start, nodes = load_client(), time.monotonic(), 1
    os.environ.setdefault("RFT_GRADER_DEADLINE_S", f"{DEADLINE_S:g}")
    try:
        cases = read_cases(Path(arguments[0]))
        settings = client.Settings.from_environment()
        if os.environ.get("RAY_ADDRESS"):
            problem, nodes = ask_cluster(settings, cases, client)
        else:
            problem = ask(settings, cases, client.grade)
    except Exception as error:  # noqa: BLE001 - one line, whatever it is
        problem = f"{type(error).__name__}: {error}" if not isinstance(error, ValueError | RuntimeError) else str(error)
    if problem:
        print(f"rft-ilab: preflight: {' '.join(problem.split())}", file=sys.stderr)
        return 1
    seconds = round(time.monotonic() - start, 3)
    print(json.dumps({"ok": True, "url": settings.url, "nodes": nodes, "graded": len(cases), "seconds": seconds}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

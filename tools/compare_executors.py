"""The corpus of ``tests/cage`` against other ways to run Python: ``python -m tools.compare_executors`` prints a table.

Compared are ``exec()`` in the asking process (here: a throw-away one, under an alarm), a subprocess with limits on its
resources and an empty environment, and the cage. Attacks that would stop this machine's other work are left out
everywhere (:data:`SPARED`), and the first two run as nobody if we are root. "Tests won": hostile solutions of which
some test passes; in the first two ways the tests share an interpreter with the solution.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable

from rft_ilab.grading.cage import pool
from tests.cage.corpus import GRADERS, OWN, SOLUTIONS
from tests.cage.world import World, alive, try_grader, try_solution

SPARED = {
    "fork bomb", "kill everybody", "kill siblings", "kill the group", "memory", "one big block", "system call shmget",
    "system call msgget", "system call mq_open", "exhaust memory for the next", "crash where an exception is expected",
    "stop the fork server", "kill the fork server", "kills", "limits of another", "processors of another", "flood",
    "priority of another", "memory of another", "power tower", "deep recursion", "segfault", "a huge int", "own memory",
    "exponential sharing", "a huge text", "SIGIO to another", "forks an answer", "fork",
}  # fmt: skip
SECONDS = 1
# Reads {"source", "sample"} or {"solution", "tests"}; says the score on the last line. Hostile code shares all of it.
RUNNER = """
import json, sys
job = json.loads(sys.stdin.read())
run_solution = None
class SolutionError(Exception): pass
if "tests" in job:
    names = {}
    passed = 0
    try:
        exec(job["solution"], names)
    except Exception:
        pass
    for test in job["tests"]:
        try:
            exec(test, names)
            passed += 1
        except BaseException:
            pass
    verdict = passed
else:
    names = {"run_solution": None, "SolutionError": SolutionError}
    exec(job["source"], names)
    verdict = names["grade"]({"output_text": "attack"}, {})
print(json.dumps({"verdict": float(verdict)}))
"""
LIMITED = """
import resource, os
for name, value in (("AS", 512 << 20), ("CPU", 2), ("FSIZE", 0), ("CORE", 0)):
    resource.setrlimit(getattr(resource, "RLIMIT_" + name), (value, value))
"""


def outside(prefix: str, environment: dict[str, str] | None) -> Callable[[dict[str, object]], tuple[float | None, str]]:
    """(verdict, all that was said) of a job in a plain interpreter."""
    drop = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.getuid() == 0 else []
    # A Python below a home directory must stay readable to nobody.
    keep = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"] if drop else []

    def run(job: dict[str, object]) -> tuple[float | None, str]:
        command = [*drop, *keep, sys.executable, "-I", "-c", prefix + RUNNER]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors="replace", env=environment, start_new_session=True, cwd="/",
        )  # fmt: skip
        try:
            said, _ = process.communicate(json.dumps(job), SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            return None, process.communicate()[0]
        try:
            return json.loads(said.splitlines()[-1])["verdict"], said
        except (ValueError, LookupError, TypeError):
            return None, said

    return run


def compared(run: Callable[[dict[str, object]], tuple[float | None, str]]) -> Counter[str]:
    """Counts of outcomes. The world is made anew for each attack, since some change it."""
    counts: Counter[str] = Counter()
    for attack in GRADERS:
        if attack.name in SPARED or attack.wants == OWN:
            continue
        world = World()
        body = "".join(f"    {line}\n" for line in world.fill(attack.body).splitlines())
        verdict, said = run({"source": f"def grade(sample, item):\n{body}"})
        escaped = (verdict == 1.0 and attack.wants == "contained") or bool(world.touched(said))
        counts["graders"] += 1
        counts["escapes"] += escaped
        counts["a number for what is none"] += attack.wants == "error" and verdict is not None and not escaped
        world.close()
    for cheat in SOLUTIONS:
        if cheat.name not in SPARED:
            verdict, _ = run({"solution": cheat.source.encode("utf-8", "replace").decode(), "tests": list(cheat.tests)})
            counts["solutions"] += 1
            counts["tests won"] += bool(verdict)
    return counts


def cage() -> Counter[str]:
    counts: Counter[str] = Counter()
    world = World()
    for attack in GRADERS:
        if attack.name not in SPARED and attack.wants != OWN:
            problem = try_grader(attack, world, after=False)
            counts["graders"] += 1
            counts["a number for what is none"] += problem.startswith("a score")
            counts["escapes"] += bool(problem) and not problem.startswith("a score")
    for cheat in SOLUTIONS:
        if cheat.name not in SPARED:
            counts["solutions"] += 1
            counts["tests won"] += bool(try_solution(cheat, world, through_grader=False, after=False))
    world.close()
    counts["escapes"] += bool(alive())
    return counts


def main() -> None:
    rows = {
        "exec in a process of ours": compared(outside("", None)),
        "subprocess with limits": compared(outside(LIMITED, {})),
        pool.default().server().walls.tier: cage(),
    }
    columns = ("graders", "escapes", "a number for what is none", "solutions", "tests won")
    print(f"| executor | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for name, counts in rows.items():
        print(f"| {name} | {' | '.join(str(counts[column]) for column in columns)} |")


if __name__ == "__main__":
    main()

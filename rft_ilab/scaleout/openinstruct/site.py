"""Where Open-Instruct is, and on which machines it is to run. Checked before anything is computed."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from rft_ilab.errors import RunError
from rft_ilab.skills.gitobjects import git

CHECKOUT, PYTHON = "RFT_OPEN_INSTRUCT", "RFT_OPEN_INSTRUCT_PYTHON"
#: what the flags, the log and the layout of checkpoints were read from; others may differ
KNOWN_COMMIT = "e6c3044aa6201c8bfa4573c1b03142af599e730d"
NEEDED = ("torch", "vllm", "deepspeed", "ray", "transformers", "datasets")
PROBE = f"import importlib.util as u, json; print(json.dumps([n for n in {NEEDED!r} if u.find_spec(n) is None]))"


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """``gpus`` of each of ``nodes`` (None: those found). Without ``ray_address`` everything runs on this machine; with
    it the driver runs here, and with ``ray_job``, too, in the cluster, to which ``ray_address`` is the way for jobs.
    ``grader_url`` is a grader server that runs already; ``grader_host`` where this machine's is reached otherwise."""

    checkout: Path | None = None
    python: Path | None = None
    gpus: int | None = None
    nodes: int = 1
    ray_address: str = ""
    ray_job: bool = False
    grader_url: str = ""
    grader_host: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A checkout and a Python that can run it."""

    checkout: Path
    python: Path
    commit: str

    @property
    def known(self) -> bool:
        return self.commit == KNOWN_COMMIT


def find(site: Site) -> Found:
    """Raises RunError, in one line, for whatever is missing."""
    if site.checkout is None:
        raise RunError("where is Open-Instruct?", fix=f"--open-instruct DIRECTORY of a checkout, or {CHECKOUT}")
    if not (site.checkout / "open_instruct" / "grpo_fast.py").is_file():
        raise RunError("no checkout of Open-Instruct: it has no open_instruct/grpo_fast.py", where=site.checkout)
    if site.python is None:
        raise RunError(
            "Open-Instruct needs a Python of its own",
            fix=f"--open-instruct-python PATH, or {PYTHON}: that of the environment that its README describes",
        )
    if not site.python.is_file() or not os.access(site.python, os.X_OK):
        raise RunError("no such Python", where=site.python, fix="see --open-instruct-python")
    environment = {**os.environ, "PYTHONPATH": str(site.checkout.resolve())}
    done = subprocess.run([site.python, "-c", PROBE], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise RunError(f"this Python does not start: {last}", where=site.python)
    if missing := json.loads(done.stdout):
        raise RunError(
            f"this Python has no {', '.join(missing)}", where=site.python, fix="install what Open-Instruct requires"
        )
    return Found(checkout=site.checkout.resolve(), python=site.python.absolute(), commit=commit_of(site.checkout))


def commit_of(checkout: Path) -> str:
    """The commit of a checkout, ``+dirty`` if its code was changed; ``unknown`` where git does not know."""
    head = git(checkout, "rev-parse", "HEAD")
    if not head:
        return "unknown"
    changed = git(checkout, "status", "--porcelain", "--untracked-files=no", "--", "open_instruct")
    return head + ("+dirty" if changed else "")


def local_cpus() -> int:
    """CPUs that Ray would count on this machine."""
    return os.cpu_count() or 1


def local_gpus() -> int:
    """GPUs of this machine; 0 where there is no ``nvidia-smi``."""
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    except OSError:
        return 0
    return sum(line.startswith("GPU ") for line in done.stdout.splitlines()) if done.returncode == 0 else 0

"""Start ``grpo_fast.py`` through the thin launcher, and stop it again: a process here, or a job of a Ray cluster.

The files that run in Open-Instruct's Python are copied to ``code/`` of the run, so that its environment needs nothing
of ours. A job gets its environment from a file in that directory, which it runs with ``sh``: ``ray job submit`` with
``env_vars`` fails, because grpo_fast sets them itself, and a token on a command line could be read by others.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rft_ilab.disk import make_directory
from rft_ilab.errors import RunError
from rft_ilab.scaleout.openinstruct.follow import OURS, WIDTH, Log
from rft_ilab.scaleout.openinstruct.plan import Layout
from rft_ilab.scaleout.openinstruct.site import Found, Site

HERE = Path(__file__).parent
SHIPPED = ("grader_client.py", "verifier.py", "launcher.py", "preflight.py", "cluster_probe.py")
POLL_S = 0.5
#: seconds from each signal to the next; grpo_fast takes a while to put its actors away
PATIENCE = ((signal.SIGINT, 90.0), (signal.SIGTERM, 20.0), (signal.SIGKILL, 5.0))
SHOWN_LINES = 12
SECRET = "RFT_GRADER_TOKEN"


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where Open-Instruct's Python runs: this machine, with or without a cluster at hand, or a job in the cluster."""

    found: Found
    site: Site
    code: Path

    def ship(self) -> None:
        """Raises RunError if a file of ours is missing."""
        make_directory(self.code)
        for name in SHIPPED:
            if not (HERE / name).exists():
                raise RunError("a file of rft-ilab is missing", where=HERE / name, fix="install rft-ilab again")
            shutil.copy(HERE / name, self.code)

    def environment(self, graders: Mapping[str, str], layout: Layout, tolerated: float) -> dict[str, str]:
        """What the driver needs beyond what is there; grpo_fast hands its own environment on to every actor."""
        wanted = {
            "PYTHONPATH": str(self.found.checkout),
            "COLUMNS": WIDTH,
            "RAY_DEDUP_LOGS": "0",
            "PYTHONUNBUFFERED": "1",
            "RFT_GRADER_TOLERATED_ERRORS": f"{tolerated:g}",
            **graders,
        }
        if layout.shared:
            wanted["VLLM_ALLOW_INSECURE_SERIALIZATION"] = "1"
        return wanted | self.cluster_environment()

    def cluster_environment(self) -> dict[str, str]:
        """How Ray finds the cluster: ``ray.init()`` is given no address. A job knows where it is."""
        return {"RAY_ADDRESS": self.site.ray_address} if self.site.ray_address and not self.site.ray_job else {}

    def command(self, script: str, arguments: Sequence[str]) -> list[str]:
        """A shipped ``script`` and its arguments, as they run in the end; a job finds it in its working directory."""
        return [str(self.found.python), script if self.site.ray_job else str(self.code / script), *arguments]

    def submission(self, name: str, job: str) -> list[str]:
        """The command that hands ``name`` (a shell script in ``code``) to the cluster as a job."""
        submit = [*self.ray("submit"), "--submission-id", job, "--working-dir", str(self.code)]
        return [*submit, "--", "sh", name]

    def ray(self, verb: str) -> list[str]:
        command = [str(self.found.python), "-m", "ray.scripts.scripts", "job", verb]
        return [*command, "--address", self.site.ray_address]

    def start(
        self, script: str, arguments: Sequence[str], environment: Mapping[str, str], output: Any, job: str
    ) -> subprocess.Popen[bytes]:
        """Start ``script`` where it is to run; all that it says goes to ``output`` (a file or PIPE)."""
        command, own, cwd = self.command(script, arguments), {**_inherited(), **environment}, self.found.checkout
        if self.site.ray_job:
            name = f"{Path(script).stem}.sh"
            _write_script(self.code / name, self.command(script, arguments), environment)
            command, own, cwd = self.submission(name, job), _inherited(), self.code
        return subprocess.Popen(
            command,
            cwd=cwd,
            env=own,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def ask(self, script: str, arguments: Sequence[str], environment: Mapping[str, str], timeout_s: float) -> Any:
        """Run a script that ends with one line of JSON. Raises RunError with its last line if it does not."""
        job = f"rft-{Path(script).stem}-{os.getpid()}-{time.time_ns()}"
        process = self.start(script, arguments, environment, subprocess.PIPE, job)
        try:
            said = process.communicate(timeout=timeout_s)[0].decode(errors="replace")
        except subprocess.TimeoutExpired as error:
            raise RunError(f"{script} did not end within {timeout_s:g} s", fix=self._fix()) from error
        finally:
            self.stop(process, job, patience=((signal.SIGKILL, 5.0),))
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        if process.returncode == 0:
            for line in reversed(lines):
                with contextlib.suppress(ValueError):
                    if line.startswith("{"):
                        return json.loads(line)
        own = [line.removeprefix(OURS) for line in lines if line.startswith(OURS)]
        raise RunError(own[-1] if own else f"{script}: {(lines or ['it said nothing'])[-1]}", fix=self._fix())

    def _fix(self) -> str:
        if self.site.ray_address:
            return "check --ray-address, and that this machine can be reached from the cluster (--grader-host)"
        return f"what the graders said is in {self.code.parent / 'graders.log'}"

    def stop(
        self, process: subprocess.Popen[bytes], job: str, patience: Sequence[tuple[signal.Signals, float]] = PATIENCE
    ) -> None:
        """End the process and whatever it started in its session; of a job, the job as well, which goes on where the
        process that followed it has lost the cluster."""
        if process.poll() != 0 and self.site.ray_job:
            with contextlib.suppress(subprocess.TimeoutExpired, OSError):
                subprocess.run(
                    [*self.ray("stop"), job], env=_inherited(), capture_output=True, timeout=120, check=False
                )
        for number, seconds in patience:
            if process.poll() is not None:
                return
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(seconds)


def _inherited() -> dict[str, str]:
    """Our environment without what belongs to our Python, or would colour the log."""
    left_out = ("PYTHONPATH", "PYTHONHOME", "FORCE_COLOR", "VIRTUAL_ENV", "RAY_ADDRESS", SECRET)
    return {key: value for key, value in os.environ.items() if key not in left_out}


def _write_script(path: Path, command: Sequence[str], environment: Mapping[str, str]) -> None:
    """A file that none but its owner may read at any time."""
    lines = [f"export {key}={shlex.quote(value)}\n" for key, value in environment.items()]
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o700), "w", encoding="utf-8") as file:
        file.write("".join(lines) + f"exec {shlex.join(command)}\n")


def shown_environment(environment: Mapping[str, str]) -> str:
    """As one would type it; the token stays unsaid."""
    return " ".join(f"{k}={'(secret)' if k == SECRET else shlex.quote(v)}" for k, v in environment.items())


def lines_of(process: subprocess.Popen[bytes], path: Path, start: int, check: Callable[[], None]) -> Iterator[str]:
    """Lines of a log that a process writes, from byte ``start``, until it has ended. ``check`` is called often."""
    with path.open("rb") as file:
        file.seek(start)
        rest = b""
        while True:
            ended = process.poll() is not None
            while piece := file.read(1 << 20):
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    yield line.decode(errors="replace")
            if ended:
                if rest:
                    yield rest.decode(errors="replace")
                return
            check()
            time.sleep(POLL_S)


def failure(code: int, log: Log, path: Path) -> RunError:
    """One line for a training that ended with an error; what the launcher says of rewards goes before all else."""
    fix = "the same command with --run goes on from the last saved state"
    if log.reason:
        return RunError(f"the training was stopped: {log.reason}", where=path, fix=fix)
    said = [line for line in log.last if "Error" in line] or log.last or ["it said nothing"]
    reason = said[-1].strip()
    if "Training didn't run since" in reason:
        fix = "all steps were made, but no model was saved: raise steps in [open_instruct] by one"
    return RunError(f"grpo_fast.py ended with exit code {code}: {reason}", where=path, fix=fix)

"""``python launcher.py FLAGS``: Open-Instruct's own ``grpo_fast.py FLAGS``, which then knows the verifier
``rft_ilab``.

Run by Open-Instruct's Python in its checkout (or wherever ``open_instruct`` can be imported), with ``RFT_GRADER_URL``
and, off loopback, ``RFT_GRADER_TOKEN`` set. Nothing of Open-Instruct is patched.

Exit code 1 and one line that begins with ``rft-ilab:`` when the rewards fail for good. A thread looks for that: in
``grpo_fast.py`` an error in a reward ends a thread of the engine, which is noticed between two training steps, while
the step itself waits for the rewards without a time limit.
"""

from __future__ import annotations

import importlib.util
import os
import runpy
import signal
import sys
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import NoReturn

HERE = Path(__file__).resolve().parent
LOOK_EVERY_S = 2.0
GRACE_S = 60.0  # for Open-Instruct's own clean-up


def load(name: str, file: str) -> ModuleType:
    """A file beside this one as a module that Ray ships by value, since workers cannot import it."""
    spec = importlib.util.spec_from_file_location(name, HERE / file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(module)
    return module


def find_alarm(name: str) -> str:
    """The line that a worker left, or nothing."""
    import ray

    if not ray.is_initialized():
        return ""
    try:
        return str(ray.get(ray.get_actor(name).line.remote(), timeout=10))
    except Exception:  # noqa: BLE001 - ValueError: no such actor, all is well; else grpo_fast.py will say it better
        return ""


def watch(name: str, main: int, alarmed: threading.Event) -> None:
    """Interrupt the main thread when an alarm is found; leave the hard way if that does not end it."""
    while not (line := find_alarm(name)):
        time.sleep(LOOK_EVERY_S)
    alarmed.set()
    _say(line)
    signal.pthread_kill(main, signal.SIGINT)
    time.sleep(GRACE_S)
    os._exit(1)


def _say(line: str) -> None:
    print(f"rft-ilab: {' '.join(line.split())}", file=sys.stderr, flush=True)


def _fail(line: str) -> NoReturn:
    _say(line)
    sys.exit(1)


def main() -> None:
    if sys.path and Path(sys.path[0] or ".").resolve() == HERE:
        sys.path[0] = os.getcwd()  # as for `python -m`; the files here are no modules of anybody
    try:
        client = load("rft_grader_client", "grader_client.py")
        client.Settings.from_environment()
        verifier = load("rft_verifier", "verifier.py")
    except ModuleNotFoundError as error:
        _fail(f"no module {error.name!r}: run this with Open-Instruct's Python, in its checkout ({sys.executable})")
    except RuntimeError as error:
        _fail(str(error))
    # Ignored where a script started all this in the background; the alarm and Ctrl-C both come as this signal.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    alarmed = threading.Event()
    arguments = (verifier.ALARM, threading.get_ident(), alarmed)
    threading.Thread(target=watch, args=arguments, name="rft-ilab-watch", daemon=True).start()
    try:
        runpy.run_module("open_instruct.grpo_fast", run_name="__main__", alter_sys=True)
    except KeyboardInterrupt:
        sys.exit(1)
    if alarmed.is_set():  # and somebody swallowed the interrupt
        sys.exit(1)


if __name__ == "__main__":
    main()

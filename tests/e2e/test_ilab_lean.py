"""What ``ilab`` loads with the plugin installed."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """if True:
    import sys
    sys.argv = ["ilab", *{arguments!r}]
    from instructlab.lab import ilab
    try:
        ilab()
    except SystemExit as end:
        code = end.code
    heavy = {{"torch", "transformers", "peft", "rft_ilab.pipeline"}} & set(sys.modules)
    print("LOADED", code, sorted(heavy))
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["taxonomy", "lint"],
        ["model", "--help"],
        ["model", "train", "--help"],
        ["rft", "--help"],
        ["rft", "run", "--help"],
    ],
    ids=" ".join,
)
def test_nothing_heavy_is_loaded(initialised, arguments):
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(arguments=arguments)],
        env=initialised.environment,
        cwd=initialised.root,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.stdout.splitlines()[-1] == "LOADED 0 []", result.stdout + result.stderr

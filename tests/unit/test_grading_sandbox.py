"""Hostile Python graders: each is an error or contained, costs its own sample only, and never forges a number."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import pytest

from rft_ilab.errors import GraderError, SandboxError
from rft_ilab.grading.cage import pool, server
from rft_ilab.grading.cage.capabilities import Features
from rft_ilab.grading.engine import build_grader
from rft_ilab.grading.sample import Mark, Sample
from rft_ilab.grading.sandbox import Limits, load_error, run_python
from tests.unit.taxonomies import make_rollout, make_skill, make_task

QUICK = Limits(seconds=0.4)
THREAD = """
import threading, time
try: threading.Thread(target=time.sleep, args=(60,)).start()
except RuntimeError: pass  # no threads here: fine as well
"""
DEAF = """
import signal
for number in range(1, 20):
    try: signal.signal(number, signal.SIG_IGN)
    except OSError: pass
"""
WRITE = """
import os
for fd in range(3, 32):
    try:
        {}
    except OSError: pass
return 1"""


def source(body: str) -> str:
    return "def grade(sample, item):\n" + "".join(f"    {line}\n" for line in body.splitlines())


def run(body: str, texts: tuple[str, ...] = ("a",), limits: Limits = QUICK) -> list[Mark]:
    return run_python(source(body), [Sample(text, {"reference": "a", "n": [1]}) for text in texts], limits)


@pytest.mark.parametrize(
    ("body", "score"),
    [
        ("return 0.25", 0.25), ("return 1", 1.0), ("return True", 1.0),
        ("return sample['output_text'] == item['reference']", 1.0),
        ("return float(sample['output_json'] is None and sample['output_tools'] == [])", 1.0),
        ("return item['n'][0] / 2", 0.5),
        ("print('x' * 1_000_000)\nimport sys\nsys.stderr.write('x')\nreturn 1", 1.0), ("return -0.0", 0.0),
        ("import os\nreturn float(dict(os.environ) == {})", 1.0),
        ("from statistics import mean\nreturn mean([0, 1])", 0.5),
        ("import xml.etree.ElementTree as e\nreturn float(e.fromstring('<a b=\"1\"/>').get('b'))", 1.0),
        ("from datetime import datetime\nreturn datetime.strptime('2020', '%Y').year == 2020", 1.0),
        ("import hashlib\nreturn len(hashlib.sha256(b'x').digest()) / 64", 0.5),
        ("return run_solution('def f(a, *, b): return [a, b]', 'f', 1, b=2) == [1, 2]", 1.0),
        ("return run_solution('def f(): raise KeyError(1)', 'f')", 0.0),
        ("return run_solution('def f(', 'f')", 0.0), ("return run_solution('', 'f')", 0.0),
        ("return run_solution('def f(): return object()', 'f')", 0.0),
        ("return run_solution('def f():\\n while 1: pass', 'f')", 0.0),
        ("import os\nreturn run_solution('import os\\ndef f(): os._exit(0)', 'f')", 0.0),
        ("try: run_solution('1 / 0', 'f')\nexcept SolutionError as e: return float('ZeroDivision' in str(e))", 1.0),
        ("import sys\nreturn float(sys.stdin.read() == '')", 1.0),
        ("import json, re, math, collections\nreturn 1", 1.0),
        (f"{THREAD}\nreturn 1", 1.0),
        ("import atexit\natexit.register(print, 1 / 1)\nreturn 1", 1.0),
    ],
)  # fmt: skip
def test_contained(body: str, score: float) -> None:
    (mark,) = run(body)
    assert (mark.score, mark.error) == (score, None)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("raise ValueError('boom\\nsecond line')", "ValueError: boom (line 2 of the grader)"),
        ("return sample['absent']", "KeyError: 'absent' (line 2 of the grader)"),
        ("assert False", "AssertionError (line 2 of the grader)"),
        ("import sys\nsys.exit(0)", "SystemExit: 0"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("import os\nos._exit(0)", "ended without a score (exit code 0)"),
        ("import os\nos.kill(os.getpid(), 9)", "PermissionError"),
        ("import signal, time\nsignal.setitimer(signal.ITIMER_REAL, .01)\ntime.sleep(9)", "without a score (SIGALRM)"),
        ("import ctypes\nctypes.string_at(0)", "ModuleNotFoundError: No module named 'ctypes'"),
        ("import os\nos.abort()", "ended without a score (SIG"),
        ("return run_solution('', 'f', object())", "NotPlain: a value of type object, which is not plain"),
        ("return run_solution(1, 'f')", "TypeError"),
        ("return len('x' * (1 << 30))", "MemoryError"),
        ("return grade(sample, item)", "RecursionError"),
        ("while True: pass", "time-out"),
        ("import time\ntime.sleep(60)", "time-out"),
        (f"{DEAF}\nimport time\ntime.sleep(60)", "time-out"),
        ("while True:\n  try:\n    while True: pass\n  except BaseException: pass", "time-out"),
        ("import re\nreturn bool(re.match(r'(a+)+$', 'a' * 40 + 'b'))", "time-out"),
        ("pass", "grade() returned None, not a number"), ("return '1'", "grade() returned '1' (a str), not a number"),
        ("return [1.0]", "returned a value of type list"),
        ("return float('nan')", "returned nan, outside 0 to 1"), ("return float('inf')", "returned inf"),
        ("return 2.0", "returned 2.0, outside 0 to 1"), ("return -0.001", "returned -0.001"),
        ("return 10 ** 5000", "outside 0 to 1"),
        ("return 1 + 0j", "type complex"), ("class F(float): pass\nreturn F(1)", "type F, not a number"),
        ("class I(int):\n  __le__ = __ge__ = lambda *a: True\nreturn I(9)", "type I, not a number"),
        ("class E(Exception):\n  def __str__(self): raise KeyError\nraise E", "E (line"),
        ("class E(Exception):\n  def __str__(self): return 7\nraise E", "E (line"),
        ("raise ValueError('\\ud800' + 'x' * 100_000)", "ValueError: \\ud800xxx"),
        (WRITE.format("os.write(fd, b'z' * 100)"), "channel of its results"),
        (WRITE.format("while True: os.write(fd, b'z' * 65536)"), "channel of its results"),
        ("import os, time\nos.closerange(3, 32)\ntime.sleep(60)", "closed the channel"),
    ],
)  # fmt: skip
def test_hostile(body: str, error: str) -> None:
    start = time.monotonic()
    (mark,) = run(body)
    assert mark.score is None and error in (mark.error or ""), mark
    assert "\n" not in (mark.error or "") and len(mark.error or "") < 600
    assert time.monotonic() - start < 10


def test_memory_is_limited() -> None:
    body = "x = []\nwhile True: x.append('x' * 1_000_000)"
    (mark,) = run(body, limits=Limits(seconds=20, memory_mb=128))
    assert mark.score is None and "MemoryError" in (mark.error or "")


def test_files_cannot_be_read_or_written(tmp_path: Path) -> None:
    target = tmp_path / "written"
    (mark,) = run(f"with open({str(target)!r}, 'wb') as f: f.write(b'x')\nreturn 1")
    assert mark.error == f"PermissionError: [Errno 13] Permission denied: {str(target)!r} (line 2 of the grader)"
    assert not target.exists()
    (mark,) = run("import os\nreturn len(os.listdir('/'))")
    assert "PermissionError" in (mark.error or "")


def test_the_first_line_of_an_error_is_shown_and_its_traceback_kept() -> None:
    (mark,) = run("def inner(): raise ValueError('one\\ntwo')\ninner()")
    assert mark.error == "ValueError: one (line 2 of the grader)"
    assert mark.reason.startswith("Traceback (most recent call last):\n") and "two" in mark.reason
    assert mark.reason.count('File "<grader>"') == 2 and "cage" not in mark.reason


def test_a_grader_that_keeps_state_is_an_error_for_its_batch() -> None:
    text = "seen = []\ndef grade(sample, item):\n    seen.append(1)\n    return float(len(seen) == 1)\n"
    samples = [Sample(str(i), {}) for i in range(20)]
    marks = run_python(text, samples, Limits(regrade=0.1))
    assert {mark.error for mark in marks} == {
        "the grader keeps state between samples or is random: a sample scored 0 in a batch and scores 1 alone"
    }
    assert run_python(text, samples, Limits(regrade=0.0))[0].score == 1.0
    pure = "def grade(sample, item): return int(sample['output_text']) / 20"
    assert [m.score for m in run_python(pure, samples, Limits(regrade=1.0))] == [i / 20 for i in range(20)]


def test_a_random_solution_does_not_make_errors_of_its_batch() -> None:
    text = "def grade(sample, item):\n    return run_solution(sample['output_text'], 'f') == 5\n"
    right, random = "def f(): return 5", "import time\ndef f(): return time.monotonic_ns()"
    blamed = "def grade(sample, item):\n    return run_solution(sample['output_text'], 'f') % 1000 / 1000\n"
    marks = run_python(text, [Sample(right, {})] * 8 + [Sample("def f(): return 4", {})], Limits(regrade=1.0))
    assert [mark.score for mark in marks] == [1.0] * 8 + [0.0]
    assert all(mark.error is None for mark in run_python(blamed, [Sample(random, {})] * 9, Limits(regrade=1.0)))


def test_what_is_written_into_the_channel_costs_its_own_sample() -> None:
    body = "import os\nif sample['output_text'] == 'b': os.write(3, b'z' * 99)\nreturn 0.5"
    assert [mark.score for mark in run(body, ("a", "b", "c"))] == [0.5, None, 0.5]


def test_a_solution_that_hangs_leaves_the_grader_its_time() -> None:
    body = "try: run_solution('while True: pass', 'f')\nexcept SolutionError as e: return float('time-out' in str(e))"
    assert [mark.score for mark in run(body, ("a", "b"))] == [1.0, 1.0]


def test_a_secret_of_the_environment_does_not_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    (mark,) = run("import os, sys\nassert not os.environ and not sys.argv[1:], os.environ\nreturn 1")
    assert mark.score == 1


@pytest.mark.parametrize("death", ["import os; os._exit(3)", "import time; time.sleep(60)", "raise SystemExit"])
def test_a_death_costs_its_own_sample_only(death: str) -> None:
    texts = ("a", "b", "die", "c", "die", "d")
    marks = run(f"if sample['output_text'] == 'die':\n  {death}\nreturn 0.5", texts)
    assert [mark.score for mark in marks] == [0.5, 0.5, None, 0.5, None, 0.5]


def test_marks_keep_their_order_over_batches() -> None:
    texts = tuple(str(i) for i in range(150))
    marks = run("return int(sample['output_text']) / 200", texts)
    assert [mark.score for mark in marks] == [i / 200 for i in range(150)]
    small = Limits(batch_bytes=200)
    assert [m.score for m in run("return int(sample['output_text']) / 200", texts[:20], small)] == [
        i / 200 for i in range(20)
    ]


def test_a_grader_that_always_dies_is_given_up() -> None:
    marks = run("import os; os._exit(1)", ("x",) * 30, Limits(deaths=3))
    assert all(mark.score is None for mark in marks) and len(marks) == 30
    assert (marks[-1].error or "").startswith("not run: the grader died on 3 samples in a row, last: crash")


@pytest.mark.parametrize(
    "text", ["\ud800", "\udcff\ud83d", "\x00", "\u2028", "a" * 1_000_000, '"}], "source": "', "{" * 50_000]
)
def test_completions_arrive_as_they_are(text: str) -> None:
    hashed = "hashlib.sha256(sample['output_text'].encode('utf-8', 'surrogatepass')).hexdigest()"
    body = f"import hashlib\nreturn {hashed} == {_sha(text)!r}"
    (mark,) = run(body, (text,), Limits())
    assert (mark.score, mark.error) == (1.0, None)


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("def grade(:", "SyntaxError: invalid syntax (line 1 of the grader)"),
        ("x = 1", "defines no function grade(sample, item)"),
        ("import no_such_module", "ModuleNotFoundError"),
        ("while True: pass", "time-out"),
        ("import os; os._exit(0)", "ended without a score"),
        ("raise SystemExit", "SystemExit"),
        ("import torch", "ModuleNotFoundError"),
        ("\x00", "null bytes"),
        ("grade = {}['x']", "KeyError: 'x'"),
        ("grade = 3", "defines no function grade"),
    ],
)
def test_source_that_does_not_load(text: str, error: str) -> None:
    assert error in (load_error(text, QUICK) or "")
    assert load_error("def grade(sample, item): return 1") is None


def test_source_that_does_not_load_does_not_build() -> None:
    with pytest.raises(GraderError, match=r"grader\.json:1: the source does not load: SyntaxError"):
        build_grader(make_skill({"type": "python", "name": "p", "source": "def grade(:"}))
    with pytest.raises(GraderError, match="longer than 256 kB"):
        build_grader(make_skill({"type": "python", "name": "p", "source": "#" * 300_000}))


def test_python_grader_in_the_engine() -> None:
    text = source("return float(sample['output_json'][item['key']] == item['reference'])")
    grader = build_grader(make_skill({"type": "python", "name": "p", "source": text, "image_tag": "2025-05-08"}))
    task = make_task({"key": "k", "reference": 3})
    answers = ['{"k": 3}', '{"k": 4}', "no json"]
    right, wrong, failed = grader.grade([(task, make_rollout(text, index=i)) for i, text in enumerate(answers)])
    assert (right.score, right.passed, right.reason) == (1.0, True, "scored 1")
    assert (wrong.score, wrong.passed, wrong.index) == (0.0, False, 1)
    assert failed.score is None and failed.passed is None and "TypeError" in (failed.error or "")


def test_a_sandbox_that_cannot_start_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    pool.default().close()
    monkeypatch.setattr(server.sys, "executable", "/no/such/python")
    with pytest.raises(SandboxError, match="cannot start"):
        run("return 1")
    monkeypatch.setattr(server.sys, "executable", "/bin/true")
    with pytest.raises(SandboxError, match="does not start"):
        run("return 1")
    pool.default().close()


def test_without_walls_only_trusted_graders_run(capfd: pytest.CaptureFixture[str]) -> None:
    samples, text = [Sample("a", {})], source("return 1")
    with pool.simulated(Features(seccomp=False, landlock=False)):
        assert run_python(text, samples)[0].score == 1
        assert run_python(text, samples)[0].score == 1
        warning = capfd.readouterr().err
        assert warning.count("Warning: Python graders run in a plain process") == 1
        with pytest.raises(SandboxError, match="no sandbox for code that is not trusted"):
            run_python(text, samples, Limits(trusted=False))
        with pytest.raises(SandboxError, match="not trusted"):
            load_error(text, Limits(trusted=False))
        with pytest.raises(SandboxError, match="not trusted"):
            run_python(source("return run_solution('def f(): return 1', 'f')"), samples)
        assert [mark.error for mark in run_python(source("import os\nos._exit(1)"), samples)] != [None]

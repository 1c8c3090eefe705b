"""The split judge on honest code: what crosses, what counts as the solution's fault and what as the tests'."""

from __future__ import annotations

import builtins
import os
import threading
import time
from collections.abc import Iterator

import pytest

from rft_ilab.grading.cage import pool
from rft_ilab.grading.cage.capabilities import PROCESS, Features
from rft_ilab.grading.cage.judge import CodeJob, CodeResult, run_many, run_tests
from rft_ilab.grading.cage.tester import RAISABLE, compiled, subject
from rft_ilab.grading.sample import Sample
from rft_ilab.grading.sandbox import Limits, run_python

pytestmark = pytest.mark.skipif(pool.default().server().walls.tier == PROCESS, reason="needs seccomp")
ADD = "def add(a, b):\n    return a + b\n"


def run(solution: str, *tests: str, seconds: float = 5.0) -> CodeResult:
    return run_tests(solution, tests, seconds=seconds)


@pytest.mark.parametrize(
    ("solution", "test"),
    [
        (ADD, "assert add(1, 2) == 3"),
        (ADD, "assert add('a', 'b') == 'ab' and add([1], [2]) == [1, 2] and add(b'x', b'y') == b'xy'"),
        (ADD, "import math\nassert math.isclose(add(.1, .2), .3)"),
        (ADD, "def check(f):\n    assert f(1, 2) == 3\n    assert f(b=1, a=2) == 3\ncheck(add)"),
        (ADD, "try: add(1, 'x')\nexcept TypeError as error: assert 'unsupported' in str(error)\nelse: assert 0"),
        (ADD, "assert list(map(add, [1, 2], [3, 4])) == [4, 6] and add.__name__ == 'add'"),
        ("def f(x): return {'s': {1, 2}, 't': (x, None, -2 ** 70), 'd': {(1, 2): [True]}}",
         "assert f(1.5) == {'s': {1, 2}, 't': (1.5, None, -2 ** 70), 'd': {(1, 2): [True]}}"),
        ("def f(): return True", "assert f() is True"),
        ("class Bad(ValueError): pass\ndef f(): raise Bad('no')",
         "try: f()\nexcept ValueError as e: assert 'no' in str(e)"),
        ("LIMIT = 3\nfrom math import floor\ndef f(x): return min(LIMIT, floor(x))", "assert f(9.5) == LIMIT"),
        ("n = 0\ndef f():\n    global n\n    n += 1\n    return n", "assert [f(), f()] == [1, 2]"),
        ("import heapq, functools\n@functools.cache\ndef f(n): return n if n < 2 else f(n - 1) + f(n - 2)",
         "assert f(80) == 23416728348467685"),
        ("def f(n): return 'x' * n", "assert f(3_000_000) == 'x' * 3_000_000"),
        ("def f(): raise KeyError('no', 'key')", "try: f()\nexcept KeyError as e: assert str(e) == \"('no', 'key')\""),
        ("import cmath\ndef f(z): return cmath.sqrt(z)", "assert abs(f(-4) - 2j) < 1e-9 and f(f(-4) ** 2).imag > 1"),
        ("def sum(a, b): return a + b", "assert sum(10, 15) == 25"),
        ("def f(s): return s[::-1]", "assert f('\\ud800é\\0') == '\\0é\\ud800'"),
    ],
)  # fmt: skip
def test_right(solution: str, test: str) -> None:
    assert run(solution, test) == CodeResult(passed=(True,))


@pytest.mark.parametrize(
    ("solution", "test", "note"),
    [
        (ADD, "assert add(1, 2) == 4", "test 1: AssertionError (line 1 of the test)"),
        (ADD, "add(1, 'x')", "test 1: TypeError: unsupported operand"),
        ("def plus(a, b): return a", "assert add(1, 2) == 3", "NameError: name 'add' is not defined"),
        ("def add(a, b): return a +", "assert add(1, 2) == 3", "does not load: SyntaxError: invalid syntax (line 1 of"),
        ("def add(a, b): return range(a)", "assert add(1, 2)", "add() returned a value of type range, which"),
        ("import numpy", "assert 1", "the solution does not load: ModuleNotFoundError: No module named 'numpy'"),
        ("def add(a, b): open('/etc/passwd')", "add(1, 2)", "PermissionError"),
        ("def add(a, b): return a - b", "assert add(1, 2) == 3, 'minus'", "AssertionError: minus"),
        (ADD, "import sys\nadd(1, 2)\nsys.exit(0)", "SystemExit: 0"),
    ],
)  # fmt: skip
def test_wrong(solution: str, test: str, note: str) -> None:
    result = run(solution, test)
    assert (result.passed, result.error) == ((False,), None) and note in result.note


@pytest.mark.parametrize(
    ("tests", "error"),
    [
        (("assert add(1, 2) == 3", "assert add(1,"), "test 2: SyntaxError: '(' was never closed (line 1 of the test)"),
        (("import numpy",), "test 1: ModuleNotFoundError: No module named 'numpy'"),
        (("add(lambda: 1, 2)",), "test 1: the test passes a value of type function, which is not plain to add()"),
        (("try: add(object(), 2)\nexcept: pass",), "test 1: the test passes a value of type object"),
        (("while True: pass",), "test 1: time-out without a call of the solution"),
        (("import os\nos._exit(0)",), "test 1: crash: its process ended without a score (exit code 0) without a call"),
        (("import os\nos.write(3, b'z' * 99)",), "the tests: forged"),
        ((), "0 tests; 1 to 1000 can be run"),
        (("x",) * 1001, "1001 tests"),
        (("#" * (5 << 20),), "the tests are too long"),
    ],
)
def test_a_fault_of_the_tests_is_an_error(tests: tuple[str, ...], error: str) -> None:
    result = run(ADD, *tests, seconds=0.5)
    assert result.passed == (False,) * len(tests) and error in (result.error or "")


def test_a_builtin_is_the_solutions_only_where_nothing_else_is_named() -> None:
    def about(*tests: str) -> str:
        return subject([compiled(test) for test in tests])

    assert about("assert sum(10, 15) == 25", "assert sum(1, b=2) == 3\nassert not sum(1, -1)") == "sum"
    assert about("assert add(1, 2) == 3") == "add"  # which is no builtin
    for tests in (
        ("assert abs(add(1, 2) - 3) < 1",), ("assert len([1]) == 1", "assert add(1, 2)"),
        ("assert sum([add for add in (1, 2)])",), ("assert eval('add(1, 2)')",), ("globals()['add'](1)",),
        ("def check(add): assert abs(add(1, 2) - 3) < 1\ncheck(add)",), ("(lambda add: abs(add(1)))(add)",),
        ("assert isinstance(sum(1, 2), int)",), ("assert sum(1, 2).real == 3",), ("assert (",), (),
    ):  # fmt: skip
        assert about(*tests) == ""


def test_a_crash_or_time_out_costs_its_own_test() -> None:
    solution = "import os\ndef f(x):\n    while x == 1: pass\n    if x == 2: os._exit(0)\n    return x\n"
    tests = ["assert f(0) == 0", "f(1)", "assert f(3) == 3", "f(2)", "assert f(4) == 4"]
    result = run(solution, *tests, seconds=0.4)
    assert result == CodeResult(passed=(True, False, True, False, True), note="test 2: the solution: time-out")
    start = time.monotonic()
    hopeless = run("def f(x):\n    while True: pass\n", *["f(1)"] * 50, seconds=0.2)
    assert hopeless.passed == (False,) * 50 and hopeless.error is None
    assert time.monotonic() - start < 5


def test_tests_share_names_and_the_solution_sees_none_of_them() -> None:
    tests = ["import math\nexpected = 3", "assert add(1, 2) == expected + math.floor(.5)"]
    assert run(ADD, *tests).passed == (True, True)
    spy = "def add(a, b):\n    return 'expected' in globals() or 'math' in globals()\n"
    assert run(spy, *tests).passed == (True, False)


def test_tests_that_crash_or_hang_the_compiler_are_an_error() -> None:
    assert "SyntaxError" in (run(ADD, "assert add(1, 2) == 3", "(" * 10**5).error or "")
    slow = "x = (" + "add(1, [2.5, 'a']), " * 10**5 + ")"
    assert run(ADD, slow, seconds=0.02).error == "the tests cannot be compiled: time-out"


def test_a_value_that_chokes_a_grader_is_a_0_and_no_death_of_the_grader() -> None:
    source = "def grade(s, i):\n    x = run_solution(s['output_text'], 'f', 1)\n    while x == 1: pass\n    return 1\n"
    limits = Limits(seconds=0.2, deaths=2, regrade=0.0)
    marks = run_python(source, [Sample(f"def f(x): return {n}", {}) for n in (1, 1, 1, 2)], limits)
    assert [mark.score for mark in marks] == [0.0, 0.0, 0.0, 1.0]
    assert "time-out: no score within 0.2 s after a value of the solution" in marks[0].reason


def test_a_value_that_fills_a_graders_memory_is_a_0() -> None:
    source = "def grade(s, i):\n    return len(run_solution(s['output_text'], 'f', 1) * 10 ** 6)\n"
    (mark,) = run_python(source, [Sample("def f(x): return 'x' * 10 ** 6", {})])
    assert mark.score == 0.0 and "out of memory after a value" in mark.reason


def test_what_a_solution_prints_or_reads_goes_nowhere(capfd: pytest.CaptureFixture[str]) -> None:
    noisy = "import sys\nprint('x' * 10 ** 6)\ndef f():\n    print('y')\n    return sys.stdin.read()\n"
    assert run(noisy, "assert f() == ''").passed == (True,)
    assert capfd.readouterr() == ("", "")


def test_many_in_order() -> None:
    jobs = [CodeJob(solution=f"def f(): return {i}", tests=[f"assert f() == {i - i % 2}"]) for i in range(12)]
    assert [result.passed for result in run_many(jobs)] == [(i % 2 == 0,) for i in range(12)]
    assert run_many([]) == []


def test_every_exception_that_may_cross_can_be_made() -> None:
    tests = [f"try: f('{n}')\nexcept {n}: pass\nelse: assert 0" for n in RAISABLE]
    arguments = "{'UnicodeDecodeError': ('a', b'', 0, 1, 'b'), 'UnicodeEncodeError': ('a', '', 0, 1, 'b')}"
    solution = f"import builtins\ndef f(n):\n    raise getattr(builtins, n)(*{arguments}.get(n, ('x',)))"
    assert run(solution, *tests) == CodeResult(passed=(True,) * len(tests))
    assert all(getattr(builtins, name) is kind for name, kind in RAISABLE.items())
    assert not any(issubclass(kind, StopIteration | ImportError) for kind in RAISABLE.values())


def test_without_walls_no_model_code_runs() -> None:
    with pool.simulated(Features(seccomp=False)):
        result = run(ADD, "assert add(1, 2) == 3")
    assert result.passed == (False,) and "no sandbox for code that is not trusted" in (result.error or "")


@pytest.fixture
def descriptors() -> Iterator[None]:
    run(ADD, "assert 1")
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before


def test_nothing_leaks(descriptors: None) -> None:
    for _ in range(5):
        run(ADD, "assert add(1, 2) == 3")
        run("import os\nos._exit(1)", "assert 1")
        run("def f():\n    while True: pass", "f()", seconds=0.1)
    deadline = time.monotonic() + 5
    while children() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert children() == []


def children() -> list[str]:
    """Of the fork servers."""
    servers = [str(server.pid) for server in pool.default().running()]
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat", encoding="ascii") as file:
                parent = file.read().rpartition(")")[2].split()[1]
        except OSError:
            continue
        found += [pid] * (parent in servers)
    return found


def test_threads_may_judge_at_the_same_time() -> None:
    results: list[CodeResult] = []
    work = [threading.Thread(target=lambda: results.append(run(ADD, "assert add(1, 2) == 3"))) for _ in range(8)]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert [result.passed for result in results] == [(True,)] * 8


@pytest.mark.parametrize(
    "test",
    ["import signal\nsignal.setitimer(signal.ITIMER_REAL, 1e-6)", "import atexit\nadd(1, 2)\nimport os\nos.close(3)"],
)
def test_tests_that_end_badly_are_an_error_or_failed_but_never_raise(test: str) -> None:
    assert run(ADD, test).passed == (False,)

"""The architecture, held by tests: who may import whom, and what stays unloaded."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rft_ilab.scaleout.openinstruct.launch import SHIPPED

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "rft_ilab"

#: each entry may import those above it, never those below; the parts of one entry never each other
ORDER = [
    ["types"],
    ["errors"],
    ["config"],
    ["disk"],
    ["cache"],
    ["store"],
    ["client"],
    ["skills"],
    ["grading"],
    ["policy"],
    ["difficulty"],
    ["rollouts"],
    ["suites"],
    ["synth", "rl", "regress"],
    ["results"],
    ["scaleout"],
    ["report"],
    ["pipeline"],
    ["host"],
    ["cli"],
    ["pytest_plugin"],
]
LEVEL = {part: level for level, parts in enumerate(ORDER) for part in parts}

#: heavy or foreign package -> the only places that may import it
ALLOWED = {
    # scaleout.kit holds files that are copied to where another trainer runs; nothing here imports them.
    "torch": ("rft_ilab.policy.local", "rft_ilab.rl", "rft_ilab.scaleout.kit.train_trl"),
    "transformers": ("rft_ilab.policy.local", "rft_ilab.rl"),
    "peft": ("rft_ilab.policy.local", "rft_ilab.rl"),
    "instructlab": ("rft_ilab.host", "rft_ilab.cli"),
    "tensorboardX": ("rft_ilab.pipeline.trackers",),
    "wandb": ("rft_ilab.pipeline.trackers",),
    "mlflow": ("rft_ilab.pipeline.trackers",),
    "ray": ("rft_ilab.scaleout",),
    "pickle": (),
}

FILES = sorted(PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path, *, for_types: bool = True) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of every import, those below ``TYPE_CHECKING`` only with ``for_types``."""
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    blocks = (node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
    left_out = set() if for_types else {id(below) for block in blocks for below in ast.walk(block)}
    for node in ast.walk(tree):
        if id(node) in left_out:
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield node.lineno, f"{source}.{alias.name}"


def part_of(name: str) -> str | None:
    """``rft_ilab.rl.grpo`` -> ``rl``; None for the package itself and for names in its ``__init__``."""
    parts = name.split(".")
    return parts[1] if parts[0] == "rft_ilab" and len(parts) > 1 and parts[1] in LEVEL else None


def test_there_is_something_to_check():
    assert len(FILES) > 10


def test_every_part_has_a_place_in_the_order():
    parts = {p.stem for p in PACKAGE.iterdir() if p.suffix == ".py" or (p.is_dir() and any(p.glob("*.py")))}
    assert parts - {"__init__", "__pycache__"} <= set(LEVEL)


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_import_order(path):
    own = part_of(module_name(path))
    for line, name in imported(path):
        other = part_of(name)
        if other is None or other == own:
            continue
        assert own is not None, f"{path}:{line}: the package itself must import nothing of the project ({name})"
        assert LEVEL[other] < LEVEL[own], f"{path}:{line}: {own} must not import {other}"


def test_no_two_modules_need_each_other():
    """Imports inside functions count: what is only postponed is a circle all the same."""
    modules = {module_name(path) for path in FILES}
    needs = {}
    for path in FILES:
        names = [name for _, name in imported(path, for_types=False)]
        own = module_name(path)
        needs[own] = {name if name in modules else name.rpartition(".")[0] for name in names} & modules - {own}
    try:
        graphlib.TopologicalSorter(needs).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" needs ".join(reversed(error.args[1])))


def test_what_is_copied_to_another_trainer_does_not_need_this_package():
    scaleout = PACKAGE / "scaleout"
    for path in (*scaleout.glob("kit/*.py"), *(scaleout / "openinstruct" / name for name in SHIPPED)):
        for line, name in imported(path):
            assert part_of(name) is None, f"{path}:{line}: {name} is not there where this file runs"


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_heavy_and_foreign_packages_stay_where_they_belong(path):
    own = module_name(path)
    for line, name in imported(path):
        places = ALLOWED.get(name.split(".")[0])
        if places is not None:
            inside = any(own == place or own.startswith(place + ".") for place in places)
            assert inside, f"{path}:{line}: {name} may be imported in {places or 'no place'} only"


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_no_eval_and_no_unsafe_yaml(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"eval", "yaml.load", "yaml.unsafe_load", "yaml.full_load"}, f"{path}:{node.lineno}"


def run_python(program: str) -> str:
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("part", ["skills", "grading", "regress", "report", "synth", "rollouts", "suites", "pipeline"])
def test_lean_imports(part):
    modules = [module_name(path) for path in FILES if part_of(module_name(path)) == part]
    assert modules
    program = f"import importlib, sys\nfor name in {modules!r}: importlib.import_module(name)\n"
    heavy = "{'torch', 'transformers', 'peft', 'instructlab', 'datasets', 'tensorboardX'}"
    assert run_python(program + f"print(sorted({heavy} & set(sys.modules)))").strip() == "[]"


def test_the_hook_is_standard_library_only():
    """Every pydantic process of the environment loads it."""
    program = "import sys\nbefore = set(sys.modules)\nimport rft_ilab.host.plugin\n"
    program += "print(*{name.split('.')[0] for name in set(sys.modules) - before})"
    foreign = set(run_python(program).split()) - set(sys.stdlib_module_names) - {"rft_ilab"}
    assert not foreign

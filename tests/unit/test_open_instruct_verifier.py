"""Open-Instruct's verifier without Open-Instruct: its base class is a stub, everything else is what runs there."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import rft_ilab
from rft_ilab.config import Settings as Configuration
from rft_ilab.scaleout.server import make_app
from rft_ilab.skills.tree import load_skill
from rft_ilab.synth.exports import VERIFIER, ExportTask
from tests.unit.loopback import serving
from tests.unit.taxonomies import make_task, write_skill

HERE = Path(rft_ilab.__file__).parent / "scaleout" / "openinstruct"


class Result:
    def __init__(self, score: float) -> None:
        self.score = score


class Base:
    def __init__(self, name: str, weight: float = 1.0, verifier_config: Any = None) -> None:
        self.name, self.weight = name, weight


def load(name: str, file: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, HERE / file)
    assert spec and spec.loader
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def verifier() -> Iterator[Any]:
    names = ("open_instruct", "open_instruct.ground_truth_utils", "rft_grader_client", "rft_verifier")
    before = {name: sys.modules.get(name) for name in names}
    stub = ModuleType("open_instruct.ground_truth_utils")
    stub.VerifierFunction, stub.VerificationResult = Base, Result  # type: ignore[attr-defined]
    sys.modules |= {"open_instruct": ModuleType("open_instruct"), "open_instruct.ground_truth_utils": stub}
    load("rft_grader_client", "grader_client.py")
    yield load("rft_verifier", "verifier.py")
    for name, module in before.items():
        sys.modules.pop(name)
        if module is not None:
            sys.modules[name] = module


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The server's URL and the label of a task whose answer is YES."""
    taxonomy = tmp_path_factory.mktemp("verifier") / "taxonomy"
    write_skill(taxonomy)
    skill = load_skill(taxonomy, "area/skill", Configuration())
    one = ExportTask(
        task=make_task({"reference": "YES"}), prompt=(), grader=skill.grader, grader_digest=skill.grader_digest,
        split="train", source="seed", evidence="authored", pass_rate=None,
    )  # fmt: skip
    with serving(make_app(taxonomy=taxonomy)) as url:
        yield url, one.label


class Script:
    """A grader server that says what it is told; the last answer stays."""

    def __init__(self, *answers: Any) -> None:
        self.answers, self.requests = list(answers), []
        self.tokens: list[str | None] = []
        self.app = Starlette(routes=[Route("/v1/rft/grade", self.grade, methods=["POST"])])

    async def grade(self, request: Request) -> Response:
        body = json.loads(await request.body())
        self.requests.append(body)
        self.tokens.append(request.headers.get("authorization"))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, int):
            return JSONResponse({"error": {"message": "scripted"}}, answer)
        made = [answer(sample["completion"]) for sample in body["samples"]]
        return JSONResponse({"results": made, "grader_digest": "d"})


def graded(completion: str) -> dict[str, Any]:
    """A completion says its own score; "broken" is an error of the grader."""
    if completion == "broken":
        return {"score": None, "passed": None, "error": "no field", "reason": ""}
    return {"score": float(completion), "passed": completion == "1", "error": None, "reason": "r"}


LABEL = json.dumps({"skill": "a/b", "grader_digest": "d", "item": {}})


def ask(verifier: Any, monkeypatch: pytest.MonkeyPatch, url: str, groups: list[Any], **settings: str) -> list[Any]:
    """Scores of ``(label, completions)``, all asked for at once, by a verifier that was sent through pickle."""
    monkeypatch.setenv("RFT_GRADER_URL", url)
    for name, value in {"DEADLINE_S": "1", **settings}.items():
        monkeypatch.setenv(f"RFT_GRADER_{name}", value)
    one = pickle.loads(pickle.dumps(verifier.RftIlab()))
    for name in settings:
        monkeypatch.delenv(f"RFT_GRADER_{name}")

    async def everything() -> list[Any]:
        calls = [one.async_call([], text, label, query=label) for label, texts in groups for text in texts]
        return await asyncio.gather(*calls, return_exceptions=True)

    return [getattr(result, "score", result) for result in asyncio.run(everything())]


def test_the_name_is_that_of_the_export(verifier: Any) -> None:
    assert verifier.NAME == VERIFIER


def test_scores_are_the_servers(verifier: Any, served: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    url, label = served
    odd = ["", "\0", "\ud800", "é" * 100_000, "NO", "yes", "**YES**"]
    assert ask(verifier, monkeypatch, url, [(label, odd)], DEADLINE_S="30") == [0, 0, 0, 0, 0, 1, 1]
    monkeypatch.setenv("RFT_GRADER_URL", url)
    assert verifier.RftIlab()([], "Yes.", label).score == 1


def test_calls_at_the_same_time_are_one_request(verifier: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(graded)
    with serving(script.app) as url:
        scores = ask(verifier, monkeypatch, url, [(LABEL, ["0.25", "1"] * 100)], TOKEN="secret")
    assert scores == [0.25, 1.0] * 100 and len(script.requests) == 1 and script.tokens == ["Bearer secret"]


def test_a_busy_server_is_asked_again(verifier: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(503, 429, graded)
    with serving(script.app) as url:
        assert ask(verifier, monkeypatch, url, [(LABEL, ["1"])], DEADLINE_S="20") == [1.0]
    assert len(script.requests) == 3


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (500, "HTTP 500 (scripted)"), (401, "refuses to grade: HTTP 401 (scripted)"),
        (lambda text: {"score": 2.0, "error": None}, "does not answer as a grader server"),
        (lambda text: {"score": True, "error": None}, "does not answer as a grader server"),
        (lambda text: {"score": None, "error": None}, "does not answer as a grader server"),
    ],
)  # fmt: skip
def test_no_scores_is_an_error_of_every_call(
    verifier: Any, monkeypatch: pytest.MonkeyPatch, answer: Any, what: str
) -> None:
    with serving(Script(answer).app) as url:
        results = ask(verifier, monkeypatch, url, [(LABEL, ["1", "0"])])
    assert len(results) == 2 and all(isinstance(result, RuntimeError) and what in str(result) for result in results)


def test_an_outage_is_an_error_and_stays_one(verifier: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RFT_GRADER_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("RFT_GRADER_DEADLINE_S", "0.5")
    one = verifier.RftIlab()

    async def twice() -> list[Any]:
        first = await asyncio.gather(one.async_call([], "1", LABEL), return_exceptions=True)
        start = asyncio.get_running_loop().time()
        second = await asyncio.gather(one.async_call([], "1", LABEL), return_exceptions=True)
        assert asyncio.get_running_loop().time() - start < 0.1
        return [*first, *second]

    assert [type(result).__name__ for result in asyncio.run(twice())] == ["GraderUnavailable"] * 2


def test_another_grader_than_that_of_the_export(
    verifier: Any, served: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, label = served
    other = json.dumps({**json.loads(label), "grader_digest": "0" * 64})
    (result,) = ask(verifier, monkeypatch, url, [(other, ["YES"])])
    assert isinstance(result, RuntimeError) and "another grader for area/skill" in str(result)


@pytest.mark.parametrize(
    "label", ["", "72", "[]", "null", '{"skill": "a/b"}', '{"skill": 1, "grader_digest": "d", "item": {}}']
)
def test_labels_that_are_not_ours(verifier: Any, monkeypatch: pytest.MonkeyPatch, label: str) -> None:
    (result,) = ask(verifier, monkeypatch, "http://127.0.0.1:9", [(label, ["1"])])
    assert isinstance(result, RuntimeError) and "not a label of rft-ilab" in str(result)


def test_an_error_of_one_grade_ends_it_all(verifier: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(Script(graded).app) as url:
        results = ask(verifier, monkeypatch, url, [(LABEL, ["1", "broken"])])
    assert all("the grader of a/b fails on an answer: no field" in str(result) for result in results)


def test_a_tolerated_error_has_an_advantage_of_zero(verifier: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    other = json.dumps({"skill": "a/b", "grader_digest": "d", "item": {"n": 1}})
    with serving(Script(graded).app) as url:
        scores = ask(
            verifier, monkeypatch, url, [(LABEL, ["1", "broken", "0.5", "0"]), (other, ["0", "0"])],
            TOLERATED_ERRORS="0.001",
        )  # fmt: skip
        assert scores == [1, 0.5, 0.5, 0, 0, 0] and scores[1] == sum(scores[:4]) / 4
        many = ask(verifier, monkeypatch, url, [(LABEL, ["1", "broken", "broken"])], TOLERATED_ERRORS="0.001")
        alone = ask(verifier, monkeypatch, url, [(LABEL, ["broken"])], TOLERATED_ERRORS="0.1")
    assert all("RFT_GRADER_TOLERATED_ERRORS is 0.001" in str(result) for result in many)
    assert "so do all completions of this prompt" in str(alone[0])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("URL", ""), ("URL", "grader:80"), ("URL", "http://u:p@h"), ("URL", "http://h:x"),
        ("DEADLINE_S", "soon"), ("TOLERATED_ERRORS", "0.9"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_meant(verifier: Any, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv("RFT_GRADER_URL", "http://127.0.0.1:9")
    monkeypatch.setenv(f"RFT_GRADER_{name}", value)
    with pytest.raises(RuntimeError, match=f"RFT_GRADER_{name}"):
        verifier.RftIlab()


def test_the_token_is_not_shown(verifier: Any) -> None:
    assert "secret" not in repr(sys.modules["rft_grader_client"].Settings("http://h", token="secret"))


def test_large_groups_are_cut(verifier: Any) -> None:
    client = sys.modules["rft_grader_client"]
    parts = list(client._requests([{"completion": "x" * 3_000_000, "item": {}}] * 5))
    assert [len(part) for part in parts] == [2, 2, 1]
    assert [len(part) for part in client._requests([{"completion": "", "item": {}}] * 1000)] == [512, 488]


def preflight(served: tuple[str, str], tmp_path: Path, lines: list[dict[str, Any]], **env: str) -> Any:
    file = tmp_path / "labels.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = {"PATH": "", "RFT_GRADER_URL": served[0], "RFT_GRADER_DEADLINE_S": "1", **env}
    command = [sys.executable, "-I", str(HERE / "preflight.py"), str(file)]
    return subprocess.run(command, env=settings, capture_output=True, text=True, timeout=60)


def test_preflight(served: tuple[str, str], tmp_path: Path) -> None:
    right = {"label": served[1], "completion": "YES", "passed": True}
    wrong = {"label": served[1], "completion": "", "score": 0.0}
    done = preflight(served, tmp_path, [right, wrong])
    assert done.returncode == 0 and json.loads(done.stdout).items() >= {"ok": True, "graded": 2, "nodes": 1}.items()
    for lines, env, what in (
        ([right], {"RFT_GRADER_URL": "http://127.0.0.1:9"}, "no grades from http://127.0.0.1:9"),
        ([{**right, "completion": "NO"}], {}, "has passed False, expected True"),
        ([{"label": "72"}], {}, "labels.jsonl:1: not a known completion"),
        ([], {}, "no known completion"),
        ([right], {"RFT_GRADER_URL": ""}, "RFT_GRADER_URL is not set"),
    ):
        done = preflight(served, tmp_path, lines, **env)  # type: ignore[arg-type]
        assert (done.returncode, done.stdout) == (1, "") and what in done.stderr and done.stderr.count("\n") == 1


def test_the_launcher_without_open_instruct(tmp_path: Path) -> None:
    command = [sys.executable, str(HERE / "launcher.py"), "--flag"]
    done = subprocess.run(
        command, env={"RFT_GRADER_URL": "http://h"}, capture_output=True, text=True, timeout=60, cwd=tmp_path
    )
    assert done.returncode == 1 and done.stderr.startswith("rft-ilab: no module ") and done.stderr.count("\n") == 1

"""``/test_program``: what an Open-Instruct without our verifier posts, and what its own client makes of the answer."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from rft_ilab.config import Settings
from rft_ilab.scaleout.server import make_app
from rft_ilab.skills.tree import load_skill
from tests.unit.loopback import serving
from tests.unit.taxonomies import write_skill


@pytest.fixture(scope="module")
def taxonomy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("program") / "taxonomy"
    write_skill(root)
    return root


@pytest.fixture(scope="module")
def url(taxonomy: Path) -> Iterator[str]:
    with serving(make_app(taxonomy=taxonomy)) as address:
        yield address


def label(taxonomy: Path, **changes: Any) -> str:
    skill = load_skill(taxonomy, "area/skill", Settings())
    return json.dumps(
        {"skill": skill.name, "grader_digest": skill.grader_digest, "item": {"reference": "YES"}} | changes
    )


def post(url: str, program: Any, tests: Any, **keys: Any) -> httpx.Response:
    body = {"program": program, "tests": tests, "max_execution_time": 1.0}
    return httpx.post(f"{url}/test_program", json=body, timeout=30, **keys)


def test_the_score_is_the_only_result(url: str, taxonomy: Path) -> None:
    for program, score in (("yes", 1.0), ("no", 0.0), ("", 0.0)):
        answer = post(url, program, label(taxonomy))
        assert (answer.status_code, answer.json()) == (200, {"results": [score], "runtimes": [0.0]})


def test_what_has_no_score_is_no_zero_but_a_failure_that_is_logged(
    url: str, taxonomy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bad = [
        (label(taxonomy, item={}), 500, "the task has no field item.reference"), ("72", 400, "not a label"),
        (label(taxonomy, grader_digest="0" * 64), 400, "is another than when"), ("{", 400, "not a label"),
        (label(taxonomy, skill="no/such"), 400, "no/such"), (["assert True"], 400, "not a label"),
    ]  # fmt: skip
    for tests, status, what in bad:
        caplog.clear()
        with caplog.at_level(logging.ERROR):
            answer = post(url, "yes", tests)
        assert answer.status_code == status and what in answer.json()["error"]["message"]
        assert what in caplog.text and "takes this for a reward of 0" in caplog.text
    assert post(url, None, label(taxonomy)).status_code == 400


def test_a_token_is_needed_unless_the_route_is_opened(taxonomy: Path) -> None:
    with serving(make_app(token="secret", taxonomy=taxonomy)) as url:
        assert post(url, "yes", label(taxonomy)).status_code == 401
        assert post(url, "yes", label(taxonomy), headers={"authorization": "Bearer secret"}).status_code == 200
    with serving(make_app(token="secret", taxonomy=taxonomy, open_program=True)) as url:
        assert post(url, "yes", label(taxonomy)).status_code == 200
        assert httpx.post(f"{url}/v1/rft/grade", json={}).status_code == 401

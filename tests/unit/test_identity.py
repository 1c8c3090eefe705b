"""The name of a local model, which is known without loading it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch

from rft_ilab.cache import Cache
from rft_ilab.errors import PolicyError
from rft_ilab.policy.local import identity
from rft_ilab.policy.local.identity import directory_digest, file_digest, remember_format, remembered_format
from rft_ilab.policy.local.lazy import LazyPolicy
from rft_ilab.policy.local.model import load_model
from rft_ilab.policy.local.sampler import LocalPolicy
from rft_ilab.types import Message, Prompt, Sampling
from tests.tiny_model import make_tiny_model


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return Cache(tmp_path / "c.sqlite")


def settle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files written so far are old enough to be remembered."""
    now = time.time()
    monkeypatch.setattr(identity.time, "time", lambda: now + 60.0)


def test_a_file_is_read_again_when_anything_about_it_changed(
    tmp_path: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    first = file_digest(path, cache)
    assert first == file_digest(path, None)
    settle(monkeypatch)
    assert file_digest(path, cache) == first
    with monkeypatch.context() as patch:
        patch.setattr(identity.hashlib, "file_digest", None)
        assert file_digest(path, cache) == first
    before = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size and path.stat().st_mtime_ns == before.st_mtime_ns
    assert file_digest(path, cache) != first


def test_a_file_that_has_just_been_written_is_not_remembered(tmp_path: Path, cache: Cache) -> None:
    """It could be written again within the same tick of the clock."""
    path = tmp_path / "file"
    path.write_bytes(b"one")
    file_digest(path, cache)
    assert not cache._db.execute("SELECT * FROM entries").fetchall()


def test_the_digest_changes_with_whatever_answers_depend_on(tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / "model")
    digests = {directory_digest(model)}
    for name in ("chat_template.jinja", "config.json", "tokenizer.json", "generation_config.json"):
        (model / name).write_bytes((model / name).read_bytes() + b"\n" if (model / name).exists() else b"{{ x }}")
        digests.add(directory_digest(model))
    (model / "README.md").write_text("says nothing")
    assert len(digests) == 5 and directory_digest(model) in digests
    (model / "tokenizer.json").unlink()
    (model / "vocab.json").write_text("{}")
    slow = directory_digest(model)
    (model / "vocab.json").write_text('{"a": 1}')
    assert directory_digest(model) != slow


def test_a_lazy_policy_is_the_policy(tmp_path: Path, cache: Cache) -> None:
    model = make_tiny_model(tmp_path / "model")
    remember_format("float32")
    lazy, eager = LazyPolicy(model, cache), LocalPolicy(load_model(model, torch.float32))
    assert lazy.id == eager.id and "policy" not in vars(lazy)
    prompts = [Prompt(task_id="t", messages=(Message("user", "Hello"),))]
    assert list(lazy.sample(prompts, 2, Sampling(max_tokens=4))) == list(
        eager.sample(prompts, 2, Sampling(max_tokens=4))
    )
    remember_format("bfloat16")
    assert remembered_format() == "bfloat16" and LazyPolicy(model, cache).id.endswith(":bfloat16")


def test_a_model_that_changed_under_its_name_is_refused(tmp_path: Path, cache: Cache) -> None:
    model = make_tiny_model(tmp_path / "model")
    remember_format("float32")
    lazy = LazyPolicy(model, cache)
    (model / "generation_config.json").write_text('{"eos_token_id": 2, "pad_token_id": 2}\n\n')
    with pytest.raises(PolicyError, match="is not the model that it was a moment ago"):
        list(lazy.sample([Prompt(task_id="t", messages=(Message("user", "Hello"),))], 1, Sampling()))
    with pytest.raises(PolicyError, match="no such model directory"):
        LazyPolicy(tmp_path / "absent")

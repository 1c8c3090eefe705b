"""``ilab data generate --verify`` on the real SDG; a small server of the test's own is teacher and judge."""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

#: what the teacher writes, in turn: a question with a right answer, one with a wrong one, no question at all
TEACHER = ["Is item {} a tomato? red", "Is item {} a frog? red", "Item {} is something."]


class Handler(BaseHTTPRequestHandler):
    asked = 0

    def do_GET(self):
        self.answer({"object": "list", "data": [{"id": "stub", "object": "model"}]})

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if "messages" in request:  # the judge: one right answer whatever it is asked
            colour = "red" if "tomato" in request["messages"][-1]["content"] else "green"
            choices = [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": colour}}]
        else:
            prompts = request["prompt"] if isinstance(request["prompt"], list) else [request["prompt"]]
            choices = [self.written(index) for index in range(len(prompts) * request.get("n", 1))]
        self.answer({"id": "x", "object": "completion", "created": 0, "model": "stub", "choices": choices})

    def written(self, index):
        Handler.asked += 1
        text = TEACHER[Handler.asked % len(TEACHER)].format(Handler.asked)
        return {"index": index, "finish_reason": "stop", "text": text}

    def answer(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/v1"
        running.shutdown()


@pytest.fixture
def student(ilab):
    """SDG only looks at the architecture of the model that will be trained."""
    directory = ilab.root / "student"
    directory.mkdir()
    (directory / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    config = ilab.root / "config" / "instructlab" / "config.yaml"
    head, train = re.split(r"(?=^train:)", config.read_text(encoding="utf-8"), maxsplit=1, flags=re.MULTILINE)
    config.write_text(head + re.sub(r"^  model_path: .*$", f"  model_path: {directory}", train, flags=re.MULTILINE))


@pytest.mark.parametrize("command", [("data", "generate"), ("generate",)], ids=" ".join)
def test_generate_and_verify(ilab, server, student, command):
    arguments = ["--pipeline", "simple", "--taxonomy-base", "empty", "--sdg-scale-factor", "1", "--num-cpus", "1"]
    arguments += ["--endpoint-url", server, "--model", "stub", "--output-dir", ilab.root / "generated"]
    result = ilab(*command, *arguments, "--verify", "--verify-endpoint", server, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr
    (dated,) = (path for path in (ilab.root / "generated").iterdir() if path.name[0].isdigit())
    verified = dated / "verified_messages.jsonl"
    assert result.stdout.splitlines()[-1] == str(verified)
    kept = [json.loads(line) for line in verified.read_text(encoding="utf-8").splitlines()]
    assert kept and all("tomato" in json.dumps(row["messages"]) for row in kept)
    ledger = [json.loads(line) for line in (dated / "verification_ledger.jsonl").read_text().splitlines()]
    assert len(ledger) > len(kept) and sum(row["disposition"] == "kept" for row in ledger) == len(kept)
    assert list(ilab.home.rglob("*")) == []

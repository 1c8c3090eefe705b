"""A scripted OpenAI-compatible server behind SDG's own client, and rows as SDG has them."""

from __future__ import annotations

import json
import threading

import httpx
import openai
from datasets import Dataset

LEAF = "compositional_skills_area_skill"
DESCRIPTION = "Answer YES, NO or MAYBE."
COLUMNS = {"question_column": "question", "answer_column": "response"}


def client_of(handle) -> openai.OpenAI:
    transport = httpx.Client(transport=httpx.MockTransport(handle))
    return openai.OpenAI(base_url="http://teacher/v1", api_key="secret", http_client=transport)


class Server:
    """Chat completions say what ``answers(question)`` lists, by turns; text completions what ``texts`` lists."""

    def __init__(self):
        self.answers = lambda question: ["YES"]
        self.texts = []
        self.chats = []
        self.status = 200
        self.most = self.now = 0
        self._lock = threading.Lock()

    def client(self):
        return client_of(self.handle)

    def handle(self, request):
        assert request.headers["authorization"] == "Bearer secret"
        if request.method == "GET":  # SDG wants to know whether this is ilab's own server
            return httpx.Response(404)
        body = json.loads(request.content)
        if request.url.path == "/v1/completions":
            wanted = len(body["prompt"]) * body.get("n", 1) if isinstance(body["prompt"], list) else 1
            with self._lock:
                texts = [self.texts.pop(0) if self.texts else "" for _ in range(wanted)]
            choices = [{"index": i, "finish_reason": "stop", "text": text} for i, text in enumerate(texts)]
            return httpx.Response(200, json={"id": "x", "object": "text_completion", "created": 0, "choices": choices})
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
            question = body["messages"][-1]["content"]
            earlier = sum(chat["messages"][-1]["content"] == question for chat in self.chats)
            self.chats.append(body)
        says = self.answers(question)
        with self._lock:
            self.now -= 1
        message = {"role": "assistant", "content": says[earlier % len(says)]}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        return httpx.Response(self.status, json={"id": "x", "object": "chat.completion", "choices": [choice]})


def dataset(*pairs, leaf=LEAF, description=DESCRIPTION, **more):
    """A row as SDG has it for every (question, answer)."""
    return Dataset.from_list(
        [
            {"task_description": description, "leaf_node_path": leaf, "seed_question": "Seed question 0?", "number": i}
            | {"question": question, "response": answer} | more
            for i, (question, answer) in enumerate(pairs)
        ]
    )  # fmt: skip


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

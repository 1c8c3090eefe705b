"""An ASGI application on a free port of this machine, a fake OpenAI server to stand behind it, graders to send."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

EXACT: dict[str, Any] = {
    "type": "string_check",
    "name": "exact",
    "input": "{{sample.output_text}}",
    "reference": "{{item.reference}}",
    "operation": "eq",
}
PYTHON: dict[str, Any] = {"type": "python", "name": "short"}
PYTHON["source"] = "def grade(sample, item):\n    return 1.0 if len(sample['output_text']) < item['limit'] else 0.25\n"


@contextlib.contextmanager
def serving(app: Any) -> Iterator[str]:
    """The URL of the running application, without a trailing slash."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)


def verdict(result: Any, conclusion: str = "fine") -> str:
    """What a judge says that keeps to the form."""
    return json.dumps({"steps": [{"description": "read it", "conclusion": conclusion}], "result": result})


class FakeOpenAI:
    """Chat completions and embeddings that tests script; every request is kept.

    ``says`` makes the text of a completion from the request; ``first`` are answers given before anything else.
    """

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.first: list[Response] = []
        self.says: Callable[[dict[str, Any]], str] = lambda body: verdict(1)
        self.message: dict[str, Any] = {}
        self.vector: Callable[[str], Any] = lambda text: [1.0, 0.0]
        routes = [("/v1/chat/completions", self.chat), ("/v1/embeddings", self.embed)]
        self.app = Starlette(routes=[Route(path, do, methods=["POST"]) for path, do in routes])

    async def chat(self, request: Request) -> Response:
        body = await self._taken(request)
        if self.first:
            return self.first.pop(0)
        message = {"role": "assistant", "content": self.says(body), **self.message}
        usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        return JSONResponse({"id": "c", "model": f"{body['model']}-served", "choices": [choice], "usage": usage})

    async def embed(self, request: Request) -> Response:
        body = await self._taken(request)
        if self.first:
            return self.first.pop(0)
        return JSONResponse({"data": [{"index": 0, "embedding": self.vector(body["input"])}]})

    async def _taken(self, request: Request) -> dict[str, Any]:
        body = json.loads(await request.body())
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        return body


def failure(status: int, message: str = "busy", **headers: str) -> Response:
    return JSONResponse({"error": {"message": message}}, status, headers)

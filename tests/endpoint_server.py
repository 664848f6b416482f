"""A real HTTP server of the standard library that answers as OpenAI's API does, or misbehaves as it is told."""

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "sk-secret-1234"


class Model:
    """What the server does; tests change its attributes.

    `faults` maps a question's text to what is done instead of answering, in order, one at each attempt.
    """

    def __init__(self):
        self.models = ["tiny"]
        self.faults: dict[str, list] = {}
        self.always = None
        self.key = None
        self.refuses_template_options = False
        self.seconds = 0.0
        self.requests: list[dict] = []
        self.headers: list[dict] = []
        self.times: list[tuple[str, float]] = []
        self.busy = self.most_busy = 0
        self.lock = threading.Lock()
        self.limit = None

    def answer(self, text: str) -> str:
        return "Yes" if "plum" in text.rpartition("saw")[2] else "No"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def send(self, status: int, body, headers=None):
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw)

    def refused(self) -> bool:
        model = self.server.model
        if model.key and self.headers.get("Authorization") != f"Bearer {model.key}":
            given = self.headers.get("Authorization", "")
            self.send(401, {"error": {"message": f"Incorrect API key provided: {given}"}})
            return True
        return False

    def do_GET(self):
        if self.refused():
            return
        if self.path == "/v1/models":
            self.send(200, {"object": "list", "data": [{"id": name} for name in self.server.model.models]})
        else:
            self.send(404, {"detail": "Not Found"})

    def do_POST(self):
        model = self.server.model
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with model.lock:
            model.requests.append(body)
            model.busy += 1
            model.most_busy = max(model.most_busy, model.busy)
        try:
            if not self.refused():
                self.answer(model, body)
        finally:
            with model.lock:
                model.busy -= 1

    def answer(self, model: Model, body: dict):
        if body["model"] not in model.models:
            self.send(404, {"error": {"message": f"The model `{body['model']}` does not exist."}})
            return
        if "chat_template_kwargs" in body and model.refuses_template_options:
            self.send(400, {"error": {"message": "Unknown field: chat_template_kwargs"}})
            return
        chat = self.path.endswith("/chat/completions")
        text = body["messages"][-1]["content"] if chat else body["prompt"]
        model.times.append((text, time.monotonic()))
        faults = model.faults.get(text, [])
        fault = model.always
        if body["max_tokens"] > 1 and faults:
            fault = faults.pop(0)
        if fault is not None:
            fault(self)
            return
        time.sleep(model.seconds)
        said = model.answer(text)
        finish = "length" if said == "cut" else "stop"
        choice = {"index": 0, "finish_reason": finish}
        choice |= {"message": {"role": "assistant", "content": said}} if chat else {"text": said}
        if said == "thinks":
            choice["message"] = {"role": "assistant", "content": "Yes", "reasoning_content": "It is a plum."}
        usage = {"prompt_tokens": len(text.split()), "completion_tokens": 1, "total_tokens": 0}
        self.send(200, {"id": "x", "choices": [choice], "usage": usage})


def status(code: int, headers=None, body=None):
    """A fault: that status."""
    return lambda handler: handler.send(
        code, body or {"error": {"message": f"made to fail: {code}"}}, headers
    )


def hang_up(handler: Handler):
    """A fault: the connection is closed without a word."""
    handler.close_connection = True
    handler.connection.shutdown(2)


def slow(seconds: float):
    """A fault: no answer for so long."""

    def fault(handler: Handler):
        time.sleep(seconds)
        handler.close_connection = True

    return fault


def malformed(handler: Handler):
    """A fault: half of a JSON text, whole as HTTP."""
    handler.send(200, b'{"choices": [{"mess')


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        pass  # the client that was killed


@contextmanager
def running(model: Model):
    """A server in this process; gives its URL."""
    server = Server(("127.0.0.1", 0), Handler)
    server.model = model
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()

"""Starts LLaMA-Factory's own OpenAI-compatible server on a checkpoint, for the tests of `--endpoint`."""

import os
import socket
import subprocess
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from eval_runs import evaluate


@contextmanager
def served(cli: Path, checkpoint: Path, log: Path):
    """The literal `llamafactory-cli api`, once it answers; gives its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {
        "model_name_or_path": checkpoint,
        "template": "qwen3",
        "enable_thinking": "false",
        "infer_dtype": "float32",
    }
    argv = [cli, "api", *(part for name, value in options.items() for part in (f"--{name}", str(value)))]
    serving = {"API_HOST": "127.0.0.1", "API_PORT": str(port), "API_MODEL_NAME": "sums", "API_KEY": "sk-tiny"}
    with log.open("w") as said:
        process = subprocess.Popen(argv, env={**os.environ, **serving}, stdout=said, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 180
        while True:
            try:
                urllib.request.urlopen(f"{url}/docs", timeout=2)
                break
            except OSError:
                assert process.poll() is None, log.read_text()[-3000:]
                assert time.monotonic() < deadline, "the server does not come up"
                time.sleep(0.3)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def ask(source, url, *options, **env):
    """`tunebook eval --endpoint` with the server's key."""
    return evaluate(
        source, "--endpoint", url, *options, OPENAI_API_KEY="sk-tiny", NO_PROXY="127.0.0.1", **env
    )


COMPARED = ("index", "prompt", "prediction", "reference", "scores", "answer_cut")


def comparable(records: list[dict]) -> list[dict]:
    """What a server and the engine both tell of a row."""
    return [{key: record[key] for key in COMPARED} for record in records]

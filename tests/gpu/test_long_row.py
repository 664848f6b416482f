"""A row of 200,000 tokens through a model of real size, with random weights."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.gpu

MODEL = "Qwen/Qwen3-4B-Instruct-2507"


def test_a_model_of_4b_evaluates_and_answers_a_row_of_200_000_tokens():
    from tunebook.memory import find_config, read_shape
    from tunebook.memory.inference import answer_memory, generation_memory

    script = Path(__file__).parents[2] / "benchmarks" / "long_eval.py"
    sizes = ["--tokens", "200000", "--prompts", "200000", "--answer-tokens", "2000", "--budget", "70"]
    done = subprocess.run(
        [sys.executable, script, "--model", MODEL, *sizes, "--json"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    print(done.stdout)
    found = {one["case"]: one["measured"] for one in json.loads(done.stdout.splitlines()[-1])}
    assert found["stock"] is None  # 57 GiB of logits in bf16, and their fp32 copy
    config = find_config(MODEL)
    shape = read_shape(config)
    expected = {
        "ours": answer_memory(
            shape, config, rows=1, tokens=200_000, answer_tokens=2000, step=None, attention="sdpa", padded=False
        ),
        "generate in pieces": generation_memory(
            shape, config, rows=1, prompt=200_000, new_tokens=10, attention="sdpa", padded=False
        ),
    }  # fmt: skip
    for case, estimate in expected.items():
        assert found[case] is not None, case
        assert found[case]["peak"] == pytest.approx(estimate.total, rel=0.3)

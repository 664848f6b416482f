"""What must hold of the contract of any run, whichever engine has left it."""

import hashlib
import json


def read_contract(folder):
    return json.loads((folder / "tunebook_contract.json").read_text())


def check_contract(run, base, steps, best):
    """Hold the contract of a run against the files that lie beside it."""
    final = read_contract(run.output)
    assert final["step"] == best
    for step in steps:
        checkpoint = run.output / f"checkpoint-{step}"
        assert read_contract(checkpoint) == {**final, "step": step}
        state = checkpoint / "trainer_state.json"
        assert state.is_file(), "the contract is written behind the checkpoint"
    assert not list(run.output.rglob(".tunebook_contract*")), "no half-written file is left"
    assert final["format"] == 1
    assert final["base"]["name_or_path"] == str(base)
    config = hashlib.sha256((base / "config.json").read_bytes()).hexdigest()
    assert final["base"]["fingerprint"]["config_sha256"] == config
    template = (run.output / "chat_template.jinja").read_bytes()
    assert final["template"]["chat_template_sha256"] == hashlib.sha256(template).hexdigest()
    saved = json.loads((run.output / "tokenizer.json").read_text())
    lasting = {key: value for key, value in saved.items() if key not in ("padding", "truncation")}
    digest = hashlib.sha256(json.dumps(lasting, sort_keys=True).encode()).hexdigest()
    assert final["tokens"]["tokenizer_sha256"] == digest
    assert final["tokens"]["eos"]["text"] == "<|im_end|>"
    assert final["tokens"]["stop"][-1]["text"] == "<|im_end|>"
    assert final["max_tokens"] == 256
    assert final["template"]["enable_thinking"] is False
    assert final["dtype"] == {"weights": "float32", "compute": "float32"}
    assert final["rope"]["max_position_embeddings"] == 40960
    return final

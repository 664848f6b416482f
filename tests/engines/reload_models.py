"""Read saved models back as a user would, and compare each with the one it was trained from.

Usage: reload_models.py FILE.json, a list of {"output": FOLDER, "base": FOLDER}. Prints a JSON line for each:
`finite`, whether all logits are; `moved`, the largest difference to the base model's; or `error`.
"""

import json
import sys
import traceback
from pathlib import Path

import torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, AutoTokenizer

PROMPT = "Dan has 3 plums and buys 4 more. How many plums has he?"


def reload(output: Path, base: str) -> dict:
    tokens = AutoTokenizer.from_pretrained(output)(PROMPT, return_tensors="pt")
    has_adapter = (output / "adapter_config.json").exists()
    reader = AutoPeftModelForCausalLM if has_adapter else AutoModelForCausalLM
    models = [reader.from_pretrained(output), AutoModelForCausalLM.from_pretrained(base)]
    with torch.no_grad():
        trained, untrained = (model.float().eval()(**tokens).logits for model in models)
    return {
        "finite": bool(torch.isfinite(trained).all()),
        "moved": float((trained - untrained).abs().max()),
    }


def main() -> None:
    for work in json.loads(Path(sys.argv[1]).read_text()):
        try:
            result = reload(Path(work["output"]), work["base"])
        except Exception:  # noqa: BLE001 - one model's failure is not the next one's
            result = {"error": traceback.format_exc()}
        print("RESULT " + json.dumps(result), flush=True)


if __name__ == "__main__":
    main()

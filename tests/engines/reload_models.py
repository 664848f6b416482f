"""Read saved models back as a user would, and compare each with the one it was trained from.

Usage: reload_models.py FILE.json, a list of {"output": FOLDER, "base": FOLDER}. Prints a JSON line for each:
`finite`, whether all logits are; `moved`, the largest difference to the base model's; or `error`.
"""

import json
import sys
import traceback
from pathlib import Path

import torch
import transformers
from peft import PeftModel

PROMPT = "Dan has 3 plums and buys 4 more. How many plums has he?"


def reload(output: Path, base: str) -> dict:
    tokens = transformers.AutoTokenizer.from_pretrained(output)(PROMPT, return_tensors="pt")
    # By name, since a model that sees pictures too is no "causal language model" to an auto class.
    reader = getattr(transformers, transformers.AutoConfig.from_pretrained(base).architectures[0])
    if (output / "adapter_config.json").exists():
        model = PeftModel.from_pretrained(reader.from_pretrained(base), output)
    else:
        model = reader.from_pretrained(output)
    with torch.no_grad():
        trained, untrained = (
            one.float().eval()(**tokens).logits for one in (model, reader.from_pretrained(base))
        )
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

"""Let transformers alone answer the prompts of records, one by one. Prints a JSON string for each.

Usage: greedy_answers.py CHECKPOINT RECORDS.jsonl
"""

import json
import sys
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

checkpoint, records = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(checkpoint)
model = AutoModelForCausalLM.from_pretrained(checkpoint).eval()
for line in Path(records).read_text().splitlines():
    ids = tokenizer(json.loads(line)["prompt"], add_special_tokens=False, return_tensors="pt").input_ids
    out = model.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=0)
    print(json.dumps(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)))

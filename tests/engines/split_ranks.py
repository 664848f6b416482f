"""Train recipes on several ranks, each rank with its own `dataset_dir`, and write down the rows each one sees.

Usage: torchrun --nproc_per_node=N split_ranks.py FILE.json, a list of {"recipe": {...}, "dataset_dirs": [one a
rank], "seen": FOLDER}. Each rank writes <seen>/<rank>.json: the numbers N of the rows "row N." it trained on.
"""

import json
import os
import re
import sys
from pathlib import Path

from llamafactory.train.sft import workflow
from llamafactory.train.tuner import run_exp
from torch import distributed


def main() -> None:
    rank = int(os.environ["RANK"])
    seen: list[int] = []
    step = workflow.CustomSeq2SeqTrainer.training_step

    def recorded(self, model, inputs, *arguments):
        texts = self.processing_class.batch_decode(inputs["input_ids"])
        seen.extend(int(number) for text in texts for number in re.findall(r"row (\d+)\.", text))
        return step(self, model, inputs, *arguments)

    workflow.CustomSeq2SeqTrainer.training_step = recorded
    # LLaMA-Factory ends the process group behind a run, and torchrun starts none for a second one.
    distributed.destroy_process_group = lambda: None
    for run in json.loads(Path(sys.argv[1]).read_text()):
        seen.clear()
        run_exp({**run["recipe"], "dataset_dir": run["dataset_dirs"][rank]})
        folder = Path(run["seen"])
        folder.mkdir(exist_ok=True)
        (folder / f"{rank}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main()

"""Run several Axolotl recipes in one process, since importing it costs more than a tiny run.

Usage: axolotl_runs.py FILE.json, a list of {"verb": "train" or "evaluate", "recipe": PATH, "options": {...}}.
Prints a JSON line per run: its exit code and what it said.
"""

import contextlib
import gc
import importlib
import io
import json
import os
import sys
import traceback
from pathlib import Path

import datasets
import multiprocess

_context = multiprocess.get_context
_map = datasets.Dataset.map


def fork_instead_of_spawn(method=None):
    """`Dataset.save_to_disk` spawns a worker, which imports the whole engine to write a few rows."""
    return _context("fork" if method == "spawn" else method)


def map_in_this_process(self, *args, num_proc=None, **options):
    """Of a pool, starting it is all the work where rows are few."""
    return _map(self, *args, **options)


def let_ranks_share_a_cpu():
    """Axolotl asks for the peer access of GPUs and puts rank N on GPU N, whether there are any or not."""
    from axolotl.cli import config
    from axolotl.utils import environment

    normalize = config.normalize_config

    def normalize_for_cpu(cfg):
        normalize(cfg)
        cfg.device_map = {"": "cpu"}

    config.normalize_config = normalize_for_cpu
    environment.check_cuda_p2p_support = lambda: True


def main() -> None:
    multiprocess.get_context = fork_instead_of_spawn
    datasets.Dataset.map = map_in_this_process
    runs = json.loads(Path(sys.argv[1]).read_text())
    sys.argv = sys.argv[:1]  # Axolotl parses what is left
    if os.environ.get("WORLD_SIZE", "1") != "1":
        let_ranks_share_a_cpu()
    for run in runs:
        for path, content in run.get("write", {}).items():
            Path(path).write_text(content)
        captured = io.StringIO()
        code = 0
        with contextlib.redirect_stderr(captured), contextlib.redirect_stdout(captured):
            try:
                importlib.import_module(f"axolotl.cli.{run['verb']}").do_cli(
                    config=run["recipe"], **run.get("options", {})
                )
            except SystemExit as stop:
                code = stop.code
            except Exception:  # noqa: BLE001 - the test reads what was said
                traceback.print_exc()
                code = 1
        # The engine collects garbage at every turn: not all that it has imported, again and again.
        gc.collect()
        gc.freeze()
        if os.environ.get("RANK", "0") == "0":
            print("RESULT " + json.dumps({"code": code, "log": captured.getvalue()}), flush=True)


if __name__ == "__main__":  # Axolotl's worker processes import this file again
    main()

"""Run several Axolotl recipes in one process, since importing it costs more than a tiny run.

Usage: axolotl_runs.py FILE.json, a list of {"verb": "train" or "evaluate", "recipe": PATH, "options": {...}}.
Prints a JSON line per run: its exit code and what it said.
"""

import contextlib
import importlib
import io
import json
import sys
import traceback
from pathlib import Path

import multiprocess

_context = multiprocess.get_context


def fork_instead_of_spawn(method=None):
    """`Dataset.save_to_disk` spawns a worker, which imports the whole engine to write a few rows."""
    return _context("fork" if method == "spawn" else method)


def main() -> None:
    multiprocess.get_context = fork_instead_of_spawn
    runs = json.loads(Path(sys.argv[1]).read_text())
    sys.argv = sys.argv[:1]  # Axolotl parses what is left
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
        print("RESULT " + json.dumps({"code": code, "log": captured.getvalue()}), flush=True)


if __name__ == "__main__":  # Axolotl's worker processes import this file again
    main()

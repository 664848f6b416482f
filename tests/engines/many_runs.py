"""Run several LLaMA-Factory recipes in one process, since importing it costs more than a tiny run.

Usage: many_runs.py FILE.json, a list of recipes. Prints a JSON line per recipe: its exit code
and what it said.
"""

import contextlib
import gc
import io
import json
import sys
import traceback
from pathlib import Path

from llamafactory.train.tuner import run_exp


def main() -> None:
    for recipe in json.loads(Path(sys.argv[1]).read_text()):
        captured = io.StringIO()
        code = 0
        with contextlib.redirect_stderr(captured), contextlib.redirect_stdout(captured):
            try:
                run_exp(dict(recipe))
            except SystemExit as stop:
                code = stop.code
            except Exception:  # noqa: BLE001 - the test reads what was said
                traceback.print_exc()
                code = 1
        # The engine collects garbage at every turn: not all that it has imported, again and again.
        gc.collect()
        gc.freeze()
        print("RESULT " + json.dumps({"code": code, "log": captured.getvalue()}), flush=True)


if __name__ == "__main__":
    main()

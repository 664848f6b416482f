"""Makes LLaMA-Factory start the `torchrun` of its own environment.

Its launcher runs the bare name from PATH. Called as `/env/bin/llamafactory-cli` without an activated
environment that is nobody's torchrun, or another environment's, where our hook and the engine's own
packages are missing or different.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from types import ModuleType


def use_own_torchrun(_launcher: ModuleType) -> None:
    """Put this interpreter's folder first on PATH when another `torchrun`, or none, would be found."""
    own = Path(sys.executable).parent / "torchrun"
    found = shutil.which("torchrun")
    if not own.exists() or (found is not None and Path(found).resolve() == own.resolve()):
        return
    os.environ["PATH"] = os.pathsep.join([str(own.parent), os.environ.get("PATH", "")])
    if found is not None:
        print(f"[tunebook] torchrun: using {own}, not {found} from PATH", file=sys.stderr)

"""Start-up hook: binds tunebook when an engine's own module is imported, and not before.

`tunebook_hook.pth` calls `install` in every Python start of the environment, torchrun's workers included,
so this file imports only the standard library, and adds one finder. The finder acts only on the names in
`_BINDINGS`. `TUNEBOOK_HOOK=0` switches it off.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

# module of an engine -> (module of ours, function that is given the engine's module once it is executed)
_BINDINGS = {
    "llamafactory.launcher": ("tunebook.hooks.startup", "use_own_torchrun"),
    "llamafactory.hparams.parser": ("tunebook.hooks.contract", "bind_llamafactory"),
    "llamafactory.data.loader": ("tunebook.hooks.token_cache", "bind"),
    **{
        f"llamafactory.train.{stage}.workflow": ("tunebook.hooks.llamafactory", "bind")
        for stage in ("sft", "dpo", "kto", "rm", "pt", "ppo")
    },
    "transformers.trainer": ("tunebook.hooks.callbacks", "bind"),
}


class _Finder:
    """Finds the modules of `_BINDINGS` through the other finders and wraps their loaders."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the module's own spec, with a loader that binds after executing; None for other names."""
        if name not in _BINDINGS:
            return None
        for finder in sys.meta_path:
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _Loader(spec.loader)  # type: ignore[assignment]
                return spec
        return None


class _Loader:
    """A module's own loader, with one step after it."""

    def __init__(self, loader: object) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> object:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As the module's own loader does."""
        return self._loader.create_module(spec)  # type: ignore[attr-defined, no-any-return]

    def exec_module(self, module: ModuleType) -> None:
        """Execute the module, then hand it to our binding."""
        self._loader.exec_module(module)  # type: ignore[attr-defined]
        ours, function = _BINDINGS[module.__name__]
        try:
            getattr(importlib.import_module(ours), function)(module)
        except Exception as error:  # noqa: BLE001 -- whoever imports the module may want nothing of ours
            _left_unbound(module, error)


def _left_unbound(module: ModuleType, error: Exception) -> None:
    """Say in one line that a module is not as we know it, and let the program go on.

    Only a training that would have no metrics, and not say so, ends: when it begins.
    """
    from tunebook import __version__

    what = " ".join(f"{type(error).__name__}: {error}".split())
    line = f"[tunebook {__version__}] {module.__name__} is not the one we know: {what}"
    print(line, file=sys.stderr, flush=True)

    def refuse(*_: object, **__: object) -> None:
        sys.exit(
            f"{line}. No metric would be measured: install a version of docs/versions.md, or "
            "set TUNEBOOK_HOOK=0 to train without tunebook"
        )

    if module.__name__.startswith("llamafactory.train."):
        for name in [name for name in vars(module) if name.startswith("run_")]:
            setattr(module, name, refuse)


def install() -> None:
    """Add the finder, unless `TUNEBOOK_HOOK=0` or it is there already."""
    if os.environ.get("TUNEBOOK_HOOK") == "0" or any(isinstance(f, _Finder) for f in sys.meta_path):
        return
    sys.meta_path.insert(0, _Finder())  # type: ignore[arg-type]


def use_own_torchrun(_launcher: ModuleType) -> None:
    """Put this interpreter's folder first on PATH when another `torchrun`, or none, would be found.

    LLaMA-Factory's launcher runs the bare name from PATH. Called as `/env/bin/llamafactory-cli` without an
    activated environment it finds none, or another environment's, where our hook and the engine's own
    packages are missing or different.
    """
    import shutil
    from pathlib import Path

    own = Path(sys.executable).parent / "torchrun"
    found = shutil.which("torchrun")
    if not own.exists() or (found is not None and Path(found).resolve() == own.resolve()):
        return
    os.environ["PATH"] = os.pathsep.join([str(own.parent), os.environ.get("PATH", "")])
    if found is not None:
        print(f"[tunebook] torchrun: using {own}, not {found} from PATH", file=sys.stderr)

"""Write down LLaMA-Factory's chat templates, so that the tokens of a row can be counted without the engine.

Run it in the engine's environment. The file is named after the engine's version and lies in the package; a
test holds it equal to what this script makes.

Example:
  .venv/bin/python scripts/snapshot_templates.py
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

FOLDER = Path(__file__).resolve().parents[1] / "plugins" / "tunebook" / "lengths"

# Class of the template -> what our reader calls it. Another class means that rows are put together in a way
# our reader does not know: the snapshot is then not made.
KINDS = {
    "Template": "plain",
    "Llama2Template": "fused_system",
    "ReasoningTemplate": "reasoning",
    "Glm47ReasoningTemplate": "reasoning",
}
PARTS = ("user", "assistant", "system", "observation", "prefix")
FORMATTERS = ("StringFormatter", "EmptyFormatter")


def templates() -> dict[str, dict[str, Any]]:
    """Every template of the installed engine, by name."""
    from llamafactory.data.template import TEMPLATES

    return {name: _describe(name, template) for name, template in sorted(TEMPLATES.items())}


def _describe(name: str, template: Any) -> dict[str, Any]:
    kind = KINDS.get(type(template).__name__)
    formatters = {part: getattr(template, f"format_{part}") for part in PARTS}
    unknown = [type(part).__name__ for part in formatters.values() if type(part).__name__ not in FORMATTERS]
    if kind is None or unknown:
        raise click.ClickException(f"{name}: {type(template).__name__} with {unknown} is new to this script")
    described = {"kind": kind}
    described |= {part: [_slot(slot) for slot in formatter.slots] for part, formatter in formatters.items()}
    described["default_system"] = template.default_system
    described["stop_words"] = list(template.stop_words)
    described["thought_words"] = list(template.thought_words)
    described["empty_thought"] = template.add_thought()
    described["efficient_eos"] = template.efficient_eos
    described["replace_eos"] = template.replace_eos
    described["multimodal"] = type(template.mm_plugin).__name__ != "BasePlugin"
    return described


def _slot(slot: Any) -> Any:
    """Text stays text, `{"token": ...}` stays as it is, and the set `{"bos_token"}` gets a key."""
    if isinstance(slot, set):
        (special,) = slot
        return {"special": special}
    return slot


def snapshot() -> tuple[Path, str]:
    """Return where the snapshot of the installed engine belongs, and its text: one template a line."""
    release = version("llamafactory")
    lines = [
        f"    {json.dumps(name)}: {json.dumps(template, ensure_ascii=False)}"
        for name, template in templates().items()
    ]
    text = f'{{\n  "version": "{release}",\n  "templates": {{\n' + ",\n".join(lines) + "\n  }\n}\n"
    return FOLDER / f"llamafactory-{release}.json", text


@click.command()
def main() -> None:
    r"""Write the snapshot of the LLaMA-Factory that is installed in this environment.

    \b
    Example:
      .venv/bin/python scripts/snapshot_templates.py
    """
    path, text = snapshot()
    path.write_text(text, encoding="utf-8")
    click.echo(f"{path}: {len(json.loads(text)['templates'])} templates")


if __name__ == "__main__":
    main()

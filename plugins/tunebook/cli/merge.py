"""`tunebook merge`: an adapter into its base, the best checkpoint as a model, several models into one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from tunebook import files
from tunebook.merging.output import working_bytes
from tunebook.merging.plan import plan_merge
from tunebook.merging.run import find_environment, merge

if TYPE_CHECKING:
    from tunebook.merging.plan import MergePlan
    from tunebook.types import EngineName

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}


class _Weights(click.ParamType[list[float]]):
    name = "W,W,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[float]:
        try:
            return [float(part) for part in str(value).split(",")]
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers; write 0.5,0.3,0.2", param, ctx)


class _Size(click.ParamType[int]):
    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]?B|)", str(value).strip().upper())
        size = float(found[1]) * _UNITS[found[2]] if found else 0
        if size < 1:
            self.fail(f"{value!r} is not a size; write 5GB or 500MB", param, ctx)
        return int(size)


@click.command("merge")
@click.argument("inputs", nargs=-1, required=True, metavar="RUN_OR_MODEL...")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder to make.")
@click.option("--checkpoint", metavar="best|last|STEP", help="Which checkpoint of each RUN; else its best.")
@click.option("--weights", type=_Weights(), help="Share of each input, summing to 1; equal ones by default.")
@click.option("--base", metavar="MODEL", help="The adapters' base, where they name another or none.")
@click.option(
    "--as",
    "as_kind",
    type=click.Choice(["adapter", "model"]),
    help="What several adapters become; an adapter by default.",
)
@click.option("--max-shard-size", type=_Size(), help="Largest file, e.g. 5GB; as in the base by default.")
@click.option("--check/--no-check", default=True, show_default=True, help="Compare logits before and after.")
@click.option(
    "--engine", type=click.Choice(["llamafactory", "axolotl"]), help="Whose environment to compute in."
)
@click.option("--dry-run", is_flag=True, help="Print the plan, sizes, memory and free space; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print plan or result as JSON.")
@click.pass_context
def merge_command(
    ctx: click.Context,
    inputs: tuple[str, ...],
    output: Path,
    checkpoint: str | None,
    weights: list[float] | None,
    base: str | None,
    as_kind: Literal["adapter", "model"] | None,
    max_shard_size: int | None,
    check: bool,
    engine: EngineName | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Merge an adapter into its base, or several models into one.

    One adapter becomes a model; one full model is written as it is, without its optimizer state. Several
    become their weighted average. The folder appears once it is complete and its logits equal those of
    its inputs; where they do not, the result is in OUTPUT.failed and the exit status is 1.

    \b
    Example:
      tunebook merge output/demo/lora --checkpoint best -o output/demo/merged
      tunebook merge output/node_0 output/node_1 output/node_2 -o output/soup
    """
    plan = plan_merge(
        inputs,
        output,
        checkpoint=checkpoint,
        weights=weights,
        base=base,
        as_kind=as_kind,
        max_shard_bytes=max_shard_size,
    )
    environment = find_environment(plan, engine)
    figures = _figures(plan, environment)
    if dry_run:
        click.echo(json.dumps(figures, indent=2, ensure_ascii=False) if as_json else _told(plan, figures))
        return
    if not as_json:
        click.echo(_told(plan, figures), err=True)
    outcome = merge(plan, environment=environment, check=check)
    if as_json:
        click.echo(
            json.dumps(
                {"ok": outcome.ok, "output": str(outcome.folder), **outcome.record},
                indent=2,
                ensure_ascii=False,
            )
        )
    else:
        parity = outcome.record["parity"]
        for line in parity["lines"] if parity else ["Not checked (--no-check)."]:
            click.echo(line)
        click.echo(
            f"{'written to' if outcome.ok else 'THE CHECK FAILED; kept for inspection in'} {outcome.folder}"
        )
    if not outcome.ok:
        ctx.exit(1)


def _figures(plan: MergePlan, environment: Path) -> dict[str, Any]:
    return {
        "way": plan.way,
        "what": plan.what,
        "inputs": [
            {
                "name": given.argument,
                "folder": str(given.folder),
                "kind": given.kind,
                "step": given.step,
                "chosen": given.chosen,
                "weight": weight,
                "bytes": given.weights.bytes,
            }
            for given, weight in zip(plan.inputs, plan.weights, strict=True)
        ],
        "base": str(plan.base.folder) if plan.base else None,
        "output": str(plan.output),
        "files": [{"name": shard.name, "bytes": shard.bytes} for shard in plan.shards],
        "output_bytes": plan.bytes,
        "changed_tensors": sum(not tensor.is_copy for tensor in plan.tensors),
        "tensors": len(plan.tensors),
        "working_bytes": working_bytes(plan.tensors),
        "peak_bytes": plan.peak_bytes,
        "free_bytes": files.free_bytes(plan.output),
        "environment": str(environment),
        "notes": list(plan.notes),
    }


def _told(plan: MergePlan, figures: dict[str, Any]) -> str:
    lines = [plan.what]
    for given in figures["inputs"]:
        share = f", weight {given['weight']:.6g}" if len(plan.inputs) > 1 else ""
        lines.append(f"  {given['folder']}: {given['kind']}, {given['chosen']}{share}")
    if figures["base"]:
        lines.append(f"  base: {figures['base']}")
    size, count = f"{figures['output_bytes'] / 1e6:,.1f} MB", len(plan.shards)
    room, peak = f"{figures['free_bytes'] / 1e9:,.1f} GB", f"{figures['peak_bytes'] / 1e9:.1f} GB"
    lines += [
        f"  output: {figures['output']}: {size} in {count} file{'s' * (count > 1)}; {room} are free",
        f"  {figures['changed_tensors']} of {figures['tensors']} tensors change",
        f"  memory: up to {peak} for the merge; the check loads the model in fp32",
        *(f"  note: {note}" for note in plan.notes),
    ]
    return "\n".join(lines)

"""Where a run writes and reads back: folders that are taken, missing or ignored."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tunebook.checks.findings import Finding
    from tunebook.checks.subject import Subject


def check_outputs(subject: Subject) -> Iterator[Finding]:
    """Every rule about one recipe's folders, and where it reports to."""
    if subject.engine == "axolotl":
        yield from _mixed(subject, full=not subject.get("adapter"))
        return
    if subject.command != "train":
        return
    if not subject.get("output_dir"):
        yield subject.finding(
            "output_dir",
            rule="no-output-dir",
            severity="warning",
            message="there is no output_dir: every such run writes into trainer_output",
            fix="add output_dir: output/<name>",
        )
    yield from _mixed(subject, full=subject.effective("finetuning_type") == "full")
    yield from _old_checkpoints(subject)
    tokens = subject.get("tokenized_path")
    if isinstance(tokens, str) and subject.locate(tokens) is not None and subject.get("dataset"):
        yield subject.finding(
            "tokenized_path",
            rule="stale-tokens",
            severity="warning",
            message=f"{tokens} exists, so dataset, template and cutoff_len of this recipe are not looked at",
            fix="remove the folder, or the key",
        )
    wished = subject.get("resume_from_checkpoint")
    if isinstance(wished, str) and subject.locate(wished) is None:
        yield subject.finding(
            "resume_from_checkpoint",
            rule="missing-checkpoint",
            severity="error",
            message=f"{wished}: there is no such folder",
            fix="name a checkpoint folder, or remove the key: the newest whole one is found",
        )
    told = subject.get("report_to")
    if isinstance(told, str) and "," in told:
        listed = f"[{', '.join(part.strip() for part in told.split(','))}]"
        yield subject.finding(
            "report_to",
            rule="report-to",
            severity="error",
            message=f"{told!r} is taken for one name",
            fix=f"write report_to: {listed}",
            edit=subject.rewrite("report_to", listed),
        )
    if subject.get("export_dir"):
        yield subject.finding(
            "export_dir",
            rule="export-in-training",
            severity="warning",
            message="training does not export; `llamafactory-cli export` does, from a file of its own",
            fix="remove it and export from a file of its own",
        )


def check_across(subjects: Sequence[Subject]) -> Iterator[Finding]:
    """`output-clash`: of several files checked together, those that write into one folder."""
    first: dict[Path, Subject] = {}
    for subject in subjects:
        value = subject.get("output_dir")
        if not isinstance(value, str) or subject.command != "train":
            continue
        folder = Path(value).absolute()
        other = first.setdefault(folder, subject)
        if other is not subject and other.file != subject.file:
            yield subject.finding(
                "output_dir",
                rule="output-clash",
                severity="hint",
                message=f"{other.file} writes there too",
                fix="give each run an output_dir of its own",
            )


def _mixed(subject: Subject, *, full: bool) -> Iterator[Finding]:
    """LLaMA-Factory crashes at the end where an adapter and a whole model meet in one folder."""
    value = subject.get("output_dir")
    folder = Path(value) if isinstance(value, str) else None
    if folder is None or not folder.is_dir() or subject.get("overwrite_output_dir"):
        return
    adapter = (folder / "adapter_config.json").is_file()
    weights = any(folder.glob("model*.safetensors"))
    if (full and adapter) or (not full and weights and not adapter):
        held, made = ("an adapter", "a whole model") if full else ("a whole model", "an adapter")
        yield subject.finding(
            "output_dir",
            rule="mixed-output",
            severity="error",
            message=f"{value} holds {held} of an earlier run, and gets {made} beside it",
            fix="set another output_dir",
        )


def _old_checkpoints(subject: Subject) -> Iterator[Finding]:
    """`overwrite_output_dir` begins anew and leaves what is there, which a later start takes for its own."""
    value = subject.get("output_dir")
    held = sorted(Path(value).glob("checkpoint-*")) if isinstance(value, str) else []
    if held and subject.get("overwrite_output_dir"):
        yield subject.finding(
            "output_dir",
            rule="old-checkpoints",
            severity="hint",
            message=f"{value} holds {held[-1].name} of an earlier run; overwrite_output_dir keeps it, "
            "and a later start may go on from there",
            fix="set another output_dir, or remove the folder",
        )

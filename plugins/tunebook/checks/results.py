"""The results of several files: what shows only between them, and how another program reads them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tunebook.checks.arithmetic import effective_batch_fault
from tunebook.checks.findings import CheckResult, in_order
from tunebook.checks.outputs import check_across

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tunebook.checks.run import Checked


def with_effective_batch(checked: Checked, wanted: int) -> Checked:
    """Return the result with an error where the effective batch is another than `wanted`."""
    fault = None if checked.subject is None else effective_batch_fault(checked.subject, wanted)
    if fault is None:
        return checked
    findings = in_order([*checked.result.findings, fault])
    return checked._replace(result=CheckResult(name=checked.result.name, findings=findings))


def with_clashes(checked: Sequence[Checked]) -> list[CheckResult]:
    """Return the results of files checked together, with what only shows between them."""
    clashes = list(check_across([one.subject for one in checked if one.subject is not None]))
    return [
        CheckResult(
            name=one.result.name,
            findings=in_order(
                [
                    *one.result.findings,
                    *(clash for clash in clashes if one.subject and clash.file == one.subject.file),
                ]
            ),
        )
        for one in checked
    ]


def as_json(results: Sequence[CheckResult]) -> str:
    """Return results as one JSON document."""
    return json.dumps(
        [
            {
                "name": result.name,
                "clean": result.clean,
                "findings": [
                    {
                        "file": finding.file,
                        "line": finding.line,
                        "key": finding.key,
                        "rule": finding.rule,
                        "severity": finding.severity,
                        "message": finding.message,
                        "fix": finding.fix,
                        "text": finding.text,
                    }
                    for finding in result.findings
                ],
            }
            for result in results
        ],
        indent=2,
        ensure_ascii=False,
    )

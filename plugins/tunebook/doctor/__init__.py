"""What this machine can run: facts gathered here and in the engines' environments, then judged by rules.

`machine`, `network` and `environments` gather; `rules_*` are pure functions from facts to findings.
"""

from tunebook.doctor.facts import Facts, Finding
from tunebook.doctor.run import Report, examine

__all__ = ["Facts", "Finding", "Report", "examine"]

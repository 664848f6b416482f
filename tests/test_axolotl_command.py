import sys

import pytest
from click.testing import CliRunner

from tunebook.cli.axolotl import tunebook


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--help"], 0, "Recipes, honest metrics and reports"),
        (["ls", "--engine", "axolotl"], 0, "axolotl/demo/full_sft_recommend"),
        (["show", "no/such/recipe"], 2, "fix: "),
        (["train", "--help"], 0, "--dry-run"),
    ],
)
def test_axolotl_hands_everything_on_to_our_command(monkeypatch, arguments, code, said):
    monkeypatch.setattr(sys, "argv", ["axolotl", "tunebook"])
    result = CliRunner().invoke(tunebook, arguments)
    assert result.exit_code == code
    assert said in result.output

"""`tunebook train --cache` with the real Axolotl."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.axolotl


def test_a_second_run_reads_the_rows_and_changed_data_are_made_anew(axolotl_recipe, registry, tmp_path):
    shutil.copytree(registry, tmp_path / "data")
    # Absolute paths of the shared registry become the copy's, which can be edited.
    text = axolotl_recipe("like_train", "like_odd").read_text().replace(str(registry), str(tmp_path / "data"))
    values = yaml.safe_load(text) | {"dataset_prepared_path": None}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    logs = [train(tmp_path, name) for name in ("first", "second")]
    rows = json.loads((tmp_path / "data" / "like_train.json").read_text())
    (tmp_path / "data" / "like_train.json").write_text(json.dumps(rows[:50]))
    logs.append(train(tmp_path, "changed"))

    tokenised = ["Tokenizing Prompts" in log for log in logs]
    assert tokenised == [True, False, True], logs[1][-3000:]
    histories = [history(tmp_path / name) for name in ("first", "second")]
    assert histories[0] == histories[1]
    assert any("eval_macro_f1" in entry for entry in histories[1])
    folders = {yaml.safe_load((tmp_path / name / "tunebook" / "recipe.yaml").read_text())["dataset_prepared_path"]
               for name in ("first", "second", "changed")}  # fmt: skip
    assert len(folders) == 2
    assert all(folder.startswith("rows/tunebook-") for folder in folders)
    assert sorted(f"rows/{path.name}" for path in (tmp_path / "rows").iterdir()) == sorted(folders)


def train(folder: Path, output: str) -> str:
    done = subprocess.run(
        [
            Path(sys.executable).parent / "tunebook",
            "train",
            "recipe.yaml",
            f"output_dir={output}",
            "--cache=rows",
        ],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


def history(output: Path) -> list[dict]:
    timed = ("runtime", "per_second", "flos", "GiB)")
    log = json.loads((output / "checkpoint-4" / "trainer_state.json").read_text())["log_history"]
    return [
        {key: value for key, value in entry.items() if not key.endswith(timed) and "tokens/" not in key}
        for entry in log
    ]

"""`tunebook report --watch` beside a training that really runs."""

import json
import os
import subprocess
import sys
import time

import pytest
import yaml


@pytest.mark.engine
@pytest.mark.timeout(600)
def test_the_report_follows_a_training_from_before_its_first_step_to_its_end(recipe, tmp_path):
    run, folder = tmp_path / "run", tmp_path / "report"
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe(output_dir=str(run), max_steps=120, eval_steps=40, save_steps=120)))
    run.mkdir()
    tunebook = [sys.executable, "-m", "tunebook.cli.main"]
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with (tmp_path / "train.log").open("wb") as log:
        training = subprocess.Popen([*tunebook, "train", file], stdout=log, stderr=subprocess.STDOUT, env=env)
        arguments = ["report", run, "-o", folder, "--watch", "--every", "1"]
        watching = subprocess.Popen(
            [*tunebook, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
        )
        live = []
        while watching.poll() is None:
            if (folder / "report.json").exists():
                report = json.loads((folder / "report.json").read_text("utf-8"))
                page = (folder / "report.html").read_text("utf-8")
                assert page.rstrip().endswith("</html>")
                if report["live"]:
                    live.append(report["charts"][0]["last_step"] if report["charts"] else 0)
            time.sleep(0.2)
        out, err = watching.communicate(timeout=60)
        assert training.wait(timeout=60) == 0, (tmp_path / "train.log").read_text(errors="replace")[-3000:]
    assert watching.returncode == 0, err
    assert "1 run going on, nothing logged yet" in err
    assert live, err
    assert min(live) < 120
    final = json.loads((folder / "report.json").read_text("utf-8"))
    assert final["live"] is None
    assert final["charts"][0]["last_step"] == 120
    assert [row["step"] for row in final["runs"][0]["evaluations"] if not row["after_training"]] == [
        40,
        80,
        120,
    ]
    assert "best" in out or "reached" in out
